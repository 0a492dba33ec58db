/*
 * nemotron_h.c: Nemotron-H and Nemotron Nano 2: each layer is one block: a state space (Mamba 2), an FFN without Gate
 * and with the square of ReLU, or attention that is not rotated.
 */
#include "architectures/decoder.h"
#include "base/fail.h"
#include "kernels/recurrent/recurrent.h"

static pi2_status read_state_space(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    uint32_t inner = 0;
    PI2_TRY(pi2_decoder_read_taps(model, shape, "ssm.conv_kernel"));
    PI2_TRY(pi2_architecture_u32(model, name, "ssm.inner_size", &inner));
    PI2_TRY(pi2_architecture_u32(model, name, "ssm.state_size", &shape->mix_state_length));
    PI2_TRY(pi2_architecture_u32(model, name, "ssm.time_step_rank", &shape->mix_value_heads));
    PI2_TRY(pi2_architecture_u32(model, name, "ssm.group_count", &shape->mix_key_heads));
    const uint32_t heads = shape->mix_value_heads, groups = shape->mix_key_heads;
    shape->mix_head_length = heads ? inner / heads : 0;
    if (heads >= 1 && heads <= 1024 && inner % heads == 0 && shape->mix_head_length >= 1 &&
        shape->mix_head_length <= PI2_DELTA_MOST && groups >= 1 && heads % groups == 0 && inner % groups == 0 &&
        shape->mix_state_length >= 1 && shape->mix_state_length <= 4096) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: a state space of ssm.inner_size %u, ssm.state_size %u, ssm.time_step_rank %u "
                    "and ssm.group_count %u is not possible here: heads of at most %d values make up the first, and "
                    "the last divides their number", pi2_gguf_file_path(model->gguf, 0), inner,
                    shape->mix_state_length, heads, groups, PI2_DELTA_MOST);
}

static pi2_status nemotron_h_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    shape->ffn_norm_name = "attn_norm";
    return read_state_space(model, shape);
}

static pi2_status nemotron_h_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                        uint32_t number, pi2_layer_shape *layer) {
    (void)model;
    (void)shape;
    (void)number;
    layer->block_count = 0;
    layer->rope = PI2_NO_ROPE;
    pi2_layer_add(layer, layer->feed_forward_length ? PI2_BLOCK_ffn_dense
                         : layer->head_count_kv ? PI2_BLOCK_attention : PI2_BLOCK_mamba2);
    return PI2_OK;
}

const pi2_architecture pi2_architecture_nemotron_h = {
    .name = "nemotron_h", .activation = PI2_FFN_relu_squared, .read_shape = nemotron_h_read_shape,
    .read_layer = nemotron_h_read_layer,
};
