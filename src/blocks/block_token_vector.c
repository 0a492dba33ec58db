/*
 * block_token_vector.c: what a layer has of a token, a vector of block_token_inputs.c, goes into the residual stream: a
 * matrix of the stream gates it, and another brings it back.
 */
#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint32_t width = shape->embedding_length, length = shape->token_length;
    pi2_group_request *group = pi2_requests_group(requests, PI2_GROUP_ROWS, layer);
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_TOKEN_GATE, "inp_gate.weight", width, length));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_TOKEN_OUTPUT, "proj.weight", length, width));
    pi2_requests_norm(model, shape, requests, PI2_TABLE_POST_TOKEN_NORM, layer, "post_norm");
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)layer;
    (void)shape;
    needs_out->result = model->token_length;
    needs_out->scratch = model->token_length;
    needs_out->stages = 2;
}

static pi2_matrix_rows gate_of(const pi2_forward_walk *walk) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    return (pi2_matrix_rows){ &walk->forward->model->layers[walk->layer].token_gate, buffers->scratch,
                              buffers->scratch_stride };
}

static void gate_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_matrix_rows rows = gate_of(walk);
    pi2_forward_matrices_chunk(walk, &rows, 1, chunk);
}

static void gate_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    const uint32_t length = forward->model->shape.token_length;
    float *out = buffers->attended + token * buffers->attended_stride;
    forward->cpu.vector->activate[PI2_FFN_gelu](
        out, buffers->scratch + token * buffers->scratch_stride,
        buffers->token_vectors + token * buffers->token_stride + (size_t)walk->layer * length, length);
    pi2_activation_set_fill(&buffers->attended_set, token, 0, length, out);
}

static void run(struct pi2_forward_walk *walk) {
    const pi2_matrix_rows rows = gate_of(walk);
    walk->stage_name = "token gate";
    pi2_forward_matrices_stage(walk, &rows, 1, gate_chunk, gate_token);
    pi2_forward_project(walk, PI2_MATRIX_TOKEN_OUTPUT, "token output");
}

const pi2_block_kind pi2_block_token_vector = {
    .name = "token_vector", .norm = PI2_TABLE_NO_NORM, .post_norm = PI2_TABLE_POST_TOKEN_NORM,
    .list = list, .needs = needs, .run = run,
};
