/* engine_experts.c: the expert cache of a mixture of experts, and what is said about its size. */
#include <stdio.h>

#include "base/fail.h"
#include "base/parse_size.h"
#include "engine/engine_internal.h"

static void tell_neurons(const pi2_engine *engine) {
    const pi2_memory_plan *plan = &engine->run.plan.memory;
    char gates[PI2_SIZE_TEXT_BYTES], neurons[PI2_SIZE_TEXT_BYTES], all[PI2_SIZE_TEXT_BYTES];
    pi2_planned_run_log(&engine->run, "tokens compute single neurons: Gates of %u of %u experts (%s), neurons %s of "
                        "%s; prompts use whole experts, %u at once", pi2_expert_cache_slots(engine->gate_cache),
                        pi2_expert_cache_keys(engine->run.source.model->layout),
                        pi2_format_size(plan->gate_bytes, gates),
                        pi2_format_size(plan->neuron_bytes, neurons),
                        pi2_format_size(pi2_neuron_store_all_bytes(engine->run.plan.banks), all),
                        pi2_expert_cache_slots(engine->expert_cache));
}

/* Where a predictor names the neurons no Gate is wanted apart. */
static void tell_named(const pi2_engine *engine) {
    const pi2_memory_plan *plan = &engine->run.plan.memory;
    char neurons[PI2_SIZE_TEXT_BYTES], all[PI2_SIZE_TEXT_BYTES];
    pi2_planned_run_log(&engine->run, "tokens compute the neurons that a predictor names: %s of %s of experts' "
                        "neurons; prompts use whole experts, %u at once", pi2_format_size(plan->neuron_bytes, neurons),
                        pi2_format_size(pi2_neuron_store_all_bytes(engine->run.plan.banks), all),
                        pi2_expert_cache_slots(engine->expert_cache));
}

static void tell_size(const pi2_engine *engine) {
    const uint32_t slots = pi2_expert_cache_slots(engine->expert_cache);
    const uint32_t all = pi2_expert_cache_keys(engine->run.source.model->layout);
    char bytes[PI2_SIZE_TEXT_BYTES], note[192];
    if (slots == all) return;
    pi2_planned_run_log(&engine->run, "expert cache: %u of %u experts (%s), policy %s", slots, all,
                   pi2_format_size(engine->run.plan.memory.expert_bytes, bytes), engine->run.plan.policy->name);
    if (engine->run.plan.memory.whole_is_faster) {
        pi2_planned_run_log(&engine->run, "experts are read whole: faster here, as far as can be told, than those of "
                            "their neurons that fire ('--sparsity always' reads these)");
    }
    if (engine->run.options.routing_trace) {
        pi2_planned_run_log(&engine->run, "hot experts: %u; %s", engine->run.plan.hot.count,
                            engine->run.plan.hot_reason);
    }
    pi2_run_plan_explain_experts(&engine->run, slots, note, sizeof note);
    if (*note) pi2_planned_run_log(&engine->run, "%s", note);
}

pi2_status pi2_engine_start_experts(pi2_engine *engine, bool loaded) {
    const pi2_run_plan *plan = &engine->run.plan;
    const pi2_model_shape *shape = &engine->run.source.model->shape;
    if (!pi2_model_has_experts(shape)) return PI2_OK;
    pi2_expert_cache_options options = {
        .layout = engine->run.source.model->layout, .path = engine->run.source.weights_path,
        .memory = engine->memory.experts.pages,
        .bytes = plan->memory.expert_bytes, .loaded = loaded, .policy = plan->policy,
        .layer_keys = pi2_layer_ffns(shape), .hot_keys = plan->hot.keys,
        .hot_count = plan->hot.count, .store = engine->store,
        .least_slots = pi2_token_ffns(shape),
        .on_demand = engine->traces.uses ? pi2_engine_record_uses : NULL, .on_demand_user = engine };
    PI2_TRY(pi2_expert_cache_create(&options, &engine->expert_cache));
    if (plan->memory.gate_bytes == 0) {
        if (plan->memory.shape.predicts && plan->memory.neuron_bytes) tell_named(engine);
        else tell_size(engine);
        return PI2_OK;
    }
    options.gates_only = true;
    options.least_slots = 0; /* Gates stay: every token asks all that its router chose */
    options.memory = engine->memory.gates.pages;
    options.bytes = plan->memory.gate_bytes;
    PI2_TRY(pi2_expert_cache_create(&options, &engine->gate_cache));
    tell_neurons(engine);
    return PI2_OK;
}
