/*
 * Goal:   pi2_gate_cut() cuts at mean + deviations * standard deviation, in the arithmetic of docs/arithmetic.md, and
 *         pi2_gate_deviations() is the inverse of the normal distribution.
 * Method: a second definition, in lanes that are written out element by element, for equal bits; the C library's erfc;
 *         bits that were once computed, so that no compiler changes them.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/vector/gate_cutoff.h"
#include "support/random_weights.h"

enum { MOST = 1000 };

static double sum_in_lanes(const double *terms, size_t count) {
    double lanes[16] = {0};
    for (size_t i = 0; i < count; i++) lanes[i % 16] += terms[i];
    for (size_t width = 8; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) lanes[i] += lanes[i + width];
    }
    return lanes[0];
}

static void cut_as_documented(float *gate, size_t count, float deviations) {
    static double terms[MOST];
    for (size_t i = 0; i < count; i++) terms[i] = (double)gate[i];
    const double mean = sum_in_lanes(terms, count) / (double)count;
    for (size_t i = 0; i < count; i++) terms[i] = ((double)gate[i] - mean) * ((double)gate[i] - mean);
    const double spread = sqrt(sum_in_lanes(terms, count) / (double)count);
    const float cutoff = (float)(mean + (double)deviations * spread);
    for (size_t i = 0; i < count; i++) {
        const float left = gate[i] - cutoff;
        gate[i] = left > 0.0f ? left : 0.0f;
    }
}

static void test_cuts_as_documented(void **state) {
    (void)state;
    static const size_t counts[] = { 1, 2, 15, 16, 17, 33, 256, 999, MOST };
    test_random random = { 11 };
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (int d = -2; d <= 2; d++) {
            float got[MOST], want[MOST];
            for (size_t i = 0; i < counts[c]; i++) got[i] = want[i] = 3.0f * test_random_float(&random) + (float)d;
            pi2_gate_cut(got, counts[c], 0.7f * (float)d);
            cut_as_documented(want, counts[c], 0.7f * (float)d);
            assert_memory_equal(got, want, counts[c] * sizeof *got);
        }
    }
}

static void test_keeps_what_stands_out(void **state) {
    (void)state;
    float gate[] = { 1.0f, 2.0f, 3.0f, 4.0f, 10.0f }; /* mean 4, variance 10 */
    pi2_gate_cut(gate, 5, 1.0f);
    for (int i = 0; i < 4; i++) assert_true(gate[i] == 0.0f && !signbit(gate[i]));
    assert_true(fabsf(gate[4] - (6.0f - sqrtf(10.0f))) < 1e-6f);
    float even[] = { -2.0f, -2.0f, -2.0f };
    pi2_gate_cut(even, 3, 0.0f); /* nothing is above its own mean */
    for (int i = 0; i < 3; i++) assert_true(even[i] == 0.0f);
}

static void test_no_number(void **state) {
    (void)state;
    static const float wrong[] = { INFINITY, -INFINITY, NAN };
    for (size_t w = 0; w < 3; w++) {
        float gate[20];
        for (size_t i = 0; i < 20; i++) gate[i] = (float)i;
        gate[7] = wrong[w];
        pi2_gate_cut(gate, 20, 1.0f);
        for (size_t i = 0; i < 20; i++) assert_true(gate[i] == 0.0f);
    }
}

static void test_deviations(void **state) {
    (void)state;
    static const float known[][2] = { { 0.5f, 0.0f }, { 0.95f, 0x1.a5151ep+0f }, { 0.9f, 0x1.4813c2p+0f } };
    for (size_t i = 0; i < 3; i++) {
        const float got = pi2_gate_deviations(known[i][0]);
        assert_true(fabsf(got) < 1e-12f || i > 0);
        if (i > 0 && memcmp(&got, &known[i][1], sizeof got) != 0) {
            fail_msg("%a of %g", (double)got, (double)known[i][0]);
        }
    }
    static const float shares[] = { 0x1p-149f, 1e-30f, 0.001f, 0.02f, 0.3f, 0.499f, 0.501f, 0.7f, 0.99f, 0.99999f,
                                    0x1.fffffep-1f };
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        const double x = (double)pi2_gate_deviations(shares[i]);
        if (shares[i] < 1e-6f) { /* below what 1 - share tells */
            assert_true(x < -6 && x >= -12);
            continue;
        }
        const double density = exp(-x * x / 2) / sqrt(2 * 3.141592653589793);
        const double share = erfc(-x / sqrt(2)) / 2;
        if (fabs(share - (double)shares[i]) > 2e-7 * density * (1 + fabs(x)) + 1e-14) {
            fail_msg("%g has %g deviations, below which lies %g", (double)shares[i], x, share);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts_as_documented), cmocka_unit_test(test_keeps_what_stands_out),
        cmocka_unit_test(test_no_number), cmocka_unit_test(test_deviations),
    };
    return cmocka_run_group_tests_name("cutoff of Gate", tests, NULL, NULL);
}
