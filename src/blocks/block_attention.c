/* block_attention.c: queries, keys and values; attention over the sequence's keys and values; its projection. */
#include "blocks/block_attention.h"

#include <math.h>
#include <string.h>

#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

enum { TOKEN_BLOCK = 8, QUERIES_AT_ONCE = 32 };

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

static const pi2_layer_shape *shape_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->shape.layers[walk->layer];
}

/* Of all sequences. */
static uint8_t *kv_head(const pi2_forward_walk *walk, const pi2_kv_layout *layout, uint32_t head) {
    return pi2_forward_keys(walk->forward, shape_of(walk)->kv_layer) + head * pi2_kv_head_bytes(layout);
}

static pi2_kv_layout kv_layout_of(const pi2_forward_walk *walk) {
    const pi2_model_shape *shape = &walk->forward->model->shape;
    return pi2_forward_kv_layout(&shape->layers[shape_of(walk)->kv_layer], &walk->forward->options.shape);
}

/* Floats of one head of queries: its gate lies behind it. */
static size_t query_step(const pi2_model_shape *shape, const pi2_layer_shape *layer) {
    return shape->gated_queries ? 2 * (size_t)layer->key_length : layer->key_length;
}

/* Whether it makes keys and values, and whether these have a matrix of their own. */
static bool has_keys(const pi2_model_shape *shape, uint32_t layer) { return shape->layers[layer].kv_layer == layer; }
static bool has_values(const pi2_model_shape *shape, uint32_t layer) {
    return has_keys(shape, layer) && (!shape->keys_are_values || shape->layers[layer].window > 0);
}

/* ---- what it binds and needs ---- */

static pi2_status list_matrices(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                                pi2_model_requests *requests) {
    const pi2_layer_shape *own = &shape->layers[layer];
    const uint64_t kv_heads = own->head_count_kv;
    const uint64_t width = shape->embedding_length, read = shape->feature_count ? 2 * width : width;
    const uint64_t queries = shape->head_count * (uint64_t)query_step(shape, own);
    const uint64_t keys = kv_heads * own->key_length, values = kv_heads * own->value_length;
    pi2_group_request *group = pi2_requests_group(requests, PI2_GROUP_ATTENTION, layer);
    if (shape->fused_qkv && kv_heads != shape->head_count_kv) { /* their place in the row would be the layer's own */
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: layer %u has %u key-value heads and another %u: layers whose "
                        "queries, keys and values are one matrix are computed with as many each",
                        pi2_gguf_file_path(model->gguf, 0), layer, (unsigned)kv_heads, shape->head_count_kv);
    }
    if (shape->fused_qkv) {
        PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_Q, "attn_qkv.weight", read, queries + keys + values));
    } else {
        PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_Q, "attn_q.weight", read, queries));
        if (has_keys(shape, layer)) {
            PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_K, "attn_k.weight", read, keys));
        }
        if (has_values(shape, layer)) {
            PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_V, "attn_v.weight", read, values));
        }
    }
    return pi2_requests_matrix(model, group, PI2_MATRIX_ATTENTION_OUTPUT, "attn_output.weight",
                               (uint64_t)shape->head_count * own->value_length, width);
}

pi2_status pi2_attention_list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                              pi2_model_requests *requests) {
    const uint32_t kv_heads = shape->layers[layer].head_count_kv, head = shape->layers[layer].key_length;
    const uint32_t queries = shape->head_count * head, keys = kv_heads * head;
    const struct { pi2_table_role role; const char *name; uint32_t length; } biases[] = {
        { PI2_TABLE_Q_BIAS, "attn_q.bias", queries }, { PI2_TABLE_K_BIAS, "attn_k.bias", keys },
        { PI2_TABLE_V_BIAS, "attn_v.bias", kv_heads * shape->layers[layer].value_length },
        { PI2_TABLE_OUTPUT_BIAS, "attn_output.bias", shape->embedding_length } };
    PI2_TRY(list_matrices(model, shape, layer, requests));
    pi2_requests_attention_norms(model, shape, requests, layer);
    for (size_t i = 0; i < sizeof biases / sizeof biases[0]; i++) {
        pi2_requests_table(model, requests, biases[i].role, layer, biases[i].name, biases[i].length)->required = false;
    }
    if (shape->has_sinks) {
        (void)pi2_requests_table(model, requests, PI2_TABLE_SINKS, layer, "attn_sinks.weight", shape->head_count);
    }
    if (shape->norms_attended) {
        (void)pi2_requests_table(model, requests, PI2_TABLE_ATTENDED_NORM, layer, "attn_sub_norm.weight",
                                 shape->head_count * shape->layers[layer].value_length);
    }
    if (!shape->head_norms && !shape->whole_norms) return PI2_OK;
    (void)pi2_requests_table(model, requests, PI2_TABLE_Q_NORM, layer, "attn_q_norm.weight",
                             shape->whole_norms ? queries : head);
    if (!has_keys(shape, layer)) return PI2_OK;
    (void)pi2_requests_table(model, requests, PI2_TABLE_K_NORM, layer, "attn_k_norm.weight",
                             shape->whole_norms ? keys : head);
    return PI2_OK;
}

