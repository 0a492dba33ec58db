/* block_router.c: which experts of its layer each token uses; they are asked for at once. It may stand anywhere before
 * the experts. */
#include "architectures/block.h"
#include "architectures/decoder.h"
#include "pipeline/forward_internal.h"

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    pi2_requests_table(model, requests, PI2_TABLE_ROUTER, layer, "ffn_gate_inp.weight", shape->embedding_length)->rows =
        shape->expert_count;
    if (shape->experts_have_biases) {
        (void)pi2_requests_table(model, requests, PI2_TABLE_SCORE_BIAS, layer, "ffn_gate_inp.bias",
                                 shape->expert_count);
    }
    if (shape->experts_have_norms) {
        (void)pi2_requests_table(model, requests, PI2_TABLE_ROUTER_NORM, layer, "ffn_gate_inp.scale",
                                 shape->embedding_length);
    }
    if (!shape->router_has_bias) return PI2_OK;
    (void)pi2_requests_table(model, requests, PI2_TABLE_ROUTER_BIAS, layer, "exp_probs_b.bias", shape->expert_count);
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)layer;
    (void)shape;
    needs_out->stages = PI2_STAGES_OF_EXPERTS - 1; /* scores, choice */
    if (model->experts_have_norms) needs_out->stages++;
}

const pi2_block_kind pi2_block_router = {
    .name = "router", .norm = PI2_TABLE_ROLES, .post_norm = PI2_TABLE_ROLES,
    .list = list, .needs = needs, .run = pi2_forward_router,
};
