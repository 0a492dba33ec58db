/*
 * q4_k.c: 256 columns = half d; half dmin; 12 bytes: a 6-bit scale sc and a 6-bit minimum m for
 * each of 8 sub-blocks of 32 columns; 128 bytes: byte 32 j + i holds column 64 j + i in its low
 * half and column 64 j + 32 + i in its high half. weight = (d * sc) * q - (dmin * m).
 * The 12 bytes: 0-3 hold sc 0-3 and, in bits 6-7, the top bits of sc 4-7; 4-7 the same of m;
 * 8-11 the low bits of sc 4-7 (bits 0-3) and of m 4-7 (bits 4-7).
 * Tile: scales 16 d, 16 dmin, then the 12 bytes as three vectors, byte 4 w + i of a row at
 * 64 w + 4 row + i, so that a few masks give all rows' scales; values 8 x 256 bytes of nibbles.
 */
#include <string.h>

#include "weight_formats/half_float.h"
#include "weight_formats/tile_values.h"

static void read_values(uint8_t q[256], const uint8_t *block) {
    for (size_t j = 0; j < 4; j++) {
        for (size_t i = 0; i < 32; i++) {
            q[64 * j + i] = block[16 + 32 * j + i] & 15;
            q[64 * j + 32 + i] = block[16 + 32 * j + i] >> 4;
        }
    }
}

static void write_values(uint8_t *block, const uint8_t q[256]) {
    for (size_t j = 0; j < 4; j++) {
        for (size_t i = 0; i < 32; i++) {
            block[16 + 32 * j + i] = (uint8_t)(q[64 * j + i] | q[64 * j + 32 + i] << 4);
        }
    }
}

static void pack_block(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block) {
    uint8_t q[256];
    read_values(q, block);
    memcpy(scales + 2 * row, block, 2);
    memcpy(scales + 32 + 2 * row, block + 2, 2);
    for (size_t w = 0; w < 3; w++) memcpy(scales + 64 + 64 * w + 4 * row, block + 4 + 4 * w, 4);
    for (size_t s = 0; s < 8; s++) pi2_put_nibbles(values + 256 * s, row, q + 32 * s);
}

static void unpack_block(uint8_t *block, const uint8_t *scales, const uint8_t *values,
                         uint32_t row) {
    uint8_t q[256];
    for (size_t s = 0; s < 8; s++) pi2_get_nibbles(q + 32 * s, values + 256 * s, row);
    memcpy(block, scales + 2 * row, 2);
    memcpy(block + 2, scales + 32 + 2 * row, 2);
    for (size_t w = 0; w < 3; w++) memcpy(block + 4 + 4 * w, scales + 64 + 64 * w + 4 * row, 4);
    write_values(block, q);
}

static void decode_row(float *out, const void *blocks, size_t block_count) {
    const uint8_t *block = blocks;
    for (size_t b = 0; b < block_count; b++, block += 144) {
        uint8_t q[256];
        read_values(q, block);
        const float d = pi2_load_half(block), dmin = pi2_load_half(block + 2);
        const uint8_t *packed = block + 4;
        for (size_t s = 0; s < 8; s++) {
            const size_t i = s % 4;
            int scale = packed[i] & 63, minimum = packed[4 + i] & 63;
            if (s >= 4) {
                scale = (packed[8 + i] & 15) | (packed[i] >> 6) << 4;
                minimum = packed[8 + i] >> 4 | (packed[4 + i] >> 6) << 4;
            }
            const float step = d * (float)scale, base = dmin * (float)minimum;
            for (size_t k = 0; k < 32; k++) *out++ = step * (float)q[32 * s + k] - base;
        }
    }
}

PI2_TILE_FUNCTIONS_BY_BLOCK(q4_k)

const pi2_weight_format pi2_weight_format_q4_k = {
    .type = PI2_Q4_K,
    .name = "Q4_K",
    .block_columns = 256,
    .block_bytes = 144,
    .tile_scale_bytes = 256,
    .tile_value_bytes = 2048,
    .activation = PI2_ACTIVATION_Q8_256,
    .pack_tile = pack_tile,
    .unpack_row = unpack_row,
    .decode_row = decode_row,
    .parts = {.code_bits = 4, .scale_bytes = 16, .half_count = 2, .values = 16, .value_bytes = 128},
    .get_codes = read_values,
    .put_codes = write_values,
};
