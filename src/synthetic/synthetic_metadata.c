/* synthetic_metadata.c: what a model's file says of itself. */
#include <stdio.h>
#include <string.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "file_formats/gguf.h"
#include "synthetic/synthetic_internal.h"

enum { GATING_SIGMOID = 2, SMALLTHINKER_WINDOW = 4096 };

typedef struct key_writer {
    pi2_gguf_writer *writer;
    const char *architecture;
} key_writer;

static void put_u32(const key_writer *keys, const char *suffix, uint32_t value) {
    char key[96];
    (void)snprintf(key, sizeof key, "%s.%s", keys->architecture, suffix);
    pi2_gguf_writer_u32(keys->writer, key, value);
}

static void put_f32(const key_writer *keys, const char *suffix, float value) {
    char key[96];
    (void)snprintf(key, sizeof key, "%s.%s", keys->architecture, suffix);
    pi2_gguf_writer_f32(keys->writer, key, value);
}

/** A number for each layer: `value` where the layer is of that kind, else 0. */
static void put_of_kind(const key_writer *keys, const pi2_synthetic_shape *shape, const char *suffix, char kind,
                        uint32_t value) {
    char key[96];
    const uint32_t zero = 0;
    (void)snprintf(key, sizeof key, "%s.%s", keys->architecture, suffix);
    const size_t at = pi2_gguf_writer_array(keys->writer, key, PI2_GGUF_I32, shape->layer_count, NULL);
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        uint8_t bytes[4];
        pi2_store_le32(bytes, pi2_synthetic_layer_kind(shape, i) == kind ? value : zero);
        pi2_gguf_writer_patch(keys->writer, at + 4 * (size_t)i, bytes, sizeof bytes);
    }
}

/** How pairs are shared by a place's three coordinates, which are alike in a text; other engines want it. */
static void put_sections(const key_writer *keys, uint32_t pairs) {
    const uint32_t least = pairs / 3, more = (pairs - least) / 2;
    const uint32_t sections[4] = { pairs - least - more, more, least, 0 };
    uint8_t bytes[sizeof sections];
    char key[96];
    for (size_t i = 0; i < 4; i++) pi2_store_le32(bytes + 4 * i, sections[i]);
    (void)snprintf(key, sizeof key, "%s.rope.dimension_sections", keys->architecture);
    (void)pi2_gguf_writer_array(keys->writer, key, PI2_GGUF_I32, 4, bytes);
}

static void put_heads(const key_writer *keys, const pi2_synthetic_plan *plan) {
    const pi2_synthetic_shape *shape = &plan->shape;
    const bool is_latent = shape->latent_length > 0;
    put_u32(keys, "attention.head_count", shape->head_count);
    if (plan->family->heads_by_layer) put_of_kind(keys, shape, "attention.head_count_kv", 'A', shape->head_count_kv);
    else if (!shape->full_head_count_kv) put_u32(keys, "attention.head_count_kv", is_latent ? 1 : shape->head_count_kv);
    put_u32(keys, "attention.key_length", is_latent ? shape->latent_length + shape->rope_dimensions
                                                    : shape->head_dimension);
    put_u32(keys, "attention.value_length", is_latent ? shape->latent_length : shape->head_dimension);
    if (is_latent) {
        put_u32(keys, "attention.q_lora_rank", shape->latent_query_length);
        put_u32(keys, "attention.kv_lora_rank", shape->latent_length);
        put_u32(keys, "attention.key_length_mla", shape->head_dimension);
        put_u32(keys, "attention.value_length_mla", shape->head_dimension);
    }
    put_u32(keys, "rope.dimension_count", pi2_synthetic_rotated(shape));
    put_f32(keys, "rope.freq_base", shape->rope_base);
    if (plan->family->gated_queries && !plan->family->joins_strengths) put_sections(keys, shape->rope_dimensions / 2);
    if (shape->window) put_u32(keys, "attention.sliding_window", shape->window);
    if (shape->yarn_factor == 0.0f) return;
    char key[96];
    (void)snprintf(key, sizeof key, "%s.rope.scaling.type", keys->architecture);
    pi2_gguf_writer_string(keys->writer, key, "yarn");
    put_f32(keys, "rope.scaling.factor", shape->yarn_factor);
    put_u32(keys, "rope.scaling.original_context_length", shape->yarn_context);
}

