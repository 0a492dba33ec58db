/* engine.c: from a path and a budget to threads that are ready for a token. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu_features.h"
#include "base/fail.h"
#include "base/memory_ledger.h"
#include "base/memory_limit.h"
#include "base/pages.h"
#include "base/parse_size.h"
#include "base/shared_team.h"
#include "engine/engine_internal.h"
#include "engine/model_check.h"
#include "engine/neuron_tally.h"
#include "engine/sampler.h"
#include "engine/shortcut_file.h"
#include "file_formats/cluster_file.h"
#include "predictor/predictor_file.h"
#include "storage/reader.h"

const char *pi2_cache_type_name(size_t type) {
    static const char *const names[] = { "f16", "q8_0", "f32" };
    return type < sizeof names / sizeof names[0] ? names[type] : NULL;
}

void pi2_engine_options_init(pi2_engine_options *options) {
    *options = (pi2_engine_options){ .logits_tokens = 1, .read_method = "auto", .allow_prepare = true,
                                     .cache_policy = "auto", .look_ahead = "auto", .hot_share = -1,
                                     .device_share = -1, .draft_nodes = PI2_DRAFT_NODES_CHOSEN,
                                     .sparsity = "exact",
                                     .cache_type = PI2_CACHE_F16 };
}

/* ---- memory and threads ---- */

static pi2_status reserve(pi2_engine_memory *memory, uint64_t bytes, bool huge_pages, const char *what) {
    if (bytes == 0) return PI2_OK;
    PI2_TRY(pi2_pages_reserve((size_t)bytes, huge_pages, what, &memory->pages));
    memory->bytes = (size_t)bytes;
    return PI2_OK;
}

/* may_be_read: by a device that was lost, of whose work nobody knows when it ends. */
static void release(pi2_engine_memory *memory, bool may_be_read) {
    if (may_be_read) pi2_pages_vacate(memory->pages, memory->bytes);
    else pi2_pages_release(memory->pages, memory->bytes);
    memset(memory, 0, sizeof *memory);
}

/* Whether weights can leave memory and come back: they can be read again. */
static bool gives_back(const pi2_engine *engine) {
    return engine->run.source.model->has_file && !engine->run.options.keep_memory;
}

/*
 * Experts, or Gates of experts, that all fit and may leave lie in slots of one size. Where they have several sizes the
 * ends of slots stay untouched, which only small pages make free.
 */
static pi2_status reserve_slots(const pi2_engine *engine, pi2_engine_memory *memory, uint64_t planned, uint64_t all,
                                uint64_t slot, const char *what) {
    const pi2_model *model = engine->run.source.model;
    uint64_t bytes = planned;
    if (planned && planned >= all && model->has_file) bytes = slot * pi2_expert_cache_keys(model->layout);
    const bool is_dense = bytes == planned || bytes == all;
    return reserve(memory, bytes, planned > (64 << 20) && is_dense, what);
}

static pi2_status reserve_experts(pi2_engine *engine) {
    const pi2_extent_layout *layout = engine->run.source.model->layout;
    const pi2_memory_plan *plan = &engine->run.plan.memory;
    PI2_TRY(reserve_slots(engine, &engine->memory.experts, plan->expert_bytes, pi2_expert_cache_all_bytes(layout),
                          pi2_expert_cache_slot_bytes(layout), "experts"));
    return reserve_slots(engine, &engine->memory.gates, plan->gate_bytes, pi2_expert_cache_all_gate_bytes(layout),
                         pi2_expert_cache_gate_slot_bytes(layout), "experts' Gates");
}

/*
 * Huge pages make reading memory faster, and leave only some MB at once. Where weights stream and few
 * are resident the disk is the limit, and what the key-value cache lends is less than that.
 */
static bool has_huge_weights(const pi2_engine *engine, uint64_t resident_bytes) {
    return resident_bytes > (engine->run.plan.memory.everything_resident ? 64u << 20 : 512u << 20);
}

