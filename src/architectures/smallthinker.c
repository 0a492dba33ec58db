/*
 * smallthinker.c: SmallThinker: the router reads the layer's input, so that experts are known before
 * attention; ReGLU experts; with a sliding window, every fourth layer from the first on sees all
 * positions and is not rotated, the others see the window.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2, FULL_LAYER_STEP = 4 };

static pi2_status smallthinker_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture, *path = pi2_gguf_file_path(model->gguf, 0);
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->router_sees_layer_input = true;
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.sliding_window", 0, &shape->window));
    shape->full_layer_step = FULL_LAYER_STEP;
    uint32_t gating = 0;
    PI2_TRY(pi2_architecture_u32(model, name, "expert_gating_func", &gating));
    if (gating != GATING_SOFTMAX && gating != GATING_SIGMOID) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: %s.expert_gating_func is %u; 1 (softmax) and 2 (sigmoid) are "
                        "supported", path, name, gating);
    }
    shape->gating = gating == GATING_SIGMOID ? PI2_GATING_SIGMOID : PI2_GATING_SOFTMAX;
    if (pi2_architecture_tensor(model, 0, "attn_q_norm.weight")) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'blk.0.attn_q_norm.weight' is not supported in a %s", path,
                        name);
    }
    return PI2_OK;
}

const pi2_architecture pi2_architecture_smallthinker = {
    .name = "smallthinker", .activation = PI2_FFN_relu, .read_shape = smallthinker_read_shape,
    .list_tensors = pi2_decoder_list_tensors,
};
