/* forward_layer.c: what blocks share: their result's way back into the residual stream, and the norm that comes
 * next. */
#include <math.h>
#include <string.h>

#include "architectures/block.h"
#include "pipeline/forward_internal.h"

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

uint8_t *pi2_forward_keys(const pi2_forward *forward, uint32_t layer) {
    return (uint8_t *)forward->options.cache + forward->state_at[layer];
}

const uint32_t *pi2_forward_layer_pages(const pi2_forward *forward, uint32_t layer, uint32_t sequence) {
    const uint32_t *ring = forward->ring_pages[layer];
    return ring ? ring + (size_t)sequence * forward->ring_stride : pi2_kv_pages_of(forward->pages, sequence);
}

const uint32_t *pi2_forward_pages_of(const pi2_forward *forward, uint32_t layer, uint32_t span) {
    return pi2_forward_layer_pages(forward, layer, forward->spans[span].sequence);
}

uint32_t pi2_forward_places(const pi2_forward *forward, uint32_t layer, uint32_t token,
                            uint32_t places_out[PI2_BRANCHES_MOST + 1]) {
    const pi2_token_place *place = &forward->buffers.places[token];
    const uint32_t tile = place->position / PI2_KV_TILE, at = place->position % PI2_KV_TILE;
    const uint32_t own = pi2_forward_pages_of(forward, layer, place->span)[tile];
    uint32_t count = 0, branches = place->branches;
    places_out[count++] = own * PI2_KV_TILE + at;
    for (uint32_t span = 0; branches; span++, branches >>= 1) {
        if (!(branches & 1)) continue;
        const uint32_t page = pi2_forward_pages_of(forward, layer, span)[tile];
        if (page != own) places_out[count++] = page * PI2_KV_TILE + at;
    }
    return count;
}

uint8_t *pi2_forward_state(const pi2_forward_walk *walk, uint32_t span) {
    const pi2_forward *forward = walk->forward;
    return pi2_forward_sequence_states(forward, forward->spans[span].sequence) + forward->state_at[walk->layer];
}

static uint8_t *mark_of(const pi2_forward_walk *walk, uint32_t span) {
    return pi2_forward_state(walk, span) + PI2_STATES_MARKED * walk->forward->recurrent_bytes;
}

uint8_t *pi2_forward_mark_before(const pi2_forward_walk *walk, uint32_t token) {
    const pi2_token_place *place = &walk->forward->buffers.places[token];
    const pi2_batch_span *span = &walk->forward->spans[place->span];
    return span->marked && place->position == span->position + span->marked ? mark_of(walk, place->span) : NULL;
}

void pi2_forward_convolve(const pi2_forward_walk *walk, const pi2_convolution *convolution, float *x, size_t stride,
                          uint32_t begin, uint32_t end) {
    const pi2_forward *forward = walk->forward;
    for (uint32_t s = 0; s < forward->span_count; x += forward->spans[s++].token_count * stride) {
        float *history = (float *)(void *)pi2_forward_state(walk, s);
        const uint32_t marked = forward->spans[s].marked;
        if (marked) {
            float *mark = (float *)(void *)mark_of(walk, s);
            forward->cpu.recurrent->convolve(convolution, x, stride, marked, begin, end, history);
            for (size_t k = 0; k + 1 < convolution->taps; k++) {
                memcpy(mark + k * convolution->channels + begin, history + k * convolution->channels + begin,
                       (end - begin) * sizeof *mark);
            }
        }
        forward->cpu.recurrent->convolve(convolution, x + marked * stride, stride,
                                         forward->spans[s].token_count - marked, begin, end, history);
    }
}

const float *pi2_forward_cos_sin(const pi2_forward *forward, uint32_t rope, uint32_t token) {
    return forward->buffers.cos_sin[rope] + (size_t)token * pi2_model_rope(&forward->model->shape, rope)->dimensions;
}

float pi2_forward_dot(const float *a, const float *b, size_t count) {
    float sums[16] = { 0.0f };
    for (size_t i = 0; i < count; i++) sums[i % 16] += a[i] * b[i];
    for (size_t step = 8; step > 0; step /= 2) {
        for (size_t i = 0; i < step; i++) sums[i] += sums[i + step];
    }
    return sums[0];
}

/* ---- norms ---- */

