/*
 * block_attention_features.c: attention of a layer that guesses by what layers of another model read (EAGLE-3). Those
 * features, one behind another, go through one matrix into the residual stream; where the layer goes on by itself, what
 * it gave for the token before takes their place. Queries, keys and values are made of the token's embedding and of
 * the residual stream, each normed, side by side.
 */
#include <string.h>

#include "architectures/decoder.h"
#include "base/fail.h"
#include "blocks/block_attention.h"
#include "pipeline/forward_internal.h"

enum { STAGES = PI2_STAGES_OF_ATTENTION + 2 };

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint32_t width = shape->embedding_length;
    const uint64_t features = (uint64_t)shape->feature_count * shape->feature_length;
    const bool is_named_so = pi2_architecture_tensor(model, layer, "attn_norm_2.weight") != NULL;
    pi2_group_request *group = pi2_requests_group(requests, PI2_GROUP_ROWS, layer);
    group->roles[group->tensor_count] = PI2_MATRIX_NEXT_INPUT;
    PI2_TRY(pi2_architecture_matrix(model, UINT32_MAX, "fc.weight", features, width,
                                    &group->tensors[group->tensor_count++]));
    (void)pi2_requests_table(model, requests, PI2_TABLE_NEXT_HIDDEN_NORM, layer,
                             is_named_so ? "attn_norm_2.weight" : "hidden_norm.weight", width);
    if (shape->features_have_norm) {
        pi2_table_request *norm = pi2_requests_table(model, requests, PI2_TABLE_FEATURES_NORM, UINT32_MAX,
                                                     "enc.output_norm.weight", (uint32_t)features);
        norm->layer = layer;
    }
    return pi2_attention_list(model, shape, layer, requests);
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    const uint32_t features = model->feature_count * model->feature_length;
    pi2_attention_needs(model, layer, shape, needs_out);
    if (needs_out->result < features) needs_out->result = features;
    if (needs_out->result < 2 * model->embedding_length) needs_out->result = 2 * model->embedding_length;
    needs_out->stages = STAGES;
}

/* The features of a token, as its matrix reads them. Behind the embedding's row, where that is given too. */
static void take_features(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_model_shape *shape = &forward->model->shape;
    const float *weight = forward->model->layers[walk->layer].tables[PI2_TABLE_FEATURES_NORM];
    const uint32_t count = shape->feature_count * shape->feature_length;
    const uint32_t length = pi2_model_given_length(shape, false);
    const float *given = forward->given + (size_t)token * length + (length - count);
    float *row = buffers->attended + token * buffers->attended_stride;
    if (weight) forward->cpu.vector->rms_norm(row, given, weight, count, shape->norm_epsilon);
    else memcpy(row, given, count * sizeof *row);
    pi2_activation_set_fill(&walk->forward->buffers.attended_set, token, 0, count, row);
}

/* What the layer reads beside the token's embedding becomes its residual stream. */
static void join(pi2_forward_walk *walk, uint32_t token, const float *features) {
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_model_shape *shape = &forward->model->shape;
    const float *const *tables = forward->model->layers[walk->layer].tables;
    const size_t width = shape->embedding_length;
    float *row = buffers->attended + token * buffers->attended_stride, *x = buffers->x + token * buffers->width_stride;
    forward->cpu.vector->rms_norm(row, x, tables[PI2_TABLE_ATTENTION_NORM], width, shape->norm_epsilon);
    forward->cpu.vector->rms_norm(row + width, features, tables[PI2_TABLE_NEXT_HIDDEN_NORM], width,
                                  shape->norm_epsilon);
    memcpy(x, shape->normed_residual ? row + width : features, width * sizeof *x);
    pi2_activation_set_fill(&walk->forward->buffers.attended_set, token, 0, (uint32_t)(2 * width), row);
}

static void join_made(pi2_forward_walk *walk, uint32_t token) {
    join(walk, token, walk->forward->buffers.out + token * walk->forward->buffers.width_stride);
}

static void join_own(pi2_forward_walk *walk, uint32_t token) {
    const pi2_model_shape *shape = &walk->forward->model->shape;
    const uint32_t length = pi2_model_given_length(shape, true);
    join(walk, token, walk->forward->given + (size_t)token * length + (length - shape->embedding_length));
}

static void run(struct pi2_forward_walk *walk) {
    walk->stage_name = "features";
    if (walk->forward->given_is_own) {
        pi2_forward_token_stage(walk, join_own);
    } else {
        pi2_forward_token_stage(walk, take_features);
        pi2_forward_project_to(walk, PI2_MATRIX_NEXT_INPUT, "features", join_made);
    }
    pi2_attention_run_on(walk, &walk->forward->buffers.attended_set);
}

const pi2_block_kind pi2_block_attention_features = {
    .name = "attention_features", .norm = PI2_TABLE_NO_NORM, .post_norm = PI2_TABLE_NO_NORM, .attends = true,
    .list = list, .needs = needs, .run = run,
};
