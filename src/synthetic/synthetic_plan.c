/* synthetic_plan.c: a shape's tensors, their types and how large their values are. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "synthetic/synthetic_internal.h"

enum { TENSORS_PER_LAYER = 12, TENSORS_BESIDES = 3 };

/* Deviation of gate times up for unit normal numbers, with SiLU and with ReLU. */
static const float SILU_PRODUCT = 0.6f, RELU_PRODUCT = 0.707f;
/* Queries and keys: attention weights are then neither even nor on one token alone. */
static const float QUERY_KEY_GAIN = 1.5f;
static const float HEAD_GAIN = 3.0f; /* deviation of the logits */

typedef struct plan_state {
    pi2_synthetic_plan *plan;
    const pi2_weight_format *format; /* of most matrices */
    bool is_mixed, is_medium;        /* medium: q4_k_m */
    uint32_t layer;                  /* being listed; UINT32_MAX outside */
} plan_state;

/**
 * Rows that a type of large blocks cannot hold get what llama-quantize falls back to, or nearly; rows whose weights are
 * chosen one by one a type that can hold them.
 */
static const pi2_weight_format *fitting(const pi2_weight_format *format, bool is_chosen, uint64_t columns) {
    if (format->read_block && is_chosen) format = pi2_weight_format_find(PI2_Q8_0);
    if (columns % format->block_columns == 0) return format;
    switch (format->type) {
    case PI2_Q4_K: return pi2_weight_format_find(PI2_Q5_0);
    case PI2_Q5_K: return pi2_weight_format_find(PI2_Q5_1);
    case PI2_Q6_K: return pi2_weight_format_find(PI2_Q8_0);
    default: return pi2_weight_format_find(PI2_IQ4_NL);
    }
}

static bool has_signals(const pi2_synthetic_shape *shape) {
    return shape->expert_count > 0 || shape->ffn_zeros > 0.0;
}

static pi2_synthetic_tensor *add_tensor(plan_state *state, const char *name, pi2_fill fill,
                                        const pi2_weight_format *format, uint64_t columns,
                                        uint64_t rows, float deviation) {
    pi2_synthetic_plan *plan = state->plan;
    pi2_synthetic_tensor *tensor = &plan->tensors[plan->tensor_count++];
    *tensor = (pi2_synthetic_tensor){ .format = fitting(format, false, columns), .layer = state->layer,
                                      .dimensions = { columns, rows, 1 }, .fill = fill,
                                      .dimension_count = rows ? 2 : 1, .deviation = deviation };
    if (!rows) tensor->dimensions[1] = 1;
    if (state->layer == UINT32_MAX) {
        (void)snprintf(tensor->name, sizeof tensor->name, "%s.weight", name);
    } else {
        (void)snprintf(tensor->name, sizeof tensor->name, "blk.%u.%s.weight", state->layer, name);
    }
    return tensor;
}

/** A vector of floats around `middle`. */
static void add_norm(plan_state *state, const char *name, uint64_t length, float middle) {
    (void)add_tensor(state, name, PI2_FILL_NORM, pi2_weight_format_find(PI2_F32), length, 0, middle);
}

static pi2_synthetic_tensor *add_matrix(plan_state *state, const char *name,
                                        const pi2_weight_format *format, uint64_t columns,
                                        uint64_t rows, float gain) {
    return add_tensor(state, name, PI2_FILL_RANDOM, format, columns, rows,
                      gain / sqrtf((float)columns));
}

/* ---- types ------------------------------------------------------------------------------ */

static const pi2_weight_format *head_format(const plan_state *state) {
    const uint32_t type = (uint32_t)state->format->type;
    if (!state->is_mixed || type == PI2_Q8_0 || state->format->block_columns == 1) return state->format;
    return pi2_weight_format_find(PI2_Q6_K);
}

/** Layers to which mixtures give more bits: the first and last eighth, and every third between. */
static bool gets_more_bits(const plan_state *state) {
    const uint32_t count = state->plan->shape.layer_count, layer = state->layer;
    return layer < count / 8 || layer >= 7 * count / 8 || (layer - count / 8) % 3 == 2;
}

static const pi2_weight_format *value_or_down_format(const plan_state *state) {
    return state->is_medium && gets_more_bits(state) ? pi2_weight_format_find(PI2_Q6_K) : state->format;
}

