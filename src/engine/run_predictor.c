/* run_predictor.c: which predictor a run uses, and whether it is one of its weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fail.h"
#include "base/memory_limit.h"
#include "base/parse_size.h"
#include "base/team.h"
#include "engine/engine_internal.h"
#include "engine/predictor_recipe.h"
#include "powerinfer2/neuron_predictor.h"
#include "predictor/layer_shares.h"
#include "predictor/low_bit.h"
#include "predictor/low_bit_make.h"
#include "predictor/predictor_file.h"

enum { OWN_BITS = 2, HASH_BYTES = 1 << 20 };

/* Beside the cluster file: "model.pi2" has "model.low-bit.predictor". */
static pi2_status name_own(pi2_planned_run *run) {
    const char *weights = run->source.weights_path;
    const size_t length = strlen(weights), end = strlen(".pi2");
    const size_t stem = length > end && strcmp(weights + length - end, ".pi2") == 0 ? length - end : length;
    const int written = snprintf(run->plan.predictor_path, sizeof run->plan.predictor_path, "%.*s.low-bit.predictor",
                                 (int)stem, weights);
    if (written > 0 && (size_t)written < sizeof run->plan.predictor_path) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s: too long a path for the name of its predictor beside it", weights);
}

/* Of experts no shares are balanced, so a file that has losses of theirs was not made here: sharing out by thousands of
 * them would take minutes. */
static bool has_losses(const pi2_predictor *predictor) {
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        for (int p = 0; p < PI2_PREDICTOR_POINTS; p++) {
            if (predictor->layers[i].lost[p] != 0) return true;
        }
    }
    return false;
}

static pi2_status check_whose(const pi2_planned_run *run) {
    const pi2_predictor *predictor = &run->plan.predictor;
    const pi2_model *model = run->source.model;
    const char *path = run->plan.predictor_path, *activation = pi2_ffn_activation_name(model->shape.activation);
    if (predictor->header_hash != model->source.header_hash || predictor->content_hash != model->source.content_hash ||
        predictor->layer_count != pi2_model_ffns(&model->shape) || predictor->width != model->shape.embedding_length ||
        predictor->neuron_count != pi2_ffn_length(&model->shape)) {
        return pi2_fail(PI2_ERR_INVALID, "%s: this predictor was made of other weights than those in %s: make it again",
                        path, run->source.weights_path);
    }
    if (pi2_model_has_experts(&model->shape) && has_losses(predictor)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: this predictor of experts has what their layers lose, which none has: "
                        "make it again", path);
    }
    if (predictor->activation_number == model->shape.activation) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s: this predictor was made for %s, and %s is computed: make it again", path,
                    pi2_ffn_activation_name(predictor->activation_number), activation);
}

/* Of the budget, beside what the process has by now: a run that makes its predictor keeps to it meanwhile. */
static uint64_t room_of_run(const pi2_planned_run *run) {
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    return run->report.budget_bytes > current ? run->report.budget_bytes - current : 0;
}

static pi2_status make_copies(const pi2_planned_run *run, const pi2_gguf *gguf, const char *const *inputs,
                              uint32_t bits, uint64_t room_bytes) {
    const pi2_model *model = run->source.model;
    const pi2_low_bit_request request = {
        .gguf = gguf, .banks = model->banks, .source = &model->source, .layer_count = pi2_model_ffns(&model->shape),
        .layer_ffns = pi2_layer_ffns(&model->shape), .width = model->shape.embedding_length,
        .neuron_count = pi2_ffn_length(&model->shape),
        .activation = model->shape.activation, .bits = bits, .room_bytes = room_bytes,
        .callbacks = &run->options.callbacks };
    pi2_predictor predictor;
    void *memory;
    PI2_TRY(pi2_low_bit_make(&request, &predictor, &memory));
    const pi2_status status = pi2_predictor_write(run->plan.predictor_path, inputs, &predictor);
    pi2_predictor_free(&predictor);
    free(memory);
    return status;
}

/* A table of each FFN, in a list that the caller frees: its layer's, or of its biases its own row. */
static const float **list_tables(const pi2_model *model, uint32_t role) {
    const uint32_t count = pi2_model_ffns(&model->shape), each = pi2_layer_ffns(&model->shape);
    const size_t row = role == PI2_TABLE_FFN_NORM ? 0 : pi2_ffn_length(&model->shape);
    const float **list = malloc(count * sizeof *list);
    for (uint32_t i = 0; list && i < count; i++) {
        const float *table = model->layers[i / each].tables[role];
        list[i] = table ? table + i % each * row : NULL;
    }
    return list;
}

