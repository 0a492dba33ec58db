/*
 * gemma4.c: Gemma 4 (text), dense, with vectors of each token in each layer (E2B, E4B), and with experts beside a dense
 * FFN (26B-A4B): layers that see a window have heads, a rotation and a base of their own; the last layers may use an
 * earlier one's keys and values; where all is seen, keys may serve as values; values are normed.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

static const char pattern[] = "attention.sliding_window_pattern";

/* What layers with windows have instead: where a key is missing, what the others have. */
static pi2_status read_local(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture, *path = pi2_gguf_file_path(model->gguf, 0);
    uint32_t *rotated = &shape->local_rope.dimensions;
    PI2_TRY(pi2_decoder_read_window(model, shape, 0));
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.key_length_swa", shape->key_length,
                                    &shape->local_key_length));
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.value_length_swa", shape->value_length,
                                    &shape->local_value_length));
    PI2_TRY(pi2_architecture_u32_or(model, name, "rope.dimension_count_swa", shape->local_key_length, rotated));
    if (shape->window == 0 || !pi2_gguf_is_array(model->gguf, "gemma4.attention.sliding_window_pattern")) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %s.attention.sliding_window or %s.%s is missing: convert the model again",
                        path, name, name, pattern);
    }
    if (shape->local_key_length >= 1 && shape->local_key_length <= PI2_LONGEST_HEAD && shape->local_value_length >= 1 &&
        shape->local_value_length <= PI2_LONGEST_HEAD && *rotated >= 2 && *rotated % 2 == 0 &&
        *rotated <= shape->local_key_length) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.attention.key_length_swa %u, value_length_swa %u or "
                    "rope.dimension_count_swa %u is impossible", path, name, shape->local_key_length,
                    shape->local_value_length, *rotated);
}

static bool any_layer_has(const pi2_tensor_directory *model, const pi2_model_shape *shape, const char *name) {
    for (uint32_t i = 0; i < shape->layer_count && i < PI2_MOST_LAYERS; i++) {
        if (pi2_architecture_tensor(model, i, name)) return true;
    }
    return false;
}

/* Of layers that see everything, whether some has a matrix of values. */
static pi2_status find_values(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    shape->keys_are_values = true;
    for (uint32_t i = 0; i < shape->layer_count && i < PI2_MOST_LAYERS; i++) {
        uint32_t is_local = 0;
        PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, pattern, i, 0, &is_local));
        if (!is_local && pi2_architecture_tensor(model, i, "attn_v.weight")) shape->keys_are_values = false;
    }
    if (!shape->keys_are_values || shape->key_length == shape->value_length) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.attention.key_length is %u and value_length %u, but keys are the values: "
                    "no layer that sees everything has a tensor 'attn_v.weight'", pi2_gguf_file_path(model->gguf, 0),
                    shape->architecture, shape->key_length, shape->value_length);
}

static pi2_status gemma4_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    pi2_decoder_be_gemma(shape, UINT32_MAX);
    shape->attention_scale = 1.0f;
    shape->head_norms = shape->norms_values = shape->needs_rope_factors = true;
    PI2_TRY(read_local(model, shape));
    PI2_TRY(pi2_decoder_read_shared_keys(model, shape, 0));
    PI2_TRY(find_values(model, shape));
    PI2_TRY(pi2_architecture_u32_or(model, name, "embedding_length_per_layer_input", 0, &shape->token_length));
    shape->layers_have_scales = any_layer_has(model, shape, "layer_output_scale.weight");
    if (shape->expert_count) {
        shape->shared_length = shape->feed_forward_length;
        shape->shared_is_dense = shape->experts_have_norms = true;
        shape->experts_have_scales = any_layer_has(model, shape, "ffn_down_exps.scale");
    }
    return pi2_architecture_f32_or(model, name, "final_logit_softcapping", 0.0f, &shape->logit_cap);
}

static pi2_status gemma4_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                    pi2_layer_shape *layer) {
    uint32_t is_local = 0, neurons = 0;
    PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, pattern, number, 0, &is_local));
    PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, "feed_forward_length", number,
                                          shape->feed_forward_length, &neurons));
    layer->block_count = 0;
    if (shape->token_length && number == 0) pi2_layer_add(layer, PI2_BLOCK_token_inputs);
    pi2_layer_add(layer, PI2_BLOCK_attention);
    pi2_decoder_add_ffn(layer, shape, number);
    if (shape->token_length) pi2_layer_add(layer, PI2_BLOCK_token_vector);
    layer->feed_forward_length = neurons;
    if (number >= shape->keyed_layers) layer->kv_layer = shape->keyed_layers - (is_local ? 2 : 1);
    if (!is_local) return PI2_OK;
    layer->key_length = shape->local_key_length;
    layer->value_length = shape->local_value_length;
    layer->rope = 1;
    pi2_decoder_set_window(layer, shape->window);
    return PI2_OK;
}

const pi2_architecture pi2_architecture_gemma4 = {
    .name = "gemma4", .activation = PI2_FFN_gelu, .read_shape = gemma4_read_shape, .read_layer = gemma4_read_layer,
};
