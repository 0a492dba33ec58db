/*
 * eagle3.c: EAGLE-3 (arXiv 2503.01840), a layer that guesses for another model. It is given what some layers of that
 * model read, of three as a rule, joins them by one matrix, and goes on by itself with what it gave. Its head has rows
 * of frequent tokens alone, and d2t says which these are. Files as llama.cpp's converter makes them.
 */
#include <stdio.h>

#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status read_layers(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *path = pi2_gguf_file_path(model->gguf, 0);
    const char *key = pi2_gguf_has(model->gguf, "eagle3.target_layers") ? "eagle3.target_layers"
                                                                        : "eagle3.extract_layers"; /* of older ones */
    pi2_gguf_array layers;
    PI2_TRY(pi2_gguf_array_get(model->gguf, key, &layers));
    if (layers.count < 1 || layers.count > PI2_MOST_FEATURES) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' names %llu layers, which is outside 1 .. %d", path, key,
                        (unsigned long long)layers.count, PI2_MOST_FEATURES);
    }
    shape->feature_count = (uint32_t)layers.count;
    for (uint32_t i = 0; i < shape->feature_count; i++) {
        const uint64_t layer = pi2_gguf_array_u64(&layers, i);
        if (layer > PI2_MOST_LAYERS) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' names layer %llu, which is outside 0 .. %d", path, key,
                            (unsigned long long)layer, PI2_MOST_LAYERS);
        }
        shape->feature_layers[i] = (uint32_t)layer;
    }
    PI2_TRY(pi2_architecture_u32_or(model, "eagle3", "target_hidden_size", shape->embedding_length,
                                    &shape->feature_length));
    if (shape->feature_length >= 1 && shape->feature_length <= 1u << 16) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: eagle3.target_hidden_size is %u, which is outside 1 .. %u", path,
                    shape->feature_length, 1u << 16);
}

/* Of what is told of such files, the rest is as everywhere. */
static pi2_status refuse_others(const pi2_tensor_directory *model, const pi2_model_shape *shape) {
    static const char *const keys[] = { "fc_norm", "norm_output" };
    const char *path = pi2_gguf_file_path(model->gguf, 0);
    if (shape->layer_count != 1) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: eagle3.block_count is %u; one layer that guesses is computed", path,
                        shape->layer_count);
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        bool is_set = false;
        PI2_TRY(pi2_architecture_bool_or(model, "eagle3", keys[i], false, &is_set));
        if (is_set) {
            return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: eagle3.%s is set: this variant is not computed", path, keys[i]);
        }
    }
    return pi2_decoder_refuse_experts(model, shape);
}

static pi2_status read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *path = pi2_gguf_file_path(model->gguf, 0);
    PI2_TRY(pi2_decoder_read_keys(model, shape));
    PI2_TRY(refuse_others(model, shape));
    PI2_TRY(read_layers(model, shape));
    PI2_TRY(pi2_architecture_bool_or(model, "eagle3", "norm_before_residual", false, &shape->normed_residual));
    PI2_TRY(pi2_architecture_bool_or(model, "eagle3", "norm_before_fc", false, &shape->features_have_norm));
    const pi2_gguf_tensor *head = pi2_architecture_tensor(model, UINT32_MAX, "output.weight");
    const pi2_gguf_tensor *rows = pi2_architecture_tensor(model, UINT32_MAX, "token_embd.weight");
    if (!head) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'output.weight' is missing: a layer that guesses with the "
                        "other model's head is not computed", path);
    }
    shape->vocabulary_size = head->dimensions[1] <= UINT32_MAX ? (uint32_t)head->dimensions[1] : 0;
    shape->borrows_rows = rows == NULL;
    if (rows) shape->token_ids = rows->dimensions[1] <= 1u << 22 ? (uint32_t)rows->dimensions[1] : 0;
    if (shape->borrows_rows && shape->feature_length != shape->embedding_length) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: it has no tensor 'token_embd.weight', and the other model's rows have %u "
                        "floats where its own layer has %u", path, shape->feature_length, shape->embedding_length);
    }
    return PI2_OK;
}

static pi2_status read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                             pi2_layer_shape *layer) {
    (void)model;
    (void)shape;
    (void)number;
    for (uint32_t i = 0; i < layer->block_count; i++) {
        if (layer->blocks[i] == PI2_BLOCK_attention) layer->blocks[i] = PI2_BLOCK_attention_features;
    }
    return PI2_OK;
}

const pi2_architecture pi2_architecture_eagle3 = {
    .name = "eagle3", .guesses = true, .activation = PI2_FFN_silu, .read_shape = read_shape, .read_layer = read_layer,
};
