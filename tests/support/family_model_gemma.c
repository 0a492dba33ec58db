/* family_model_gemma.c: families of Gemma whose layers differ in more than a window. */
#include "support/family_maker.h"

enum { TOKEN_LENGTH = 32, SHARED = 2 };

static bool is_local(const maker *m, uint32_t layer) {
    (void)m;
    return layer % 2 == 0;
}

static void put_gemma4(const maker *m) {
    pi2_test_bytes bytes = { 0 };
    put_common(m, NULL);
    put(m, "attention.sliding_window", WINDOW);
    put(m, "attention.key_length_swa", m->head / 2);
    put(m, "attention.value_length_swa", m->head / 2);
    put(m, "rope.dimension_count_swa", m->head / 2);
    put_float(m, "rope.freq_base_swa", 200.0f);
    put_float(m, "final_logit_softcapping", 8.0f);
    for (uint32_t i = 0; i < m->layers; i++) {
        const unsigned char value = is_local(m, i);
        pi2_test_bytes_add(&bytes, &value, 1);
    }
    pi2_gguf_builder_array(m->builder, key(m, "attention.sliding_window_pattern"), PI2_TEST_GGUF_BOOL, m->layers,
                           &bytes);
    pi2_test_bytes_free(&bytes);
    vector(m, "rope_freqs.weight", m->head / 2, 0.8f, 3.0f);
}

static void gemma4_attention(const maker *m, bool has_keys, bool has_values) {
    const uint32_t head = is_local(m, m->layer) ? m->head / 2 : m->head;
    norm(m, "attn_norm.weight", WIDTH);
    matrix(m, "attn_q.weight", WIDTH, (uint64_t)m->heads * head);
    vector(m, "attn_q_norm.weight", head, 0.1f, 0.5f); /* scores are not scaled */
    if (has_keys) matrix(m, "attn_k.weight", WIDTH, (uint64_t)m->kv_heads * head);
    if (has_keys) norm(m, "attn_k_norm.weight", head);
    if (has_values) matrix(m, "attn_v.weight", WIDTH, (uint64_t)m->kv_heads * head);
    matrix(m, "attn_output.weight", (uint64_t)m->heads * head, WIDTH);
    norm(m, "ffn_norm.weight", WIDTH);
    post_norms(m);
    vector(m, "layer_output_scale.weight", 1, 0.6f, 1.2f);
}

/* The last layers have no keys and values, and longer FFNs. */
void test_family_gemma4(maker *m) {
    const uint32_t shared = m->layers - SHARED;
    if (m->layer == UINT32_MAX) {
        uint32_t lengths[MOST_LARGE_LAYERS];
        for (uint32_t i = 0; i < m->layers; i++) lengths[i] = NEURONS * (i < shared ? 1 : 2);
        m->neurons = 0;
        put_gemma4(m);
        put_each(m, "feed_forward_length", lengths);
        put(m, "attention.shared_kv_layers", SHARED);
        put(m, "embedding_length_per_layer_input", TOKEN_LENGTH);
        stack_of(m, "per_layer_token_embd.weight", m->type, (uint64_t)TOKEN_LENGTH * m->layers, m->tokens, 0, 3.0f);
        matrix(m, "per_layer_model_proj.weight", WIDTH, (uint64_t)TOKEN_LENGTH * m->layers);
        norm(m, "per_layer_proj_norm.weight", TOKEN_LENGTH);
        return;
    }
    const uint64_t neurons = (uint64_t)NEURONS * (m->layer < shared ? 1 : 2);
    gemma4_attention(m, m->layer < shared, m->layer < shared);
    matrix(m, "ffn_gate.weight", WIDTH, neurons);
    matrix(m, "ffn_up.weight", WIDTH, neurons);
    matrix(m, "ffn_down.weight", neurons, WIDTH);
    matrix(m, "inp_gate.weight", WIDTH, TOKEN_LENGTH);
    matrix(m, "proj.weight", TOKEN_LENGTH, WIDTH);
    norm(m, "post_norm.weight", WIDTH);
}

void test_family_gemma4_experts(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_gemma4(m);
        put_experts(m);
        put(m, "embedding_length_per_layer_input", 0);
        return;
    }
    gemma4_attention(m, true, is_local(m, m->layer));
    feed_forward(m);
    stack_of(m, "ffn_gate_inp.weight", PI2_F32, WIDTH, EXPERTS, 0, 16.0f);
    vector(m, "ffn_gate_inp.scale", WIDTH, 0.5f, 2.5f);
    stack_of(m, "ffn_gate_up_exps.weight", m->type, WIDTH, 2 * EXPERT_NEURONS, EXPERTS, 1.25f);
    stack_of(m, "ffn_down_exps.weight", m->type, EXPERT_NEURONS, WIDTH, EXPERTS, 1.25f);
    vector(m, "ffn_down_exps.scale", EXPERTS, 0.4f, 1.8f);
    norm(m, "pre_ffw_norm_2.weight", WIDTH);
    norm(m, "post_ffw_norm_1.weight", WIDTH);
    norm(m, "post_ffw_norm_2.weight", WIDTH);
}

