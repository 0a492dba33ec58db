/*
 * q4_0.c: 32 columns = half d; 16 bytes: column j in the low half of byte j, column j + 16 in
 * the high half. weight = d * (q - 8).
 * Tile: scales 16 d; values 256 bytes of nibbles.
 */
#include <string.h>

#include "weight_formats/half_float.h"
#include "weight_formats/tile_values.h"

static void read_values(uint8_t q[32], const uint8_t *block) {
    for (size_t j = 0; j < 16; j++) {
        q[j] = block[2 + j] & 15;
        q[j + 16] = block[2 + j] >> 4;
    }
}

static void pack_block(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block) {
    uint8_t q[32];
    read_values(q, block);
    memcpy(scales + 2 * row, block, 2);
    pi2_put_nibbles(values, row, q);
}

static void unpack_block(uint8_t *block, const uint8_t *scales, const uint8_t *values,
                         uint32_t row) {
    uint8_t q[32];
    pi2_get_nibbles(q, values, row);
    memcpy(block, scales + 2 * row, 2);
    for (size_t j = 0; j < 16; j++) block[2 + j] = (uint8_t)(q[j] | q[j + 16] << 4);
}

static void decode_row(float *out, const void *blocks, size_t block_count) {
    const uint8_t *block = blocks;
    for (size_t b = 0; b < block_count; b++, block += 18, out += 32) {
        uint8_t q[32];
        read_values(q, block);
        const float d = pi2_load_half(block);
        for (size_t k = 0; k < 32; k++) out[k] = d * (float)(q[k] - 8);
    }
}

PI2_TILE_FUNCTIONS_BY_BLOCK(q4_0)

const pi2_weight_format pi2_weight_format_q4_0 = {
    .type = PI2_Q4_0,
    .name = "Q4_0",
    .block_columns = 32,
    .block_bytes = 18,
    .tile_scale_bytes = 32,
    .tile_value_bytes = 256,
    .activation = PI2_ACTIVATION_Q8_32,
    .pack_tile = pack_tile,
    .unpack_row = unpack_row,
    .decode_row = decode_row,
};
