/* float_functions.c: exp, sin, cos, pow and half floats without the C library's own. */
#include "kernels/vector/vector.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/vector/exp_constants.h"

/* Only fma(), fmaf() and sqrt() come from <math.h>: IEEE 754 fixes each of their bits. */

static uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double double_from_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float pi2_expf(float x) {
    if (x < PI2_EXP_LOWEST) x = PI2_EXP_LOWEST; /* a NaN passes both comparisons */
    if (x > PI2_EXP_HIGHEST) x = PI2_EXP_HIGHEST;
    const float shifted = fmaf(x, PI2_EXP_LOG2_E, PI2_ROUNDING_SHIFT);
    const float n = shifted - PI2_ROUNDING_SHIFT;
    const float r = fmaf(n, -PI2_EXP_LN2_LOW, fmaf(n, -PI2_EXP_LN2_HIGH, x));
    float p = fmaf(PI2_EXP_C6, r, PI2_EXP_C5);
    p = fmaf(p, r, PI2_EXP_C4);
    p = fmaf(p, r, PI2_EXP_C3);
    p = fmaf(p, r, PI2_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    /* n is -150 .. 128: scaled in two steps so that subnormal results are rounded once. */
    const uint32_t n_plus_256 = float_bits(shifted) - float_bits(PI2_ROUNDING_SHIFT) + 256u;
    const uint32_t first = n_plus_256 >> 1;
    const uint32_t second = n_plus_256 - first;
    return p * float_from_bits((first - 1u) << 23) * float_from_bits((second - 1u) << 23);
}

/* x = quadrant * (pi / 2) + high + low, |high| <= pi / 4. Returns quadrant modulo 4. */
static unsigned reduce_to_quadrant(double x, double *high, double *low) {
    const double two_over_pi = 0x1.45f306dc9c883p-1;
    const double shift = 0x1.8p+52; /* leaves the nearest integer */
    const double n = fma(x, two_over_pi, shift) - shift;
    /* pi / 2 in three parts. The first subtraction is exact: n * P1 and x are multiples of
     * 2^-53 and their difference is below 1. */
    const double first = fma(n, -0x1.921fb54442d18p+0, x);
    const double product = n * 0x1.1a62633145c07p-54;
    const double product_error = fma(n, 0x1.1a62633145c07p-54, -product);
    const double reduced = first - product;
    const double taken = first - reduced; /* the subtraction's error, after Knuth */
    const double reduced_error = (first - (reduced + taken)) + (taken - product);
    *high = reduced;
    *low = reduced_error - fma(n, -0x1.f1976b7ed8fbcp-110, product_error);
    return (unsigned)((int64_t)n & 3);
}

/* sin(high + low): Taylor's series; at pi / 4 the first missing term is 8e-20. */
static double sin_near_zero(double high, double low) {
    const double y = high * high;
    double p = 1.0 / 355687428096000.0; /* 17! */
    p = fma(p, y, -1.0 / 1307674368000.0);
    p = fma(p, y, 1.0 / 6227020800.0);
    p = fma(p, y, -1.0 / 39916800.0);
    p = fma(p, y, 1.0 / 362880.0);
    p = fma(p, y, -1.0 / 5040.0);
    p = fma(p, y, 1.0 / 120.0);
    p = fma(p, y, -1.0 / 6.0);
    return high + fma(high * y, p, low);
}

static double cos_near_zero(double high, double low) {
    const double y = high * high;
    double p = -1.0 / 6402373705728000.0; /* 18! */
    p = fma(p, y, 1.0 / 20922789888000.0);
    p = fma(p, y, -1.0 / 87178291200.0);
    p = fma(p, y, 1.0 / 479001600.0);
    p = fma(p, y, -1.0 / 3628800.0);
    p = fma(p, y, 1.0 / 40320.0);
    p = fma(p, y, -1.0 / 720.0);
    p = fma(p, y, 1.0 / 24.0);
    const double half_square = 0.5 * y;
    const double main_part = 1.0 - half_square;
    const double lost = (1.0 - main_part) - half_square;
    return main_part + (fma(y * y, p, lost) - high * low);
}

static double sin_shifted(double x, unsigned quarter_turns) {
    const double not_a_number = double_from_bits(UINT64_C(0x7ff8000000000000));
    if (!(x >= -0x1p+30 && x <= 0x1p+30)) return not_a_number;
    double high;
    double low;
    const unsigned quadrant = (reduce_to_quadrant(x, &high, &low) + quarter_turns) & 3u;
    const double magnitude = quadrant & 1u ? cos_near_zero(high, low) : sin_near_zero(high, low);
    return quadrant & 2u ? -magnitude : magnitude;
}

double pi2_sin(double x) { return sin_shifted(x, 0); }

double pi2_cos(double x) { return sin_shifted(x, 1); }

/* log(base) = high + low for a positive finite base. */
static void log_in_two_parts(double base, double *high, double *low) {
    int exponent = 0;
    if (base < 0x1p-1022) { /* subnormal */
        base *= 0x1p+54;
        exponent = -54;
    }
    uint64_t bits;
    memcpy(&bits, &base, sizeof bits);
    exponent += (int)(bits >> 52) - 1023;
    double mantissa = double_from_bits((bits & UINT64_C(0xfffffffffffff)) |
                                       UINT64_C(0x3ff0000000000000));
    if (mantissa > 0x1.6a09e667f3bcdp+0) { /* sqrt(2) */
        mantissa *= 0.5;
        exponent++;
    }
    /* log(m) = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.172, with the quotient's error. */
    const double numerator = mantissa - 1.0;
    const double denominator = mantissa + 1.0;
    const double denominator_error = (mantissa - denominator) + 1.0;
    const double s = numerator / denominator;
    const double s_error =
        (fma(-s, denominator, numerator) - s * denominator_error) / denominator;
    const double y = s * s;
    double p = 1.0 / 25.0;
    for (int odd = 23; odd >= 3; odd -= 2) p = fma(p, y, 1.0 / (double)odd);
    /* LN2_HIGH has 33 bits, so its product with the exponent is exact. */
    const double whole = (double)exponent * 0x1.62e42fefp-1;
    const double twice_s = 2.0 * s;
    const double sum = whole + twice_s; /* |whole| is 0 or above |twice_s| */
    const double sum_error = (whole - sum) + twice_s;
    const double rest = fma((double)exponent, 0x1.473de6af278edp-34,
                            fma(twice_s * y, p, fma(2.0, s_error, sum_error)));
    *high = sum + rest;
    *low = (sum - *high) + rest;
}

/* exp(high + low), |low| far below |high|. */
static double exp_of_two_parts(double high, double low) {
    if (high > 710.0) return double_from_bits(UINT64_C(0x7ff0000000000000));
    if (high < -746.0) return 0.0;
    const double shift = 0x1.8p+52;
    const double n = fma(high, 0x1.71547652b82fep+0, shift) - shift;
    double r = fma(n, -0x1.62e42fefp-1, high); /* exact */
    r = fma(n, -0x1.473de6af278edp-34, r) + low;
    double p = 1.0; /* Horner's scheme of Taylor's series: 1 + r/1 (1 + r/2 (1 + r/3 ...)) */
    for (int k = 14; k >= 1; k--) p = fma(p * r, 1.0 / (double)k, 1.0);
    const int first = (int)n / 2;
    const int second = (int)n - first;
    return p * double_from_bits((uint64_t)(first + 1023) << 52) *
           double_from_bits((uint64_t)(second + 1023) << 52);
}

double pi2_log(double x) {
    double high, low;
    log_in_two_parts(x, &high, &low);
    return high + low;
}

double pi2_pow(double base, double exponent) {
    const double infinity = double_from_bits(UINT64_C(0x7ff0000000000000));
    if (!(base > 0.0) || exponent != exponent) {
        return double_from_bits(UINT64_C(0x7ff8000000000000));
    }
    if (exponent == 0.0 || base == 1.0) return 1.0;
    if (base == infinity) return exponent > 0.0 ? infinity : 0.0;
    if (exponent > 0x1p+64) exponent = 0x1p+64; /* already beyond every finite result */
    if (exponent < -0x1p+64) exponent = -0x1p+64;
    double log_high;
    double log_low;
    log_in_two_parts(base, &log_high, &log_low);
    const double product = exponent * log_high;
    const double product_error = fma(exponent, log_low, fma(exponent, log_high, -product));
    return exp_of_two_parts(product, product_error);
}

float pi2_half_to_float(unsigned short half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 31u;
    const uint32_t fraction = half & 1023u;
    if (exponent == 31u) { /* infinity, or a NaN made quiet as processors do */
        const uint32_t quiet = fraction ? UINT32_C(0x400000) : 0u;
        return float_from_bits(sign | UINT32_C(0x7f800000) | quiet | fraction << 13);
    }
    if (exponent == 0u) { /* zero or subnormal: exact in a float */
        const float magnitude = (float)fraction * 0x1p-24f;
        return float_from_bits(sign | float_bits(magnitude));
    }
    return float_from_bits(sign | (exponent + 112u) << 23 | fraction << 13);
}

unsigned short pi2_float_to_half(float value) {
    const uint32_t bits = float_bits(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & UINT32_C(0x7fffffff);
    uint32_t half;
    if (magnitude > UINT32_C(0x7f800000)) { /* NaN, made quiet */
        half = 0x7e00u | ((magnitude >> 13) & 1023u);
    } else if (magnitude >= UINT32_C(0x477ff000)) { /* rounds to 65536 or above */
        half = 0x7c00u;
    } else if (magnitude < UINT32_C(0x38800000)) { /* subnormal: units of 2^-24 */
        /* The sum's last bit is worth 2^-24, so the addition rounds to nearest even. */
        half = float_bits(float_from_bits(magnitude) + 0.5f) - float_bits(0.5f);
    } else {
        const uint32_t odd = (magnitude >> 13) & 1u;
        half = (magnitude - UINT32_C(0x38000000) + 0xfffu + odd) >> 13;
    }
    return (unsigned short)(sign | half);
}
