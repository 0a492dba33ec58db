/* float_test.h: random floats and comparison of bits for the tests of vector and attention. */
#ifndef PI2_TESTS_KERNELS_FLOAT_TEST_H
#define PI2_TESTS_KERNELS_FLOAT_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct float_rng {
    uint64_t state;
} float_rng;

static inline uint64_t float_rng_next(float_rng *rng) { /* splitmix64 */
    rng->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = rng->state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Uniform in [low, high). */
static inline float float_rng_uniform(float_rng *rng, float low, float high) {
    const float unit = (float)(float_rng_next(rng) >> 40) * 0x1p-24f;
    return low + (high - low) * unit;
}

static inline void float_rng_fill(float_rng *rng, float *x, size_t count, float low, float high) {
    for (size_t i = 0; i < count; i++) x[i] = float_rng_uniform(rng, low, high);
}

static inline uint32_t bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Equal bits; of two NaNs the payload is not part of the arithmetic. */
static inline int same_float(float a, float b) {
    return bits_of_float(a) == bits_of_float(b) || (a != a && b != b);
}

static inline void check_same_floats(const char *what, const float *want, const float *got,
                                     size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!same_float(want[i], got[i])) {
            fail_msg("%s: element %zu of %zu is %a instead of %a", what, i, count, (double)got[i],
                     (double)want[i]);
        }
    }
}

static inline void assert_near(double got, double want, double relative, double absolute) {
    if (!(fabs(got - want) <= relative * fabs(want) + absolute)) {
        fail_msg("%.9g instead of %.9g", got, want);
    }
}

#endif
