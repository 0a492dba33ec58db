/*
 * q2_k.c: 256 columns = 16 bytes: a 4-bit scale (low) and a 4-bit minimum of each 16 columns; 64 bytes: byte 32 h +
 * i has columns 128 h + 32 j + i in its bits 2 j and 2 j + 1; half d; half dmin. weight = d * scale * q - dmin *
 * minimum.
 */
#include "weight_formats/block_format.h"

enum { SCALES = 0, VALUES = 16, D = 80 };

static const pi2_block_arrays arrays = {2, 3, {{D, 2, 2}, {SCALES, 4, 4}, {VALUES, 4, 16}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block + D);
    w->m = pi2_load_half(block + D + 2);
    for (size_t s = 0; s < 16; s++) {
        w->scales[s] = block[SCALES + s] & 15;
        w->minimums[s] = block[SCALES + s] >> 4;
    }
    for (size_t k = 0; k < 256; k++) {
        w->q[k] = (int8_t)(block[VALUES + k / 128 * 32 + k % 32] >> (k / 32 % 4 * 2) & 3);
    }
}

PI2_BLOCK_FORMAT(q2_k, Q2_K, 84, 20, Q8_256, .halves = D, .half_count = 2)
