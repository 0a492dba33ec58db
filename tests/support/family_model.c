/* family_model.c: keys and tensors of each family, one function each, from what they have in common. */
#include "support/family_model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/emulator.h"
#include "support/family_maker.h"

/* ---- families: keys (layer UINT32_MAX), then each layer ---- */

/* Of a plain layer's matrices. */
static void plain_scales(const maker *m) {
    static const char *const scales[] = { "attn_q.scale", "attn_k.scale", "attn_v.scale", "attn_output.scale",
                                          "ffn_gate.scale", "ffn_up.scale", "ffn_down.scale" };
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) scale(m, scales[i], 1);
}

static void llama(maker *m) {
    if (m->layer == UINT32_MAX) put_common(m, NULL);
    else plain_layer(m);
}

/* As quantisers of four bits leave it. */
static void scaled_llama(maker *m) {
    llama(m);
    if (m->layer != UINT32_MAX) plain_scales(m);
}

static void gemma3(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put(m, "attention.sliding_window", WINDOW);
        put_float(m, "rope.freq_base_swa", 200.0f);
        pi2_gguf_builder_string(m->builder, key(m, "rope.scaling.type"), "linear");
        put_float(m, "rope.scaling.factor", 4.0f);
        return;
    }
    plain_layer(m);
    head_norms(m);
    post_norms(m);
}

static void gemma2(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put(m, "attention.sliding_window", WINDOW);
        put_float(m, "attn_logit_softcapping", 4.0f);
        put_float(m, "final_logit_softcapping", 8.0f);
        return;
    }
    plain_layer(m);
    post_norms(m);
}

static void smollm3(maker *m) { llama(m); }

static void bitnet(maker *m) {
    llama(m);
    if (m->layer == UINT32_MAX) return;
    norm(m, "attn_sub_norm.weight", (uint64_t)m->heads * m->head);
    norm(m, "ffn_sub_norm.weight", NEURONS);
    plain_scales(m);
}

static void arcee(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    attention(m, m->kv_heads, 1);
    norm(m, "ffn_norm.weight", WIDTH);
    matrix(m, "ffn_up.weight", WIDTH, NEURONS);
    matrix(m, "ffn_down.weight", NEURONS, WIDTH);
}

static void olmo2(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        return;
    }
    attention(m, m->kv_heads, 1);
    norm(m, "attn_q_norm.weight", (uint64_t)m->heads * m->head);
    norm(m, "attn_k_norm.weight", (uint64_t)m->kv_heads * m->head);
    feed_forward(m);
    post_norms(m);
}

/* OLMo 3: an olmo2 with windows. */
static void olmo3(maker *m) {
    olmo2(m);
    if (m->layer != UINT32_MAX) return;
    put(m, "attention.sliding_window", WINDOW);
    pi2_gguf_builder_string(m->builder, key(m, "rope.scaling.type"), "yarn");
    put_float(m, "rope.scaling.factor", 4.0f);
    put_float(m, "rope.scaling.attn_factor", 1.2f);
    put(m, "rope.scaling.original_context_length", 32);
}

/* A layer of experts in which all of a token's queries are normed as one, and its keys. */
static void whole_normed_experts(maker *m) {
    norm(m, "attn_norm.weight", WIDTH);
    attention(m, m->kv_heads, 1);
    norm(m, "attn_q_norm.weight", (uint64_t)m->heads * m->head);
    norm(m, "attn_k_norm.weight", (uint64_t)m->kv_heads * m->head);
    norm(m, "ffn_norm.weight", WIDTH);
    experts(m);
}

static void olmoe(maker *m) {
    m->neurons = EXPERT_NEURONS;
    m->kv_heads = m->heads; /* a norm of keys is as long as one of queries there */
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put_experts(m);
        return;
    }
    whole_normed_experts(m);
}

static void minimax_m2(maker *m) {
    m->rotated = m->head / 2;
    m->neurons = EXPERT_NEURONS;
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put_experts(m);
        put(m, "expert_gating_func", 2);
        return;
    }
    whole_normed_experts(m);
    bias(m, "exp_probs_b.bias", EXPERTS);
}

