/*
 * block_streams.h: several residual streams side by side (AltUp). One is the active one: the layer's blocks read what
 * is predicted for it, as `x`, and what they made of it corrects all streams.
 */
#ifndef PI2_BLOCKS_BLOCK_STREAMS_H
#define PI2_BLOCKS_BLOCK_STREAMS_H

#include "pipeline/forward_internal.h"

/** Stream number `stream` of a token: embedding_length floats. */
static inline float *pi2_stream(const pi2_forward *forward, uint32_t token, uint32_t stream) {
    return forward->buffers.streams + token * forward->buffers.streams_stride +
           (size_t)stream * forward->model->shape.embedding_length;
}

/** weights_out[stream_count]: what the layer's router makes of a token's x. Uses the token's row of `out`. */
void pi2_streams_route(const pi2_forward_walk *walk, uint32_t token, float *weights_out);
/** The vector of a token that the layer before has left in `out` joins every stream but the first. */
void pi2_streams_join_vector(const pi2_forward_walk *walk, uint32_t token);
/** Scales x [count] to the root mean square `magnitude`. */
void pi2_streams_scale(float *x, size_t count, float magnitude);
/** Root of the mean of x's squares. */
float pi2_streams_magnitude(const float *x, size_t count);

#endif
