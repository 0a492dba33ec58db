/*
 * gpt_oss.c: gpt-oss: experts with biases and a SwiGLU that is held within limits; every second layer, the first among
 * them, sees a window; each head has a sink.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { PERIOD = 2 };

static pi2_status gpt_oss_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->has_sinks = true;
    shape->experts_have_biases = true;
    shape->ffn_norm_name = "post_attention_norm";
    return pi2_decoder_read_window(model, shape, 0);
}

static pi2_status gpt_oss_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                     pi2_layer_shape *layer) {
    return pi2_decoder_read_layer_window(model, shape, number, PERIOD, layer, NULL);
}

const pi2_architecture pi2_architecture_gpt_oss = {
    .name = "gpt-oss", .activation = PI2_FFN_silu_clamped, .read_shape = gpt_oss_read_shape,
    .read_layer = gpt_oss_read_layer,
};
