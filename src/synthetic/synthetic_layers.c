/* synthetic_layers.c: the tensors of a layer, block by block. */
#include <math.h>
#include <string.h>

#include "synthetic/synthetic_internal.h"

typedef pi2_synthetic_listing listing;

/* Deviation of gate times up for unit normal numbers, with SiLU and with ReLU; of squares of ReLU. */
static const float SILU_PRODUCT = 0.6f, RELU_PRODUCT = 0.707f, SQUARE_PRODUCT = 1.2f;
/* Queries and keys: attention weights are then neither even nor on one token alone. */
static const float QUERY_KEY_GAIN = 1.5f;
/* Deviation of what a gate through a sigmoid leaves, and of what a norm and a gate through SiLU do. */
static const float SIGMOID_GATE = 0.54f, SILU_GATE = 0.6f;
static const float BIAS_SPREAD = 0.05f;

float pi2_synthetic_attention_average(const pi2_synthetic_plan *plan) {
    return PI2_ATTENTION_AVERAGE * (plan->family->gated_queries ? SIGMOID_GATE : 1.0f);
}

static void add(listing *state, const char *name, uint64_t columns, uint64_t rows, float gain) {
    (void)pi2_synthetic_add_matrix(state, name, state->format, columns, rows, gain);
}

/** A matrix whose rows are the residual stream; left: what is left of its inputs' deviation. */
static void add_writer(listing *state, const char *name, uint64_t columns, float left) {
    const float gain = pi2_synthetic_attention_gain(state->plan, state->layer) / left;
    pi2_synthetic_add_matrix(state, name, state->format, columns, state->plan->shape.embedding_length,
                             gain)->keeps_signals = true;
}

/* ---- what stands before the FFN --------------------------------------------------------- */

static void add_queries_and_keys(listing *state, bool is_recency) {
    const pi2_synthetic_shape *shape = &state->plan->shape;
    const uint64_t width = shape->embedding_length;
    const uint32_t head = shape->head_dimension, step = head * (state->plan->family->gated_queries ? 2 : 1);
    const pi2_weight_format *keys = pi2_synthetic_has_eight_experts(state) ? pi2_weight_format_find(PI2_Q8_0)
                                                                           : state->format;
    const pi2_fill fill = is_recency ? PI2_FILL_RECENCY : PI2_FILL_RANDOM;
    pi2_synthetic_tensor *q = pi2_synthetic_add_matrix(state, "attn_q", state->format, width,
                                                       (uint64_t)shape->head_count * step, QUERY_KEY_GAIN);
    q->fill = fill;
    q->head_rows = step;
    pi2_synthetic_add_matrix(state, "attn_k", keys, width, (uint64_t)shape->head_count_kv * head,
                             QUERY_KEY_GAIN)->fill = fill;
}

static void add_attention_biases(listing *state) {
    const pi2_synthetic_shape *shape = &state->plan->shape;
    const uint64_t queries = (uint64_t)shape->head_count * shape->head_dimension;
    const uint64_t keys = (uint64_t)shape->head_count_kv * shape->head_dimension;
    pi2_synthetic_add_floats(state, "attn_q.bias", queries, 0, 0.0f, BIAS_SPREAD);
    pi2_synthetic_add_floats(state, "attn_k.bias", keys, 0, 0.0f, BIAS_SPREAD);
    pi2_synthetic_add_floats(state, "attn_v.bias", keys, 0, 0.0f, BIAS_SPREAD);
    pi2_synthetic_add_floats(state, "attn_output.bias", shape->embedding_length, 0, 0.0f, BIAS_SPREAD);
    pi2_synthetic_add_floats(state, "attn_sinks.weight", shape->head_count, 0, 0.0f, 1.0f);
}

