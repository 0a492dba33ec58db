/*
 * block_next_input.c: what the layer that guesses a further token reads: the token's embedding, and what the model gave
 * for the token before it, each normed, side by side, through one matrix. It takes the place of the embedding.
 */
#include <string.h>

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

enum { STAGES = 2 };

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint32_t width = shape->embedding_length;
    pi2_group_request *group = pi2_requests_group(requests, PI2_GROUP_ROWS, layer);
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_NEXT_INPUT, "nextn.eh_proj.weight", 2 * (uint64_t)width,
                                width));
    (void)pi2_requests_table(model, requests, PI2_TABLE_NEXT_EMBEDDING_NORM, layer, "nextn.enorm.weight", width);
    (void)pi2_requests_table(model, requests, PI2_TABLE_NEXT_HIDDEN_NORM, layer, "nextn.hnorm.weight", width);
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)layer;
    (void)shape;
    needs_out->result = 2 * model->embedding_length;
    needs_out->stages = STAGES;
}

/* The block's result is added to x, which is nothing then. */
static void join(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_model_shape *shape = &forward->model->shape;
    const float *const *tables = forward->model->layers[walk->layer].tables;
    const uint32_t width = shape->embedding_length;
    const uint32_t length = pi2_model_given_length(shape, forward->given_is_own); /* what the model gave comes last */
    float *row = buffers->attended + token * buffers->attended_stride, *x = buffers->x + token * buffers->width_stride;
    forward->cpu.vector->rms_norm(row, x, tables[PI2_TABLE_NEXT_EMBEDDING_NORM], width, shape->norm_epsilon);
    forward->cpu.vector->rms_norm(row + width, forward->given + (size_t)token * length + length - width,
                                  tables[PI2_TABLE_NEXT_HIDDEN_NORM], width, shape->norm_epsilon);
    memset(x, 0, width * sizeof *x);
    pi2_activation_set_fill(&walk->forward->buffers.attended_set, token, 0, 2 * width, row);
}

static void run(struct pi2_forward_walk *walk) {
    walk->stage_name = "next input";
    pi2_forward_token_stage(walk, join);
    pi2_forward_project(walk, PI2_MATRIX_NEXT_INPUT, "next input");
}

const pi2_block_kind pi2_block_next_input = {
    .name = "next_input", .norm = PI2_TABLE_NO_NORM, .post_norm = PI2_TABLE_NO_NORM,
    .list = list, .needs = needs, .run = run,
};
