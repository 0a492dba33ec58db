/*
 * recurrent.h: steps of blocks that carry a state from token to token (docs/arithmetic.md, Recurrent blocks). Values of
 * a head never meet, and nothing is fused, so that vectors of any width have the scalar steps' bits.
 */
#ifndef PI2_KERNELS_RECURRENT_RECURRENT_H
#define PI2_KERNELS_RECURRENT_RECURRENT_H

#include <stdbool.h>
#include <stddef.h>

enum { PI2_DELTA_MOST = 256 /* dimensions of a head */, PI2_CONVOLUTION_MOST = 16 /* taps */ };

/**
 * A causal convolution of each channel by itself:
 *   x[t][c] = sum over taps k ascending of weights[c][k] * x[t - (taps - 1) + k][c]
 */
typedef struct pi2_convolution {
    const float *weights;  /* [channels][taps] */
    const float *bias;     /* [channels], added to that; NULL: none */
    size_t taps, channels; /* taps: 2 to PI2_CONVOLUTION_MOST */
    bool is_silu;          /* silu of that */
} pi2_convolution;

typedef struct pi2_recurrent_kernels {
    const char *name;
    unsigned cpu_required;

    /**
     * In place, for channels [begin, end) of `tokens` rows, `stride` floats apart; rows before the first one are
     * history[taps - 1][channels], which becomes the last ones.
     */
    void (*convolve)(const pi2_convolution *convolution, float *x, size_t stride, size_t tokens, size_t begin,
                     size_t end, float *history);

    /** out = x times a factor that makes its length `length`, of squares whose sum is larger by epsilon. */
    void (*scale_to_length)(float *out, const float *x, size_t count, float length, float epsilon);

    /**
     * The gated delta rule, one token of one head: the state forgets, then what it says of `key` is replaced by
     * `value`, by `strength`; out is what it then says of `query`.
     * state: [dimensions][values], key and query [dimensions], value and out [values]; both at most PI2_DELTA_MOST.
     * out shares no memory with the others.
     */
    void (*delta_step)(float *state, size_t dimensions, size_t values, const float *query, const float *key,
                       const float *value, float decay, float strength, float *out);

    /**
     * A state space of one head, one token: the state forgets, takes up `value` in the directions of `input`, and out
     * is what `output` reads of it.
     * state: [directions][values], input and output [directions], value and out [values]; out shares no memory.
     */
    void (*scan_step)(float *state, size_t directions, size_t values, const float *input, const float *output,
                      const float *value, float decay, float *out);
} pi2_recurrent_kernels;

extern const pi2_recurrent_kernels *const pi2_recurrent_kernel_sets[];
extern const size_t pi2_recurrent_kernel_set_count;
const pi2_recurrent_kernels *pi2_recurrent_select(unsigned cpu_features);

/** exp(rate * ln(1 + exp(x))): what a step leaves of a state. */
float pi2_softplus_decay(float x, float rate);

/** ln(1 + exp(x)). */
float pi2_softplus(float x);

#endif
