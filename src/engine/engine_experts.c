/* engine_experts.c: the expert cache of a mixture of experts, and what is said about its size. */
#include <stdio.h>

#include "base/fail.h"
#include "base/parse_size.h"
#include "engine/engine_internal.h"

static void on_demand(void *user, const uint32_t *keys, uint32_t count) {
    const pi2_engine *engine = user;
    if (!engine->traces.experts) return; /* it was ended */
    if (keys) pi2_trace_writer_demand(engine->traces.experts, keys, count);
    else pi2_trace_writer_pass(engine->traces.experts, count);
}

pi2_status pi2_engine_open_expert_trace(pi2_engine *engine, const char *const *inputs) {
    if (!engine->options.record_trace) return PI2_OK;
    const pi2_model_shape *shape = &engine->source.model->shape;
    if (shape->expert_count == 0) {
        return pi2_fail(PI2_ERR_INVALID, "a trace of experts was asked for, but %s has none",
                        engine->source.model_path);
    }
    const pi2_trace_header header = {
        .layer_count = shape->layer_count, .expert_count = shape->expert_count,
        .used_count = shape->expert_used_count,
        .slot_bytes = pi2_expert_cache_slot_bytes(engine->source.model->layout) };
    return pi2_trace_writer_open(engine->options.record_trace, inputs, &header, &engine->traces.experts);
}

uint32_t pi2_engine_expert_slots(const pi2_engine *engine, uint32_t position) {
    const pi2_extent_layout *layout = engine->source.model->layout;
    if (engine->source.model->shape.expert_count == 0) return 0;
    const uint64_t bytes = engine->plan.memory.expert_bytes - pi2_engine_loan_due(engine, position);
    if (bytes >= pi2_expert_cache_all_bytes(layout)) return pi2_expert_cache_keys(layout);
    return (uint32_t)(bytes / pi2_expert_cache_slot_bytes(layout));
}

/* A cache that is smaller than what one token uses finds little there again. */
void pi2_engine_explain_experts(const pi2_engine *engine, uint32_t slots, char *text, size_t capacity) {
    const pi2_model_shape *shape = &engine->source.model->shape;
    const uint32_t wanted = shape->expert_count ? shape->layer_count * shape->expert_used_count : 0;
    char needed[PI2_SIZE_TEXT_BYTES];
    *text = '\0';
    if (slots >= wanted) return;
    const uint64_t slot = pi2_expert_cache_slot_bytes(engine->source.model->layout);
    (void)snprintf(text, capacity, "one token uses %u experts (%s), more than the %u that memory holds: most are read "
                   "again for every token; more memory helps", wanted, pi2_format_size(slot * wanted, needed), slots);
}

static void tell_size(const pi2_engine *engine) {
    const pi2_model_shape *shape = &engine->source.model->shape;
    const uint32_t slots = pi2_expert_cache_slots(engine->expert_cache);
    const uint32_t all = shape->layer_count * shape->expert_count;
    char bytes[PI2_SIZE_TEXT_BYTES], note[192];
    if (slots == all) return;
    pi2_engine_log(engine, "expert cache: %u of %u experts (%s), policy %s", slots, all,
                   pi2_format_size(engine->plan.memory.expert_bytes, bytes), engine->plan.policy->name);
    if (engine->options.routing_trace) {
        pi2_engine_log(engine, "hot experts: %u; %s", engine->plan.hot.count, engine->plan.hot_reason);
    }
    pi2_engine_explain_experts(engine, slots, note, sizeof note);
    if (*note) pi2_engine_log(engine, "%s", note);
}

pi2_status pi2_engine_start_experts(pi2_engine *engine, bool loaded) {
    if (engine->source.model->shape.expert_count == 0) return PI2_OK;
    const pi2_expert_cache_options options = {
        .layout = engine->source.model->layout, .path = engine->source.weights_path,
        .memory = engine->memory.experts.pages,
        .bytes = engine->plan.memory.expert_bytes, .loaded = loaded, .policy = engine->plan.policy,
        .layer_keys = engine->source.model->shape.expert_count, .hot_keys = engine->plan.hot.keys,
        .hot_count = engine->plan.hot.count, .reader = engine->reader,
        .spin_us = pi2_team_spin_us(engine->plan.memory.shape.thread_count),
        .on_demand_only = engine->options.read_on_demand,
        .on_demand = engine->traces.experts ? on_demand : NULL, .on_demand_user = engine,
        .trace = pi2_run_trace_events(engine->traces.run) };
    PI2_TRY(pi2_expert_cache_create(&options, &engine->expert_cache));
    tell_size(engine);
    return PI2_OK;
}