static pi2_status reserve_memory(pi2_engine *engine) {
    const pi2_memory_plan *plan = &engine->run.plan.memory;
    const uint64_t resident = engine->run.plan.resident_room_bytes;
    PI2_TRY(reserve(&engine->memory.weights, resident, has_huge_weights(engine, resident), "weights"));
    PI2_TRY(reserve_experts(engine));
    const uint64_t neurons = plan->neuron_bytes - plan->shared_bytes;
    PI2_TRY(reserve(&engine->memory.neurons, neurons, neurons > (64 << 20), "neurons"));
    if (gives_back(engine) && plan->ring_bytes == 0) {
        const uint64_t most = engine->run.report.budget_bytes, all = engine->run.source.model->layout->weight_bytes;
        const uint64_t ring = pi2_memory_plan_ring_bytes(engine->run.source.model, all < most ? all : most);
        PI2_TRY(reserve(&engine->memory.spare_ring, ring, true, "the stream buffer"));
    }
    /* What is read into lies in huge pages: a read of 1 MB is then one piece of memory to the device, not 256. */
    const uint64_t shared = plan->ring_bytes + plan->dense_scratch_bytes;
    PI2_TRY(reserve(&engine->memory.stream, shared + plan->staging_bytes, true, "the stream buffer"));
    PI2_TRY(reserve(&engine->memory.cache, plan->cache_bytes, false, "the key-value cache"));
    return reserve(&engine->memory.scratch, plan->scratch_bytes, false, "scratch");
}

static void on_stall(void *context, const char *text) { pi2_planned_run_log(context, "%s", text); }

/* What is registered is pinned at once. What only passes of all neurons use is not: it comes behind the ring. */
static size_t registered_bytes(const pi2_engine *engine) {
    return engine->run.plan.memory.dense_scratch_bytes ? (size_t)engine->run.plan.memory.ring_bytes
                                                       : engine->memory.stream.bytes;
}

static pi2_status open_reader(pi2_engine *engine, pi2_reader **reader_out) {
    const size_t registered = registered_bytes(engine);
    const bool streams_alone = !pi2_model_has_experts(&engine->run.source.model->shape);
    const pi2_reader_options options = {
        .bytes_in_flight = streams_alone ? pi2_ring_bytes_in_flight(engine->run.plan.memory.ring_bytes) : 0,
        .path = engine->run.source.weights_path, .method = engine->run.options.read_method,
        .depth = engine->run.plan.memory.neuron_bytes ? PI2_SMALL_READ_DEPTH : PI2_READ_DEPTH,
        .buffer = registered ? engine->memory.stream.pages : NULL, .buffer_bytes = registered,
        .on_stall = on_stall, .stall_context = &engine->run, .trace = pi2_run_trace_events(engine->traces.run),
    };
    PI2_TRY(pi2_reader_open(&options, reader_out));
    pi2_run_texts *texts = &engine->run.texts;
    (void)snprintf(texts->read_description, sizeof texts->read_description, "%s",
                   pi2_reader_description(*reader_out));
    engine->run.options.read_method = pi2_reader_method(*reader_out);
    return PI2_OK;
}

/* Of threads: members that wait for devices sleep. */
static unsigned spin_us(const pi2_engine *engine) { return pi2_team_spin_us(pi2_run_processor_threads(&engine->run)); }

static pi2_status start_store(pi2_engine *engine) {
    pi2_reader *reader = NULL;
    if (engine->run.source.model->has_file) PI2_TRY(open_reader(engine, &reader));
    const pi2_store_options options = { .reader = reader, .spin_us = spin_us(engine),
                                        .on_demand_only = engine->run.options.read_on_demand,
                                        .trace = pi2_run_trace_events(engine->traces.run) };
    const pi2_status status = pi2_store_create(&options, &engine->store);
    if (status != PI2_OK) pi2_reader_close(reader);
    return status;
}

static uint64_t ring_bytes(const pi2_engine *engine) {
    return engine->run.plan.memory.ring_bytes ? engine->run.plan.memory.ring_bytes : engine->memory.spare_ring.bytes;
}

