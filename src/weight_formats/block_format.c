/* block_format.c: see the header. */
#include "weight_formats/block_format.h"

void pi2_block_arrays_pack(const pi2_block_arrays *arrays, uint8_t *scales, uint8_t *values, uint32_t row,
                           const uint8_t *block) {
    uint8_t *to = scales;
    for (size_t i = 0; i < arrays->count; i++) {
        const pi2_block_array *array = &arrays->of[i];
        const uint8_t *from = block + array->offset;
        if (i == arrays->scale_arrays) to = values;
        for (size_t e = 0; e < array->count; e++, from += array->bytes, to += PI2_TILE_ROWS * array->bytes) {
            memcpy(to + row * array->bytes, from, array->bytes);
        }
    }
}

void pi2_block_arrays_unpack(const pi2_block_arrays *arrays, uint8_t *block, const uint8_t *scales,
                             const uint8_t *values, uint32_t row) {
    const uint8_t *from = scales;
    for (size_t i = 0; i < arrays->count; i++) {
        const pi2_block_array *array = &arrays->of[i];
        uint8_t *to = block + array->offset;
        if (i == arrays->scale_arrays) from = values;
        for (size_t e = 0; e < array->count; e++, to += array->bytes, from += PI2_TILE_ROWS * array->bytes) {
            memcpy(to, from + row * array->bytes, array->bytes);
        }
    }
}

void pi2_block_format_decode(const pi2_weight_format *format, float *out, const void *blocks, size_t block_count) {
    const uint8_t *block = blocks;
    const uint32_t columns = format->block_columns, sub = format->sub_columns;
    for (size_t b = 0; b < block_count; b++, block += format->block_bytes, out += columns) {
        pi2_block_values values;
        format->read_block(&values, block);
        for (uint32_t k = 0; k < columns; k++) {
            const uint32_t s = k / sub;
            if (columns == 256) {
                const float step = values.d[0] * (float)values.scales[s];
                out[k] = step * (float)values.q[k];
                if (format->sub_minimums) out[k] -= values.m * (float)values.minimums[s];
            } else {
                out[k] = values.d[s] * (float)values.q[k];
            }
        }
    }
}
