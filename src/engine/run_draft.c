/* run_draft.c: a draft model is opened, held against the model that it guesses for, and weighed. */
#include "engine/run_draft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "base/parse_size.h"
#include "engine/next_table_file.h"
#include "engine/shortcut_file.h"
#include "file_formats/cluster_file.h"
#include "planner/draft_forecast.h"

enum {
    BATCH_TOKENS = 64,                          /* of the prompts that it reads */
    NEAR_CONTEXT = 256, FAR_CONTEXT = 1024,     /* between which what a token of the context takes is seen */
    PADDING_MOST = 128                          /* ids that vocabularies may have more behind those in common */
};
static const uint64_t any_budget = 1ull << 46;  /* its run only lays out what it takes: the budget is another's */

/* ---- the vocabulary ---- */

static pi2_status refuse_vocabulary(const pi2_planned_run *run, const pi2_planned_run *draft, const char *what) {
    return pi2_fail(PI2_ERR_INVALID, "%s cannot guess for %s: %s; a draft model needs the same vocabulary",
                    draft->source.model_path, run->source.model_path, what);
}

/* Bytes that a line of text can hold, 24 at most. */
static void print_piece(const pi2_tokenizer *tokenizer, int32_t token, char *text, size_t capacity) {
    size_t length = 0, used = 0;
    const char *piece = pi2_tokenizer_piece(tokenizer, token, true, &length);
    for (size_t i = 0; i < length && i < 24 && used + 5 < capacity; i++) {
        const unsigned char byte = (unsigned char)piece[i];
        const bool is_plain = byte > 0x20 && byte < 0x7f && byte != '\\' && byte != '"';
        used += (size_t)snprintf(text + used, capacity - used, is_plain ? "%c" : "\\x%02x", byte);
    }
    text[used] = '\0';
}

/* Control tokens may have other names: finetuned models rename those that were reserved, and a wrong guess is one that
 * does not hold. */
static pi2_status check_pieces(const pi2_planned_run *run, const pi2_planned_run *draft, uint32_t count) {
    const pi2_tokenizer *ours = run->source.tokenizer, *theirs = draft->source.tokenizer;
    for (uint32_t i = 0; i < count; i++) {
        size_t lengths[2];
        const char *left = pi2_tokenizer_piece(ours, (int32_t)i, false, &lengths[0]);
        const char *right = pi2_tokenizer_piece(theirs, (int32_t)i, false, &lengths[1]);
        if (lengths[0] == lengths[1] && memcmp(left, right, lengths[0]) == 0) continue;
        char texts[2][128], what[320];
        print_piece(ours, (int32_t)i, texts[0], sizeof texts[0]);
        print_piece(theirs, (int32_t)i, texts[1], sizeof texts[1]);
        (void)snprintf(what, sizeof what, "its token %u is \"%s\", the model's is \"%s\"", i, texts[1], texts[0]);
        return refuse_vocabulary(run, draft, what);
    }
    return PI2_OK;
}

static pi2_status check_vocabulary(const pi2_planned_run *run, const pi2_planned_run *draft) {
    const pi2_tokenizer *ours = run->source.tokenizer, *theirs = draft->source.tokenizer;
    const uint32_t our_count = pi2_tokenizer_vocabulary_size(ours), count = pi2_tokenizer_vocabulary_size(theirs);
    const uint32_t least = our_count < count ? our_count : count;
    char what[160];
    if (our_count + count - 2 * least > PADDING_MOST) {
        (void)snprintf(what, sizeof what, "its vocabulary has %u tokens, the model's has %u", count, our_count);
        return refuse_vocabulary(run, draft, what);
    }
    if (pi2_tokenizer_adds_bos(ours) != pi2_tokenizer_adds_bos(theirs) ||
        (pi2_tokenizer_adds_bos(ours) && pi2_tokenizer_bos(ours) != pi2_tokenizer_bos(theirs))) {
        (void)snprintf(what, sizeof what, "its texts begin with token %d, the model's with %d (-1: none)",
                       pi2_tokenizer_adds_bos(theirs) ? (int)pi2_tokenizer_bos(theirs) : -1,
                       pi2_tokenizer_adds_bos(ours) ? (int)pi2_tokenizer_bos(ours) : -1);
        return refuse_vocabulary(run, draft, what);
    }
    return check_pieces(run, draft, least);
}

/* ---- what it takes ---- */

