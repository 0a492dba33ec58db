/* synthetic_metadata.c: what a model's file says of itself. */
#include <stdio.h>
#include <string.h>

#include "base/fail.h"
#include "file_formats/gguf.h"
#include "synthetic/synthetic_internal.h"

enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2, SMALLTHINKER_WINDOW = 4096 };

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

static void put_shape(const key_writer *keys, const pi2_synthetic_shape *shape) {
    put_u32(keys, "vocab_size", shape->vocabulary_size);
    put_u32(keys, "context_length", shape->context_length);
    put_u32(keys, "embedding_length", shape->embedding_length);
    put_u32(keys, "block_count", shape->layer_count);
    put_u32(keys, "feed_forward_length", shape->feed_forward_length);
    put_u32(keys, "attention.head_count", shape->head_count);
    put_u32(keys, "attention.head_count_kv", shape->head_count_kv);
    put_u32(keys, "attention.key_length", shape->head_dimension);
    put_u32(keys, "attention.value_length", shape->head_dimension);
    put_u32(keys, "rope.dimension_count", shape->head_dimension);
    put_f32(keys, "rope.freq_base", shape->rope_base);
    put_f32(keys, "attention.layer_norm_rms_epsilon", shape->norm_epsilon);
    if (!shape->expert_count) return;
    put_u32(keys, "expert_count", shape->expert_count);
    put_u32(keys, "expert_used_count", shape->expert_used_count);
    if (strcmp(shape->architecture, "llama") == 0) return;
    put_u32(keys, "expert_feed_forward_length", shape->expert_feed_forward_length);
    if (strcmp(shape->architecture, "smallthinker") == 0) {
        put_u32(keys, "expert_gating_func", GATING_SIGMOID);
        put_u32(keys, "attention.sliding_window", SMALLTHINKER_WINDOW);
    }
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
    put_shape(&keys, shape);
    put_origin(plan, writer);
    return pi2_synthetic_write_vocabulary(plan, writer);
}
