/*
 * recurrent_template.h: recurrent steps in lanes of 16 (kernels/vector/lanes_<isa>.h). The including file defines
 * RECURRENT_KERNELS_SYMBOL, _NAME and _CPU, and WIDE: how many lanes of values registers hold the sums of.
 */
#include <math.h>

#include "kernels/recurrent/recurrent.h"
#include "kernels/vector/lanes_exp.h"

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

#define STEP_INLINE static inline __attribute__((always_inline))

/* All lanes (rest 0), or the first `rest`. */
STEP_INLINE lanes load_part(const float *x, size_t rest) { return rest ? lanes_load_first(x, rest) : lanes_load(x); }
STEP_INLINE void store_part(float *x, lanes a, size_t rest) {
    if (rest) lanes_store_first(x, a, rest);
    else lanes_store(x, a);
}

/* ---- convolution ---- */

STEP_INLINE lanes silu_of(lanes x) {
    return lanes_div(x, lanes_add(lanes_set(1.0f), lanes_exp(lanes_sub(lanes_zero(), x))));
}

/* 16 channels from `first` on (rest 0), or the first `rest` of them. */
STEP_INLINE void convolve_lanes(const pi2_convolution *convolution, size_t first, size_t rest, float *x, size_t stride,
                                size_t tokens, float *history) {
    const size_t taps = convolution->taps, channels = convolution->channels, count = rest ? rest : LANES;
    float columns[PI2_CONVOLUTION_MOST][LANES] = { { 0.0f } };
    lanes weights[PI2_CONVOLUTION_MOST], past[PI2_CONVOLUTION_MOST];
    for (size_t c = 0; c < count; c++) {
        for (size_t k = 0; k < taps; k++) columns[k][c] = convolution->weights[(first + c) * taps + k];
    }
    for (size_t k = 0; k < taps; k++) weights[k] = lanes_load(columns[k]);
    for (size_t k = 0; k + 1 < taps; k++) past[k] = load_part(history + k * channels + first, rest);
    const lanes bias = convolution->bias ? load_part(convolution->bias + first, rest) : lanes_zero();
    for (size_t t = 0; t < tokens; t++, x += stride) {
        lanes sum = lanes_zero();
        past[taps - 1] = load_part(x, rest);
        for (size_t k = 0; k < taps; k++) sum = lanes_add(sum, lanes_mul(weights[k], past[k]));
        for (size_t k = 0; k + 1 < taps; k++) past[k] = past[k + 1];
        if (convolution->bias) sum = lanes_add(sum, bias);
        store_part(x, convolution->is_silu ? silu_of(sum) : sum, rest);
    }
    for (size_t k = 0; k + 1 < taps; k++) store_part(history + k * channels + first, past[k], rest);
}

static void convolve(const pi2_convolution *convolution, float *x, size_t stride, size_t tokens, size_t begin,
                     size_t end, float *history) {
    size_t c = begin;
    for (; c + LANES <= end; c += LANES) convolve_lanes(convolution, c, 0, x + c, stride, tokens, history);
    if (c < end) convolve_lanes(convolution, c, end - c, x + c, stride, tokens, history);
}

/* ---- the delta rule ---- */

static void scale_to_length(float *out, const float *x, size_t count, float length, float epsilon) {
    const size_t whole = count / LANES * LANES, rest = count - whole;
    lanes sums = lanes_zero();
    for (size_t i = 0; i < whole; i += LANES) {
        const lanes a = lanes_load(x + i);
        sums = lanes_add(sums, lanes_mul(a, a));
    }
    if (rest) {
        const lanes a = lanes_load_first(x + whole, rest);
        sums = lanes_add(sums, lanes_mul(a, a));
    }
    const lanes factor = lanes_set(length / sqrtf(lanes_sum(sums) + epsilon));
    for (size_t i = 0; i < whole; i += LANES) lanes_store(out + i, lanes_mul(lanes_load(x + i), factor));
    if (rest) lanes_store_first(out + whole, lanes_mul(lanes_load_first(x + whole, rest), factor), rest);
}

/* What one step of a head is given. */
typedef struct delta_operands {
    size_t dimensions, stride;
    const float *query, *key;
    lanes decay, strength;
} delta_operands;

