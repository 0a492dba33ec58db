/*
 * Goal:   exp, sin, cos, pow and half floats of our own are as accurate as their header
 *         says, and have the right limits.
 * Method: the C library in higher precision as the reference; every half; many floats.
 */
#include "float_test.h"

#include "kernels/vector/vector.h"

static double relative_error(double got, double want) { return fabs(got - want) / fabs(want); }

static void test_exp_accuracy(void **state) {
    (void)state;
    double worst = 0.0;
    for (uint32_t bits = 0; bits < UINT32_C(0x42b00000); bits += 2039) { /* 0 .. 88 */
        for (int sign = -1; sign <= 1; sign += 2) {
            const float x = (float)sign * float_of_bits(bits);
            const double want = exp((double)x);
            if (want < 0x1p-126) continue;
            const double error = relative_error((double)pi2_expf(x), want);
            worst = error > worst ? error : worst;
        }
    }
    assert_true(worst < 1.0e-7); /* an ulp is 6e-8 .. 1.2e-7 of a number */
    for (int i = 0; i < 25000; i++) { /* subnormal results: one unit */
        const float x = -104.0f + (float)i * 0.0007f;
        assert_true(fabs((double)pi2_expf(x) - exp((double)x)) <= 0x1p-149);
    }
}

static void test_exp_limits(void **state) {
    (void)state;
    assert_true(pi2_expf(0.0f) == 1.0f);
    assert_true(pi2_expf(-0.0f) == 1.0f);
    assert_true(pi2_expf(88.7f) < INFINITY);
    assert_true(pi2_expf(88.8f) == INFINITY);
    assert_true(pi2_expf(3e38f) == INFINITY);
    assert_true(pi2_expf(INFINITY) == INFINITY);
    assert_true(pi2_expf(-103.0f) > 0.0f);
    assert_true(bits_of_float(pi2_expf(-104.0f)) == 0);
    assert_true(bits_of_float(pi2_expf(-INFINITY)) == 0);
    assert_true(isnan(pi2_expf(NAN)));
    assert_true(isnan(pi2_expf(-NAN)));
}

static void test_sin_cos(void **state) {
    (void)state;
    float_rng rng = {1};
    double worst = 0.0;
    for (int i = 0; i < 400000; i++) {
        const double unit = (double)(float_rng_next(&rng) >> 11) * 0x1p-53;
        const double x = (unit - 0.5) * ldexp(1.0, i % 60 - 28); /* up to 2^30 */
        const double sine = fabs(pi2_sin(x) - sin(x));
        const double cosine = fabs(pi2_cos(x) - cos(x));
        worst = sine > worst ? sine : worst;
        worst = cosine > worst ? cosine : worst;
        if (fabs(x) < 0x1p+20 && x != 0.0) {
            assert_true(relative_error(pi2_sin(x), sin(x)) < 1e-12);
            assert_true(relative_error(pi2_cos(x), cos(x)) < 1e-12);
        }
    }
    assert_true(worst < 3e-16);
    for (int n = 1; n < 2000; n++) { /* where the reduction cancels most */
        const double x = (double)n * 0x1.921fb54442d18p+0;
        assert_true(relative_error(n % 2 ? pi2_cos(x) : pi2_sin(x), n % 2 ? cos(x) : sin(x)) <
                    1e-12);
    }
    assert_true(pi2_sin(0.0) == 0.0);
    assert_true(pi2_cos(0.0) == 1.0);
    assert_true(fabs(pi2_sin(0x1p+30) - sin(0x1p+30)) < 3e-16);
    assert_true(isnan(pi2_sin(0x1p+31)));
    assert_true(isnan(pi2_cos((double)INFINITY)));
    assert_true(isnan(pi2_cos((double)NAN)));
}

