/* family_eagle3.c: a layer that guesses for the tiny llama by what three of its layers read; random as that is. */
#include "support/family_maker.h"
#include "support/family_model.h"

enum { PRESENT = 3, OF = 4 /* of so many ids of tokens so many have a row in the head */ };

static void put_keys(const maker *m, const pi2_family_head *head) {
    pi2_test_bytes bytes = { 0 };
    put_common(m, NULL);
    for (int i = 0; i < 3; i++) pi2_test_bytes_add_u32(&bytes, head->layers[i]);
    pi2_gguf_builder_array(m->builder, key(m, "target_layers"), PI2_TEST_GGUF_I32, 3, &bytes);
    pi2_test_bytes_free(&bytes);
    put(m, "target_hidden_size", WIDTH);
    put_bool(m, "norm_before_residual", head->normed_residual);
    put_bool(m, "norm_before_fc", head->normed_features);
}

static uint64_t add_ids(const maker *m) {
    const uint64_t rows = (uint64_t)m->tokens / OF * PRESENT;
    pi2_test_bytes ids = { 0 };
    for (uint64_t i = 0; i < rows; i++) pi2_test_bytes_add_u64(&ids, i + i / PRESENT);
    pi2_gguf_builder_tensor(m->builder, "d2t", 27, 1, &rows, ids.data, ids.length);
    pi2_test_bytes_free(&ids);
    return rows;
}

static void add_layer(const maker *m) {
    norm(m, "attn_norm.weight", WIDTH);
    norm(m, "attn_norm_2.weight", WIDTH);
    matrix(m, "attn_q.weight", 2 * WIDTH, (uint64_t)m->heads * m->head);
    matrix(m, "attn_k.weight", 2 * WIDTH, (uint64_t)m->kv_heads * m->head);
    matrix(m, "attn_v.weight", 2 * WIDTH, (uint64_t)m->kv_heads * m->head);
    matrix(m, "attn_output.weight", (uint64_t)m->heads * m->head, WIDTH);
    norm(m, "ffn_norm.weight", WIDTH);
    feed_forward(m);
}

int pi2_family_model_write_head(const pi2_family_head *head, pi2_weight_type type, uint32_t scale, const char *path) {
    pi2_gguf_builder builder;
    pi2_tiny_model_options vocabulary;
    pi2_gguf_builder_init(&builder);
    pi2_tiny_model_options_init(&vocabulary);
    maker made = { .builder = &builder, .type = type, .scale = scale, .architecture = "eagle3", .layers = 1,
                   .heads = HEADS, .kv_heads = KV_HEADS, .head = HEAD, .rotated = HEAD, .layer = UINT32_MAX };
    maker *m = &made;
    m->neurons = NEURONS;
    m->tokens = pi2_tiny_vocabulary_add(&vocabulary, m->builder);
    put_keys(m, head);
    put(m, "vocab_size", m->tokens);
    const uint64_t rows = head->whole_vocabulary ? m->tokens : add_ids(m);
    matrix(m, "fc.weight", 3 * WIDTH, WIDTH);
    if (head->normed_features) norm(m, "enc.output_norm.weight", 3 * WIDTH);
    if (head->own_rows) stack_of(m, "token_embd.weight", m->type, WIDTH, m->tokens, 0, 3.0f);
    m->layer = 0;
    add_layer(m);
    m->layer = UINT32_MAX;
    norm(m, "output_norm.weight", WIDTH);
    stack_of(m, "output.weight", m->type, WIDTH, rows, 0, 4.0f);
    const int error = pi2_gguf_builder_write(&builder, path);
    pi2_gguf_builder_free(&builder);
    return error;
}
