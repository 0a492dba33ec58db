/*
 * block_ffn_shared.c: an FFN beside the layer's experts, which every token uses. It runs while experts are read; the
 * experts' block adds its result. Its result may be normed, and the experts may read the residual stream through a norm
 * of their own, which is made when it is done. With a gate of its own the result is weighed by that, from 0 to 1.
 */
#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint64_t width = shape->embedding_length, neurons = shape->layers[layer].feed_forward_length;
    pi2_group_request *ffn = pi2_requests_group(requests, PI2_GROUP_FFN, layer);
    static const char *const names[2][3] = {
        { "ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight" },
        { "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight" } };
    const char *const *name = names[shape->shared_is_dense];
    if (!shape->ungated) PI2_TRY(pi2_requests_matrix(model, ffn, PI2_MATRIX_SHARED_GATE, name[0], width, neurons));
    PI2_TRY(pi2_requests_matrix(model, ffn, shape->ungated ? PI2_MATRIX_SHARED_GATE : PI2_MATRIX_SHARED_UP, name[1],
                                width, neurons));
    PI2_TRY(pi2_requests_matrix(model, ffn, PI2_MATRIX_SHARED_DOWN, name[2], neurons, width));
    if (shape->experts_have_norms) {
        pi2_requests_norm(model, shape, requests, PI2_TABLE_POST_SHARED_NORM, layer, "post_ffw_norm_1");
    }
    if (!shape->shared_is_gated) return PI2_OK;
    (void)pi2_requests_table(model, requests, PI2_TABLE_SHARED_GATE, layer, "ffn_gate_inp_shexp.weight",
                             shape->embedding_length);
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)model;
    (void)layer;
    (void)shape;
    needs_out->stages = PI2_STAGES_OF_A_RUN;
}

const pi2_block_kind pi2_block_ffn_shared = {
    .name = "ffn_shared", .norm = PI2_TABLE_ROLES, .post_norm = PI2_TABLE_ROLES,
    .list = list, .needs = needs, .run = pi2_forward_ffn,
};