void pi2_attention_needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                         pi2_block_needs *needs_out) {
    const pi2_layer_shape *own = &model->layers[layer];
    const pi2_kv_layout layout = pi2_forward_kv_layout(own, shape);
    const size_t head = pi2_kv_head_bytes(&layout), keys = pi2_kv_values_offset(&layout);
    needs_out->areas[0] = (pi2_state_area){ keys, pi2_kv_key_tile_bytes(&layout) };
    needs_out->areas[1] = (pi2_state_area){ head - keys, pi2_kv_value_tile_bytes(&layout) };
    needs_out->repeats = has_keys(model, layer) ? own->head_count_kv : 0;
    needs_out->window = own->window;
    needs_out->tiles = pi2_forward_ring_tiles(own, shape);
    if (needs_out->tiles) needs_out->saved_tiles = pi2_kv_tiles_of(own->window - 1 + PI2_TAKEN_BACK);
    needs_out->result = model->head_count * own->value_length;
    needs_out->stages = PI2_STAGES_OF_ATTENTION;
    needs_out->query = model->head_count * own->key_length;
    needs_out->key_value = own->head_count_kv * (own->key_length + own->value_length);
}

/* ---- Q, K and V ---- */

/* K and V have no tiles of their own where all are one matrix, or where the layer has none. */
static void matrices_of(const pi2_forward_walk *walk, pi2_matrix_rows rows[3]) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    const pi2_layer_weights *layer = layer_of(walk);
    rows[0] = (pi2_matrix_rows){ &layer->q, buffers->q, buffers->q_stride };
    rows[1] = (pi2_matrix_rows){ &layer->k, buffers->k, buffers->k_stride };
    rows[2] = (pi2_matrix_rows){ &layer->v, buffers->v, buffers->v_stride };
}

static void qkv_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    pi2_matrix_rows rows[3];
    matrices_of(walk, rows);
    pi2_forward_matrices_chunk(walk, rows, 3, chunk);
}

/* The heads of a token's queries or keys, of so many floats each, `step` floats apart. */
typedef struct head_row {
    float *heads;
    uint32_t count;
    size_t step, length;
    const float *bias, *norm;
} head_row;

static void add_bias(const pi2_forward *forward, const head_row *row) {
    if (!row->bias) return;
    for (uint32_t h = 0; h < row->count; h++) {
        forward->cpu.vector->add(row->heads + h * row->step, row->bias + h * row->length, row->length);
    }
}

static void rotate_heads(const pi2_forward *forward, const head_row *row, const pi2_rope_shape *rope,
                         const float *cos_sin) {
    for (uint32_t h = 0; h < row->count; h++) {
        float *head = row->heads + h * row->step;
        if (rope->pairing == PI2_ROPE_NEOX) forward->cpu.vector->rope_neox(head, cos_sin, rope->dimensions);
        else forward->cpu.vector->rope_norm(head, cos_sin, rope->dimensions);
    }
}

static void norm_heads(const pi2_forward *forward, const head_row *row) {
    const pi2_model_shape *shape = &forward->model->shape;
    if (!row->norm) return;
    const uint32_t rows = shape->whole_norms ? 1 : row->count;
    const size_t length = shape->whole_norms ? row->count * row->length : row->length;
    for (uint32_t h = 0; h < rows; h++) {
        float *head = row->heads + h * row->step;
        forward->cpu.vector->rms_norm(head, head, row->norm, length, shape->norm_epsilon);
    }
}

/* Bias, norm and rotation, in the model's order. */
static void finish_heads(const pi2_forward_walk *walk, uint32_t token, const head_row *row) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t rope = shape_of(walk)->rope;
    add_bias(forward, row);
    if (!shape->norms_after_rotation) norm_heads(forward, row);
    if (rope != PI2_NO_ROPE) {
        rotate_heads(forward, row, pi2_model_rope(shape, rope), pi2_forward_cos_sin(forward, rope, token));
    }
    if (shape->norms_after_rotation) norm_heads(forward, row);
}

