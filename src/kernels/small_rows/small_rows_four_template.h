/*
 * small_rows_four_template.h: rows of int8, four at a time, given an instruction set's sums_of_four(). Included once by
 * small_rows_<isa>.c, before what it defines.
 */
#ifndef PI2_KERNELS_SMALL_ROWS_SMALL_ROWS_FOUR_TEMPLATE_H
#define PI2_KERNELS_SMALL_ROWS_SMALL_ROWS_FOUR_TEMPLATE_H

#include "kernels/small_rows/small_rows_kernels.h"

/* 32 bits hold the sum of 512 columns: 512 * 128 * 32767 < 2^31. Rows are asked for AHEAD bytes before their use. */
enum { COLUMNS_OF_32_BITS = 512, ROWS = 4, AHEAD = 2048 };

/* Sums of at most COLUMNS_OF_32_BITS columns of four rows. */
static inline void sums_of_four(int32_t sums[ROWS], const int8_t *const rows[ROWS], const int16_t *x, size_t columns);

static inline void four_rows(float *sums, const int8_t *const first[ROWS], const int16_t *x, size_t columns) {
    int32_t part[ROWS];
    if (columns <= COLUMNS_OF_32_BITS) {
        sums_of_four(part, first, x, columns);
        for (int r = 0; r < ROWS; r++) sums[r] = (float)part[r];
        return;
    }
    const int8_t *rows[ROWS];
    int64_t all[ROWS] = { 0 };
    for (int r = 0; r < ROWS; r++) rows[r] = first[r];
    for (size_t begin = 0; begin < columns; begin += COLUMNS_OF_32_BITS) {
        const size_t left = columns - begin, count = left < COLUMNS_OF_32_BITS ? left : COLUMNS_OF_32_BITS;
        sums_of_four(part, rows, x + begin, count);
        for (int r = 0; r < ROWS; r++) {
            rows[r] += count;
            all[r] += part[r];
        }
    }
    for (int r = 0; r < ROWS; r++) sums[r] = (float)all[r];
}

/* The four rows of a step lie far apart: as many streams get more of the memory than one. */
static inline void int8_rows(float *sums, const int8_t *rows, size_t row_count, const int16_t *x, size_t columns) {
    const size_t part = row_count / ROWS;
    float results[ROWS];
    for (size_t i = 0; i < part; i++) {
        const int8_t *const four[ROWS] = { rows + i * columns, rows + (part + i) * columns,
                                           rows + (2 * part + i) * columns, rows + (3 * part + i) * columns };
        four_rows(results, four, x, columns);
        for (size_t r = 0; r < ROWS; r++) sums[r * part + i] = results[r];
    }
    for (size_t r = ROWS * part; r < row_count; r++) {
        const int8_t *row = rows + r * columns;
        const int8_t *const four[ROWS] = { row, row, row, row };
        four_rows(results, four, x, columns);
        sums[r] = results[0];
    }
}

#endif