static pi2_status bytes_at(pi2_planned_run *run, uint32_t context_tokens, uint64_t *bytes_out) {
    run->options.context_tokens = context_tokens;
    PI2_TRY(pi2_planned_run_spend(run));
    const pi2_memory_plan *plan = &run->plan.memory;
    *bytes_out = plan->weight_room + plan->scratch_bytes + plan->staging_bytes + plan->cache_bytes +
                 plan->session_bytes;
    return PI2_OK;
}

/* Of tables a token needs a row, and of experts those that a router chooses. */
static uint64_t token_bytes(const pi2_model *model) {
    const pi2_extent_layout *layout = model->layout;
    uint64_t bytes = 0, of_experts = 0;
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        const pi2_group_kind kind = layout->groups[layout->extents[i].group].kind;
        if (kind == PI2_GROUP_EXPERT) of_experts += layout->extents[i].bytes;
        else if (!pi2_group_kind_is_raw(kind)) bytes += layout->extents[i].bytes;
    }
    if (of_experts) bytes += of_experts / pi2_layer_ffns(&model->shape) * pi2_token_ffns(&model->shape);
    return bytes;
}

/* Beside all these, what the lists of a store and the like take: as much again as a run without weights is given. */
static pi2_status measure(pi2_run_draft *draft) {
    uint64_t near = 0, far = 0;
    const uint32_t most = draft->run.source.model->shape.learned_positions;
    const uint32_t low = most && most < FAR_CONTEXT ? most / 4 + 1 : NEAR_CONTEXT;
    const uint32_t high = most && most < FAR_CONTEXT ? most : FAR_CONTEXT;
    PI2_TRY(bytes_at(&draft->run, low, &near));
    PI2_TRY(bytes_at(&draft->run, high, &far));
    draft->bytes_per_token = far > near ? (far - near + high - low - 1) / (high - low) : 0;
    const uint64_t grown = draft->bytes_per_token * low;
    draft->bytes = (near > grown ? near - grown : 0) + PI2_RUN_GROWTH_BYTES;
    draft->token_bytes = token_bytes(draft->run.source.model);
    return PI2_OK;
}

/* ---- opening ---- */

static pi2_engine_options options_of(const pi2_planned_run *run, pi2_draft_kind kind) {
    const bool is_own = kind == PI2_DRAFT_OWN_LAYER;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = is_own ? run->source.model_path : run->options.draft_model_path;
    if (is_own) options.ffn_activation = run->options.ffn_activation;
    options.memory_bytes = any_budget;
    options.sequences = run->options.sequences;
    options.batch_tokens = BATCH_TOKENS;
    options.thread_count = run->plan.thread_count > run->devices.count /* it computes without devices */
                               ? run->plan.thread_count - run->devices.count : run->plan.thread_count;
    options.allow_prepare = false;
    options.sparsity = "off";
    options.keep_memory = true;
    options.cache_type = PI2_CACHE_F16;
    options.callbacks.cancelled = run->options.callbacks.cancelled;
    options.callbacks.user = run->options.callbacks.user;
    return options;
}

static pi2_status open_draft(const pi2_planned_run *run, pi2_run_draft *draft) {
    const pi2_engine_options options = options_of(run, PI2_DRAFT_MODEL);
    PI2_TRY(pi2_planned_run_open(&options, &draft->run, &draft->gguf));
    (void)snprintf(draft->path, sizeof draft->path, "%s", draft->run.source.model_path);
    if (pi2_model_is_recurrent(&draft->run.source.model->shape)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s keeps a state that cannot be taken back, as wrong guesses must be: it "
                        "cannot be a draft model", draft->run.source.model_path);
    }
    PI2_TRY(check_vocabulary(run, &draft->run));
    return measure(draft);
}

/* ---- layers that guess ---- */

/* Such a layer has the model's tokenizer. */
static pi2_status open_layer(const pi2_planned_run *run, pi2_run_draft *draft) {
    const pi2_engine_options options = options_of(run, draft->kind);
    draft->run.is_next = true;
    draft->run.source.tokenizer = run->source.tokenizer;
    PI2_TRY(pi2_planned_run_open(&options, &draft->run, &draft->gguf));
    const pi2_model_shape *layer = &draft->run.source.model->shape;
    draft->given_length = pi2_model_given_length(layer, false);
    draft->own_length = pi2_model_given_length(layer, true);
    return PI2_OK;
}

/* What its files tell of the vocabulary they were made with; some tell nothing. */
static pi2_status check_own_vocabulary(const pi2_planned_run *run, pi2_run_draft *draft) {
    pi2_tokenizer *tokenizer = NULL;
    if (!pi2_gguf_has(draft->gguf, "tokenizer.ggml.tokens")) return PI2_OK;
    PI2_TRY(pi2_tokenizer_create(draft->gguf, &tokenizer));
    draft->run.source.tokenizer = tokenizer;
    const pi2_status status = check_vocabulary(run, &draft->run);
    draft->run.source.tokenizer = run->source.tokenizer;
    pi2_tokenizer_free(tokenizer);
    return status;
}

