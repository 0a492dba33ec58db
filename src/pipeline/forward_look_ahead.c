/*
 * forward_look_ahead.c: which experts the next layer will probably want.
 *
 * The residual stream changes little from layer to layer. So the next layer's router, asked with what
 * this layer's feed-forward network reads (normed as the next layer will norm it), foretells most of what
 * it will choose, while this layer's experts are still being read and computed. What is foretold is only
 * fetched: no result depends on it. Of a batch the last tokens are asked.
 */
#include <math.h>

#include "pipeline/forward_internal.h"

static bool looks_ahead(const pi2_forward_walk *walk) {
    return walk->forward->looks_ahead && walk->layer + 1 < walk->forward->model->shape.layer_count;
}

static const float *const *next_tables(const pi2_forward_walk *walk) {
    return walk->forward->model->layers[walk->layer + 1].tables;
}

uint32_t pi2_forward_ahead_chunks(const pi2_forward_walk *walk) {
    const uint32_t experts = walk->forward->model->shape.expert_count;
    return looks_ahead(walk) ? (experts + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS : 0;
}

void pi2_forward_ahead_token(const pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    if (!looks_ahead(walk) || token < forward->ahead_first || forward->model->shape.router_sees_layer_input) return;
    forward->vector->rms_norm(buffers->experts.ahead_normed + (token - forward->ahead_first) * buffers->width_stride,
                              buffers->x + token * buffers->width_stride, next_tables(walk)[PI2_TABLE_FFN_NORM],
                              forward->model->shape.embedding_length, forward->model->shape.norm_epsilon);
}

void pi2_forward_ahead_chunk(const pi2_forward_walk *walk, uint32_t chunk) {
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const size_t width = forward->model->shape.embedding_length;
    const bool early = forward->model->shape.router_sees_layer_input;
    const uint32_t tokens = forward->token_count - forward->ahead_first;
    const pi2_activations x = {
        .kind = PI2_ACTIVATION_F32, .token_count = tokens, .columns = (uint32_t)width,
        .float_stride = buffers->width_stride,
        .floats = early ? buffers->x + forward->ahead_first * buffers->width_stride : buffers->experts.ahead_normed };
    const float *weights = next_tables(walk)[PI2_TABLE_ROUTER] + (size_t)chunk * PI2_TILE_ROWS * width;
    forward->model->router_kernel->run(buffers->experts.ahead_logits + chunk * PI2_TILE_ROWS,
                                       buffers->experts.expert_stride, weights, 1, width, 0, &x, 0, tokens, true);
}

/* Votes for the token's best experts; the first choices count most. The logits are used up. */
static void vote(const pi2_model_shape *shape, float *logits, uint32_t *votes) {
    for (uint32_t n = 0; n < shape->expert_used_count; n++) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < shape->expert_count; e++) {
            if (logits[e] > logits[best]) best = e;
        }
        logits[best] = -INFINITY;
        votes[best] += shape->expert_used_count - n;
    }
}

void pi2_forward_ahead_ask(const pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const pi2_expert_buffers *experts = &forward->buffers.experts;
    if (!looks_ahead(walk)) return;
    for (uint32_t e = 0; e < shape->expert_count; e++) experts->ahead_votes[e] = 0;
    for (uint32_t t = 0; t < forward->token_count - forward->ahead_first; t++) {
        vote(shape, experts->ahead_logits + t * experts->expert_stride, experts->ahead_votes);
    }
    uint32_t count = 0;
    for (uint32_t e = 0; e < shape->expert_count; e++) { /* the most wanted first */
        if (experts->ahead_votes[e] == 0) continue;
        uint32_t at = count++;
        for (; at > 0 && experts->ahead_votes[experts->ahead_keys[at - 1]] < experts->ahead_votes[e]; at--) {
            experts->ahead_keys[at] = experts->ahead_keys[at - 1];
        }
        experts->ahead_keys[at] = e;
    }
    for (uint32_t i = 0; i < count; i++) experts->ahead_keys[i] += (walk->layer + 1) * shape->expert_count;
    pi2_expert_cache_look_ahead(forward->options.experts, experts->ahead_keys, count);
}
