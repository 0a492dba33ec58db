/* engine.c: from a path and a budget to threads that are ready for a token. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu_features.h"
#include "base/fail.h"
#include "base/memory_limit.h"
#include "base/pages.h"
#include "base/parse_size.h"
#include "engine/drafter.h"
#include "engine/engine_internal.h"
#include "engine/model_check.h"
#include "engine/neuron_tally.h"
#include "engine/sampler.h"
#include "file_formats/cluster_file.h"

enum {
    /* Stacks, code that has not run yet, the ring of the I/O thread, malloc's slack. */
    GROWTH_BYTES = 900 * 1000
};

void pi2_engine_log(const pi2_engine *engine, const char *format, ...) {
    if (!engine->options.callbacks.log) return;
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    engine->options.callbacks.log(engine->options.callbacks.user, line);
}

void pi2_engine_options_init(pi2_engine_options *options) {
    *options = (pi2_engine_options){ .logits_tokens = 1, .read_method = "auto", .allow_prepare = true,
                                     .cache_policy = "auto", .look_ahead = "auto", .hot_share = -1,
                                     .sparsity = "exact",
                                     .cache_type = PI2_CACHE_F16 };
}

static pi2_status find_policy(pi2_engine *engine) {
    const char *name = engine->options.cache_policy ? engine->options.cache_policy : "auto";
    engine->plan.policy = pi2_cache_policy_find(name);
    if (engine->plan.policy) return PI2_OK;
    char known[256] = "auto";
    for (size_t i = 0; i < pi2_cache_policy_count; i++) {
        const size_t used = strlen(known);
        (void)snprintf(known + used, sizeof known - used, ", %s", pi2_cache_policies[i]->name);
    }
    return pi2_fail(PI2_ERR_INVALID, "unknown cache policy '%s'; there are: %s", name, known);
}

static pi2_status find_look_ahead(pi2_engine *engine) {
    static const char *const names[] = { [PI2_LOOK_AHEAD_AUTO] = "auto", [PI2_LOOK_AHEAD_OFF] = "off",
                                         [PI2_LOOK_AHEAD_ON] = "on" };
    const char *name = engine->options.look_ahead ? engine->options.look_ahead : "auto";
    for (int mode = PI2_LOOK_AHEAD_AUTO; mode <= PI2_LOOK_AHEAD_ON; mode++) {
        engine->plan.look_ahead = (pi2_look_ahead_mode)mode;
        if (strcmp(name, names[mode]) == 0) return PI2_OK;
    }
    return pi2_fail(PI2_ERR_INVALID, "unknown way to look ahead '%s'; there are: auto, off, on", name);
}

static pi2_status check_options(const pi2_engine_options *options) {
    if (!options || !options->model_path || !*options->model_path) {
        return pi2_fail(PI2_ERR_INVALID, "no model file was given");
    }
    if (options->batch_tokens > 8192 || options->logits_tokens > 8192) {
        return pi2_fail(PI2_ERR_INVALID, "a batch of %u tokens is too large: use 1 to 8192",
                        options->batch_tokens > options->logits_tokens ? options->batch_tokens
                                                                       : options->logits_tokens);
    }
    if (options->context_tokens > 1u << 26) {
        return pi2_fail(PI2_ERR_INVALID, "a context of %u tokens is too large", options->context_tokens);
    }
    if (options->hot_share > 0.75) {
        return pi2_fail(PI2_ERR_INVALID, "hot experts can have 0 to 0.75 of the cache, not %g", options->hot_share);
    }
    if (options->cache_type != PI2_CACHE_F16 && options->cache_type != PI2_CACHE_Q8_0) {
        return pi2_fail(PI2_ERR_INVALID, "unknown type of key-value cache");
    }
    return pi2_engine_check_outputs(options);
}

static void copy_text(char *to, size_t capacity, const char *text, size_t length) {
    const size_t count = length < capacity - 1 ? length : capacity - 1;
    memcpy(to, text, count);
    to[count] = '\0';
}

/* Weight types by the bytes that they take, largest first: "Q4_1, Q8_0". */
static void name_weight_types(const pi2_model *model, char *text, size_t capacity) {
    uint64_t bytes[256] = { 0 };
    for (uint32_t i = 0; i < model->layout->tensor_count; i++) {
        const pi2_layout_tensor *tensor = &model->layout->tensors[i];
        bytes[tensor->format->type & 255] += pi2_row_bytes(tensor->format, tensor->columns) * tensor->rows;
    }
    text[0] = '\0';
    for (;;) {
        int largest = 0;
        for (int i = 1; i < 256; i++) {
            if (bytes[i] > bytes[largest]) largest = i;
        }
        const size_t used = strlen(text);
        if (bytes[largest] == 0 || used + 16 > capacity) return;
        (void)snprintf(text + used, capacity - used, "%s%s", used ? ", " : "",
                       pi2_weight_type_name((uint32_t)largest));
        bytes[largest] = 0;
    }
}

