/* granite.c: Granite 3 and 4, dense and with experts, and MiniCPM: a Llama with scales: of the embedding, of what each
 * block adds, of attention's scores and of the logits. Granite 4 H: most layers have a state space (Mamba 2) in place
 * of attention. */
#include <math.h>

#include "architectures/decoder.h"
#include "base/fail.h"

/* What the file says, else what the family has. Logits are divided by theirs. */
static pi2_status read_scales(const pi2_tensor_directory *model, pi2_model_shape *shape, float embedding,
                              float residual, float logits) {
    const char *name = shape->architecture;
    float divisor = 0.0f;
    PI2_TRY(pi2_architecture_f32_or(model, name, "embedding_scale", embedding, &shape->embedding_scale));
    PI2_TRY(pi2_architecture_f32_or(model, name, "residual_scale", residual, &shape->residual_scale));
    PI2_TRY(pi2_architecture_f32_or(model, name, "attention.scale", shape->attention_scale, &shape->attention_scale));
    PI2_TRY(pi2_architecture_f32_or(model, name, "logit_scale", logits, &divisor));
    if (!(divisor >= 1e-6f && divisor <= 1e6f) || !(fabsf(shape->embedding_scale) <= 1e6f) ||
        !(fabsf(shape->residual_scale) <= 1e6f) || !(fabsf(shape->attention_scale) <= 1e6f)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %s.logit_scale %g, embedding_scale %g, residual_scale %g or "
                        "attention.scale %g is impossible", pi2_gguf_file_path(model->gguf, 0), name, (double)divisor,
                        (double)shape->embedding_scale, (double)shape->residual_scale, (double)shape->attention_scale);
    }
    shape->logit_scale = 1.0f / divisor;
    return PI2_OK;
}

/* Some of the 4th generation do without rotation, which is what they make of a key with another name. */
static pi2_status granite_read_common(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    bool is_rotated = true;
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_architecture_bool_or(model, shape->architecture, "rope.scaling.finetuned", true, &is_rotated));
    shape->is_unrotated = !is_rotated;
    return read_scales(model, shape, 0.0f, 0.0f, 1.0f);
}

static pi2_status granite_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(granite_read_common(model, shape));
    return pi2_decoder_refuse_experts(model, shape);
}

static pi2_status mixture_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(granite_read_common(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    if (!pi2_architecture_tensor(model, 0, "ffn_gate_shexp.weight")) return PI2_OK;
    return pi2_decoder_read_shared(model, shape);
}

static pi2_status hybrid_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(granite_read_common(model, shape));
    pi2_decoder_find_heads(model, shape);
    if (pi2_architecture_tensor(model, 0, "ffn_gate_shexp.weight")) PI2_TRY(pi2_decoder_read_shared(model, shape));
    return pi2_decoder_read_mix(model, shape, "state space", false);
}

static pi2_status hybrid_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                    pi2_layer_shape *layer) {
    pi2_decoder_mix_or_attend(model, shape, number, PI2_BLOCK_mamba2, "ssm_in.weight", layer);
    pi2_decoder_add_ffn(layer, shape, number);
    return PI2_OK;
}

/* Files that say nothing of scales have those of MiniCPM's first models. */
static pi2_status minicpm_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    static const float embedding = 12.0f, depth = 1.4f, base_width = 256.0f;
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    const float layers = shape->layer_count ? (float)shape->layer_count : 1.0f;
    return read_scales(model, shape, embedding, depth / sqrtf(layers), (float)shape->embedding_length / base_width);
}

const pi2_architecture pi2_architecture_granite = {
    .name = "granite", .activation = PI2_FFN_silu, .read_shape = granite_read_shape,
};

const pi2_architecture pi2_architecture_granitemoe = {
    .name = "granitemoe", .activation = PI2_FFN_silu, .read_shape = mixture_read_shape,
};

const pi2_architecture pi2_architecture_granitehybrid = {
    .name = "granitehybrid", .activation = PI2_FFN_silu, .read_shape = hybrid_read_shape,
    .read_layer = hybrid_read_layer,
};

const pi2_architecture pi2_architecture_minicpm = {
    .name = "minicpm", .activation = PI2_FFN_silu, .read_shape = minicpm_read_shape,
};