/* weight NULL: x as it is. */
static void norm(const pi2_forward *forward, float *normed, const float *x, const float *weight, const float *bias) {
    const uint32_t width = forward->model->shape.embedding_length;
    const float epsilon = forward->model->shape.norm_epsilon;
    if (bias) forward->cpu.vector->layer_norm(normed, x, weight, bias, width, epsilon);
    else if (weight) forward->cpu.vector->rms_norm(normed, x, weight, width, epsilon);
    else memcpy(normed, x, width * sizeof *normed);
}

void pi2_forward_norm_ahead(const pi2_forward_walk *walk, uint32_t token, float *normed) {
    const pi2_forward *forward = walk->forward;
    const float *const *tables = forward->model->layers[walk->layer + 1].tables;
    const bool own = tables[PI2_TABLE_FFN_NORM] != NULL; /* otherwise it reads what attention reads */
    const float *weight = tables[own ? PI2_TABLE_FFN_NORM : PI2_TABLE_ATTENTION_NORM];
    const float *bias = tables[own ? PI2_TABLE_FFN_NORM_BIAS : PI2_TABLE_ATTENTION_NORM_BIAS];
    const float *x = forward->buffers.x + token * forward->buffers.width_stride;
    norm(forward, normed, x, weight, bias);
}

void pi2_forward_norm_token(pi2_forward *forward, const float *weight, const float *bias, uint32_t token,
                            uint32_t row) {
    pi2_forward_buffers *buffers = &forward->buffers;
    float *normed = buffers->normed + row * buffers->width_stride;
    norm(forward, normed, buffers->x + token * buffers->width_stride, weight, bias);
    pi2_activation_set_fill(&buffers->normed_set, row, 0, forward->model->shape.embedding_length, normed);
}

static void norm_by(pi2_forward *forward, uint32_t layer, pi2_table_role role, uint32_t token) {
    const float *const *tables = forward->model->layers[layer].tables;
    const pi2_table_role bias = role == PI2_TABLE_FFN_NORM ? PI2_TABLE_FFN_NORM_BIAS : PI2_TABLE_ATTENTION_NORM_BIAS;
    pi2_forward_norm_token(forward, tables[role], tables[bias], token, token);
}

/* What a layer reads, where a layer that guesses for this model wants it; of the number of layers: what the head does.
 */
static void keep_features(pi2_forward *forward, uint32_t layer, uint32_t token) {
    const pi2_forward_shape *shape = &forward->options.shape;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const size_t width = forward->model->shape.embedding_length;
    for (uint32_t i = 0; i < shape->feature_count; i++) {
        if (shape->feature_layers[i] != layer) continue;
        memcpy(buffers->features + token * buffers->features_stride + i * width,
               buffers->x + token * buffers->width_stride, width * sizeof(float));
    }
}

/* Of the block that reads the residual stream next, from block number `block` of this layer on; of the head, for the
 * tokens whose logits are wanted: one row after another, which no block reads any more. */
static void norm_from(pi2_forward_walk *walk, uint32_t block, uint32_t token) {
    pi2_forward *forward = walk->forward;
    const pi2_model *model = forward->model;
    for (uint32_t layer = walk->layer; layer < model->shape.layer_count; layer++, block = 0) {
        const pi2_layer_shape *shape = &model->shape.layers[layer];
        block = pi2_layer_next_norm(shape, block);
        if (block == shape->block_count) {
            keep_features(forward, layer + 1, token);
            continue;
        }
        norm_by(forward, layer, pi2_block_kind_of(shape->blocks[block])->norm, token);
        return;
    }
    const uint32_t row = forward->buffers.places[token].logits_row;
    if (row == PI2_NO_LOGITS) return;
    pi2_forward_norm_token(forward, model->output_norm, model->output_norm_bias, token, row);
}

void pi2_forward_given(const pi2_forward *forward, uint32_t token, float *out) {
    const pi2_model *model = forward->model;
    norm(forward, out, forward->buffers.x + token * forward->buffers.width_stride, model->output_norm,
         model->output_norm_bias);
}

void pi2_forward_made(const pi2_forward *forward, uint32_t token, float *out) {
    memcpy(out, forward->buffers.x + token * forward->buffers.width_stride,
           forward->model->shape.embedding_length * sizeof *out);
}

void pi2_forward_features(const pi2_forward *forward, uint32_t token, float *out) {
    const size_t count = forward->options.shape.feature_count * (size_t)forward->model->shape.embedding_length;
    memcpy(out, forward->buffers.features + token * forward->buffers.features_stride, count * sizeof *out);
}