static pi2_status read_texts(pi2_engine *engine, const pi2_gguf *gguf) {
    pi2_gguf_string text;
    if (pi2_gguf_has(gguf, "general.name")) {
        PI2_TRY(pi2_gguf_string_get(gguf, "general.name", &text));
        copy_text(engine->texts.model_name, sizeof engine->texts.model_name, text.text, text.length);
    }
    return pi2_engine_read_chat_template(engine, gguf);
}

/* The pass's order of extents: attention and FFN of each layer, then the head; embedding rows last. */
static pi2_status make_sequence(pi2_engine *engine) {
    const pi2_extent_layout *layout = engine->source.model->layout;
    /* Behind the sequence there is room for a part of it (pi2_engine_mark_by_neuron). */
    engine->plan.sequence = calloc(2 * (size_t)layout->extent_count + 1, sizeof(uint32_t));
    engine->plan.resident = calloc(layout->extent_count ? layout->extent_count : 1, 1);
    if (!engine->plan.sequence || !engine->plan.resident) return pi2_fail(PI2_ERR_MEMORY, "no memory for the sequence");
    static const pi2_group_kind parts[3][2] = { { PI2_GROUP_ATTENTION, PI2_GROUP_FFN },
                                                { PI2_GROUP_HEAD, PI2_GROUP_HEAD },
                                                { PI2_GROUP_EMBEDDING, PI2_GROUP_EMBEDDING } };
    uint32_t ends[3];
    engine->plan.sequence_count = 0;
    for (int part = 0; part < 3; part++) {
        for (uint32_t e = 0; e < layout->extent_count; e++) {
            const pi2_group_kind kind = layout->groups[layout->extents[e].group].kind;
            if (kind != parts[part][0] && kind != parts[part][1]) continue;
            engine->plan.sequence[engine->plan.sequence_count++] = e;
        }
        ends[part] = engine->plan.sequence_count;
    }
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        if (layout->groups[layout->extents[e].group].kind != PI2_GROUP_EXPERT) continue;
        engine->plan.sequence[engine->plan.sequence_count + engine->plan.expert_extent_count++] = e;
    }
    engine->plan.head_begin = ends[0];
    engine->plan.pass_end = ends[1];
    return PI2_OK;
}

_Static_assert((int)PI2_THREADS_MOST == (int)PI2_TEAM_MAX_MEMBERS, "there is one limit of threads");

/* Settles how many threads may compute, once: what it depends on may change while the model is opened. */
static void find_threads(pi2_engine *engine) {
    const unsigned allowed = pi2_allowed_cpus(), asked = engine->options.thread_count;
    engine->plan.threads_wanted = asked && asked < allowed ? asked : allowed;
    engine->plan.thread_count = asked ? engine->plan.threads_wanted : pi2_default_threads();
    if (engine->plan.thread_count > PI2_THREADS_MOST) engine->plan.thread_count = PI2_THREADS_MOST;
}

static void tell_threads(const pi2_engine *engine) {
    const uint32_t wanted = engine->plan.threads_wanted, planned = engine->plan.memory.shape.thread_count;
    if (planned == wanted) return;
    pi2_engine_log(engine, "%u of %u threads compute: %s", planned, wanted,
                   planned < engine->plan.thread_count ? "the buffers of more would take too much of the memory"
                   : planned == PI2_THREADS_MOST  ? "more are not used"
                                                  : "the control group may not start more");
}

/* A recorded trace tells the visits of single tokens: nothing is guessed beside it. */
static uint32_t draft_tokens_of(const pi2_engine *engine) {
    const uint32_t most = engine->options.record_trace ? 0 : engine->options.draft_tokens;
    return most < PI2_DRAFT_MOST ? most : PI2_DRAFT_MOST;
}

