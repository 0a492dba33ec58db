/* hunyuan_dense.c: Hunyuan, dense: queries and keys are normed, head by head, when they are rotated. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status hunyuan_dense_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->head_norms = true;
    shape->norms_after_rotation = true;
    return PI2_OK;
}

const pi2_architecture pi2_architecture_hunyuan_dense = {
    .name = "hunyuan-dense", .activation = PI2_FFN_silu, .read_shape = hunyuan_dense_read_shape,
};