/** Keys and values of a model of 8 experts are small beside the rest: Q8_0. */
static bool has_eight_experts(const plan_state *state) {
    return state->is_mixed && state->plan->shape.expert_count == 8 && state->format->block_columns > 1;
}

/* ---- tensors ---------------------------------------------------------------------------- */

static void add_attention(plan_state *state) {
    const pi2_synthetic_plan *plan = state->plan;
    const pi2_synthetic_shape *shape = &plan->shape;
    const uint64_t width = shape->embedding_length, head = shape->head_dimension;
    const pi2_weight_format *q8_0 = pi2_weight_format_find(PI2_Q8_0);
    const bool is_recency = plan->signals.signals && state->layer == plan->signals.recency_layer;
    const bool has_qk_norm = strcmp(shape->architecture, "qwen3moe") == 0;
    const pi2_fill fill = is_recency ? PI2_FILL_RECENCY : PI2_FILL_RANDOM;
    add_norm(state, "attn_norm", width, 1.0f);
    add_matrix(state, "attn_q", state->format, width, shape->head_count * head, QUERY_KEY_GAIN)->fill = fill;
    add_matrix(state, "attn_k", has_eight_experts(state) ? q8_0 : state->format, width,
               shape->head_count_kv * head, QUERY_KEY_GAIN)->fill = fill;
    pi2_synthetic_tensor *values = add_matrix(state, "attn_v",
                                              has_eight_experts(state) ? q8_0 : value_or_down_format(state), width,
                                              shape->head_count_kv * head, 1.0f);
    /* What attention averages would leave the constants alone, and the slow signals would be one more. */
    if (is_recency && plan->neurons.is_planted) values->fill = PI2_FILL_VALUE;
    add_matrix(state, "attn_output", state->format, shape->head_count * head, width,
               pi2_synthetic_attention_gain(plan, state->layer) / PI2_ATTENTION_AVERAGE)->keeps_signals = true;
    if (has_qk_norm) {
        const float middle = is_recency ? plan->signals.recency_norm : 1.2f;
        add_norm(state, "attn_q_norm", head, middle);
        add_norm(state, "attn_k_norm", head, middle);
    }
}

/** Deviation of what the activation gives. */
static float product_of(const pi2_synthetic_plan *plan, uint32_t layer) {
    if (plan->neurons.is_planted) return plan->neurons.products[layer];
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

static void add_feed_forward(plan_state *state) {
    const pi2_synthetic_plan *plan = state->plan;
    const pi2_synthetic_shape *shape = &plan->shape;
    const uint64_t width = shape->embedding_length;
    const float product = product_of(plan, state->layer);
    add_norm(state, "ffn_norm", width, 1.0f);
    if (shape->expert_count == 0) {
        const uint64_t rows = shape->feed_forward_length;
        pi2_synthetic_tensor *gate = add_matrix(state, "ffn_gate", state->format, width, rows, 1.0f);
        plant_neurons(plan, gate, add_matrix(state, "ffn_up", state->format, width, rows, 1.0f));
        add_matrix(state, "ffn_down", value_or_down_format(state), rows, width,
                   pi2_synthetic_feed_forward_gain(plan, state->layer) / product)->keeps_signals = true;
        return;
    }
    const uint64_t rows = shape->expert_feed_forward_length, experts = shape->expert_count;
    /* The weighted sum of independent experts is smaller than one of them. */
    const float sum = fminf(sqrtf(1.3f / (float)shape->expert_used_count), 1.0f);
    (void)add_tensor(state, "ffn_gate_inp", PI2_FILL_ROUTER, pi2_weight_format_find(PI2_F32), width,
                     experts, 1.0f);
    pi2_synthetic_tensor *stacked[3] = {
        add_matrix(state, "ffn_gate_exps", state->format, width, rows, 1.0f),
        add_matrix(state, "ffn_up_exps", state->format, width, rows, 1.0f),
        add_matrix(state, "ffn_down_exps", value_or_down_format(state), rows, width,
                   pi2_synthetic_feed_forward_gain(plan, state->layer) / (product * sum)),
    };
    for (int i = 0; i < 3; i++) {
        stacked[i]->dimensions[2] = experts;
        stacked[i]->dimension_count = 3;
    }
    plant_neurons(plan, stacked[0], stacked[1]);
    stacked[2]->keeps_signals = true;
}

/** Tensors whose weights are chosen one by one are known when all are listed. */
static void fit_chosen(pi2_synthetic_plan *plan) {
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        pi2_synthetic_tensor *tensor = &plan->tensors[i];
        const bool is_chosen = tensor->fill == PI2_FILL_EMBEDDING ? has_signals(&plan->shape)
                                                                  : tensor->fill != PI2_FILL_RANDOM &&
                                                                        tensor->fill != PI2_FILL_HEAD;
        tensor->format = fitting(tensor->format, is_chosen, tensor->dimensions[0]);
    }
}