enum { STREAMS = 4, LAUREL_RANK = 64, VECTOR = 256, CUT = 10 }; /* llama.cpp knows these and reads no key for them */

/* Deviations by which llama.cpp, which divides by one value less, cuts where we do. */
static void put_cutoffs(const maker *m) {
    pi2_test_bytes bytes = { 0 };
    const float neurons = (float)NEURONS;
    for (uint32_t i = 0; i < m->layers; i++) {
        pi2_test_bytes_add_f32(&bytes, i < CUT ? 1.6448533535f * sqrtf(neurons / (neurons - 1.0f)) : 0.0f);
    }
    pi2_gguf_builder_array(m->builder, key(m, "activation_sparsity_scale"), PI2_TEST_GGUF_F32, m->layers, &bytes);
    pi2_test_bytes_free(&bytes);
}

/* Of 25 layers the last 5 have no keys and values, of which one sees all. */
static uint32_t keyed_layers(const maker *m) { return m->layers > 20 ? 20 : 5; }

static void put_gemma3n(const maker *m) {
    const uint64_t floats = (uint64_t)VECTOR * m->layers;
    put_common(m, NULL);
    put(m, "attention.sliding_window", WINDOW);
    put(m, "attention.shared_kv_layers", m->layers - keyed_layers(m));
    put_float(m, "rope.freq_base_swa", 10000.0f);
    put(m, "embedding_length_per_layer_input", VECTOR);
    put(m, "altup.num_inputs", STREAMS);
    put(m, "altup.active_idx", 0);
    put_cutoffs(m);
    stack_of(m, "per_layer_token_embd.weight", m->type, floats, m->tokens, 0, 3.0f);
    matrix(m, "per_layer_model_proj.weight", WIDTH, floats);
    norm(m, "per_layer_proj_norm.weight", VECTOR);
    stack_of(m, "altup_proj.weight", m->type, WIDTH, WIDTH, STREAMS - 1, 1.25f);
    stack_of(m, "altup_unembd_proj.weight", m->type, WIDTH, WIDTH, STREAMS - 1, 1.25f);
}

void test_family_gemma3n(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_gemma3n(m);
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    matrix(m, "attn_q.weight", WIDTH, (uint64_t)m->heads * m->head);
    vector(m, "attn_q_norm.weight", m->head, 0.1f, 0.5f); /* scores are not scaled */
    if (m->layer < keyed_layers(m) || m->layers > 20) { /* llama.cpp wants them of every layer, and uses these alone */
        matrix(m, "attn_k.weight", WIDTH, (uint64_t)m->kv_heads * m->head);
        matrix(m, "attn_v.weight", WIDTH, (uint64_t)m->kv_heads * m->head);
        norm(m, "attn_k_norm.weight", m->head);
    }
    matrix(m, "attn_output.weight", (uint64_t)m->heads * m->head, WIDTH);
    norm(m, "ffn_norm.weight", WIDTH);
    feed_forward(m);
    /* What each of 25 layers adds is small, or rounding grows. */
    vector(m, "post_attention_norm.weight", WIDTH, 0.1f, 0.5f);
    vector(m, "post_ffw_norm.weight", WIDTH, 0.1f, 0.5f);
    matrix(m, "inp_gate.weight", WIDTH, VECTOR);
    matrix(m, "proj.weight", VECTOR, WIDTH);
    vector(m, "post_norm.weight", WIDTH, 0.1f, 0.4f);
    matrix(m, "laurel_l.weight", WIDTH, LAUREL_RANK);
    matrix(m, "laurel_r.weight", LAUREL_RANK, WIDTH);
    vector(m, "laurel_post_norm.weight", WIDTH, 0.1f, 0.5f);
    norm(m, "altup_router_norm.weight", WIDTH);
    stack_of(m, "altup_router.weight", PI2_F32, WIDTH, STREAMS, 0, 48.0f);
    stack_of(m, "altup_predict_coef.weight", PI2_F32, STREAMS, STREAMS * STREAMS, 0, 0.1f);
    stack_of(m, "altup_correct_coef.weight", PI2_F32, STREAMS, STREAMS, 0, 0.5f);
    norm(m, "altup_correct_scale.weight", WIDTH);
}
