/*
 * block_attention_latent.c: multi-head latent attention. All heads have one key and one value in common: a short vector
 * that the token is pressed into, the key with some rotated dimensions behind it. A matrix of each head turns its query
 * to where the common key lies, another makes the head's result of the common values.
 */
#include <string.h>

#include "architectures/decoder.h"
#include "base/fail.h"
#include "blocks/block_attention.h"
#include "pipeline/forward_internal.h"

enum { STAGES = 6 }; /* inputs, queries, each head's queries, attention, each head's values, output */

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

/* What of a head's query is not rotated. */
static uint32_t plain_length(const pi2_model_shape *shape) { return shape->head_key_length - shape->rope.dimensions; }

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint64_t width = shape->embedding_length, heads = shape->head_count, latent = shape->latent_length;
    const uint64_t queries = heads * shape->head_key_length, query = shape->latent_query_length;
    pi2_group_request *group = pi2_requests_group(requests, PI2_GROUP_ATTENTION, layer);
    if (query) PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_LATENT_QUERY, "attn_q_a.weight", width, query));
    else PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_Q, "attn_q.weight", width, queries));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_K, "attn_kv_a_mqa.weight", width,
                                latent + shape->rope.dimensions));
    if (query) PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_Q, "attn_q_b.weight", query, queries));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_HEAD_KEYS, "attn_k_b.weight", plain_length(shape),
                                latent * heads));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_HEAD_VALUES, "attn_v_b.weight", latent,
                                heads * shape->head_value_length));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_ATTENTION_OUTPUT, "attn_output.weight",
                                heads * shape->head_value_length, width));
    pi2_requests_attention_norms(model, shape, requests, layer);
    (void)pi2_requests_table(model, requests, PI2_TABLE_K_NORM, layer, "attn_kv_a_norm.weight", shape->latent_length);
    if (query) {
        (void)pi2_requests_table(model, requests, PI2_TABLE_Q_NORM, layer, "attn_q_a_norm.weight",
                                 shape->latent_query_length);
    }
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    pi2_attention_needs(model, layer, shape, needs_out);
    const uint32_t given = model->head_count * model->head_value_length;
    const uint32_t queries = model->head_count * model->head_key_length;
    if (given > needs_out->result) needs_out->result = given;
    needs_out->scratch = queries > given ? queries : given;
    needs_out->stages = model->latent_query_length ? STAGES : STAGES - 1; /* whole queries are among the inputs */
}

/* ---- what is pressed ---- */

static uint32_t inputs_of(const pi2_forward_walk *walk, pi2_matrix_rows rows[2]) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    const pi2_layer_weights *layer = layer_of(walk);
    const bool is_short = walk->forward->model->shape.latent_query_length > 0;
    rows[0] = is_short ? (pi2_matrix_rows){ &layer->latent_query, buffers->latent, buffers->latent_stride }
                       : (pi2_matrix_rows){ &layer->q, buffers->scratch, buffers->scratch_stride };
    rows[1] = (pi2_matrix_rows){ &layer->k, buffers->k, buffers->k_stride };
    return 2;
}

static void input_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_matrix_rows rows[2];
    pi2_forward_matrices_chunk(walk, rows, inputs_of(walk, rows), chunk);
}

/* The common key and value go into the state. */
static void store_common(const pi2_forward_walk *walk, uint32_t token) {
    pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const pi2_kv_layout layout = pi2_forward_kv_layout(&shape->layers[walk->layer], &forward->options.shape);
    float *key = forward->buffers.k + token * forward->buffers.k_stride;
    forward->cpu.vector->rms_norm(key, key, layer_of(walk)->tables[PI2_TABLE_K_NORM], shape->latent_length,
                              shape->norm_epsilon);
    forward->cpu.vector->rope_norm(key + shape->latent_length, pi2_forward_cos_sin(forward, 0, token),
                               shape->rope.dimensions);
    uint32_t places[PI2_BRANCHES_MOST + 1];
    const uint32_t place_count = pi2_forward_places(forward, walk->layer, token, places);
    for (uint32_t p = 0; p < place_count; p++) {
        forward->cpu.attention->store(pi2_forward_keys(forward, walk->layer), &layout, places[p], key, key);
    }
}

/* Of each head: what is rotated lies behind where the turned query comes, the rest is what turns. */
static void part_queries(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward *forward = walk->forward;
    pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t plain = plain_length(shape), key = shape->layers[walk->layer].key_length;
    for (uint32_t h = 0; h < shape->head_count; h++) {
        const size_t row = (size_t)h * forward->token_count + token;
        const float *query = buffers->scratch + token * buffers->scratch_stride + (size_t)h * shape->head_key_length;
        float *rotated = buffers->q + token * buffers->q_stride + (size_t)h * key + shape->latent_length;
        float *turned = buffers->head_queries + row * buffers->head_query_stride;
        memcpy(rotated, query + plain, shape->rope.dimensions * sizeof *rotated);
        forward->cpu.vector->rope_norm(rotated, pi2_forward_cos_sin(forward, 0, token), shape->rope.dimensions);
        memcpy(turned, query, plain * sizeof *turned);
        pi2_activation_set_fill(&buffers->query_set, (uint32_t)row, 0, plain, turned);
    }
}

