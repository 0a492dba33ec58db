/*
 * synthetic_layers_gemma.c: layers of Gemma 4. What a block gives is normed before it is added, so that the norm's
 * weights, and not the matrices', say how much of it there is.
 */
#include <math.h>

#include "synthetic/synthetic_internal.h"

typedef pi2_synthetic_listing listing;

static pi2_synthetic_tensor *add(listing *state, const char *name, uint64_t columns, uint64_t rows) {
    return pi2_synthetic_add_matrix(state, name, state->format, columns, rows, 1.0f);
}

/** Its rows are the residual stream. */
static pi2_synthetic_tensor *add_writer(listing *state, const char *name, uint64_t columns) {
    pi2_synthetic_tensor *tensor = pi2_synthetic_add_matrix(state, name, pi2_synthetic_value_format(state), columns,
                                                            state->plan->shape.embedding_length, 1.0f);
    tensor->keeps_signals = true;
    return tensor;
}

/** A norm of what is added; gain: beside embeddings of deviation 1. */
static void add_post_norm(listing *state, const char *name, float gain) {
    pi2_synthetic_add_norm(state, name, state->plan->shape.embedding_length, PI2_GEMMA_EMBEDDING * gain);
}

static void add_attention(listing *state) {
    const pi2_synthetic_plan *plan = state->plan;
    const pi2_synthetic_shape *shape = &plan->shape;
    const bool is_local = pi2_synthetic_layer_kind(shape, state->layer) == 'W';
    const bool is_recency = plan->signals.signals && state->layer == plan->signals.recency_layer;
    const uint32_t head = is_local ? shape->local_head_dimension : shape->head_dimension;
    const uint64_t keys = (uint64_t)head * (is_local || !shape->full_head_count_kv ? shape->head_count_kv
                                                                                   : shape->full_head_count_kv);
    /* Scores are not divided by the root of the head's length. */
    const float middle = is_recency ? plan->signals.recency_norm : 1.2f / sqrtf(sqrtf((float)head));
    pi2_synthetic_tensor *q = add(state, "attn_q", shape->embedding_length, (uint64_t)shape->head_count * head);
    q->head_rows = head;
    if (is_recency) q->fill = PI2_FILL_RECENCY;
    pi2_synthetic_add_norm(state, "attn_q_norm", head, middle);
    /* Layers that use others' keys and values have these in files too, where nobody reads them. */
    pi2_synthetic_tensor *k = add(state, "attn_k", shape->embedding_length, keys);
    k->head_rows = head;
    if (is_recency) k->fill = PI2_FILL_RECENCY;
    pi2_synthetic_add_norm(state, "attn_k_norm", head, middle);
    if (is_local || !shape->keys_are_values) {
        (void)pi2_synthetic_add_matrix(state, "attn_v", pi2_synthetic_value_format(state), shape->embedding_length,
                                       keys, 1.0f);
    }
    (void)add_writer(state, "attn_output", (uint64_t)shape->head_count * head);
    add_post_norm(state, "post_attention_norm", pi2_synthetic_attention_gain(plan, state->layer));
}

static void add_experts(listing *state) {
    const pi2_synthetic_shape *shape = &state->plan->shape;
    const uint64_t width = shape->embedding_length, rows = shape->expert_feed_forward_length;
    const uint64_t experts = shape->expert_count;
    pi2_synthetic_add_router(state);
    pi2_synthetic_add_norm(state, "ffn_gate_inp", width, sqrtf((float)width)); /* by which its input is divided */
    pi2_synthetic_rename(state, "ffn_gate_inp.scale");
    pi2_synthetic_add_stack(state, "ffn_gate_up_exps", width, 2 * rows, experts, 1.0f);
    pi2_synthetic_tensor *down = add_writer(state, "ffn_down_exps", rows);
    down->dimensions[2] = experts;
    down->dimension_count = 3;
    pi2_synthetic_add_floats(state, "ffn_down_exps.scale", experts, 0, 1.0f, 0.1f);
    pi2_synthetic_add_norm(state, "pre_ffw_norm_2", width, 1.0f);
    pi2_synthetic_add_norm(state, "post_ffw_norm_1", width, 1.0f);
    pi2_synthetic_add_norm(state, "post_ffw_norm_2", width, 1.0f);
}

void pi2_synthetic_add_gemma_layer(listing *state) {
    const pi2_synthetic_plan *plan = state->plan;
    const pi2_synthetic_shape *shape = &plan->shape;
    const uint64_t width = shape->embedding_length;
    const float gain = pi2_synthetic_feed_forward_gain(plan, state->layer);
    pi2_synthetic_add_norm(state, "attn_norm", width, 1.0f);
    add_attention(state);
    pi2_synthetic_add_norm(state, "ffn_norm", width, 1.0f);
    (void)add(state, "ffn_gate", width, shape->feed_forward_length);
    (void)add(state, "ffn_up", width, shape->feed_forward_length);
    (void)add_writer(state, "ffn_down", shape->feed_forward_length);
    if (shape->expert_count) add_experts(state);
    add_post_norm(state, "post_ffw_norm", gain);
    pi2_synthetic_add_floats(state, "layer_output_scale.weight", 1, 0, 1.0f, 0.0f);
    if (!shape->token_length) return;
    (void)add(state, "inp_gate", width, shape->token_length);
    (void)add_writer(state, "proj", shape->token_length);
    add_post_norm(state, "post_norm", 0.3f * gain);
}

void pi2_synthetic_add_gemma_tables(listing *state) {
    const pi2_synthetic_shape *shape = &state->plan->shape;
    const uint64_t floats = (uint64_t)shape->token_length * shape->layer_count;
    pi2_synthetic_add_norm(state, "rope_freqs", shape->head_dimension / 2, 1.0f);
    state->plan->tensors[state->plan->tensor_count - 1].fill = PI2_FILL_ROPE_FACTORS;
    if (!floats) return;
    pi2_synthetic_tensor *table = add(state, "per_layer_token_embd", floats, shape->vocabulary_size);
    table->deviation = 1.0f / sqrtf((float)shape->token_length); /* rows are times the root of it */
    (void)add(state, "per_layer_model_proj", shape->embedding_length, floats);
    pi2_synthetic_add_norm(state, "per_layer_proj_norm", shape->token_length, 1.0f);
}
