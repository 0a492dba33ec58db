/* qwen2.c: Qwen 2 and 2.5: biases on queries, keys and values; halves are rotated against each other. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status qwen2_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    return pi2_decoder_refuse_experts(model, shape);
}

const pi2_architecture pi2_architecture_qwen2 = {
    .name = "qwen2", .activation = PI2_FFN_silu, .read_shape = qwen2_read_shape,
};
