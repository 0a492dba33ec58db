/* svd.c: matrices of int8, a unit for each row. */
#include "predictor/svd.h"

#include "predictor/estimates.h"
#include "predictor/int8_rows.h"
#include "predictor/predictor_kinds.h"

typedef struct matrix_parts {
    uint64_t rows, units, rests;
} matrix_parts;

typedef struct layer_parts {
    uint64_t code, code_units;
    matrix_parts gate, up;
    uint64_t worths, bytes;
} layer_parts;

static uint64_t place_matrix(const pi2_predictor *predictor, uint32_t rank, uint64_t at, matrix_parts *parts) {
    const uint64_t neurons = predictor->neuron_count, floats = pi2_predictor_round_up(neurons * sizeof(float));
    parts->rows = at;
    parts->units = at + pi2_predictor_round_up(neurons * rank);
    parts->rests = parts->units + floats;
    return parts->rests + floats;
}

static layer_parts place_parts(const pi2_predictor *predictor, uint32_t rank) {
    layer_parts parts = { .code = 0 };
    parts.code_units = pi2_predictor_round_up((uint64_t)rank * predictor->width);
    uint64_t at = parts.code_units + pi2_predictor_round_up(rank * sizeof(float));
    at = place_matrix(predictor, rank, at, &parts.gate);
    if (predictor->has_up) at = place_matrix(predictor, rank, at, &parts.up);
    parts.worths = at;
    parts.bytes = at + pi2_predictor_round_up((uint64_t)predictor->neuron_count * sizeof(float));
    return parts;
}

static uint64_t layer_bytes(const pi2_predictor *predictor, uint32_t size) {
    if (size == 0 || size > PI2_PREDICTOR_MOST_RANK || size % PI2_SMALL_BLOCK) return 0;
    return place_parts(predictor, size).bytes;
}

static const float *floats_at(const pi2_predictor_layer *layer, uint64_t offset) {
    return (const float *)(const void *)(layer->data + offset);
}

static bool matrix_is_good(const pi2_predictor_layer *layer, const matrix_parts *parts, uint32_t neurons) {
    return pi2_predictor_floats_are_good(floats_at(layer, parts->units), neurons, 0) &&
           pi2_predictor_floats_are_good(floats_at(layer, parts->rests), neurons, 0);
}

static bool is_good(const pi2_predictor *predictor, const pi2_predictor_layer *layer) {
    const layer_parts parts = place_parts(predictor, layer->size);
    return pi2_predictor_floats_are_good(floats_at(layer, parts.code_units), layer->size, 0) &&
           matrix_is_good(layer, &parts.gate, predictor->neuron_count) &&
           (!predictor->has_up || matrix_is_good(layer, &parts.up, predictor->neuron_count)) &&
           pi2_predictor_floats_are_good(floats_at(layer, parts.worths), predictor->neuron_count, 0);
}

/* ---- making ---- */

void pi2_svd_put_code_row(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, uint32_t row,
                          const float *floats) {
    const layer_parts parts = place_parts(predictor, rank);
    const float unit = pi2_int8_row_put((int8_t *)data + parts.code + (size_t)row * predictor->width, floats,
                                        predictor->width);
    ((float *)(void *)(data + parts.code_units))[row] = unit;
}

void pi2_svd_put_neuron(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, bool is_up, uint32_t neuron,
                        const float *floats, float rest) {
    const layer_parts all = place_parts(predictor, rank);
    const matrix_parts *parts = is_up ? &all.up : &all.gate;
    const float unit = pi2_int8_row_put((int8_t *)data + parts->rows + (size_t)neuron * rank, floats, rank);
    ((float *)(void *)(data + parts->units))[neuron] = unit;
    ((float *)(void *)(data + parts->rests))[neuron] = rest;
}

void pi2_svd_put_worth(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, uint32_t neuron, float worth) {
    ((float *)(void *)(data + place_parts(predictor, rank).worths))[neuron] = worth;
}

static const float *worths(const pi2_predictor *predictor, const pi2_predictor_layer *layer) {
    return floats_at(layer, place_parts(predictor, layer->size).worths);
}

