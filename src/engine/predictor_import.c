/*
 * predictor_import.c: the predictors that a PowerInfer file carries (fc1, fc2), as a predictor's file.
 *
 * Theirs read the vector that goes into the FFN's norm, ours what comes out of it: x divided by its root mean square
 * and times the norm's weight, number by number. A predictor without biases says the same of a vector of any length, so
 * fc1's columns divided by the norm's weights do. What LayerNorm takes away, a mean, cannot be given back so.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/engine_internal.h"
#include "file_formats/cluster_file.h"
#include "powerinfer2/neuron_predictor.h"
#include "predictor/low_rank.h"
#include "predictor/predictor_file.h"
#include "store/weight_file.h"

enum { NAME_BYTES = 40 };

typedef struct import_run {
    pi2_planned_run run;
    pi2_gguf *gguf;
    pi2_predictor predictor;
    void **data;         /* [layer_count] */
    float *row;          /* the longest of both matrices, filled up with zeros */
} import_run;

/** One matrix of a predictor, in memory. */
typedef struct small_matrix {
    void *memory;
    const uint8_t *bytes;
    const pi2_weight_format *format;
    uint64_t rows, columns;
} small_matrix;

static pi2_status read_matrix(const import_run *self, uint32_t layer, const char *end, small_matrix *matrix) {
    char name[NAME_BYTES];
    (void)snprintf(name, sizeof name, "blk.%u.%s.weight", layer, end);
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(self->gguf, name);
    const char *path = pi2_gguf_file_path(self->gguf, tensor ? tensor->file_index : 0);
    if (!tensor) {
        return pi2_fail(PI2_ERR_INVALID, "%s: there is no tensor '%s': it carries no predictor that could be imported",
                        path, name);
    }
    *matrix = (small_matrix){ .format = pi2_weight_format_find(tensor->type), .rows = tensor->dimensions[1],
                              .columns = tensor->dimensions[0] };
    if (!matrix->format || matrix->columns % matrix->format->block_columns) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor '%s' at byte %llu: its type cannot be read", path, name,
                        (unsigned long long)tensor->file_offset);
    }
    const size_t room = ((size_t)tensor->bytes / PI2_READ_ALIGNMENT + 3) * PI2_READ_ALIGNMENT;
    matrix->memory = aligned_alloc(PI2_READ_ALIGNMENT, room);
    if (!matrix->memory) return pi2_fail(PI2_ERR_MEMORY, "no memory for tensor '%s'", name);
    pi2_weight_file file = { .path = NULL };
    pi2_status status = pi2_weight_file_open(&file, path);
    if (status == PI2_OK) {
        status = pi2_weight_file_read(&file, tensor->file_offset, (size_t)tensor->bytes, matrix->memory,
                                      &matrix->bytes);
    }
    pi2_weight_file_close(&file);
    if (status == PI2_OK && pi2_cluster_file_is(self->gguf)) {
        status = pi2_cluster_file_check_table(self->gguf, tensor, matrix->bytes);
    }
    return status;
}

/* Row `number` into self->row; false: a number of it is none. */
static bool decode(const import_run *self, const small_matrix *matrix, uint64_t number) {
    const size_t blocks = (size_t)matrix->columns / matrix->format->block_columns;
    matrix->format->decode_row(self->row, matrix->bytes + number * blocks * matrix->format->block_bytes, blocks);
    for (uint64_t c = 0; c < matrix->columns; c++) {
        if (!(self->row[c] >= -FLT_MAX && self->row[c] <= FLT_MAX)) return false;
    }
    return true;
}

static pi2_status check_shapes(const import_run *self, uint32_t layer, const small_matrix *first,
                               const small_matrix *second) {
    const pi2_predictor *predictor = &self->predictor;
    if (first->columns == predictor->width && second->rows == predictor->neuron_count &&
        first->rows == second->columns && first->rows > 0 &&
        first->rows <= PI2_PREDICTOR_MOST_RANK) {
        return PI2_OK;
    }
    return pi2_fail(PI2_ERR_FORMAT, "%s: the predictor of layer %u has matrices that do not fit the model's layers",
                    pi2_gguf_file_path(self->gguf, 0), layer);
}

