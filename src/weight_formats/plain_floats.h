/*
 * plain_floats.h: what F32, F16 and BF16 share. Private to weight_formats/.
 *
 * A block is one column, nothing is quantised. Tile: no scales; for each column the values of the
 * 16 rows, as they are.
 */
#ifndef PI2_WEIGHT_FORMATS_PLAIN_FLOATS_H
#define PI2_WEIGHT_FORMATS_PLAIN_FLOATS_H

#include <string.h>

#include "weight_formats/tile_values.h"

/** Defines the format `lower`, called `upper` in GGUF, of values of so many bytes, given its decode_row. */
#define PI2_FORMAT_OF_FLOATS(lower, upper, bytes)                                                          \
    static void pack_block(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block) {         \
        (void)scales;                                                                                      \
        memcpy(values + row * (bytes), block, bytes);                                                      \
    }                                                                                                      \
    static void unpack_block(uint8_t *block, const uint8_t *scales, const uint8_t *values, uint32_t row) { \
        (void)scales;                                                                                      \
        memcpy(block, values + row * (bytes), bytes);                                                      \
    }                                                                                                      \
    static void get_codes(uint8_t *codes, const uint8_t *block) { memcpy(codes, block, bytes); }           \
    static void put_codes(uint8_t *block, const uint8_t *codes) { memcpy(block, codes, bytes); }           \
    PI2_TILE_FUNCTIONS_BY_BLOCK(lower)                                                                     \
    const pi2_weight_format pi2_weight_format_##lower = {                                                  \
        .type = PI2_##upper,                                                                               \
        .name = #upper,                                                                                    \
        .block_columns = 1,                                                                                \
        .block_bytes = bytes,                                                                              \
        .tile_scale_bytes = 0,                                                                             \
        .tile_value_bytes = PI2_TILE_ROWS * (bytes),                                                       \
        .activation = PI2_ACTIVATION_F32,                                                                  \
        .pack_tile = pack_tile,                                                                            \
        .unpack_row = unpack_row,                                                                          \
        .decode_row = decode_row,                                                                          \
        .parts = {.code_bits = 8 * (bytes), .value_bytes = bytes},                                         \
        .get_codes = get_codes,                                                                            \
        .put_codes = put_codes,                                                                            \
    };

#endif
