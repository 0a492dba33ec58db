/*
 * falcon.c: Falcon: attention and an ungated FFN read the layer's input side by side, through one norm (7B) or one each
 * (40B, 180B); queries, keys and values are one matrix; LayerNorm with biases; halves are rotated against each other.
 * PowerInfer's have ReLU.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

/* What a Falcon lacks and would change its result: the parts of others, and layers that are not alike. */
static pi2_status refuse_parts(const pi2_tensor_directory *model, const pi2_model_shape *shape) {
    static const char *const parts[] = { "attn_qkv.bias", "ffn_norm.weight", "attn_q_norm.weight" };
    const char *path = pi2_gguf_file_path(model->gguf, 0);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            if (!pi2_architecture_tensor(model, layer, parts[i])) continue;
            return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'blk.%u.%s' is not supported in a falcon", path, layer,
                            parts[i]);
        }
        if (shape->two_norms || !pi2_architecture_tensor(model, layer, "attn_norm_2.weight")) continue;
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'blk.%u.attn_norm_2.weight' is there, but layer 0 has one "
                        "norm: layers of both kinds in one model are not supported", path, layer);
    }
    return PI2_OK;
}

static pi2_status falcon_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    PI2_TRY(pi2_decoder_use_layer_norm(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->fused_qkv = true;
    shape->parallel = true;
    shape->two_norms = pi2_architecture_tensor(model, 0, "attn_norm_2.weight") != NULL;
    if (shape->layer_count > PI2_MOST_LAYERS) return PI2_OK; /* refused with the other numbers */
    return refuse_parts(model, shape);
}

const pi2_architecture pi2_architecture_falcon = {
    .name = "falcon", .activation = PI2_FFN_gelu, .has_powerinfer_files = true, .read_shape = falcon_read_shape,
};
