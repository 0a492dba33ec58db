/* arcee.c: Arcee's AFM: a Llama whose FFN has no Gate, and the square of ReLU. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status arcee_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    return pi2_decoder_refuse_experts(model, shape);
}

const pi2_architecture pi2_architecture_arcee = {
    .name = "arcee", .activation = PI2_FFN_relu_squared, .read_shape = arcee_read_shape,
};
