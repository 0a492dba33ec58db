/* tiny_model.c: metadata and tensors of a random llama-like model. */
#include "support/tiny_model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "file_formats/gguf.h"
#include "support/emulator.h"
#include "support/powerinfer_model.h"

static const char chatml_template[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a tiny test model<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

void pi2_tiny_model_options_init(pi2_tiny_model_options *options) {
    *options = (pi2_tiny_model_options){
        .architecture = "llama", .seed = 1, .layer_count = 2, .embedding_length = 256,
        .feed_forward_length = 512, .head_count = 4, .head_count_kv = 2, .context_length = 512,
        .tied_head = true, .head_gain = 3.0f, .rope_base = 10000.0f, .rope_scaling_factor = 4.0f,
        .vocabulary = PI2_TINY_BPE, .chat_template = chatml_template};
    pi2_tiny_model_set_types(options, PI2_Q4_0);
    options->embedding_type = options->head_type = PI2_Q8_0;
}

void pi2_tiny_model_set_types(pi2_tiny_model_options *options, pi2_weight_type type) {
    options->query_type = options->key_type = options->value_type = type;
    options->attention_output_type = type;
    options->gate_type = options->up_type = options->down_type = type;
    options->embedding_type = options->head_type = type;
}

/** FNV-1a: ties a tensor's values to its name. */
static uint64_t hash_name(const char *name) {
    uint64_t hash = 1469598103934665603u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 1099511628211u;
    return hash;
}

/** matrices: stacked in the third dimension; 0: a plain matrix. */
static void add_stack(const pi2_tiny_model_options *options, pi2_gguf_builder *builder,
                      const char *name, pi2_weight_type type, uint64_t columns, uint64_t rows,
                      uint64_t matrices, float gain) {
    const uint64_t dimensions[3] = {columns, rows, matrices};
    const uint64_t count = columns * rows * (matrices ? matrices : 1);
    size_t length = 0;
    unsigned char *data = pi2_tiny_weights(type, count, gain / sqrtf((float)columns),
                                           hash_name(name) ^ options->seed, &length);
    pi2_gguf_builder_tensor(builder, name, (uint32_t)type, matrices ? 3 : 2, dimensions, data, length);
    free(data);
}

static void add_matrix(const pi2_tiny_model_options *options, pi2_gguf_builder *builder,
                       const char *name, pi2_weight_type type, uint64_t columns, uint64_t rows,
                       float gain) {
    add_stack(options, builder, name, type, columns, rows, 0, gain);
}

/** The values are drawn by one name, and go by another. */
static void add_values(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, const char *drawn_by,
                       const char *name, uint64_t length, float middle) {
    uint64_t state = hash_name(drawn_by) ^ options->seed;
    pi2_test_bytes data = {0};
    for (uint64_t i = 0; i < length; i++) {
        const float unit = (float)(pi2_tiny_random(&state) >> 40) / 16777216.0f;
        pi2_test_bytes_add_f32(&data, middle + 0.2f * (unit - 0.5f));
    }
    pi2_gguf_builder_tensor(builder, name, PI2_F32, 1, &length, data.data, data.length);
    pi2_test_bytes_free(&data);
}

/** Norms lie around 1, biases around 0. */
static void add_vector(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, const char *name,
                       uint64_t length, float middle) {
    add_values(options, builder, name, name, length, middle);
}

static uint32_t head_dimension(const pi2_tiny_model_options *options) {
    return options->head_dimension ? options->head_dimension
                                   : options->embedding_length / options->head_count;
}

/** The values are those of stacks; the matrices of an expert lie together, as in files of 2023. */
static void add_experts_apart(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, uint32_t layer,
                              uint64_t neurons) {
    const uint64_t width = options->embedding_length, experts = options->expert_count;
    const struct { const char *kind; pi2_weight_type type; uint64_t columns, rows; } kinds[] = {
        { "ffn_gate", options->gate_type, width, neurons }, { "ffn_down", options->down_type, neurons, width },
        { "ffn_up", options->up_type, width, neurons } };
    enum { KINDS = sizeof kinds / sizeof kinds[0] };
    unsigned char *stacks[KINDS];
    size_t lengths[KINDS];
    char name[64];
    for (size_t k = 0; k < KINDS; k++) {
        (void)snprintf(name, sizeof name, "blk.%u.%s_exps.weight", layer, kinds[k].kind);
        stacks[k] = pi2_tiny_weights(kinds[k].type, width * neurons * experts, 1.0f / sqrtf((float)kinds[k].columns),
                                     hash_name(name) ^ options->seed, &lengths[k]);
        lengths[k] /= experts;
    }
    for (uint32_t e = 0; e < experts; e++) {
        for (size_t k = 0; k < KINDS; k++) {
            (void)snprintf(name, sizeof name, "blk.%u.%s.%u.weight", layer, kinds[k].kind, e);
            pi2_gguf_builder_tensor(builder, name, (uint32_t)kinds[k].type, 2,
                                    (const uint64_t[]){ kinds[k].columns, kinds[k].rows }, stacks[k] + e * lengths[k],
                                    lengths[k]);
        }
    }
    for (size_t k = 0; k < KINDS; k++) free(stacks[k]);
}

static void add_experts(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, uint32_t layer) {
    const uint64_t embedding = options->embedding_length, experts = options->expert_count;
    const uint64_t ffn = options->expert_feed_forward_length ? options->expert_feed_forward_length
                                                             : options->feed_forward_length;
    char name[64];
    (void)snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", layer);
    add_matrix(options, builder, name, PI2_F32, embedding, experts, 2.0f);
    if (options->experts_apart) return add_experts_apart(options, builder, layer, ffn);
    (void)snprintf(name, sizeof name, "blk.%u.ffn_gate_exps.weight", layer);
    add_stack(options, builder, name, options->gate_type, embedding, ffn, experts, 1.0f);
    (void)snprintf(name, sizeof name, "blk.%u.ffn_up_exps.weight", layer);
    add_stack(options, builder, name, options->up_type, embedding, ffn, experts, 1.0f);
    (void)snprintf(name, sizeof name, "blk.%u.ffn_down_exps.weight", layer);
    add_stack(options, builder, name, options->down_type, ffn, embedding, experts, 1.0f);
}

static bool is_falcon(const pi2_tiny_model_options *options) { return strcmp(options->architecture, "falcon") == 0; }
static bool is_opt(const pi2_tiny_model_options *options) { return strcmp(options->architecture, "opt") == 0; }
static bool has_layer_norms(const pi2_tiny_model_options *options) { return is_falcon(options) || is_opt(options); }

/** Matrices that other families have. */
static bool is_left_out(const pi2_tiny_model_options *options, const char *name) {
    if (strcmp(name, "ffn_gate") == 0) return options->ungated || is_falcon(options) || is_opt(options);
    if (strcmp(name, "attn_qkv") == 0) return !is_falcon(options);
    return is_falcon(options) && (strcmp(name, "attn_q") == 0 || strcmp(name, "attn_k") == 0 ||
                                  strcmp(name, "attn_v") == 0);
}

static void add_norm(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, uint32_t layer,
                     const char *stem) {
    char name[64];
    (void)snprintf(name, sizeof name, "blk.%u.%s.weight", layer, stem);
    add_vector(options, builder, name, options->embedding_length, 1.0f);
    (void)snprintf(name, sizeof name, "blk.%u.%s.bias", layer, stem);
    if (has_layer_norms(options)) add_vector(options, builder, name, options->embedding_length, 0.0f);
}

static void add_layer(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, uint32_t layer) {
    const uint64_t embedding = options->embedding_length, ffn = options->feed_forward_length;
    const uint64_t query = (uint64_t)options->head_count * head_dimension(options);
    const uint64_t key = (uint64_t)options->head_count_kv * head_dimension(options);
    const struct {
        const char *name;
        pi2_weight_type type;
        uint64_t columns, rows;
        bool has_bias;
    } matrices[] = {
        {"attn_q", options->query_type, embedding, query, options->attention_biases},
        {"attn_k", options->key_type, embedding, key, options->attention_biases},
        {"attn_v", options->value_type, embedding, key, options->attention_biases},
        {"attn_qkv", options->query_type, embedding, query + 2 * key, false},
        {"attn_output", options->attention_output_type, query, embedding, options->attention_biases},
        {"ffn_gate", options->gate_type, embedding, ffn, options->feed_forward_biases},
        {"ffn_up", options->up_type, embedding, ffn, options->feed_forward_biases},
        {"ffn_down", options->down_type, ffn, embedding, options->feed_forward_biases},
    };
    const bool by_neuron = options->down_by_neuron || options->predictor_rank;
    const bool is_idle = layer >= options->idle_first && layer < options->idle_end;
    char name[64];
    add_norm(options, builder, layer, "attn_norm");
    if (!is_falcon(options)) add_norm(options, builder, layer, "ffn_norm");
    if (options->two_norms) add_norm(options, builder, layer, "attn_norm_2");
    if (options->head_norms) {
        (void)snprintf(name, sizeof name, "blk.%u.attn_q_norm.weight", layer);
        add_vector(options, builder, name, head_dimension(options), 1.0f);
        (void)snprintf(name, sizeof name, "blk.%u.attn_k_norm.weight", layer);
        add_vector(options, builder, name, head_dimension(options), 1.0f);
    }
    if (options->expert_count) add_experts(options, builder, layer);
    const size_t count = options->expert_count ? 5 : sizeof matrices / sizeof matrices[0] - by_neuron;
    for (size_t i = 0; i < count; i++) {
        if (is_left_out(options, matrices[i].name)) continue;
        (void)snprintf(name, sizeof name, "blk.%u.%s.weight", layer, matrices[i].name);
        add_matrix(options, builder, name, matrices[i].type, matrices[i].columns, matrices[i].rows,
                   is_idle && (i == 4 || i == 7) ? 0.0f : 1.0f);
        if (!matrices[i].has_bias && !is_opt(options)) continue;
        (void)snprintf(name, sizeof name, "blk.%u.%s.bias", layer, matrices[i].name);
        add_vector(options, builder, name, matrices[i].rows, 0.0f);
    }
    if (by_neuron) pi2_powerinfer_add_down(options, builder, layer);
    if (by_neuron && is_opt(options)) {
        (void)snprintf(name, sizeof name, "blk.%u.ffn_down%s.bias", layer, options->predictor_rank ? "_t" : "");
        add_values(options, builder, "ffn_down.bias", name, embedding, 0.0f);
    }
    if (options->predictor_rank) pi2_powerinfer_add_predictor(options, builder, layer);
}

static const char *key(const pi2_tiny_model_options *options, const char *suffix) {
    static char text[128];
    (void)snprintf(text, sizeof text, "%s.%s", options->architecture, suffix);
    return text;
}

static void add_rope(const pi2_tiny_model_options *options, pi2_gguf_builder *builder) {
    const uint32_t dimensions = options->rope_dimension_count ? options->rope_dimension_count
                                                              : head_dimension(options);
    pi2_gguf_builder_u32(builder, key(options, "rope.dimension_count"), dimensions);
    pi2_gguf_builder_f32(builder, key(options, "rope.freq_base"), options->rope_base);
    if (!options->rope_scaling) return;
    if (strcmp(options->rope_scaling, "llama3") == 0) {
        const uint64_t count = dimensions / 2;
        pi2_test_bytes factors = {0};
        for (uint64_t i = 0; i < count; i++) {
            pi2_test_bytes_add_f32(&factors, 1.0f + 7.0f * (float)i / (float)count);
        }
        pi2_gguf_builder_tensor(builder, "rope_freqs.weight", PI2_F32, 1, &count, factors.data,
                                factors.length);
        pi2_test_bytes_free(&factors);
        return;
    }
    pi2_gguf_builder_string(builder, key(options, "rope.scaling.type"), options->rope_scaling);
    pi2_gguf_builder_f32(builder, key(options, "rope.scaling.factor"), options->rope_scaling_factor);
    if (strcmp(options->rope_scaling, "yarn") == 0) {
        pi2_gguf_builder_u32(builder, key(options, "rope.scaling.original_context_length"),
                             options->rope_original_context ? options->rope_original_context
                                                            : options->context_length / 4);
    }
}

static void add_gate_values(pi2_gguf_builder *builder, const char *name, const float *values, uint32_t count) {
    if (!values) return;
    if (count == 0) {
        pi2_gguf_builder_f32(builder, name, values[0]);
        return;
    }
    pi2_test_bytes bytes = {0};
    for (uint32_t i = 0; i < count; i++) pi2_test_bytes_add_f32(&bytes, values[i]);
    pi2_gguf_builder_array(builder, name, PI2_GGUF_F32, count, &bytes);
    pi2_test_bytes_free(&bytes);
}

static void add_metadata(const pi2_tiny_model_options *options, pi2_gguf_builder *builder) {
    pi2_gguf_builder_string(builder, "general.architecture", options->architecture);
    pi2_gguf_builder_string(builder, "general.name", "Tiny Test Model");
    pi2_gguf_builder_u32(builder, key(options, "block_count"), options->layer_count);
    pi2_gguf_builder_u32(builder, key(options, "context_length"), options->context_length);
    pi2_gguf_builder_u32(builder, key(options, "embedding_length"), options->embedding_length);
    pi2_gguf_builder_u32(builder, key(options, "feed_forward_length"), options->feed_forward_length);
    pi2_gguf_builder_u32(builder, key(options, "attention.head_count"), options->head_count);
    pi2_gguf_builder_u32(builder, key(options, "attention.head_count_kv"), options->head_count_kv);
    pi2_gguf_builder_f32(builder, key(options, "attention.layer_norm_rms_epsilon"), 1e-5f);
    if (has_layer_norms(options)) pi2_gguf_builder_f32(builder, key(options, "attention.layer_norm_epsilon"), 0.1f);
    if (options->expert_count) {
        pi2_gguf_builder_u32(builder, key(options, "expert_count"), options->expert_count);
        pi2_gguf_builder_u32(builder, key(options, "expert_used_count"), options->expert_used_count);
        if (options->expert_feed_forward_length) {
            pi2_gguf_builder_u32(builder, key(options, "expert_feed_forward_length"),
                                 options->expert_feed_forward_length);
        }
    }
    if (options->ffn_activation) {
        pi2_gguf_builder_string(builder, PI2_KEY_FFN_ACTIVATION, options->ffn_activation);
    }
    add_gate_values(builder, PI2_KEY_GATE_SPARSITY, options->gate_sparsity, options->gate_values);
    add_gate_values(builder, PI2_KEY_GATE_DEVIATIONS, options->gate_deviations, options->gate_values);
    if (options->expert_gating) {
        pi2_gguf_builder_u32(builder, key(options, "expert_gating_func"), options->expert_gating);
    }
    if (options->window) {
        pi2_gguf_builder_u32(builder, key(options, "attention.sliding_window"), options->window);
    }
    if (options->head_dimension) {
        pi2_gguf_builder_u32(builder, key(options, "attention.key_length"), options->head_dimension);
        pi2_gguf_builder_u32(builder, key(options, "attention.value_length"), options->head_dimension);
    }
}

void pi2_tiny_model_build(const pi2_tiny_model_options *options, pi2_gguf_builder *builder) {
    pi2_gguf_builder_init(builder);
    if (options->predictor_rank) {
        builder->magic = "PWRI";
        pi2_gguf_builder_f32(builder, "powerinfer.sparse_threshold", 0.0f);
    }
    add_metadata(options, builder);
    const uint32_t tokens = pi2_tiny_vocabulary_add(options, builder);
    pi2_gguf_builder_u32(builder, key(options, "vocab_size"), tokens);
    add_matrix(options, builder, "token_embd.weight", options->embedding_type,
               options->embedding_length, tokens, 3.0f);
    if (is_opt(options)) {
        add_matrix(options, builder, "position_embd.weight", options->embedding_type, options->embedding_length,
                   options->context_length + 2, 3.0f);
    } else {
        add_rope(options, builder);
    }
    for (uint32_t layer = 0; layer < options->layer_count; layer++) add_layer(options, builder, layer);
    add_vector(options, builder, "output_norm.weight", options->embedding_length, 1.0f);
    if (has_layer_norms(options)) add_vector(options, builder, "output_norm.bias", options->embedding_length, 0.0f);
    if (!options->tied_head) {
        add_matrix(options, builder, "output.weight", options->head_type, options->embedding_length,
                   tokens, options->head_gain);
    }
}

int pi2_tiny_model_write(const pi2_tiny_model_options *options, const char *path) {
    pi2_gguf_builder builder;
    pi2_tiny_model_build(options, &builder);
    const int error = pi2_gguf_builder_write(&builder, path);
    pi2_gguf_builder_free(&builder);
    return error;
}

int pi2_tiny_model_write_apart(const pi2_tiny_model_options *options, const char *path) {
    if (PI2_UNDER_EMULATOR) return pi2_tiny_model_write(options, path);
    const pid_t child = fork();
    if (child == 0) _exit(pi2_tiny_model_write(options, path));
    int result = -1;
    if (child < 0 || waitpid(child, &result, 0) != child) return errno;
    return WIFEXITED(result) ? WEXITSTATUS(result) : ECHILD;
}
