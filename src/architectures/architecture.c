/* architecture.c: the list of families and what they share. */
#include "architectures/architecture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "architectures/gate_sparsity.h"
#include "architectures/powerinfer.h"
#include "base/fail.h"
#include "file_formats/powerinfer_gguf.h"

#define ARCHITECTURE(name) extern const pi2_architecture pi2_architecture_##name;
#include "architectures/architectures.inc"
#undef ARCHITECTURE

static const pi2_architecture *const architectures[] = {
#define ARCHITECTURE(name) &pi2_architecture_##name,
#include "architectures/architectures.inc"
#undef ARCHITECTURE
};

static int shown_length(size_t length) { return (int)(length < 64 ? length : 64); }

static bool string_is(const pi2_gguf_string *string, const char *text) {
    return string->length == strlen(text) && memcmp(string->text, text, string->length) == 0;
}

/* Files that go with a model, and are none. */
static pi2_status refuse_parts_of_models(const pi2_gguf *gguf) {
    static const struct { const char *type, *what; } parts[] = {
        { "adapter", "an adapter (LoRA), what changes a model, which is not computed: merge both, or" },
        { "imatrix", "an importance matrix, by which models are quantised, not a model" } };
    pi2_gguf_string type;
    if (!pi2_gguf_has(gguf, "general.type")) return PI2_OK;
    PI2_TRY(pi2_gguf_string_get(gguf, "general.type", &type));
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (!string_is(&type, parts[i].type)) continue;
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: this is %s: give the model's own file", pi2_gguf_file_path(gguf, 0),
                        parts[i].what);
    }
    return PI2_OK;
}

pi2_status pi2_architecture_find(const pi2_gguf *gguf, const pi2_architecture **architecture_out) {
    *architecture_out = NULL;
    pi2_gguf_string name;
    PI2_TRY(refuse_parts_of_models(gguf));
    PI2_TRY(pi2_gguf_string_get(gguf, "general.architecture", &name));
    if (name.length == 4 && memcmp(name.text, "clip", 4) == 0) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: this is what a model sees or hears with (architecture 'clip', a file "
                        "called mmproj as a rule), not a model: give the model's own file",
                        pi2_gguf_file_path(gguf, 0));
    }
    if (name.length == 6 && memcmp(name.text, "gptoss", 6) == 0) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: this is Ollama's own form of gpt-oss (architecture 'gptoss'), whose "
                        "experts no other program reads: get a file of architecture 'gpt-oss', such as run -hf "
                        "ggml-org/gpt-oss-20b-GGUF", pi2_gguf_file_path(gguf, 0));
    }
    char known[1024] = "";
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
        if (strlen(architectures[i]->name) == name.length &&
            memcmp(architectures[i]->name, name.text, name.length) == 0) {
            *architecture_out = architectures[i];
            return PI2_OK;
        }
        if (architectures[i]->guesses) continue;
        const size_t used = strlen(known);
        (void)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", architectures[i]->name);
    }
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: architecture '%.*s' is not supported; this version runs: %s",
                    pi2_gguf_file_path(gguf, 0), shown_length(name.length), name.text, known);
}

bool pi2_architecture_guesses(const pi2_gguf *gguf) {
    const pi2_architecture *architecture;
    return pi2_architecture_find(gguf, &architecture) == PI2_OK && architecture->guesses;
}

void pi2_model_requests_free(pi2_model_requests *requests) {
    free(requests->groups);
    free(requests->tables);
    memset(requests, 0, sizeof *requests);
}