static pi2_status check_ids(const pi2_planned_run *run, const pi2_model *layer, const char *path) {
    const uint32_t known = run->source.model->shape.vocabulary_size, rows = layer->shape.vocabulary_size;
    const uint32_t apart = rows < known ? known - rows : rows - known;
    if (layer->shape.token_ids && layer->shape.token_ids < known) {
        return pi2_fail(PI2_ERR_INVALID, "%s cannot guess for %s: its embedding has rows of %u tokens, the model's of "
                        "%u", path, run->source.model_path, layer->shape.token_ids, known);
    }
    if (!layer->token_ids && apart > PADDING_MOST) {
        return pi2_fail(PI2_ERR_INVALID, "%s cannot guess for %s: its head has rows of %u tokens, the model's of %u, "
                        "and it has no tensor 'd2t' that says which", path, run->source.model_path, rows, known);
    }
    for (uint32_t i = 0; layer->token_ids && i < layer->shape.vocabulary_size; i++) {
        if (layer->token_ids[i] < (float)known) continue;
        return pi2_fail(PI2_ERR_INVALID, "%s cannot guess for %s: its tensor 'd2t' names token %.0f, and the model's "
                        "vocabulary has %u tokens", path, run->source.model_path, (double)layer->token_ids[i], known);
    }
    return PI2_OK;
}

/* Its features are layers of the model's, as wide as they are. */
static pi2_status check_features(const pi2_planned_run *run, pi2_run_draft *draft) {
    const pi2_model_shape *model = &run->source.model->shape, *layer = &draft->run.source.model->shape;
    const char *path = draft->run.source.model_path;
    if (layer->feature_length != model->embedding_length) {
        return pi2_fail(PI2_ERR_INVALID, "%s cannot guess for %s: it reads layers of %u floats a token, and the "
                        "model's have %u", path, run->source.model_path, layer->feature_length,
                        model->embedding_length);
    }
    for (uint32_t i = 0; i < layer->feature_count; i++) {
        draft->feature_layers[i] = layer->feature_layers[i];
        if (layer->feature_layers[i] <= model->layer_count) continue;
        return pi2_fail(PI2_ERR_INVALID, "%s cannot guess for %s: it wants what layer %u reads, and the model has %u "
                        "layers", path, run->source.model_path, layer->feature_layers[i], model->layer_count);
    }
    draft->feature_count = layer->feature_count;
    if (model->stream_count == 0) return check_ids(run, draft->run.source.model, path);
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s cannot guess for %s, whose layers read several residual streams", path,
                    run->source.model_path);
}

static pi2_status open_features(const pi2_planned_run *run, pi2_run_draft *draft) {
    draft->kind = PI2_DRAFT_FEATURES;
    PI2_TRY(open_layer(run, draft));
    (void)snprintf(draft->path, sizeof draft->path, "%s", draft->run.source.model_path);
    PI2_TRY(check_own_vocabulary(run, draft));
    PI2_TRY(check_features(run, draft));
    if (draft->run.source.model->shape.token_ids == 0) { /* the rows are the model's, and so are the ids */
        draft->run.source.model->shape.token_ids = run->source.model->shape.vocabulary_size;
    }
    return measure(draft);
}

/* ---- a shortcut ---- */

uint64_t pi2_run_kept_bytes(const pi2_extent_layout *layout, uint32_t first, uint32_t end) {
    uint64_t bytes = 0;
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        if (pi2_run_plan_is_kept(layout, e, first, end)) bytes += pi2_extent_read_bytes(&layout->extents[e]);
    }
    return bytes;
}

/* What stays in memory for it: of the layers that it does not leave out, and of the head. */
static void measure_kept(const pi2_extent_layout *layout, pi2_run_draft *draft) {
    draft->kept_bytes = pi2_run_kept_bytes(layout, draft->first_layer, draft->end_layer);
    draft->token_bytes = 0;
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        const bool is_kept = pi2_run_plan_is_kept(layout, e, draft->first_layer, draft->end_layer);
        if (is_kept) draft->token_bytes += layout->extents[e].bytes;
    }
}

