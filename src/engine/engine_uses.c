/* engine_uses.c: records which experts, or which single neurons, a run uses. */
#include "base/fail.h"
#include "engine/engine_internal.h"

void pi2_engine_record_uses(void *user, const uint32_t *keys, uint32_t count) {
    const pi2_engine *engine = user;
    if (!engine->traces.uses) return; /* it was ended */
    if (keys) pi2_trace_writer_demand(engine->traces.uses, keys, count);
    else pi2_trace_writer_pass(engine->traces.uses, count);
}

void pi2_engine_record_near(void *user, const uint8_t *near, uint32_t count) {
    const pi2_engine *engine = user;
    if (engine->traces.uses) pi2_trace_writer_near(engine->traces.uses, near, count);
}

/* Why no use of the model's can be recorded. */
static pi2_status refuse(const pi2_engine *engine, const char *reason) {
    return pi2_fail(PI2_ERR_INVALID, "a trace of uses was asked for, but %s has none: %s",
                    engine->run.source.model_path, reason);
}

pi2_status pi2_engine_open_use_trace(pi2_engine *engine, const char *const *inputs) {
    const char *path = engine->run.options.record_trace;
    const pi2_model_shape *shape = &engine->run.source.model->shape;
    if (!path) return PI2_OK;
    if (pi2_model_has_experts(shape) && engine->run.plan.approximates) {
        return refuse(engine, "where a predictor names neurons, tokens ask for no experts");
    }
    if (pi2_model_has_experts(shape)) {
        const pi2_trace_header header = {
            .layer_count = pi2_model_expert_layers(shape), .expert_count = pi2_layer_ffns(shape),
            .used_count = pi2_token_ffns(shape),
            .slot_bytes = pi2_expert_cache_slot_bytes(engine->run.source.model->layout) };
        return pi2_trace_writer_open(path, inputs, &header, &engine->traces.uses);
    }
    if (!pi2_model_shape_fires(shape)) {
        return refuse(engine, "it has no experts, and with its activation every token uses all neurons");
    }
    if (pi2_run_plan_is_dense(&engine->run)) return refuse(engine, "with --sparsity off every token uses all neurons");
    return pi2_trace_writer_open(path, inputs, NULL, &engine->traces.uses);
}

pi2_status pi2_engine_begin_use_trace(pi2_engine *engine) {
    const pi2_neuron_banks *banks = engine->run.plan.banks;
    if (!engine->traces.uses || pi2_model_has_experts(&engine->run.source.model->shape)) return PI2_OK;
    if (engine->run.plan.memory.neuron_bytes == 0) {
        return refuse(engine, "as it is opened here every token uses all neurons; single ones are computed from a file "
                      "of 'prepare --layout neuron', with a budget that holds what they need ('plan' tells)");
    }
    pi2_trace_header header = { .layer_count = banks->count, .expert_count = pi2_neuron_store_layer_keys(banks) };
    for (uint32_t b = 0; b < banks->count; b++) {
        if (banks->banks[b].unit_bytes > header.slot_bytes) header.slot_bytes = banks->banks[b].unit_bytes;
    }
    return pi2_trace_writer_begin(engine->traces.uses, &header);
}
