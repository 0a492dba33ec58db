/*
 * bitnet.c: BitNet b1.58: weights of three values, each matrix times a number of its own; what attention gives, and
 * what the FFN's neurons give, is normed before the matrix that reads it.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status bitnet_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->norms_attended = shape->norms_hidden = true;
    return PI2_OK;
}

const pi2_architecture pi2_architecture_bitnet = {
    .name = "bitnet", .activation = PI2_FFN_silu, .read_shape = bitnet_read_shape,
};
