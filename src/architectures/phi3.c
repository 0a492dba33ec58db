/*
 * phi3.c: Phi 3 and 4: queries, keys and values are one matrix, Gate and Up another; part of a head is rotated. Files
 * that have other rotations for long contexts are run with those for short ones, as far as the model was trained with
 * them.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status phi3_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->fused_qkv = true;
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.sliding_window", 0, &shape->window));
    return pi2_decoder_read_short_rope(model, shape, 0);
}

static pi2_status phi3_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                  pi2_layer_shape *layer) {
    (void)model;
    (void)number;
    if (shape->window > 0 && shape->window < shape->context_length) pi2_decoder_set_window(layer, shape->window);
    return PI2_OK;
}

const pi2_architecture pi2_architecture_phi3 = {
    .name = "phi3", .activation = PI2_FFN_silu, .fuses_gate = true, .read_shape = phi3_read_shape,
    .read_layer = phi3_read_layer,
};
