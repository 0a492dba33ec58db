/* synthetic_plan.c: a shape's tensors, their types and how large their values are. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "synthetic/synthetic_internal.h"

enum { TENSORS_PER_LAYER = 32, TENSORS_BESIDES = 8 };

static const float HEAD_GAIN = 3.0f; /* deviation of the logits */

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

static pi2_synthetic_tensor *add_tensor(pi2_synthetic_listing *state, const char *name, pi2_fill fill,
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

void pi2_synthetic_add_norm(pi2_synthetic_listing *state, const char *name, uint64_t length, float middle) {
    (void)add_tensor(state, name, PI2_FILL_NORM, pi2_weight_format_find(PI2_F32), length, 0, middle);
}

pi2_synthetic_tensor *pi2_synthetic_add_matrix(pi2_synthetic_listing *state, const char *name,
                                               const pi2_weight_format *format, uint64_t columns, uint64_t rows,
                                               float gain) {
    return add_tensor(state, name, PI2_FILL_RANDOM, format, columns, rows, gain / sqrtf((float)columns));
}

void pi2_synthetic_add_stack(pi2_synthetic_listing *state, const char *name, uint64_t columns, uint64_t rows,
                             uint64_t matrices, float gain) {
    pi2_synthetic_tensor *tensor = pi2_synthetic_add_matrix(state, name, state->format, columns, rows, gain);
    tensor->dimensions[2] = matrices;
    tensor->dimension_count = 3;
}

void pi2_synthetic_add_router(pi2_synthetic_listing *state) {
    const pi2_synthetic_shape *shape = &state->plan->shape;
    (void)add_tensor(state, "ffn_gate_inp", PI2_FILL_ROUTER, pi2_weight_format_find(PI2_F32), shape->embedding_length,
                     shape->expert_count, 1.0f);
}

void pi2_synthetic_add_floats(pi2_synthetic_listing *state, const char *name, uint64_t columns, uint64_t rows,
                              float middle, float spread) {
    pi2_synthetic_tensor *tensor = add_tensor(state, name, PI2_FILL_FLOATS, pi2_weight_format_find(PI2_F32), columns,
                                              rows, middle);
    tensor->spread = spread;
    pi2_synthetic_rename(state, name);
}

void pi2_synthetic_rename(pi2_synthetic_listing *state, const char *name) {
    pi2_synthetic_tensor *tensor = &state->plan->tensors[state->plan->tensor_count - 1];
    (void)snprintf(tensor->name, sizeof tensor->name, "blk.%u.%s", state->layer, name);
}

/* ---- types ------------------------------------------------------------------------------ */

static const pi2_weight_format *head_format(const pi2_synthetic_listing *state) {
    const uint32_t type = (uint32_t)state->format->type;
    if (!state->is_mixed || type == PI2_Q8_0 || state->format->block_columns == 1) return state->format;
    return pi2_weight_format_find(PI2_Q6_K);
}

/** Layers to which mixtures give more bits: the first and last eighth, and every third between. */
static bool gets_more_bits(const pi2_synthetic_listing *state) {
    const uint32_t count = state->plan->shape.layer_count, layer = state->layer;
    return layer < count / 8 || layer >= 7 * count / 8 || (layer - count / 8) % 3 == 2;
}

const pi2_weight_format *pi2_synthetic_value_format(const pi2_synthetic_listing *state) {
    return state->is_medium && gets_more_bits(state) ? pi2_weight_format_find(PI2_Q6_K) : state->format;
}

bool pi2_synthetic_has_eight_experts(const pi2_synthetic_listing *state) {
    return state->is_mixed && state->plan->shape.expert_count == 8 && state->format->block_columns > 1;
}

/* ---- all ---- */

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

static void add_all(pi2_synthetic_listing *state) {
    pi2_synthetic_plan *plan = state->plan;
    const pi2_synthetic_shape *shape = &plan->shape;
    const uint64_t width = shape->embedding_length, tokens = shape->vocabulary_size;
    const pi2_weight_format *head = head_format(state);
    state->layer = UINT32_MAX;
    (void)add_tensor(state, "token_embd", PI2_FILL_EMBEDDING, shape->tied_head ? head : state->format,
                     width, tokens, plan->family->is_gemma ? PI2_GEMMA_EMBEDDING / sqrtf((float)width) : 1.0f);
    if (plan->family->is_gemma) pi2_synthetic_add_gemma_tables(state);
    for (state->layer = 0; state->layer < shape->layer_count; state->layer++) {
        pi2_synthetic_add_layer(state);
    }
    state->layer = UINT32_MAX;
    pi2_synthetic_add_norm(state, plan->family->output_norm ? plan->family->output_norm : "output_norm", width, 1.0f);
    if (!shape->tied_head) {
        pi2_synthetic_add_matrix(state, "output", head, width, tokens, HEAD_GAIN)->fill = PI2_FILL_HEAD;
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
    pi2_synthetic_listing state = { .plan = plan_out, .layer = UINT32_MAX, .is_mixed = !options->pure,
                         .is_medium = !options->pure && strcmp(options->type, "q4_k_m") == 0 };
    PI2_TRY(pi2_synthetic_type_find(options->type, &state.format, &file_type));
    PI2_TRY(pi2_synthetic_check_shape(&plan_out->shape));
    plan_out->family = pi2_synthetic_family_find(plan_out->shape.architecture);
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
