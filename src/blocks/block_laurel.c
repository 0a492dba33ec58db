/*
 * block_laurel.c: a learned residual layer: what attention reads, and two narrow matrices' normed product of it, is
 * laid by, and joins the residual stream when attention is done (pi2_forward_end_block()).
 */
#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint32_t width = shape->embedding_length, rank = shape->laurel_rank;
    pi2_group_request *group = pi2_requests_group(requests, PI2_GROUP_ROWS, layer);
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_LAUREL_INPUT, "laurel_l.weight", width, rank));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_LAUREL_OUTPUT, "laurel_r.weight", rank, width));
    pi2_requests_norm(model, shape, requests, PI2_TABLE_LAUREL_NORM, layer, "laurel_post_norm");
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)layer;
    (void)shape;
    needs_out->result = model->laurel_rank;
    needs_out->stages = 2;
}

static pi2_matrix_rows input_of(const pi2_forward_walk *walk) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    return (pi2_matrix_rows){ &layer_of(walk)->laurel_input, buffers->attended, buffers->attended_stride };
}

static void input_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_matrix_rows rows = input_of(walk);
    pi2_forward_matrices_chunk(walk, &rows, 1, chunk);
}

static void input_token(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    pi2_activation_set_fill(&buffers->attended_set, token, 0, walk->forward->model->shape.laurel_rank,
                            buffers->attended + token * buffers->attended_stride);
}

static void lay_by(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const size_t at = token * forward->buffers.width_stride;
    float *laurel = forward->buffers.laurel + at;
    forward->cpu.vector->rms_norm(laurel, forward->buffers.out + at, layer_of(walk)->tables[PI2_TABLE_LAUREL_NORM],
                              shape->embedding_length, shape->norm_epsilon);
    forward->cpu.vector->add(laurel, forward->buffers.normed + at, shape->embedding_length);
}

static void run(struct pi2_forward_walk *walk) {
    const pi2_matrix_rows rows = input_of(walk);
    walk->stage_name = "laurel";
    pi2_forward_matrices_stage(walk, &rows, 1, input_chunk, input_token);
    pi2_forward_project_to(walk, PI2_MATRIX_LAUREL_OUTPUT, "laurel output", lay_by);
}

const pi2_block_kind pi2_block_laurel = {
    .name = "laurel", .norm = PI2_TABLE_ROLES, .post_norm = PI2_TABLE_ROLES, .list = list, .needs = needs, .run = run,
};