static pi2_status open_shortcut(const pi2_planned_run *run, const char *path, pi2_run_draft *draft) {
    const pi2_model *model = run->source.model;
    draft->kind = PI2_DRAFT_SHORTCUT;
    (void)snprintf(draft->path, sizeof draft->path, "%s", path);
    PI2_TRY(pi2_gguf_open(path, &draft->gguf));
    PI2_TRY(pi2_shortcut_file_check(draft->gguf, &run->source, &draft->first_layer, &draft->end_layer));
    measure_kept(model->layout, draft);
    draft->bytes = pi2_shortcut_bytes(model->shape.embedding_length);
    draft->token_bytes += draft->bytes;
    return PI2_OK;
}

static pi2_status open_next(const pi2_planned_run *run, uint32_t layer, pi2_run_draft *draft) {
    const char *name = strrchr(run->source.model_path, '/');
    draft->kind = PI2_DRAFT_OWN_LAYER;
    (void)snprintf(draft->path, sizeof draft->path, "layer %u of %.900s", layer,
                   name ? name + 1 : run->source.model_path);
    PI2_TRY(open_layer(run, draft));
    return measure(draft);
}

/* What nobody named: a layer of the model's, else a shortcut beside it. The model runs without it: what is wrong with
 * it is told in a line. */
static pi2_status try_own(pi2_planned_run *run, const pi2_gguf *gguf) {
    uint32_t layer = 0;
    char path[sizeof run->draft->path];
    if (pi2_planned_run_draft_tokens(run) == 0) return PI2_OK;
    if (!pi2_cluster_file_is(gguf)) PI2_TRY(pi2_decoder_find_next(gguf, &layer));
    const bool is_beside = pi2_path_beside_model(run, "shortcut", path, sizeof path) && access(path, F_OK) == 0;
    if (!layer && !is_beside) return PI2_OK;
    run->draft = calloc(1, sizeof *run->draft);
    if (!run->draft) return pi2_fail(PI2_ERR_MEMORY, "no memory for guessing ahead");
    run->draft->is_found = true;
    const pi2_status status = layer ? open_next(run, layer, run->draft) : open_shortcut(run, path, run->draft);
    if (status == PI2_OK || status == PI2_ERR_MEMORY || status == PI2_ERR_INTERRUPTED) return status;
    pi2_planned_run_log(run, "%s is left out: %s", run->draft->path, pi2_error_text());
    pi2_run_close_draft(run);
    return PI2_OK;
}

/* What a file is, by which a model guesses. */
static pi2_status find_kind(const char *path, pi2_draft_kind *kind_out) {
    pi2_gguf *gguf = NULL;
    PI2_TRY(pi2_gguf_open(path, &gguf));
    *kind_out = pi2_shortcut_file_is(gguf) ? PI2_DRAFT_SHORTCUT
                : pi2_architecture_guesses(gguf) ? PI2_DRAFT_FEATURES : PI2_DRAFT_MODEL;
    pi2_gguf_close(gguf);
    return PI2_OK;
}

pi2_status pi2_run_open_draft(pi2_planned_run *run, const pi2_gguf *gguf) {
    const char *path = run->options.draft_model_path;
    if (run->options.draft_tokens == 0) return PI2_OK;
    if (!path || !*path) return try_own(run, gguf);
    if (pi2_planned_run_draft_tokens(run) == 0) {
        pi2_planned_run_log(run, "%s is left out: nothing is guessed %s", path,
                            run->options.record_trace ? "beside a recorded trace"
                                                      : "where neurons are left out of a model with recurrent states");
        return PI2_OK;
    }
    run->draft = calloc(1, sizeof *run->draft);
    if (!run->draft) return pi2_fail(PI2_ERR_MEMORY, "no memory for a draft model");
    pi2_draft_kind kind = PI2_DRAFT_MODEL;
    PI2_TRY(find_kind(path, &kind));
    if (kind == PI2_DRAFT_SHORTCUT) return open_shortcut(run, path, run->draft);
    return kind == PI2_DRAFT_FEATURES ? open_features(run, run->draft) : open_draft(run, run->draft);
}

void pi2_run_close_draft(pi2_planned_run *run) {
    if (!run->draft) return;
    pi2_gguf_close(run->draft->gguf);
    pi2_planned_run_close(&run->draft->run);
    free(run->draft);
    run->draft = NULL;
    run->plan.left_out_first = run->plan.left_out_end = 0;
}

/* ---- whether it pays ---- */

static uint64_t missing_bytes(const pi2_planned_run *run, const pi2_memory_plan *plan) {
    if (plan->everything_resident) return 0;
    const uint64_t all = token_bytes(run->source.model);
    const uint64_t in_memory = plan->resident_room + plan->neuron_bytes;
    return all > in_memory ? all - in_memory : 0;
}