static pi2_status start_weights(pi2_engine *engine, bool loaded) {
    const pi2_run_plan *plan = &engine->run.plan;
    const pi2_weight_store_options options = {
        .layout = engine->run.source.model->layout, .path = engine->run.source.weights_path,
        .sequence = plan->sequence,
        .sequence_count = plan->memory.everything_resident ? plan->sequence_count : plan->pass_end,
        .head_begin = plan->head_begin, .pass_end = plan->pass_end,
        .resident = plan->resident,
        .huge_pages = has_huge_weights(engine, engine->memory.weights.bytes),
        .resident_memory = engine->memory.weights.pages, .resident_loaded = loaded,
        .ring = plan->memory.ring_bytes ? engine->memory.stream.pages : engine->memory.spare_ring.pages,
        .ring_bytes = (size_t)ring_bytes(engine), .ring_planned = plan->memory.ring_bytes > 0,
        .may_give_back = gives_back(engine), .store = engine->store, .by_neuron = plan->by_neuron,
        .leaves_last = plan->kept,
    };
    PI2_TRY(pi2_weight_store_create(&options, &engine->weight_store));
    if (loaded || !plan->memory.everything_resident) return PI2_OK;
    for (uint32_t i = plan->pass_end; i < plan->sequence_count; i++) {
        PI2_TRY(pi2_weight_store_load(engine->weight_store, plan->sequence[i]));
    }
    return PI2_OK;
}

/* The ring, scratch of passes of all neurons, and the staging of embedding rows, in this order. */
static uint8_t *stream_at(const pi2_engine *engine, uint64_t offset) {
    return (uint8_t *)engine->memory.stream.pages + offset;
}

static pi2_status load_predictor(pi2_engine *engine) {
    pi2_run_plan *plan = &engine->run.plan;
    const uint64_t bytes = pi2_run_predictor_bytes(&engine->run);
    if (bytes == 0) return PI2_OK;
    /* It is read whole now, so that huge pages cost nothing. */
    PI2_TRY(reserve(&engine->memory.predictor, bytes, bytes >= 2 * PI2_HUGE_PAGE_BYTES, "the predictor"));
    return pi2_predictor_load(plan->predictor_path, &plan->predictor, engine->memory.predictor.pages);
}

static pi2_status start_forward(pi2_engine *engine) {
    const pi2_memory_plan *plan = &engine->run.plan.memory;
    const pi2_forward_options options = {
        .model = engine->run.source.model, .shape = plan->shape, .team = engine->team, .weights = engine->weight_store,
        .experts = engine->expert_cache, .look_ahead = engine->run.plan.look_ahead,
        .gates = !engine->neuron_store ? NULL : engine->gate_cache ? engine->gate_cache : engine->expert_cache,
        .neurons = engine->neuron_store, .banks = engine->run.plan.banks,
        .neurons_always = engine->run.options.sparsity && strcmp(engine->run.options.sparsity, "always") == 0,
        .predictor = engine->run.plan.approximates ? &engine->run.plan.predictor : NULL,
        .foreteller = plan->shape.foretells && engine->run.plan.predictor.kind ? &engine->run.plan.predictor : NULL,
        .gate_foretells = engine->run.plan.gate_foretells && engine->neuron_store,
        .shortcut = engine->shortcut,
        .foretells_firing = !engine->run.plan.approximates || engine->run.plan.left_out < 0,
        .left_out = engine->run.plan.left_out,
        .store = engine->store, .path = engine->run.source.weights_path, .cpu_features = pi2_cpu_features(),
        .spin_us = spin_us(engine), .device_spin_us = pi2_team_spin_us(plan->shape.thread_count),
        .devices = engine->run.devices.of, .device_count = engine->run.devices.count,
        .devices_always = engine->run.options.device_always, .device_shares = engine->run.devices.shares,
        .trace = pi2_run_trace_events(engine->traces.run),
        .stream_bytes = (size_t)ring_bytes(engine), .resident = engine->run.plan.resident,
        .cache = engine->memory.cache.pages, .scratch = engine->memory.scratch.pages,
        .dense_scratch = plan->dense_scratch_bytes ? stream_at(engine, plan->ring_bytes) : NULL,
        .ring_is_shared = plan->shared_bytes && plan->ring_bytes,
        .staging = plan->staging_bytes ? stream_at(engine, plan->ring_bytes + plan->dense_scratch_bytes) : NULL,
    };
    return pi2_forward_create(&options, &engine->forward);
}

