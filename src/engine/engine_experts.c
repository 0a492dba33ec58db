/* engine_experts.c: the expert cache of a mixture of experts, and what is said about its size. */
#include "base/fail.h"
#include "base/parse_size.h"
#include "engine/engine_internal.h"

static void on_demand(void *user, const uint32_t *keys, uint32_t count) {
    pi2_trace_writer *trace = user;
    if (keys) pi2_trace_writer_demand(trace, keys, count);
    else pi2_trace_writer_pass(trace, count);
}

static pi2_status open_trace(pi2_engine *engine) {
    if (!engine->options.record_trace) return PI2_OK;
    const pi2_model_shape *shape = &engine->model->shape;
    if (shape->expert_count == 0) {
        return pi2_fail(PI2_ERR_INVALID, "a trace of experts was asked for, but %s has none", engine->model_path);
    }
    const pi2_trace_header header = {
        .layer_count = shape->layer_count, .expert_count = shape->expert_count,
        .used_count = shape->expert_used_count,
        .slot_bytes = pi2_expert_cache_slot_bytes(engine->model->layout) };
    return pi2_trace_writer_open(engine->options.record_trace, &header, &engine->trace);
}

/* A cache that is smaller than what one token uses finds little there again: that is worth a line. */
static void tell_size(const pi2_engine *engine) {
    const pi2_model_shape *shape = &engine->model->shape;
    const uint64_t slot = pi2_expert_cache_slot_bytes(engine->model->layout);
    const uint32_t slots = pi2_expert_cache_slots(engine->expert_cache);
    const uint32_t all = shape->layer_count * shape->expert_count;
    const uint32_t wanted = shape->layer_count * shape->expert_used_count;
    char bytes[PI2_SIZE_TEXT_BYTES], needed[PI2_SIZE_TEXT_BYTES];
    if (slots == all) return;
    pi2_engine_log(engine, "expert cache: %u of %u experts (%s), policy %s", slots, all,
                   pi2_format_size(engine->plan.expert_bytes, bytes), engine->policy->name);
    if (slots >= wanted) return;
    pi2_engine_log(engine, "one token uses %u experts (%s), more than the cache holds: most are read again for every "
                   "token; more memory helps", wanted, pi2_format_size(slot * wanted, needed));
}

pi2_status pi2_engine_start_experts(pi2_engine *engine, bool loaded) {
    PI2_TRY(open_trace(engine));
    if (engine->model->shape.expert_count == 0) return PI2_OK;
    const pi2_expert_cache_options options = {
        .layout = engine->model->layout, .path = engine->weights_path, .memory = engine->experts.pages,
        .bytes = engine->plan.expert_bytes, .loaded = loaded, .policy = engine->policy,
        .layer_keys = engine->model->shape.expert_count, .reader = engine->reader,
        .spin_us = pi2_allowed_cpus() >= engine->plan.shape.thread_count ? PI2_TEAM_SPIN_US : 0,
        .on_demand_only = engine->options.read_on_demand,
        .on_demand = engine->trace ? on_demand : NULL, .on_demand_user = engine->trace,
        .trace = pi2_run_trace_events(engine->run_trace) };
    PI2_TRY(pi2_expert_cache_create(&options, &engine->expert_cache));
    tell_size(engine);
    return PI2_OK;
}
