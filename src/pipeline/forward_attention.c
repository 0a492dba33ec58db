/* forward_attention.c: queries, keys and values; attention; its projection; the norm that follows. */
#include "pipeline/forward_internal.h"

enum { TOKEN_BLOCK = 8, QUERIES_AT_ONCE = 32 };

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

static uint8_t *kv_head(const pi2_forward *forward, uint32_t layer, uint32_t head) {
    const size_t index = (size_t)layer * forward->model->shape.head_count_kv + head;
    return (uint8_t *)forward->options.cache + index * forward->kv_head_bytes;
}

/* ---- Q, K and V: their rows, one after another, cut into chunks ---- */

typedef struct qkv_plan {
    pi2_tile_chunks chunks;
    uint32_t tiles[3];
} qkv_plan;

static qkv_plan plan_qkv(const pi2_forward_walk *walk) {
    const pi2_layer_weights *layer = layer_of(walk);
    qkv_plan plan = { .tiles = { layer->q.tile_count, layer->k.tile_count, layer->v.tile_count } };
    plan.chunks = pi2_forward_plan_chunks(walk->forward, plan.tiles[0] + plan.tiles[1] + plan.tiles[2],
        pi2_tile_bytes(layer->q.tensor->format, layer->q.tensor->columns), false);
    return plan;
}

static void qkv_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_layer_weights *layer = layer_of(walk);
    const qkv_plan plan = plan_qkv(walk);
    const pi2_operand *operands[3] = { &layer->q, &layer->k, &layer->v };
    float *outs[3] = { buffers->q, buffers->k, buffers->v };
    const size_t strides[3] = { buffers->q_stride, buffers->k_stride, buffers->v_stride };
    const uint32_t chunk_begin = pi2_tile_chunk_begin(&plan.chunks, chunk);
    const uint32_t chunk_end = pi2_tile_chunk_begin(&plan.chunks, chunk + 1);
    uint32_t base = 0;
    for (int i = 0; i < 3; i++) {
        const uint32_t begin = chunk_begin > base ? chunk_begin - base : 0;
        const uint32_t end = chunk_end < base + plan.tiles[i] ? chunk_end - base : plan.tiles[i];
        if (chunk_end > base && begin < end) {
            pi2_forward_rows(forward, operands[i], begin, end - begin, &buffers->normed_set, 0,
                             forward->token_count, outs[i] + (size_t)begin * PI2_TILE_ROWS, strides[i], true);
        }
        base += plan.tiles[i];
    }
}

static void rotate_heads(const pi2_forward *forward, float *heads, uint32_t head_count, const float *cos_sin) {
    const pi2_model_shape *shape = &forward->model->shape;
    for (uint32_t h = 0; h < head_count; h++) {
        float *head = heads + (size_t)h * shape->key_length;
        if (shape->rope.pairing == PI2_ROPE_NEOX) forward->vector->rope_neox(head, cos_sin, shape->rope.dimensions);
        else forward->vector->rope_norm(head, cos_sin, shape->rope.dimensions);
    }
}

static void norm_heads(const pi2_forward *forward, float *heads, uint32_t head_count, const float *weight) {
    const pi2_model_shape *shape = &forward->model->shape;
    for (uint32_t h = 0; h < head_count; h++) {
        float *head = heads + (size_t)h * shape->key_length;
        forward->vector->rms_norm(head, head, weight, shape->key_length, shape->norm_epsilon);
    }
}

/* Biases, norms of heads, rotation, and the new key and value into the cache. */
static void store_token(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const float *const *tables = layer_of(walk)->tables;
    float *q = buffers->q + token * buffers->q_stride;
    float *k = buffers->k + token * buffers->k_stride;
    float *v = buffers->v + token * buffers->v_stride;
    if (tables[PI2_TABLE_Q_BIAS]) {
        forward->vector->add(q, tables[PI2_TABLE_Q_BIAS], (size_t)shape->head_count * shape->key_length);
    }
    if (tables[PI2_TABLE_K_BIAS]) {
        forward->vector->add(k, tables[PI2_TABLE_K_BIAS], (size_t)shape->head_count_kv * shape->key_length);
    }
    if (tables[PI2_TABLE_V_BIAS]) {
        forward->vector->add(v, tables[PI2_TABLE_V_BIAS], (size_t)shape->head_count_kv * shape->value_length);
    }
    if (tables[PI2_TABLE_Q_NORM]) norm_heads(forward, q, shape->head_count, tables[PI2_TABLE_Q_NORM]);
    if (tables[PI2_TABLE_K_NORM]) norm_heads(forward, k, shape->head_count_kv, tables[PI2_TABLE_K_NORM]);
    if (shape->learned_positions == 0 && (shape->window == 0 || pi2_layer_has_window(shape, walk->layer))) {
        const float *cos_sin = buffers->cos_sin + (size_t)token * shape->rope.dimensions;
        rotate_heads(forward, q, shape->head_count, cos_sin);
        rotate_heads(forward, k, shape->head_count_kv, cos_sin);
    }
    for (uint32_t h = 0; h < shape->head_count_kv; h++) {
        forward->attention->store(kv_head(forward, walk->layer, h), &forward->kv_layout,
                                  forward->position + token, k + (size_t)h * shape->key_length,
                                  v + (size_t)h * shape->value_length);
    }
}

/* ---- attention ---- */

/* Heads of one chunk: all that share a KV head, or one, when that splits better over the threads. */
static uint32_t heads_per_chunk(const pi2_forward *forward) {
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t threads = forward->options.shape.thread_count;
    const uint32_t group = shape->head_count / shape->head_count_kv;
    const bool even = shape->head_count_kv % threads == 0 || shape->head_count_kv >= 4 * threads;
    return forward->token_count > 2 || even ? group : 1;
}

