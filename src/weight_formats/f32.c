/*
 * f32.c: 32-bit floats. A block is one column.
 * Tile: no scales; for each column the 4-byte values of the 16 rows.
 */
#include <string.h>

#include "weight_formats/tile_values.h"

enum { VALUE_BYTES = 4 };

static void pack_block(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block) {
    (void)scales;
    memcpy(values + row * VALUE_BYTES, block, VALUE_BYTES);
}

static void unpack_block(uint8_t *block, const uint8_t *scales, const uint8_t *values,
                         uint32_t row) {
    (void)scales;
    memcpy(block, values + row * VALUE_BYTES, VALUE_BYTES);
}

static void decode_row(float *out, const void *blocks, size_t block_count) {
    memcpy(out, blocks, block_count * sizeof *out);
}

PI2_TILE_FUNCTIONS_BY_BLOCK(f32)

const pi2_weight_format pi2_weight_format_f32 = {
    .type = PI2_F32,
    .name = "F32",
    .block_columns = 1,
    .block_bytes = VALUE_BYTES,
    .tile_scale_bytes = 0,
    .tile_value_bytes = PI2_TILE_ROWS * VALUE_BYTES,
    .activation = PI2_ACTIVATION_F32,
    .pack_tile = pack_tile,
    .unpack_row = unpack_row,
    .decode_row = decode_row,
};
