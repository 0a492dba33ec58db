/* seed_oss.c: Seed-OSS: a Qwen 2 whose FFN's norm goes by another name. */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status seed_oss_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->ffn_norm_name = "post_attention_norm";
    return PI2_OK;
}

const pi2_architecture pi2_architecture_seed_oss = {
    .name = "seed_oss", .activation = PI2_FFN_silu, .read_shape = seed_oss_read_shape,
};
