/*
 * block_delta_net.c: a gated delta net (Qwen3.5, Qwen3 Next). Queries, keys and values of a token go through a causal
 * convolution over the last few tokens; each head of values then changes a matrix, its state, by the delta rule, token
 * after token, and its answer to the query is normed and gated. Heads are apart from each other, so threads share those
 * out; tokens are not, so a batch computes what single tokens do, to the bit.
 *
 * A head of keys serves several of values. In Qwen3.5's files these lie as far apart as there are heads of keys; in
 * Qwen3 Next's they are neighbours, and one matrix gives their strengths and then their decays, group by group.
 */
#include <math.h>
#include <string.h>

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

enum { CHANNELS = 128, STAGES = 4 };

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

/* Floats of queries, of keys; of values; of all three. */
static uint32_t keys_of(const pi2_model_shape *m) { return m->mix_key_heads * m->mix_head_length; }
static uint32_t values_of(const pi2_model_shape *m) { return m->mix_value_heads * m->mix_head_length; }
static uint32_t channels_of(const pi2_model_shape *m) { return 2 * keys_of(m) + values_of(m); }

static bool layer_has(const pi2_tensor_directory *model, uint32_t layer, const char *name) {
    return pi2_architecture_tensor(model, layer, name) != NULL;
}

/* Strengths and decays, which are as many as heads of values: of one matrix, or of two. */
static pi2_status list_by_head(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                               pi2_group_request *group) {
    const uint64_t width = shape->embedding_length, heads = shape->mix_value_heads;
    if (!layer_has(model, layer, "ssm_alpha.weight") && !layer_has(model, layer, "ssm_beta.weight")) {
        return pi2_requests_matrix(model, group, PI2_MATRIX_MIX_DECAY, "ssm_ba.weight", width, 2 * heads);
    }
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_MIX_DECAY, "ssm_alpha.weight", width, heads));
    return pi2_requests_matrix(model, group, PI2_MATRIX_MIX_STRENGTH, "ssm_beta.weight", width, heads);
}

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint64_t width = shape->embedding_length;
    const uint32_t values = values_of(shape), heads = shape->mix_value_heads;
    pi2_group_request *group = pi2_requests_group(requests, PI2_GROUP_ATTENTION, layer);
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_MIX_IN, "attn_qkv.weight", width, channels_of(shape)));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_MIX_GATE, "attn_gate.weight", width, values));
    PI2_TRY(list_by_head(model, shape, layer, group));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_ATTENTION_OUTPUT, "ssm_out.weight", values, width));
    pi2_requests_attention_norms(model, shape, requests, layer);
    pi2_table_request *weights = pi2_requests_table(model, requests, PI2_TABLE_CONVOLUTION, layer, "ssm_conv1d.weight",
                                                    shape->convolution_taps);
    weights->rows = channels_of(shape);
    weights->keeps_rows = true;
    /* Some converters leave off the suffix. */
    const char *bias = layer_has(model, layer, "ssm_dt") ? "ssm_dt" : "ssm_dt.bias";
    (void)pi2_requests_table(model, requests, PI2_TABLE_MIX_DECAY_BIAS, layer, bias, heads);
    (void)pi2_requests_table(model, requests, PI2_TABLE_MIX_RATE, layer, "ssm_a", heads);
    (void)pi2_requests_table(model, requests, PI2_TABLE_MIX_NORM, layer, "ssm_norm.weight", shape->mix_head_length);
    return PI2_OK;
}

static size_t history_floats(const pi2_model_shape *model) {
    return ((size_t)(model->convolution_taps - 1) * channels_of(model) + 15) / 16 * 16;
}

static size_t head_floats(const pi2_model_shape *model) {
    return (size_t)model->mix_head_length * model->mix_head_length;
}

static uint32_t scratch_heads(const pi2_model_shape *model) { return (model->mix_value_heads + 15) / 16 * 16; }

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)layer;
    (void)shape;
    needs_out->areas[0] = (pi2_state_area){ history_floats(model) * sizeof(float), 0 };
    needs_out->areas[1] = (pi2_state_area){ model->mix_value_heads * head_floats(model) * sizeof(float), 0 };
    needs_out->repeats = 1;
    needs_out->result = values_of(model);
    needs_out->scratch = (channels_of(model) + 15) / 16 * 16 + (values_of(model) + 15) / 16 * 16 +
                         2 * scratch_heads(model);
    needs_out->stages = STAGES;
}

/* What the four matrices of the input give, one after another in the scratch of a token. Where decays and strengths are
 * of one matrix the last has no tiles, and its place is the other's. */
static void matrices_of(const pi2_forward_walk *walk, pi2_matrix_rows rows[4]) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    const pi2_layer_weights *layer = layer_of(walk);
    const pi2_model_shape *m = &walk->forward->model->shape;
    float *gate = buffers->scratch + (channels_of(m) + 15) / 16 * 16;
    float *decay = gate + (values_of(m) + 15) / 16 * 16;
    rows[0] = (pi2_matrix_rows){ &layer->mix_in, buffers->scratch, buffers->scratch_stride };
    rows[1] = (pi2_matrix_rows){ &layer->mix_gate, gate, buffers->scratch_stride };
    rows[2] = (pi2_matrix_rows){ &layer->mix_decay, decay, buffers->scratch_stride };
    rows[3] = (pi2_matrix_rows){ &layer->mix_strength, decay + scratch_heads(m), buffers->scratch_stride };
}

