/*
 * block_mamba2.c: a state space (Mamba 2). Values, and the directions in which each group of heads writes and reads
 * its states, go through a causal convolution over the last few tokens; each head's state then forgets, takes up the
 * token's value and is read, token after token; the result is gated, and normed group by group. Heads are apart from
 * each other, so threads share those out.
 */
#include <string.h>

#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

enum { CHANNELS = 128, STAGES = 4 };

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

/* Floats of values; of all groups' directions; of what is convolved. The matrix gives gates, those, and steps. */
static uint32_t values_of(const pi2_model_shape *m) { return m->mix_value_heads * m->mix_head_length; }
static uint32_t directions_of(const pi2_model_shape *m) { return m->mix_key_heads * m->mix_state_length; }
static uint32_t channels_of(const pi2_model_shape *m) { return values_of(m) + 2 * directions_of(m); }
static uint32_t rows_of(const pi2_model_shape *m) { return values_of(m) + channels_of(m) + m->mix_value_heads; }

static void add_column(const pi2_tensor_directory *model, pi2_model_requests *requests, pi2_table_role role,
                       uint32_t layer, const char *name, uint32_t length, uint32_t rows) {
    pi2_table_request *table = pi2_requests_table(model, requests, role, layer, name, length);
    table->rows = rows;
    table->keeps_rows = true;
}

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint32_t width = shape->embedding_length, heads = shape->mix_value_heads, groups = shape->mix_key_heads;
    pi2_group_request *group = pi2_requests_group(requests, PI2_GROUP_ATTENTION, layer);
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_MIX_IN, "ssm_in.weight", width, rows_of(shape)));
    PI2_TRY(pi2_requests_matrix(model, group, PI2_MATRIX_ATTENTION_OUTPUT, "ssm_out.weight", values_of(shape), width));
    pi2_requests_attention_norms(model, shape, requests, layer);
    add_column(model, requests, PI2_TABLE_CONVOLUTION, layer, "ssm_conv1d.weight", shape->convolution_taps,
               channels_of(shape));
    (void)pi2_requests_table(model, requests, PI2_TABLE_CONVOLUTION_BIAS, layer, "ssm_conv1d.bias",
                             channels_of(shape));
    (void)pi2_requests_table(model, requests, PI2_TABLE_MIX_DECAY_BIAS, layer, "ssm_dt.bias", heads);
    add_column(model, requests, PI2_TABLE_MIX_RATE, layer, "ssm_a", 1, heads);
    add_column(model, requests, PI2_TABLE_MIX_SKIP, layer, "ssm_d", 1, heads);
    add_column(model, requests, PI2_TABLE_MIX_NORM, layer, "ssm_norm.weight", values_of(shape) / groups, groups);
    return PI2_OK;
}

static size_t history_floats(const pi2_model_shape *model) {
    return ((size_t)(model->convolution_taps - 1) * channels_of(model) + 15) / 16 * 16;
}

static size_t head_floats(const pi2_model_shape *model) {
    return (size_t)model->mix_state_length * model->mix_head_length;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)layer;
    (void)shape;
    needs_out->areas[0] = (pi2_state_area){ history_floats(model) * sizeof(float), 0 };
    needs_out->areas[1] = (pi2_state_area){ model->mix_value_heads * head_floats(model) * sizeof(float), 0 };
    needs_out->repeats = 1;
    needs_out->result = values_of(model);
    needs_out->scratch = rows_of(model);
    needs_out->stages = STAGES;
}

static void convolve_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *m = &forward->model->shape;
    const float *const *tables = layer_of(walk)->tables;
    const uint32_t channels = channels_of(m), begin = chunk * CHANNELS;
    const uint32_t end = channels - begin < CHANNELS ? channels : begin + CHANNELS;
    const pi2_convolution convolution = { .weights = tables[PI2_TABLE_CONVOLUTION],
                                          .bias = tables[PI2_TABLE_CONVOLUTION_BIAS], .taps = m->convolution_taps,
                                          .channels = channels, .is_silu = true };
    pi2_forward_convolve(walk, &convolution, forward->buffers.scratch + values_of(m), forward->buffers.scratch_stride,
                         begin, end);
}

/* One token of one head. */
static void step_head(const pi2_forward_walk *walk, uint32_t head, uint32_t token, float *state) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *m = &forward->model->shape;
    const float *const *tables = layer_of(walk)->tables;
    const uint32_t length = m->mix_head_length, group = head / (m->mix_value_heads / m->mix_key_heads);
    const float *row = forward->buffers.scratch + token * forward->buffers.scratch_stride, *gate = row + head * length;
    const float *x = row + values_of(m) + head * length, *input = row + 2 * (size_t)values_of(m);
    const float *output = input + directions_of(m), *steps = output + directions_of(m);
    const size_t first = (size_t)group * m->mix_state_length;
    const float step = pi2_softplus(steps[head] + tables[PI2_TABLE_MIX_DECAY_BIAS][head]);
    float *out = forward->buffers.attended + token * forward->buffers.attended_stride + (size_t)head * length;
    float value[PI2_DELTA_MOST];
    for (uint32_t i = 0; i < length; i++) value[i] = x[i] * step;
    forward->cpu.recurrent->scan_step(state, m->mix_state_length, length, input + first, output + first, value,
                                  pi2_expf(step * tables[PI2_TABLE_MIX_RATE][head]), out);
    for (uint32_t i = 0; i < length; i++) out[i] += x[i] * tables[PI2_TABLE_MIX_SKIP][head];
    forward->cpu.vector->activate[PI2_FFN_silu](out, gate, out, length);
}

static void head_chunk(void *argument, unsigned member, uint32_t head) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_model_shape *m = &walk->forward->model->shape;
    const pi2_token_place *places = walk->forward->buffers.places;
    const size_t at = history_floats(m) + head * head_floats(m);
    for (uint32_t t = 0; t < walk->forward->token_count; t++) {
        float *states = (float *)(void *)pi2_forward_state(walk, places[t].span);
        float *mark = (float *)(void *)pi2_forward_mark_before(walk, t);
        if (mark) memcpy(mark + at, states + at, head_floats(m) * sizeof *mark);
        step_head(walk, head, t, states + at);
    }
}

static void norm_groups(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *m = &forward->model->shape;
    const uint32_t length = values_of(m) / m->mix_key_heads;
    const float *weight = layer_of(walk)->tables[PI2_TABLE_MIX_NORM];
    float *out = forward->buffers.attended + token * forward->buffers.attended_stride;
    for (uint32_t g = 0; g < m->mix_key_heads; g++) {
        float *part = out + (size_t)g * length;
        forward->cpu.vector->rms_norm(part, part, weight + (size_t)g * length, length, m->norm_epsilon);
    }
    pi2_forward_attended(walk, token);
}

static void run(struct pi2_forward_walk *walk) {
    const pi2_model_shape *m = &walk->forward->model->shape;
    pi2_forward_mix_input(walk, "state space input");
    walk->stage_name = "convolution";
    pi2_forward_stage(walk, (channels_of(m) + CHANNELS - 1) / CHANNELS, convolve_chunk, NULL);
    walk->stage_name = "scan";
    pi2_forward_stage(walk, m->mix_value_heads, head_chunk, norm_groups);
    pi2_forward_project(walk, PI2_MATRIX_ATTENTION_OUTPUT, "state space output");
}

const pi2_block_kind pi2_block_mamba2 = {
    .name = "mamba2", .norm = PI2_TABLE_ATTENTION_NORM, .post_norm = PI2_TABLE_POST_ATTENTION_NORM,
    .is_recurrent = true, .list = list, .needs = needs, .run = run,
};
