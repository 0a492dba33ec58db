/* run_plan_hot.c: which experts are hot, and why: by the recorded run that the options name. */
#include <stdio.h>
#include <string.h>

#include "base/fail.h"
#include "neuron_cache/expert_cache.h"
#include "planner/planned_run.h"

static void tell_choice(pi2_planned_run *run) {
    const pi2_hot_plan *hot = &run->plan.hot;
    char *reason = run->plan.hot_reason;
    const size_t capacity = sizeof run->plan.hot_reason;
    int at = 0;
    while (at < PI2_HOT_SHARES - 1 && pi2_hot_shares[at] != hot->share) at++;
    if (run->options.hot_share >= 0) {
        (void)snprintf(reason, capacity, "%g of the cache, as asked for", hot->share);
    } else if (hot->passes == 0) {
        (void)snprintf(reason, capacity, "the recorded run is too short to choose by");
    } else if (hot->share > 0) {
        (void)snprintf(reason, capacity, "they have %g of the cache: %.1f %% of the recorded uses "
                       "are read with them, %.1f %% without", hot->share, 100 * hot->reads[at], 100 * hot->reads[0]);
    } else {
        (void)snprintf(reason, capacity, "the policy alone does as well: %.1f %% of the recorded "
                       "uses are read", 100 * hot->reads[0]);
    }
}

static pi2_status check_trace(const pi2_planned_run *run, const pi2_trace_header *header) {
    const pi2_model_shape *shape = &run->source.model->shape;
    if (header->layer_count == pi2_model_expert_layers(shape) && header->expert_count == pi2_layer_ffns(shape) &&
        header->used_count == pi2_token_ffns(shape)) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s: a trace of another model (%u layers of %u experts, %u used), this one "
                    "has %u of %u, %u used", run->options.routing_trace, header->layer_count, header->expert_count,
                    header->used_count, pi2_model_expert_layers(shape), pi2_layer_ffns(shape), pi2_token_ffns(shape));
}

pi2_status pi2_run_plan_check_routing(const pi2_planned_run *run) {
    pi2_trace trace;
    if (!run->options.routing_trace) return PI2_OK;
    if (!pi2_model_has_experts(&run->source.model->shape)) {
        return pi2_fail(PI2_ERR_INVALID, "%s: a routing of experts was given, but %s has none",
                        run->options.routing_trace, run->source.model_path);
    }
    PI2_TRY(pi2_trace_read_experts(run->options.routing_trace, &trace));
    const pi2_status status = check_trace(run, &trace.header);
    pi2_trace_free(&trace);
    return status;
}

static pi2_status choose(pi2_planned_run *run, uint32_t slots) {
    pi2_trace trace;
    PI2_TRY(pi2_trace_read_experts(run->options.routing_trace, &trace));
    pi2_status status = check_trace(run, &trace.header);
    if (status == PI2_OK) {
        status = pi2_hot_plan_make(&trace, run->plan.policy, slots, run->options.hot_share, &run->plan.hot);
    }
    pi2_trace_free(&trace);
    if (status == PI2_OK) tell_choice(run);
    return status;
}

pi2_status pi2_run_plan_choose_hot(pi2_planned_run *run) {
    const pi2_extent_layout *layout = run->source.model->layout;
    const uint64_t slot = pi2_expert_cache_slot_bytes(layout);
    if (slot == 0) return PI2_OK;
    if (run->plan.memory.expert_bytes >= pi2_expert_cache_all_bytes(layout)) {
        (void)snprintf(run->plan.hot_reason, sizeof run->plan.hot_reason, "all experts stay in memory");
        return PI2_OK;
    }
    if (run->plan.memory.gate_bytes || run->plan.memory.shape.predicts) {
        (void)snprintf(run->plan.hot_reason, sizeof run->plan.hot_reason,
                       "tokens compute single neurons, and whole experts serve prompts");
        return PI2_OK;
    }
    if (!run->options.routing_trace) {
        (void)snprintf(run->plan.hot_reason, sizeof run->plan.hot_reason,
                       "no recorded routing tells which are used most");
        return PI2_OK;
    }
    return choose(run, (uint32_t)(run->plan.memory.expert_bytes / slot));
}
