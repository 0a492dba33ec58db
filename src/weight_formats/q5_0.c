/*
 * q5_0.c: 32 columns = half d; 4 bytes of fifth bits, bit k for column k; 16 bytes: column j in
 * the low half of byte j, column j + 16 in the high half. weight = d * (q - 16).
 * Tile: scales 16 d; values 256 bytes of nibbles, 64 bytes of fifth bits.
 */
#include <string.h>

#include "weight_formats/half_float.h"
#include "weight_formats/tile_values.h"

static void read_values(uint8_t q[32], const uint8_t *block) {
    for (size_t j = 0; j < 16; j++) {
        const int bit_low = block[2 + j / 8] >> (j % 8) & 1;
        const int bit_high = block[4 + j / 8] >> (j % 8) & 1;
        q[j] = (uint8_t)((block[6 + j] & 15) | bit_low << 4);
        q[j + 16] = (uint8_t)(block[6 + j] >> 4 | bit_high << 4);
    }
}

static void pack_block(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block) {
    uint8_t q[32];
    read_values(q, block);
    memcpy(scales + 2 * row, block, 2);
    pi2_put_nibbles(values, row, q);
    pi2_put_fifth_bits(values + 256, row, q);
}

static void unpack_block(uint8_t *block, const uint8_t *scales, const uint8_t *values,
                         uint32_t row) {
    uint8_t q[32];
    pi2_get_nibbles(q, values, row);
    pi2_get_fifth_bits(q, values + 256, row);
    memcpy(block, scales + 2 * row, 2);
    memset(block + 2, 0, 4);
    for (size_t k = 0; k < 32; k++) {
        block[2 + k / 8] = (uint8_t)(block[2 + k / 8] | (q[k] >> 4) << (k % 8));
    }
    for (size_t j = 0; j < 16; j++) block[6 + j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static void decode_row(float *out, const void *blocks, size_t block_count) {
    const uint8_t *block = blocks;
    for (size_t b = 0; b < block_count; b++, block += 22, out += 32) {
        uint8_t q[32];
        read_values(q, block);
        const float d = pi2_load_half(block);
        for (size_t k = 0; k < 32; k++) out[k] = d * (float)(q[k] - 16);
    }
}

PI2_TILE_FUNCTIONS_BY_BLOCK(q5_0)

const pi2_weight_format pi2_weight_format_q5_0 = {
    .type = PI2_Q5_0,
    .name = "Q5_0",
    .block_columns = 32,
    .block_bytes = 22,
    .tile_scale_bytes = 32,
    .tile_value_bytes = 320,
    .activation = PI2_ACTIVATION_Q8_32,
    .pack_tile = pack_tile,
    .unpack_row = unpack_row,
    .decode_row = decode_row,
};
