/* training.c: the list as a table, and whole products out of panels that lie together. */
#include "kernels/training/training.h"

#include <string.h>

#define TRAINING_KERNELS(name) extern const pi2_training_kernels pi2_training_kernels_##name;
#include "kernels/training/training.inc"
#undef TRAINING_KERNELS

const pi2_training_kernels *const pi2_training_kernel_sets[] = {
#define TRAINING_KERNELS(name) &pi2_training_kernels_##name,
#include "kernels/training/training.inc"
#undef TRAINING_KERNELS
};
const size_t pi2_training_kernel_set_count = sizeof pi2_training_kernel_sets / sizeof pi2_training_kernel_sets[0];

const pi2_training_kernels *pi2_training_select(unsigned cpu_features) {
    const pi2_training_kernels *best = pi2_training_kernel_sets[0];
    for (size_t i = 1; i < pi2_training_kernel_set_count; i++) {
        if ((pi2_training_kernel_sets[i]->cpu_required & ~cpu_features) == 0) best = pi2_training_kernel_sets[i];
    }
    return best;
}

/* Rows of a matrix lie far apart, so that a panel's would meet in the same sets of the first cache. */
static void pack(float *panel, pi2_float_matrix right, size_t steps, size_t columns) {
    for (size_t k = 0; k < steps; k++, panel += PI2_PRODUCT_PANEL) {
        memcpy(panel, right.values + k * right.row, columns * sizeof *panel);
        if (columns < PI2_PRODUCT_PANEL) memset(panel + columns, 0, (PI2_PRODUCT_PANEL - columns) * sizeof *panel);
    }
}

/* Fewer columns than a panel has: rows of a whole panel beside the matrix. */
static void add_narrow(const pi2_training_kernels *kernels, float *to, size_t stride, pi2_float_matrix left,
                       const float *panel, size_t rows, size_t steps, size_t columns) {
    float sums[PI2_PRODUCT_PANEL] = { 0 };
    for (size_t i = 0; i < rows; i++, left.values += left.row, to += stride) {
        memcpy(sums, to, columns * sizeof *sums);
        kernels->add_panel(sums, PI2_PRODUCT_PANEL, left, panel, 1, steps);
        memcpy(to, sums, columns * sizeof *sums);
    }
}

void pi2_add_product(const pi2_training_kernels *kernels, float *to, size_t stride, pi2_float_matrix left,
                     pi2_float_matrix right, size_t rows, size_t steps, size_t columns) {
    _Alignas(64) float panel[PI2_PRODUCT_STEPS * PI2_PRODUCT_PANEL];
    for (size_t k = 0; k < steps; k += PI2_PRODUCT_STEPS) {
        const size_t depth = steps - k < PI2_PRODUCT_STEPS ? steps - k : PI2_PRODUCT_STEPS;
        const pi2_float_matrix part = { left.values + k * left.column, left.row, left.column };
        for (size_t j = 0; j < columns; j += PI2_PRODUCT_PANEL) {
            const size_t count = columns - j < PI2_PRODUCT_PANEL ? columns - j : PI2_PRODUCT_PANEL;
            const pi2_float_matrix beside = { right.values + k * right.row + j, right.row, right.column };
            pack(panel, beside, depth, count);
            if (count == PI2_PRODUCT_PANEL) kernels->add_panel(to + j, stride, part, panel, rows, depth);
            else add_narrow(kernels, to + j, stride, part, panel, rows, depth, count);
        }
    }
}
