/* tq2_0.c: 256 columns = 64 bytes of 2 bits each, in the order of Q2_K; half d. weight = d * (q - 1). */
#include "weight_formats/block_format.h"

enum { D = 64 };

static const pi2_block_arrays arrays = {1, 2, {{D, 2, 1}, {0, 4, 16}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block + D);
    for (size_t s = 0; s < 8; s++) w->scales[s] = 1;
    for (size_t k = 0; k < 256; k++) w->q[k] = (int8_t)((block[k / 128 * 32 + k % 32] >> (k / 32 % 4 * 2) & 3) - 1);
}

PI2_BLOCK_FORMAT(tq2_0, TQ2_0, 66, 2, Q8_256, .halves = D, .half_count = 1)
