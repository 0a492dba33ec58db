/* qwen3moe.c: Qwen 3 with experts: softmax over all of them, the best few, their weights summing to 1. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status qwen3moe_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->head_norms = true;
    return pi2_decoder_require_experts(model, shape);
}

const pi2_architecture pi2_architecture_qwen3moe = {
    .name = "qwen3moe", .activation = PI2_FFN_silu, .read_shape = qwen3moe_read_shape,
};

const pi2_architecture pi2_architecture_qwen3vlmoe = { /* its text, as qwen3vl's */
    .name = "qwen3vlmoe", .activation = PI2_FFN_silu, .read_shape = qwen3moe_read_shape,
};