static uint64_t process_bytes_now(const pi2_engine *engine) {
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    if (current == 0) current = 6000000; /* the system does not tell: what it was elsewhere */
    const pi2_extent_layout *layout = engine->source.model->layout;
    if (engine->options.counts_neurons) current += pi2_neuron_tally_bytes(&engine->source.model->shape);
    if (draft_tokens_of(engine)) current += pi2_drafter_bytes(engine->source.model->shape.context_length);
    if (engine->source.model->shape.expert_count) current += pi2_expert_cache_list_bytes(layout, engine->plan.policy);
    return current + pi2_weight_store_list_bytes(layout->extent_count) + layout->extent_count * 5 + GROWTH_BYTES +
           pi2_run_trace_bytes(engine->traces.run, layout->extent_count) + pi2_memory_relief_bytes();
}

static pi2_status make_plan(pi2_engine *engine) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    const pi2_memory_plan_request request = {
        .model = engine->source.model, .model_path = engine->source.model_path,
        .budget_bytes = engine->report.budget_bytes,
        .budget_is_chosen = engine->options.memory_bytes == 0,
        .process_bytes = process_bytes_now(engine),
        .context_tokens = engine->options.context_tokens, .batch_tokens = engine->options.batch_tokens,
        .logits_tokens = engine->options.logits_tokens ? engine->options.logits_tokens : 1,
        .draft_tokens = draft_tokens_of(engine), .may_lend = !engine->options.keep_memory,
        .thread_count = engine->plan.thread_count, .threads_are_chosen = engine->options.thread_count == 0,
        .page_bytes = pi2_page_bytes(),
        .cache_type = engine->options.cache_type == PI2_CACHE_Q8_0 ? PI2_KV_Q8_0 : PI2_KV_F16,
        .text_bytes = pi2_engine_text_bytes(engine), .text_bytes_per_token = PI2_ENGINE_TEXT_BYTES_PER_TOKEN,
        .banks = engine->plan.banks, .by_neuron = engine->plan.by_neuron,
        .sampler_bytes = pi2_sampler_bytes(&sampling, engine->source.model->shape.vocabulary_size, 4096),
    };
    return pi2_memory_plan_make(&request, &engine->plan.memory);
}

static void find_budget(pi2_engine *engine) {
    if (engine->options.memory_bytes) {
        engine->report.budget_bytes = engine->options.memory_bytes;
        (void)snprintf(engine->texts.budget_reason, sizeof engine->texts.budget_reason, "as asked for");
        return;
    }
    pi2_memory_limit limit;
    pi2_memory_limit_find(&limit);
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    const uint64_t all = limit.bytes + current;
    const uint64_t margin = all / 16 > 32000000 ? all / 16 : all / 8 < 32000000 ? all / 8 : 32000000;
    engine->report.budget_bytes = all - margin;
    char size[PI2_SIZE_TEXT_BYTES];
    (void)snprintf(engine->texts.budget_reason, sizeof engine->texts.budget_reason, "%s, less a margin of %s",
                   limit.reason, pi2_format_size(margin, size));
}

/* ---- memory and threads ---- */

static pi2_status reserve(pi2_engine_memory *memory, uint64_t bytes, bool huge_pages, const char *what) {
    if (bytes == 0) return PI2_OK;
    PI2_TRY(pi2_pages_reserve((size_t)bytes, huge_pages, what, &memory->pages));
    memory->bytes = (size_t)bytes;
    return PI2_OK;
}

static void release(pi2_engine_memory *memory) {
    pi2_pages_release(memory->pages, memory->bytes);
    memset(memory, 0, sizeof *memory);
}

/* Marks the extents that stay; returns the memory that they take. */
static uint64_t mark_residents(pi2_engine *engine) {
    const pi2_memory_plan *plan = &engine->plan.memory;
    const pi2_extent_layout *layout = engine->source.model->layout;
    const uint32_t count = plan->everything_resident ? engine->plan.sequence_count : engine->plan.pass_end;
    const uint64_t resident = plan->neuron_bytes && !plan->everything_resident
        ? pi2_engine_mark_by_neuron(engine, plan->resident_room)
        : pi2_memory_plan_residents(layout, engine->plan.sequence, count, plan->resident_room, engine->plan.resident);
    engine->report.resident_bytes = 0;
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        if (engine->plan.resident[e]) engine->report.resident_bytes += layout->extents[e].bytes;
    }
    if (plan->everything_resident) engine->report.resident_bytes = layout->weight_bytes;
    return resident;
}

/* Whether weights can leave memory and come back: they can be read again. */
static bool gives_back(const pi2_engine *engine) {
    return engine->source.model->has_file && !engine->options.keep_memory;
}

/*
 * Experts that all fit and may leave lie in slots of one size. Where they have several sizes the ends
 * of slots stay untouched, which only small pages make free.
 */
