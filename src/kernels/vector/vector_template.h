/*
 * vector_template.h: the vector operations in lanes of 16 (lanes_<isa>.h). The including file
 * defines VECTOR_KERNELS_SYMBOL, _NAME and _CPU. vector_scalar.c says in plain
 * C what these compute.
 *
 * A last part of fewer than 16 elements is loaded with zeros behind it. Zero squares and zero
 * weights leave a sum's bits alone, so the missing elements add nothing.
 */
#include <math.h>

#include "base/cpu_features.h"
#include "kernels/vector/lanes_exp.h"
#include "kernels/vector/vector.h"

static void rms_norm(float *out, const float *x, const float *weight, size_t count,
                     float epsilon) {
    const size_t whole = count / LANES * LANES;
    const size_t rest = count - whole;
    lanes squares = lanes_zero();
    for (size_t i = 0; i < whole; i += LANES) {
        const lanes a = lanes_load(x + i);
        squares = lanes_fma(a, a, squares);
    }
    const lanes last = lanes_load_first(x + whole, rest);
    squares = lanes_fma(last, last, squares);
    const float mean = lanes_sum(squares) / (float)count;
    const lanes inverse = lanes_set(1.0f / sqrtf(mean + epsilon));
    for (size_t i = 0; i < whole; i += LANES) {
        const lanes normal = lanes_mul(lanes_load(x + i), inverse);
        lanes_store(out + i, lanes_mul(normal, lanes_load(weight + i)));
    }
    const lanes last_weight = lanes_load_first(weight + whole, rest);
    lanes_store_first(out + whole, lanes_mul(lanes_mul(last, inverse), last_weight), rest);
}

static void layer_norm(float *out, const float *x, const float *weight, const float *bias, size_t count,
                       float epsilon) {
    const size_t whole = count / LANES * LANES;
    const size_t rest = count - whole;
    lanes sums = lanes_zero();
    lanes squares = lanes_zero();
    for (size_t i = 0; i < whole; i += LANES) sums = lanes_add(sums, lanes_load(x + i));
    const lanes last = lanes_load_first(x + whole, rest);
    const float average = lanes_sum(lanes_add(sums, last)) / (float)count;
    const lanes mean = lanes_set(average);
    for (size_t i = 0; i < whole; i += LANES) {
        const lanes far = lanes_sub(lanes_load(x + i), mean);
        squares = lanes_fma(far, far, squares);
    }
    const lanes last_far = lanes_keep(lanes_sub(last, mean), lanes_zero(), 0, rest);
    squares = lanes_fma(last_far, last_far, squares);
    const lanes inverse = lanes_set(1.0f / sqrtf(lanes_sum(squares) / (float)count + epsilon));
    for (size_t i = 0; i < whole; i += LANES) {
        const lanes normal = lanes_mul(lanes_sub(lanes_load(x + i), mean), inverse);
        lanes_store(out + i, lanes_fma(normal, lanes_load(weight + i), lanes_load(bias + i)));
    }
    if (rest == 0) return;
    const lanes last_normal = lanes_mul(last_far, inverse);
    lanes_store_first(out + whole, lanes_fma(last_normal, lanes_load_first(weight + whole, rest),
                                             lanes_load_first(bias + whole, rest)), rest);
}

/* 0 - x differs from -x only in a zero's sign, which exp does not see. */
static inline lanes silu_times(lanes gate, lanes up) {
    const lanes denominator = lanes_add(lanes_set(1.0f), lanes_exp(lanes_sub(lanes_zero(), gate)));
    return lanes_mul(lanes_div(gate, denominator), up);
}

static inline lanes gelu_times(lanes gate, lanes up) {
    const lanes inner = lanes_fma(lanes_mul(gate, gate), lanes_set(PI2_GELU_CUBIC), lanes_set(PI2_GELU_LINEAR));
    const lanes exponent = lanes_sub(lanes_zero(), lanes_mul(gate, inner));
    return lanes_mul(lanes_div(gate, lanes_add(lanes_set(1.0f), lanes_exp(exponent))), up);
}

static inline lanes relu(lanes x) { return lanes_max(x, lanes_zero()); }

