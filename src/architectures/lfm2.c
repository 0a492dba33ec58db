/*
 * lfm2.c: LFM2 and LFM2-MoE: gated short convolutions, and attention in the layers that have key-value heads; in a
 * mixture the first layers have a dense FFN, the others experts that a router with a bias chooses.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status lfm2_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->head_norms = true;
    /* Converters disagree on the name. */
    if (!pi2_architecture_tensor(model, UINT32_MAX, "output_norm.weight")) shape->output_norm_name = "token_embd_norm";
    return pi2_decoder_read_taps(model, shape, "shortconv.l_cache");
}

static pi2_status dense_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(lfm2_read_shape(model, shape));
    return pi2_decoder_refuse_experts(model, shape);
}

static pi2_status mixture_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(lfm2_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    PI2_TRY(pi2_decoder_read_leading(model, shape));
    shape->router_has_bias = true;
    return pi2_decoder_read_gating(model, shape, PI2_GATING_SIGMOID);
}

static pi2_status lfm2_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                  pi2_layer_shape *layer) {
    (void)model;
    pi2_decoder_mix_or_attend(layer, PI2_BLOCK_short_conv);
    pi2_decoder_add_ffn(layer, shape, number);
    return PI2_OK;
}

const pi2_architecture pi2_architecture_lfm2 = {
    .name = "lfm2", .activation = PI2_FFN_silu, .read_shape = dense_read_shape, .read_layer = lfm2_read_layer,
};

const pi2_architecture pi2_architecture_lfm2moe = {
    .name = "lfm2moe", .activation = PI2_FFN_silu, .read_shape = mixture_read_shape, .read_layer = lfm2_read_layer,
};