pi2_status pi2_tensor_directory_open(const pi2_gguf *gguf, const pi2_extent_layout *layout,
                                     pi2_tensor_directory *directory_out) {
    *directory_out = (pi2_tensor_directory){ .gguf = gguf };
    if (!layout) return pi2_powerinfer_directory(directory_out);
    directory_out->matrices = calloc(layout->tensor_count ? layout->tensor_count : 1, sizeof(pi2_gguf_tensor));
    if (!directory_out->matrices) return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of tensors");
    directory_out->matrix_count = layout->tensor_count;
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const pi2_layout_tensor *tensor = &layout->tensors[i];
        directory_out->matrices[i] = (pi2_gguf_tensor){
            .name = tensor->name, .type = tensor->format->type, .dimension_count = 2,
            .dimensions = { tensor->columns, tensor->rows, 1, 1 },
            .bytes = pi2_row_bytes(tensor->format, tensor->columns) * tensor->rows,
        };
    }
    return PI2_OK;
}

void pi2_tensor_directory_close(pi2_tensor_directory *directory) {
    free(directory->matrices);
    free(directory->names);
    memset(directory, 0, sizeof *directory);
}

/* Limits that keep every product in the engine inside its type; far above any model known. */
static pi2_status check_limits(const char *path, const pi2_model_shape *shape) {
    const struct { const char *what; uint64_t value, least, most; } limits[] = {
        { "vocabulary size", shape->vocabulary_size, 1, 1u << 22 },
        { "embedding_length", shape->embedding_length, 1, 1u << 16 },
        { "block_count", shape->layer_count, 1, PI2_MOST_LAYERS },
        { "context_length", shape->context_length, 1, 1u << 26 },
        { "attention.head_count", shape->head_count, 1, 1024 },
        { "attention.head_count_kv", shape->head_count_kv, 1, shape->head_count },
        { "attention.key_length", shape->key_length, 1, PI2_LONGEST_HEAD },
        { "attention.value_length", shape->value_length, 1, PI2_LONGEST_HEAD },
        { "feed_forward_length", shape->feed_forward_length, 1, 1u << 20 },
        { "expert_count", shape->expert_count, 0, 4096 },
        { "expert_used_count", shape->expert_used_count, 0, shape->expert_count },
        { "expert_feed_forward_length", shape->expert_feed_forward_length, shape->expert_count ? 1 : 0, 1u << 20 },
        { "attention.sliding_window", shape->window, 0, 1u << 30 },
        { "embedding_length_per_layer_input", shape->token_length, 0, 1u << 14 },
        { "rope.dimension_count", shape->rope.dimensions, 2, shape->key_length },
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (limits[i].value < limits[i].least || limits[i].value > limits[i].most) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: %s is %llu, which is outside %llu .. %llu", path,
                            limits[i].what, (unsigned long long)limits[i].value,
                            (unsigned long long)limits[i].least, (unsigned long long)limits[i].most);
        }
    }
    return PI2_OK;
}

static pi2_status check_shape(const char *path, const pi2_model_shape *shape) {
    PI2_TRY(check_limits(path, shape));
    if (shape->head_count % shape->head_count_kv != 0 || shape->rope.dimensions % 2 != 0) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: %u heads over %u key-value heads, %u rotated dimensions: these do not divide",
                        path, shape->head_count, shape->head_count_kv, shape->rope.dimensions);
    }
    if (!(shape->norm_epsilon >= 0.0f && shape->norm_epsilon < 1.0f) ||
        !(shape->rope.base > 0.0f && shape->rope.base < 1e12f)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: norm epsilon %g or rope base %g is impossible", path,
                        (double)shape->norm_epsilon, (double)shape->rope.base);
    }
    if (shape->local_rope.dimensions && !(shape->local_rope.base > 0.0f && shape->local_rope.base < 1e12f)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: rope.freq_base_swa %g is impossible", path,
                        (double)shape->local_rope.base);
    }
    return PI2_OK;
}

/* A family that reads no window would let every layer see everything: other results, which nobody would notice. */
static pi2_status check_window(const pi2_tensor_directory *model, const pi2_model_shape *shape) {
    static const char suffix[] = "attention.sliding_window";
    uint32_t window = 0;
    PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, suffix, UINT32_MAX, 0, &window));
    if (shape->window > 0 || window == 0 || window >= shape->context_length) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: key '%s.%s' is %u: windows are not computed in a %s",
                    pi2_gguf_file_path(model->gguf, 0), shape->architecture, suffix, window, shape->architecture);
}