void pi2_forward_enter_layer(pi2_forward_walk *walk, uint32_t token) { norm_from(walk, 0, token); }

void pi2_forward_first_norm(pi2_forward_walk *walk, uint32_t token) {
    keep_features(walk->forward, 0, token);
    norm_from(walk, 0, token);
}

/* ---- the end of a block ---- */

static const pi2_block_kind *kind_of(const pi2_forward_walk *walk) {
    return pi2_block_kind_of(walk->forward->model->shape.layers[walk->layer].blocks[walk->block]);
}

/* In parallel with attention the FFN reads the layer's input, which x still is: normed already for attention, where
 * both have one norm. */
static void end_parallel(pi2_forward_walk *walk, uint32_t token, const float *out) {
    pi2_forward *forward = walk->forward;
    float *x = forward->buffers.x + token * forward->buffers.width_stride;
    if (layer_of(walk)->tables[PI2_TABLE_FFN_NORM]) norm_by(forward, walk->layer, PI2_TABLE_FFN_NORM, token);
    forward->cpu.vector->add(x, out, forward->model->shape.embedding_length);
}

/* Behind a layer's last block. */
static void scale_layer(const pi2_forward_walk *walk, float *x) {
    const pi2_model_shape *shape = &walk->forward->model->shape;
    const float *scale = layer_of(walk)->tables[PI2_TABLE_LAYER_SCALE];
    if (!scale || walk->block + 1 < shape->layers[walk->layer].block_count) return;
    for (uint32_t i = 0; i < shape->embedding_length; i++) x[i] *= *scale;
}

/* Behind attention: what was laid by joins what it made, and both are as long as one. */
static void join_laurel(const pi2_forward_walk *walk, uint32_t token, float *x) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    const float *laurel = buffers->laurel + token * buffers->width_stride, half = 1.0f / sqrtf(2.0f);
    for (uint32_t i = 0; i < walk->forward->model->shape.embedding_length; i++) x[i] = (x[i] + laurel[i]) * half;
}

void pi2_forward_pass_on(pi2_forward_walk *walk, uint32_t token) { norm_from(walk, walk->block + 1, token); }

void pi2_forward_end_block(pi2_forward_walk *walk, uint32_t token, float *out) {
    pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const pi2_block_kind *kind = kind_of(walk);
    const float *post_norm = layer_of(walk)->tables[kind->post_norm];
    const size_t width = shape->embedding_length;
    float *x = forward->buffers.x + token * forward->buffers.width_stride;
    if (post_norm) forward->cpu.vector->rms_norm(out, out, post_norm, width, shape->norm_epsilon);
    if (shape->parallel && kind->norm == PI2_TABLE_ATTENTION_NORM) {
        end_parallel(walk, token, out);
    } else {
        if (shape->residual_scale > 0.0f) forward->cpu.vector->add_scaled(x, out, shape->residual_scale, width);
        else forward->cpu.vector->add(x, out, width);
        if (forward->buffers.laurel && kind->norm == PI2_TABLE_ATTENTION_NORM) join_laurel(walk, token, x);
        scale_layer(walk, x);
        norm_from(walk, walk->block + 1, token);
    }
    if (kind->norm == PI2_TABLE_ATTENTION_NORM) pi2_forward_ahead_token(walk, token);
}

void pi2_forward_attended(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    const uint32_t columns = layer_of(walk)->attention_output.tensor->columns;
    const float *weight = layer_of(walk)->tables[PI2_TABLE_ATTENDED_NORM];
    float *attended = buffers->attended + token * buffers->attended_stride;
    if (weight) {
        forward->cpu.vector->rms_norm(attended, attended, weight, columns, forward->model->shape.norm_epsilon);
    }
    pi2_activation_set_fill(&buffers->attended_set, token, 0, columns, attended);
}

/* ---- the projection back into the residual stream ---- */

static pi2_tile_chunks projection_chunks(const pi2_forward_walk *walk) {
    const pi2_operand *operand = &layer_of(walk)->matrices[walk->projection];
    return pi2_forward_plan_chunks(walk->forward, operand->tile_count,
                                   pi2_tile_bytes(operand->tensor->format, operand->tensor->columns), false,
                                   PI2_SHARE_ATTENTION);
}

