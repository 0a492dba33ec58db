/* recurrent_scalar.c: the specification of the steps (recurrent.h). Products and sums round apart: nothing is fused. */
#include <math.h>
#include <string.h>

#include "base/cpu_features.h"
#include "kernels/recurrent/recurrent.h"
#include "kernels/vector/vector.h"

enum { LANES = 16 };

/* Channels from `first` on, sixteen at most; the rows before the first token lie in `past`. */
static void convolve_lanes(const pi2_convolution *convolution, size_t first, size_t lanes, float *x, size_t stride,
                           size_t tokens, float past[PI2_CONVOLUTION_MOST][LANES]) {
    const size_t taps = convolution->taps;
    const float *weights = convolution->weights + first * taps;
    for (size_t t = 0; t < tokens; t++, x += stride) {
        float sums[LANES] = { 0.0f };
        memcpy(past[taps - 1], x, lanes * sizeof *x);
        for (size_t k = 0; k < taps; k++) {
            for (size_t c = 0; c < lanes; c++) sums[c] += weights[c * taps + k] * past[k][c];
        }
        memmove(past[0], past[1], (taps - 1) * sizeof past[0]);
        for (size_t c = 0; convolution->bias && c < lanes; c++) sums[c] += convolution->bias[first + c];
        for (size_t c = 0; c < lanes; c++) {
            x[c] = convolution->is_silu ? sums[c] / (1.0f + pi2_expf(-sums[c])) : sums[c];
        }
    }
}

static void convolve(const pi2_convolution *convolution, float *x, size_t stride, size_t tokens, size_t begin,
                     size_t end, float *history) {
    const size_t taps = convolution->taps, channels = convolution->channels;
    for (size_t c = begin; c < end; c += LANES) {
        const size_t lanes = end - c < LANES ? end - c : LANES;
        float past[PI2_CONVOLUTION_MOST][LANES];
        for (size_t k = 0; k + 1 < taps; k++) memcpy(past[k], history + k * channels + c, lanes * sizeof *x);
        convolve_lanes(convolution, c, lanes, x + c, stride, tokens, past);
        for (size_t k = 0; k + 1 < taps; k++) memcpy(history + k * channels + c, past[k], lanes * sizeof *x);
    }
}

static void scale_to_length(float *out, const float *x, size_t count, float length, float epsilon) {
    float sums[LANES] = { 0.0f };
    for (size_t i = 0; i < count; i++) sums[i % LANES] += x[i] * x[i];
    for (size_t step = LANES / 2; step > 0; step /= 2) {
        for (size_t i = 0; i < step; i++) sums[i] += sums[i + step];
    }
    const float factor = length / sqrtf(sums[0] + epsilon);
    for (size_t i = 0; i < count; i++) out[i] = x[i] * factor;
}

static void delta_step(float *state, size_t dimensions, size_t values, const float *query, const float *key,
                       const float *value, float decay, float strength, float *out) {
    float known[PI2_DELTA_MOST], change[PI2_DELTA_MOST];
    for (size_t j = 0; j < values; j++) known[j] = 0.0f;
    for (size_t i = 0; i < dimensions; i++) {
        float *row = state + i * values;
        for (size_t j = 0; j < values; j++) {
            row[j] *= decay;
            known[j] += row[j] * key[i];
        }
    }
    for (size_t j = 0; j < values; j++) change[j] = (value[j] - known[j]) * strength;
    for (size_t j = 0; j < values; j++) out[j] = 0.0f;
    for (size_t i = 0; i < dimensions; i++) {
        float *row = state + i * values;
        for (size_t j = 0; j < values; j++) {
            row[j] += key[i] * change[j];
            out[j] += row[j] * query[i];
        }
    }
}

static void scan_step(float *state, size_t directions, size_t values, const float *input, const float *output,
                      const float *value, float decay, float *out) {
    for (size_t j = 0; j < values; j++) out[j] = 0.0f;
    for (size_t i = 0; i < directions; i++) {
        float *row = state + i * values;
        for (size_t j = 0; j < values; j++) {
            row[j] = row[j] * decay + input[i] * value[j];
            out[j] += row[j] * output[i];
        }
    }
}

const pi2_recurrent_kernels pi2_recurrent_kernels_scalar = {
    .name = "scalar", .cpu_required = PI2_CPU_NONE, .convolve = convolve, .scale_to_length = scale_to_length,
    .delta_step = delta_step, .scan_step = scan_step,
};
