/* qwen2moe.c: Qwen 1.5 and 2 with experts: their weights do not sum to 1, and an FFN beside them has a gate of its
 * own. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status qwen2moe_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->keeps_probabilities = true;
    shape->shared_is_gated = true;
    return pi2_decoder_read_shared(model, shape);
}

const pi2_architecture pi2_architecture_qwen2moe = {
    .name = "qwen2moe", .activation = PI2_FFN_silu, .read_shape = qwen2moe_read_shape,
};
