/*
 * forward_look_ahead.c: which experts the next layers will probably want.
 *
 * The residual stream changes little from layer to layer. So the next layer's router, asked with what
 * this layer's feed-forward network reads (normed as the next layer will norm it), foretells most of what
 * it will choose, while this layer's experts are still being read and computed. The router of the layer
 * after it is asked too, for a few tokens: how many experts a layer misses varies, and the time that the
 * next one leaves to the disk is the one after's. What is foretold is only fetched: no result depends on
 * it. Of a batch the last tokens are asked.
 */
#include "pipeline/forward_internal.h"

/* Rows of the buffers that a few tokens have for each layer that is looked ahead at. */
enum { FEW_TOKENS = PI2_AHEAD_TOKENS / PI2_AHEAD_LAYERS };

static uint32_t asked_tokens(const pi2_forward *forward) { return forward->token_count - forward->ahead_first; }

static const float *const *tables_ahead(const pi2_forward_walk *walk, uint32_t distance) {
    return walk->forward->model->layers[walk->layer + 1 + distance].tables;
}

/* Layers that are looked ahead at: one for a batch, which wants nearly all of it; two for a few tokens. */
static uint32_t reach_of(const pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const uint32_t layers_left = forward->model->shape.layer_count - 1 - walk->layer;
    const bool far = asked_tokens(forward) <= FEW_TOKENS && forward->buffers.experts.ahead_rows >= PI2_AHEAD_TOKENS;
    const uint32_t most = !forward->looks_ahead ? 0 : far ? PI2_AHEAD_LAYERS : 1;
    uint32_t reach = 0;
    while (reach < most && reach < layers_left && tables_ahead(walk, reach)[PI2_TABLE_ROUTER]) reach++;
    return reach;
}

static uint32_t router_tiles(const pi2_forward *forward) {
    return (pi2_layer_ffns(&forward->model->shape) + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS;
}

uint32_t pi2_forward_ahead_chunks(const pi2_forward_walk *walk) {
    return reach_of(walk) * router_tiles(walk->forward);
}

void pi2_forward_ahead_token(const pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const uint32_t reach = reach_of(walk);
    if (token < forward->ahead_first || forward->model->shape.router_sees_layer_input) return;
    for (uint32_t d = 0; d < reach; d++) {
        const uint32_t row = d * FEW_TOKENS + token - forward->ahead_first;
        const float *x = buffers->x + token * buffers->width_stride;
        float *normed = buffers->experts.ahead_normed + row * buffers->width_stride;
        if (forward->model->shape.experts_have_norms) {
            pi2_forward_norm_router(forward, tables_ahead(walk, d), x, normed);
            continue;
        }
        forward->cpu.vector->rms_norm(normed, x, tables_ahead(walk, d)[PI2_TABLE_FFN_NORM],
                                  forward->model->shape.embedding_length, forward->model->shape.norm_epsilon);
    }
}

void pi2_forward_ahead_chunk(const pi2_forward_walk *walk, uint32_t chunk) {
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const size_t width = forward->model->shape.embedding_length;
    const bool early = forward->model->shape.router_sees_layer_input;
    const uint32_t tokens = asked_tokens(forward), tiles = router_tiles(forward), tile = chunk % tiles;
    const uint32_t distance = chunk / tiles, row = distance * FEW_TOKENS;
    const pi2_activations x = {
        .kind = PI2_ACTIVATION_F32, .token_count = tokens, .columns = (uint32_t)width,
        .float_stride = buffers->width_stride,
        .floats = early ? buffers->x + forward->ahead_first * buffers->width_stride
                        : buffers->experts.ahead_normed + row * buffers->width_stride };
    const float *weights = tables_ahead(walk, distance)[PI2_TABLE_ROUTER] + (size_t)tile * PI2_TILE_ROWS * width;
    forward->cpu.matmul[PI2_F32]->run(
        buffers->experts.ahead_logits + row * buffers->experts.expert_stride + tile * PI2_TILE_ROWS,
        buffers->experts.expert_stride, weights, 1, width, 0, &x, 0, tokens, true);
}

void pi2_forward_ahead_ask(const pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const pi2_expert_buffers *experts = &forward->buffers.experts;
    const uint32_t reach = reach_of(walk);
    uint32_t count = 0;
    if (reach == 0) return;
    for (uint32_t d = 0; d < reach; d++) {
        uint32_t *keys = experts->ahead_keys + count;
        const uint32_t first = forward->model->layers[walk->layer + 1 + d].first_key;
        const pi2_look_ahead_votes votes = {
            .logits = experts->ahead_logits + (size_t)d * FEW_TOKENS * experts->expert_stride,
            .stride = experts->expert_stride, .token_count = asked_tokens(forward),
            .score_count = pi2_layer_ffns(&forward->model->shape),
            .used_count = pi2_token_ffns(&forward->model->shape),
            .votes = experts->ahead_votes };
        const uint32_t found = pi2_look_ahead_name(&votes, keys);
        for (uint32_t i = 0; i < found; i++) keys[i] += first;
        count += found;
    }
    pi2_expert_cache_look_ahead(pi2_forward_experts_of(walk), experts->ahead_keys, count);
}
