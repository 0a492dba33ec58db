/* run_source.c: what a run is planned on: the model, its texts, and the file that its weights come from. */
#include "engine/run_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/cpu_features.h"
#include "base/fail.h"
#include "base/memory_limit.h"
#include "base/parse_size.h"
#include "clusters/prepare.h"
#include "engine/drafting.h"
#include "engine/engine_internal.h"
#include "engine/model_check.h"
#include "engine/neuron_tally.h"
#include "engine/run_draft.h"
#include "engine/sampler.h"
#include "file_formats/cluster_file.h"
#include "planner/neuron_forecast.h"
#include "planner/run_prediction_neurons.h"

enum { CACHE_TOKENS_MOST = 1 << 30, MOST_PREPARED_BYTES = 500000 };

static pi2_status check_options(const pi2_engine_options *options) {
    if (!options || !options->model_path || !*options->model_path) {
        return pi2_fail(PI2_ERR_INVALID, "no model file was given");
    }
    if (options->batch_tokens > 8192 || options->logits_tokens > 8192) {
        return pi2_fail(PI2_ERR_INVALID, "a batch of %u tokens is too large: use 1 to 8192",
                        options->batch_tokens > options->logits_tokens ? options->batch_tokens
                                                                       : options->logits_tokens);
    }
    if (options->sequences > PI2_SEQUENCES_MOST) {
        return pi2_fail(PI2_ERR_INVALID, "%u sequences are too many: use 1 to %d", options->sequences,
                        PI2_SEQUENCES_MOST);
    }
    if (options->context_tokens > 1u << 26) {
        return pi2_fail(PI2_ERR_INVALID, "a context of %u tokens is too large", options->context_tokens);
    }
    if (options->context_tokens * (uint64_t)options->sequences > CACHE_TOKENS_MOST) {
        return pi2_fail(PI2_ERR_INVALID, "%u sequences of %u tokens are too many: a key-value cache holds %u tokens at "
                        "most", options->sequences, options->context_tokens, CACHE_TOKENS_MOST);
    }
    if (!(options->device_share <= 1)) {
        return pi2_fail(PI2_ERR_INVALID, "devices can have 0 to 1 of a matrix, not %g", options->device_share);
    }
    if (options->hot_share > 0.75) {
        return pi2_fail(PI2_ERR_INVALID, "hot experts can have 0 to 0.75 of the cache, not %g", options->hot_share);
    }
    if (!pi2_cache_type_name(options->cache_type)) {
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

static pi2_status read_texts(pi2_planned_run *run, const pi2_gguf *gguf) {
    pi2_gguf_string text;
    if (pi2_gguf_has(gguf, "general.name")) {
        PI2_TRY(pi2_gguf_string_get(gguf, "general.name", &text));
        copy_text(run->texts.model_name, sizeof run->texts.model_name, text.text, text.length);
    }
    return pi2_run_read_chat_template(run, gguf);
}

/* ---- what those who run it take ---- */

/* A recorded trace tells the visits of single tokens: nothing is guessed beside it. Of recurrent models that leave
 * neurons out the tokens that are computed once more would not be those of the first time. */
uint32_t pi2_planned_run_draft_tokens(const pi2_planned_run *run) {
    const bool replays = pi2_model_is_recurrent(&run->source.model->shape);
    const bool may_guess = !run->options.record_trace && !(replays && run->plan.approximates);
    const uint32_t most = may_guess ? run->options.draft_tokens : 0;
    return most < PI2_DRAFT_MOST ? most : PI2_DRAFT_MOST;
}

uint32_t pi2_planned_run_draft_nodes(const pi2_planned_run *run) {
    const uint32_t most = pi2_planned_run_draft_tokens(run) ? run->options.draft_nodes : 0;
    return most < PI2_DRAFT_NODES_MOST ? most : PI2_DRAFT_NODES_MOST;
}

static uint64_t list_bytes(const pi2_planned_run *run, const pi2_run_trace *trace) {
    const pi2_model_shape *shape = &run->source.model->shape;
    const pi2_extent_layout *layout = run->source.model->layout;
    uint64_t bytes = PI2_RUN_GROWTH_BYTES + pi2_run_predictor_bytes(run) + run->options.beside_bytes;
    if (run->draft) bytes += run->draft->bytes;
    if (pi2_planned_run_draft_tokens(run) && !run->is_next) bytes += pi2_next_table_bytes(run);
    if (run->options.counts_neurons) bytes += pi2_neuron_tally_bytes(shape);
    if (run->options.record_trace) bytes += BUFSIZ;
    if (run->options.record_trace && run->plan.banks) bytes += pi2_neuron_store_use_list_bytes(run->plan.banks);
    if (pi2_model_has_experts(shape)) { /* and of one of Gates, where tokens compute single neurons */
        bytes += pi2_expert_cache_list_bytes(layout, run->plan.policy) * (run->plan.banks ? 2 : 1);
    }
    return bytes + pi2_weight_store_list_bytes(layout->extent_count) + layout->extent_count * 5 +
           pi2_run_trace_bytes(trace, layout->extent_count) + pi2_memory_relief_bytes();
}

/* What a session with so long a context has of its own, whatever its sampling: penalties may look at all of it. */
static uint64_t sampler_bytes(uint32_t context_tokens) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.repeat_penalty = 1.1f;
    sampling.repeat_last_n = -1;
    return pi2_sampler_bytes(&sampling, context_tokens) +
           PI2_LOGIT_BIASES_MOST * (sizeof(pi2_logit_bias) + sizeof(float));
}

static uint64_t session_bytes(const pi2_planned_run *run, uint32_t context_tokens) {
    const pi2_engine_options *options = &run->options;
    uint64_t each = options->beside_session_bytes + context_tokens * options->beside_token_bytes;
    each += context_tokens * (sizeof(int32_t) + 1); /* the timeline, and which pages it has */
    if (pi2_planned_run_draft_tokens(run)) each += pi2_drafting_bytes(run, context_tokens);
    return each + sampler_bytes(context_tokens);
}

static pi2_status spend_once(pi2_planned_run *run, const pi2_run_trace *trace) {
    const uint64_t empty = session_bytes(run, 0), sampler = sampler_bytes(0);
    const pi2_run_draft *draft = run->draft;
    const pi2_run_costs costs = {
        .feature_count = draft ? draft->feature_count : run->keeps_inputs ? 2 : 0,
        .feature_layers = draft ? draft->feature_layers : run->kept_inputs,
        .list_bytes = list_bytes(run, trace), .draft_tokens = pi2_planned_run_draft_tokens(run),
        .draft_nodes = pi2_planned_run_draft_nodes(run),
        .text_bytes = pi2_engine_text_bytes(run->source.tokenizer),
        .text_bytes_per_token = PI2_ENGINE_TEXT_BYTES_PER_TOKEN,
        /* A sampler that takes the place of another is there beside it. */
        .session_bytes = sampler + pi2_sampler_candidate_bytes(run->source.model->shape.vocabulary_size),
        .session_bytes_per_token = sampler_bytes(1) - sampler + (run->draft ? run->draft->bytes_per_token : 0),
        .each_session_bytes = empty, .each_session_bytes_per_token = session_bytes(run, 1) - empty };
    return pi2_run_plan_spend(run, &costs);
}

pi2_status pi2_planned_run_spend(pi2_planned_run *run) { return spend_once(run, NULL); }

/* A draft model takes its part of the budget where that pays. */
static pi2_status spend(pi2_planned_run *run, const pi2_run_trace *trace) {
    struct pi2_run_draft *draft = run->draft;
    if (!draft) return spend_once(run, trace);
    run->draft = NULL;
    const pi2_status alone = spend_once(run, trace);
    run->draft = draft;
    if (alone != PI2_OK) return alone;
    const pi2_memory_plan without = run->plan.memory;
    const bool fits = spend_once(run, trace) == PI2_OK;
    const pi2_memory_plan with = run->plan.memory;
    if (pi2_run_judge_draft(run, fits ? &with : NULL, &without)) return PI2_OK;
    return spend_once(run, trace);
}

/* ---- the cluster file ---- */

static pi2_status prepare_at(const pi2_gguf *gguf, const char *path, const pi2_prepare_settings *settings) {
    const pi2_architecture *architecture;
    pi2_tensor_directory directory = { 0 };
    pi2_model_requests requests = { 0 };
    pi2_model_shape shape;
    PI2_TRY(pi2_architecture_find(gguf, &architecture));
    PI2_TRY(pi2_tensor_directory_open(gguf, NULL, &directory));
    pi2_status status = pi2_architecture_shape(architecture, &directory, &shape);
    if (status == PI2_OK) status = pi2_decoder_list_tensors(&directory, &shape, &requests);
    if (status == PI2_OK) status = pi2_prepare(gguf, requests.groups, requests.group_count, path, settings);
    pi2_model_requests_free(&requests);
    pi2_tensor_directory_close(&directory);
    return status;
}

static uint64_t held_now(void) {
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    return current;
}

/* What preparing may use: what the budget leaves beside what the process holds now. */
static uint64_t prepare_budget(const pi2_planned_run *run, uint64_t held_bytes) {
    const uint64_t kept = held_bytes + 2000000;
    return run->report.budget_bytes > kept ? run->report.budget_bytes - kept : 1;
}

static pi2_status prepare_beside(pi2_planned_run *run, const pi2_gguf *gguf, char **path) {
    if (run->options.cluster_path) {
        *path = malloc(strlen(run->options.cluster_path) + 1);
        if (!*path) return pi2_fail(PI2_ERR_MEMORY, "no memory for a path");
        memcpy(*path, run->options.cluster_path, strlen(run->options.cluster_path) + 1);
    } else {
        PI2_TRY(pi2_cluster_file_default_path(gguf, path));
    }
    char size[PI2_SIZE_TEXT_BYTES];
    pi2_planned_run_log(run, "%s: preparing %s (about %s of disk), once",
                        run->plan.approximates ? "a run with a predictor reads neurons one by one"
                                               : "the model does not fit in the budget", *path,
                        pi2_format_size(run->source.model->layout->weight_bytes, size));
    const pi2_model_shape *shape = &run->source.model->shape;
    const uint64_t held = held_now();
    const bool always = pi2_run_plan_is_always(run) && pi2_model_shape_fires(shape);
    const bool by_neuron = !pi2_run_plan_is_dense(run) && (always || pi2_neuron_layout_pays(shape));
    const pi2_prepare_settings settings = { .memory_bytes = prepare_budget(run, held),
                                            .layout = run->plan.approximates ? PI2_LAYOUT_BUNDLE
                                                      : by_neuron ? PI2_LAYOUT_NEURON : PI2_LAYOUT_DENSE,
                                            .callbacks = run->options.callbacks };
    PI2_TRY(prepare_at(gguf, *path, &settings));
    /*
     * Its text stays mapped until somebody needs the memory, and freed pages are used again: a run that made its file
     * is planned like one that found it, or what a run was told to need would be too little where it makes one.
     */
    const uint64_t left = held_now();
    if (left > held) run->plan.prepared_bytes = left - held < MOST_PREPARED_BYTES ? left - held : MOST_PREPARED_BYTES;
    return PI2_OK;
}

static pi2_status find_cluster_file(pi2_planned_run *run, const pi2_gguf *gguf, bool may_prepare, bool *found_out,
                                   char *path_out, size_t capacity, uint64_t *header_hash_out) {
    *found_out = false;
    char *path = NULL;
    char note[512] = "";
    const pi2_cluster_wish bundles = { .layout = PI2_LAYOUT_BUNDLE }, *wish = run->plan.approximates ? &bundles : NULL;
    PI2_TRY(pi2_cluster_file_find(gguf, run->options.cluster_path, wish, &run->options.callbacks, &path,
                                  note, sizeof note, header_hash_out));
    if (note[0]) pi2_planned_run_log(run, "%s", note);
    pi2_status status = PI2_OK;
    if (!path && may_prepare) {
        status = prepare_beside(run, gguf, &path);
        /* Another run may have made one of other weights there meanwhile. */
        if (status == PI2_OK) {
            status = pi2_cluster_file_matches(path, gguf, wish, &run->options.callbacks, header_hash_out);
        }
    }
    if (status == PI2_OK && path) {
        if (strlen(path) >= capacity) {
            status = pi2_fail(PI2_ERR_INVALID, "the cluster file's path is longer than %zu bytes", capacity - 1);
        } else {
            memcpy(path_out, path, strlen(path) + 1);
            *found_out = true;
        }
    }
    free(path);
    return status;
}
/* ---- the model ---- */

/* Where the file names another activation than the one that is computed, somebody should hear it. */
static void tell_other_activation(pi2_planned_run *run, const pi2_gguf *gguf, const char *activation) {
    pi2_gguf_string said;
    if (!activation || !pi2_gguf_has(gguf, PI2_KEY_FFN_ACTIVATION)) return;
    if (pi2_gguf_string_get(gguf, PI2_KEY_FFN_ACTIVATION, &said) != PI2_OK) return;
    if (said.length == strlen(activation) && memcmp(said.text, activation, said.length) == 0) return;
    if (said.length > 32) return; /* no name of ours: whoever altered it knows */
    pi2_planned_run_log(run, "%s says that its FFN activation is %.*s: %s is computed", pi2_gguf_file_path(gguf, 0),
                   (int)said.length, said.text, activation);
}

/* Opens `path`, from which weights come. activation NULL: as the file says. */
static pi2_status open_weights(pi2_planned_run *run, const char *path, const char *activation, pi2_gguf **gguf_out) {
    PI2_TRY(pi2_gguf_open(path, gguf_out));
    copy_text(run->source.weights_path, sizeof run->source.weights_path, path, strlen(path));
    PI2_TRY(pi2_architecture_adapt(*gguf_out));
    PI2_TRY(pi2_architecture_put_activation(*gguf_out, NULL)); /* what its magic says, where that says it */
    tell_other_activation(run, *gguf_out, activation);
    return pi2_architecture_put_activation(*gguf_out, activation);
}

/* Opens the model, whose weights may come from it; a plain GGUF stays open in *gguf_out for loading. */
static pi2_status open_model(pi2_planned_run *run, pi2_gguf **gguf_out) {
    PI2_TRY(open_weights(run, run->source.model_path, run->options.ffn_activation, gguf_out));
    if (run->is_next) PI2_TRY(pi2_model_create_next(*gguf_out, &run->source.model));
    else PI2_TRY(pi2_model_can_run(*gguf_out, &run->source.model, &run->source.tokenizer));
    PI2_TRY(pi2_source_header_hash(*gguf_out, &run->source.header_hash));
    if (run->options.identifies_weights) PI2_TRY(pi2_source_known_samples(*gguf_out, &run->source.sample_hash));
    return pi2_run_plan_find_neurons(run);
}

/* A cluster file's header is not needed any more: its memory goes back before it is planned with. */
static pi2_status plan_cluster_file(pi2_planned_run *run, const pi2_run_trace *trace, pi2_gguf **gguf) {
    pi2_gguf_close(*gguf);
    *gguf = NULL;
    return run->plan.predictor_recipe ? PI2_OK : spend(run, trace);
}

static pi2_status use_cluster_file(pi2_planned_run *run, bool is_to_run, const pi2_run_trace *trace, const char *path,
                                   uint64_t header_hash, pi2_gguf **gguf) {
    pi2_gguf_close(*gguf);
    *gguf = NULL;
    /* One model has one activation, whoever made its cluster file and with which option. */
    const char *activation = pi2_ffn_activation_name(run->source.model->shape.activation);
    pi2_model_free(run->source.model);
    run->source.model = NULL;
    PI2_TRY(open_weights(run, path, activation, gguf));
    if (pi2_gguf_file_header_hash(*gguf, 0) != header_hash) {
        return pi2_fail(PI2_ERR_IO, "%s: another file took its place while it was opened: run again", path);
    }
    PI2_TRY(pi2_model_create(*gguf, &run->source.model));
    PI2_TRY(pi2_run_plan_find_neurons(run));
    PI2_TRY(pi2_run_open_predictor(run, is_to_run, *gguf));
    return plan_cluster_file(run, trace, gguf);
}

static pi2_status choose_weights(pi2_planned_run *run, bool is_to_run, const pi2_run_trace *trace, pi2_gguf **gguf) {
    if (run->source.model->has_file) {
        PI2_TRY(pi2_run_open_predictor(run, is_to_run, *gguf));
        return plan_cluster_file(run, trace, gguf);
    }
    PI2_TRY(spend(run, trace));
    if (run->is_next) return PI2_OK; /* a cluster file would be the model's */
    char path[1024];
    bool found = false;
    uint64_t header_hash = 0;
    const bool must = run->plan.approximates || !run->plan.memory.everything_resident;
    const bool may_prepare = must && run->options.allow_prepare && is_to_run;
    PI2_TRY(find_cluster_file(run, *gguf, may_prepare, &found, path, sizeof path, &header_hash));
    if (found) return use_cluster_file(run, is_to_run, trace, path, header_hash, gguf);
    if (run->plan.approximates) {
        return pi2_fail(PI2_ERR_INVALID, "%s: a run with a predictor needs a cluster file of the bundle layout, and "
                        "there is none: run 'powerinfer2 prepare -m %s --layout bundle' first", run->source.model_path,
                        run->source.model_path);
    }
    if (!must || !is_to_run) return PI2_OK;
    char room[PI2_SIZE_TEXT_BYTES];
    return pi2_fail(PI2_ERR_MEMORY, "%s does not fit in the budget (%s are left for weights) and preparing is switched "
                    "off: run 'powerinfer2 prepare -m %s' first, or give more memory", run->source.model_path,
                    pi2_format_size(run->plan.memory.resident_room, room), run->source.model_path);
}

static void tell_shares(pi2_planned_run *run) {
    const pi2_predictor *predictor = &run->plan.predictor;
    pi2_engine_report *report = &run->report;
    report->leaves_out = run->plan.approximates;
    report->left_out = report->left_out_least = report->left_out_most = run->plan.left_out;
    for (uint32_t i = 0; i < predictor->layer_count && report->left_out >= 0; i++) {
        const double share = predictor->layers[i].left_out;
        if (share < report->left_out_least) report->left_out_least = share;
        if (share > report->left_out_most) report->left_out_most = share;
    }
}

static void fill_report(pi2_planned_run *run) {
    pi2_engine_report *report = &run->report;
    const pi2_model *model = run->source.model;
    copy_text(run->texts.architecture, sizeof run->texts.architecture, model->shape.architecture,
              strlen(model->shape.architecture));
    name_weight_types(model, run->texts.weight_types, sizeof run->texts.weight_types);
    report->architecture = run->texts.architecture;
    report->model_name = run->texts.model_name;
    report->weight_types = run->texts.weight_types;
    report->cpu_name = pi2_cpu_features_name(pi2_cpu_features());
    report->weights_path = run->source.weights_path;
    report->read_method = "none";
    report->read_description = run->texts.read_description;
    report->budget_reason = run->texts.budget_reason;
    report->weight_bytes = model->layout->weight_bytes;
    report->cache_bytes = run->plan.memory.cache_bytes;
    report->scratch_bytes = run->plan.memory.scratch_bytes + run->plan.memory.dense_scratch_bytes;
    report->stream_buffer_bytes = run->plan.memory.ring_bytes + run->plan.memory.staging_bytes;
    report->shared_bytes = run->plan.memory.shared_bytes;
    report->tokenizer_bytes = pi2_tokenizer_memory_bytes(run->source.tokenizer);
    report->table_bytes = pi2_model_memory_bytes(model);
    report->process_bytes = run->plan.memory.process_bytes;
    report->text_bytes = run->plan.memory.text_bytes;
    report->conversation_bytes = pi2_engine_conversation_bytes(run->plan.memory.shape.context_tokens);
    report->parameter_count = model->parameter_count;
    report->sequences = run->plan.memory.shape.sequences;
    report->draft_tokens = run->plan.memory.draft_tokens;
    report->draft_nodes = run->plan.memory.draft_nodes;
    if (run->draft) {
        report->draft_model = run->draft->path;
        report->draft_bytes = run->draft->bytes + run->draft->bytes_per_token * run->plan.memory.shape.context_tokens;
    }
    report->context_tokens = run->plan.memory.shape.context_tokens;
    report->trained_context_tokens = model->shape.context_length;
    report->batch_tokens = run->plan.memory.shape.batch_tokens;
    report->thread_count = pi2_run_processor_threads(run);
    report->device_count = run->devices.count;
    report->devices_differ = run->devices.has_other_bits;
    report->devices = run->devices.count ? run->devices.description : NULL;
    report->device_shares = run->devices.count ? run->devices.shares_text : NULL;
    report->layer_count = model->shape.layer_count;
    report->ffn_activation = pi2_ffn_activation_name(model->shape.activation);
    report->own_ffn_activation = pi2_ffn_activation_name(model->shape.own_activation);
    if (pi2_model_has_experts(&model->shape)) {
        report->expert_count = pi2_layer_ffns(&model->shape);
        report->expert_used_count = pi2_token_ffns(&model->shape);
        report->hot_experts = run->plan.hot.count;
        report->hot_share = run->plan.hot.share;
        report->hot_reason = run->plan.hot_reason;
    }
    if (run->plan.memory.neuron_bytes) {
        report->neuron_bytes = run->plan.memory.neuron_bytes;
        report->neuron_all_bytes = pi2_neuron_store_all_bytes(run->plan.banks);
    }
    tell_shares(run);
    if (run->plan.predictor.kind) {
        report->predictor = run->plan.predictor.kind->name;
        report->predictor_bytes = pi2_run_predictor_bytes(run);
    } else if (run->plan.gate_foretells && run->plan.memory.neuron_bytes) {
        report->predictor = "gate";
    }
    report->vocabulary_size = model->shape.vocabulary_size;
    report->token_text_bytes = 3 * ((uint32_t)pi2_tokenizer_longest_piece(run->source.tokenizer) + 4);
}

/* A run that needs the template fails with the reason itself. */
static void tell_template(const pi2_planned_run *run, const pi2_gguf *gguf) {
    char note[512];
    pi2_model_try_template(gguf, run->source.tokenizer, note, sizeof note);
    if (note[0]) pi2_planned_run_log(run, "%s", note);
}

pi2_status pi2_planned_run_open(const pi2_engine_options *options, pi2_planned_run *run, pi2_gguf **gguf_out) {
    *gguf_out = NULL;
    PI2_TRY(check_options(options));
    const size_t length = strlen(options->model_path), most = sizeof run->source.model_path - 1;
    if (length > most) return pi2_fail(PI2_ERR_INVALID, "the model's path is longer than %zu bytes", most);
    run->options = *options;
    if (!run->options.read_method) run->options.read_method = "auto";
    if (!run->options.sequences) run->options.sequences = 1;
    copy_text(run->source.model_path, sizeof run->source.model_path, options->model_path, length);
    PI2_TRY(pi2_run_plan_begin(run));
    PI2_TRY(open_model(run, gguf_out));
    pi2_run_devices_measure(run);
    return run->is_next ? PI2_OK : pi2_run_open_draft(run, *gguf_out);
}

pi2_status pi2_planned_run_settle(pi2_planned_run *run, bool is_to_run, const pi2_run_trace *trace, pi2_gguf **gguf) {
    PI2_TRY(pi2_run_plan_check_routing(run));
    PI2_TRY(read_texts(run, *gguf));
    if (!is_to_run) tell_template(run, *gguf);
    PI2_TRY(choose_weights(run, is_to_run, trace, gguf));
    PI2_TRY(pi2_run_check_prediction(run));
    pi2_run_plan_tell_threads(run);
    PI2_TRY(pi2_run_plan_place(run));
    PI2_TRY(pi2_run_plan_choose_hot(run));
    PI2_TRY(pi2_neuron_firing_learn(run));
    fill_report(run);
    pi2_run_describe_arithmetic(run);
    return PI2_OK;
}

pi2_status pi2_planned_run_make(const pi2_engine_options *options, pi2_planned_run *run) {
    pi2_gguf *gguf = NULL;
    pi2_status status = pi2_planned_run_open(options, run, &gguf);
    if (status == PI2_OK) status = pi2_planned_run_settle(run, false, NULL, &gguf);
    pi2_gguf_close(gguf);
    return status;
}

pi2_status pi2_planned_run_make_predictor(const pi2_engine_options *options, pi2_planned_run *run) {
    pi2_gguf *gguf = NULL;
    pi2_status status = pi2_planned_run_open(options, run, &gguf);
    if (status == PI2_OK) status = choose_weights(run, true, NULL, &gguf);
    pi2_gguf_close(gguf);
    return status;
}

void pi2_planned_run_close(pi2_planned_run *run) {
    pi2_run_close_draft(run);
    pi2_run_devices_close(run);
    pi2_run_plan_free(&run->plan);
    free(run->source.chat_template);
    free(run->source.template_variables);
    if (!run->is_next) pi2_tokenizer_free(run->source.tokenizer);
    pi2_model_free(run->source.model);
}
