/*
 * vector_scalar.c: the specification of the vector operations in portable C. Sums run in 16
 * lanes (element i goes to lane i % 16) and end in one tree, so that a machine with vectors
 * of 4, 8 or 16 floats gets the same bits.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/cpu_features.h"
#include "kernels/vector/exp_constants.h"
#include "kernels/vector/vector.h"

enum { LANES = 16 };

/* Lane i takes lane i + 8, then i + 4, i + 2, i + 1. */
static float sum_of_lanes(float lanes[LANES]) {
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) lanes[i] += lanes[i + width];
    }
    return lanes[0];
}

static void rms_norm(float *out, const float *x, const float *weight, size_t count,
                     float epsilon) {
    float squares[LANES] = {0.0f};
    for (size_t i = 0; i < count; i++) squares[i % LANES] = fmaf(x[i], x[i], squares[i % LANES]);
    const float mean = sum_of_lanes(squares) / (float)count;
    const float inverse = 1.0f / sqrtf(mean + epsilon);
    for (size_t i = 0; i < count; i++) out[i] = x[i] * inverse * weight[i];
}

static void layer_norm(float *out, const float *x, const float *weight, const float *bias, size_t count,
                       float epsilon) {
    float sums[LANES] = {0.0f}, squares[LANES] = {0.0f};
    for (size_t i = 0; i < count; i++) sums[i % LANES] += x[i];
    const float mean = sum_of_lanes(sums) / (float)count;
    for (size_t i = 0; i < count; i++) {
        squares[i % LANES] = fmaf(x[i] - mean, x[i] - mean, squares[i % LANES]);
    }
    const float inverse = 1.0f / sqrtf(sum_of_lanes(squares) / (float)count + epsilon);
    for (size_t i = 0; i < count; i++) out[i] = fmaf((x[i] - mean) * inverse, weight[i], bias[i]);
}

static void silu_multiply(float *out, const float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) {
        out[i] = gate[i] / (1.0f + pi2_expf(-gate[i])) * up[i];
    }
}

static void gelu_multiply(float *out, const float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const float inner = fmaf(gate[i] * gate[i], PI2_GELU_CUBIC, PI2_GELU_LINEAR);
        out[i] = gate[i] / (1.0f + pi2_expf(-(gate[i] * inner))) * up[i];
    }
}

static float relu(float x) { return x > 0.0f ? x : 0.0f; }

static void relu_multiply(float *out, const float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = relu(gate[i]) * up[i];
}

static void relu_squared_multiply(float *out, const float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = relu(gate[i]) * relu(gate[i]) * up[i];
}

static void drelu_multiply(float *out, const float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = relu(gate[i]) * relu(up[i]);
}

static void gelu_topk_multiply(float *out, const float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const float positive = relu(gate[i]);
        const float inner = fmaf(positive * positive, PI2_GELU_CUBIC, PI2_GELU_LINEAR);
        out[i] = positive / (1.0f + pi2_expf(-(positive * inner))) * up[i];
    }
}

/* Comparisons are the way round that keeps a NaN. */
static void silu_clamped_multiply(float *out, const float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const float x = gate[i] > PI2_CLAMPED_LIMIT ? PI2_CLAMPED_LIMIT : gate[i];
        const float high = up[i] > PI2_CLAMPED_LIMIT ? PI2_CLAMPED_LIMIT : up[i];
        const float y = high < -PI2_CLAMPED_LIMIT ? -PI2_CLAMPED_LIMIT : high;
        out[i] = x / (1.0f + pi2_expf(-(x * PI2_CLAMPED_SLOPE))) * (y + 1.0f);
    }
}

static void add(float *x, const float *y, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] += y[i];
}

static void add_scaled(float *x, const float *y, float scale, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] = fmaf(scale, y[i], x[i]);
}

static void softmax(float *x, size_t count) {
    float max = -INFINITY;
    for (size_t i = 0; i < count; i++) max = x[i] > max ? x[i] : max;
    float sums[LANES] = {0.0f};
    for (size_t i = 0; i < count; i++) {
        x[i] = pi2_expf(x[i] - max);
        sums[i % LANES] += x[i];
    }
    const float sum = sum_of_lanes(sums);
    for (size_t i = 0; i < count; i++) x[i] /= sum;
}

static void rotate_pair(float *x0, float *x1, const float *cos_sin) {
    const float a = *x0;
    const float b = *x1;
    *x0 = fmaf(a, cos_sin[0], -(b * cos_sin[1]));
    *x1 = fmaf(b, cos_sin[0], a * cos_sin[1]);
}

static void rope_norm(float *x, const float *cos_sin, size_t dimensions) {
    for (size_t i = 0; i + 1 < dimensions; i += 2) rotate_pair(&x[i], &x[i + 1], &cos_sin[i]);
}

static void rope_neox(float *x, const float *cos_sin, size_t dimensions) {
    const size_t half = dimensions / 2;
    for (size_t i = 0; i < half; i++) rotate_pair(&x[i], &x[i + half], &cos_sin[2 * i]);
}

/* The bits of |x|: as integers they order like the floats, with NaNs above infinity. */
static uint32_t magnitude_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & UINT32_C(0x7fffffff);
}

/*
 * Quantises one block and returns its scale. A block with an infinity or a NaN becomes zeros
 * with scale NaN: the error shows in every result that used it.
 */
static float quantize_block(signed char *values, const float *x, size_t count) {
    uint32_t largest_bits = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = magnitude_bits(x[i]);
        largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    float amax;
    memcpy(&amax, &largest_bits, sizeof amax);
    if (!(amax >= PI2_QUANTIZE_SMALLEST && amax < INFINITY)) {
        memset(values, 0, count);
        return amax < PI2_QUANTIZE_SMALLEST ? 0.0f : NAN;
    }
    const float inverse = 127.0f / amax;
    for (size_t i = 0; i < count; i++) {
        const float nearest = (x[i] * inverse + PI2_ROUNDING_SHIFT) - PI2_ROUNDING_SHIFT;
        values[i] = (signed char)nearest; /* -127 .. 127 */
    }
    return amax / 127.0f;
}

static short sum_of_values(const signed char *values, size_t count) {
    int sum = 0;
    for (size_t i = 0; i < count; i++) sum += values[i];
    return (short)sum;
}

static void quantize_q8_32(signed char *values, float *scales, short *sums, const float *x,
                           size_t count) {
    for (size_t i = 0; i < count; i += 32) {
        scales[i / 32] = quantize_block(values + i, x + i, 32);
        sums[i / 32] = sum_of_values(values + i, 32);
    }
}

static void quantize_q8_256(signed char *values, float *scales, short *sums, const float *x,
                            size_t count) {
    for (size_t i = 0; i < count; i += 256) {
        scales[i / 256] = quantize_block(values + i, x + i, 256);
        for (size_t j = i; j < i + 256; j += 16) sums[j / 16] = sum_of_values(values + j, 16);
    }
}

extern const pi2_vector_kernels pi2_vector_kernels_scalar;
const pi2_vector_kernels pi2_vector_kernels_scalar = {
    .name = "scalar",
    .cpu_required = PI2_CPU_NONE,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .activate = {
#define FFN_ACTIVATION(name, sparse) [PI2_FFN_##name] = name##_multiply,
#include "powerinfer2/ffn_activations.inc"
#undef FFN_ACTIVATION
    },
    .add = add,
    .add_scaled = add_scaled,
    .softmax = softmax,
    .rope_norm = rope_norm,
    .rope_neox = rope_neox,
    .quantize_q8_32 = quantize_q8_32,
    .quantize_q8_256 = quantize_q8_256,
};
