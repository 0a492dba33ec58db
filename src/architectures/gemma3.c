/*
 * gemma3.c: Gemma 3 (text): five layers of six see a window, and are rotated by a base of their own, without the
 * scaling of the others; norms before and after each block; queries and keys are normed, head by head.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { PERIOD = 6, LAYERS_OF_4B = 34, LAYERS_OF_12B = 48, LAYERS_OF_27B = 62 };

/* One converter leaves out what all of them have alike: the epsilon, the rotations' bases, to which it gave other
 * names, and with these the scaling of the larger ones. */
static pi2_status read_what_may_lack(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    static const float epsilon = 1e-6f, base = 1e6f, local_base = 1e4f, scale_of_large = 1.0f / 8.0f;
    const char *name = shape->architecture;
    const bool is_large = shape->layer_count == LAYERS_OF_4B || shape->layer_count == LAYERS_OF_12B ||
                          shape->layer_count == LAYERS_OF_27B;
    float said = 0.0f, other = 0.0f;
    PI2_TRY(pi2_architecture_f32_or(model, name, "attention.layer_norm_rms_epsilon", epsilon, &shape->norm_epsilon));
    PI2_TRY(pi2_architecture_f32_or(model, name, "rope.freq_base", 0.0f, &said));
    PI2_TRY(pi2_architecture_f32_or(model, name, "rope.global.freq_base", base, &other));
    if (said == 0.0f) shape->rope.base = other;
    if (said == 0.0f && is_large && shape->rope.linear_scale == 1.0f) shape->rope.linear_scale = scale_of_large;
    PI2_TRY(pi2_architecture_f32_or(model, name, "rope.local.freq_base", local_base, &other));
    return pi2_architecture_f32_or(model, name, "rope.freq_base_swa", other, &shape->local_rope.base);
}

static pi2_status gemma3_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    pi2_decoder_be_gemma(shape, LAYERS_OF_27B);
    shape->head_norms = true;
    PI2_TRY(pi2_decoder_read_window(model, shape, 0));
    PI2_TRY(read_what_may_lack(model, shape));
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
