/*
 * training_template.h: what training computes in lanes of 16 (kernels/vector/lanes_<isa>.h). The including file defines
 * TRAINING_KERNELS_SYMBOL, _NAME and _CPU, and ROWS x WIDE lanes of sums that registers hold.
 */
#include "kernels/training/training.h"
#include "kernels/vector/lanes_exp.h"

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

/* `rows` rows, a constant for the compiler. */
static inline __attribute__((always_inline)) void add_rows(float *to, size_t stride, pi2_float_matrix left,
                                                           const float *panel, size_t steps, const size_t rows) {
    for (size_t at = 0; at < PI2_PRODUCT_PANEL; at += WIDE * LANES) {
        lanes sums[ROWS][WIDE];
        UNROLLED for (size_t i = 0; i < rows; i++) {
            UNROLLED for (size_t w = 0; w < WIDE; w++) sums[i][w] = lanes_load(to + i * stride + at + w * LANES);
        }
        const float *factors = left.values, *column = panel + at;
        for (size_t k = 0; k < steps; k++, factors += left.column, column += PI2_PRODUCT_PANEL) {
            lanes from[WIDE];
            UNROLLED for (size_t w = 0; w < WIDE; w++) from[w] = lanes_load(column + w * LANES);
            UNROLLED for (size_t i = 0; i < rows; i++) {
                const lanes factor = lanes_set(factors[i * left.row]);
                UNROLLED for (size_t w = 0; w < WIDE; w++) sums[i][w] = lanes_fma(factor, from[w], sums[i][w]);
            }
        }
        UNROLLED for (size_t i = 0; i < rows; i++) {
            UNROLLED for (size_t w = 0; w < WIDE; w++) lanes_store(to + i * stride + at + w * LANES, sums[i][w]);
        }
    }
}

static void add_panel(float *to, size_t stride, pi2_float_matrix left, const float *panel, size_t rows, size_t steps) {
    size_t i = 0;
    for (; i + ROWS <= rows; i += ROWS, left.values += ROWS * left.row) {
        add_rows(to + i * stride, stride, left, panel, steps, ROWS);
    }
    for (; i < rows; i++, left.values += left.row) add_rows(to + i * stride, stride, left, panel, steps, 1);
}

static inline lanes logistic_of(lanes x) {
    const lanes one = lanes_set(1.0f);
    return lanes_div(one, lanes_add(one, lanes_exp(lanes_sub(lanes_zero(), x))));
}

static void logistic(float *x, size_t count) {
    const size_t whole = count / LANES * LANES, rest = count - whole;
    for (size_t i = 0; i < whole; i += LANES) lanes_store(x + i, logistic_of(lanes_load(x + i)));
    if (rest) lanes_store_first(x + whole, logistic_of(lanes_load_first(x + whole, rest)), rest);
}

const pi2_training_kernels TRAINING_KERNELS_SYMBOL = {
    .name = TRAINING_KERNELS_NAME, .cpu_required = TRAINING_KERNELS_CPU, .add_panel = add_panel, .logistic = logistic,
};