static pi2_status reserve_experts(pi2_engine *engine) {
    const pi2_extent_layout *layout = engine->source.model->layout;
    const uint64_t planned = engine->plan.memory.expert_bytes, all = pi2_expert_cache_all_bytes(layout);
    uint64_t bytes = planned;
    if (planned && planned >= all && engine->source.model->has_file) {
        bytes = pi2_expert_cache_slot_bytes(layout) * pi2_expert_cache_keys(layout);
    }
    const bool is_dense = bytes == planned || bytes == all;
    return reserve(&engine->memory.experts, bytes, planned > (64 << 20) && is_dense, "experts");
}

/*
 * Huge pages make reading memory faster, and leave only some MB at once. Where weights stream and few
 * are resident the disk is the limit, and what the key-value cache lends is less than that.
 */
static bool has_huge_weights(const pi2_engine *engine, uint64_t resident_bytes) {
    return resident_bytes > (engine->plan.memory.everything_resident ? 64u << 20 : 512u << 20);
}

static pi2_status reserve_memory(pi2_engine *engine) {
    const pi2_memory_plan *plan = &engine->plan.memory;
    const uint64_t resident = mark_residents(engine);
    PI2_TRY(reserve(&engine->memory.weights, resident, has_huge_weights(engine, resident), "weights"));
    PI2_TRY(reserve_experts(engine));
    PI2_TRY(reserve(&engine->memory.neurons, plan->neuron_bytes, plan->neuron_bytes > (64 << 20), "neurons"));
    if (gives_back(engine) && plan->ring_bytes == 0) {
        const uint64_t most = engine->report.budget_bytes, all = engine->source.model->layout->weight_bytes;
        const uint64_t ring = pi2_memory_plan_ring_bytes(engine->source.model->layout, all < most ? all : most);
        PI2_TRY(reserve(&engine->memory.spare_ring, ring, true, "the stream buffer"));
    }
    /* What is read into lies in huge pages: a read of 1 MB is then one piece of memory to the device, not 256. */
    PI2_TRY(reserve(&engine->memory.stream, plan->ring_bytes + plan->staging_bytes, true, "the stream buffer"));
    PI2_TRY(reserve(&engine->memory.cache, plan->cache_bytes, false, "the key-value cache"));
    return reserve(&engine->memory.scratch, plan->scratch_bytes, false, "scratch");
}

static void on_stall(void *context, const char *text) { pi2_engine_log(context, "%s", text); }

static pi2_status start_reader(pi2_engine *engine) {
    const pi2_reader_options options = {
        .path = engine->source.weights_path, .method = engine->options.read_method,
        .depth = engine->plan.memory.neuron_bytes ? PI2_SMALL_READ_DEPTH : PI2_READ_DEPTH,
        .buffer = engine->memory.stream.pages, .buffer_bytes = engine->memory.stream.bytes,
        .on_stall = on_stall, .stall_context = engine, .trace = pi2_run_trace_events(engine->traces.run),
    };
    PI2_TRY(pi2_reader_open(&options, &engine->reader));
    pi2_engine_texts *texts = &engine->texts;
    copy_text(texts->read_description, sizeof texts->read_description, pi2_reader_description(engine->reader),
              strlen(pi2_reader_description(engine->reader)));
    return PI2_OK;
}

static unsigned spin_us(const pi2_engine *engine) { return pi2_team_spin_us(engine->plan.memory.shape.thread_count); }

static uint64_t ring_bytes(const pi2_engine *engine) {
    return engine->plan.memory.ring_bytes ? engine->plan.memory.ring_bytes : engine->memory.spare_ring.bytes;
}

static pi2_status start_store(pi2_engine *engine, bool loaded) {
    const pi2_weight_store_options options = {
        .layout = engine->source.model->layout, .path = engine->source.weights_path,
        .sequence = engine->plan.sequence,
        .sequence_count = engine->plan.memory.everything_resident ? engine->plan.sequence_count : engine->plan.pass_end,
        .head_begin = engine->plan.head_begin, .pass_end = engine->plan.pass_end,
        .resident = engine->plan.resident,
        .huge_pages = has_huge_weights(engine, engine->memory.weights.bytes),
        .resident_memory = engine->memory.weights.pages, .resident_loaded = loaded,
        .ring = engine->plan.memory.ring_bytes ? engine->memory.stream.pages : engine->memory.spare_ring.pages,
        .ring_bytes = (size_t)ring_bytes(engine), .ring_planned = engine->plan.memory.ring_bytes > 0,
        .may_give_back = gives_back(engine), .reader = engine->reader,
        .spin_us = spin_us(engine),
        .on_demand_only = engine->options.read_on_demand, .by_neuron = engine->plan.by_neuron,
        .trace = pi2_run_trace_events(engine->traces.run),
    };
    PI2_TRY(pi2_weight_store_create(&options, &engine->store));
    if (loaded || !engine->plan.memory.everything_resident) return PI2_OK;
    for (uint32_t i = engine->plan.pass_end; i < engine->plan.sequence_count; i++) {
        PI2_TRY(pi2_weight_store_load(engine->store, engine->plan.sequence[i]));
    }
    return PI2_OK;
}