static void add_attention(listing *state) {
    const pi2_synthetic_plan *plan = state->plan;
    const pi2_synthetic_shape *shape = &plan->shape;
    const uint64_t head = shape->head_dimension;
    const bool is_recency = plan->signals.signals && state->layer == plan->signals.recency_layer;
    const pi2_weight_format *format = pi2_synthetic_has_eight_experts(state) ? pi2_weight_format_find(PI2_Q8_0)
                                                                             : pi2_synthetic_value_format(state);
    add_queries_and_keys(state, is_recency);
    pi2_synthetic_tensor *values = pi2_synthetic_add_matrix(state, "attn_v", format, shape->embedding_length,
                                                            shape->head_count_kv * head, 1.0f);
    /* What attention averages would leave the constants alone, and the slow signals would be one more. */
    if (is_recency && plan->neurons.is_planted) values->fill = PI2_FILL_VALUE;
    add_writer(state, "attn_output", shape->head_count * head, pi2_synthetic_attention_average(plan));
    if (plan->family->has_biases) add_attention_biases(state);
    if (!plan->family->head_norms) return;
    const float middle = is_recency ? plan->signals.recency_norm : 1.2f;
    pi2_synthetic_add_norm(state, "attn_q_norm", head, middle);
    pi2_synthetic_add_norm(state, "attn_k_norm", head, middle);
}

static void add_latent_attention(listing *state) {
    const pi2_synthetic_shape *shape = &state->plan->shape;
    const uint64_t width = shape->embedding_length, head = shape->head_dimension, latent = shape->latent_length;
    const uint64_t query = shape->latent_query_length, heads = shape->head_count, rotated = shape->rope_dimensions;
    add(state, "attn_q_a", width, query, 1.0f);
    pi2_synthetic_add_norm(state, "attn_q_a_norm", query, 1.0f);
    add(state, "attn_q_b", query, heads * head, QUERY_KEY_GAIN);
    add(state, "attn_kv_a_mqa", width, latent + rotated, 1.0f);
    pi2_synthetic_add_norm(state, "attn_kv_a_norm", latent, 1.0f);
    pi2_synthetic_add_stack(state, "attn_k_b", head - rotated, latent, heads, 1.0f);
    pi2_synthetic_add_stack(state, "attn_v_b", latent, head, heads, 1.0f);
    add_writer(state, "attn_output", heads * head, PI2_ATTENTION_AVERAGE);
}

static void add_convolution(listing *state, const char *name, uint64_t channels) {
    pi2_synthetic_add_floats(state, name, state->plan->shape.convolution_taps, channels, 0.0f, 1.0f);
}

static void add_short_convolution(listing *state) {
    const uint64_t width = state->plan->shape.embedding_length;
    add(state, "shortconv.in_proj", width, 3 * width, 1.0f);
    add_convolution(state, "shortconv.conv.weight", width);
    add_writer(state, "shortconv.out_proj", width, 1.0f);
}

static void add_delta_net(listing *state) {
    const pi2_synthetic_shape *shape = &state->plan->shape;
    const uint64_t width = shape->embedding_length, heads = shape->mix_value_heads;
    const uint64_t values = heads * shape->mix_head_length;
    const uint64_t channels = values + 2 * (uint64_t)shape->mix_key_heads * shape->mix_head_length;
    add(state, "attn_qkv", width, channels, 1.0f);
    add(state, "attn_gate", width, values, 1.0f);
    if (state->plan->family->joins_strengths) {
        add(state, "ssm_ba", width, 2 * heads, 1.0f);
    } else {
        add(state, "ssm_alpha", width, heads, 1.0f);
        add(state, "ssm_beta", width, heads, 1.0f);
    }
    add_convolution(state, "ssm_conv1d.weight", channels);
    pi2_synthetic_add_floats(state, "ssm_dt.bias", heads, 0, 0.0f, 0.5f);
    pi2_synthetic_add_floats(state, "ssm_a", heads, 0, -0.3f, 0.25f);
    pi2_synthetic_add_norm(state, "ssm_norm", shape->mix_head_length, 1.0f);
    add_writer(state, "ssm_out", values, SILU_GATE);
}

