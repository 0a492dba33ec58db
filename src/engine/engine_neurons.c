/* engine_neurons.c: the store that single neurons are in, where decoding computes them. */
#include "engine/engine_internal.h"
#include "machine/read_gaps.h"

/* Without measurements neighbours share a read, and nothing between them is read. */
static uint32_t gap_units(const pi2_engine *engine) {
    const pi2_machine_profile *machine = engine->run.options.machine;
    const pi2_neuron_banks *banks = engine->run.plan.banks;
    pi2_machine_disk disk;
    if (!machine || pi2_profile_place(engine->run.source.weights_path, &disk) != PI2_OK) return 0;
    const uint32_t number = pi2_profile_find_disk(machine, &disk);
    uint32_t largest = 0;
    for (uint32_t b = 0; b < banks->count; b++) {
        if (largest < banks->banks[b].unit_bytes) largest = banks->banks[b].unit_bytes;
    }
    if (number == PI2_PROFILE_NO_DISK || largest == 0) return 0;
    return pi2_read_gap_units(machine, engine->run.options.read_method, number, largest);
}

/* Where a predictor names neurons most Gates are not computed. */
static const pi2_unit_rule *rule_of(const pi2_engine *engine) {
    const pi2_unit_rule *rule = engine->run.plan.neuron_rule;
    return rule && rule->near_step && engine->run.plan.approximates ? pi2_unit_rule_find("mix") : rule;
}

pi2_status pi2_engine_start_neurons(pi2_engine *engine) {
    PI2_TRY(pi2_engine_begin_use_trace(engine));
    if (engine->run.plan.memory.neuron_bytes == 0) return PI2_OK;
    const bool is_recorded = engine->traces.uses && !pi2_model_has_experts(&engine->run.source.model->shape);
    const pi2_neuron_store_options options = {
        .banks = engine->run.plan.banks, .path = engine->run.source.weights_path, .store = engine->store,
        .memory = engine->memory.neurons.pages, .memory_bytes = engine->memory.neurons.bytes,
        .shared = engine->run.plan.memory.shared_bytes ? engine->memory.stream.pages : NULL,
        .shared_bytes = engine->run.plan.memory.shared_bytes,
        .rule = rule_of(engine), .keeps_nothing = !engine->run.plan.neuron_rule,
        .gap_units = gap_units(engine),
        .on_use = is_recorded ? pi2_engine_record_uses : NULL,
        .on_near = is_recorded ? pi2_engine_record_near : NULL, .on_use_user = engine };
    return pi2_neuron_store_create(&options, &engine->neuron_store);
}
