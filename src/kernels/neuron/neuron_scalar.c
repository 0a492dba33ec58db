/*
 * neuron_scalar.c: the specification of the neuron kernels: the dense formulas (scalar_blocks.h)
 * over rows and columns in neuron form.
 */
#include "kernels/matmul/scalar_blocks.h"
#include "kernels/neuron/neuron_kernels.h"
#include "weight_formats/tile_values.h"

/* Block b of a row in row form, as the GGUF block that it was split from. */
static void join_block(const pi2_weight_format *format, uint8_t *block, const uint8_t *values,
                       const uint8_t *scales, size_t b, size_t block_count) {
    const pi2_block_parts *parts = &format->parts;
    const uint8_t *fifth = values + block_count * parts->value_bytes + b * parts->fifth_bytes;
    memcpy(block + parts->values, values + b * parts->value_bytes, parts->value_bytes);
    if (parts->fifth_bytes) memcpy(block + parts->fifth, fifth, parts->fifth_bytes);
    if (parts->scale_bytes) memcpy(block + parts->scales, scales + b * parts->scale_bytes, parts->scale_bytes);
}

static void run_rows(const pi2_weight_format *format, pi2_accumulate_fn *accumulate, float *out, size_t count,
                     const uint8_t *const *values, const uint8_t *const *scales, size_t columns,
                     const pi2_activations *x, size_t token) {
    const size_t block_count = columns / format->block_columns;
    for (size_t j = 0; j < count; j++) {
        float chain = 0.0f;
        for (size_t b = 0; b < block_count; b++) {
            uint8_t block[PI2_LARGEST_BLOCK_BYTES];
            pi2_weight_block w;
            join_block(format, block, values[j], format->parts.scale_bytes ? scales[j] : NULL, b, block_count);
            if (format->block_columns == 1) {
                format->decode_row(&w.d, block, 1);
            } else {
                format->get_codes(w.q, block);
                pi2_read_block_scales(&w, format, block);
            }
            const pi2_activation_block a = pi2_activations_at(x, token, b * format->block_columns);
            chain = accumulate(chain, &w, &a);
        }
        out[j] = chain;
    }
}

/* A block's activations with those of inactive neurons: 0. */
typedef struct full_block {
    int8_t values[256];
    int16_t sums[16];
} full_block;

static void fill_block(full_block *full, const pi2_weight_format *format, const pi2_neuron_columns *x,
                       const pi2_neuron_block *block) {
    const size_t summed = format->block_columns == 256 ? 16 : 32;
    memset(full, 0, sizeof *full);
    for (size_t i = block->first; i < (size_t)block->first + block->count; i++) {
        full->values[x->places[i]] = x->activations[i];
        int16_t *sum = &full->sums[x->places[i] / summed];
        *sum = (int16_t)(*sum + x->activations[i]);
    }
}

/* One row of one block: the values of inactive neurons do not matter and count as 0. */
static float add_block(float chain, const pi2_weight_format *format, pi2_accumulate_fn *accumulate,
                       const pi2_neuron_columns *x, const pi2_neuron_block *block, const full_block *full,
                       size_t row) {
    pi2_weight_block w = {0};
    pi2_activation_block a = {.values = full->values, .sums = full->sums, .scale = block->scale};
    if (format->block_columns == 1) {
        uint8_t weight[4];
        pi2_neuron_column_code(format, weight, x->values[block->first], x->rows, row);
        format->decode_row(&w.d, weight, 1);
        a.floats = &block->scale;
        return accumulate(chain, &w, &a);
    }
    pi2_read_tile_scales(&w, format->type, block->scales + row / PI2_TILE_ROWS * format->tile_scale_bytes,
                         (uint32_t)(row % PI2_TILE_ROWS));
    for (size_t i = block->first; i < (size_t)block->first + block->count; i++) {
        pi2_neuron_column_code(format, &w.q[x->places[i]], x->values[i], x->rows, row);
    }
    return accumulate(chain, &w, &a);
}

static void run_columns(const pi2_weight_format *format, pi2_accumulate_fn *accumulate, float *out,
                        size_t row_begin, size_t row_count, const pi2_neuron_columns *x, bool start) {
    for (size_t row = row_begin; start && row < row_begin + row_count; row++) out[row] = 0.0f;
    for (size_t b = 0; b < x->block_count; b++) {
        const pi2_neuron_block *block = &x->blocks[b];
        full_block full;
        if (format->block_columns > 1) fill_block(&full, format, x, block);
        for (size_t row = row_begin; row < row_begin + row_count; row++) {
            out[row] = add_block(out[row], format, accumulate, x, block, &full, row);
        }
    }
}

#define SCALAR_KERNELS(name, accumulate)                                                                     \
    void pi2_neuron_rows_##name##_scalar(float *out, size_t count, const uint8_t *const *values,             \
                                         const uint8_t *const *scales, size_t columns,                       \
                                         const pi2_activations *x, size_t token) {                           \
        run_rows(&pi2_weight_format_##name, accumulate, out, count, values, scales, columns, x, token);      \
    }                                                                                                        \
    void pi2_neuron_columns_##name##_scalar(float *out, size_t row_begin, size_t row_count,                  \
                                            const pi2_neuron_columns *x, bool start) {                       \
        run_columns(&pi2_weight_format_##name, accumulate, out, row_begin, row_count, x, start);             \
    }

SCALAR_KERNELS(f32, pi2_accumulate_float)
SCALAR_KERNELS(f16, pi2_accumulate_float)
SCALAR_KERNELS(bf16, pi2_accumulate_float)
SCALAR_KERNELS(q4_0, pi2_accumulate_q4_0)
SCALAR_KERNELS(q4_1, pi2_accumulate_minimum)
SCALAR_KERNELS(q5_0, pi2_accumulate_q5_0)
SCALAR_KERNELS(q5_1, pi2_accumulate_minimum)
SCALAR_KERNELS(q8_0, pi2_accumulate_q8_0)
SCALAR_KERNELS(q4_k, pi2_accumulate_q4_k)
SCALAR_KERNELS(q6_k, pi2_accumulate_q6_k)
