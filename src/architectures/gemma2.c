/* gemma2.c: Gemma 2: every second layer, the first among them, sees a window; scores and logits have soft caps; norms
 * before and after each block. */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { PERIOD = 2, WINDOW = 4096, LAYERS_OF_27B = 46 };

static pi2_status gemma2_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    pi2_decoder_be_gemma(shape, LAYERS_OF_27B);
    PI2_TRY(pi2_decoder_read_window(model, shape, WINDOW));
    PI2_TRY(pi2_architecture_f32_or(model, name, "attn_logit_softcapping", 50.0f, &shape->attention_cap));
    return pi2_architecture_f32_or(model, name, "final_logit_softcapping", 30.0f, &shape->logit_cap);
}

static pi2_status gemma2_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                    pi2_layer_shape *layer) {
    return pi2_decoder_read_layer_window(model, shape, number, PERIOD, layer, NULL);
}

const pi2_architecture pi2_architecture_gemma2 = {
    .name = "gemma2", .activation = PI2_FFN_gelu, .read_shape = gemma2_read_shape, .read_layer = gemma2_read_layer,
};