static pi2_status make_svd(const pi2_planned_run *run, const pi2_gguf *gguf, const char *const *inputs) {
    const pi2_predictor_recipe *recipe = run->plan.predictor_recipe;
    const pi2_model *model = run->source.model;
    const unsigned threads = run->options.thread_count ? run->options.thread_count : pi2_default_threads();
    const float **norms = list_tables(model, PI2_TABLE_FFN_NORM), **gates = list_tables(model, PI2_TABLE_GATE_BIAS);
    const float **ups = list_tables(model, PI2_TABLE_UP_BIAS);
    pi2_svd_request request = {
        .gguf = gguf, .banks = model->banks, .layer_ffns = pi2_layer_ffns(&model->shape),
        .fires = pi2_model_shape_fires(&model->shape), .rank = recipe->rank,
        .recall = recipe->recall, .samples = recipe->samples, .norms = norms, .gate_biases = gates, .up_biases = ups,
        .callbacks = &run->options.callbacks };
    pi2_predictor predictor = { .kind = NULL };
    pi2_status status = norms && gates && ups ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory to make a predictor");
    if (status == PI2_OK) status = pi2_run_describe_predictor(run, gguf, PI2_PREDICTOR_SVD, &predictor);
    if (status == PI2_OK) status = pi2_team_create(threads, NULL, &request.team);
    if (status == PI2_OK) status = pi2_svd_make(&request, &predictor);
    if (status == PI2_OK) status = pi2_predictor_write(run->plan.predictor_path, inputs, &predictor);
    for (uint32_t i = 0; predictor.layers && i < predictor.layer_count; i++) {
        free((void *)(uintptr_t)predictor.layers[i].data);
    }
    pi2_predictor_free(&predictor);
    pi2_team_destroy(request.team);
    free(norms);
    free(gates);
    free(ups);
    return status;
}

/* By the recipe; without one, copies. */
static pi2_status make_own(pi2_planned_run *run, const pi2_gguf *gguf) {
    const char *const inputs[] = { run->source.weights_path, run->source.model_path, NULL };
    const pi2_predictor_recipe *recipe = run->plan.predictor_recipe;
    if (run->source.model->banks->banks[0].gate_tensor == PI2_NO_GATE) {
        return pi2_fail(PI2_ERR_INVALID, "%s: a predictor is made of the bundle layout: run 'powerinfer2 prepare "
                        "--layout bundle', or name a predictor's file", run->source.weights_path);
    }
    pi2_planned_run_log(run, "making %s of the weights, once", run->plan.predictor_path);
    PI2_TRY(pi2_predictor_check_place(run->plan.predictor_path, inputs));
    if (recipe && recipe->rank > run->source.model->shape.embedding_length) {
        return pi2_fail(PI2_ERR_INVALID, "%s: a width of %u is more directions than the %u numbers of its embedding "
                        "have", run->source.model_path, recipe->rank, run->source.model->shape.embedding_length);
    }
    if (recipe && recipe->bits == 0) return make_svd(run, gguf, inputs);
    if (recipe) return make_copies(run, gguf, inputs, recipe->bits, UINT64_MAX);
    return make_copies(run, gguf, inputs, OWN_BITS, room_of_run(run));
}

/* What lies there, unless it has to be made (again). */
static pi2_status open_own(pi2_planned_run *run, bool may_make, const pi2_gguf *gguf) {
    struct stat what;
    const bool is_there = stat(run->plan.predictor_path, &what) == 0;
    if (is_there && pi2_predictor_read(run->plan.predictor_path, &run->plan.predictor) == PI2_OK) {
        if (check_whose(run) == PI2_OK) return PI2_OK;
        pi2_predictor_free(&run->plan.predictor);
    }
    if (!may_make) {
        return pi2_fail(PI2_ERR_INVALID, "%s: there is no predictor of these weights, and none is made by this "
                        "command: run once without --no-prepare", run->plan.predictor_path);
    }
    PI2_TRY(make_own(run, gguf));
    PI2_TRY(pi2_predictor_read(run->plan.predictor_path, &run->plan.predictor));
    return check_whose(run);
}

static pi2_status open_predictor(pi2_planned_run *run, bool is_to_run, const pi2_gguf *gguf) {
    const char *wanted = run->options.predictor;
    if (!run->plan.foretells || run->plan.gate_foretells || !run->plan.banks) return PI2_OK;
    if (run->plan.predictor_recipe) {
        if (!run->plan.predictor_path[0]) PI2_TRY(name_own(run));
        return make_own(run, gguf);
    }
    if (!wanted || strcmp(wanted, "low-bit") == 0) {
        PI2_TRY(name_own(run));
        return open_own(run, is_to_run && run->options.allow_prepare, gguf);
    }
    if (strlen(wanted) >= sizeof run->plan.predictor_path) {
        return pi2_fail(PI2_ERR_INVALID, "the predictor's path is longer than %zu bytes",
                        sizeof run->plan.predictor_path - 1);
    }
    memcpy(run->plan.predictor_path, wanted, strlen(wanted) + 1);
    PI2_TRY(pi2_predictor_read(wanted, &run->plan.predictor));
    return check_whose(run);
}

pi2_status pi2_run_open_predictor(pi2_planned_run *run, bool is_to_run, const pi2_gguf *gguf) {
    PI2_TRY(open_predictor(run, is_to_run, gguf));
    if (run->plan.left_out >= 0) pi2_predictor_share_out(&run->plan.predictor, run->plan.left_out);
    return PI2_OK;
}

