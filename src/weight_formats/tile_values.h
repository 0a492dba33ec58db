/*
 * tile_values.h: where a tile keeps the values of its rows. Private to weight_formats/ and to
 * the kernels' unpackers.
 *
 * The unit is the column group: 4 consecutive columns of all 16 rows, 64 positions. Position
 * 4 * row + c is column c of the group. This is what an int8 dot-product instruction takes: a
 * 32-bit lane is one row (AVX-512: 16 rows in a vector, AVX2: 8, NEON: 4), and the 4 activations
 * are broadcast.
 *
 *   bytes    Q8_0: one group is 64 bytes, position p in byte p.
 *   nibbles  two groups in 64 bytes: the even one in the low halves, the odd one in the high.
 *   bit 4    (Q5) 8 groups in 64 bytes: bit g of byte p belongs to group g.
 *   bits 4-5 (Q6) 4 groups in 64 bytes: bits 2g, 2g + 1 of byte p belong to group g.
 */
#ifndef PI2_WEIGHT_FORMATS_TILE_VALUES_H
#define PI2_WEIGHT_FORMATS_TILE_VALUES_H

#include <string.h>

#include "weight_formats/weight_format.h"

enum { PI2_GROUP_COLUMNS = 4, PI2_GROUP_POSITIONS = 64 };

/*
 * A row's 4 columns of a group are 4 bytes side by side, and nobody else's. Loading a model packs
 * every weight once, so they are packed as words: every operation below stays inside its byte,
 * which makes the order of bytes irrelevant.
 */
static inline uint32_t pi2_group_word(const uint8_t *q) {
    uint32_t word;
    memcpy(&word, q, sizeof word);
    return word;
}

static inline void pi2_put_word(uint8_t *group, uint32_t row, uint32_t word) {
    memcpy(group + row * PI2_GROUP_COLUMNS, &word, sizeof word);
}

/* The low halves of 8 columns: two groups in one word. */
static inline uint32_t pi2_nibble_word(const uint8_t *q) {
    return (pi2_group_word(q) & 0x0f0f0f0fu) | (pi2_group_word(q + 4) & 0x0f0f0f0fu) << 4;
}

/** Puts the low 4 bits of q[32] into the nibbles of `row`: 256 bytes for all rows. */
static inline void pi2_put_nibbles(uint8_t *area, uint32_t row, const uint8_t q[32]) {
    for (uint32_t g = 0; g < 4; g++) {
        pi2_put_word(area + g * PI2_GROUP_POSITIONS, row, pi2_nibble_word(q + 8 * g));
    }
}

static inline void pi2_get_nibbles(uint8_t q[32], const uint8_t *area, uint32_t row) {
    for (uint32_t k = 0; k < 32; k++) {
        const uint8_t byte = area[(k / 8) * PI2_GROUP_POSITIONS + row * PI2_GROUP_COLUMNS + k % 4];
        q[k] = (uint8_t)((byte >> (k & 4)) & 15);
    }
}

/** Puts bit 4 of q[32] into the bits of `row`: 64 bytes for all rows. */
static inline void pi2_put_fifth_bits(uint8_t *area, uint32_t row, const uint8_t q[32]) {
    uint32_t word = 0;
    for (uint32_t g = 0; g < 8; g++) word |= (pi2_group_word(q + 4 * g) >> 4 & 0x01010101u) << g;
    pi2_put_word(area, row, word);
}

/** Sets bit 4 of q[32], whose bits 4 to 7 are zero. */
static inline void pi2_get_fifth_bits(uint8_t q[32], const uint8_t *area, uint32_t row) {
    for (uint32_t k = 0; k < 32; k++) {
        const uint8_t byte = area[row * PI2_GROUP_COLUMNS + k % 4];
        q[k] = (uint8_t)(q[k] | ((byte >> (k / 4)) & 1) << 4);
    }
}

/** Puts 16 values of 6 bits: 64 bytes of bits 4-5, then 128 bytes of nibbles, for all rows. */
static inline void pi2_put_six_bits(uint8_t *area, uint32_t row, const uint8_t q[16]) {
    uint32_t high = 0;
    for (uint32_t g = 0; g < 4; g++) {
        high |= (pi2_group_word(q + 4 * g) >> 4 & 0x03030303u) << (2 * g);
    }
    pi2_put_word(area, row, high);
    pi2_put_word(area + PI2_GROUP_POSITIONS, row, pi2_nibble_word(q));
    pi2_put_word(area + 2 * PI2_GROUP_POSITIONS, row, pi2_nibble_word(q + 8));
}

static inline void pi2_get_six_bits(uint8_t q[16], const uint8_t *area, uint32_t row) {
    for (uint32_t k = 0; k < 16; k++) {
        const uint32_t position = row * PI2_GROUP_COLUMNS + k % 4;
        const uint8_t high = area[position];
        const uint8_t low = area[PI2_GROUP_POSITIONS * (1 + k / 8) + position];
        q[k] = (uint8_t)(((low >> (k & 4)) & 15) | ((high >> (2 * (k / 4))) & 3) << 4);
    }
}

/* One block of one row, to or from its block of the tile's two areas. */
typedef void pi2_pack_block_fn(uint8_t *scales, uint8_t *values, uint32_t row,
                               const uint8_t *block);
typedef void pi2_unpack_block_fn(uint8_t *block, const uint8_t *scales, const uint8_t *values,
                                 uint32_t row);

/** pack_tile of a format, given its function for one block. */
void pi2_pack_tile_by_block(const pi2_weight_format *format, pi2_pack_block_fn *pack_block,
                            void *tile, const uint8_t *const rows[PI2_TILE_ROWS],
                            size_t block_count);

/** unpack_row of a format, given its function for one block. */
void pi2_unpack_row_by_block(const pi2_weight_format *format, pi2_unpack_block_fn *unpack_block,
                             void *blocks, const void *tile, uint32_t row, size_t block_count);

/** Defines pack_tile and unpack_row of the format `name` from its pack_block and unpack_block. */
#define PI2_TILE_FUNCTIONS_BY_BLOCK(name)                                                       \
    static void pack_tile(void *tile, const uint8_t *const rows[PI2_TILE_ROWS], size_t count) { \
        pi2_pack_tile_by_block(&pi2_weight_format_##name, pack_block, tile, rows, count);       \
    }                                                                                           \
    static void unpack_row(void *blocks, const void *tile, uint32_t row, size_t count) {        \
        pi2_unpack_row_by_block(&pi2_weight_format_##name, unpack_block, blocks, tile, row,     \
                                count);                                                         \
    }

/* The formats themselves: one constant for each line of the list. */
#define WEIGHT_FORMAT(lower, upper, id) extern const pi2_weight_format pi2_weight_format_##lower;
#include "weight_formats/weight_formats.inc"

#endif