static void add_state_space(listing *state) {
    const pi2_synthetic_shape *shape = &state->plan->shape;
    const uint64_t width = shape->embedding_length, heads = shape->mix_value_heads, groups = shape->mix_key_heads;
    const uint64_t values = heads * shape->mix_head_length;
    const uint64_t channels = values + 2 * groups * shape->mix_state_length;
    add(state, "ssm_in", width, values + channels + heads, 1.0f);
    add_convolution(state, "ssm_conv1d.weight", channels);
    pi2_synthetic_add_floats(state, "ssm_conv1d.bias", channels, 0, 0.0f, BIAS_SPREAD);
    pi2_synthetic_add_floats(state, "ssm_dt.bias", heads, 0, 0.0f, 0.5f);
    pi2_synthetic_add_floats(state, "ssm_a", 1, heads, -0.5f, 0.4f);
    pi2_synthetic_add_floats(state, "ssm_d", 1, heads, 0.0f, 1.0f);
    pi2_synthetic_add_floats(state, "ssm_norm.weight", values / groups, groups, 1.0f, 0.1f);
    add_writer(state, "ssm_out", values, 1.0f);
}

/* ---- the FFN ---------------------------------------------------------------------------- */

/** Deviation of what the activation gives. */
static float product_of(const pi2_synthetic_plan *plan, uint32_t layer) {
    if (plan->neurons.is_planted) return plan->neurons.products[layer];
    if (plan->family->one_block) return SQUARE_PRODUCT;
    const bool is_relu = strcmp(plan->shape.architecture, "smallthinker") == 0 || plan->shape.ffn_activation;
    return is_relu ? RELU_PRODUCT : SILU_PRODUCT;
}

/** Gate, and Up of drelu, get rows that fire as planned. */
static void plant_neurons(const pi2_synthetic_plan *plan, pi2_synthetic_tensor *gate, pi2_synthetic_tensor *up) {
    if (!plan->neurons.is_planted) return;
    gate->fill = PI2_FILL_GATE;
    gate->deviation = pi2_synthetic_rest_deviation(plan, false);
    if (plan->neurons.activation != PI2_FFN_drelu) return;
    up->fill = PI2_FILL_UP;
    up->deviation = pi2_synthetic_rest_deviation(plan, true);
}

/** One that every token uses. left: what is left of its result, beside `product_of`. */
static void add_one_ffn(listing *state, const char *const names[3], uint64_t rows, float left) {
    const pi2_synthetic_plan *plan = state->plan;
    const uint64_t width = plan->shape.embedding_length;
    const bool has_gate = !plan->family->one_block;
    pi2_synthetic_tensor *gate = has_gate ? pi2_synthetic_add_matrix(state, names[0], state->format, width, rows, 1.0f)
                                          : NULL;
    pi2_synthetic_tensor *up = pi2_synthetic_add_matrix(state, names[1], state->format, width, rows, 1.0f);
    const float gain = pi2_synthetic_feed_forward_gain(plan, state->layer) / (product_of(plan, state->layer) * left);
    if (gate && plan->shape.expert_count == 0) plant_neurons(plan, gate, up);
    pi2_synthetic_add_matrix(state, names[2], pi2_synthetic_value_format(state), rows, width,
                             gain)->keeps_signals = true;
}

static void add_shared_expert(listing *state) {
    static const char *const names[3] = { "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp" };
    const pi2_synthetic_shape *shape = &state->plan->shape;
    const bool is_gated = state->plan->family->gated_queries; /* of the families here, the same ones */
    add_one_ffn(state, names, shape->shared_length, is_gated ? SIGMOID_GATE : 1.0f);
    if (!is_gated) return;
    const float width = (float)shape->embedding_length;
    pi2_synthetic_add_floats(state, "ffn_gate_inp_shexp.weight", shape->embedding_length, 0, 0.0f, sqrtf(3.0f / width));
}

