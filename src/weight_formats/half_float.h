/* half_float.h: 16-bit floats of weight files to 32-bit floats, exact for every value. */
#ifndef PI2_WEIGHT_FORMATS_HALF_FLOAT_H
#define PI2_WEIGHT_FORMATS_HALF_FLOAT_H

#include <stdint.h>
#include <string.h>

static inline float pi2_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/** IEEE binary16. Signalling NaNs become quiet, as conversion instructions make them. */
static inline float pi2_float_of_half(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 31u;
    const uint32_t mantissa = half & 1023u;
    if (exponent == 31) {
        const uint32_t quiet = mantissa ? 0x400000u : 0;
        return pi2_float_of_bits(sign | 0x7f800000u | mantissa << 13 | quiet);
    }
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 is exact */
        const float magnitude = (float)mantissa * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return pi2_float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/** The upper half of a 32-bit float. */
static inline float pi2_float_of_bf16(uint16_t bits) {
    return pi2_float_of_bits((uint32_t)bits << 16);
}

static inline uint16_t pi2_load_u16(const void *bytes) {
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline float pi2_load_half(const void *bytes) {
    return pi2_float_of_half(pi2_load_u16(bytes));
}

#endif
