/*
 * block_streams_end.c: behind the last layer the residual streams become one: the mean of the first, and of what a
 * matrix of each other one's own makes of it, as long as the active one.
 */
#include "blocks/block_streams.h"

#include <string.h>

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    (void)layer;
    const uint64_t width = shape->embedding_length;
    return pi2_requests_matrix(model, pi2_requests_group(requests, PI2_GROUP_ROWS, UINT32_MAX),
                               PI2_MATRIX_STREAM_OUTPUT, "altup_unembd_proj.weight", width,
                               width * (shape->stream_count - 1));
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)layer;
    (void)shape;
    needs_out->scratch = model->embedding_length * (model->stream_count - 1);
    needs_out->stages = model->stream_count;
}

/* What the matrix of stream number walk->stream reads. */
static void take_stream(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    const uint32_t width = walk->forward->model->shape.embedding_length;
    float *normed = buffers->normed + token * buffers->width_stride;
    memcpy(normed, pi2_stream(walk->forward, token, walk->stream), width * sizeof *normed);
    pi2_activation_set_fill(&buffers->normed_set, token, 0, width, normed);
}

static void begin_token(pi2_forward_walk *walk, uint32_t token) {
    pi2_streams_join_vector(walk, token);
    take_stream(walk, token);
}

static void end_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t width = shape->embedding_length;
    const float magnitude = pi2_streams_magnitude(pi2_stream(forward, token, shape->active_stream), width);
    float *x = forward->buffers.x + token * forward->buffers.width_stride;
    memcpy(x, pi2_stream(forward, token, 0), width * sizeof *x);
    for (uint32_t s = 1; s < shape->stream_count; s++) {
        float *result = forward->buffers.scratch + token * forward->buffers.scratch_stride + (size_t)(s - 1) * width;
        pi2_streams_scale(result, width, magnitude);
        forward->cpu.vector->add(x, result, width);
    }
    for (uint32_t i = 0; i < width; i++) x[i] /= (float)shape->stream_count;
    pi2_forward_pass_on(walk, token);
}

static pi2_tile_chunks chunks_of(const pi2_forward_walk *walk) {
    const pi2_operand *output = &walk->forward->model->stream_output;
    return pi2_forward_plan_chunks(walk->forward, walk->forward->model->shape.embedding_length / PI2_TILE_ROWS,
                                   pi2_tile_bytes(output->tensor->format, output->tensor->columns), false,
                                   PI2_SHARE_ATTENTION);
}

static void output_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_tile_chunks chunks = chunks_of(walk);
    const uint32_t first = (walk->stream - 1) * (forward->model->shape.embedding_length / PI2_TILE_ROWS);
    const uint32_t begin = first + pi2_tile_chunk_begin(&chunks, chunk);
    const uint32_t end = first + pi2_tile_chunk_begin(&chunks, chunk + 1);
    pi2_forward_rows(walk, &forward->model->stream_output, begin, end - begin, &buffers->normed_set, 0,
                     forward->token_count, buffers->scratch + (size_t)begin * PI2_TILE_ROWS, buffers->scratch_stride,
                     true);
    pi2_forward_tiles_done(walk, &chunks, chunk);
}

/* A tail belongs to the stage before: the stream that it takes is the next one. */
static void next_token(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward_walk next = *walk;
    next.stream++;
    take_stream(&next, token);
}

static void run(struct pi2_forward_walk *walk) {
    const uint32_t count = walk->forward->model->shape.stream_count;
    walk->stream = 1;
    const pi2_tile_chunks chunks = chunks_of(walk);
    walk->stage_name = "streams";
    pi2_forward_token_stage(walk, begin_token);
    for (; walk->stream < count; walk->stream++) {
        walk->stage_name = "streams' end";
        pi2_forward_tile_stage(walk, &chunks, output_chunk, walk->stream + 1 < count ? next_token : end_token);
    }
}

const pi2_block_kind pi2_block_streams_end = {
    .name = "streams_end", .norm = PI2_TABLE_ROLES, .post_norm = PI2_TABLE_ROLES,
    .list = list, .needs = needs, .run = run,
};