static void qwen2moe(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put_experts(m);
        put(m, "expert_shared_feed_forward_length", NEURONS);
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    attention(m, m->kv_heads, 1);
    qkv_biases(m);
    norm(m, "ffn_norm.weight", WIDTH);
    experts(m);
    shared_expert(m, true);
}

static void exaone4(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put(m, "attention.sliding_window", WINDOW);
        return;
    }
    attention(m, m->kv_heads, 1);
    head_norms(m);
    feed_forward(m);
    post_norms(m);
}

static void seed_oss(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    attention(m, m->kv_heads, 1);
    qkv_biases(m);
    norm(m, "post_attention_norm.weight", WIDTH);
    feed_forward(m);
}

static void put_scales(const maker *m) {
    put_float(m, "embedding_scale", 3.0f);
    put_float(m, "residual_scale", 0.4f);
    put_float(m, "logit_scale", 0.7f);
}

static void granite(maker *m) {
    llama(m);
    if (m->layer != UINT32_MAX) return;
    put_scales(m);
    put_float(m, "attention.scale", 0.1f);
}

static void granitemoe(maker *m) {
    m->neurons = EXPERT_NEURONS;
    if (m->layer == UINT32_MAX) {
        granite(m);
        put_experts(m);
        put(m, "expert_shared_feed_forward_length", NEURONS);
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    attention(m, m->kv_heads, 1);
    norm(m, "ffn_norm.weight", WIDTH);
    experts(m);
    shared_expert(m, false);
}

static void minicpm(maker *m) {
    llama(m);
    if (m->layer != UINT32_MAX) return;
    put_scales(m);
    pi2_gguf_builder_string(m->builder, key(m, "rope.scaling.type"), "longrope"); /* MiniCPM 4 */
    put(m, "rope.scaling.original_context_length", 512); /* above what llama.cpp makes of 48 */
}

static void hunyuan_dense(maker *m) {
    llama(m);
    if (m->layer != UINT32_MAX) head_norms(m);
}

static void short_convolution(const maker *m) {
    matrix(m, "shortconv.in_proj.weight", WIDTH, 3 * WIDTH);
    convolution(m, "shortconv.conv.weight", WIDTH);
    matrix(m, "shortconv.out_proj.weight", WIDTH, WIDTH);
}

static void lfm2_layer(const maker *m, bool has_experts) {
    const bool attends = m->layer % 2 == 1;
    norm(m, "attn_norm.weight", WIDTH);
    if (attends) {
        attention(m, m->kv_heads, 1);
        head_norms(m);
    } else {
        short_convolution(m);
    }
    norm(m, "ffn_norm.weight", WIDTH);
    if (!has_experts) {
        feed_forward(m);
        return;
    }
    experts(m);
    bias(m, "exp_probs_b.bias", EXPERTS);
}

static void lfm2(maker *m) {
    static const uint32_t kv_heads[LAYERS] = { 0, KV_HEADS, 0, KV_HEADS };
    if (m->layer != UINT32_MAX) {
        lfm2_layer(m, false);
        return;
    }
    put_common(m, kv_heads);
    put(m, "shortconv.l_cache", TAPS);
}

static void lfm2moe(maker *m) {
    if (m->layer != UINT32_MAX) {
        lfm2_layer(m, m->layer >= 2);
        return;
    }
    lfm2(m);
    put_experts(m);
    put(m, "leading_dense_block_count", 2);
    put(m, "expert_gating_func", 2);
}

static void delta_net(const maker *m, bool is_next) {
    const uint64_t keys = MIX_KEY_HEADS * MIX_HEAD, values = MIX_VALUE_HEADS * MIX_HEAD;
    matrix(m, "attn_qkv.weight", WIDTH, 2 * keys + values);
    matrix(m, "attn_gate.weight", WIDTH, values);
    if (is_next) {
        stack_of(m, "ssm_ba.weight", m->type, WIDTH, 2 * MIX_VALUE_HEADS, 0, 1.0f);
    } else {
        stack_of(m, "ssm_alpha.weight", m->type, WIDTH, MIX_VALUE_HEADS, 0, 1.0f);
        stack_of(m, "ssm_beta.weight", m->type, WIDTH, MIX_VALUE_HEADS, 0, 1.0f);
    }
    convolution(m, "ssm_conv1d.weight", 2 * keys + values);
    bias(m, "ssm_dt.bias", MIX_VALUE_HEADS);
    vector(m, "ssm_a", MIX_VALUE_HEADS, -0.6f, -0.05f);
    norm(m, "ssm_norm.weight", MIX_HEAD);
    matrix(m, "ssm_out.weight", values, WIDTH);
}

static void qwen35_layer(const maker *m, bool is_next) {
    norm(m, "attn_norm.weight", WIDTH);
    norm(m, "post_attention_norm.weight", WIDTH);
    if (m->layer % 4 != 3) {
        delta_net(m, is_next);
        return;
    }
    attention(m, m->kv_heads, 2);
    head_norms(m);
}

/* How many of the rotated pairs go by each of three positions, of time, height and width, in turn: all, since what is
 * left over has no position in llama.cpp (the model's own code gives it that of time). */
static void put_sections(const maker *m) {
    const uint32_t half = m->rotated / 2, sections[4] = { (half + 2) / 3, (half + 1) / 3, half / 3, 0 };
    pi2_test_bytes bytes = { 0 };
    for (int i = 0; i < 4; i++) pi2_test_bytes_add_u32(&bytes, sections[i]);
    pi2_gguf_builder_array(m->builder, key(m, "rope.dimension_sections"), PI2_TEST_GGUF_I32, 4, &bytes);
    pi2_test_bytes_free(&bytes);
}

static void put_delta_net(const maker *m) {
    put(m, "ssm.conv_kernel", TAPS);
    put(m, "ssm.inner_size", MIX_VALUE_HEADS * MIX_HEAD);
    put(m, "ssm.state_size", MIX_HEAD);
    put(m, "ssm.time_step_rank", MIX_VALUE_HEADS);
    put(m, "ssm.group_count", MIX_KEY_HEADS);
    put(m, "full_attention_interval", 4);
}

/* What a layer behind the others has, which guesses a further token. */
static void next_token(const maker *m) {
    matrix(m, "nextn.eh_proj.weight", 2 * WIDTH, WIDTH);
    norm(m, "nextn.enorm.weight", WIDTH);
    norm(m, "nextn.hnorm.weight", WIDTH);
}

static void qwen35(maker *m) {
    m->rotated = 16;
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put_sections(m);
        put_delta_net(m);
        put(m, "nextn_predict_layers", 1);
        return;
    }
    if (m->layer == LAYERS) {
        norm(m, "attn_norm.weight", WIDTH);
        norm(m, "post_attention_norm.weight", WIDTH);
        attention(m, m->kv_heads, 2);
        head_norms(m);
        next_token(m);
        feed_forward(m);
        return;
    }
    qwen35_layer(m, false);
    feed_forward(m);
}

