/* smollm3.c: SmolLM3: a Llama of which every fourth layer is not rotated. */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { UNROTATED_STEP = 4 };

static pi2_status smollm3_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    return pi2_decoder_refuse_experts(model, shape);
}

static pi2_status smollm3_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                     pi2_layer_shape *layer) {
    (void)model;
    (void)shape;
    if ((number + 1) % UNROTATED_STEP == 0) layer->rope = PI2_NO_ROPE;
    return PI2_OK;
}

const pi2_architecture pi2_architecture_smollm3 = {
    .name = "smollm3", .activation = PI2_FFN_silu, .read_shape = smollm3_read_shape, .read_layer = smollm3_read_layer,
};
