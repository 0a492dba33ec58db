/*
 * small_rows_four_template.h: rows of int8, four at a time, given an instruction set's sums_of_four(). Included once by
 * small_rows_<isa>.c, before what it defines.
 */
#ifndef PI2_KERNELS_SMALL_ROWS_SMALL_ROWS_FOUR_TEMPLATE_H
#define PI2_KERNELS_SMALL_ROWS_SMALL_ROWS_FOUR_TEMPLATE_H

#include "kernels/small_rows/small_rows_kernels.h"

/* 32 bits hold the sum of 512 columns: 512 * 128 * 32767 < 2^31. Rows are asked for AHEAD bytes before their use. */
enum { COLUMNS_OF_32_BITS = 512, ROWS = 4, AHEAD = 1024 };

typedef struct four_of_rows {
    const int8_t *rows[ROWS], *ahead[ROWS]; /* and what is asked of memory meanwhile */
} four_of_rows;

/* Sums of at most COLUMNS_OF_32_BITS columns of four rows. */
static inline void sums_of_four(int32_t sums[ROWS], const four_of_rows *four, const int16_t *x, size_t columns);

static inline void four_rows(float *sums, four_of_rows four, const int16_t *x, size_t columns) {
    int32_t part[ROWS];
    if (columns <= COLUMNS_OF_32_BITS) {
        sums_of_four(part, &four, x, columns);
        for (int r = 0; r < ROWS; r++) sums[r] = (float)part[r];
        return;
    }
    int64_t all[ROWS] = { 0 };
    for (size_t begin = 0; begin < columns; begin += COLUMNS_OF_32_BITS) {
        const size_t left = columns - begin, count = left < COLUMNS_OF_32_BITS ? left : COLUMNS_OF_32_BITS;
        sums_of_four(part, &four, x + begin, count);
        for (int r = 0; r < ROWS; r++) {
            four.rows[r] += count;
            four.ahead[r] += count;
            all[r] += part[r];
        }
    }
    for (int r = 0; r < ROWS; r++) sums[r] = (float)all[r];
}

/* The four rows of a step lie far apart: as many streams get more of the memory than one. Those that are listed follow
 * no stream, and each is asked for by its number. */
static inline void int8_rows(float *sums, const int8_t *rows, const uint32_t *numbers, size_t row_count,
                             const int16_t *x, size_t columns) {
    const size_t part = row_count / ROWS, step = AHEAD / columns + 1;
    float results[ROWS];
    four_of_rows four;
    for (size_t i = 0; i < part; i++) {
        for (size_t r = 0; r < ROWS; r++) {
            const size_t at = r * part + i, later = at + step < row_count ? at + step : at;
            four.rows[r] = rows + (numbers ? numbers[at] : at) * columns;
            four.ahead[r] = numbers ? rows + numbers[later] * columns : four.rows[r] + AHEAD;
        }
        four_rows(results, four, x, columns);
        for (size_t r = 0; r < ROWS; r++) sums[r * part + i] = results[r];
    }
    for (size_t at = ROWS * part; at < row_count; at++) {
        for (size_t r = 0; r < ROWS; r++) {
            four.rows[r] = four.ahead[r] = rows + (numbers ? numbers[at] : at) * columns;
        }
        four_rows(results, four, x, columns);
        sums[at] = results[0];
    }
}

#endif