static pi2_status put_layer(import_run *self, uint32_t layer, const small_matrix *first, const small_matrix *second) {
    const pi2_predictor *predictor = &self->predictor;
    const float *norm = self->run.source.model->layers[layer].tables[PI2_TABLE_FFN_NORM];
    PI2_TRY(check_shapes(self, layer, first, second));
    const uint32_t used = (uint32_t)first->rows;
    const uint32_t rank = (used + PI2_SMALL_BLOCK - 1) / PI2_SMALL_BLOCK * PI2_SMALL_BLOCK;
    const uint64_t bytes = predictor->kind->layer_bytes(predictor, rank);
    const size_t longest = predictor->width > rank ? predictor->width : rank;
    bool is_good = true;
    free(self->row);
    self->row = calloc(longest, sizeof *self->row);
    if (!self->row || posix_memalign(&self->data[layer], PI2_PREDICTOR_ALIGNMENT, (size_t)bytes) != 0) {
        self->data[layer] = NULL;
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the predictor of layer %u", layer);
    }
    memset(self->data[layer], 0, (size_t)bytes);
    for (uint32_t r = 0; r < used && is_good; r++) {
        is_good = decode(self, first, r);
        for (uint32_t c = 0; c < predictor->width; c++) {
            self->row[c] = norm[c] != 0 ? self->row[c] / norm[c] : 0;
            is_good = is_good && isfinite(self->row[c]);
        }
        if (is_good) pi2_low_rank_put_code_row(predictor, rank, self->data[layer], r, self->row);
    }
    memset(self->row, 0, longest * sizeof *self->row);
    for (uint32_t n = 0; n < predictor->neuron_count && is_good; n++) {
        is_good = decode(self, second, n);
        if (is_good) pi2_low_rank_put_neuron(predictor, rank, self->data[layer], n, self->row, 0.0f);
    }
    if (!is_good) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: the predictor of layer %u has numbers that are none",
                        pi2_gguf_file_path(self->gguf, 0), layer);
    }
    /* There a score of 0 fires. */
    self->predictor.layers[layer] =
        (pi2_predictor_layer){ .size = rank, .threshold = -FLT_MIN, .data = self->data[layer] };
    return PI2_OK;
}

static pi2_status import_layer(import_run *self, uint32_t layer) {
    small_matrix first = { .memory = NULL }, second = { .memory = NULL };
    pi2_status status = read_matrix(self, layer, "fc1", &first);
    if (status == PI2_OK) status = read_matrix(self, layer, "fc2", &second);
    if (status == PI2_OK) status = put_layer(self, layer, &first, &second);
    free(first.memory);
    free(second.memory);
    return status;
}

/* Whose the predictors are, and that they can be read so. */
static pi2_status describe(import_run *self) {
    const pi2_model *model = self->run.source.model;
    const pi2_model_shape *shape = &model->shape;
    const char *path = self->run.source.model_path;
    if (pi2_model_has_experts(shape) || shape->embedding_length % PI2_SMALL_BLOCK ||
        shape->embedding_length > PI2_SMALL_MOST_COLUMNS || shape->activation == PI2_FFN_gelu_topk) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: predictors are for models without experts whose embedding is a "
                        "multiple of %d", path, PI2_SMALL_BLOCK);
    }
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        const float *const *tables = model->layers[i].tables;
        if (tables[PI2_TABLE_FFN_NORM] && !tables[PI2_TABLE_FFN_NORM_BIAS]) continue;
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: layer %u has no norm of its own without a mean before its FFN: what "
                        "its predictor reads cannot be told from what that leaves: train one", path, i);
    }
    PI2_TRY(pi2_run_describe_predictor(&self->run, self->gguf, PI2_PREDICTOR_LOW_RANK, &self->predictor));
    self->data = calloc(shape->layer_count, sizeof *self->data);
    return self->data ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for a predictor");
}

static pi2_status import(import_run *self, const pi2_engine_options *options, const char *output_path) {
    const char *const inputs[] = { options->model_path, NULL };
    PI2_TRY(pi2_planned_run_open(options, &self->run, &self->gguf));
    PI2_TRY(pi2_predictor_check_place(output_path, inputs));
    PI2_TRY(describe(self));
    for (uint32_t i = 0; i < self->predictor.layer_count; i++) PI2_TRY(import_layer(self, i));
    return pi2_predictor_write(output_path, inputs, &self->predictor);
}

pi2_status pi2_predictor_import(const pi2_engine_options *options, const char *output_path) {
    import_run *self = calloc(1, sizeof *self);
    if (!self) return pi2_fail(PI2_ERR_MEMORY, "no memory for an import");
    const pi2_status status = import(self, options, output_path);
    for (uint32_t i = 0; self->data && i < self->predictor.layer_count; i++) free(self->data[i]);
    free(self->data);
    free(self->row);
    pi2_predictor_free(&self->predictor);
    pi2_gguf_close(self->gguf);
    pi2_planned_run_close(&self->run);
    free(self);
    return status;
}
