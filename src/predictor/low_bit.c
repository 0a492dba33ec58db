/* low_bit.c: makes copies of rows with 2 or 3 bits, and estimates from them what neurons will give. */
#include "predictor/low_bit.h"

#include <math.h>
#include <string.h>

#include "predictor/estimates.h"
#include "predictor/predictor_kinds.h"

enum { SCALE_LEVELS = 255 };

/* ---- where a layer's data lie ---- */

typedef struct copy_parts {
    uint64_t values, scales, units, errors;
} copy_parts;

typedef struct layer_parts {
    copy_parts gate, up;
    uint64_t worths, bytes;
} layer_parts;

static uint64_t place_copy(const pi2_predictor *predictor, uint32_t bits, uint64_t at, copy_parts *parts) {
    const uint64_t blocks = (uint64_t)predictor->neuron_count * (predictor->width / PI2_SMALL_BLOCK);
    const uint64_t floats = pi2_predictor_round_up((uint64_t)predictor->neuron_count * sizeof(float));
    parts->values = at;
    parts->scales = parts->values + pi2_predictor_round_up(blocks * pi2_small_block_bytes(bits));
    parts->units = parts->scales + pi2_predictor_round_up(blocks);
    parts->errors = parts->units + floats;
    return parts->errors + floats;
}

static layer_parts place_parts(const pi2_predictor *predictor, uint32_t bits) {
    layer_parts parts = { .bytes = 0 };
    uint64_t at = place_copy(predictor, bits, 0, &parts.gate);
    if (predictor->has_up) at = place_copy(predictor, bits, at, &parts.up);
    parts.worths = at;
    parts.bytes = at + pi2_predictor_round_up((uint64_t)predictor->neuron_count * sizeof(float));
    return parts;
}

static uint64_t layer_bytes(const pi2_predictor *predictor, uint32_t size) {
    return size < PI2_LOW_BIT_LEAST || size > PI2_LOW_BIT_MOST ? 0 : place_parts(predictor, size).bytes;
}

static const float *floats_at(const pi2_predictor_layer *layer, uint64_t offset) {
    return (const float *)(const void *)(layer->data + offset);
}

static bool copy_is_good(const pi2_predictor_layer *layer, const copy_parts *parts, uint32_t neurons) {
    return pi2_predictor_floats_are_good(floats_at(layer, parts->units), neurons, 0) &&
           pi2_predictor_floats_are_good(floats_at(layer, parts->errors), neurons, 0);
}

static bool is_good(const pi2_predictor *predictor, const pi2_predictor_layer *layer) {
    const layer_parts parts = place_parts(predictor, layer->size);
    return copy_is_good(layer, &parts.gate, predictor->neuron_count) &&
           (!predictor->has_up || copy_is_good(layer, &parts.up, predictor->neuron_count)) &&
           pi2_predictor_floats_are_good(floats_at(layer, parts.worths), predictor->neuron_count, 0);
}

/* ---- copies ---- */

/* The code u of the level 2 u - most that is nearest to value / unit. */
static int code_of(float value, float half_inverse, int most) {
    const float at = value * half_inverse + 0.5f * (float)(most + 1);
    return at <= 0 ? 0 : at >= (float)most ? most : (int)at;
}

static float half_inverse_of(float unit) { return unit > 0 ? 0.5f / unit : 0.0f; }

static float error_of(const float *values, float unit, int most) {
    const float half_inverse = half_inverse_of(unit);
    float sum = 0;
    for (int i = 0; i < PI2_SMALL_BLOCK; i++) {
        const float off = values[i] - unit * (float)(2 * code_of(values[i], half_inverse, most) - most);
        sum += off * off;
    }
    return sum;
}

/* Half the distance of levels that fits a block best, of some around what is best for a normal distribution. */
static float find_unit(const float *values, int most) {
    float squares = 0, least = INFINITY;
    for (int i = 0; i < PI2_SMALL_BLOCK; i++) squares += values[i] * values[i];
    const float normal = sqrtf(squares / PI2_SMALL_BLOCK) * (most == 3 ? 0.498f : 0.293f);
    float best = normal;
    for (int i = -3; i <= 3; i++) {
        const float unit = normal * (1.0f + 0.1f * (float)i), error = error_of(values, unit, most);
        if (!(error < least)) continue;
        least = error;
        best = unit;
    }
    return best;
}

static void put_block(uint8_t *block, uint32_t bits, const float *values, float unit, int most) {
    const float half_inverse = half_inverse_of(unit);
    memset(block, 0, pi2_small_block_bytes(bits));
    for (int i = 0; i < PI2_SMALL_BLOCK; i++) {
        const unsigned code = (unsigned)code_of(values[i], half_inverse, most);
        block[i % 8] = (uint8_t)(block[i % 8] | (code & 3) << (2 * (i / 8)));
        if (bits == 3) block[8 + i % 4] = (uint8_t)(block[8 + i % 4] | (code >> 2) << (i / 4));
    }
}

