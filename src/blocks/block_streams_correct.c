/*
 * block_streams_correct.c: what a layer made of the active residual stream, beside what was predicted of it, corrects
 * every stream. The active one, each dimension times a weight, is what the token's vector is gated by: `x`.
 */
#include "blocks/block_streams.h"

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    pi2_requests_rows(model, requests, PI2_TABLE_STREAM_CORRECTION, layer, "altup_correct_coef.weight",
                      shape->stream_count, shape->stream_count);
    pi2_requests_norm(model, shape, requests, PI2_TABLE_STREAM_SCALE, layer, "altup_correct_scale");
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)model;
    (void)layer;
    (void)shape;
    needs_out->stages = 1;
}

static void correct_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t count = shape->stream_count, width = shape->embedding_length;
    const float *const *tables = forward->model->layers[walk->layer].tables;
    const float *coefficients = tables[PI2_TABLE_STREAM_CORRECTION], *scale = tables[PI2_TABLE_STREAM_SCALE];
    const float *active = pi2_stream(forward, token, shape->active_stream);
    float *x = forward->buffers.x + token * forward->buffers.width_stride, router[PI2_MOST_STREAMS];
    pi2_streams_route(walk, token, router);
    for (uint32_t i = 0; i < width; i++) x[i] -= active[i];
    for (uint32_t s = 0; s < count; s++) {
        float *stream = pi2_stream(forward, token, s), share = 0.0f;
        for (uint32_t i = 0; i < count; i++) share += coefficients[s * count + i] * router[i];
        for (uint32_t i = 0; i < width; i++) stream[i] += x[i] * (share + 1.0f);
    }
    for (uint32_t i = 0; i < width; i++) x[i] = active[i] * scale[i];
    pi2_forward_pass_on(walk, token);
}

static void run(struct pi2_forward_walk *walk) {
    walk->stage_name = "correction";
    pi2_forward_token_stage(walk, correct_token);
}

const pi2_block_kind pi2_block_streams_correct = {
    .name = "streams_correct", .norm = PI2_TABLE_ROLES, .post_norm = PI2_TABLE_ROLES,
    .list = list, .needs = needs, .run = run,
};