/* ---- opening ---- */

static pi2_status start(pi2_engine *engine, const pi2_gguf *gguf) {
    const bool from_file = engine->run.source.model->has_file;
    PI2_TRY(reserve_memory(engine));
    PI2_TRY(pi2_team_join(engine->run.plan.memory.shape.thread_count, engine->run.devices.count, &engine->team));
    if (!from_file) PI2_TRY(pi2_engine_load_gguf(engine, gguf));
    PI2_TRY(start_store(engine));
    PI2_TRY(start_weights(engine, !from_file));
    PI2_TRY(pi2_engine_start_neurons(engine));
    PI2_TRY(pi2_engine_start_experts(engine, !from_file)); /* last: experts' slots are given back first */
    PI2_TRY(load_predictor(engine));
    PI2_TRY(pi2_engine_load_shortcut(engine));
    PI2_TRY(start_forward(engine));
    PI2_TRY(pi2_engine_start_sessions(engine));
    return pi2_engine_start_relief(engine);
}

/* What only an engine knows. */
static void complete_report(pi2_engine *engine) {
    pi2_engine_report *report = &engine->run.report;
    const pi2_memory_plan *plan = &engine->run.plan.memory;
    const pi2_reader *reader = pi2_store_options_of(engine->store)->reader;
    if (reader && !plan->everything_resident) report->read_method = pi2_reader_method(reader);
    report->relief_description = pi2_memory_relief_description(engine);
    if (!engine->expert_cache) return;
    report->expert_cache_bytes = plan->expert_bytes;
    report->expert_slots = pi2_expert_cache_slots(engine->expert_cache);
    report->gate_bytes = plan->gate_bytes;
    if (engine->gate_cache) report->gate_slots = pi2_expert_cache_slots(engine->gate_cache);
    report->cache_policy = engine->run.plan.policy->name;
}

pi2_status pi2_engine_start(pi2_engine *engine, const pi2_gguf *gguf) {
    PI2_TRY(start(engine, gguf));
    complete_report(engine);
    return PI2_OK;
}

/* A trace that cannot be is refused before anything that takes long, such as a cluster file that is made. */
static pi2_status plan_engine(pi2_engine *engine, const pi2_engine_options *options, pi2_run_adjuster *adjust,
                              void *user, pi2_gguf **gguf) {
    PI2_TRY(pi2_planned_run_open(options, &engine->run, gguf));
    if (adjust) PI2_TRY(adjust(user, &engine->run));
    PI2_TRY(pi2_advised_sampling_read(*gguf, &engine->advised));
    PI2_TRY(pi2_engine_open_outputs(engine, *gguf));
    PI2_TRY(pi2_planned_run_settle(&engine->run, true, engine->traces.run, gguf));
    engine->claimed_bytes = pi2_run_plan_claim_bytes(&engine->run.plan); /* a draft model's too */
    pi2_memory_claim(engine->run.plan.held_bytes, engine->claimed_bytes);
    return PI2_OK;
}

static pi2_status open_engine(pi2_engine *engine, const pi2_engine_options *options, pi2_run_adjuster *adjust,
                              void *user, pi2_gguf **gguf) {
    if (!pi2_memory_begin_plan(options->callbacks.cancelled, options->callbacks.user)) {
        return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted while another engine was being opened");
    }
    const pi2_status planned = plan_engine(engine, options, adjust, user, gguf);
    pi2_memory_end_plan();
    PI2_TRY(planned);
    PI2_TRY(pi2_engine_start(engine, *gguf));
    PI2_TRY(pi2_engine_load_next_table(engine));
    return pi2_engine_open_draft(engine);
}

pi2_status pi2_engine_open(const pi2_engine_options *options, pi2_engine **engine_out) {
    return pi2_engine_open_adjusted(options, NULL, NULL, engine_out);
}