static void attend_some(pi2_forward_walk *walk, unsigned member, uint32_t token, uint32_t token_end,
                        uint32_t head_begin, uint32_t head_end) {
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t kv = head_begin / (shape->head_count / shape->head_count_kv);
    float *outs[QUERIES_AT_ONCE];
    const float *queries[QUERIES_AT_ONCE];
    uint32_t key_counts[QUERIES_AT_ONCE], first_keys[QUERIES_AT_ONCE];
    const uint32_t window = pi2_layer_has_window(shape, walk->layer) ? shape->window : UINT32_MAX;
    const size_t stride = ((size_t)forward->position + token_end + 15) / 16 * 16;
    size_t most = buffers->score_floats / stride;
    if (most > QUERIES_AT_ONCE) most = QUERIES_AT_ONCE;
    float *scores = buffers->member + member * buffers->member_floats;
    size_t count = 0;
    for (uint32_t t = token; t < token_end; t++) {
        for (uint32_t h = head_begin; h < head_end; h++) {
            outs[count] = buffers->attended + t * buffers->attended_stride + (size_t)h * shape->value_length;
            queries[count] = buffers->q + t * buffers->q_stride + (size_t)h * shape->key_length;
            key_counts[count] = forward->position + t + 1;
            first_keys[count] = key_counts[count] > window ? key_counts[count] - window : 0;
            count++;
            if (count < most && !(t + 1 == token_end && h + 1 == head_end)) continue;
            forward->attention->attend(outs, queries, key_counts, first_keys, count, kv_head(forward, walk->layer, kv),
                                       &forward->kv_layout, shape->attention_scale, scores, stride);
            count = 0;
        }
    }
}

static void attention_chunk(void *argument, unsigned member, uint32_t chunk) {
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    if (pi2_forward_failed(forward)) return;
    const uint32_t heads = heads_per_chunk(forward);
    const uint32_t head_chunks = forward->model->shape.head_count / heads;
    const uint32_t token = chunk / head_chunks * TOKEN_BLOCK;
    const uint32_t head = chunk % head_chunks * heads;
    const uint32_t end = token + TOKEN_BLOCK < forward->token_count ? token + TOKEN_BLOCK : forward->token_count;
    attend_some(walk, member, token, end, head, head + heads);
}

static void attended_token(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    const pi2_model_shape *shape = &walk->forward->model->shape;
    pi2_activation_set_fill(&buffers->attended_set, token, 0, shape->head_count * shape->value_length,
                            buffers->attended + token * buffers->attended_stride);
}

/* ---- the projection back into the residual stream ---- */

static pi2_tile_chunks projection_chunks(const pi2_forward_walk *walk) {
    const pi2_operand *operand = &layer_of(walk)->attention_output;
    return pi2_forward_plan_chunks(walk->forward, operand->tile_count,
                                   pi2_tile_bytes(operand->tensor->format, operand->tensor->columns), false);
}

static void projection_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_operand *operand = &layer_of(walk)->attention_output;
    const pi2_tile_chunks chunks = projection_chunks(walk);
    const uint32_t begin = pi2_tile_chunk_begin(&chunks, chunk), end = pi2_tile_chunk_begin(&chunks, chunk + 1);
    pi2_forward_rows(forward, operand, begin, end - begin, &buffers->attended_set, 0, forward->token_count,
                     buffers->out + (size_t)begin * PI2_TILE_ROWS, buffers->width_stride, true);
}

static void norm_for_ffn(pi2_forward_walk *walk, uint32_t token) {
    const float *const *tables = layer_of(walk)->tables;
    pi2_forward_norm_token(walk->forward, tables[PI2_TABLE_FFN_NORM], tables[PI2_TABLE_FFN_NORM_BIAS], token);
}

/* Attention's result into the residual stream, and the norm that the FFN reads. In parallel with attention it reads the
 * layer's input: normed already for attention, where both have one norm. */
static void after_attention_token(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const float *const *tables = layer_of(walk)->tables;
    const size_t width = forward->model->shape.embedding_length;
    float *x = buffers->x + token * buffers->width_stride;
    float *out = buffers->out + token * buffers->width_stride;
    if (tables[PI2_TABLE_OUTPUT_BIAS]) forward->vector->add(out, tables[PI2_TABLE_OUTPUT_BIAS], width);
    const bool is_parallel = forward->model->shape.parallel, has_norm = tables[PI2_TABLE_FFN_NORM] != NULL;
    if (is_parallel && has_norm) norm_for_ffn(walk, token); /* of the layer's input, which x still is */
    forward->vector->add(x, out, width);
    if (!is_parallel) norm_for_ffn(walk, token);
    pi2_forward_ahead_token(walk, token);
}

void pi2_forward_attention(pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    walk->stage_name = "q+k+v";
    pi2_forward_stage(walk, plan_qkv(walk).chunks.count, qkv_chunk, store_token);
    const uint32_t head_chunks = forward->model->shape.head_count / heads_per_chunk(forward);
    const uint32_t blocks = (forward->token_count + TOKEN_BLOCK - 1) / TOKEN_BLOCK;
    walk->stage_name = "attention";
    pi2_forward_stage(walk, blocks * head_chunks, attention_chunk, attended_token);
    walk->stage_name = "attention output";
    pi2_forward_stage(walk, projection_chunks(walk).count, projection_chunk, after_attention_token);
}