static pi2_status start_forward(pi2_engine *engine) {
    const pi2_memory_plan *plan = &engine->plan.memory;
    const pi2_forward_options options = {
        .model = engine->source.model, .shape = plan->shape, .team = engine->team, .store = engine->store,
        .experts = engine->expert_cache, .look_ahead = engine->plan.look_ahead,
        .neurons = engine->neuron_store, .banks = engine->plan.banks,
        .reader = engine->reader, .path = engine->source.weights_path, .cpu_features = pi2_cpu_features(),
        .spin_us = spin_us(engine),
        .trace = pi2_run_trace_events(engine->traces.run),
        .stream_bytes = (size_t)ring_bytes(engine), .resident = engine->plan.resident,
        .cache = engine->memory.cache.pages, .scratch = engine->memory.scratch.pages,
        .staging = plan->staging_bytes ? (uint8_t *)engine->memory.stream.pages + plan->ring_bytes : NULL,
    };
    return pi2_forward_create(&options, &engine->forward);
}

/* ---- opening ---- */

/* Where the file names another activation than the one that is computed, somebody should hear it. */
static void tell_other_activation(pi2_engine *engine, const pi2_gguf *gguf, const char *activation) {
    pi2_gguf_string said;
    if (!activation || !pi2_gguf_has(gguf, PI2_KEY_FFN_ACTIVATION)) return;
    if (pi2_gguf_string_get(gguf, PI2_KEY_FFN_ACTIVATION, &said) != PI2_OK) return;
    if (said.length == strlen(activation) && memcmp(said.text, activation, said.length) == 0) return;
    if (said.length > 32) return; /* no name of ours: whoever altered it knows */
    pi2_engine_log(engine, "%s says that its FFN activation is %.*s: %s is computed", pi2_gguf_file_path(gguf, 0),
                   (int)said.length, said.text, activation);
}

/* Opens `path`, from which weights come. activation NULL: as the file says. */
static pi2_status open_weights(pi2_engine *engine, const char *path, const char *activation, pi2_gguf **gguf_out) {
    PI2_TRY(pi2_gguf_open(path, gguf_out));
    copy_text(engine->source.weights_path, sizeof engine->source.weights_path, path, strlen(path));
    tell_other_activation(engine, *gguf_out, activation);
    return pi2_architecture_put_activation(*gguf_out, activation);
}

/* Opens the model, whose weights may come from it; a plain GGUF stays open in *gguf_out for loading. */
static pi2_status open_model(pi2_engine *engine, pi2_gguf **gguf_out) {
    PI2_TRY(open_weights(engine, engine->source.model_path, engine->options.ffn_activation, gguf_out));
    PI2_TRY(pi2_model_can_run(*gguf_out, &engine->source.model, &engine->source.tokenizer));
    PI2_TRY(pi2_source_header_hash(*gguf_out, &engine->source.header_hash));
    return pi2_engine_find_neurons(engine);
}

/* A cluster file's header is not needed any more: its memory goes back before it is planned with. */
static pi2_status plan_cluster_file(pi2_engine *engine, pi2_gguf **gguf) {
    pi2_gguf_close(*gguf);
    *gguf = NULL;
    return make_plan(engine);
}

static pi2_status use_cluster_file(pi2_engine *engine, const char *path, uint64_t header_hash, pi2_gguf **gguf) {
    pi2_gguf_close(*gguf);
    *gguf = NULL;
    /* One model has one activation, whoever made its cluster file and with which option. */
    const char *activation = pi2_ffn_activation_name(engine->source.model->shape.activation);
    pi2_model_free(engine->source.model);
    engine->source.model = NULL;
    PI2_TRY(open_weights(engine, path, activation, gguf));
    if (pi2_gguf_file_header_hash(*gguf, 0) != header_hash) {
        return pi2_fail(PI2_ERR_IO, "%s: another file took its place while it was opened: run again", path);
    }
    PI2_TRY(pi2_model_create(*gguf, pi2_cpu_features(), &engine->source.model));
    PI2_TRY(pi2_engine_find_neurons(engine));
    return plan_cluster_file(engine, gguf);
}