pi2_status pi2_engine_open_adjusted(const pi2_engine_options *options, pi2_run_adjuster *adjust, void *user,
                                    pi2_engine **engine_out) {
    *engine_out = NULL;
    pi2_engine *engine = calloc(1, sizeof *engine);
    if (!engine) return pi2_fail(PI2_ERR_MEMORY, "no memory for the engine");
    pi2_gguf *gguf = NULL;
    const pi2_status status = open_engine(engine, options, adjust, user, &gguf);
    pi2_gguf_close(gguf);
    if (status != PI2_OK) {
        pi2_engine_close(engine);
        return status;
    }
    *engine_out = engine;
    return PI2_OK;
}

static pi2_status finish_run_trace(pi2_engine *engine) {
    if (!engine->traces.run || !engine->weight_store) return PI2_OK; /* it did not open: no run to tell of */
    pi2_store_reset(engine->store); /* waits for what is still read ahead */
    pi2_engine_counters counters;
    pi2_engine_count(engine, &counters);
    const uint64_t dropped = pi2_timeline_dropped(pi2_run_trace_events(engine->traces.run));
    for (uint32_t i = 0; i < engine->run.devices.count; i++) { /* the team's last members */
        pi2_run_trace_name_member(engine->traces.run, pi2_run_processor_threads(&engine->run) + i,
                                  pi2_backend_facts(engine->run.devices.of[i])->name);
    }
    if (dropped) {
        pi2_planned_run_log(&engine->run, "the trace's memory was full: the last %llu events are missing from it",
                       (unsigned long long)dropped);
    }
    return pi2_run_trace_finish(engine->traces.run, engine->run.source.model->layout, &counters);
}

pi2_status pi2_engine_finish_trace(pi2_engine *engine) {
    const pi2_status uses = pi2_trace_writer_close(engine->traces.uses);
    engine->traces.uses = NULL;
    if (uses == PI2_OK) return finish_run_trace(engine);
    char text[512];
    (void)snprintf(text, sizeof text, "%s", pi2_error_text());
    if (finish_run_trace(engine) != PI2_OK) pi2_planned_run_log(&engine->run, "%s", pi2_error_text());
    return pi2_fail(uses, "%s", text);
}

static void release_all(pi2_engine *engine) {
    pi2_engine_memory *const all[] = { &engine->memory.spare_ring, &engine->memory.scratch, &engine->memory.cache,
                                       &engine->memory.stream, &engine->memory.experts, &engine->memory.gates,
                                       &engine->memory.neurons, &engine->memory.predictor, &engine->memory.weights };
    bool may_be_read = false;
    for (uint32_t i = 0; i < engine->run.devices.count; i++) {
        pi2_backend_forget(engine->run.devices.of[i]); /* views of that memory */
        may_be_read |= pi2_backend_loss(engine->run.devices.of[i]) != NULL;
    }
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) release(all[i], may_be_read);
}

void pi2_engine_close(pi2_engine *engine) {
    if (!engine) return;
    assert(engine->sessions.used == 0);
    pi2_engine_close(engine->draft);
    pi2_memory_unclaim(engine->claimed_bytes);
    if (engine->forward && pi2_engine_finish_trace(engine) != PI2_OK) {
        pi2_planned_run_log(&engine->run, "%s", pi2_error_text());
    }
    pi2_engine_end_sessions(engine);
    pi2_forward_free(engine->forward);
    pi2_weight_store_free(engine->weight_store);
    pi2_expert_cache_free(engine->expert_cache);
    pi2_expert_cache_free(engine->gate_cache);
    pi2_neuron_store_free(engine->neuron_store);
    pi2_store_free(engine->store);
    pi2_team_leave(engine->team);
    pi2_memory_relief_free(engine->relief);
    free(engine->next_table);
    pi2_shortcut_free(engine->shortcut);
    release_all(engine);
    pi2_run_trace_close(engine->traces.run);
    (void)pi2_trace_writer_close(engine->traces.uses); /* an engine that did not open: without a pass */
    pi2_planned_run_close(&engine->run);
    free(engine);
}

void pi2_engine_advise_sampling(const pi2_engine *engine, pi2_sampling *sampling) {
    pi2_advised_sampling_apply(&engine->advised, sampling);
}

