/*
 * block_streams_predict.c: the layer's beginning: each residual stream becomes what a router predicts of all of them,
 * and the active one is what the layer's blocks read. In the first layer the streams are made first: the embedding, and
 * what matrices make of it, each as long as that.
 */
#include "blocks/block_streams.h"

#include <math.h>
#include <string.h>

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"

static const float least_square = 1e-5f; /* mean square of a stream that is scaled */

static const float *const *tables_of(const pi2_forward_walk *walk) {
    return walk->forward->model->layers[walk->layer].tables;
}

/* ---- what blocks of streams share ---- */

float pi2_streams_magnitude(const float *x, size_t count) {
    const float mean = pi2_forward_dot(x, x, count) / (float)count;
    return sqrtf(mean > least_square ? mean : least_square);
}

void pi2_streams_scale(float *x, size_t count, float magnitude) {
    const float factor = magnitude / pi2_streams_magnitude(x, count);
    for (size_t i = 0; i < count; i++) x[i] *= factor;
}

void pi2_streams_route(const pi2_forward_walk *walk, uint32_t token, float *weights_out) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const size_t width = shape->embedding_length, stride = forward->buffers.width_stride;
    float *normed = forward->buffers.out + token * stride;
    const float *x = forward->buffers.x + token * stride;
    forward->cpu.vector->rms_norm(normed, x, tables_of(walk)[PI2_TABLE_STREAM_NORM], width, shape->norm_epsilon);
    for (uint32_t i = 0; i < shape->stream_count; i++) {
        weights_out[i] = pi2_forward_dot(tables_of(walk)[PI2_TABLE_STREAM_ROUTER] + i * width, normed, width) /
                         (float)width;
    }
    pi2_soft_cap(weights_out, shape->stream_count, 1.0f); /* tanh */
}

void pi2_streams_join_vector(const pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const float *vector = forward->buffers.out + token * forward->buffers.width_stride;
    for (uint32_t s = 1; s < forward->model->shape.stream_count; s++) {
        forward->cpu.vector->add(pi2_stream(forward, token, s), vector, forward->model->shape.embedding_length);
    }
}

/* ---- the block ---- */

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint32_t width = shape->embedding_length, streams = shape->stream_count;
    if (layer == 0) {
        PI2_TRY(pi2_requests_matrix(model, pi2_requests_group(requests, PI2_GROUP_ROWS, UINT32_MAX),
                                    PI2_MATRIX_STREAM_INPUT, "altup_proj.weight", width,
                                    (uint64_t)width * (streams - 1)));
    }
    pi2_requests_norm(model, shape, requests, PI2_TABLE_STREAM_NORM, layer, "altup_router_norm");
    pi2_requests_rows(model, requests, PI2_TABLE_STREAM_ROUTER, layer, "altup_router.weight", width, streams);
    pi2_requests_rows(model, requests, PI2_TABLE_STREAM_PREDICTION, layer, "altup_predict_coef.weight", streams,
                      streams * streams);
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)model;
    (void)shape;
    needs_out->stages = layer == 0 ? 2 : 1;
}

static pi2_matrix_rows rows_of(const pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    return (pi2_matrix_rows){ &forward->model->stream_input, pi2_stream(forward, 0, 1),
                              forward->buffers.streams_stride };
}

static void input_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_matrix_rows rows = rows_of(walk);
    pi2_forward_matrices_chunk(walk, &rows, 1, chunk);
}

/* The first stream is the embedding. */
static void begin_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const float *x = forward->buffers.x + token * forward->buffers.width_stride;
    const float magnitude = pi2_streams_magnitude(x, shape->embedding_length);
    memcpy(pi2_stream(forward, token, 0), x, shape->embedding_length * sizeof *x);
    for (uint32_t s = 1; s < shape->stream_count; s++) {
        pi2_streams_scale(pi2_stream(forward, token, s), shape->embedding_length, magnitude);
    }
}

/* Each stream is itself, and of all streams so much as the router says. */
static void predict_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t count = shape->stream_count, width = shape->embedding_length;
    const float *table = tables_of(walk)[PI2_TABLE_STREAM_PREDICTION];
    float *x = forward->buffers.x + token * forward->buffers.width_stride, *streams = pi2_stream(forward, token, 0);
    float router[PI2_MOST_STREAMS], shares[PI2_MOST_STREAMS * PI2_MOST_STREAMS], before[PI2_MOST_STREAMS];
    if (walk->layer > 0) pi2_streams_join_vector(walk, token);
    memcpy(x, pi2_stream(forward, token, shape->active_stream), width * sizeof *x);
    pi2_streams_route(walk, token, router);
    for (uint32_t i = 0; i < count * count; i++) {
        shares[i] = 0.0f;
        for (uint32_t j = 0; j < count; j++) shares[i] += table[i * count + j] * router[j];
    }
    for (uint32_t i = 0; i < width; i++) {
        for (uint32_t s = 0; s < count; s++) before[s] = streams[(size_t)s * width + i];
        for (uint32_t s = 0; s < count; s++) {
            float sum = 0.0f;
            for (uint32_t other = 0; other < count; other++) sum += before[other] * shares[s * count + other];
            streams[(size_t)s * width + i] = sum + before[s];
        }
    }
    memcpy(x, pi2_stream(forward, token, shape->active_stream), width * sizeof *x);
    pi2_forward_pass_on(walk, token);
}

static void run(struct pi2_forward_walk *walk) {
    if (walk->layer == 0) {
        const pi2_matrix_rows rows = rows_of(walk);
        walk->stage_name = "streams";
        pi2_forward_matrices_stage(walk, &rows, 1, input_chunk, begin_token);
    }
    walk->stage_name = "prediction";
    pi2_forward_token_stage(walk, predict_token);
}

const pi2_block_kind pi2_block_streams_predict = {
    .name = "streams_predict", .norm = PI2_TABLE_NO_NORM, .post_norm = PI2_TABLE_ROLES,
    .list = list, .needs = needs, .run = run,
};