/* `wide` lanes of values (a constant), or the first `rest` values of one. The decayed state is computed twice rather
 * than stored between. */
STEP_INLINE void delta_lanes(const delta_operands *d, float *state, const float *value, float *out, const size_t wide,
                             size_t rest) {
    lanes known[WIDE], change[WIDE], said[WIDE];
    UNROLLED for (size_t w = 0; w < wide; w++) known[w] = said[w] = lanes_zero();
    for (size_t i = 0; i < d->dimensions; i++) {
        const lanes key = lanes_set(d->key[i]);
        UNROLLED for (size_t w = 0; w < wide; w++) {
            const lanes kept = lanes_mul(load_part(state + i * d->stride + w * LANES, rest), d->decay);
            known[w] = lanes_add(known[w], lanes_mul(kept, key));
        }
    }
    UNROLLED for (size_t w = 0; w < wide; w++) {
        change[w] = lanes_mul(lanes_sub(load_part(value + w * LANES, rest), known[w]), d->strength);
    }
    for (size_t i = 0; i < d->dimensions; i++) {
        const lanes key = lanes_set(d->key[i]), query = lanes_set(d->query[i]);
        UNROLLED for (size_t w = 0; w < wide; w++) {
            float *at = state + i * d->stride + w * LANES;
            const lanes kept = lanes_mul(load_part(at, rest), d->decay);
            const lanes changed = lanes_add(kept, lanes_mul(key, change[w]));
            store_part(at, changed, rest);
            said[w] = lanes_add(said[w], lanes_mul(changed, query));
        }
    }
    UNROLLED for (size_t w = 0; w < wide; w++) store_part(out + w * LANES, said[w], rest);
}

static void delta_step(float *state, size_t dimensions, size_t values, const float *query, const float *key,
                       const float *value, float decay, float strength, float *out) {
    const delta_operands d = { dimensions, values, query, key, lanes_set(decay), lanes_set(strength) };
    size_t j = 0;
    for (; j + WIDE * LANES <= values; j += WIDE * LANES) delta_lanes(&d, state + j, value + j, out + j, WIDE, 0);
    for (; j + LANES <= values; j += LANES) delta_lanes(&d, state + j, value + j, out + j, 1, 0);
    if (j < values) delta_lanes(&d, state + j, value + j, out + j, 1, values - j);
}

/* ---- state spaces ---- */

STEP_INLINE void scan_lanes(const delta_operands *d, float *state, const float *value, float *out, const size_t wide,
                            size_t rest) {
    lanes taken[WIDE], said[WIDE];
    UNROLLED for (size_t w = 0; w < wide; w++) {
        taken[w] = load_part(value + w * LANES, rest);
        said[w] = lanes_zero();
    }
    for (size_t i = 0; i < d->dimensions; i++) {
        const lanes key = lanes_set(d->key[i]), query = lanes_set(d->query[i]);
        UNROLLED for (size_t w = 0; w < wide; w++) {
            float *at = state + i * d->stride + w * LANES;
            const lanes changed = lanes_add(lanes_mul(load_part(at, rest), d->decay), lanes_mul(key, taken[w]));
            store_part(at, changed, rest);
            said[w] = lanes_add(said[w], lanes_mul(changed, query));
        }
    }
    UNROLLED for (size_t w = 0; w < wide; w++) store_part(out + w * LANES, said[w], rest);
}

static void scan_step(float *state, size_t directions, size_t values, const float *input, const float *output,
                      const float *value, float decay, float *out) {
    const delta_operands d = { directions, values, output, input, lanes_set(decay), lanes_zero() };
    size_t j = 0;
    for (; j + WIDE * LANES <= values; j += WIDE * LANES) scan_lanes(&d, state + j, value + j, out + j, WIDE, 0);
    for (; j + LANES <= values; j += LANES) scan_lanes(&d, state + j, value + j, out + j, 1, 0);
    if (j < values) scan_lanes(&d, state + j, value + j, out + j, 1, values - j);
}

const pi2_recurrent_kernels RECURRENT_KERNELS_SYMBOL = {
    .name = RECURRENT_KERNELS_NAME, .cpu_required = RECURRENT_KERNELS_CPU, .convolve = convolve,
    .scale_to_length = scale_to_length, .delta_step = delta_step, .scan_step = scan_step,
};
