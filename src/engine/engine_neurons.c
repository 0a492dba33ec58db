/* engine_neurons.c: the store that single neurons are in, where decoding computes them. */
#include "engine/engine_internal.h"

pi2_status pi2_engine_start_neurons(pi2_engine *engine) {
    if (engine->run.plan.memory.neuron_bytes == 0) return PI2_OK;
    const pi2_neuron_store_options options = {
        .banks = engine->run.plan.banks, .path = engine->run.source.weights_path, .store = engine->store,
        .memory = engine->memory.neurons.pages, .memory_bytes = engine->memory.neurons.bytes,
        .shared = engine->run.plan.memory.shared_bytes ? engine->memory.stream.pages : NULL,
        .shared_bytes = engine->run.plan.memory.shared_bytes,
        .keeps_nothing = engine->run.options.forgets_neurons };
    return pi2_neuron_store_create(&options, &engine->neuron_store);
}
