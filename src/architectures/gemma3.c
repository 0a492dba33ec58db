/*
 * gemma3.c: Gemma 3 (text): five layers of six see a window, and are rotated by a base of their own, without the
 * scaling of the others; norms before and after each block; queries and keys are normed, head by head.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { PERIOD = 6, LAYERS_OF_27B = 62 };

static pi2_status gemma3_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    pi2_decoder_be_gemma(shape, LAYERS_OF_27B);
    shape->head_norms = true;
    PI2_TRY(pi2_decoder_read_window(model, shape, 0));
    PI2_TRY(pi2_architecture_f32_or(model, name, "rope.freq_base_swa", 10000.0f, &shape->local_rope.base));
    pi2_decoder_unscale_local_rope(shape);
    return pi2_architecture_f32_or(model, name, "final_logit_softcapping", 0.0f, &shape->logit_cap);
}

static pi2_status gemma3_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                    pi2_layer_shape *layer) {
    bool is_local;
    PI2_TRY(pi2_decoder_read_layer_window(model, shape, number, PERIOD, layer, &is_local));
    if (is_local) layer->rope = 1;
    return PI2_OK;
}

const pi2_architecture pi2_architecture_gemma3 = {
    .name = "gemma3", .activation = PI2_FFN_gelu, .read_shape = gemma3_read_shape, .read_layer = gemma3_read_layer,
};
