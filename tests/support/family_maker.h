/* family_maker.h: what the families' tiny models have in common: keys and tensors, all random. */
#ifndef PI2_TESTS_SUPPORT_FAMILY_MAKER_H
#define PI2_TESTS_SUPPORT_FAMILY_MAKER_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/tiny_model.h"

enum { HEADS = 4, KV_HEADS = 2, HEAD = 16, LONG_HEAD = 32, LAYERS = 4, MOST_LARGE_LAYERS = 8, WINDOW = 12,
       CONTEXT = 128, EXPERTS = 6, USED = 2, TAPS = 4, MIX_KEY_HEADS = 2, MIX_VALUE_HEADS = 4, MIX_HEAD = 16,
       MIX_STATE = 24 };

/* What a model's size makes larger. */
#define WIDTH (64u * m->scale)
#define NEURONS (96u * m->scale)
#define EXPERT_NEURONS (m->scale > 1 ? 32u * m->scale / 2 : 64u)

typedef struct maker {
    pi2_gguf_builder *builder;
    const char *architecture;
    pi2_weight_type type;
    uint32_t scale, layers, heads, kv_heads, head, rotated, neurons;
    uint32_t layer; /* whose tensors are added; UINT32_MAX: the model's */
    uint32_t tokens; /* of the vocabulary */
    uint32_t values; /* of a head; 0: as many as its key has */
} maker;

/* ---- keys ---- */

static inline const char *key(const maker *m, const char *suffix) {
    static char text[128];
    (void)snprintf(text, sizeof text, "%s.%s", m->architecture, suffix);
    return text;
}

static inline void put(const maker *m, const char *suffix, uint32_t value) {
    pi2_gguf_builder_u32(m->builder, key(m, suffix), value);
}

static inline void put_float(const maker *m, const char *suffix, float value) {
    pi2_gguf_builder_f32(m->builder, key(m, suffix), value);
}

static inline void put_bool(const maker *m, const char *suffix, bool value) {
    pi2_gguf_builder_bool(m->builder, key(m, suffix), value);
}

static inline void put_each(const maker *m, const char *suffix, const uint32_t *values) {
    pi2_test_bytes bytes = { 0 };
    for (uint32_t i = 0; i < m->layers; i++) pi2_test_bytes_add_u32(&bytes, values[i]);
    pi2_gguf_builder_array(m->builder, key(m, suffix), PI2_TEST_GGUF_I32, m->layers, &bytes);
    pi2_test_bytes_free(&bytes);
}

/* Keys that all have; key-value heads may differ from layer to layer. */
static inline void put_common(const maker *m, const uint32_t *kv_heads) {
    pi2_gguf_builder_string(m->builder, "general.architecture", m->architecture);
    pi2_gguf_builder_string(m->builder, "general.name", "Tiny Test Model");
    put(m, "block_count", m->layers);
    put(m, "context_length", CONTEXT);
    put(m, "embedding_length", WIDTH);
    if (m->neurons) put(m, "feed_forward_length", m->neurons);
    put(m, "attention.head_count", m->heads);
    if (kv_heads) put_each(m, "attention.head_count_kv", kv_heads);
    else put(m, "attention.head_count_kv", m->kv_heads);
    put(m, "attention.key_length", m->head);
    put(m, "attention.value_length", m->values ? m->values : m->head);
    put(m, "rope.dimension_count", m->rotated);
    put_float(m, "rope.freq_base", 1000.0f);
    put_float(m, "attention.layer_norm_rms_epsilon", 1e-5f);
}

static inline void put_experts(const maker *m) {
    put(m, "expert_count", EXPERTS);
    put(m, "expert_used_count", USED);
    put(m, "expert_feed_forward_length", EXPERT_NEURONS);
}

/* ---- tensors ---- */

static inline uint64_t hash_name(const char *name) {
    uint64_t hash = 1469598103934665603u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 1099511628211u;
    return hash;
}

static inline const char *full_name(const maker *m, const char *name) {
    static char text[96];
    if (m->layer == UINT32_MAX) (void)snprintf(text, sizeof text, "%s", name);
    else (void)snprintf(text, sizeof text, "blk.%u.%s", m->layer, name);
    return text;
}

/* matrices: stacked; 0: one. */
static inline void stack_of(const maker *m, const char *name, pi2_weight_type type, uint64_t columns, uint64_t rows,
                     uint64_t matrices, float gain) {
    const uint64_t dimensions[3] = { columns, rows, matrices };
    const char *full = full_name(m, name);
    size_t length = 0;
    unsigned char *data = pi2_tiny_weights(type, columns * rows * (matrices ? matrices : 1),
                                           gain / sqrtf((float)columns), hash_name(full), &length);
    pi2_gguf_builder_tensor(m->builder, full, (uint32_t)type, matrices ? 3 : 2, dimensions, data, length);
    free(data);
}