static void qwen35moe(maker *m) {
    m->rotated = 16;
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put_experts(m);
        put(m, "expert_shared_feed_forward_length", NEURONS);
        put_sections(m);
        put_delta_net(m);
        return;
    }
    qwen35_layer(m, false);
    experts(m);
    shared_expert(m, true);
    scale(m, "ffn_gate_exps.scale", EXPERTS);
    scale(m, "ffn_up_exps.scale", EXPERTS);
    scale(m, "ffn_down_exps.scale", EXPERTS);
    scale(m, "ffn_gate_shexp.scale", 1);
    scale(m, "ffn_up_shexp.scale", 1);
    scale(m, "ffn_down_shexp.scale", 1);
}

static void qwen3next(maker *m) {
    m->rotated = 16;
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put_experts(m);
        put(m, "expert_shared_feed_forward_length", NEURONS);
        put_delta_net(m);
        return;
    }
    qwen35_layer(m, true);
    experts(m);
    shared_expert(m, true);
}

static void qwen3vl(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put_sections(m);
        put(m, "n_deepstack_layers", 2);
        return;
    }
    plain_layer(m);
    head_norms(m);
}

static void qwen3vlmoe(maker *m) {
    if (m->layer == UINT32_MAX) {
        qwen3vl(m);
        put_experts(m);
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    attention(m, m->kv_heads, 1);
    head_norms(m);
    norm(m, "ffn_norm.weight", WIDTH);
    experts(m);
}

static void mistral3(maker *m) {
    llama(m);
    if (m->layer != UINT32_MAX) return;
    pi2_gguf_builder_string(m->builder, key(m, "rope.scaling.type"), "yarn");
    put_float(m, "rope.scaling.factor", 4.0f);
    put(m, "rope.scaling.original_context_length", 16);
    put_float(m, "rope.scaling.yarn_log_multiplier", 1.0f);
    put_float(m, "attention.temperature_scale", 0.5f);
}

static void phi3(maker *m) {
    static const uint32_t kv_heads[LAYERS] = { KV_HEADS, KV_HEADS, KV_HEADS, KV_HEADS };
    m->rotated = 16;
    if (m->layer == UINT32_MAX) {
        put_common(m, kv_heads);
        put(m, "rope.scaling.original_context_length", 512); /* above what llama.cpp makes of a context of 48 */
        put_float(m, "rope.scaling.attn_factor", 1.2f);
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    matrix(m, "attn_qkv.weight", WIDTH, ((uint64_t)m->heads + 2 * m->kv_heads) * m->head);
    matrix(m, "attn_output.weight", (uint64_t)m->heads * m->head, WIDTH);
    norm(m, "ffn_norm.weight", WIDTH);
    matrix(m, "ffn_up.weight", WIDTH, 2 * NEURONS);
    matrix(m, "ffn_down.weight", NEURONS, WIDTH);
}

static void expert_biases(const maker *m, const char *name, uint64_t length) {
    stack_of(m, name, PI2_F32, length, EXPERTS, 0, 0.5f * sqrtf((float)length));
}

static void gpt_oss(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put_experts(m);
        put(m, "attention.sliding_window", WINDOW);
        pi2_gguf_builder_string(m->builder, key(m, "rope.scaling.type"), "yarn");
        put_float(m, "rope.scaling.factor", 4.0f);
        put(m, "rope.scaling.original_context_length", 32);
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    attention(m, m->kv_heads, 1);
    qkv_biases(m);
    bias(m, "attn_output.bias", WIDTH);
    vector(m, "attn_sinks.weight", m->heads, -1.0f, 3.0f);
    norm(m, "post_attention_norm.weight", WIDTH);
    experts(m);
    bias(m, "ffn_gate_inp.bias", EXPERTS);
    expert_biases(m, "ffn_gate_exps.bias", EXPERT_NEURONS);
    expert_biases(m, "ffn_up_exps.bias", EXPERT_NEURONS);
    expert_biases(m, "ffn_down_exps.bias", WIDTH);
}

static void put_each_length(const maker *m, const uint32_t *kinds, uint32_t kind, const char *suffix, uint32_t value) {
    uint32_t values[MOST_LARGE_LAYERS];
    for (uint32_t i = 0; i < m->layers; i++) values[i] = kinds[i] == kind ? value : 0;
    put_each(m, suffix, values);
}

static void state_space(const maker *m, uint64_t head) {
    const uint64_t values = MIX_VALUE_HEADS * head, channels = values + 2 * MIX_KEY_HEADS * MIX_STATE;
    const uint64_t heads[2] = { 1, MIX_VALUE_HEADS };
    matrix(m, "ssm_in.weight", WIDTH, values + channels + MIX_VALUE_HEADS);
    convolution(m, "ssm_conv1d.weight", channels);
    bias(m, "ssm_conv1d.bias", channels);
    bias(m, "ssm_dt.bias", heads[1]);
    column(m, "ssm_a", heads[1], -0.8f, -0.1f);
    column(m, "ssm_d", heads[1], -1.0f, 1.0f);
    stack_of(m, "ssm_norm.weight", PI2_F32, values / MIX_KEY_HEADS, MIX_KEY_HEADS, 0, 6.0f);
    matrix(m, "ssm_out.weight", values, WIDTH);
}

static void put_state_space(const maker *m, uint32_t head) {
    put(m, "ssm.conv_kernel", TAPS);
    put(m, "ssm.inner_size", MIX_VALUE_HEADS * head);
    put(m, "ssm.state_size", MIX_STATE);
    put(m, "ssm.time_step_rank", MIX_VALUE_HEADS);
    put(m, "ssm.group_count", MIX_KEY_HEADS);
}

enum { SCAN, NETWORK, ATTENTION };
enum { NEMOTRON_LAYERS = 6 };
/* The last is behind the others and guesses. */
static const uint32_t nemotron_kinds[NEMOTRON_LAYERS + 1] = { SCAN, NETWORK, ATTENTION, SCAN, NETWORK, ATTENTION,
                                                              ATTENTION };

/* neurons: of its FFNs. */
static void put_nemotron(maker *m, uint32_t neurons) {
    uint32_t kv_heads[NEMOTRON_LAYERS + 1];
    for (int i = 0; i <= NEMOTRON_LAYERS; i++) kv_heads[i] = nemotron_kinds[i] == ATTENTION ? m->kv_heads : 0;
    m->neurons = 0;
    put_common(m, kv_heads);
    put_float(m, "attention.layer_norm_epsilon", 1e-5f); /* llama.cpp wants it */
    put_each_length(m, nemotron_kinds, NETWORK, "feed_forward_length", neurons);
    put_state_space(m, MIX_HEAD);
}

/* True: the layer's FFN is left to be added. */
static bool nemotron_layer(const maker *m) {
    norm(m, "attn_norm.weight", WIDTH);
    if (nemotron_kinds[m->layer] == ATTENTION) attention(m, m->kv_heads, 1);
    if (nemotron_kinds[m->layer] == SCAN) state_space(m, MIX_HEAD);
    return nemotron_kinds[m->layer] == NETWORK;
}

static void nemotron_h(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_nemotron(m, NEURONS);
    } else if (nemotron_layer(m)) {
        matrix(m, "ffn_up.weight", WIDTH, NEURONS);
        matrix(m, "ffn_down.weight", NEURONS, WIDTH);
    }
}

static void nemotron_h_moe(maker *m) {
    if (m->layer == UINT32_MAX) {
        put_nemotron(m, EXPERT_NEURONS);
        put_experts(m);
        put(m, "expert_shared_count", 1);
        put(m, "expert_shared_feed_forward_length", NEURONS);
        put_bool(m, "expert_weights_norm", true);
        put_float(m, "expert_weights_scale", 2.5f);
        put(m, "nextn_predict_layers", 1);
    } else if (m->layer == NEMOTRON_LAYERS) {
        (void)nemotron_layer(m);
        next_token(m);
    } else if (nemotron_layer(m)) {
        stack_of(m, "ffn_gate_inp.weight", PI2_F32, WIDTH, EXPERTS, 0, 3.0f);
        stack_of(m, "ffn_up_exps.weight", m->type, WIDTH, EXPERT_NEURONS, EXPERTS, 1.25f);
        stack_of(m, "ffn_down_exps.weight", m->type, EXPERT_NEURONS, WIDTH, EXPERTS, 1.25f);
        bias(m, "exp_probs_b.bias", EXPERTS);
        matrix(m, "ffn_up_shexp.weight", WIDTH, NEURONS);
        matrix(m, "ffn_down_shexp.weight", NEURONS, WIDTH);
    }
}

static void granitehybrid(maker *m) {
    static const uint32_t kv_heads[LAYERS] = { 0, KV_HEADS, 0, 0 };
    m->neurons = EXPERT_NEURONS;
    if (m->layer == UINT32_MAX) {
        put_common(m, kv_heads);
        put_scales(m);
        put_float(m, "attention.scale", 0.1f);
        put_bool(m, "rope.scaling.finetuned", false);
        put_experts(m);
        put(m, "expert_shared_feed_forward_length", NEURONS);
        put_state_space(m, 2 * MIX_HEAD); /* llama.cpp wants twice the width */
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    if (kv_heads[m->layer]) attention(m, m->kv_heads, 1);
    else state_space(m, 2 * MIX_HEAD);
    norm(m, "ffn_norm.weight", WIDTH);
    experts(m);
    shared_expert(m, false);
}

static void glm4moe(maker *m) {
    m->rotated = m->head / 2;
    if (m->layer == UINT32_MAX) {
        put_common(m, NULL);
        put_experts(m);
        put(m, "expert_group_count", 3);
        put(m, "expert_group_used_count", 2);
        put(m, "expert_shared_count", 2);
        put(m, "expert_gating_func", 2);
        put_bool(m, "expert_weights_norm", true);
        put_float(m, "expert_weights_scale", 1.8f);
        put(m, "leading_dense_block_count", 1);
        put(m, "nextn_predict_layers", 1);
        return;
    }
    if (m->layer == LAYERS) { /* of its own it has what qwen35's takes from the model */
        next_token(m);
        norm(m, "nextn.shared_head_norm.weight", WIDTH);
        stack_of(m, "nextn.embed_tokens.weight", m->type, WIDTH, m->tokens, 0, 3.0f);
        stack_of(m, "nextn.shared_head_head.weight", m->type, WIDTH, m->tokens, 0, 4.0f);
    }
    norm(m, "attn_norm.weight", WIDTH);
    attention(m, m->kv_heads, 1);
    qkv_biases(m);
    head_norms(m);
    norm(m, "post_attention_norm.weight", WIDTH);
    if (m->layer == 0) {
        feed_forward(m);
        return;
    }
    experts(m);
    bias(m, "exp_probs_b.bias", EXPERTS);
    matrix(m, "ffn_gate_shexp.weight", WIDTH, 2 * EXPERT_NEURONS);
    matrix(m, "ffn_up_shexp.weight", WIDTH, 2 * EXPERT_NEURONS);
    matrix(m, "ffn_down_shexp.weight", 2 * EXPERT_NEURONS, WIDTH);
}

enum { LATENT = 32, LATENT_QUERY = 96, HEAD_KEYS = 72, HEAD_VALUES = 32, LATENT_ROTATED = 8 };

/* is_lite: queries are made of the layer's input, and the router has neither sigmoids nor a bias; llama.cpp knows it by
 * its 27 layers. */
static void add_deepseek2(maker *m, bool is_lite) {
    const uint64_t plain = HEAD_KEYS - LATENT_ROTATED;
    const uint32_t leading = is_lite ? m->layers - 2 : 1; /* few choices of experts that rounding may turn */
    if (m->layer == UINT32_MAX) {
        m->kv_heads = 1;
        m->head = LATENT + LATENT_ROTATED;
        m->rotated = LATENT_ROTATED;
        m->values = LATENT;
        put_common(m, NULL);
        if (!is_lite) put(m, "attention.q_lora_rank", LATENT_QUERY);
        pi2_gguf_builder_string(m->builder, key(m, "rope.scaling.type"), "yarn");
        put_float(m, "rope.scaling.factor", is_lite ? 40.0f : 4.0f);
        put(m, "rope.scaling.original_context_length", 16);
        put_float(m, "rope.scaling.yarn_log_multiplier", is_lite ? 0.0707f : 0.1f);
        put(m, "attention.kv_lora_rank", LATENT);
        put(m, "attention.key_length_mla", HEAD_KEYS);
        put(m, "attention.value_length_mla", HEAD_VALUES);
        put_experts(m);
        put(m, "expert_shared_count", 1);
        put(m, "expert_gating_func", is_lite ? 1 : 2);
        put_bool(m, "expert_weights_norm", !is_lite);
        put_float(m, "expert_weights_scale", 1.8f);
        put(m, "leading_dense_block_count", leading);
        return;
    }
    norm(m, "attn_norm.weight", WIDTH);
    if (is_lite) {
        stack_of(m, "attn_q.weight", m->type, WIDTH, (uint64_t)m->heads * HEAD_KEYS, 0, 0.5f);
    } else {
        matrix(m, "attn_q_a.weight", WIDTH, LATENT_QUERY);
        norm(m, "attn_q_a_norm.weight", LATENT_QUERY);
        matrix(m, "attn_q_b.weight", LATENT_QUERY, (uint64_t)m->heads * HEAD_KEYS);
    }
    matrix(m, "attn_kv_a_mqa.weight", WIDTH, LATENT + LATENT_ROTATED);
    norm(m, "attn_kv_a_norm.weight", LATENT);
    stack_of(m, "attn_k_b.weight", m->type, plain, LATENT, m->heads, 1.25f);
    stack_of(m, "attn_v_b.weight", m->type, LATENT, HEAD_VALUES, m->heads, 1.25f);
    matrix(m, "attn_output.weight", (uint64_t)m->heads * HEAD_VALUES, WIDTH);
    norm(m, "ffn_norm.weight", WIDTH);
    if (m->layer < leading) {
        feed_forward(m);
        return;
    }
    experts(m);
    if (!is_lite) bias(m, "exp_probs_b.bias", EXPERTS);
    matrix(m, "ffn_gate_shexp.weight", WIDTH, EXPERT_NEURONS);
    matrix(m, "ffn_up_shexp.weight", WIDTH, EXPERT_NEURONS);
    matrix(m, "ffn_down_shexp.weight", EXPERT_NEURONS, WIDTH);
}

static void deepseek2(maker *m) { add_deepseek2(m, false); }

static void deepseek2_lite(maker *m) { add_deepseek2(m, true); }

/* ---- all of them ---- */

static const struct {
    const char *name, *output_norm;
    void (*add)(maker *m);
    uint32_t layers, head;
    bool is_tied;
    const char *architecture; /* NULL: the family's name */
} families[] = {
    { "llama", "output_norm", scaled_llama, LAYERS, HEAD, false, NULL },
    { "gemma2", "output_norm", gemma2, LAYERS, LONG_HEAD, true, NULL },
    { "gemma3", "output_norm", gemma3, 7, LONG_HEAD, false, NULL },
    { "qwen35", "output_norm", qwen35, LAYERS + 1, LONG_HEAD, false, NULL },
    { "qwen35moe", "output_norm", qwen35moe, LAYERS, LONG_HEAD, false, NULL },
    { "qwen3next", "output_norm", qwen3next, LAYERS, LONG_HEAD, false, NULL },
    { "qwen3vl", "output_norm", qwen3vl, LAYERS, LONG_HEAD, false, NULL },
    { "qwen3vlmoe", "output_norm", qwen3vlmoe, LAYERS, LONG_HEAD, false, NULL },
    { "lfm2", "token_embd_norm", lfm2, LAYERS, HEAD, false, NULL },
    { "lfm2moe", "token_embd_norm", lfm2moe, LAYERS, HEAD, false, NULL },
    { "bitnet", "output_norm", bitnet, LAYERS, HEAD, true, NULL },
    { "smollm3", "output_norm", smollm3, LAYERS, LONG_HEAD, false, NULL },
    { "arcee", "output_norm", arcee, LAYERS, HEAD, false, NULL },
    { "olmo2", "output_norm", olmo2, LAYERS, HEAD, false, NULL },
    { "olmo3", "output_norm", olmo3, LAYERS, HEAD, false, "olmo2" },
    { "olmoe", "output_norm", olmoe, LAYERS, HEAD, false, NULL },
    { "qwen2moe", "output_norm", qwen2moe, LAYERS, HEAD, false, NULL },
    { "exaone4", "output_norm", exaone4, 64, HEAD, false, NULL },
    { "seed_oss", "output_norm", seed_oss, LAYERS, HEAD, false, NULL },
    { "granite", "output_norm", granite, LAYERS, LONG_HEAD, false, NULL },
    { "granitemoe", "output_norm", granitemoe, LAYERS, HEAD, false, NULL },
    { "minicpm", "output_norm", minicpm, LAYERS, HEAD, false, NULL },
    { "minimax-m2", "output_norm", minimax_m2, LAYERS, LONG_HEAD, false, NULL },
    { "mistral3", "output_norm", mistral3, LAYERS, LONG_HEAD, false, NULL },
    { "phi3", "output_norm", phi3, LAYERS, HEAD, false, NULL },
    { "gpt-oss", "output_norm", gpt_oss, LAYERS, LONG_HEAD, false, NULL },
    { "nemotron_h", "output_norm", nemotron_h, NEMOTRON_LAYERS, HEAD, false, NULL },
    { "nemotron_h_moe", "output_norm", nemotron_h_moe, NEMOTRON_LAYERS + 1, HEAD, false, NULL },
    { "granitehybrid", "output_norm", granitehybrid, LAYERS, HEAD, false, NULL },
    { "gemma3n", "output_norm", test_family_gemma3n, 25, LONG_HEAD, true, NULL },
    { "gemma4", "output_norm", test_family_gemma4, 6, LONG_HEAD, true, NULL },
    { "gemma4-experts", "output_norm", test_family_gemma4_experts, LAYERS, LONG_HEAD, true, "gemma4" },
    { "deepseek2", "output_norm", deepseek2, LAYERS, HEAD, false, NULL },
    { "deepseek2-lite", "output_norm", deepseek2_lite, 27, HEAD, false, "deepseek2" },
    { "glm4moe", "output_norm", glm4moe, LAYERS + 1, LONG_HEAD, false, NULL },
    { "hunyuan-dense", "output_norm", hunyuan_dense, LAYERS, HEAD, false, NULL },
};

const char *pi2_family_name(size_t index) {
    return index < sizeof families / sizeof families[0] ? families[index].name : NULL;
}

static void add_all(maker *m, const char *output_norm, void (*add)(maker *m), bool is_tied) {
    char name[64];
    pi2_tiny_model_options vocabulary;
    pi2_tiny_model_options_init(&vocabulary);
    m->layer = UINT32_MAX;
    m->tokens = pi2_tiny_vocabulary_add(&vocabulary, m->builder);
    add(m);
    put(m, "vocab_size", m->tokens);
    if (strcmp(m->architecture, "phi3") == 0 || strcmp(m->architecture, "minicpm") == 0) {
        vector(m, "rope_factors_short.weight", m->rotated / 2, 0.8f, 3.0f);
        vector(m, "rope_factors_long.weight", m->rotated / 2, 5.0f, 9.0f);
    }
    stack_of(m, "token_embd.weight", m->type, WIDTH, m->tokens, 0, is_tied ? 1.0f : 3.0f);
    for (m->layer = 0; m->layer < m->layers; m->layer++) add(m);
    m->layer = UINT32_MAX;
    (void)snprintf(name, sizeof name, "%s.weight", output_norm);
    vector(m, name, WIDTH, is_tied ? 2.5f : 0.5f, is_tied ? 6.0f : 1.5f);
    if (!is_tied) stack_of(m, "output.weight", m->type, WIDTH, m->tokens, 0, 4.0f);
}

int pi2_family_model_write(const char *family, pi2_weight_type type, uint32_t scale, const char *path) {
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(families[i].name, family) != 0) continue;
        pi2_gguf_builder builder;
        pi2_gguf_builder_init(&builder);
        const uint32_t layers = families[i].layers;
        maker made = { .builder = &builder, .type = type, .scale = scale,
                       .architecture = families[i].architecture ? families[i].architecture : family,
                       .layers = scale > 1 && layers > MOST_LARGE_LAYERS ? MOST_LARGE_LAYERS : layers, .heads = HEADS,
                       .kv_heads = KV_HEADS, .head = families[i].head, .rotated = families[i].head };
        maker *m = &made;
        m->neurons = NEURONS;
        add_all(m, families[i].output_norm, families[i].add, families[i].is_tied);
        const int error = pi2_gguf_builder_write(&builder, path);
        pi2_gguf_builder_free(&builder);
        return error;
    }
    return -1;
}

int pi2_family_model_write_apart(const char *family, pi2_weight_type type, uint32_t scale, const char *path) {
    if (PI2_UNDER_EMULATOR) return pi2_family_model_write(family, type, scale, path);
    const pid_t child = fork();
    if (child == 0) _exit(pi2_family_model_write(family, type, scale, path) != 0);
    int result = -1;
    if (child < 0 || waitpid(child, &result, 0) != child) return errno;
    return WIFEXITED(result) ? WEXITSTATUS(result) : ECHILD;
}
