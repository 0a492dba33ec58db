/*
 * small_rows.h: rows of very small weights times one vector, for predictors (predictor/predictor.h): what is computed
 * is which neurons to compute, so weights of 2 or 3 bits, or of 8, are enough.
 *
 * The vector is int16 with one scale, and every sum is of integers and exact: whoever computes it, in whatever order
 * and on however many threads, predicts the same neurons (docs/arithmetic.md, Predictors).
 */
#ifndef PI2_KERNELS_SMALL_ROWS_SMALL_ROWS_H
#define PI2_KERNELS_SMALL_ROWS_SMALL_ROWS_H

#include <stddef.h>
#include <stdint.h>

enum {
    PI2_SMALL_BLOCK = 32,          /* columns that share a scale, and what every row's length is a multiple of */
    PI2_SMALL_MOST_COLUMNS = 65536 /* of a row: no sum passes 64 bits, nor that of a block 32 */
};

/** Bytes of a block's values with so many bits, 2 or 3. */
static inline size_t pi2_small_block_bytes(unsigned bits) { return bits == 3 ? 12 : 8; }

/**
 * A row of blocks: value i of a block is 2 u - (2^bits - 1), u its bits: the lower two are bits 2 (i / 8) and
 * 2 (i / 8) + 1 of byte i % 8; with 3 bits the highest is bit i / 4 of byte 8 + i % 4. scales: one byte a block.
 * Returns the sum over blocks of scale * (sum of value * x).
 */
typedef int64_t pi2_small_low_bit_fn(const uint8_t *blocks, const uint8_t *scales, unsigned bits, const int16_t *x,
                                     size_t columns);

/**
 * Rows of int8, [..][columns]: sums[r] is the sum over i of row[i] * x[i], rounded to a float once. The row is number
 * numbers[r]; numbers NULL: number r.
 */
typedef void pi2_small_int8_fn(float *sums, const int8_t *rows, const uint32_t *numbers, size_t row_count,
                               const int16_t *x, size_t columns);

typedef struct pi2_small_kernel {
    const char *name;
    unsigned cpu_required;
    pi2_small_low_bit_fn *low_bit;
    pi2_small_int8_fn *int8;
} pi2_small_kernel;

extern const pi2_small_kernel pi2_small_kernels[];
extern const size_t pi2_small_kernel_count;

/** The best for the CPU; the scalar one is the specification. */
const pi2_small_kernel *pi2_small_select(unsigned cpu_features);

#endif