const pi2_engine_report *pi2_engine_get_report(const pi2_engine *engine) { return &engine->run.report; }

bool pi2_engine_is_exact(const pi2_engine *engine) {
    return !engine->run.plan.approximates && !engine->run.devices.has_other_bits;
}

double pi2_engine_device_share(const pi2_engine *engine, uint32_t tokens) {
    const bool by_neuron = engine->neuron_store && tokens <= engine->run.plan.memory.shape.neuron_tokens;
    if (engine->run.devices.count == 0 || tokens == 0) return -1;
    return pi2_forward_device_share(engine->forward, tokens, by_neuron);
}

/* What a cache counted, of whole experts or of Gates. */
static void add_experts(const pi2_expert_cache *cache, pi2_engine_counters *counters) {
    pi2_expert_cache_counters experts;
    pi2_expert_cache_count(cache, &experts);
    counters->expert_uses += experts.touches;
    counters->expert_hits += experts.hits;
    counters->hot_experts += experts.hot;
    counters->hot_hits += experts.hot_hits;
    counters->hot_promotions += experts.promotions;
    counters->hot_demotions += experts.demotions;
    counters->prefetched += experts.ahead;
    counters->prefetches_kept += experts.ahead_kept;
    counters->prefetches_wasted += experts.ahead_wasted;
    counters->prefetched_bytes += experts.ahead_bytes;
    counters->prefetch_kept_bytes += experts.ahead_kept_bytes;
    counters->prefetch_wasted_bytes += experts.ahead_wasted_bytes;
    counters->experts_foretold += experts.foreseen;
    counters->experts_foretold_used += experts.foreseen_demanded;
}

void pi2_engine_count(const pi2_engine *engine, pi2_engine_counters *counters_out) {
    memset(counters_out, 0, sizeof *counters_out);
    pi2_store_counters store;
    pi2_store_count(engine->store, &store);
    counters_out->bytes_needed = store.needed_bytes;
    if (engine->expert_cache) add_experts(engine->expert_cache, counters_out);
    if (engine->gate_cache) add_experts(engine->gate_cache, counters_out);
    if (engine->neuron_store) {
        pi2_neuron_store_counters neurons;
        pi2_neuron_store_count(engine->neuron_store, &neurons);
        counters_out->neuron_uses = neurons.uses;
        counters_out->neuron_hits = neurons.hits;
        counters_out->neuron_gap_bytes = store.bytes_dropped;
        counters_out->neurons_kept = neurons.kept;
        counters_out->neurons_foretold = neurons.foretold;
        counters_out->neurons_foretold_used = neurons.foretold_used;
    }
    if (engine->run.plan.foretells && engine->forward) { /* Gate is asked without a predictor */
        pi2_prediction_counters predictions;
        pi2_forward_count_predictions(engine->forward, &predictions);
        counters_out->neurons_predicted = predictions.predicted;
        counters_out->neurons_predicted_used = predictions.fired;
        counters_out->predict_ns = predictions.predict_ns / engine->run.plan.memory.shape.thread_count;
    }
    if (engine->forward) counters_out->hot_neurons = pi2_forward_hot_count(engine->forward);
    for (uint32_t i = 0; i < engine->run.devices.count; i++) {
        pi2_backend_counters device;
        pi2_backend_count(engine->run.devices.of[i], &device);
        counters_out->device_calls += device.calls;
        counters_out->device_bytes += device.weight_bytes;
        counters_out->device_ns += device.busy_ns;
    }
    counters_out->bytes_read = store.bytes_read;
    counters_out->reads = store.reads;
    counters_out->stall_ns = store.stall_ns / engine->run.plan.memory.shape.thread_count;
    pi2_memory_relief_count(engine, counters_out);
    if (engine->traces.run) {
        const uint64_t busy_ns = pi2_timeline_busy_ns(pi2_run_trace_events(engine->traces.run)) /
                                 engine->run.plan.memory.shape.thread_count;
        counters_out->compute_ns = busy_ns > counters_out->stall_ns ? busy_ns - counters_out->stall_ns : 0;
    }
}

uint64_t pi2_peak_memory_bytes(void) {
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    return peak;
}