/* Embedding models see what follows, too. */
static pi2_status check_causal(const pi2_tensor_directory *model, const pi2_model_shape *shape) {
    bool is_causal = true;
    PI2_TRY(pi2_architecture_bool_or(model, shape->architecture, "attention.causal", true, &is_causal));
    if (is_causal) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: key '%s.attention.causal' is false: models whose tokens see what follows "
                    "(of embeddings, as a rule) write no text and are not run", pi2_gguf_file_path(model->gguf, 0),
                    shape->architecture);
}

/* Some activations say what becomes of Up, or stand on a Gate that a model was trained with. */
static pi2_status check_ungated(const char *path, const pi2_model_shape *shape) {
    const bool needs_gate = shape->activation == PI2_FFN_drelu || shape->activation == PI2_FFN_gelu_topk ||
                            shape->activation == PI2_FFN_silu_clamped;
    if (!shape->ungated || !needs_gate) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: FFN activation '%s' needs a Gate and an Up, and this model's FFN has no "
                    "tensor 'blk.0.ffn_gate.weight': silu, gelu, relu and relu_squared do without", path,
                    pi2_ffn_activation_name(shape->activation));
}

/* What its magic says, by the key. An architecture that is not ours is refused elsewhere. */
static pi2_status put_powerinfer_activation(pi2_gguf *gguf) {
    const pi2_architecture *architecture;
    pi2_ffn_activation activation;
    if (!pi2_gguf_is_powerinfer(gguf) || pi2_gguf_has(gguf, PI2_KEY_FFN_ACTIVATION)) return PI2_OK;
    if (pi2_architecture_find(gguf, &architecture) != PI2_OK) return PI2_OK;
    PI2_TRY(pi2_architecture_activation(architecture, gguf, &activation));
    return pi2_gguf_put_string(gguf, PI2_KEY_FFN_ACTIVATION, pi2_ffn_activation_name(activation));
}

pi2_status pi2_architecture_put_activation(pi2_gguf *gguf, const char *name) {
    pi2_ffn_activation activation;
    if (!name) return put_powerinfer_activation(gguf);
    if (!pi2_ffn_activation_find(name, strlen(name), &activation)) {
        return pi2_fail(PI2_ERR_INVALID, "FFN activation '%.64s' is none of %s", name, pi2_ffn_activation_names());
    }
    return pi2_gguf_put_string(gguf, PI2_KEY_FFN_ACTIVATION, name);
}

pi2_status pi2_architecture_adapt(pi2_gguf *gguf) {
    const pi2_architecture *architecture;
    if (pi2_architecture_find(gguf, &architecture) != PI2_OK) return PI2_OK;
    if (architecture->fuses_gate) {
        PI2_TRY(pi2_gguf_split_rows(gguf, "ffn_up.weight", "ffn_gate.weight", "ffn_up.weight"));
    }
    PI2_TRY(pi2_gguf_stack_experts(gguf));
    return pi2_gguf_split_rows(gguf, "ffn_gate_up_exps.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight");
}

static void key_of(char key[128], const char *architecture, const char *suffix) {
    (void)snprintf(key, 128, "%s.%s", architecture, suffix);
}

/* Converters write what a model's own configuration calls its activation: BitNet's has squares of ReLU where older
 * files of its family, which say nothing, have SiLU. Other words are what families have anyway. */
static pi2_status read_own_word(const pi2_architecture *architecture, const pi2_gguf *gguf,
                                pi2_ffn_activation *activation_out) {
    char key[128];
    pi2_gguf_string word;
    key_of(key, architecture->name, "hidden_activation");
    if (!pi2_gguf_has(gguf, key)) return PI2_OK;
    PI2_TRY(pi2_gguf_string_get(gguf, key, &word));
    if (string_is(&word, "relu2") || string_is(&word, "relu_squared")) *activation_out = PI2_FFN_relu_squared;
    return PI2_OK;
}