static inline lanes relu_times(lanes gate, lanes up) { return lanes_mul(relu(gate), up); }

static inline lanes relu_squared_times(lanes gate, lanes up) {
    return lanes_mul(lanes_mul(relu(gate), relu(gate)), up);
}

static inline lanes drelu_times(lanes gate, lanes up) { return lanes_mul(relu(gate), relu(up)); }

static inline lanes gelu_topk_times(lanes gate, lanes up) { return gelu_times(relu(gate), up); }

static inline lanes silu_clamped_times(lanes gate, lanes up) {
    const lanes limit = lanes_set(PI2_CLAMPED_LIMIT);
    const lanes x = lanes_min(limit, gate);
    const lanes y = lanes_max(lanes_set(-PI2_CLAMPED_LIMIT), lanes_min(limit, up));
    const lanes exponent = lanes_sub(lanes_zero(), lanes_mul(x, lanes_set(PI2_CLAMPED_SLOPE)));
    const lanes part = lanes_div(x, lanes_add(lanes_set(1.0f), lanes_exp(exponent)));
    return lanes_mul(part, lanes_add(y, lanes_set(1.0f)));
}

#define DEFINE_ACTIVATION(name, times)                                                           \
    static void name(float *out, const float *gate, const float *up, size_t count) {             \
        const size_t whole = count / LANES * LANES;                                              \
        const size_t rest = count - whole;                                                       \
        for (size_t i = 0; i < whole; i += LANES) {                                              \
            lanes_store(out + i, times(lanes_load(gate + i), lanes_load(up + i)));               \
        }                                                                                        \
        if (rest == 0) return;                                                                   \
        const lanes last = times(lanes_load_first(gate + whole, rest),                           \
                                 lanes_load_first(up + whole, rest));                            \
        lanes_store_first(out + whole, last, rest);                                              \
    }
DEFINE_ACTIVATION(silu_multiply, silu_times)
DEFINE_ACTIVATION(gelu_multiply, gelu_times)
DEFINE_ACTIVATION(relu_multiply, relu_times)
DEFINE_ACTIVATION(relu_squared_multiply, relu_squared_times)
DEFINE_ACTIVATION(drelu_multiply, drelu_times)
DEFINE_ACTIVATION(gelu_topk_multiply, gelu_topk_times)
DEFINE_ACTIVATION(silu_clamped_multiply, silu_clamped_times)
#undef DEFINE_ACTIVATION

static void add(float *x, const float *y, size_t count) {
    const size_t whole = count / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        lanes_store(x + i, lanes_add(lanes_load(x + i), lanes_load(y + i)));
    }
    for (size_t i = whole; i < count; i++) x[i] += y[i];
}

static void add_scaled(float *x, const float *y, float scale, size_t count) {
    const size_t whole = count / LANES * LANES;
    const size_t rest = count - whole;
    const lanes factor = lanes_set(scale);
    for (size_t i = 0; i < whole; i += LANES) {
        lanes_store(x + i, lanes_fma(factor, lanes_load(y + i), lanes_load(x + i)));
    }
    const lanes last = lanes_fma(factor, lanes_load_first(y + whole, rest),
                                 lanes_load_first(x + whole, rest));
    lanes_store_first(x + whole, last, rest);
}

static void softmax(float *x, size_t count) {
    const size_t whole = count / LANES * LANES;
    const size_t rest = count - whole;
    const lanes lowest = lanes_set(-INFINITY);
    lanes largest = lowest;
    for (size_t i = 0; i < whole; i += LANES) largest = lanes_max(lanes_load(x + i), largest);
    lanes last = lanes_load_first(x + whole, rest);
    largest = lanes_max(lanes_keep(last, lowest, 0, rest), largest);
    const lanes max = lanes_set(lanes_max_of_all(largest));

    lanes sums = lanes_zero();
    for (size_t i = 0; i < whole; i += LANES) {
        const lanes weight = lanes_exp(lanes_sub(lanes_load(x + i), max));
        lanes_store(x + i, weight);
        sums = lanes_add(sums, weight);
    }
    last = lanes_keep(lanes_exp(lanes_sub(last, max)), lanes_zero(), 0, rest);
    sums = lanes_add(sums, last);
    const lanes sum = lanes_set(lanes_sum(sums));
    for (size_t i = 0; i < whole; i += LANES) {
        lanes_store(x + i, lanes_div(lanes_load(x + i), sum));
    }
    lanes_store_first(x + whole, lanes_div(last, sum), rest);
}

