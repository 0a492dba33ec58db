/*
 * q3_k.c: 256 columns = 32 bytes: bit j of byte i is bit 2 of column 32 j + i; 64 bytes of bits 0 and 1, as in Q2_K;
 * 12 bytes: 16 scales of 6 bits, whose low halves lie in bytes 0 to 7 (scale s in the low half of byte s, scale s +
 * 8 in its high half) and whose bits 4 and 5 lie in bytes 8 to 11 (of scale s in bits 2 (s / 4) of byte 8 + s mod
 * 4); half d. weight = d * (scale - 32) * (q - 4).
 */
#include "weight_formats/block_format.h"

enum { HIGH = 0, VALUES = 32, SCALES = 96, D = 108 };

static const pi2_block_arrays arrays = {2, 4, {{D, 2, 1}, {SCALES, 4, 3}, {HIGH, 4, 8}, {VALUES, 4, 16}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block + D);
    for (size_t s = 0; s < 16; s++) {
        const int low = block[SCALES + s % 8] >> (s / 8 * 4) & 15, high = block[SCALES + 8 + s % 4] >> (s / 4 * 2) & 3;
        w->scales[s] = (int16_t)((low | high << 4) - 32);
    }
    for (size_t k = 0; k < 256; k++) {
        const int low = block[VALUES + k / 128 * 32 + k % 32] >> (k / 32 % 4 * 2) & 3;
        w->q[k] = (int8_t)((low | (block[HIGH + k % 32] >> (k / 32) & 1) << 2) - 4);
    }
}

PI2_BLOCK_FORMAT(q3_k, Q3_K, 110, 14, Q8_256, .halves = D, .half_count = 1)