void pi2_low_bit_put_row(const pi2_predictor *predictor, uint32_t bits, uint8_t *data, bool is_up, uint32_t neuron,
                         const float *row) {
    const layer_parts all = place_parts(predictor, bits);
    const copy_parts *parts = is_up ? &all.up : &all.gate;
    const size_t blocks = predictor->width / PI2_SMALL_BLOCK, block_bytes = pi2_small_block_bytes(bits);
    uint8_t *values = data + parts->values + neuron * blocks * block_bytes;
    uint8_t *scales = data + parts->scales + neuron * blocks;
    const int most = (1 << bits) - 1;
    float wanted[PI2_SMALL_MOST_COLUMNS / PI2_SMALL_BLOCK], largest = 0;
    for (size_t b = 0; b < blocks; b++) {
        wanted[b] = find_unit(row + b * PI2_SMALL_BLOCK, most);
        if (wanted[b] > largest) largest = wanted[b];
    }
    const float unit_of_row = largest / SCALE_LEVELS;
    double error = 0;
    for (size_t b = 0; b < blocks; b++) {
        const float *block = row + b * PI2_SMALL_BLOCK;
        scales[b] = unit_of_row > 0 ? (uint8_t)rintf(wanted[b] / unit_of_row) : 0;
        const float unit = unit_of_row * (float)scales[b];
        put_block(values + b * block_bytes, bits, block, unit, most);
        error += (double)error_of(block, unit, most);
    }
    ((float *)(void *)(data + parts->units))[neuron] = unit_of_row;
    ((float *)(void *)(data + parts->errors))[neuron] = (float)sqrt(error / predictor->width);
}

void pi2_low_bit_put_worth(const pi2_predictor *predictor, uint32_t bits, uint8_t *data, uint32_t neuron, float worth) {
    ((float *)(void *)(data + place_parts(predictor, bits).worths))[neuron] = worth;
}

static const float *worths(const pi2_predictor *predictor, const pi2_predictor_layer *layer) {
    return floats_at(layer, place_parts(predictor, layer->size).worths);
}

/* ---- scores ---- */

/* Of neurons [begin, end): the mean of what a row gives, and its deviation. */
static void estimate(const pi2_predictor_query *query, const copy_parts *parts, const float *bias,
                     const pi2_predictor_vector *from, uint32_t begin, uint32_t end, pi2_estimates *estimates) {
    const pi2_predictor_layer *layer = query->layer;
    const size_t blocks = query->predictor->width / PI2_SMALL_BLOCK, block_bytes = pi2_small_block_bytes(layer->size);
    const float *units = floats_at(layer, parts->units), *errors = floats_at(layer, parts->errors);
    for (uint32_t n = begin; n < end; n++) {
        const int64_t sum = query->kernel->low_bit(layer->data + parts->values + n * blocks * block_bytes,
                                                   layer->data + parts->scales + n * blocks, layer->size, from->values,
                                                   query->predictor->width);
        estimates->mean[n - begin] = (float)sum * units[n] * from->scale + (bias ? bias[n] : 0.0f);
        estimates->deviation[n - begin] = errors[n] * from->norm;
    }
}

/* Of whether neurons fire Up is asked only where it decides. */
static void score_step(const pi2_predictor_query *query, const layer_parts *parts, const pi2_predictor_vector *from,
                       uint32_t begin, uint32_t end, float *scores) {
    const pi2_predictor *predictor = query->predictor;
    const bool fires = query->score == PI2_SCORE_FIRES;
    const bool asks_up = predictor->has_up && (!fires || predictor->activation_number == PI2_FFN_drelu);
    const float *of = floats_at(query->layer, parts->worths) + begin;
    pi2_estimates gate, up;
    estimate(query, &parts->gate, query->gate_bias, from, begin, end, &gate);
    if (asks_up) estimate(query, &parts->up, query->up_bias, from, begin, end, &up);
    if (fires) pi2_estimates_score_firing(query, &gate, asks_up ? &up : NULL, end - begin, scores);
    else pi2_estimates_score_worth(query, &gate, asks_up ? &up : NULL, of, end - begin, scores);
}

static void score(const pi2_predictor_query *query, const pi2_predictor_vector *from, uint32_t begin, uint32_t end,
                  float *scores) {
    const layer_parts parts = place_parts(query->predictor, query->layer->size);
    for (uint32_t at = begin; at < end; at += PI2_ESTIMATES_MOST) {
        const uint32_t next = end - at < PI2_ESTIMATES_MOST ? end : at + PI2_ESTIMATES_MOST;
        score_step(query, &parts, from, at, next, scores + (at - begin));
    }
}

static void score_some(const pi2_predictor_query *query, const pi2_predictor_vector *from, const uint32_t *neurons,
                       uint32_t count, float *scores) {
    for (uint32_t i = 0; i < count; i++) score(query, from, neurons[i], neurons[i] + 1, scores + i);
}

static uint32_t code_rows(const pi2_predictor_layer *layer) {
    (void)layer;
    return 0;
}

const pi2_predictor_kind pi2_predictor_low_bit = {
    .name = "low_bit", .number = PI2_PREDICTOR_LOW_BIT,
    .layer_bytes = layer_bytes, .is_good = is_good, .worths = worths, .code_rows = code_rows, .scores = score,
    .scores_of = score_some,
};