static void put_gemma(const key_writer *keys, const pi2_synthetic_shape *shape) {
    const uint32_t layers = shape->layer_count;
    char key[96];
    if (shape->full_head_count_kv) {
        (void)snprintf(key, sizeof key, "%s.attention.head_count_kv", keys->architecture);
        const size_t at = pi2_gguf_writer_array(keys->writer, key, PI2_GGUF_I32, layers, NULL);
        for (uint32_t i = 0; i < layers; i++) {
            uint8_t bytes[4];
            pi2_store_le32(bytes, pi2_synthetic_layer_kind(shape, i) == 'W' ? shape->head_count_kv
                                                                            : shape->full_head_count_kv);
            pi2_gguf_writer_patch(keys->writer, at + 4 * (size_t)i, bytes, sizeof bytes);
        }
    }
    (void)snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", keys->architecture);
    const size_t at = pi2_gguf_writer_array(keys->writer, key, PI2_GGUF_BOOL, layers, NULL);
    for (uint32_t i = 0; i < layers; i++) {
        const uint8_t is_local = pi2_synthetic_layer_kind(shape, i) == 'W';
        pi2_gguf_writer_patch(keys->writer, at + i, &is_local, 1);
    }
    const bool has_keyless = shape->keyed_layers && shape->keyed_layers < layers;
    put_u32(keys, "attention.key_length_swa", shape->local_head_dimension);
    put_u32(keys, "attention.value_length_swa", shape->local_head_dimension);
    put_u32(keys, "rope.dimension_count_swa", shape->local_head_dimension);
    put_f32(keys, "rope.freq_base_swa", shape->local_rope_base);
    put_u32(keys, "attention.shared_kv_layers", has_keyless ? layers - shape->keyed_layers : 0);
    put_u32(keys, "embedding_length_per_layer_input", shape->token_length);
    put_f32(keys, "final_logit_softcapping", shape->logit_cap);
}

static void put_mixer(const key_writer *keys, const pi2_synthetic_shape *shape) {
    if (!shape->convolution_taps) return;
    if (!shape->mix_value_heads) {
        put_u32(keys, "shortconv.l_cache", shape->convolution_taps);
        return;
    }
    put_u32(keys, "ssm.conv_kernel", shape->convolution_taps);
    put_u32(keys, "ssm.inner_size", shape->mix_value_heads * shape->mix_head_length);
    put_u32(keys, "ssm.state_size", shape->mix_state_length ? shape->mix_state_length : shape->mix_head_length);
    put_u32(keys, "ssm.time_step_rank", shape->mix_value_heads);
    put_u32(keys, "ssm.group_count", shape->mix_key_heads);
    if (!shape->mix_state_length) put_u32(keys, "full_attention_interval", (uint32_t)strlen(shape->layer_pattern));
}

static void put_experts(const key_writer *keys, const pi2_synthetic_plan *plan) {
    const pi2_synthetic_shape *shape = &plan->shape;
    put_u32(keys, "expert_count", shape->expert_count);
    put_u32(keys, "expert_used_count", shape->expert_used_count);
    if (strcmp(shape->architecture, "llama") == 0) return;
    put_u32(keys, "expert_feed_forward_length", shape->expert_feed_forward_length);
    if (shape->leading_dense) put_u32(keys, "leading_dense_block_count", shape->leading_dense);
    if (shape->shared_length) {
        put_u32(keys, "expert_shared_feed_forward_length", shape->shared_length);
        put_u32(keys, "expert_shared_count", shape->latent_length
                                                 ? shape->shared_length / shape->expert_feed_forward_length : 1);
    }
    if (plan->family->router_has_bias) put_u32(keys, "expert_gating_func", GATING_SIGMOID);
    if (shape->expert_scale > 0.0f) {
        char key[96];
        (void)snprintf(key, sizeof key, "%s.expert_weights_norm", keys->architecture);
        pi2_gguf_writer_bool(keys->writer, key, true);
        put_f32(keys, "expert_weights_scale", shape->expert_scale);
    }
    if (strcmp(shape->architecture, "smallthinker") == 0) {
        put_u32(keys, "expert_gating_func", GATING_SIGMOID);
        put_u32(keys, "attention.sliding_window", SMALLTHINKER_WINDOW);
    }
}

