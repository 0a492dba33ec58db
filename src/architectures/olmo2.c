/* olmo2.c: OLMo 2: blocks read the residual stream as it is, and their results are normed; queries and keys are normed,
 * all heads of a token as one. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status olmo2_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->whole_norms = true;
    shape->bare_inputs = true;
    shape->post_norms = true;
    return PI2_OK;
}

const pi2_architecture pi2_architecture_olmo2 = {
    .name = "olmo2", .activation = PI2_FFN_silu, .read_shape = olmo2_read_shape,
};
