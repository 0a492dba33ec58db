/*
 * iq3_s.c: 256 columns = half d; 64 bytes: the low bits of the grid point of 4 columns each; 8 bytes: bit 8 of grid
 * point i is bit i mod 8 of byte i / 8; 32 bytes: the signs of 8 columns each; 4 bytes: the scale of each 32
 * columns, scale s in nibble s. weight = d * (2 * scale + 1) * (+-grid).
 */
#include "weight_formats/block_format.h"
#include "weight_formats/code_books.h"

enum { POINTS = 2, HIGH = 66, SIGNS = 74, SCALES = 106 };

static const pi2_block_arrays arrays = {
    2, 5, {{0, 2, 1}, {SCALES, 4, 1}, {POINTS, 4, 16}, {HIGH, 4, 2}, {SIGNS, 4, 8}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block);
    for (size_t s = 0; s < 8; s++) w->scales[s] = (int16_t)(2 * (block[SCALES + s / 2] >> (s % 2 * 4) & 15) + 1);
    for (size_t i = 0; i < 64; i++) {
        const uint32_t high = block[HIGH + i / 8] >> (i % 8) & 1, signs = (uint32_t)block[SIGNS + i / 2] >> (i % 2 * 4);
        pi2_read_grid(w->q + 4 * i, &pi2_grid_iq3_s[block[POINTS + i] | high << 8], 4, signs);
    }
}

PI2_BLOCK_FORMAT(iq3_s, IQ3_S, 110, 6, Q8_256, .halves = 0, .half_count = 1)
