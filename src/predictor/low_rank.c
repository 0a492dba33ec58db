/* low_rank.c: two small matrices of int8, a unit for each row. */
#include "predictor/low_rank.h"

#include <float.h>
#include <string.h>

#include "predictor/int8_rows.h"
#include "predictor/predictor_kinds.h"

typedef struct layer_parts {
    uint64_t code, code_units, neurons, neuron_units, biases, bytes;
} layer_parts;

static layer_parts place_parts(const pi2_predictor *predictor, uint32_t rank) {
    const uint64_t neurons = predictor->neuron_count, floats = pi2_predictor_round_up(neurons * sizeof(float));
    layer_parts parts = { .code = 0 };
    parts.code_units = pi2_predictor_round_up((uint64_t)rank * predictor->width);
    parts.neurons = parts.code_units + pi2_predictor_round_up(rank * sizeof(float));
    parts.neuron_units = parts.neurons + pi2_predictor_round_up(neurons * rank);
    parts.biases = parts.neuron_units + floats;
    parts.bytes = parts.biases + floats;
    return parts;
}

static uint64_t layer_bytes(const pi2_predictor *predictor, uint32_t size) {
    if (size == 0 || size > PI2_PREDICTOR_MOST_RANK || size % PI2_SMALL_BLOCK) return 0;
    return place_parts(predictor, size).bytes;
}

static const float *floats_at(const pi2_predictor_layer *layer, uint64_t offset) {
    return (const float *)(const void *)(layer->data + offset);
}

static bool is_good(const pi2_predictor *predictor, const pi2_predictor_layer *layer) {
    const layer_parts parts = place_parts(predictor, layer->size);
    return pi2_predictor_floats_are_good(floats_at(layer, parts.code_units), layer->size, 0) &&
           pi2_predictor_floats_are_good(floats_at(layer, parts.neuron_units), predictor->neuron_count, 0) &&
           pi2_predictor_floats_are_good(floats_at(layer, parts.biases), predictor->neuron_count, -FLT_MAX);
}

/* ---- making ---- */

void pi2_low_rank_put_code_row(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, uint32_t row,
                               const float *floats) {
    const layer_parts parts = place_parts(predictor, rank);
    const float unit =
        pi2_int8_row_put((int8_t *)data + parts.code + (size_t)row * predictor->width, floats, predictor->width);
    ((float *)(void *)(data + parts.code_units))[row] = unit;
}

void pi2_low_rank_put_neuron(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, uint32_t neuron,
                             const float *floats, float bias) {
    const layer_parts parts = place_parts(predictor, rank);
    const float unit = pi2_int8_row_put((int8_t *)data + parts.neurons + (size_t)neuron * rank, floats, rank);
    ((float *)(void *)(data + parts.neuron_units))[neuron] = unit;
    ((float *)(void *)(data + parts.biases))[neuron] = bias;
}

static bool are_opposite(const int8_t *first, const int8_t *second, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (first[i] != -second[i]) return false;
    }
    return true;
}

static bool halves_are_opposite(const pi2_predictor *predictor, uint32_t rank, const uint8_t *data) {
    const layer_parts parts = place_parts(predictor, rank);
    const int8_t *code = (const int8_t *)data + parts.code, *rows = (const int8_t *)data + parts.neurons;
    const uint32_t half = rank / 2;
    const size_t width = predictor->width;
    if (memcmp(data + parts.code_units, data + parts.code_units + half * sizeof(float), half * sizeof(float)) != 0 ||
        !are_opposite(code, code + half * width, half * width)) {
        return false;
    }
    for (uint32_t n = 0; n < predictor->neuron_count; n++) {
        const int8_t *row = rows + (size_t)n * rank;
        if (!are_opposite(row, row + half, half)) return false;
    }
    return true;
}

/* Each part moves towards the beginning, over what is of no use any more. */
uint32_t pi2_low_rank_fold(const pi2_predictor *predictor, uint32_t rank, uint8_t *data) {
    const uint32_t half = rank / 2;
    if (rank % 2 || half % PI2_SMALL_BLOCK || !halves_are_opposite(predictor, rank, data)) return rank;
    const layer_parts from = place_parts(predictor, rank), to = place_parts(predictor, half);
    const size_t floats = predictor->neuron_count * sizeof(float);
    memmove(data + to.code_units, data + from.code_units, half * sizeof(float));
    for (size_t n = 0; n < predictor->neuron_count; n++) {
        memmove(data + to.neurons + n * half, data + from.neurons + n * rank, half);
    }
    memmove(data + to.neuron_units, data + from.neuron_units, floats);
    memmove(data + to.biases, data + from.biases, floats);
    return half;
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
    for (uint32_t r = begin; r < end; r++) {
        const float value = code[r] * units[r] * input->scale;
        code[r] = value <= 0.0f && !layer->is_signed ? 0.0f : value;
    }
}

static void score(const pi2_predictor_query *query, const pi2_predictor_vector *from, uint32_t begin, uint32_t end,
                  float *scores) {
    const pi2_predictor_layer *layer = query->layer;
    const layer_parts parts = place_parts(query->predictor, layer->size);
    const float *units = floats_at(layer, parts.neuron_units) + begin, *biases = floats_at(layer, parts.biases) + begin;
    const int8_t *rows = (const int8_t *)layer->data + parts.neurons;
    query->kernel->int8(scores, rows + (size_t)begin * layer->size, NULL, end - begin, from->values, layer->size);
    for (uint32_t i = 0; i < end - begin; i++) scores[i] = scores[i] * units[i] * from->scale + biases[i];
}

static void score_some(const pi2_predictor_query *query, const pi2_predictor_vector *from, const uint32_t *neurons,
                       uint32_t count, float *scores) {
    const pi2_predictor_layer *layer = query->layer;
    const layer_parts parts = place_parts(query->predictor, layer->size);
    const float *units = floats_at(layer, parts.neuron_units), *biases = floats_at(layer, parts.biases);
    const int8_t *rows = (const int8_t *)layer->data + parts.neurons;
    query->kernel->int8(scores, rows, neurons, count, from->values, layer->size);
    for (uint32_t i = 0; i < count; i++) {
        scores[i] = scores[i] * units[neurons[i]] * from->scale + biases[neurons[i]];
    }
}

const pi2_predictor_kind pi2_predictor_low_rank = {
    .name = "low_rank", .number = PI2_PREDICTOR_LOW_RANK,
    .layer_bytes = layer_bytes, .is_good = is_good, .code_rows = code_rows, .code = code, .scores = score,
    .scores_of = score_some,
};
