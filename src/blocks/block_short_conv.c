/*
 * block_short_conv.c: LFM2's gated short convolution. One matrix gives three vectors b, c and x of a token; b * x goes
 * through a causal convolution over the last few tokens, and c times that is projected back. The state is the last
 * tokens' b * x.
 */
#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

enum { CHANNELS = 128 }; /* of one chunk */

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint32_t width = shape->embedding_length;
    pi2_group_request *group = pi2_requests_group(requests, PI2_GROUP_ATTENTION, layer);
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_MIX_IN, "shortconv.in_proj.weight", width,
                                3 * (uint64_t)width));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_ATTENTION_OUTPUT, "shortconv.out_proj.weight", width, width));
    pi2_requests_attention_norms(model, shape, requests, layer);
    pi2_table_request *weights = pi2_requests_table(model, requests, PI2_TABLE_CONVOLUTION, layer,
                                                    "shortconv.conv.weight", shape->convolution_taps);
    weights->rows = width;
    weights->keeps_rows = true;
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)layer;
    (void)shape;
    const size_t floats = (size_t)(model->convolution_taps - 1) * model->embedding_length;
    needs_out->areas[0] = (pi2_state_area){ floats * sizeof(float), 0 };
    needs_out->repeats = 1;
    needs_out->result = model->embedding_length;
    needs_out->scratch = 3 * model->embedding_length;
    needs_out->stages = 3;
}

static void convolve_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const uint32_t width = forward->model->shape.embedding_length, begin = chunk * CHANNELS;
    const uint32_t end = width - begin < CHANNELS ? width : begin + CHANNELS;
    const size_t stride = buffers->attended_stride;
    for (uint32_t t = 0; t < forward->token_count; t++) {
        const float *b = buffers->scratch + t * buffers->scratch_stride, *x = b + 2 * (size_t)width;
        for (uint32_t c = begin; c < end; c++) buffers->attended[t * stride + c] = b[c] * x[c];
    }
    const pi2_convolution convolution = { .weights = layer_of(walk)->tables[PI2_TABLE_CONVOLUTION],
                                          .taps = forward->model->shape.convolution_taps, .channels = width };
    pi2_forward_convolve(walk, &convolution, buffers->attended, stride, begin, end);
    for (uint32_t t = 0; t < forward->token_count; t++) {
        const float *gate = buffers->scratch + t * buffers->scratch_stride + width;
        for (uint32_t c = begin; c < end; c++) buffers->attended[t * stride + c] *= gate[c];
    }
}

static void run(struct pi2_forward_walk *walk) {
    const uint32_t width = walk->forward->model->shape.embedding_length;
    pi2_forward_mix_input(walk, "convolution input");
    walk->stage_name = "convolution";
    pi2_forward_stage(walk, (width + CHANNELS - 1) / CHANNELS, convolve_chunk, pi2_forward_attended);
    pi2_forward_project(walk, PI2_MATRIX_ATTENTION_OUTPUT, "convolution output");
}

const pi2_block_kind pi2_block_short_conv = {
    .name = "short_conv", .norm = PI2_TABLE_ATTENTION_NORM, .post_norm = PI2_TABLE_POST_ATTENTION_NORM,
    .is_recurrent = true, .list = list, .needs = needs, .run = run,
};
