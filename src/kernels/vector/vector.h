/* vector.h: element-wise and small reductions in one fixed arithmetic (docs/arithmetic.md). */
#ifndef PI2_KERNELS_VECTOR_VECTOR_H
#define PI2_KERNELS_VECTOR_VECTOR_H

#include <stddef.h>

#include "kernels/vector/ffn_activation.h"

/** The operations on vectors of floats; every implementation gives equal bits. */
typedef struct pi2_vector_kernels {
    const char *name;
    unsigned cpu_required;

    /** out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i]. out may be x. */
    void (*rms_norm)(float *out, const float *x, const float *weight, size_t count, float epsilon);

    /** out[i] = (x[i] - mean) / sqrt(mean of (x - mean)^2 + epsilon) * weight[i] + bias[i]. out may be x. */
    void (*layer_norm)(float *out, const float *x, const float *weight, const float *bias, size_t count,
                       float epsilon);

    /**
     * A neuron's activation from its Gate and Up, by pi2_ffn_activation (docs/arithmetic.md): out[i] = f(gate[i]) *
     * up[i] with f silu, gelu, relu or its square; drelu: relu(gate[i]) * relu(up[i]); gelu_topk: gelu(relu(gate[i])) *
     * up[i], its Gate cut already (gate_cutoff.h). out may be gate or up.
     */
    void (*activate[PI2_FFN_ACTIVATIONS])(float *out, const float *gate, const float *up, size_t count);

    /** x[i] += y[i]. */
    void (*add)(float *x, const float *y, size_t count);

    /** x[i] = fma(scale, y[i], x[i]): sums experts in a fixed order. */
    void (*add_scaled)(float *x, const float *y, float scale, size_t count);

    /** In place: x = exp(x - max) / sum. Sum in 16 lanes, then a fixed tree. */
    void (*softmax)(float *x, size_t count);

    /**
     * Rotates pairs of x[dimensions]. cos_sin: [dimensions / 2][2]. Norm: pairs (2i, 2i + 1);
     * neox: pairs (i, i + dimensions / 2).
     */
    void (*rope_norm)(float *x, const float *cos_sin, size_t dimensions);
    void (*rope_neox)(float *x, const float *cos_sin, size_t dimensions);

    /**
     * Quantises count floats, a multiple of 32 or 256: int8 values in -127 .. 127, a scale for
     * each block, sums of each 32 (q8_32) or 16 (q8_256) values; see activations.h.
     */
    void (*quantize_q8_32)(signed char *values, float *scales, short *sums, const float *x,
                           size_t count);
    void (*quantize_q8_256)(signed char *values, float *scales, short *sums, const float *x,
                            size_t count);
} pi2_vector_kernels;

extern const pi2_vector_kernels *const pi2_vector_kernel_sets[];
extern const size_t pi2_vector_kernel_set_count;
const pi2_vector_kernels *pi2_vector_select(unsigned cpu_features);

/** Scalar functions of our own: the same bits on every machine and C library. */
float pi2_expf(float x);
double pi2_sin(double x);          /* |x| up to 2^30 */
double pi2_cos(double x);
double pi2_pow(double base, double exponent); /* base > 0 */
double pi2_log(double x);          /* x > 0 and finite */
float pi2_half_to_float(unsigned short half);
unsigned short pi2_float_to_half(float value); /* round to nearest even */

#endif
