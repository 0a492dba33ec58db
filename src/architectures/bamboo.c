/* bamboo.c: Bamboo, Mistral's shape with ReLU on Gate and on Up. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status bamboo_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    return pi2_decoder_refuse_experts(model, shape);
}

const pi2_architecture pi2_architecture_bamboo = {
    .name = "bamboo", .activation = PI2_FFN_drelu, .has_powerinfer_files = true, .read_shape = bamboo_read_shape,
};
