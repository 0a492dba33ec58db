/*
 * block_format.h: what the formats that are read by whole blocks share. Private to weight_formats/.
 *
 * Their blocks are a few arrays of words, halves or bytes, and so are their tiles: element e of an array of all 16
 * rows side by side. Four bytes of a block that lie together hold four columns that lie together, so a vector of the
 * rows' words holds column groups (tile_values.h) with nothing but shifts and masks, and unpack_blocks.h needs no
 * other order.
 */
#ifndef PI2_WEIGHT_FORMATS_BLOCK_FORMAT_H
#define PI2_WEIGHT_FORMATS_BLOCK_FORMAT_H

#include <string.h>

#include "weight_formats/half_float.h"
#include "weight_formats/tile_values.h"

/** `count` elements of `bytes` bytes, the first at `offset` of the block. */
typedef struct pi2_block_array {
    uint16_t offset;
    uint8_t bytes, count;
} pi2_block_array;

/** A block's arrays in the order of its tile: first those of the scale area, then those of the value area. */
typedef struct pi2_block_arrays {
    uint8_t scale_arrays, count;
    pi2_block_array of[5];
} pi2_block_arrays;

/** One block of a row into its places in a tile's two areas, and back. */
void pi2_block_arrays_pack(const pi2_block_arrays *arrays, uint8_t *scales, uint8_t *values, uint32_t row,
                           const uint8_t *block);
void pi2_block_arrays_unpack(const pi2_block_arrays *arrays, uint8_t *block, const uint8_t *scales,
                             const uint8_t *values, uint32_t row);

/** decode_row of every such format. */
void pi2_block_format_decode(const pi2_weight_format *format, float *out, const void *blocks, size_t block_count);

static inline uint32_t pi2_load_u32(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/** q[0 .. 15] = the low halves of 16 bytes, q[distance .. distance + 15] = the high ones, as places in a code book. */
static inline void pi2_read_code_book(int8_t *q, const uint8_t *nibbles, size_t count, size_t distance,
                                      const int8_t book[16]) {
    for (size_t i = 0; i < count; i++) {
        q[i] = book[nibbles[i] & 15];
        q[i + distance] = book[nibbles[i] >> 4];
    }
}

/* What the list says of each format: columns, sub_columns, sub_minimums. */
#define BLOCK_FORMAT(lower, upper, id, columns, sub_columns, largest, minimums) \
    enum {                                                                      \
        pi2_columns_of_##lower = columns,                                       \
        pi2_sub_columns_of_##lower = sub_columns,                               \
        pi2_minimums_of_##lower = minimums                                      \
    };
#include "weight_formats/weight_formats.inc"

/**
 * Defines the format `lower`, called `upper` in GGUF, given its `arrays` and `read_block`.
 * scale_bytes: of a row's block in the scale area; kind: Q8_32 or Q8_256; the rest: its parts.
 */
#define PI2_BLOCK_FORMAT(lower, upper, bytes, bytes_of_scales, kind, ...)                                  \
    static void pack_block(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block) {         \
        pi2_block_arrays_pack(&arrays, scales, values, row, block);                                        \
    }                                                                                                      \
    static void unpack_block(uint8_t *block, const uint8_t *scales, const uint8_t *values, uint32_t row) { \
        pi2_block_arrays_unpack(&arrays, block, scales, values, row);                                      \
    }                                                                                                      \
    PI2_TILE_FUNCTIONS_BY_BLOCK(lower)                                                                     \
    static void decode_row(float *out, const void *blocks, size_t block_count) {                           \
        pi2_block_format_decode(&pi2_weight_format_##lower, out, blocks, block_count);                     \
    }                                                                                                      \
    const pi2_weight_format pi2_weight_format_##lower = {                                                  \
        .type = PI2_##upper,                                                                               \
        .name = #upper,                                                                                    \
        .block_columns = pi2_columns_of_##lower,                                                           \
        .block_bytes = bytes,                                                                              \
        .tile_scale_bytes = PI2_TILE_ROWS * (bytes_of_scales),                                             \
        .tile_value_bytes = PI2_TILE_ROWS * ((bytes) - (bytes_of_scales)),                                 \
        .activation = PI2_ACTIVATION_##kind,                                                               \
        .pack_tile = pack_tile,                                                                            \
        .unpack_row = unpack_row,                                                                          \
        .decode_row = decode_row,                                                                          \
        .parts = {__VA_ARGS__},                                                                            \
        .sub_columns = pi2_sub_columns_of_##lower,                                                         \
        .sub_minimums = pi2_minimums_of_##lower,                                                           \
        .read_block = read_block,                                                                          \
        .unpack_block = unpack_block,                                                                      \
    };

#endif
