/*
 * glm4moe.c: GLM 4.5 to 4.7: behind a few leading layers with a dense FFN, experts that a router with a bias chooses by
 * sigmoids, and an FFN beside them; a part of each head is rotated. A layer behind the last one guesses further tokens
 * (engine/drafter_mtp.c).
 */
#include "architectures/decoder.h"
#include "base/fail.h"

/* The largest have such norms, in every layer; where one is, the others must be. */
static bool has_head_norms(const pi2_tensor_directory *model, const pi2_model_shape *shape) {
    for (uint32_t i = 0; i < shape->layer_count && i < PI2_MOST_LAYERS; i++) {
        if (pi2_architecture_tensor(model, i, "attn_q_norm.weight") ||
            pi2_architecture_tensor(model, i, "attn_k_norm.weight")) return true;
    }
    return false;
}

static pi2_status glm4moe_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->head_norms = has_head_norms(model, shape);
    shape->ffn_norm_name = "post_attention_norm";
    shape->router_has_bias = true;
    PI2_TRY(pi2_decoder_read_weighing(model, shape, PI2_GATING_SIGMOID));
    PI2_TRY(pi2_decoder_read_shared_count(model, shape));
    return pi2_decoder_read_leading(model, shape);
}

const pi2_architecture pi2_architecture_glm4moe = {
    .name = "glm4moe", .has_next_layer = true, .activation = PI2_FFN_silu, .read_shape = glm4moe_read_shape,
};
