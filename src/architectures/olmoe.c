/* olmoe.c: OLMoE: experts whose weights do not sum to 1; queries and keys are normed, all heads of a token as one. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status olmoe_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->whole_norms = true;
    shape->keeps_probabilities = true;
    return PI2_OK;
}

const pi2_architecture pi2_architecture_olmoe = {
    .name = "olmoe", .activation = PI2_FFN_silu, .read_shape = olmoe_read_shape,
};
