/*
 * nemotron_h.c: Nemotron-H, Nemotron Nano 2 and 3: each layer is one block: a state space (Mamba 2), an FFN without
 * Gate and with the square of ReLU, or attention that is not rotated. In a mixture the FFNs are experts, which a router
 * with a bias chooses, and one beside them.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status nemotron_h_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    shape->ffn_norm_name = "attn_norm";
    shape->is_unrotated = true;
    return pi2_decoder_read_mix(model, shape, "state space", false);
}

static pi2_status dense_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(nemotron_h_read_shape(model, shape));
    return pi2_decoder_refuse_experts(model, shape);
}

static pi2_status mixture_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(nemotron_h_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    shape->ungated = true;
    shape->router_has_bias = true;
    PI2_TRY(pi2_decoder_read_weighing(model, shape, PI2_GATING_SIGMOID));
    return pi2_decoder_read_shared(model, shape);
}

/* What has neurons is an FFN, what has key-value heads attends, and the others are state spaces. */
static pi2_status nemotron_h_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                        uint32_t number, pi2_layer_shape *layer) {
    uint32_t neurons = 0;
    PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, "feed_forward_length", number,
                                          shape->feed_forward_length, &neurons));
    layer->block_count = 0;
    if (neurons) pi2_decoder_add_ffn(layer, shape, number);
    else pi2_decoder_mix_or_attend(layer, PI2_BLOCK_mamba2);
    return PI2_OK;
}

const pi2_architecture pi2_architecture_nemotron_h = {
    .name = "nemotron_h", .activation = PI2_FFN_relu_squared, .read_shape = dense_read_shape,
    .read_layer = nemotron_h_read_layer,
};

const pi2_architecture pi2_architecture_nemotron_h_moe = {
    .name = "nemotron_h_moe", .activation = PI2_FFN_relu_squared, .read_shape = mixture_read_shape,
    .read_layer = nemotron_h_read_layer,
};