static pi2_status choose_weights(pi2_engine *engine, pi2_gguf **gguf) {
    if (engine->source.model->has_file) return plan_cluster_file(engine, gguf);
    PI2_TRY(make_plan(engine));
    char path[1024];
    bool found = false;
    uint64_t header_hash = 0;
    const bool must = !engine->plan.memory.everything_resident;
    const bool may_prepare = must && engine->options.allow_prepare && !engine->plan_only;
    PI2_TRY(pi2_engine_cluster_file(engine, *gguf, may_prepare, &found, path, sizeof path, &header_hash));
    if (found) return use_cluster_file(engine, path, header_hash, gguf);
    if (!must || engine->plan_only) return PI2_OK;
    char room[PI2_SIZE_TEXT_BYTES];
    return pi2_fail(PI2_ERR_MEMORY, "%s does not fit in the budget (%s are left for weights) and preparing is switched "
                    "off: run 'powerinfer2 prepare -m %s' first, or give more memory", engine->source.model_path,
                    pi2_format_size(engine->plan.memory.resident_room, room), engine->source.model_path);
}

static void fill_report(pi2_engine *engine) {
    pi2_engine_report *report = &engine->report;
    const pi2_model *model = engine->source.model;
    copy_text(engine->texts.architecture, sizeof engine->texts.architecture, model->shape.architecture,
              strlen(model->shape.architecture));
    name_weight_types(model, engine->texts.weight_types, sizeof engine->texts.weight_types);
    report->architecture = engine->texts.architecture;
    report->model_name = engine->texts.model_name;
    report->weight_types = engine->texts.weight_types;
    report->cpu_name = pi2_cpu_features_name(pi2_cpu_features());
    report->weights_path = engine->source.weights_path;
    report->read_method = engine->reader && !engine->plan.memory.everything_resident ? pi2_reader_method(engine->reader)
                                                                               : "none";
    report->read_description = engine->texts.read_description;
    report->budget_reason = engine->texts.budget_reason;
    report->weight_bytes = model->layout->weight_bytes;
    report->cache_bytes = engine->plan.memory.cache_bytes;
    report->scratch_bytes = engine->plan.memory.scratch_bytes;
    report->stream_buffer_bytes = engine->plan.memory.ring_bytes + engine->plan.memory.staging_bytes;
    report->tokenizer_bytes = pi2_tokenizer_memory_bytes(engine->source.tokenizer);
    report->table_bytes = pi2_model_memory_bytes(model);
    report->process_bytes = engine->plan.memory.process_bytes;
    report->text_bytes = engine->plan.memory.text_bytes;
    report->conversation_bytes = pi2_engine_conversation_bytes(engine);
    report->parameter_count = model->parameter_count;
    report->draft_tokens = engine->plan.memory.draft_tokens;
    report->context_tokens = engine->plan.memory.shape.context_tokens;
    report->trained_context_tokens = model->shape.context_length;
    report->batch_tokens = engine->plan.memory.shape.batch_tokens;
    report->thread_count = engine->plan.memory.shape.thread_count;
    report->layer_count = model->shape.layer_count;
    report->ffn_activation = pi2_ffn_activation_name(model->shape.activation);
    report->own_ffn_activation = pi2_ffn_activation_name(model->shape.own_activation);
    report->expert_count = model->shape.expert_count;
    report->expert_used_count = model->shape.expert_used_count;
    if (model->shape.expert_count) {
        report->hot_experts = engine->plan.hot.count;
        report->hot_share = engine->plan.hot.share;
        report->hot_reason = engine->plan.hot_reason;
    }
    if (engine->expert_cache) {
        report->expert_cache_bytes = engine->plan.memory.expert_bytes;
        report->expert_slots = pi2_expert_cache_slots(engine->expert_cache);
        report->cache_policy = engine->plan.policy->name;
    }
    if (engine->plan.memory.neuron_bytes) {
        report->neuron_bytes = engine->plan.memory.neuron_bytes;
        report->neuron_all_bytes = pi2_neuron_store_all_bytes(engine->plan.banks);
    }
    report->vocabulary_size = model->shape.vocabulary_size;
    report->token_text_bytes = 3 * ((uint32_t)pi2_tokenizer_longest_piece(engine->source.tokenizer) + 4);
}

