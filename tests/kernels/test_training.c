/* Goal:   every implementation of what training computes gives the bits that its header says, in one piece or in
 *         several.
 * Method: products of random matrices, both ways round and of odd sizes, against sums written down here. */
#include "base/cpu_features.h"
#include "kernels/training/training.h"
#include "kernels/vector/vector.h"
#include "float_test.h"

enum { ROWS = 29, STEPS = PI2_PRODUCT_STEPS + 23, COLUMNS = 2 * PI2_PRODUCT_PANEL + 5, STRIDE = COLUMNS + 3 };

static float left[ROWS * STEPS], right[STEPS * STRIDE], start[ROWS * STRIDE], wanted[ROWS * STRIDE], got[ROWS * STRIDE];

static void fill(uint64_t seed) {
    float_rng rng = { seed };
    float_rng_fill(&rng, left, ROWS * STEPS, -2.0f, 2.0f);
    float_rng_fill(&rng, right, STEPS * STRIDE, -1.0f, 1.0f);
    float_rng_fill(&rng, start, ROWS * STRIDE, -1.0f, 1.0f);
}

static pi2_float_matrix left_matrix(bool by_column) {
    return by_column ? (pi2_float_matrix){ left, 1, ROWS } : (pi2_float_matrix){ left, STEPS, 1 };
}

static void define(pi2_float_matrix a) {
    memcpy(wanted, start, sizeof wanted);
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = 0; j < COLUMNS; j++) {
            for (size_t k = 0; k < STEPS; k++) {
                float *to = &wanted[i * STRIDE + j];
                *to = fmaf(a.values[i * a.row + k * a.column], right[k * STRIDE + j], *to);
            }
        }
    }
}

static void products_have_the_defined_bits(void **state) {
    (void)state;
    const unsigned features = pi2_cpu_features();
    const pi2_float_matrix b = { right, STRIDE, 1 };
    fill(3);
    for (int by_column = 0; by_column < 2; by_column++) {
        const pi2_float_matrix a = left_matrix(by_column);
        define(a);
        for (size_t s = 0; s < pi2_training_kernel_set_count; s++) {
            const pi2_training_kernels *kernels = pi2_training_kernel_sets[s];
            if (kernels->cpu_required & ~features) continue;
            memcpy(got, start, sizeof got);
            pi2_add_product(kernels, got, STRIDE, a, b, ROWS, STEPS, COLUMNS);
            assert_memory_equal(got, wanted, sizeof got); /* what lies between rows too */
            memcpy(got, start, sizeof got);
            for (size_t i = 0; i < ROWS; i += 5) {
                const size_t rows = ROWS - i < 5 ? ROWS - i : 5;
                const pi2_float_matrix part = { a.values + i * a.row, a.row, a.column };
                pi2_add_product(kernels, got + i * STRIDE, STRIDE, part, b, rows, STEPS, 40);
                pi2_add_product(kernels, got + i * STRIDE + 40, STRIDE, part,
                                (pi2_float_matrix){ right + 40, STRIDE, 1 }, rows, STEPS, COLUMNS - 40);
            }
            assert_memory_equal(got, wanted, sizeof got);
        }
    }
}

static void logistic_has_the_defined_bits(void **state) {
    (void)state;
    static const float extreme[] = { 0.0f, -0.0f, 200.0f, -200.0f, 88.5f, -88.5f, INFINITY, -INFINITY };
    enum { COUNT = 77 };
    float_rng rng = { 9 };
    for (size_t s = 0; s < pi2_training_kernel_set_count; s++) {
        const pi2_training_kernels *kernels = pi2_training_kernel_sets[s];
        if (kernels->cpu_required & ~pi2_cpu_features()) continue;
        float x[COUNT], y[COUNT];
        float_rng_fill(&rng, x, COUNT, -20.0f, 20.0f);
        memcpy(x, extreme, sizeof extreme);
        memcpy(y, x, sizeof y);
        kernels->logistic(y, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            assert_int_equal(bits_of_float(y[i]), bits_of_float(1.0f / (1.0f + pi2_expf(-x[i]))));
        }
        assert_true(y[0] == 0.5f && y[2] == 1.0f && y[3] < 1e-30f);
        y[0] = NAN;
        kernels->logistic(y, 1);
        assert_true(y[0] != y[0]);
    }
}

static void the_best_is_chosen(void **state) {
    (void)state;
    assert_string_equal(pi2_training_select(PI2_CPU_NONE)->name, "scalar");
    for (size_t s = 0; s < pi2_training_kernel_set_count; s++) {
        const pi2_training_kernels *kernels = pi2_training_kernel_sets[s];
        assert_string_equal(pi2_training_select(kernels->cpu_required)->name, kernels->name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(products_have_the_defined_bits),
                                        cmocka_unit_test(logistic_has_the_defined_bits),
                                        cmocka_unit_test(the_best_is_chosen) };
    return cmocka_run_group_tests_name("training", tests, NULL, NULL);
}