static void put_shape(const key_writer *keys, const pi2_synthetic_plan *plan) {
    const pi2_synthetic_shape *shape = &plan->shape;
    put_u32(keys, "vocab_size", shape->vocabulary_size);
    put_u32(keys, "context_length", shape->context_length);
    put_u32(keys, "embedding_length", shape->embedding_length);
    put_u32(keys, "block_count", shape->layer_count);
    if (plan->family->one_block) {
        put_of_kind(keys, shape, "feed_forward_length", 'F', shape->expert_feed_forward_length);
        put_f32(keys, "attention.layer_norm_epsilon", shape->norm_epsilon);
    } else {
        put_u32(keys, "feed_forward_length", shape->feed_forward_length);
    }
    put_heads(keys, plan);
    put_f32(keys, "attention.layer_norm_rms_epsilon", shape->norm_epsilon);
    put_mixer(keys, shape);
    if (plan->family->is_gemma) put_gemma(keys, shape);
    if (shape->expert_count) put_experts(keys, plan);
}

/** So that a figure measured on this file can say what was asked for. */
static void put_origin(const pi2_synthetic_plan *plan, pi2_gguf_writer *writer) {
    pi2_gguf_writer_string(writer, "powerinfer2.synthetic.type", plan->options->type);
    pi2_gguf_writer_u64(writer, "powerinfer2.synthetic.seed", plan->options->seed);
    if (plan->shape.ffn_activation) {
        pi2_gguf_writer_string(writer, PI2_KEY_FFN_ACTIVATION, plan->shape.ffn_activation);
    }
    if (plan->neurons.is_planted) {
        pi2_gguf_writer_f32(writer, "powerinfer2.synthetic.ffn_zeros", (float)plan->shape.ffn_zeros);
        pi2_gguf_writer_f32(writer, "powerinfer2.synthetic.ffn_zeros_last", (float)plan->shape.ffn_zeros_last);
        pi2_gguf_writer_f32(writer, "powerinfer2.synthetic.neuron_hot", (float)plan->shape.neuron_hot);
        pi2_gguf_writer_f32(writer, "powerinfer2.synthetic.neuron_repeat", (float)plan->shape.neuron_repeat);
    }
    if (!plan->shape.expert_count) return;
    pi2_gguf_writer_f32(writer, "powerinfer2.synthetic.expert_skew", (float)plan->shape.expert_skew);
    pi2_gguf_writer_f32(writer, "powerinfer2.synthetic.expert_repeat", (float)plan->shape.expert_repeat);
}

pi2_status pi2_synthetic_write_metadata(const pi2_synthetic_plan *plan, uint32_t file_type,
                                        pi2_gguf_writer *writer) {
    const pi2_synthetic_shape *shape = &plan->shape;
    const key_writer keys = { writer, shape->architecture };
    char name[128];
    (void)snprintf(name, sizeof name, "%s (synthetic)", shape->name);
    pi2_gguf_writer_string(writer, "general.architecture", shape->architecture);
    pi2_gguf_writer_string(writer, "general.type", "model");
    pi2_gguf_writer_string(writer, "general.name", name);
    pi2_gguf_writer_u32(writer, "general.file_type", file_type);
    pi2_gguf_writer_u32(writer, "general.quantization_version", 2);
    put_shape(&keys, plan);
    put_origin(plan, writer);
    return pi2_synthetic_write_vocabulary(plan, writer);
}