pi2_status pi2_architecture_activation(const pi2_architecture *architecture, const pi2_gguf *gguf,
                                       pi2_ffn_activation *activation_out) {
    pi2_gguf_string name;
    *activation_out = architecture->activation;
    if (pi2_gguf_is_powerinfer(gguf) && !pi2_ffn_activation_is_sparse(architecture->activation)) {
        *activation_out = PI2_FFN_relu;
    }
    PI2_TRY(read_own_word(architecture, gguf, activation_out));
    if (!pi2_gguf_has(gguf, PI2_KEY_FFN_ACTIVATION)) return PI2_OK;
    PI2_TRY(pi2_gguf_string_get(gguf, PI2_KEY_FFN_ACTIVATION, &name));
    if (pi2_ffn_activation_find(name.text, name.length, activation_out)) return PI2_OK;
    char shown[65];
    (void)snprintf(shown, sizeof shown, "%.*s", shown_length(name.length), name.text);
    for (char *c = shown; *c; c++) *c = *c >= ' ' && *c <= '~' ? *c : '?';
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: key '%s' is '%s'; this version computes %s",
                    pi2_gguf_file_path(gguf, 0), PI2_KEY_FFN_ACTIVATION, shown, pi2_ffn_activation_names());
}

/* Layers that attend have as many heads each. */
static pi2_status check_heads(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer) {
    static const char suffix[] = "attention.head_count";
    uint32_t heads = 0;
    PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, suffix, layer, shape->head_count, &heads));
    if (heads == shape->head_count || heads == 0) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: key '%s.%s' has %u for layer %u and %u for another: layers are computed "
                    "with as many heads each", pi2_gguf_file_path(model->gguf, 0), shape->architecture, suffix, heads,
                    layer, shape->head_count);
}

/* What each layer is made of; keys may have a number for each. */
static pi2_status read_layers(const pi2_architecture *architecture, const pi2_tensor_directory *model,
                              pi2_model_shape *shape) {
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        pi2_layer_shape *layer = &shape->layers[i];
        pi2_decoder_layer(shape, i, layer);
        PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, "attention.head_count_kv", i,
                                              shape->head_count_kv, &layer->head_count_kv));
        PI2_TRY(check_heads(model, shape, i));
        if (!pi2_layer_has(layer, PI2_BLOCK_ffn_shared)) {
            PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, "feed_forward_length", i,
                                                  shape->feed_forward_length, &layer->feed_forward_length));
        }
        if (architecture->read_layer) PI2_TRY(architecture->read_layer(model, shape, i, layer));
        if (shape->is_next) pi2_layer_add_first(layer, PI2_BLOCK_next_input);
        const bool has_heads = layer->head_count_kv > 0 && shape->head_count % layer->head_count_kv == 0;
        const pi2_layer_shape *kept = &shape->layers[layer->kv_layer];
        if (kept->kv_layer != layer->kv_layer || kept->head_count_kv != layer->head_count_kv ||
            kept->key_length != layer->key_length || kept->value_length != layer->value_length ||
            kept->window != layer->window) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: layer %u cannot use the keys and values of layer %u, which has "
                            "others, another window or none", pi2_gguf_file_path(model->gguf, 0), i, layer->kv_layer);
        }
        if (pi2_layer_attends(layer) && !has_heads) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: layer %u has %u heads over %u key-value heads: these do not divide",
                            pi2_gguf_file_path(model->gguf, 0), i, shape->head_count, layer->head_count_kv);
        }
        if ((pi2_layer_has(layer, PI2_BLOCK_ffn_dense) || pi2_layer_has(layer, PI2_BLOCK_ffn_shared)) &&
            layer->feed_forward_length == 0) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: feed_forward_length of layer %u is 0",
                            pi2_gguf_file_path(model->gguf, 0), i);
        }
    }
    return PI2_OK;
}