static void test_pow(void **state) {
    (void)state;
    float_rng rng = {2};
    for (int i = 0; i < 200000; i++) {
        const double base = (double)exp2f(float_rng_uniform(&rng, -60.0f, 60.0f));
        const double exponent = (double)float_rng_uniform(&rng, -16.0f, 16.0f);
        assert_true(relative_error(pi2_pow(base, exponent), pow(base, exponent)) < 1e-12);
    }
    for (int dimension = 0; dimension < 256; dimension += 2) { /* as rope uses it */
        const double exponent = -(double)dimension / 256.0;
        assert_true(relative_error(pi2_pow(1e6, exponent), pow(1e6, exponent)) < 4e-16);
        assert_true(relative_error(pi2_pow(10000.0, exponent), pow(10000.0, exponent)) < 4e-16);
    }
    for (int i = 0; i < 1000; i++) { /* a base near 1 */
        const double base = 1.0 + ((double)i - 500.0) * 1e-6;
        assert_true(relative_error(pi2_pow(base, 1e6), pow(base, 1e6)) < 1e-12);
    }
}

static void test_pow_limits(void **state) {
    (void)state;
    assert_true(pi2_pow(3.0, 0.0) == 1.0);
    assert_true(pi2_pow(1.0, (double)INFINITY) == 1.0);
    assert_true(pi2_pow(2.0, 10.0) == 1024.0);
    assert_true(pi2_pow(10.0, 400.0) == (double)INFINITY);
    assert_true(pi2_pow(10.0, -400.0) == 0.0);
    assert_true(pi2_pow(2.0, 1e300) == (double)INFINITY);
    assert_true(pi2_pow(0.5, (double)INFINITY) == 0.0);
    assert_true(pi2_pow((double)INFINITY, -1.0) == 0.0);
    assert_true(pi2_pow(2.0, -1074.0) == 0x1p-1074);
    assert_true(relative_error(pi2_pow(0x1p-1074, 0.5), 0x1p-537) < 1e-12);
    assert_true(isnan(pi2_pow(-1.0, 2.0)));
    assert_true(isnan(pi2_pow(0.0, 2.0)));
    assert_true(isnan(pi2_pow((double)NAN, 1.0)));
    assert_true(isnan(pi2_pow(2.0, (double)NAN)));
}

/* The half's value from its definition. */
static double half_value(unsigned half) {
    const unsigned exponent = (half >> 10) & 31;
    const unsigned fraction = half & 1023;
    const double magnitude = exponent ? ldexp(1024.0 + (double)fraction, (int)exponent - 25)
                                      : ldexp((double)fraction, -24);
    return half & 0x8000 ? -magnitude : magnitude;
}

static void test_every_half(void **state) {
    (void)state;
    for (unsigned half = 0; half < 65536; half++) {
        const float value = pi2_half_to_float((unsigned short)half);
        if ((half & 0x7c00) == 0x7c00) {
            if (half & 1023) assert_true(isnan(value));
            else assert_true(value == (half & 0x8000 ? -INFINITY : INFINITY));
            const unsigned quiet = half & 1023 ? half | 512 : half;
            assert_int_equal(pi2_float_to_half(value), quiet);
            continue;
        }
        assert_true((double)value == half_value(half));
        assert_int_equal(signbit(value) != 0, half >> 15);
        assert_int_equal(pi2_float_to_half(value), half);
    }
}

static void test_halves_round_to_even(void **state) {
    (void)state;
    for (unsigned half = 0; half < 0x7bff; half++) {
        const double low = half_value(half);
        const double high = half_value(half + 1);
        const float middle = (float)(0.5 * (low + high)); /* exact */
        assert_int_equal(pi2_float_to_half(middle), half % 2 ? half + 1 : half);
        assert_int_equal(pi2_float_to_half(nextafterf(middle, 0.0f)), half);
        assert_int_equal(pi2_float_to_half(nextafterf(middle, 1e6f)), half + 1);
        assert_int_equal(pi2_float_to_half(-middle), (half % 2 ? half + 1 : half) | 0x8000);
    }
    assert_int_equal(pi2_float_to_half(65519.99f), 0x7bff);
    assert_int_equal(pi2_float_to_half(65520.0f), 0x7c00);
    assert_int_equal(pi2_float_to_half(3e38f), 0x7c00);
    assert_int_equal(pi2_float_to_half(-INFINITY), 0xfc00);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_accuracy), cmocka_unit_test(test_exp_limits),
        cmocka_unit_test(test_sin_cos),      cmocka_unit_test(test_pow),
        cmocka_unit_test(test_pow_limits),   cmocka_unit_test(test_every_half),
        cmocka_unit_test(test_halves_round_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
