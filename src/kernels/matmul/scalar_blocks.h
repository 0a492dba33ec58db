/*
 * scalar_blocks.h: how one block of one row meets one token, for every weight type: the formulas of
 * docs/arithmetic.md. The scalar kernels of tiles and of neurons share them; only where the bytes
 * lie differs.
 */
#ifndef PI2_KERNELS_MATMUL_SCALAR_BLOCKS_H
#define PI2_KERNELS_MATMUL_SCALAR_BLOCKS_H

#include <math.h>
#include <string.h>

#include "kernels/activations.h"
#include "weight_formats/half_float.h"

/* One block of one token. `sums` begins at the block's first sum. */
typedef struct pi2_activation_block {
    const int8_t *values;
    const int16_t *sums;
    const float *floats;
    float scale;
} pi2_activation_block;

/* One block of one row, its values and scales. */
typedef struct pi2_weight_block {
    uint8_t q[256];                 /* unsigned values, or signed bytes of Q8_0 */
    float d, m;                     /* F32, F16, BF16: d is the weight */
    uint8_t scales[8], minimums[8]; /* Q4_K */
    int8_t sub_scales[16];          /* Q6_K */
} pi2_weight_block;

typedef float pi2_accumulate_fn(float chain, const pi2_weight_block *w, const pi2_activation_block *a);

static inline int32_t pi2_dot_scalar(const uint8_t *q, const int8_t *a, size_t count) {
    int32_t sum = 0;
    for (size_t k = 0; k < count; k++) sum += (int32_t)q[k] * a[k];
    return sum;
}

static inline pi2_activation_block pi2_activations_at(const pi2_activations *x, size_t token, size_t column) {
    pi2_activation_block a = {0};
    if (x->kind == PI2_ACTIVATION_F32) {
        a.floats = x->floats + token * x->float_stride + column;
        return a;
    }
    const size_t block = x->kind == PI2_ACTIVATION_Q8_256 ? 256 : 32;
    const size_t summed = x->kind == PI2_ACTIVATION_Q8_256 ? 16 : 32;
    a.values = x->values + token * x->value_stride + column;
    a.scale = x->scales[token * x->block_stride + column / block];
    a.sums = x->sums + token * x->sum_stride + column / summed;
    return a;
}

/** The sub-blocks' scales of Q4_K, from the three words of 4 bytes that lie `stride` apart. */
static inline void pi2_read_sub_scales_q4_k(pi2_weight_block *w, const uint8_t *words, size_t stride) {
    const uint8_t *low_minimums = words + stride, *high = low_minimums + stride;
    for (size_t i = 0; i < 4; i++) {
        w->scales[i] = words[i] & 63;
        w->minimums[i] = low_minimums[i] & 63;
        w->scales[i + 4] = (uint8_t)((high[i] & 15) | (words[i] >> 6) << 4);
        w->minimums[i + 4] = (uint8_t)(high[i] >> 4 | (low_minimums[i] >> 6) << 4);
    }
}

/** The scales of `row` in a tile's block of scales; of floats there are none. */
static inline void pi2_read_tile_scales(pi2_weight_block *w, pi2_weight_type type, const uint8_t *scales,
                                        uint32_t row) {
    if (type == PI2_F32 || type == PI2_F16 || type == PI2_BF16) return;
    w->d = pi2_load_half(scales + 2 * row);
    if (type == PI2_Q4_1 || type == PI2_Q5_1 || type == PI2_Q4_K) w->m = pi2_load_half(scales + 32 + 2 * row);
    if (type == PI2_Q4_K) pi2_read_sub_scales_q4_k(w, scales + 64 + 4 * row, 64);
    for (size_t s = 0; type == PI2_Q6_K && s < 16; s++) w->sub_scales[s] = (int8_t)scales[32 + 16 * s + row];
}

/** The scales of a GGUF block of one row. */
static inline void pi2_read_block_scales(pi2_weight_block *w, const pi2_weight_format *format,
                                         const uint8_t *block) {
    const uint8_t *halves = block + format->parts.halves;
    if (format->parts.half_count > 0) w->d = pi2_load_half(halves);
    if (format->parts.half_count > 1) w->m = pi2_load_half(halves + 2);
    if (format->type == PI2_Q4_K) pi2_read_sub_scales_q4_k(w, block + 4, 4);
    if (format->type == PI2_Q6_K) memcpy(w->sub_scales, block + format->parts.scales, sizeof w->sub_scales);
}

static inline float pi2_accumulate_float(float chain, const pi2_weight_block *w, const pi2_activation_block *a) {
    return fmaf(w->d, a->floats[0], chain);
}

static inline float pi2_accumulate_offset(float chain, const pi2_weight_block *w, const pi2_activation_block *a,
                               int offset) {
    const int32_t sum = pi2_dot_scalar(w->q, a->values, 32) - offset * a->sums[0];
    return fmaf((float)sum, w->d * a->scale, chain);
}

static inline float pi2_accumulate_q4_0(float chain, const pi2_weight_block *w, const pi2_activation_block *a) {
    return pi2_accumulate_offset(chain, w, a, 8);
}

static inline float pi2_accumulate_q5_0(float chain, const pi2_weight_block *w, const pi2_activation_block *a) {
    return pi2_accumulate_offset(chain, w, a, 16);
}

static inline float pi2_accumulate_minimum(float chain, const pi2_weight_block *w, const pi2_activation_block *a) {
    chain = fmaf((float)pi2_dot_scalar(w->q, a->values, 32), w->d * a->scale, chain);
    return fmaf(w->m, a->scale * (float)a->sums[0], chain);
}

static inline float pi2_accumulate_q8_0(float chain, const pi2_weight_block *w, const pi2_activation_block *a) {
    int32_t sum = 0;
    for (size_t k = 0; k < 32; k++) sum += (int32_t)(int8_t)w->q[k] * a->values[k];
    return fmaf((float)sum, w->d * a->scale, chain);
}

static inline float pi2_accumulate_q4_k(float chain, const pi2_weight_block *w, const pi2_activation_block *a) {
    int32_t sum = 0, minimum_sum = 0;
    for (size_t s = 0; s < 8; s++) {
        sum += w->scales[s] * pi2_dot_scalar(w->q + 32 * s, a->values + 32 * s, 32);
        minimum_sum += w->minimums[s] * (a->sums[2 * s] + a->sums[2 * s + 1]);
    }
    chain = fmaf((float)sum, w->d * a->scale, chain);
    return fmaf(-(float)minimum_sum, w->m * a->scale, chain);
}

static inline float pi2_accumulate_q6_k(float chain, const pi2_weight_block *w, const pi2_activation_block *a) {
    int32_t sum = 0;
    for (size_t s = 0; s < 16; s++) {
        sum += w->sub_scales[s] * (pi2_dot_scalar(w->q + 16 * s, a->values + 16 * s, 16) - 32 * a->sums[s]);
    }
    return fmaf((float)sum, w->d * a->scale, chain);
}

#endif
