/*
 * tq1_0.c: 256 columns of -1, 0 or 1 = 48 + 4 bytes; half d. A byte is a fraction of 256: its digits to the base of
 * 3, from the first on, are five columns, n = 0 .. 4: columns 32 n + i of bytes 0 to 31, 160 + 16 n + i of the next
 * 16, and 240 + 4 n + i of the last 4, which have four digits. weight = d * (digit - 1).
 */
#include "weight_formats/block_format.h"

enum { D = 52 };

static const pi2_block_arrays arrays = {1, 2, {{D, 2, 1}, {0, 4, 13}}};

static void read_digits(int8_t *q, const uint8_t *bytes, size_t count, size_t digits) {
    uint8_t power = 1;
    for (size_t n = 0; n < digits; n++, power = (uint8_t)(3 * power)) {
        for (size_t i = 0; i < count; i++) *q++ = (int8_t)(((uint8_t)(bytes[i] * power) * 3 >> 8) - 1);
    }
}

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block + D);
    for (size_t s = 0; s < 8; s++) w->scales[s] = 1;
    read_digits(w->q, block, 32, 5);
    read_digits(w->q + 160, block + 32, 16, 5);
    read_digits(w->q + 240, block + 48, 4, 4);
}

PI2_BLOCK_FORMAT(tq1_0, TQ1_0, 54, 2, Q8_256, .halves = D, .half_count = 1)
