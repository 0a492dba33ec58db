/* qwen3.c: Qwen 3, dense, and what reads text in Qwen3 VL: no biases; queries and keys are normed, head by head. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status qwen3_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->head_norms = true;
    return pi2_decoder_refuse_experts(model, shape);
}

const pi2_architecture pi2_architecture_qwen3 = {
    .name = "qwen3", .activation = PI2_FFN_silu, .read_shape = qwen3_read_shape,
};

/* Its rotation goes by three positions, which are one where there are no images. */
const pi2_architecture pi2_architecture_qwen3vl = {
    .name = "qwen3vl", .activation = PI2_FFN_silu, .read_shape = qwen3_read_shape,
};