pi2_status pi2_architecture_shape(const pi2_architecture *architecture, const pi2_tensor_directory *model,
                                  pi2_model_shape *shape_out) {
    memset(shape_out, 0, sizeof *shape_out);
    shape_out->architecture = architecture->name;
    PI2_TRY(architecture->read_shape(model, shape_out));
    shape_out->own_activation = architecture->activation;
    PI2_TRY(pi2_architecture_activation(architecture, model->gguf, &shape_out->activation));
    PI2_TRY(check_shape(pi2_gguf_file_path(model->gguf, 0), shape_out));
    PI2_TRY(check_window(model, shape_out));
    PI2_TRY(check_causal(model, shape_out));
    PI2_TRY(check_ungated(pi2_gguf_file_path(model->gguf, 0), shape_out));
    PI2_TRY(read_layers(architecture, model, shape_out));
    return pi2_gate_sparsity_read(model->gguf, shape_out);
}

const pi2_gguf_tensor *pi2_architecture_tensor(const pi2_tensor_directory *model, uint32_t layer,
                                               const char *suffix) {
    char name[96];
    if (layer == UINT32_MAX) (void)snprintf(name, sizeof name, "%s", suffix);
    else (void)snprintf(name, sizeof name, "blk.%u.%s", model->first_layer + layer, suffix);
    for (size_t i = 0; i < model->matrix_count; i++) {
        if (strcmp(model->matrices[i].name, name) == 0) return &model->matrices[i];
    }
    return pi2_gguf_tensor_find(model->gguf, name);
}

pi2_status pi2_architecture_matrix(const pi2_tensor_directory *model, uint32_t layer, const char *suffix,
                                   uint64_t columns, uint64_t rows, const pi2_gguf_tensor **tensor_out) {
    const char *path = pi2_gguf_file_path(model->gguf, 0);
    const pi2_gguf_tensor *tensor = pi2_architecture_tensor(model, layer, suffix);
    *tensor_out = tensor;
    if (!tensor && layer == UINT32_MAX) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' is missing: convert the model again", path, suffix);
    }
    if (!tensor) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor 'blk.%u.%s' is missing: convert the model again", path,
                        model->first_layer + layer, suffix);
    }
    const uint64_t found = tensor->dimensions[1] * tensor->dimensions[2] * tensor->dimensions[3];
    if (tensor->dimensions[0] != columns || found != rows) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' is %llu x %llu, but the metadata says %llu x %llu: "
                        "convert the model again",
                        path, tensor->name, (unsigned long long)tensor->dimensions[0],
                        (unsigned long long)found, (unsigned long long)columns, (unsigned long long)rows);
    }
    return PI2_OK;
}

pi2_status pi2_architecture_u32(const pi2_tensor_directory *model, const char *architecture,
                                const char *suffix, uint32_t *value_out) {
    char key[128];
    key_of(key, architecture, suffix);
    return pi2_gguf_u32(model->gguf, key, value_out);
}

pi2_status pi2_architecture_u32_or(const pi2_tensor_directory *model, const char *architecture,
                                   const char *suffix, uint32_t fallback, uint32_t *value_out) {
    char key[128];
    key_of(key, architecture, suffix);
    return pi2_gguf_u32_or(model->gguf, key, fallback, value_out);
}

