/*
 * q8_0.c: 32 columns = half d; 32 signed bytes. weight = d * q.
 * Tile: scales 16 d; values 512 bytes.
 */
#include <string.h>

#include "weight_formats/half_float.h"
#include "weight_formats/tile_values.h"

static void pack_block(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block) {
    memcpy(scales + 2 * row, block, 2);
    for (size_t g = 0; g < 8; g++) {
        memcpy(values + g * PI2_GROUP_POSITIONS + row * PI2_GROUP_COLUMNS, block + 2 + g * 4, 4);
    }
}

static void unpack_block(uint8_t *block, const uint8_t *scales, const uint8_t *values,
                         uint32_t row) {
    memcpy(block, scales + 2 * row, 2);
    for (size_t g = 0; g < 8; g++) {
        memcpy(block + 2 + g * 4, values + g * PI2_GROUP_POSITIONS + row * PI2_GROUP_COLUMNS, 4);
    }
}

static void decode_row(float *out, const void *blocks, size_t block_count) {
    const uint8_t *block = blocks;
    for (size_t b = 0; b < block_count; b++, block += 34, out += 32) {
        const float d = pi2_load_half(block);
        for (size_t k = 0; k < 32; k++) out[k] = d * (float)(int8_t)block[2 + k];
    }
}

static void get_codes(uint8_t *codes, const uint8_t *block) { memcpy(codes, block + 2, 32); }
static void put_codes(uint8_t *block, const uint8_t *codes) { memcpy(block + 2, codes, 32); }

PI2_TILE_FUNCTIONS_BY_BLOCK(q8_0)

const pi2_weight_format pi2_weight_format_q8_0 = {
    .type = PI2_Q8_0,
    .name = "Q8_0",
    .block_columns = 32,
    .block_bytes = 34,
    .tile_scale_bytes = 32,
    .tile_value_bytes = 512,
    .activation = PI2_ACTIVATION_Q8_32,
    .pack_tile = pack_tile,
    .unpack_row = unpack_row,
    .decode_row = decode_row,
    .parts = {.code_bits = 8, .scale_bytes = 2, .half_count = 1, .values = 2, .value_bytes = 32},
    .get_codes = get_codes,
    .put_codes = put_codes,
};
