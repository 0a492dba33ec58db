/*
 * block_of_32.h: what Q4_0, Q4_1, Q5_0 and Q5_1 share. Private to weight_formats/.
 *
 * A block of 32 columns is `halves` half floats: d, and m where there are two; with fifth bits 4
 * bytes of them, bit k for column k; 16 bytes: the low 4 bits of column j in the low half of byte
 * j, of column j + 16 in the high half. weight = d * (q - zero), or d * q + m.
 * Tile: scales 16 d, then 16 m; values 256 bytes of nibbles, then 64 bytes of fifth bits.
 *
 * `halves` and `has_fifth` are constants where these functions are used, so nothing is left to ask.
 */
#ifndef PI2_WEIGHT_FORMATS_BLOCK_OF_32_H
#define PI2_WEIGHT_FORMATS_BLOCK_OF_32_H

#include <string.h>

#include "weight_formats/half_float.h"
#include "weight_formats/tile_values.h"

static inline void pi2_block_of_32_read(uint8_t q[32], const uint8_t *block, uint32_t halves, bool has_fifth) {
    const uint8_t *fifth = block + 2 * halves, *nibbles = fifth + (has_fifth ? 4 : 0);
    for (size_t j = 0; j < 16; j++) {
        q[j] = nibbles[j] & 15;
        q[j + 16] = nibbles[j] >> 4;
    }
    for (size_t k = 0; has_fifth && k < 32; k++) {
        q[k] = (uint8_t)(q[k] | (fifth[k / 8] >> (k % 8) & 1) << 4);
    }
}

static inline void pi2_block_of_32_write(uint8_t *block, const uint8_t q[32], uint32_t halves, bool has_fifth) {
    uint8_t *fifth = block + 2 * halves, *nibbles = fifth + (has_fifth ? 4 : 0);
    if (has_fifth) memset(fifth, 0, 4);
    for (size_t k = 0; has_fifth && k < 32; k++) {
        fifth[k / 8] = (uint8_t)(fifth[k / 8] | (q[k] >> 4) << (k % 8));
    }
    for (size_t j = 0; j < 16; j++) nibbles[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static inline void pi2_block_of_32_pack(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block,
                                        uint32_t halves, bool has_fifth) {
    uint8_t q[32];
    pi2_block_of_32_read(q, block, halves, has_fifth);
    for (uint32_t h = 0; h < halves; h++) memcpy(scales + 32 * h + 2 * row, block + 2 * h, 2);
    pi2_put_nibbles(values, row, q);
    if (has_fifth) pi2_put_fifth_bits(values + 256, row, q);
}

static inline void pi2_block_of_32_unpack(uint8_t *block, const uint8_t *scales, const uint8_t *values, uint32_t row,
                                          uint32_t halves, bool has_fifth) {
    uint8_t q[32];
    for (uint32_t h = 0; h < halves; h++) memcpy(block + 2 * h, scales + 32 * h + 2 * row, 2);
    pi2_get_nibbles(q, values, row);
    if (has_fifth) pi2_get_fifth_bits(q, values + 256, row);
    pi2_block_of_32_write(block, q, halves, has_fifth);
}

static inline void pi2_block_of_32_decode(float out[32], const uint8_t *block, uint32_t halves, bool has_fifth,
                                          int zero) {
    uint8_t q[32];
    pi2_block_of_32_read(q, block, halves, has_fifth);
    const float d = pi2_load_half(block);
    if (halves == 1) {
        for (size_t k = 0; k < 32; k++) out[k] = d * (float)(q[k] - zero);
    } else {
        const float m = pi2_load_half(block + 2);
        for (size_t k = 0; k < 32; k++) out[k] = d * (float)q[k] + m;
    }
}

/** Defines the format `lower`, called `upper` in GGUF. zero: of a format with one half. */
#define PI2_FORMAT_OF_32(lower, upper, halves, has_fifth, zero)                                            \
    static void pack_block(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block) {         \
        pi2_block_of_32_pack(scales, values, row, block, halves, has_fifth);                               \
    }                                                                                                      \
    static void unpack_block(uint8_t *block, const uint8_t *scales, const uint8_t *values, uint32_t row) { \
        pi2_block_of_32_unpack(block, scales, values, row, halves, has_fifth);                             \
    }                                                                                                      \
    static void get_codes(uint8_t *codes, const uint8_t *block) {                                          \
        pi2_block_of_32_read(codes, block, halves, has_fifth);                                             \
    }                                                                                                      \
    static void put_codes(uint8_t *block, const uint8_t *codes) {                                          \
        pi2_block_of_32_write(block, codes, halves, has_fifth);                                            \
    }                                                                                                      \
    enum { FIFTH_BYTES = (has_fifth) ? 4 : 0, BLOCK_BYTES = 2 * (halves) + FIFTH_BYTES + 16 };             \
    static void decode_row(float *out, const void *blocks, size_t block_count) {                           \
        const uint8_t *block = blocks;                                                                     \
        for (size_t b = 0; b < block_count; b++, block += BLOCK_BYTES, out += 32) {                        \
            pi2_block_of_32_decode(out, block, halves, has_fifth, zero);                                   \
        }                                                                                                  \
    }                                                                                                      \
    PI2_TILE_FUNCTIONS_BY_BLOCK(lower)                                                                     \
    const pi2_weight_format pi2_weight_format_##lower = {                                                  \
        .type = PI2_##upper,                                                                               \
        .name = #upper,                                                                                    \
        .block_columns = 32,                                                                               \
        .block_bytes = BLOCK_BYTES,                                                                        \
        .tile_scale_bytes = 32 * (halves),                                                                 \
        .tile_value_bytes = 256 + ((has_fifth) ? 64 : 0),                                                  \
        .activation = PI2_ACTIVATION_Q8_32,                                                                \
        .pack_tile = pack_tile,                                                                            \
        .unpack_row = unpack_row,                                                                          \
        .decode_row = decode_row,                                                                          \
        .parts = {(has_fifth) ? 5 : 4, 0, 2 * (halves), 0, halves,                                         \
                  2 * (halves) + FIFTH_BYTES, 16, 2 * (halves), FIFTH_BYTES},                              \
        .get_codes = get_codes,                                                                            \
        .put_codes = put_codes,                                                                            \
    };

#endif