static inline void matrix(const maker *m, const char *name, uint64_t columns, uint64_t rows) {
    stack_of(m, name, m->type, columns, rows, 0, 1.25f);
}

/* Floats between low and high, as a vector or as a matrix of one column. */
static inline void floats(const maker *m, const char *name, uint64_t length, float low, float high, bool is_column) {
    const uint64_t dimensions[2] = { is_column ? 1 : length, length };
    const char *full = full_name(m, name);
    uint64_t state = hash_name(full);
    pi2_test_bytes data = { 0 };
    for (uint64_t i = 0; i < length; i++) {
        const float unit = (float)(pi2_tiny_random(&state) >> 40) / 16777216.0f;
        pi2_test_bytes_add_f32(&data, low + (high - low) * unit);
    }
    pi2_gguf_builder_tensor(m->builder, full, PI2_F32, is_column ? 2 : 1, dimensions, data.data, data.length);
    pi2_test_bytes_free(&data);
}

static inline void vector(const maker *m, const char *name, uint64_t length, float low, float high) {
    floats(m, name, length, low, high, false);
}
static inline void column(const maker *m, const char *name, uint64_t length, float low, float high) {
    floats(m, name, length, low, high, true);
}

static inline void norm(const maker *m, const char *name, uint64_t length) { vector(m, name, length, 0.5f, 1.5f); }
static inline void bias(const maker *m, const char *name, uint64_t length) { vector(m, name, length, -0.5f, 0.5f); }

static inline void convolution(const maker *m, const char *name, uint64_t channels) {
    stack_of(m, name, PI2_F32, TAPS, channels, 0, 1.5f);
}

static inline void attention(const maker *m, uint32_t kv_heads, uint32_t queries_of_a_head) {
    matrix(m, "attn_q.weight", WIDTH, (uint64_t)m->heads * m->head * queries_of_a_head);
    matrix(m, "attn_k.weight", WIDTH, (uint64_t)kv_heads * m->head);
    matrix(m, "attn_v.weight", WIDTH, (uint64_t)kv_heads * m->head);
    matrix(m, "attn_output.weight", (uint64_t)m->heads * m->head, WIDTH);
}

static inline void head_norms(const maker *m) {
    norm(m, "attn_q_norm.weight", m->head);
    norm(m, "attn_k_norm.weight", m->head);
}

static inline void qkv_biases(const maker *m) {
    bias(m, "attn_q.bias", (uint64_t)m->heads * m->head);
    bias(m, "attn_k.bias", (uint64_t)m->kv_heads * m->head);
    bias(m, "attn_v.bias", (uint64_t)m->kv_heads * m->head);
}

static inline void feed_forward(const maker *m) {
    matrix(m, "ffn_gate.weight", WIDTH, NEURONS);
    matrix(m, "ffn_up.weight", WIDTH, NEURONS);
    matrix(m, "ffn_down.weight", NEURONS, WIDTH);
}

static inline void experts(const maker *m) {
    stack_of(m, "ffn_gate_inp.weight", PI2_F32, WIDTH, EXPERTS, 0, 3.0f);
    stack_of(m, "ffn_gate_exps.weight", m->type, WIDTH, EXPERT_NEURONS, EXPERTS, 1.25f);
    stack_of(m, "ffn_up_exps.weight", m->type, WIDTH, EXPERT_NEURONS, EXPERTS, 1.25f);
    stack_of(m, "ffn_down_exps.weight", m->type, EXPERT_NEURONS, WIDTH, EXPERTS, 1.25f);
}

static inline void shared_expert(const maker *m, bool is_gated) {
    matrix(m, "ffn_gate_shexp.weight", WIDTH, NEURONS);
    matrix(m, "ffn_up_shexp.weight", WIDTH, NEURONS);
    matrix(m, "ffn_down_shexp.weight", NEURONS, WIDTH);
    if (is_gated) vector(m, "ffn_gate_inp_shexp.weight", WIDTH, -0.5f, 0.5f);
}

/* What a matrix's results are times, or each expert's. */
static inline void scale(const maker *m, const char *name, uint64_t length) { vector(m, name, length, 0.5f, 1.2f); }

/* A plain decoder's layer. */
static inline void plain_layer(const maker *m) {
    norm(m, "attn_norm.weight", WIDTH);
    attention(m, m->kv_heads, 1);
    norm(m, "ffn_norm.weight", WIDTH);
    feed_forward(m);
}

static inline void post_norms(const maker *m) {
    vector(m, "post_attention_norm.weight", WIDTH, 0.5f, 2.5f);
    vector(m, "post_ffw_norm.weight", WIDTH, 0.5f, 2.5f);
}

/* ---- families of family_model_gemma.c ---- */

void test_family_gemma3n(maker *m);
void test_family_gemma4(maker *m);
void test_family_gemma4_experts(maker *m);

#endif