/* Queries far from the beginning are longer. */
static void heat_queries(const pi2_forward *forward, uint32_t token, const head_row *q) {
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t times = pi2_forward_position(forward, token) / shape->rope.original_context;
    const float factor = (float)(1.0 + (double)shape->temperature_scale * pi2_log(1.0 + times));
    for (size_t i = 0; i < q->count * q->step; i++) q->heads[i] *= factor;
}

/* Keys and values go into the state. */
static void store_key(const pi2_forward_walk *walk, uint32_t token, const head_row *k) {
    pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const pi2_layer_shape *own = shape_of(walk);
    const float *bias = layer_of(walk)->tables[PI2_TABLE_V_BIAS];
    const size_t length = own->value_length;
    const pi2_kv_layout layout = kv_layout_of(walk);
    float *v = forward->buffers.v + token * forward->buffers.v_stride;
    if (!shape->fused_qkv && !has_values(shape, walk->layer)) memcpy(v, k->heads, k->count * length * sizeof *v);
    if (bias) forward->cpu.vector->add(v, bias, k->count * length);
    finish_heads(walk, token, k);
    uint32_t places[PI2_BRANCHES_MOST + 1];
    const uint32_t place_count = pi2_forward_places(forward, walk->layer, token, places);
    for (uint32_t h = 0; h < k->count; h++) {
        float *value = v + h * length;
        if (shape->norms_values) {
            forward->cpu.vector->rms_norm(value, value, forward->ones, length, shape->norm_epsilon);
        }
        for (uint32_t p = 0; p < place_count; p++) {
            forward->cpu.attention->store(kv_head(walk, &layout, h), &layout, places[p], k->heads + h * k->step, value);
        }
    }
}

/* Queries and keys are made ready. */
static void store_token(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const float *const *tables = layer_of(walk)->tables;
    const pi2_layer_shape *own = shape_of(walk);
    const head_row q = { buffers->q + token * buffers->q_stride, shape->head_count, query_step(shape, own),
                         own->key_length, tables[PI2_TABLE_Q_BIAS], tables[PI2_TABLE_Q_NORM] };
    const head_row k = { buffers->k + token * buffers->k_stride, own->head_count_kv, own->key_length, own->key_length,
                         tables[PI2_TABLE_K_BIAS], tables[PI2_TABLE_K_NORM] };
    finish_heads(walk, token, &q);
    if (has_keys(shape, walk->layer)) store_key(walk, token, &k);
    if (shape->temperature_scale != 0.0f) heat_queries(forward, token, &q);
}

/* ---- attention ---- */

/* Heads of one chunk: all that share a KV head, or one, when that splits better over the threads. */
static uint32_t heads_per_chunk(const pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const uint32_t threads = forward->options.shape.thread_count, kv_heads = shape_of(walk)->head_count_kv;
    const uint32_t group = forward->model->shape.head_count / kv_heads;
    const bool even = kv_heads % threads == 0 || kv_heads >= 4 * threads;
    return forward->token_count > 2 || even ? group : 1;
}

