/* training_scalar.c: what training computes, in plain C: this defines the bits. */
#include <math.h>

#include "base/cpu_features.h"
#include "kernels/training/training.h"
#include "kernels/vector/vector.h"

static void add_panel(float *to, size_t stride, pi2_float_matrix left, const float *panel, size_t rows, size_t steps) {
    for (size_t i = 0; i < rows; i++, to += stride) {
        for (size_t k = 0; k < steps; k++) {
            const float factor = left.values[i * left.row + k * left.column];
            const float *from = panel + k * PI2_PRODUCT_PANEL;
            for (size_t j = 0; j < PI2_PRODUCT_PANEL; j++) to[j] = fmaf(factor, from[j], to[j]);
        }
    }
}

static void logistic(float *x, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] = 1.0f / (1.0f + pi2_expf(-x[i]));
}

const pi2_training_kernels pi2_training_kernels_scalar = {
    .name = "scalar", .cpu_required = PI2_CPU_NONE, .add_panel = add_panel, .logistic = logistic,
};