static pi2_status start(pi2_engine *engine, const pi2_gguf *gguf) {
    PI2_TRY(make_sequence(engine));
    if (engine->plan_only) {
        (void)mark_residents(engine);
        return pi2_engine_choose_hot(engine);
    }
    const bool from_file = engine->source.model->has_file;
    PI2_TRY(reserve_memory(engine));
    PI2_TRY(pi2_team_create(engine->plan.memory.shape.thread_count, NULL, &engine->team));
    if (from_file) PI2_TRY(start_reader(engine));
    else PI2_TRY(pi2_engine_load_gguf(engine, gguf));
    PI2_TRY(start_store(engine, !from_file));
    PI2_TRY(pi2_engine_choose_hot(engine));
    PI2_TRY(pi2_engine_start_experts(engine, !from_file));
    PI2_TRY(pi2_engine_start_neurons(engine, spin_us(engine)));
    PI2_TRY(start_forward(engine));
    return pi2_engine_start_relief(engine);
}

/* A run that needs the template fails with the reason itself. */
static void tell_template(const pi2_engine *engine, const pi2_gguf *gguf) {
    char note[512];
    pi2_model_try_template(gguf, engine->source.tokenizer, note, sizeof note);
    if (note[0]) pi2_engine_log(engine, "%s", note);
}

static pi2_status open_engine(pi2_engine *engine, pi2_gguf **gguf) {
    PI2_TRY(find_policy(engine));
    PI2_TRY(find_look_ahead(engine));
    find_budget(engine);
    find_threads(engine);
    PI2_TRY(open_model(engine, gguf));
    /* Before anything that takes long: a trace that cannot be is refused before a cluster file is made. */
    if (!engine->plan_only) PI2_TRY(pi2_engine_open_outputs(engine, *gguf));
    PI2_TRY(pi2_engine_check_routing(engine));
    PI2_TRY(read_texts(engine, *gguf));
    if (engine->plan_only) tell_template(engine, *gguf);
    PI2_TRY(choose_weights(engine, gguf));
    tell_threads(engine);
    PI2_TRY(start(engine, *gguf));
    fill_report(engine);
    engine->report.relief_description = pi2_memory_relief_description(engine);
    return PI2_OK;
}

pi2_status pi2_engine_open_for(const pi2_engine_options *options, bool plan_only, pi2_engine **engine_out) {
    *engine_out = NULL;
    PI2_TRY(check_options(options));
    pi2_engine *engine = calloc(1, sizeof *engine);
    if (!engine) return pi2_fail(PI2_ERR_MEMORY, "no memory for the engine");
    engine->options = *options;
    engine->plan_only = plan_only;
    if (strlen(options->model_path) >= sizeof engine->source.model_path) {
        free(engine);
        return pi2_fail(PI2_ERR_INVALID, "the model's path is longer than %zu bytes",
                        sizeof engine->source.model_path - 1);
    }
    copy_text(engine->source.model_path, sizeof engine->source.model_path, options->model_path,
              strlen(options->model_path));
    if (!engine->options.read_method) engine->options.read_method = "auto";
    pi2_gguf *gguf = NULL;
    const pi2_status status = open_engine(engine, &gguf);
    pi2_gguf_close(gguf);
    if (status != PI2_OK) {
        pi2_engine_close(engine);
        return status;
    }
    *engine_out = engine;
    return PI2_OK;
}

static pi2_status finish_run_trace(pi2_engine *engine) {
    if (!engine->traces.run || !engine->store) return PI2_OK; /* an engine that did not open has no run to tell of */
    pi2_weight_store_reset(engine->store); /* waits for what is still read ahead */
    if (engine->expert_cache) pi2_expert_cache_reset(engine->expert_cache);
    pi2_engine_counters counters;
    pi2_engine_count(engine, &counters);
    const uint64_t dropped = pi2_timeline_dropped(pi2_run_trace_events(engine->traces.run));
    if (dropped) {
        pi2_engine_log(engine, "the trace's memory was full: the last %llu events are missing from it",
                       (unsigned long long)dropped);
    }
    return pi2_run_trace_finish(engine->traces.run, engine->source.model->layout, &counters);
}

pi2_status pi2_engine_finish_trace(pi2_engine *engine) {
    const pi2_status experts = pi2_trace_writer_close(engine->traces.experts);
    engine->traces.experts = NULL;
    if (experts == PI2_OK) return finish_run_trace(engine);
    char text[512];
    (void)snprintf(text, sizeof text, "%s", pi2_error_text());
    if (finish_run_trace(engine) != PI2_OK) pi2_engine_log(engine, "%s", pi2_error_text());
    return pi2_fail(experts, "%s", text);
}