static void projection_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_operand *operand = &layer_of(walk)->matrices[walk->projection];
    const pi2_tile_chunks chunks = projection_chunks(walk);
    const uint32_t begin = pi2_tile_chunk_begin(&chunks, chunk), end = pi2_tile_chunk_begin(&chunks, chunk + 1);
    pi2_forward_rows(walk, operand, begin, end - begin, &buffers->attended_set, 0, forward->token_count,
                     buffers->out + (size_t)begin * PI2_TILE_ROWS, buffers->width_stride, true);
    pi2_forward_tiles_done(walk, &chunks, chunk);
}

static void end_projection(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const float *bias = layer_of(walk)->tables[PI2_TABLE_OUTPUT_BIAS];
    float *out = forward->buffers.out + token * forward->buffers.width_stride;
    if (bias && walk->projection == PI2_MATRIX_ATTENTION_OUTPUT) {
        forward->cpu.vector->add(out, bias, forward->model->shape.embedding_length);
    }
    pi2_forward_end_block(walk, token, out);
}

void pi2_forward_project_to(pi2_forward_walk *walk, pi2_matrix_role matrix, const char *name, pi2_token_tail *tail) {
    walk->projection = matrix;
    walk->stage_name = name;
    const pi2_tile_chunks chunks = projection_chunks(walk);
    pi2_forward_tile_stage(walk, &chunks, projection_chunk, tail);
}

void pi2_forward_project(pi2_forward_walk *walk, pi2_matrix_role matrix, const char *name) {
    pi2_forward_project_to(walk, matrix, name, end_projection);
}

/* ---- rows of a matrix that reads what the block reads ---- */

pi2_tile_chunks pi2_forward_matrices_chunks(const pi2_forward *forward, const pi2_matrix_rows *rows, uint32_t count) {
    uint32_t tiles = 0;
    for (uint32_t i = 0; i < count; i++) tiles += rows[i].operand->tile_count;
    const pi2_layout_tensor *first = rows[0].operand->tensor;
    return pi2_forward_plan_chunks(forward, tiles, pi2_tile_bytes(first->format, first->columns), false,
                                   PI2_SHARE_ATTENTION);
}

void pi2_forward_matrices_stage(pi2_forward_walk *walk, const pi2_matrix_rows *rows, uint32_t count,
                                pi2_stage_chunk *chunk, pi2_token_tail *tail) {
    const pi2_tile_chunks chunks = pi2_forward_matrices_chunks(walk->forward, rows, count);
    pi2_forward_tile_stage(walk, &chunks, chunk, tail);
}

void pi2_forward_matrices_chunk(const pi2_forward_walk *walk, const pi2_matrix_rows *rows, uint32_t count,
                                uint32_t chunk) {
    const pi2_forward *forward = walk->forward;
    const pi2_tile_chunks chunks = pi2_forward_matrices_chunks(forward, rows, count);
    const uint32_t chunk_begin = pi2_tile_chunk_begin(&chunks, chunk);
    const uint32_t chunk_end = pi2_tile_chunk_begin(&chunks, chunk + 1);
    const pi2_activation_set *input = walk->input ? walk->input : &forward->buffers.normed_set;
    for (uint32_t i = 0, base = 0; i < count; base += rows[i++].operand->tile_count) {
        const uint32_t begin = chunk_begin > base ? chunk_begin - base : 0, tiles = rows[i].operand->tile_count;
        const uint32_t end = chunk_end < base + tiles ? chunk_end - base : tiles;
        if (chunk_end <= base || begin >= end) continue;
        pi2_forward_rows(walk, rows[i].operand, begin, end - begin, input, 0, forward->token_count,
                         rows[i].out + (size_t)begin * PI2_TILE_ROWS, rows[i].stride, true);
    }
    pi2_forward_tiles_done(walk, &chunks, chunk);
}

static pi2_matrix_rows mix_input(const pi2_forward_walk *walk) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    return (pi2_matrix_rows){ &layer_of(walk)->mix_in, buffers->scratch, buffers->scratch_stride };
}

static void mix_input_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_matrix_rows rows = mix_input(walk);
    pi2_forward_matrices_chunk(walk, &rows, 1, chunk);
}

void pi2_forward_mix_input(pi2_forward_walk *walk, const char *name) {
    const pi2_matrix_rows rows = mix_input(walk);
    walk->stage_name = name;
    pi2_forward_matrices_stage(walk, &rows, 1, mix_input_chunk, NULL);
}
