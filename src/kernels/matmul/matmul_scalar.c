/*
 * matmul_scalar.c: the specification of every weight kernel (docs/arithmetic.md). Each format
 * says how one block of one row meets one token; run() gives the order.
 */
#include <math.h>
#include <string.h>

#include "kernels/matmul/matmul_kernels.h"
#include "weight_formats/half_float.h"
#include "weight_formats/tile_values.h"

/* One block of one token. `sums` begins at the block's first sum. */
typedef struct activation_block {
    const int8_t *values;
    const int16_t *sums;
    const float *floats;
    float scale;
} activation_block;

/* One block of one row, read from the tile. */
typedef struct weight_block {
    uint8_t q[256];                 /* unsigned values, or signed bytes of Q8_0 */
    float d, m;                     /* F32, F16, BF16: d is the weight */
    uint8_t scales[8], minimums[8]; /* Q4_K */
    int8_t sub_scales[16];          /* Q6_K */
} weight_block;

typedef void read_fn(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row);
typedef float accumulate_fn(float chain, const weight_block *w, const activation_block *a);

static int32_t dot(const uint8_t *q, const int8_t *a, size_t count) {
    int32_t sum = 0;
    for (size_t k = 0; k < count; k++) sum += (int32_t)q[k] * a[k];
    return sum;
}