pi2_status pi2_engine_open(const pi2_engine_options *options, pi2_engine **engine_out) {
    return pi2_engine_open_for(options, false, engine_out);
}

void pi2_engine_close(pi2_engine *engine) {
    if (!engine) return;
    assert(atomic_load(&engine->session_count) == 0);
    if (engine->forward && pi2_engine_finish_trace(engine) != PI2_OK) pi2_engine_log(engine, "%s", pi2_error_text());
    pi2_forward_free(engine->forward);
    pi2_weight_store_free(engine->store);
    pi2_expert_cache_free(engine->expert_cache);
    pi2_neuron_store_free(engine->neuron_store);
    pi2_reader_close(engine->reader);
    pi2_team_destroy(engine->team);
    pi2_memory_relief_free(engine->relief);
    release(&engine->memory.spare_ring);
    release(&engine->memory.scratch);
    release(&engine->memory.cache);
    release(&engine->memory.stream);
    release(&engine->memory.experts);
    release(&engine->memory.neurons);
    release(&engine->memory.weights);
    pi2_run_trace_close(engine->traces.run);
    (void)pi2_trace_writer_close(engine->traces.experts); /* an engine that did not open: without a pass */
    pi2_hot_plan_free(&engine->plan.hot);
    free(engine->plan.sequence);
    free(engine->plan.resident);
    free(engine->plan.by_neuron);
    free(engine->source.chat_template);
    free(engine->source.template_variables);
    pi2_tokenizer_free(engine->source.tokenizer);
    pi2_model_free(engine->source.model);
    free(engine);
}

const pi2_engine_report *pi2_engine_get_report(const pi2_engine *engine) { return &engine->report; }

void pi2_engine_count(const pi2_engine *engine, pi2_engine_counters *counters_out) {
    memset(counters_out, 0, sizeof *counters_out);
    pi2_weight_store_counters store;
    pi2_weight_store_count(engine->store, &store);
    counters_out->bytes_needed = store.needed_bytes;
    if (engine->expert_cache) {
        pi2_expert_cache_counters experts;
        pi2_expert_cache_count(engine->expert_cache, &experts);
        counters_out->bytes_needed += experts.needed_bytes;
        counters_out->expert_uses = experts.touches;
        counters_out->expert_hits = experts.hits;
        counters_out->hot_experts = experts.hot;
        counters_out->hot_hits = experts.hot_hits;
        counters_out->hot_promotions = experts.promotions;
        counters_out->hot_demotions = experts.demotions;
        counters_out->prefetched = experts.ahead;
        counters_out->prefetches_kept = experts.ahead_kept;
        counters_out->prefetches_wasted = experts.ahead_wasted;
        counters_out->prefetched_bytes = experts.ahead_bytes;
        counters_out->prefetch_kept_bytes = experts.ahead_kept_bytes;
        counters_out->prefetch_wasted_bytes = experts.ahead_wasted_bytes;
        counters_out->experts_foretold = experts.foreseen;
        counters_out->experts_foretold_used = experts.foreseen_demanded;
        store.stall_ns += experts.stall_ns;
    }
    if (engine->neuron_store) {
        pi2_neuron_store_counters neurons;
        pi2_neuron_store_count(engine->neuron_store, &neurons);
        counters_out->bytes_needed += neurons.needed_bytes;
        counters_out->neuron_uses = neurons.uses;
        counters_out->neuron_hits = neurons.hits;
        store.stall_ns += neurons.stall_ns;
    }
    counters_out->stall_ns = store.stall_ns / engine->plan.memory.shape.thread_count;
    pi2_memory_relief_count(engine, counters_out);
    if (engine->traces.run) {
        const uint64_t busy_ns = pi2_timeline_busy_ns(pi2_run_trace_events(engine->traces.run)) /
                                 engine->plan.memory.shape.thread_count;
        counters_out->compute_ns = busy_ns > counters_out->stall_ns ? busy_ns - counters_out->stall_ns : 0;
    }
    if (!engine->reader) return;
    pi2_reader_counters reader;
    pi2_reader_count(engine->reader, &reader);
    counters_out->bytes_read = reader.bytes_read;
    counters_out->reads = reader.reads;
}

uint64_t pi2_peak_memory_bytes(void) {
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    return peak;
}
