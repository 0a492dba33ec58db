/*
 * matmul_scalar.c: the specification of every weight kernel (docs/arithmetic.md). scalar_blocks.h
 * says for each format how one block of one row meets one token; run() gives the order.
 */
#include <string.h>

#include "kernels/matmul/matmul_kernels.h"
#include "kernels/matmul/scalar_blocks.h"
#include "weight_formats/tile_values.h"

/* The block's values from the tile: unsigned ones into q, a float into d. */
typedef void read_fn(pi2_weight_block *w, const uint8_t *values, uint32_t row);

/* The loops of every format: rows and tokens are independent, blocks ascend. */
static void run(const pi2_weight_format *format, read_fn *read, pi2_accumulate_fn *accumulate,
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
            const uint32_t row = (uint32_t)(r % PI2_TILE_ROWS);
            pi2_weight_block w;
            pi2_read_tile_scales(&w, format->type, scales + b * format->tile_scale_bytes, row);
            read(&w, values + b * format->tile_value_bytes, row);
            for (size_t t = 0; t < token_count; t++) {
                const pi2_activation_block a =
                    pi2_activations_at(x, token_begin + t, column_begin + b * format->block_columns);
                float *chain = &out[t * out_stride + r];
                *chain = accumulate(*chain, &w, &a);
            }
        }
    }
}

static void read_f32(pi2_weight_block *w, const uint8_t *values, uint32_t row) { memcpy(&w->d, values + 4 * row, 4); }

static void read_f16(pi2_weight_block *w, const uint8_t *values, uint32_t row) {
    w->d = pi2_load_half(values + 2 * row);
}

static void read_bf16(pi2_weight_block *w, const uint8_t *values, uint32_t row) {
    w->d = pi2_float_of_bf16(pi2_load_u16(values + 2 * row));
}

static void read_nibbles(pi2_weight_block *w, const uint8_t *values, uint32_t row) {
    pi2_get_nibbles(w->q, values, row);
}

static void read_five_bits(pi2_weight_block *w, const uint8_t *values, uint32_t row) {
    pi2_get_nibbles(w->q, values, row);
    pi2_get_fifth_bits(w->q, values + 256, row);
}

static void read_q8_0(pi2_weight_block *w, const uint8_t *values, uint32_t row) {
    for (size_t g = 0; g < 8; g++) {
        memcpy(w->q + 4 * g, values + g * PI2_GROUP_POSITIONS + row * PI2_GROUP_COLUMNS, 4);
    }
}

static void read_q4_k(pi2_weight_block *w, const uint8_t *values, uint32_t row) {
    for (size_t s = 0; s < 8; s++) pi2_get_nibbles(w->q + 32 * s, values + 256 * s, row);
}

static void read_q6_k(pi2_weight_block *w, const uint8_t *values, uint32_t row) {
    for (size_t s = 0; s < 16; s++) pi2_get_six_bits(w->q + 16 * s, values + 192 * s, row);
}

#define SCALAR_KERNEL(name, read, accumulate)                                               \
    void pi2_matmul_##name##_scalar(float *out, size_t out_stride, const void *tiles,       \
                                    size_t tile_count, size_t columns, size_t column_begin, \
                                    const pi2_activations *x, size_t token_begin,           \
                                    size_t token_count, bool start) {                       \
        run(&pi2_weight_format_##name, read, accumulate, out, out_stride, tiles,            \
            tile_count, columns, column_begin, x, token_begin, token_count, start);         \
    }

SCALAR_KERNEL(f32, read_f32, pi2_accumulate_float)
SCALAR_KERNEL(f16, read_f16, pi2_accumulate_float)
SCALAR_KERNEL(bf16, read_bf16, pi2_accumulate_float)
SCALAR_KERNEL(q4_0, read_nibbles, pi2_accumulate_q4_0)
SCALAR_KERNEL(q4_1, read_nibbles, pi2_accumulate_minimum)
SCALAR_KERNEL(q5_0, read_five_bits, pi2_accumulate_q5_0)
SCALAR_KERNEL(q5_1, read_five_bits, pi2_accumulate_minimum)
SCALAR_KERNEL(q8_0, read_q8_0, pi2_accumulate_q8_0)
SCALAR_KERNEL(q4_k, read_q4_k, pi2_accumulate_q4_k)
SCALAR_KERNEL(q6_k, read_q6_k, pi2_accumulate_q6_k)