static activation_block activations_at(const pi2_activations *x, size_t token, size_t column) {
    activation_block a = {0};
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

/* The loops of every format: rows and tokens are independent, blocks ascend. */
static void run(const pi2_weight_format *format, read_fn *read, accumulate_fn *accumulate,
                float *out, size_t out_stride, const void *tiles, size_t tile_count, size_t columns,
                size_t column_begin, const pi2_activations *x, size_t token_begin,
                size_t token_count, bool start) {
    const size_t block_count = columns / format->block_columns;
    for (size_t r = 0; r < tile_count * PI2_TILE_ROWS; r++) {
        const uint8_t *scales =
            (const uint8_t *)tiles + r / PI2_TILE_ROWS * pi2_tile_bytes(format, columns);
        const uint8_t *values = scales + pi2_tile_scale_area_bytes(format, columns);
        if (start) {
            for (size_t t = 0; t < token_count; t++) out[t * out_stride + r] = 0.0f;
        }
        for (size_t b = 0; b < block_count; b++) {
            weight_block w;
            read(&w, scales + b * format->tile_scale_bytes, values + b * format->tile_value_bytes,
                 (uint32_t)(r % PI2_TILE_ROWS));
            for (size_t t = 0; t < token_count; t++) {
                const activation_block a =
                    activations_at(x, token_begin + t, column_begin + b * format->block_columns);
                float *chain = &out[t * out_stride + r];
                *chain = accumulate(*chain, &w, &a);
            }
        }
    }
}

/* ---- floats ---- */

static void read_f32(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    (void)scales;
    memcpy(&w->d, values + 4 * row, 4);
}

static void read_f16(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    (void)scales;
    w->d = pi2_load_half(values + 2 * row);
}

static void read_bf16(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    (void)scales;
    w->d = pi2_float_of_bf16(pi2_load_u16(values + 2 * row));
}

static float accumulate_float(float chain, const weight_block *w, const activation_block *a) {
    return fmaf(w->d, a->floats[0], chain);
}

/* ---- blocks of 32 ---- */

static void read_q4_0(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    w->d = pi2_load_half(scales + 2 * row);
    pi2_get_nibbles(w->q, values, row);
}

static void read_q4_1(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    read_q4_0(w, scales, values, row);
    w->m = pi2_load_half(scales + 32 + 2 * row);
}

static void read_q5_0(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    read_q4_0(w, scales, values, row);
    pi2_get_fifth_bits(w->q, values + 256, row);
}

static void read_q5_1(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    read_q4_1(w, scales, values, row);
    pi2_get_fifth_bits(w->q, values + 256, row);
}

static void read_q8_0(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    w->d = pi2_load_half(scales + 2 * row);
    for (size_t g = 0; g < 8; g++) {
        memcpy(w->q + 4 * g, values + g * PI2_GROUP_POSITIONS + row * PI2_GROUP_COLUMNS, 4);
    }
}

static float accumulate_offset(float chain, const weight_block *w, const activation_block *a,
                               int offset) {
    const int32_t sum = dot(w->q, a->values, 32) - offset * a->sums[0];
    return fmaf((float)sum, w->d * a->scale, chain);
}

static float accumulate_q4_0(float chain, const weight_block *w, const activation_block *a) {
    return accumulate_offset(chain, w, a, 8);
}

static float accumulate_q5_0(float chain, const weight_block *w, const activation_block *a) {
    return accumulate_offset(chain, w, a, 16);
}

static float accumulate_minimum(float chain, const weight_block *w, const activation_block *a) {
    chain = fmaf((float)dot(w->q, a->values, 32), w->d * a->scale, chain);
    return fmaf(w->m, a->scale * (float)a->sums[0], chain);
}

static float accumulate_q8_0(float chain, const weight_block *w, const activation_block *a) {
    int32_t sum = 0;
    for (size_t k = 0; k < 32; k++) sum += (int32_t)(int8_t)w->q[k] * a->values[k];
    return fmaf((float)sum, w->d * a->scale, chain);
}

/* ---- blocks of 256 ---- */

static void read_q4_k(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    w->d = pi2_load_half(scales + 2 * row);
    w->m = pi2_load_half(scales + 32 + 2 * row);
    const uint8_t *low_scales = scales + 64 + 4 * row;
    const uint8_t *low_minimums = low_scales + 64, *high = low_scales + 128;
    for (size_t i = 0; i < 4; i++) {
        w->scales[i] = low_scales[i] & 63;
        w->minimums[i] = low_minimums[i] & 63;
        w->scales[i + 4] = (uint8_t)((high[i] & 15) | (low_scales[i] >> 6) << 4);
        w->minimums[i + 4] = (uint8_t)(high[i] >> 4 | (low_minimums[i] >> 6) << 4);
    }
    for (size_t s = 0; s < 8; s++) pi2_get_nibbles(w->q + 32 * s, values + 256 * s, row);
}

static float accumulate_q4_k(float chain, const weight_block *w, const activation_block *a) {
    int32_t sum = 0, minimum_sum = 0;
    for (size_t s = 0; s < 8; s++) {
        sum += w->scales[s] * dot(w->q + 32 * s, a->values + 32 * s, 32);
        minimum_sum += w->minimums[s] * (a->sums[2 * s] + a->sums[2 * s + 1]);
    }
    chain = fmaf((float)sum, w->d * a->scale, chain);
    return fmaf(-(float)minimum_sum, w->m * a->scale, chain);
}

static void read_q6_k(weight_block *w, const uint8_t *scales, const uint8_t *values, uint32_t row) {
    w->d = pi2_load_half(scales + 2 * row);
    for (size_t s = 0; s < 16; s++) {
        w->sub_scales[s] = (int8_t)scales[32 + 16 * s + row];
        pi2_get_six_bits(w->q + 16 * s, values + 192 * s, row);
    }
}

static float accumulate_q6_k(float chain, const weight_block *w, const activation_block *a) {
    int32_t sum = 0;
    for (size_t s = 0; s < 16; s++) {
        sum += w->sub_scales[s] * (dot(w->q + 16 * s, a->values + 16 * s, 16) - 32 * a->sums[s]);
    }
    return fmaf((float)sum, w->d * a->scale, chain);
}

#define SCALAR_KERNEL(name, accumulate)                                                     \
    void pi2_matmul_##name##_scalar(float *out, size_t out_stride, const void *tiles,       \
                                    size_t tile_count, size_t columns, size_t column_begin, \
                                    const pi2_activations *x, size_t token_begin,           \
                                    size_t token_count, bool start) {                       \
        run(&pi2_weight_format_##name, read_##name, accumulate, out, out_stride, tiles,     \
            tile_count, columns, column_begin, x, token_begin, token_count, start);         \
    }

SCALAR_KERNEL(f32, accumulate_float)
SCALAR_KERNEL(f16, accumulate_float)
SCALAR_KERNEL(bf16, accumulate_float)
SCALAR_KERNEL(q4_0, accumulate_q4_0)
SCALAR_KERNEL(q4_1, accumulate_minimum)
SCALAR_KERNEL(q5_0, accumulate_q5_0)
SCALAR_KERNEL(q5_1, accumulate_minimum)
SCALAR_KERNEL(q8_0, accumulate_q8_0)
SCALAR_KERNEL(q4_k, accumulate_q4_k)
SCALAR_KERNEL(q6_k, accumulate_q6_k)
