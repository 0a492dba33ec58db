/*
 * training.h: products of float matrices, and what else training a predictor takes longest over
 * (predictor/low_rank_train.h), in one fixed arithmetic: the same bits on every instruction set (docs/arithmetic.md).
 */
#ifndef PI2_KERNELS_TRAINING_TRAINING_H
#define PI2_KERNELS_TRAINING_TRAINING_H

#include <stddef.h>

enum { PI2_PRODUCT_PANEL = 32, PI2_PRODUCT_STEPS = 128 };

/** A matrix whose rows, or columns, lie side by side. */
typedef struct pi2_float_matrix {
    const float *values;
    size_t row, column; /* floats from a row to the next, from a column to the next */
} pi2_float_matrix;

typedef struct pi2_training_kernels {
    const char *name;
    unsigned cpu_required;

    /**
     * to[i][j] = fma(left[i][k], panel[k][j], to[i][j]) for k ascending: rows x PI2_PRODUCT_PANEL sums of `steps`.
     * to      rows of PI2_PRODUCT_PANEL floats, `stride` apart
     * panel   [steps][PI2_PRODUCT_PANEL]
     */
    void (*add_panel)(float *to, size_t stride, pi2_float_matrix left, const float *panel, size_t rows, size_t steps);

    /** In place: x = 1 / (1 + exp(-x)). */
    void (*logistic)(float *x, size_t count);
} pi2_training_kernels;

extern const pi2_training_kernels *const pi2_training_kernel_sets[];
extern const size_t pi2_training_kernel_set_count;
const pi2_training_kernels *pi2_training_select(unsigned cpu_features);

/**
 * to[i][j] = fma(left[i][k], right[k][j], to[i][j]) for k ascending, rows x columns sums of `steps` terms. The order of
 * a sum does not hang on which rows and columns are computed by one call, so threads may share them out.
 * to      [rows][columns], rows `stride` floats apart; it shares no memory with the others
 * right   its columns lie side by side: right.column is 1
 */
void pi2_add_product(const pi2_training_kernels *kernels, float *to, size_t stride, pi2_float_matrix left,
                     pi2_float_matrix right, size_t rows, size_t steps, size_t columns);

#endif
