/*
 * recurrent.h: steps of blocks that carry a state from token to token (docs/arithmetic.md, Recurrent blocks). One
 * portable form serves every instruction set: its inner loops run over values that never meet, so a compiler may take
 * as many at once as it likes without a bit changing.
 */
#ifndef PI2_KERNELS_RECURRENT_RECURRENT_H
#define PI2_KERNELS_RECURRENT_RECURRENT_H

#include <stdbool.h>
#include <stddef.h>

enum { PI2_DELTA_MOST = 256 /* dimensions of a head */, PI2_CONVOLUTION_MOST = 16 /* taps */ };

/**
 * A causal convolution of each channel by itself, in place, for channels [begin, end):
 *   x[t][c] = sum over taps k ascending of weights[c][k] * x[t - (taps - 1) + k][c]
 * rows before the first one are history[taps - 1][channels], which becomes the last ones.
 */
typedef struct pi2_convolution {
    const float *weights;  /* [channels][taps] */
    const float *bias;     /* [channels], added to that; NULL: none */
    size_t taps, channels; /* taps: 2 to PI2_CONVOLUTION_MOST */
    bool is_silu;          /* silu of that */
} pi2_convolution;
void pi2_causal_convolution(const pi2_convolution *convolution, float *x, size_t stride, size_t tokens, size_t begin,
                            size_t end, float *history);

/** out = x times a factor that makes its length `length`, of squares whose sum is larger by epsilon. count: up to
 *  PI2_DELTA_MOST. */
void pi2_scale_to_length(float *out, const float *x, size_t count, float length, float epsilon);

/** exp(rate * ln(1 + exp(x))): what a step leaves of a state. */
float pi2_softplus_decay(float x, float rate);

/**
 * The gated delta rule, one token of one head: the state forgets, then what it says of `key` is replaced by `value`, by
 * `strength`; out is what it then says of `query`.
 * state: [dimensions][values], key and query [dimensions], value and out [values]; both at most PI2_DELTA_MOST.
 */
void pi2_delta_step(float *state, size_t dimensions, size_t values, const float *query, const float *key,
                    const float *value, float decay, float strength, float *out);
/** ln(1 + exp(x)). */
float pi2_softplus(float x);

/**
 * A state space of one head, one token: the state forgets, takes up `value` in the directions of `input`, and out is
 * what `output` reads of it.
 * state: [directions][values], input and output [directions], value and out [values].
 */
void pi2_scan_step(float *state, size_t directions, size_t values, const float *input, const float *output,
                   const float *value, float decay, float *out);

#endif