static void rope_norm(float *x, const float *cos_sin, size_t dimensions) {
    const size_t whole = dimensions / LANES * LANES;
    const size_t rest = (dimensions - whole) / 2 * 2;
    for (size_t i = 0; i < whole; i += LANES) {
        lanes_store(x + i, lanes_rotate_pairs(lanes_load(x + i), lanes_load(cos_sin + i)));
    }
    if (rest == 0) return;
    const lanes last = lanes_rotate_pairs(lanes_load_first(x + whole, rest),
                                          lanes_load_first(cos_sin + whole, rest));
    lanes_store_first(x + whole, last, rest);
}

static void rope_neox(float *x, const float *cos_sin, size_t dimensions) {
    const size_t half = dimensions / 2;
    const size_t whole = half / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        lanes c;
        lanes s;
        lanes_split_pairs(lanes_load(cos_sin + 2 * i), lanes_load(cos_sin + 2 * i + LANES), &c, &s);
        const lanes x0 = lanes_load(x + i);
        const lanes x1 = lanes_load(x + half + i);
        const lanes x1_sin = lanes_mul(x1, s);
        /* -0 - product is the product with its sign turned, whatever it is. */
        lanes_store(x + i, lanes_fma(x0, c, lanes_sub(lanes_set(-0.0f), x1_sin)));
        lanes_store(x + half + i, lanes_fma(x1, c, lanes_mul(x0, s)));
    }
    for (size_t i = whole; i < half; i++) {
        const float x0 = x[i];
        const float x1 = x[i + half];
        x[i] = fmaf(x0, cos_sin[2 * i], -(x1 * cos_sin[2 * i + 1]));
        x[i + half] = fmaf(x1, cos_sin[2 * i], x0 * cos_sin[2 * i + 1]);
    }
}

/* Quantises `count` floats, a multiple of 16, and gives the sum of each 16; returns the scale. */
static inline float quantize_block(signed char *values, short *sums, const float *x,
                                   size_t count) {
    lanes largest = lanes_zero();
    for (size_t i = 0; i < count; i += LANES) {
        largest = lanes_max_magnitude(largest, lanes_load(x + i));
    }
    const float amax = lanes_largest_magnitude(largest);
    if (!(amax >= PI2_QUANTIZE_SMALLEST && amax < INFINITY)) {
        memset(values, 0, count);
        memset(sums, 0, count / LANES * sizeof *sums);
        return amax < PI2_QUANTIZE_SMALLEST ? 0.0f : NAN;
    }
    const lanes inverse = lanes_set(127.0f / amax);
    for (size_t i = 0; i < count; i += LANES) {
        const lanes scaled = lanes_mul(lanes_load(x + i), inverse);
        sums[i / LANES] = (short)lanes_store_int8(values + i, scaled);
    }
    return amax / 127.0f;
}

static void quantize_q8_32(signed char *values, float *scales, short *sums, const float *x,
                           size_t count) {
    for (size_t i = 0; i < count; i += 32) {
        short halves[2];
        scales[i / 32] = quantize_block(values + i, halves, x + i, 32);
        sums[i / 32] = (short)(halves[0] + halves[1]);
    }
}

static void quantize_q8_256(signed char *values, float *scales, short *sums, const float *x,
                            size_t count) {
    for (size_t i = 0; i < count; i += 256) {
        scales[i / 256] = quantize_block(values + i, sums + i / 16, x + i, 256);
    }
}

extern const pi2_vector_kernels VECTOR_KERNELS_SYMBOL;
const pi2_vector_kernels VECTOR_KERNELS_SYMBOL = {
    .name = VECTOR_KERNELS_NAME,
    .cpu_required = VECTOR_KERNELS_CPU,
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
