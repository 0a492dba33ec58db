/*
 * q5_k.c: 256 columns = half d; half dmin; 12 bytes of scales and minimums, as in Q4_K; 32 bytes: bit j of byte i is
 * bit 4 of column 32 j + i; 128 bytes of nibbles, as in Q4_K. weight = d * scale * q - dmin * minimum.
 */
#include "weight_formats/block_format.h"

enum { SCALES = 4, HIGH = 16, VALUES = 48 };

static const pi2_block_arrays arrays = {2, 4, {{0, 2, 2}, {SCALES, 4, 3}, {HIGH, 4, 8}, {VALUES, 4, 32}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    const uint8_t *packed = block + SCALES;
    w->d[0] = pi2_load_half(block);
    w->m = pi2_load_half(block + 2);
    for (size_t s = 0; s < 4; s++) {
        w->scales[s] = packed[s] & 63;
        w->minimums[s] = packed[4 + s] & 63;
        w->scales[s + 4] = (int16_t)((packed[8 + s] & 15) | packed[s] >> 6 << 4);
        w->minimums[s + 4] = (uint8_t)(packed[8 + s] >> 4 | packed[4 + s] >> 6 << 4);
    }
    for (size_t k = 0; k < 256; k++) {
        const int low = block[VALUES + k / 64 * 32 + k % 32] >> (k / 32 % 2 * 4) & 15;
        w->q[k] = (int8_t)(low | (block[HIGH + k % 32] >> (k / 32) & 1) << 4);
    }
}

PI2_BLOCK_FORMAT(q5_k, Q5_K, 176, 16, Q8_256, .halves = 0, .half_count = 2)