uint64_t pi2_run_predictor_bytes(const pi2_planned_run *run) {
    return run->plan.predictor.kind ? pi2_predictor_data_bytes(&run->plan.predictor) : 0;
}

pi2_status pi2_run_check_prediction(const pi2_planned_run *run) {
    char lack[PI2_SIZE_TEXT_BYTES];
    if (!run->plan.approximates || run->plan.memory.neuron_bytes) return PI2_OK;
    return pi2_fail(PI2_ERR_MEMORY, "%s: the budget lacks about %s for single neurons, without which nothing can be "
                    "left out: give more, or --sparsity exact", run->source.model_path,
                    pi2_format_size(run->plan.memory.neuron_lack_bytes, lack));
}

static pi2_status hash_source(const pi2_planned_run *run, const pi2_gguf *gguf, pi2_source_identity *source) {
    PI2_TRY(pi2_source_identity_of(gguf, source));
    return pi2_source_hash(gguf, HASH_BYTES, &run->options.callbacks, &source->content_hash);
}

static pi2_status find_source(const pi2_planned_run *run, const pi2_gguf *gguf, pi2_source_identity *source) {
    pi2_gguf *own = NULL;
    *source = run->source.model->source;
    if (run->source.model->has_file) return PI2_OK;
    if (gguf) return hash_source(run, gguf, source);
    PI2_TRY(pi2_gguf_open(run->source.model_path, &own));
    const pi2_status status = hash_source(run, own, source);
    pi2_gguf_close(own);
    return status;
}

pi2_status pi2_run_describe_predictor(const pi2_planned_run *run, const pi2_gguf *gguf, uint32_t kind,
                                      pi2_predictor *predictor_out) {
    const pi2_model *model = run->source.model;
    const pi2_model_shape *shape = &model->shape;
    const char *activation = pi2_ffn_activation_name(shape->activation);
    const bool is_relu = shape->activation == PI2_FFN_relu || shape->activation == PI2_FFN_relu_squared;
    pi2_source_identity source;
    PI2_TRY(find_source(run, gguf, &source));
    if (shape->embedding_length % PI2_SMALL_BLOCK || shape->embedding_length > PI2_SMALL_MOST_COLUMNS) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: an embedding of %u numbers: a predictor reads multiples of %d up to "
                        "%d", run->source.model_path, shape->embedding_length, PI2_SMALL_BLOCK, PI2_SMALL_MOST_COLUMNS);
    }
    *predictor_out = (pi2_predictor){
        .kind = pi2_predictor_kind_find(kind), .header_hash = source.header_hash,
        .content_hash = source.content_hash, .layer_count = pi2_model_ffns(shape), .width = shape->embedding_length,
        .neuron_count = pi2_ffn_length(shape), .activation_number = shape->activation };
    /* Of what rows give Up's are estimated where Gate does not say what they are worth. */
    predictor_out->has_up = kind == PI2_PREDICTOR_SVD && !is_relu && model->banks && model->banks->count > 0 &&
                            model->banks->banks[0].up_format;
    memcpy(predictor_out->activation, activation, strlen(activation));
    predictor_out->layers = calloc(predictor_out->layer_count, sizeof *predictor_out->layers);
    return predictor_out->layers ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for a predictor");
}

pi2_status pi2_predictor_make_by(const pi2_engine_options *options, const pi2_predictor_recipe *recipe,
                                 const char *output_path, char **path_out) {
    pi2_engine_options own = *options;
    *path_out = NULL;
    pi2_planned_run *run = calloc(1, sizeof *run);
    if (!run) return pi2_fail(PI2_ERR_MEMORY, "no memory for a run");
    own.sparsity = "0"; /* what any model may have */
    own.predictor = NULL;
    run->plan.predictor_recipe = recipe;
    const size_t length = output_path ? strlen(output_path) : 0;
    pi2_status status = length < sizeof run->plan.predictor_path
                            ? PI2_OK : pi2_fail(PI2_ERR_INVALID, "%s: too long a path", output_path);
    if (status == PI2_OK && length) memcpy(run->plan.predictor_path, output_path, length + 1);
    if (status == PI2_OK) status = pi2_planned_run_make_predictor(&own, run);
    if (status == PI2_OK) {
        *path_out = malloc(strlen(run->plan.predictor_path) + 1);
        if (*path_out) memcpy(*path_out, run->plan.predictor_path, strlen(run->plan.predictor_path) + 1);
        else status = pi2_fail(PI2_ERR_MEMORY, "no memory for a path");
    }
    pi2_planned_run_close(run);
    free(run);
    return status;
}

pi2_status pi2_predictor_make(const pi2_engine_options *options, uint32_t bits, const char *output_path,
                              char **path_out) {
    const pi2_predictor_recipe recipe = { .bits = bits };
    *path_out = NULL;
    if (bits < PI2_LOW_BIT_LEAST || bits > PI2_LOW_BIT_MOST) {
        return pi2_fail(PI2_ERR_INVALID, "copies have %d or %d bits, not %u", PI2_LOW_BIT_LEAST, PI2_LOW_BIT_MOST,
                        bits);
    }
    return pi2_predictor_make_by(options, &recipe, output_path, path_out);
}
