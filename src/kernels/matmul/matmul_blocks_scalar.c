/*
 * matmul_blocks_scalar.c: the specification of the weight kernels of formats that are read by whole blocks
 * (docs/arithmetic.md): their integers and scales are what read_block says.
 */
#include <math.h>

#include "kernels/matmul/matmul_kernels.h"
#include "weight_formats/tile_values.h"

/* Sub-block s of a block whose first activation is at a. */
static int32_t dot_of_sub_block(const pi2_weight_format *format, const pi2_block_values *w, const int8_t *a, size_t s) {
    int32_t sum = 0;
    for (size_t k = s * format->sub_columns; k < (s + 1) * format->sub_columns; k++) sum += w->q[k] * a[k];
    return sum;
}

/* 256 columns share a scale of activations: all integers are added first. */
static float add_block_of_256(float chain, const pi2_weight_format *format, const pi2_block_values *w, const int8_t *a,
                              float dx) {
    int32_t sum = 0, minimum_sum = 0;
    for (size_t s = 0; s < 256 / format->sub_columns; s++) {
        sum += w->scales[s] * dot_of_sub_block(format, w, a, s);
        if (!format->sub_minimums) continue;
        for (size_t k = 0; k < format->sub_columns; k++) minimum_sum += w->minimums[s] * a[s * format->sub_columns + k];
    }
    chain = fmaf((float)sum, w->d[0] * dx, chain);
    return format->sub_minimums ? fmaf(-(float)minimum_sum, w->m * dx, chain) : chain;
}

/* Blocks of 32 or 64 columns have a float for each sub-block, and a scale of activations for each 32. */
static float add_small_block(float chain, const pi2_weight_format *format, const pi2_block_values *w, const int8_t *a,
                             const float *dx) {
    for (size_t s = 0; s < format->block_columns / format->sub_columns; s++) {
        const int32_t sum = dot_of_sub_block(format, w, a, s);
        chain = fmaf((float)sum, w->d[s] * dx[s * format->sub_columns / 32], chain);
    }
    return chain;
}

/* Rows and tokens are independent, blocks ascend. */
static void run(const pi2_weight_format *format, float *out, size_t out_stride, const void *tiles, size_t tile_count,
                size_t columns, size_t column_begin, const pi2_activations *x, size_t token_begin, size_t token_count,
                bool start) {
    const bool is_large = format->block_columns == 256;
    for (size_t r = 0; r < tile_count * PI2_TILE_ROWS; r++) {
        const uint8_t *scales = (const uint8_t *)tiles + r / PI2_TILE_ROWS * pi2_tile_bytes(format, columns);
        const uint8_t *values = scales + pi2_tile_scale_area_bytes(format, columns);
        if (start) {
            for (size_t t = 0; t < token_count; t++) out[t * out_stride + r] = 0.0f;
        }
        for (size_t b = 0; b < columns / format->block_columns; b++) {
            uint8_t block[PI2_LARGEST_BLOCK_BYTES];
            pi2_block_values w;
            format->unpack_block(block, scales + b * format->tile_scale_bytes, values + b * format->tile_value_bytes,
                                 (uint32_t)(r % PI2_TILE_ROWS));
            format->read_block(&w, block);
            const size_t column = column_begin + b * format->block_columns;
            for (size_t t = 0; t < token_count; t++) {
                const int8_t *a = x->values + (token_begin + t) * x->value_stride + column;
                const float *dx = x->scales + (token_begin + t) * x->block_stride + column / (is_large ? 256 : 32);
                float *chain = &out[t * out_stride + r];
                *chain = is_large ? add_block_of_256(*chain, format, &w, a, *dx)
                                  : add_small_block(*chain, format, &w, a, dx);
            }
        }
    }
}

#define BLOCK_FORMAT(lower, upper, id, columns, sub_columns, largest, minimums)                                       \
    void pi2_matmul_##lower##_scalar(float *out, size_t out_stride, const void *tiles, size_t tile_count,             \
                                     size_t tile_columns, size_t column_begin, const pi2_activations *x,              \
                                     size_t token_begin, size_t token_count, bool start) {                            \
        run(&pi2_weight_format_##lower, out, out_stride, tiles, tile_count, tile_columns, column_begin, x,            \
            token_begin, token_count, start);                                                                         \
    }
#include "weight_formats/weight_formats.inc"
