/*
 * small_rows_template.h: both kernels in plain C, of which the compiler makes vector code for the instruction set of
 * the including file, <op>_<isa>.c. That file defines SMALL_ROWS(name). Sums are exact, so every set gives the same
 * number.
 */
#include "kernels/small_rows/small_rows_kernels.h"

/* Of a block at most 7 * 32 * 32767 < 2^23, times a scale below 2^8 < 2^31. */
static inline int32_t block_of_2(const uint8_t *block, const int16_t *x) {
    int16_t values[PI2_SMALL_BLOCK];
    int32_t sum = 0;
    for (int i = 0; i < 8; i++) {
        values[i] = (int16_t)(2 * (block[i] & 3) - 3);
        values[8 + i] = (int16_t)(2 * (block[i] >> 2 & 3) - 3);
        values[16 + i] = (int16_t)(2 * (block[i] >> 4 & 3) - 3);
        values[24 + i] = (int16_t)(2 * (block[i] >> 6) - 3);
    }
    for (int i = 0; i < PI2_SMALL_BLOCK; i++) sum += values[i] * x[i];
    return sum;
}

static inline int32_t block_of_3(const uint8_t *block, const int16_t *x) {
    int16_t values[PI2_SMALL_BLOCK];
    int32_t sum = 0;
    for (int i = 0; i < 8; i++) {
        values[i] = (int16_t)(2 * (block[i] & 3) - 7);
        values[8 + i] = (int16_t)(2 * (block[i] >> 2 & 3) - 7);
        values[16 + i] = (int16_t)(2 * (block[i] >> 4 & 3) - 7);
        values[24 + i] = (int16_t)(2 * (block[i] >> 6) - 7);
    }
    for (int k = 0; k < 8; k++) {
        for (int i = 0; i < 4; i++) values[4 * k + i] = (int16_t)(values[4 * k + i] + 8 * (block[8 + i] >> k & 1));
    }
    for (int i = 0; i < PI2_SMALL_BLOCK; i++) sum += values[i] * x[i];
    return sum;
}

int64_t SMALL_ROWS(low_bit)(const uint8_t *blocks, const uint8_t *scales, unsigned bits, const int16_t *x,
                            size_t columns) {
    int64_t sum = 0;
    if (bits == 2) {
        for (size_t b = 0; b < columns / PI2_SMALL_BLOCK; b++) {
            sum += scales[b] * block_of_2(blocks + 8 * b, x + PI2_SMALL_BLOCK * b);
        }
        return sum;
    }
    for (size_t b = 0; b < columns / PI2_SMALL_BLOCK; b++) {
        sum += scales[b] * block_of_3(blocks + 12 * b, x + PI2_SMALL_BLOCK * b);
    }
    return sum;
}

/* 256 products of at most 128 * 32767 are below 2^31. */
int64_t SMALL_ROWS(int8)(const int8_t *row, const int16_t *x, size_t columns) {
    enum { STEP = 256 };
    int64_t sum = 0;
    for (size_t begin = 0; begin < columns; begin += STEP) {
        const size_t count = columns - begin < STEP ? columns - begin : STEP;
        int32_t part = 0;
        for (size_t i = 0; i < count; i++) part += row[begin + i] * x[begin + i];
        sum += part;
    }
    return sum;
}