pi2_status pi2_architecture_layer_u32_or(const pi2_tensor_directory *model, const char *architecture,
                                         const char *suffix, uint32_t layer, uint32_t fallback, uint32_t *value_out) {
    char key[128];
    pi2_gguf_array array;
    if (layer != UINT32_MAX) layer += model->first_layer;
    key_of(key, architecture, suffix);
    if (!pi2_gguf_is_array(model->gguf, key)) return pi2_gguf_u32_or(model->gguf, key, fallback, value_out);
    PI2_TRY(pi2_gguf_array_get(model->gguf, key, &array));
    if (array.element_type == PI2_GGUF_STRING || array.element_type == PI2_GGUF_ARRAY ||
        (layer != UINT32_MAX && layer >= array.count)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' must have a number for each layer: convert the model again",
                        pi2_gguf_file_path(model->gguf, 0), key);
    }
    uint64_t value = 0;
    for (uint64_t i = 0; i < array.count; i++) {
        const uint64_t one = pi2_gguf_array_u64(&array, i);
        if (layer == UINT32_MAX ? one > value : i == layer) value = one;
    }
    *value_out = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
    return PI2_OK;
}

pi2_status pi2_architecture_f32_or(const pi2_tensor_directory *model, const char *architecture,
                                   const char *suffix, float fallback, float *value_out) {
    char key[128];
    key_of(key, architecture, suffix);
    return pi2_gguf_f32_or(model->gguf, key, fallback, value_out);
}

pi2_status pi2_architecture_bool_or(const pi2_tensor_directory *model, const char *architecture,
                                    const char *suffix, bool fallback, bool *value_out) {
    char key[128];
    key_of(key, architecture, suffix);
    return pi2_gguf_bool_or(model->gguf, key, fallback, value_out);
}

static pi2_status read_yarn(const pi2_tensor_directory *model, const char *name, pi2_rope_shape *rope) {
    rope->yarn = true;
    PI2_TRY(pi2_architecture_f32_or(model, name, "rope.scaling.yarn_beta_fast", 32.0f, &rope->yarn_beta_fast));
    PI2_TRY(pi2_architecture_f32_or(model, name, "rope.scaling.yarn_beta_slow", 1.0f, &rope->yarn_beta_slow));
    return pi2_architecture_u32_or(model, name, "rope.scaling.original_context_length", 0,
                                   &rope->original_context);
}

pi2_status pi2_architecture_read_rope(const pi2_tensor_directory *model, const char *architecture,
                                      pi2_rope_shape *rope) {
    const char *path = pi2_gguf_file_path(model->gguf, 0);
    rope->linear_scale = 1.0f;
    PI2_TRY(pi2_architecture_f32_or(model, architecture, "rope.scaling.attn_factor", 1.0f, &rope->attention_factor));
    PI2_TRY(pi2_architecture_f32_or(model, architecture, "rope.freq_base", 10000.0f, &rope->base));
    float factor = 0.0f;
    PI2_TRY(pi2_architecture_f32_or(model, architecture, "rope.scaling.factor", 0.0f, &factor));
    if (factor == 0.0f) { /* the key of files of 2023 */
        PI2_TRY(pi2_architecture_f32_or(model, architecture, "rope.scale_linear", 0.0f, &factor));
    }
    char key[128];
    key_of(key, architecture, "rope.scaling.type");
    pi2_gguf_string type = { "", 0 };
    if (pi2_gguf_has(model->gguf, key)) PI2_TRY(pi2_gguf_string_get(model->gguf, key, &type));
    else if (factor != 0.0f) type = (pi2_gguf_string){ "linear", 6 };
    rope->has_factors = string_is(&type, "longrope");
    if (type.length == 0 || rope->has_factors || string_is(&type, "none")) return PI2_OK;
    const bool is_yarn = string_is(&type, "yarn");
    if (!is_yarn && !string_is(&type, "linear")) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: %s is '%.*s'; linear, yarn and longrope are "
                        "supported", path, key, shown_length(type.length), type.text);
    }
    if (factor == 0.0f) factor = 1.0f;
    if (!(factor > 0.0f && factor < 1e6f)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: rope.scaling.factor is %g", path, (double)factor);
    }
    rope->linear_scale = 1.0f / factor;
    return is_yarn ? read_yarn(model, architecture, rope) : PI2_OK;
}
