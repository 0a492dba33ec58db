/*
 * lfm2.c: LFM2 and LFM2-MoE: gated short convolutions, and attention in the layers that have key-value heads; in a
 * mixture the first layers have a dense FFN, the others experts that a router with a bias chooses.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status lfm2_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    pi2_decoder_find_heads(model, shape);
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->head_norms = true;
    /* Converters disagree on the name. */
    if (!pi2_architecture_tensor(model, UINT32_MAX, "output_norm.weight")) shape->output_norm_name = "token_embd_norm";
    return pi2_decoder_read_taps(model, shape, "shortconv.l_cache");
}

/* Some files tell the FFN's length as it was before the family's own rule: two thirds of it, rounded up. */
static void correct_length(const pi2_tensor_directory *model, uint32_t layer, uint32_t *length) {
    enum { STEP = 256 };
    const pi2_gguf_tensor *gate = pi2_architecture_tensor(model, layer, "ffn_gate.weight");
    const uint32_t ruled = (uint32_t)((uint64_t)*length * 2 / 3);
    if (!gate || gate->dimensions[1] < ruled || gate->dimensions[1] >= (uint64_t)ruled + STEP) return;
    *length = (uint32_t)gate->dimensions[1];
}

static pi2_status dense_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(lfm2_read_shape(model, shape));
    correct_length(model, 0, &shape->feed_forward_length);
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
    pi2_decoder_mix_or_attend(model, shape, number, PI2_BLOCK_short_conv, "shortconv.in_proj.weight", layer);
    pi2_decoder_add_ffn(layer, shape, number);
    if (pi2_layer_has(layer, PI2_BLOCK_ffn_dense)) correct_length(model, number, &layer->feed_forward_length);
    return PI2_OK;
}

const pi2_architecture pi2_architecture_lfm2 = {
    .name = "lfm2", .activation = PI2_FFN_silu, .read_shape = dense_read_shape, .read_layer = lfm2_read_layer,
};

const pi2_architecture pi2_architecture_lfm2moe = {
    .name = "lfm2moe", .activation = PI2_FFN_silu, .read_shape = mixture_read_shape, .read_layer = lfm2_read_layer,
};
