/*
 * block_token_inputs.c: what each layer has of a token beside the residual stream: a vector, made of the token's row in
 * a table and of its embedding. The first block of the first layer makes those of all layers; block_token_vector.c uses
 * them.
 */
#include <math.h>

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

static uint32_t floats_of(const pi2_model_shape *shape) { return shape->token_length * shape->layer_count; }

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    (void)layer;
    const uint32_t width = shape->embedding_length, floats = floats_of(shape);
    pi2_group_request *table = pi2_requests_group(requests, PI2_GROUP_TABLE, UINT32_MAX);
    PI2_TRY(pi2_requests_matrix(model, table, PI2_MATRIX_TOKEN_TABLE, "per_layer_token_embd.weight", floats,
                                shape->vocabulary_size));
    pi2_group_request *rows = pi2_requests_group(requests, PI2_GROUP_ROWS, UINT32_MAX);
    PI2_TRY(pi2_requests_matrix(model, rows, PI2_MATRIX_TOKEN_INPUT, "per_layer_model_proj.weight", width, floats));
    (void)pi2_requests_table(model, requests, PI2_TABLE_TOKEN_NORM, UINT32_MAX, "per_layer_proj_norm.weight",
                             shape->token_length);
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)layer;
    (void)shape;
    needs_out->scratch = floats_of(model);
    needs_out->stages = 1;
}

static pi2_matrix_rows rows_of(const pi2_forward_walk *walk) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    return (pi2_matrix_rows){ &walk->forward->model->token_input, buffers->scratch, buffers->scratch_stride };
}

static void input_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_matrix_rows rows = rows_of(walk);
    pi2_forward_matrices_chunk(walk, &rows, 1, chunk);
}

/* The table's row is scaled as an embedding is; the sum of both parts is as long as one of them. */
static void end_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t length = shape->token_length;
    const float input_scale = 1.0f / sqrtf((float)shape->embedding_length), row_scale = sqrtf((float)length);
    const float half = 1.0f / sqrtf(2.0f);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        float *input = buffers->scratch + token * buffers->scratch_stride + (size_t)layer * length;
        float *vector = buffers->token_vectors + token * buffers->token_stride + (size_t)layer * length;
        for (uint32_t i = 0; i < length; i++) input[i] *= input_scale;
        forward->cpu.vector->rms_norm(input, input, forward->model->token_norm, length, shape->norm_epsilon);
        for (uint32_t i = 0; i < length; i++) vector[i] = (vector[i] * row_scale + input[i]) * half;
    }
    pi2_forward_pass_on(walk, token);
}

static void run(struct pi2_forward_walk *walk) {
    const pi2_matrix_rows rows = rows_of(walk);
    walk->stage_name = "token inputs";
    pi2_forward_matrices_stage(walk, &rows, 1, input_chunk, end_token);
}

const pi2_block_kind pi2_block_token_inputs = {
    .name = "token_inputs", .norm = PI2_TABLE_NO_NORM, .post_norm = PI2_TABLE_ROLES,
    .list = list, .needs = needs, .run = run,
};
