/*
 * smallthinker.c: SmallThinker: the router reads the layer's input, so that experts are known before
 * attention; ReGLU experts; with a sliding window, every fourth layer from the first on sees all
 * positions and is not rotated, the others see the window.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { FULL_LAYER_STEP = 4 };

static pi2_status smallthinker_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture, *path = pi2_gguf_file_path(model->gguf, 0);
    uint32_t gating;
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->router_sees_layer_input = true;
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.sliding_window", 0, &shape->window));
    PI2_TRY(pi2_architecture_u32(model, name, "expert_gating_func", &gating)); /* it must be there */
    PI2_TRY(pi2_decoder_read_gating(model, shape, PI2_GATING_SOFTMAX));
    if (pi2_architecture_tensor(model, 0, "attn_q_norm.weight")) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'blk.0.attn_q_norm.weight' is not supported in a %s", path,
                        name);
    }
    return PI2_OK;
}

static pi2_status smallthinker_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                          uint32_t number, pi2_layer_shape *layer) {
    (void)model;
    if (shape->window > 0 && number % FULL_LAYER_STEP != 0) pi2_decoder_set_window(layer, shape->window);
    else if (shape->window > 0) layer->rope = PI2_NO_ROPE;
    return PI2_OK;
}

const pi2_architecture pi2_architecture_smallthinker = {
    .name = "smallthinker", .activation = PI2_FFN_relu, .read_shape = smallthinker_read_shape,
    .read_layer = smallthinker_read_layer,
};
