/*
 * q6_k.c: 256 columns = 128 bytes ql, 64 bytes qh, 16 signed scales sc (one for 16 columns),
 * half d. Of each half of 128 columns, with i = 0 .. 31 and its 64 bytes ql and 32 bytes qh:
 * column i is low half of ql[i], i + 32 low of ql[i + 32], i + 64 high of ql[i], i + 96 high of
 * ql[i + 32]; their bits 4-5 are bits 0-1, 2-3, 4-5, 6-7 of qh[i]. weight = (d * sc) * (q - 32).
 * Tile: scales 16 d, then for each sub-block 16 sc; values 16 x 192 bytes (pi2_put_six_bits).
 */
#include <string.h>

#include "weight_formats/half_float.h"
#include "weight_formats/tile_values.h"

enum { QH = 128, SCALES = 192, D = 208 };

static void read_values(uint8_t q[256], const uint8_t *block) {
    for (size_t column = 0; column < 256; column++) {
        const size_t half = column / 128, quarter = column / 32 % 4, i = column % 32;
        const uint8_t low = block[64 * half + 32 * (quarter % 2) + i];
        const uint8_t high = block[QH + 32 * half + i];
        q[column] =
            (uint8_t)(((low >> (4 * (quarter / 2))) & 15) | ((high >> (2 * quarter)) & 3) << 4);
    }
}

static void write_values(uint8_t *block, const uint8_t q[256]) {
    memset(block, 0, SCALES);
    for (size_t column = 0; column < 256; column++) {
        const size_t half = column / 128, quarter = column / 32 % 4, i = column % 32;
        uint8_t *low = block + 64 * half + 32 * (quarter % 2) + i;
        uint8_t *high = block + QH + 32 * half + i;
        *low = (uint8_t)(*low | (q[column] & 15) << (4 * (quarter / 2)));
        *high = (uint8_t)(*high | (q[column] >> 4) << (2 * quarter));
    }
}

static void pack_block(uint8_t *scales, uint8_t *values, uint32_t row, const uint8_t *block) {
    uint8_t q[256];
    read_values(q, block);
    memcpy(scales + 2 * row, block + D, 2);
    for (size_t s = 0; s < 16; s++) {
        scales[32 + 16 * s + row] = block[SCALES + s];
        pi2_put_six_bits(values + 192 * s, row, q + 16 * s);
    }
}

static void unpack_block(uint8_t *block, const uint8_t *scales, const uint8_t *values,
                         uint32_t row) {
    uint8_t q[256];
    for (size_t s = 0; s < 16; s++) pi2_get_six_bits(q + 16 * s, values + 192 * s, row);
    write_values(block, q);
    for (size_t s = 0; s < 16; s++) block[SCALES + s] = scales[32 + 16 * s + row];
    memcpy(block + D, scales + 2 * row, 2);
}

static void decode_row(float *out, const void *blocks, size_t block_count) {
    const uint8_t *block = blocks;
    for (size_t b = 0; b < block_count; b++, block += 210) {
        uint8_t q[256];
        read_values(q, block);
        const float d = pi2_load_half(block + D);
        for (size_t s = 0; s < 16; s++) {
            const float step = d * (float)(int8_t)block[SCALES + s];
            for (size_t k = 0; k < 16; k++) *out++ = step * (float)(q[16 * s + k] - 32);
        }
    }
}

PI2_TILE_FUNCTIONS_BY_BLOCK(q6_k)

const pi2_weight_format pi2_weight_format_q6_k = {
    .type = PI2_Q6_K,
    .name = "Q6_K",
    .block_columns = 256,
    .block_bytes = 210,
    .tile_scale_bytes = 288,
    .tile_value_bytes = 3072,
    .activation = PI2_ACTIVATION_Q8_256,
    .pack_tile = pack_tile,
    .unpack_row = unpack_row,
    .decode_row = decode_row,
    .parts = {.code_bits = 6, .scales = SCALES, .scale_bytes = 18, .halves = D, .half_count = 1, .value_bytes = 192},
    .get_codes = read_values,
    .put_codes = write_values,
};