static void in_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_matrix_rows rows[4];
    matrices_of(walk, rows);
    pi2_forward_matrices_chunk(walk, rows, 4, chunk);
}

static void convolve_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *m = &forward->model->shape;
    const uint32_t channels = channels_of(m), begin = chunk * CHANNELS;
    const uint32_t end = channels - begin < CHANNELS ? channels : begin + CHANNELS;
    const pi2_convolution convolution = { .weights = layer_of(walk)->tables[PI2_TABLE_CONVOLUTION],
                                          .taps = m->convolution_taps, .channels = channels, .is_silu = true };
    pi2_forward_convolve(walk, &convolution, forward->buffers.scratch, forward->buffers.scratch_stride, begin, end);
}

/* Norm by root mean square, times silu of the gate. */
static void finish_head(const pi2_forward *forward, const float *norm, const float *gate, float *out) {
    const uint32_t length = forward->model->shape.mix_head_length;
    forward->cpu.vector->rms_norm(out, out, norm, length, forward->model->shape.norm_epsilon);
    forward->cpu.vector->activate[PI2_FFN_silu](out, gate, out, length);
}

/* Where the numbers of a head of values lie. */
typedef struct head_places {
    uint32_t key_head;
    size_t decay, strength; /* from the token's first decay */
} head_places;

static head_places places_of(const pi2_forward_walk *walk, uint32_t head) {
    const pi2_model_shape *m = &walk->forward->model->shape;
    const uint32_t keys = m->mix_key_heads, group = m->mix_value_heads / keys;
    if (layer_of(walk)->mix_strength.tile_count) {
        return (head_places){ head % keys, head, (size_t)scratch_heads(m) + head };
    }
    const size_t first = 2 * (size_t)(head / group * group) + head % group;
    return (head_places){ head / group, first + group, first };
}

/* One head of values, token after token, each with its sequence's state. */
static void head_chunk(void *argument, unsigned member, uint32_t head) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *m = &forward->model->shape;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const float *const *tables = layer_of(walk)->tables;
    const uint32_t length = m->mix_head_length;
    const head_places places = places_of(walk, head);
    float query[PI2_DELTA_MOST], key[PI2_DELTA_MOST];
    pi2_matrix_rows rows[4];
    matrices_of(walk, rows);
    for (uint32_t t = 0; t < forward->token_count; t++) {
        const size_t at = t * buffers->scratch_stride;
        const float *q = rows[0].out + at + (size_t)places.key_head * length;
        const float *v = rows[0].out + at + 2 * (size_t)keys_of(m);
        float *states = (float *)(void *)pi2_forward_state(walk, buffers->places[t].span);
        const size_t at_head = history_floats(m) + head * head_floats(m);
        float *state = states + at_head, *mark = (float *)(void *)pi2_forward_mark_before(walk, t);
        const float decay = rows[2].out[at + places.decay] + tables[PI2_TABLE_MIX_DECAY_BIAS][head];
        const float strength = 1.0f / (1.0f + pi2_expf(-rows[2].out[at + places.strength]));
        float *out = buffers->attended + t * buffers->attended_stride + (size_t)head * length;
        if (mark) memcpy(mark + at_head, state, head_floats(m) * sizeof *mark);
        forward->cpu.recurrent->scale_to_length(query, q, length, 1.0f / sqrtf((float)length), m->norm_epsilon);
        forward->cpu.recurrent->scale_to_length(key, q + keys_of(m), length, 1.0f, m->norm_epsilon);
        forward->cpu.recurrent->delta_step(state, length, length, query, key, v + (size_t)head * length,
                                       pi2_softplus_decay(decay, tables[PI2_TABLE_MIX_RATE][head]), strength, out);
        finish_head(forward, tables[PI2_TABLE_MIX_NORM], rows[1].out + at + (size_t)head * length, out);
    }
}

static void run(struct pi2_forward_walk *walk) {
    const pi2_model_shape *m = &walk->forward->model->shape;
    pi2_matrix_rows rows[4];
    matrices_of(walk, rows);
    walk->stage_name = "delta net input";
    pi2_forward_matrices_stage(walk, rows, 4, in_chunk, NULL);
    walk->stage_name = "convolution";
    pi2_forward_stage(walk, (channels_of(m) + CHANNELS - 1) / CHANNELS, convolve_chunk, NULL);
    walk->stage_name = "delta rule";
    pi2_forward_stage(walk, m->mix_value_heads, head_chunk, pi2_forward_attended);
    pi2_forward_project(walk, PI2_MATRIX_ATTENTION_OUTPUT, "delta net output");
}

const pi2_block_kind pi2_block_delta_net = {
    .name = "delta_net", .norm = PI2_TABLE_ATTENTION_NORM, .post_norm = PI2_TABLE_POST_ATTENTION_NORM,
    .is_recurrent = true, .list = list, .needs = needs, .run = run,
};
