/*
 * deepseek2.c: DeepSeek V2, V3 and their kin (GLM 4.7 Flash, Kimi K2): latent attention whose matrices are absorbed;
 * behind a few leading layers with a dense FFN, experts, which a router with groups and a bias may choose, and an FFN
 * beside them.
 */
#include <math.h>

#include "architectures/decoder.h"
#include "base/fail.h"

enum { GLM_VOCABULARY = 154880 }; /* of GLM 4.7 Flash, whose first files do not say that its router has sigmoids */

/* Files that keep keys and values of all heads apart were made before 2025-04. */
static pi2_status read_latent(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture, *path = pi2_gguf_file_path(model->gguf, 0);
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.q_lora_rank", 0, &shape->latent_query_length));
    PI2_TRY(pi2_architecture_u32(model, name, "attention.kv_lora_rank", &shape->latent_length));
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.key_length_mla", 0, &shape->head_key_length));
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.value_length_mla", 0, &shape->head_value_length));
    if (shape->head_key_length == 0 || shape->head_value_length == 0) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: %s.attention.key_length_mla or value_length_mla is missing: latent "
                        "attention is computed with absorbed matrices only: convert the model again", path, name);
    }
    const uint64_t latent = shape->latent_length, rotated = shape->rope.dimensions;
    if (shape->latent_query_length <= 1u << 16 && latent >= PI2_TILE_ROWS && latent % PI2_TILE_ROWS == 0 &&
        latent <= PI2_LONGEST_HEAD && shape->head_value_length % PI2_TILE_ROWS == 0 &&
        shape->head_value_length <= PI2_LONGEST_HEAD && shape->head_key_length <= PI2_LONGEST_HEAD &&
        shape->head_key_length > rotated && shape->key_length == latent + rotated && shape->value_length == latent &&
        shape->head_count_kv == 1) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: latent attention of %s.attention.q_lora_rank %u, kv_lora_rank %u, "
                    "key_length %u, value_length %u, key_length_mla %u, value_length_mla %u, head_count_kv %u and "
                    "rope.dimension_count %u is not possible here", path, name, shape->latent_query_length,
                    shape->latent_length, shape->key_length, shape->value_length, shape->head_key_length,
                    shape->head_value_length, shape->head_count_kv, shape->rope.dimensions);
}

static bool has_router_bias(const pi2_tensor_directory *model, const pi2_model_shape *shape) {
    for (uint32_t i = 0; i < shape->layer_count && i < PI2_MOST_LAYERS; i++) {
        if (pi2_architecture_tensor(model, i, "exp_probs_b.bias")) return true;
    }
    return false;
}

/*
 * YaRN's own magnitude is taken back, since the rotated part alone would grow by it: scores are scaled instead, by its
 * square with a multiplier that converters write times 0.1.
 */
static pi2_status read_scale(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    pi2_rope_shape *rope = &shape->rope;
    float multiplier = 0.0f;
    PI2_TRY(pi2_architecture_f32_or(model, shape->architecture, "rope.scaling.yarn_log_multiplier", 0.0f, &multiplier));
    shape->attention_scale = 1.0f / sqrtf((float)shape->head_key_length);
    if (!rope->yarn) return PI2_OK;
    if (!(fabsf(multiplier) <= 100.0f && fabsf(rope->attention_factor) <= 100.0f)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %s.rope.scaling.yarn_log_multiplier is %g and attn_factor %g",
                        pi2_gguf_file_path(model->gguf, 0), shape->architecture, (double)multiplier,
                        (double)rope->attention_factor);
    }
    const double growth = log(1.0 / (double)rope->linear_scale);
    const double magnitude = (double)rope->attention_factor * (1.0 + (double)multiplier * growth);
    shape->attention_scale *= (float)(magnitude * magnitude);
    rope->attention_factor /= (float)(1.0 + 0.1 * growth);
    return PI2_OK;
}

static pi2_status deepseek2_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    PI2_TRY(read_latent(model, shape));
    PI2_TRY(read_scale(model, shape));
    shape->router_has_bias = has_router_bias(model, shape);
    PI2_TRY(pi2_decoder_read_weighing(model, shape, shape->vocabulary_size == GLM_VOCABULARY ? PI2_GATING_SIGMOID
                                                                                             : PI2_GATING_SOFTMAX));
    PI2_TRY(pi2_decoder_read_shared_count(model, shape));
    return pi2_decoder_read_leading(model, shape);
}

static pi2_status deepseek2_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                       uint32_t number, pi2_layer_shape *layer) {
    (void)model;
    layer->block_count = 0;
    layer->values_are_keys = true;
    pi2_layer_add(layer, PI2_BLOCK_attention_latent);
    pi2_decoder_add_ffn(layer, shape, number);
    return PI2_OK;
}

const pi2_architecture pi2_architecture_deepseek2 = {
    .name = "deepseek2", .activation = PI2_FFN_silu, .read_shape = deepseek2_read_shape,
    .read_layer = deepseek2_read_layer,
};
