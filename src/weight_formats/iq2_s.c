/*
 * iq2_s.c: 256 columns = half d; 32 bytes: the low bits of the grid point of 8 columns each; 32 bytes: their signs;
 * 8 bytes: bits 8 and 9 of grid point i are bits 2 (i mod 4) of byte i / 4; 8 bytes of scales, as in IQ2_XS. weight
 * = d / 8 * (2 * scale + 1) * (+-grid).
 */
#include "weight_formats/block_format.h"
#include "weight_formats/code_books.h"

enum { POINTS = 2, SIGNS = 34, HIGH = 66, SCALES = 74 };

static const pi2_block_arrays arrays = {2, 5, {{0, 2, 1}, {SCALES, 4, 2}, {POINTS, 4, 8}, {SIGNS, 4, 8}, {HIGH, 4, 2}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block) * 0.125f;
    for (size_t s = 0; s < 16; s++) w->scales[s] = (int16_t)(2 * (block[SCALES + s / 2] >> (s % 2 * 4) & 15) + 1);
    for (size_t i = 0; i < 32; i++) {
        const uint32_t high = block[HIGH + i / 4] >> (i % 4 * 2) & 3;
        pi2_read_grid(w->q + 8 * i, &pi2_grid_iq2_s[2 * (block[POINTS + i] | high << 8)], 8, block[SIGNS + i]);
    }
}

PI2_BLOCK_FORMAT(iq2_s, IQ2_S, 82, 10, Q8_256, .halves = 0, .half_count = 1)