/* ---- scores ---- */

static uint32_t code_rows(const pi2_predictor_layer *layer) { return layer->size; }

static void code(const pi2_predictor_query *query, const pi2_predictor_vector *input, uint32_t begin, uint32_t end,
                 float *code) {
    const pi2_predictor_layer *layer = query->layer;
    const size_t width = query->predictor->width;
    const layer_parts parts = place_parts(query->predictor, layer->size);
    const float *units = floats_at(layer, parts.code_units);
    const int8_t *rows = (const int8_t *)layer->data + parts.code;
    query->kernel->int8(code + begin, rows + begin * width, NULL, end - begin, input->values, width);
    for (uint32_t r = begin; r < end; r++) code[r] = code[r] * units[r] * input->scale;
}

/* Of the neurons that are listed, or, without a list, of [first, first + count). */
static void estimate(const pi2_predictor_query *query, const matrix_parts *parts, const float *bias,
                     const pi2_predictor_vector *from, const uint32_t *neurons, uint32_t first, uint32_t count,
                     pi2_estimates *estimates) {
    const pi2_predictor_layer *layer = query->layer;
    const float *units = floats_at(layer, parts->units), *rests = floats_at(layer, parts->rests);
    const int8_t *rows = (const int8_t *)layer->data + parts->rows + (size_t)first * layer->size;
    query->kernel->int8(estimates->mean, rows, neurons, count, from->values, layer->size);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t n = neurons ? neurons[i] : first + i;
        estimates->mean[i] = estimates->mean[i] * units[n] * from->scale + (bias ? bias[n] : 0.0f);
        estimates->deviation[i] = rests[n];
    }
}

/* At most PI2_ESTIMATES_MOST of them. Of whether neurons fire Up is asked only where it decides. */
static void score_step(const pi2_predictor_query *query, const pi2_predictor_vector *from, const uint32_t *neurons,
                       uint32_t first, uint32_t count, float *scores) {
    const pi2_predictor *predictor = query->predictor;
    const layer_parts parts = place_parts(predictor, query->layer->size);
    const bool fires = query->score == PI2_SCORE_FIRES;
    const bool asks_up = predictor->has_up && (!fires || predictor->activation_number == PI2_FFN_drelu);
    const float *all = floats_at(query->layer, parts.worths);
    float of[PI2_ESTIMATES_MOST];
    pi2_estimates gate, up;
    estimate(query, &parts.gate, query->gate_bias, from, neurons, first, count, &gate);
    if (asks_up) estimate(query, &parts.up, query->up_bias, from, neurons, first, count, &up);
    for (uint32_t i = 0; i < count; i++) of[i] = all[neurons ? neurons[i] : first + i];
    if (fires) pi2_estimates_score_firing(query, &gate, asks_up ? &up : NULL, count, scores);
    else pi2_estimates_score_worth(query, &gate, asks_up ? &up : NULL, of, count, scores);
}

static uint32_t step_of(uint32_t left) { return left < PI2_ESTIMATES_MOST ? left : PI2_ESTIMATES_MOST; }

static void score(const pi2_predictor_query *query, const pi2_predictor_vector *from, uint32_t begin, uint32_t end,
                  float *scores) {
    for (uint32_t at = begin; at < end; at += PI2_ESTIMATES_MOST) {
        score_step(query, from, NULL, at, step_of(end - at), scores + (at - begin));
    }
}

static void score_some(const pi2_predictor_query *query, const pi2_predictor_vector *from, const uint32_t *neurons,
                       uint32_t count, float *scores) {
    for (uint32_t at = 0; at < count; at += PI2_ESTIMATES_MOST) {
        score_step(query, from, neurons + at, 0, step_of(count - at), scores + at);
    }
}

const pi2_predictor_kind pi2_predictor_svd = {
    .name = "svd", .number = PI2_PREDICTOR_SVD,
    .layer_bytes = layer_bytes, .is_good = is_good, .worths = worths, .code_rows = code_rows, .code = code,
    .scores = score, .scores_of = score_some,
};