static void add_expert_biases(listing *state) {
    const pi2_synthetic_shape *shape = &state->plan->shape;
    const uint64_t rows = shape->expert_feed_forward_length, experts = shape->expert_count;
    pi2_synthetic_add_floats(state, "ffn_gate_inp.bias", experts, 0, 0.0f, BIAS_SPREAD);
    pi2_synthetic_add_floats(state, "ffn_gate_exps.bias", rows, experts, 0.0f, BIAS_SPREAD);
    pi2_synthetic_add_floats(state, "ffn_up_exps.bias", rows, experts, 0.0f, BIAS_SPREAD);
    pi2_synthetic_add_floats(state, "ffn_down_exps.bias", shape->embedding_length, experts, 0.0f, BIAS_SPREAD);
}

static void stack(pi2_synthetic_tensor *tensor, uint64_t matrices) {
    tensor->dimensions[2] = matrices;
    tensor->dimension_count = 3;
}

static void add_experts(listing *state) {
    const pi2_synthetic_plan *plan = state->plan;
    const pi2_synthetic_shape *shape = &plan->shape;
    const uint64_t width = shape->embedding_length, rows = shape->expert_feed_forward_length;
    const uint64_t experts = shape->expert_count;
    const float scale = shape->expert_scale > 0.0f ? shape->expert_scale : 1.0f;
    /* The weighted sum of independent experts is smaller than one of them. */
    const float sum = fminf(sqrtf(1.3f / (float)shape->expert_used_count), 1.0f) * scale;
    pi2_synthetic_add_router(state);
    pi2_synthetic_tensor *gate = NULL;
    if (!plan->family->one_block) {
        gate = pi2_synthetic_add_matrix(state, "ffn_gate_exps", state->format, width, rows, 1.0f);
        stack(gate, experts);
    }
    pi2_synthetic_tensor *up = pi2_synthetic_add_matrix(state, "ffn_up_exps", state->format, width, rows, 1.0f);
    pi2_synthetic_tensor *down = pi2_synthetic_add_matrix(
        state, "ffn_down_exps", pi2_synthetic_value_format(state), rows, width,
        pi2_synthetic_feed_forward_gain(plan, state->layer) / (product_of(plan, state->layer) * sum));
    stack(up, experts);
    stack(down, experts);
    down->keeps_signals = true;
    if (gate) plant_neurons(plan, gate, up);
    if (plan->family->has_biases) add_expert_biases(state);
    if (plan->family->router_has_bias) {
        pi2_synthetic_add_floats(state, "exp_probs_b.bias", experts, 0, 0.0f, 0.01f);
    }
    if (shape->shared_length) add_shared_expert(state);
}

static void add_feed_forward(listing *state) {
    static const char *const names[3] = { "ffn_gate", "ffn_up", "ffn_down" };
    const pi2_synthetic_shape *shape = &state->plan->shape;
    if (shape->expert_count && state->layer >= shape->leading_dense) add_experts(state);
    else add_one_ffn(state, names, shape->feed_forward_length, 1.0f);
}

void pi2_synthetic_add_layer(listing *state) {
    const pi2_synthetic_plan *plan = state->plan;
    const pi2_synthetic_family *family = plan->family;
    const uint64_t width = plan->shape.embedding_length;
    const char kind = pi2_synthetic_layer_kind(&plan->shape, state->layer);
    if (family->is_gemma) {
        pi2_synthetic_add_gemma_layer(state);
        return;
    }
    pi2_synthetic_add_norm(state, "attn_norm", width, 1.0f);
    switch (kind) {
    case 'A': add_attention(state); break;
    case 'C': add_short_convolution(state); break;
    case 'D': add_delta_net(state); break;
    case 'L': add_latent_attention(state); break;
    case 'M': add_state_space(state); break;
    default: break;
    }
    if (family->one_block && kind != 'F') return;
    const char *norm = family->ffn_norm ? family->ffn_norm : "ffn_norm";
    if (!family->one_block) pi2_synthetic_add_norm(state, norm, width, 1.0f);
    add_feed_forward(state);
}
