/*
 * nemotron_h.c: Nemotron-H, Nemotron Nano 2 and 3: each layer is one block: a state space (Mamba 2), an FFN without
 * Gate and with the square of ReLU, or attention that is not rotated. In a mixture the FFNs are experts, which a router
 * with a bias chooses, and one beside them.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status nemotron_h_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    pi2_decoder_find_heads(model, shape);
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

/* Neurons of a layer: those of the key, unless the layer has matrices of one kind alone and the key means the other. */
static pi2_status read_neurons(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                               uint32_t *neurons_out) {
    const pi2_gguf_tensor *up = pi2_architecture_tensor(model, number, "ffn_up.weight");
    const bool is_ffn = up || pi2_architecture_tensor(model, number, "ffn_up_exps.weight");
    const bool is_other = pi2_architecture_tensor(model, number, "ssm_in.weight") ||
                          pi2_architecture_tensor(model, number, "attn_q.weight");
    PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, "feed_forward_length", number,
                                          shape->feed_forward_length, neurons_out));
    if (is_other && !is_ffn) *neurons_out = 0;
    if (is_ffn && !is_other && *neurons_out == 0) {
        *neurons_out = up && up->dimensions[1] <= UINT32_MAX ? (uint32_t)up->dimensions[1]
                                                              : shape->expert_feed_forward_length;
    }
    return PI2_OK;
}

/* What has neurons is an FFN, what has key-value heads attends, and the others are state spaces. */
static pi2_status nemotron_h_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                        uint32_t number, pi2_layer_shape *layer) {
    uint32_t neurons = 0;
    PI2_TRY(read_neurons(model, shape, number, &neurons));
    layer->block_count = 0;
    layer->feed_forward_length = neurons;
    if (neurons) pi2_decoder_add_ffn(layer, shape, number);
    else pi2_decoder_mix_or_attend(model, shape, number, PI2_BLOCK_mamba2, "ssm_in.weight", layer);
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