/* Tokens of a pass that guesses for nothing: of trees about what was seen of them (bench/EXPERIMENTS.md), where there
 * is a table of next tokens and where not. */
static double free_tokens(const pi2_planned_run *run, const pi2_memory_plan *plan) {
    static const double with_table = 1.5, without_table = 1.15;
    if (plan->draft_nodes == 0) return 1;
    return pi2_next_table_bytes(run) ? with_table : without_table;
}

/* What of them can stay however long texts become: weights leave the room that the cache has lent extent by extent, and
 * what the others take of it may end an extent before it does. */
uint64_t pi2_run_kept_room(const pi2_planned_run *run, const pi2_memory_plan *plan) {
    const pi2_extent_layout *layout = run->source.model->layout;
    uint64_t largest = 0;
    if (plan->loan_bytes == 0) return plan->resident_room;
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        const uint64_t bytes = pi2_extent_read_bytes(&layout->extents[e]);
        if (bytes > largest) largest = bytes;
    }
    const uint64_t lent = plan->loan_bytes + largest;
    return plan->resident_room > lent ? plan->resident_room - lent : 0;
}

/* The layers that a shortcut computes stay; false: there is no room for them, which is told. */
static bool keep_layers(pi2_planned_run *run, const pi2_memory_plan *plan) {
    const pi2_run_draft *draft = run->draft;
    char kept[PI2_SIZE_TEXT_BYTES], room[PI2_SIZE_TEXT_BYTES];
    const uint64_t most = pi2_run_kept_room(run, plan);
    if (plan->neuron_bytes || (!plan->everything_resident && draft->kept_bytes > most)) {
        pi2_planned_run_log(run, plan->neuron_bytes
                                     ? "%s is left out: it computes whole layers, and this run single neurons"
                                     : "%s is left out: the layers that it computes take %s, and the budget has %s for "
                                       "weights that stay", draft->path, pi2_format_size(draft->kept_bytes, kept),
                            pi2_format_size(most, room));
        return false;
    }
    run->plan.left_out_first = draft->first_layer;
    run->plan.left_out_end = draft->end_layer;
    return true;
}

bool pi2_run_judge_draft(pi2_planned_run *run, const pi2_memory_plan *with, const pi2_memory_plan *without) {
    const pi2_run_draft *draft = run->draft;
    const char *path = draft->path;
    const uint64_t context = (with ? with : without)->shape.context_tokens;
    char size[PI2_SIZE_TEXT_BYTES];
    (void)pi2_format_size(draft->bytes + draft->bytes_per_token * context, size);
    const bool is_own = draft->kind == PI2_DRAFT_SHORTCUT;
    const uint32_t positions = is_own ? 0 : draft->run.source.model->shape.learned_positions;
    if (positions && positions < context) {
        pi2_planned_run_log(run, "%s is left out: it has positions for %u tokens, and the context has %llu (a shorter "
                            "one, -c, would let it guess)", path, positions, (unsigned long long)context);
    } else if (!with || with->draft_tokens == 0) {
        pi2_planned_run_log(run, "%s is left out: it would take %s, and the budget has no room for it beside the model",
                            path, size);
    } else if (is_own && draft->is_found && without->everything_resident && !run->options.draft_always) {
        /* it lies there for runs that stream */
    } else if (is_own && !keep_layers(run, with)) {
        /* it has been told */
    } else if (run->options.draft_always) {
        return true;
    } else if (pi2_model_has_experts(&run->source.model->shape) && !with->everything_resident) {
        pi2_planned_run_log(run, "%s is left out: each token that it guesses would read experts of its own "
                            "(--draft-always uses it all the same)", path);
    } else {
        const pi2_draft_forecast_request request = {
            .pass_bytes = token_bytes(run->source.model), .missing_bytes = missing_bytes(run, without),
            .missing_with_bytes = missing_bytes(run, with), .draft_bytes = draft->token_bytes,
            .by_level = is_own && with->draft_nodes > 0,
            .most = with->draft_tokens, .free_tokens = free_tokens(run, without) };
        const pi2_draft_forecast forecast = pi2_forecast_draft(&request);
        if (forecast.length) {
            pi2_planned_run_log(run, "%s guesses ahead, and takes %s: about %.1f tokens in %.1f times the time of one",
                                path, size, forecast.tokens, forecast.time);
            return true;
        }
        pi2_planned_run_log(run, "%s is left out: it would take %s and more time than its guesses save "
                            "(--draft-always uses it all the same)", path, size);
    }
    pi2_run_close_draft(run);
    return false;
}