static void add_all(plan_state *state) {
    pi2_synthetic_plan *plan = state->plan;
    const pi2_synthetic_shape *shape = &plan->shape;
    const uint64_t width = shape->embedding_length, tokens = shape->vocabulary_size;
    const pi2_weight_format *head = head_format(state);
    state->layer = UINT32_MAX;
    (void)add_tensor(state, "token_embd", PI2_FILL_EMBEDDING, shape->tied_head ? head : state->format,
                     width, tokens, 1.0f);
    for (state->layer = 0; state->layer < shape->layer_count; state->layer++) {
        add_attention(state);
        add_feed_forward(state);
    }
    state->layer = UINT32_MAX;
    add_norm(state, "output_norm", width, 1.0f);
    if (!shape->tied_head) {
        add_matrix(state, "output", head, width, tokens, HEAD_GAIN)->fill = PI2_FILL_HEAD;
    }
}

/** Each layer adds the same share of what is there, so that a token is still itself at the end.
 *  With a tied head the embeddings must be small beside what the layers add, or else every token
 *  would predict itself. */
static float find_growth(const pi2_synthetic_shape *shape) {
    const float final_variance = shape->tied_head ? 1500.0f : 4.0f;
    return powf(final_variance, 1.0f / (float)shape->layer_count);
}

float pi2_synthetic_residual_variance(const pi2_synthetic_plan *plan, uint32_t layer) {
    return powf(plan->growth, (float)layer);
}

/** In steps of a quarter, so that many layers share a pool of random blocks. */
static float stepped_gain(const pi2_synthetic_plan *plan, uint32_t layer, float share) {
    const float gain = sqrtf((plan->growth - 1.0f) * share * pi2_synthetic_residual_variance(plan, layer));
    return exp2f(rintf(3.0f * log2f(gain)) / 3.0f);
}

/* What attention adds is much alike for neighbouring tokens: more of it and text would repeat. */
static const float ATTENTION_SHARE = 0.15f;

float pi2_synthetic_attention_gain(const pi2_synthetic_plan *plan, uint32_t layer) {
    return stepped_gain(plan, layer, ATTENTION_SHARE);
}

float pi2_synthetic_feed_forward_gain(const pi2_synthetic_plan *plan, uint32_t layer) {
    return stepped_gain(plan, layer, 1.0f - ATTENTION_SHARE);
}

pi2_status pi2_synthetic_plan_make(const pi2_synthetic_options *options,
                                   pi2_synthetic_plan *plan_out) {
    uint32_t file_type = 0;
    *plan_out = (pi2_synthetic_plan){ .shape = options->shape, .options = options };
    plan_state state = { .plan = plan_out, .layer = UINT32_MAX, .is_mixed = !options->pure,
                         .is_medium = !options->pure && strcmp(options->type, "q4_k_m") == 0 };
    PI2_TRY(pi2_synthetic_type_find(options->type, &state.format, &file_type));
    PI2_TRY(pi2_synthetic_check_shape(&plan_out->shape));
    const pi2_synthetic_shape *shape = &plan_out->shape;
    plan_out->growth = find_growth(shape);
    const pi2_weight_format *embedding = shape->tied_head ? head_format(&state) : state.format;
    embedding = fitting(embedding, has_signals(shape), shape->embedding_length);
    PI2_TRY(pi2_synthetic_plan_signals(plan_out, embedding->type));
    plan_out->tensor_capacity = shape->layer_count * TENSORS_PER_LAYER + TENSORS_BESIDES;
    plan_out->tensors = calloc(plan_out->tensor_capacity, sizeof *plan_out->tensors);
    if (!plan_out->tensors) return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of tensors");
    add_all(&state);
    fit_chosen(plan_out);
    return PI2_OK;
}

void pi2_synthetic_plan_free(pi2_synthetic_plan *plan) {
    pi2_synthetic_free_neurons(plan);
    free(plan->tensors);
    plan->tensors = NULL;
}