/* Tokens [token, token_end) of one sequence. */
static void attend_some(pi2_forward_walk *walk, unsigned member, uint32_t token, uint32_t token_end,
                        uint32_t head_begin, uint32_t head_end) {
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_model_shape *shape = &forward->model->shape;
    const pi2_layer_shape *own = shape_of(walk);
    const pi2_kv_layout layout = kv_layout_of(walk);
    const uint32_t kv = head_begin / (shape->head_count / own->head_count_kv);
    float *outs[QUERIES_AT_ONCE];
    const float *queries[QUERIES_AT_ONCE];
    uint32_t key_counts[QUERIES_AT_ONCE], first_keys[QUERIES_AT_ONCE];
    const uint32_t window = own->window ? own->window : UINT32_MAX, first = pi2_forward_position(forward, token) + 1;
    const uint32_t first_tile = first > window ? (first - window) / PI2_KV_TILE : 0;
    const uint32_t skipped = first_tile * PI2_KV_TILE; /* positions that no query here sees have no scores */
    const uint32_t *pages = pi2_forward_pages_of(forward, own->kv_layer, buffers->places[token].span) + first_tile;
    const size_t stride = ((size_t)pi2_forward_position(forward, token_end - 1) + 1 - skipped + 15) / 16 * 16;
    size_t most = buffers->score_floats / stride;
    if (most > QUERIES_AT_ONCE) most = QUERIES_AT_ONCE;
    float *scores = buffers->member + member * buffers->member_floats;
    const float *sinks = layer_of(walk)->tables[PI2_TABLE_SINKS];
    float query_sinks[QUERIES_AT_ONCE];
    const pi2_attention_scoring scoring = { shape->attention_scale, shape->attention_cap, sinks ? query_sinks : NULL };
    size_t count = 0;
    for (uint32_t t = token; t < token_end; t++) {
        for (uint32_t h = head_begin; h < head_end; h++) {
            outs[count] = buffers->attended + t * buffers->attended_stride + (size_t)h * own->value_length;
            queries[count] = buffers->q + t * buffers->q_stride + h * query_step(shape, own);
            if (sinks) query_sinks[count] = sinks[h];
            key_counts[count] = pi2_forward_position(forward, t) + 1 - skipped;
            first_keys[count] = key_counts[count] > window ? key_counts[count] - window : 0;
            count++;
            if (count < most && !(t + 1 == token_end && h + 1 == head_end)) continue;
            forward->cpu.attention->attend(outs, queries, key_counts, first_keys, count, kv_head(walk, &layout, kv),
                                           &layout, pages, &scoring, scores, stride);
            count = 0;
        }
    }
}

static void attention_chunk(void *argument, unsigned member, uint32_t chunk) {
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    if (pi2_forward_failed(forward)) return;
    const uint32_t heads = heads_per_chunk(walk);
    const uint32_t head_chunks = forward->model->shape.head_count / heads;
    const uint32_t token = chunk / head_chunks * TOKEN_BLOCK;
    const uint32_t head = chunk % head_chunks * heads;
    const uint32_t end = token + TOKEN_BLOCK < forward->token_count ? token + TOKEN_BLOCK : forward->token_count;
    const pi2_token_place *places = forward->buffers.places;
    for (uint32_t begin = token, t = token + 1; begin < end; t++) {
        if (t < end && places[t].span == places[begin].span) continue;
        attend_some(walk, member, begin, t, head, head + heads);
        begin = t;
    }
}

/* Each head's result times the sigmoid of its gate, which lies behind its query. */
static void gate_result(const pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const pi2_layer_shape *own = shape_of(walk);
    for (uint32_t h = 0; h < shape->head_count; h++) {
        float *out = forward->buffers.attended + token * forward->buffers.attended_stride +
                     (size_t)h * own->value_length;
        const float *gate = forward->buffers.q + token * forward->buffers.q_stride + h * query_step(shape, own) +
                            own->key_length;
        for (uint32_t i = 0; i < own->value_length; i++) out[i] = out[i] / (1.0f + pi2_expf(-gate[i]));
    }
}

static void attended_token(pi2_forward_walk *walk, uint32_t token) {
    if (walk->forward->model->shape.gated_queries) gate_result(walk, token);
    pi2_forward_attended(walk, token);
}

void pi2_attention_attend(struct pi2_forward_walk *walk, pi2_token_tail *tail) {
    const pi2_forward *forward = walk->forward;
    const uint32_t head_chunks = forward->model->shape.head_count / heads_per_chunk(walk);
    const uint32_t blocks = (forward->token_count + TOKEN_BLOCK - 1) / TOKEN_BLOCK;
    walk->stage_name = "attention";
    pi2_forward_stage(walk, blocks * head_chunks, attention_chunk, tail);
}

void pi2_attention_run_on(struct pi2_forward_walk *walk, const pi2_activation_set *input) {
    pi2_matrix_rows rows[3];
    walk->input = input;
    matrices_of(walk, rows);
    walk->stage_name = "q+k+v";
    pi2_forward_matrices_stage(walk, rows, 3, qkv_chunk, store_token);
    walk->input = NULL;
    pi2_attention_attend(walk, attended_token);
    pi2_forward_project(walk, PI2_MATRIX_ATTENTION_OUTPUT, "attention output");
}

void pi2_attention_run(struct pi2_forward_walk *walk) {
    pi2_attention_run_on(walk, NULL);
}

const pi2_block_kind pi2_block_attention = {
    .name = "attention", .norm = PI2_TABLE_ATTENTION_NORM, .post_norm = PI2_TABLE_POST_ATTENTION_NORM,
    .attends = true, .list = pi2_attention_list, .needs = pi2_attention_needs, .run = pi2_attention_run,
};