static void end_inputs(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    float *latent = buffers->latent + token * buffers->latent_stride;
    store_common(walk, token);
    if (!shape->latent_query_length) {
        part_queries(walk, token);
        return;
    }
    forward->cpu.vector->rms_norm(latent, latent, layer_of(walk)->tables[PI2_TABLE_Q_NORM], shape->latent_query_length,
                              shape->norm_epsilon);
    pi2_activation_set_fill(&buffers->latent_set, token, 0, shape->latent_query_length, latent);
}

static pi2_tile_chunks query_chunks(const pi2_forward_walk *walk) {
    const pi2_operand *q = &layer_of(walk)->q;
    return pi2_forward_plan_chunks(walk->forward, q->tile_count, pi2_tile_bytes(q->tensor->format, q->tensor->columns),
                                   false, PI2_SHARE_ATTENTION);
}

static void query_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_tile_chunks chunks = query_chunks(walk);
    const uint32_t begin = pi2_tile_chunk_begin(&chunks, chunk), end = pi2_tile_chunk_begin(&chunks, chunk + 1);
    pi2_forward_rows(walk, &layer_of(walk)->q, begin, end - begin, &buffers->latent_set, 0, forward->token_count,
                     buffers->scratch + (size_t)begin * PI2_TILE_ROWS, buffers->scratch_stride, true);
    pi2_forward_tiles_done(walk, &chunks, chunk);
}

/* ---- matrices of each head ---- */

static void turn_head(void *argument, unsigned member, uint32_t head) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t tiles = shape->latent_length / PI2_TILE_ROWS, tokens = forward->token_count;
    float *out = buffers->q + (size_t)head * shape->layers[walk->layer].key_length;
    pi2_forward_rows(walk, &layer_of(walk)->head_keys, head * tiles, tiles, &buffers->query_set, head * tokens,
                     tokens, out, buffers->q_stride, true);
}

static void keep_results(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    const uint32_t length = forward->model->shape.latent_length;
    for (uint32_t h = 0; h < forward->model->shape.head_count; h++) {
        const size_t row = (size_t)h * forward->token_count + token;
        float *result = buffers->head_results + row * buffers->head_result_stride;
        memcpy(result, buffers->attended + token * buffers->attended_stride + (size_t)h * length,
               length * sizeof *result);
        pi2_activation_set_fill(&buffers->result_set, (uint32_t)row, 0, length, result);
    }
}

static void give_head(void *argument, unsigned member, uint32_t head) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const uint32_t length = forward->model->shape.head_value_length, tokens = forward->token_count;
    const uint32_t tiles = length / PI2_TILE_ROWS;
    pi2_forward_rows(walk, &layer_of(walk)->head_values, head * tiles, tiles, &buffers->result_set, head * tokens,
                     tokens, buffers->scratch + (size_t)head * length, buffers->scratch_stride, true);
}

static void end_heads(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    const pi2_model_shape *shape = &walk->forward->model->shape;
    memcpy(buffers->attended + token * buffers->attended_stride, buffers->scratch + token * buffers->scratch_stride,
           (size_t)shape->head_count * shape->head_value_length * sizeof(float));
    pi2_forward_attended(walk, token);
}

static void run(struct pi2_forward_walk *walk) {
    const pi2_model_shape *shape = &walk->forward->model->shape;
    pi2_matrix_rows rows[2];
    const uint32_t count = inputs_of(walk, rows);
    walk->stage_name = "latent q+kv";
    pi2_forward_matrices_stage(walk, rows, count, input_chunk, end_inputs);
    if (shape->latent_query_length) {
        const pi2_tile_chunks chunks = query_chunks(walk);
        walk->stage_name = "q";
        pi2_forward_tile_stage(walk, &chunks, query_chunk, part_queries);
    }
    walk->stage_name = "heads' queries";
    pi2_forward_stage(walk, shape->head_count, turn_head, NULL);
    pi2_attention_attend(walk, keep_results);
    walk->stage_name = "heads' values";
    pi2_forward_stage(walk, shape->head_count, give_head, end_heads);
    pi2_forward_project(walk, PI2_MATRIX_ATTENTION_OUTPUT, "attention output");
}

const pi2_block_kind pi2_block_attention_latent = {
    .name = "attention_latent", .norm = PI2_TABLE_ATTENTION_NORM, .post_norm = PI2_TABLE_POST_ATTENTION_NORM,
    .attends = true, .list = list, .needs = needs, .run = run,
};
