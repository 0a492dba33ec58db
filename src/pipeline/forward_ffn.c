/*
 * forward_ffn.c: neuron clusters. A run of clusters goes through two stages: Gate and Up of its
 * neurons (each chunk a few neurons, activated and quantised at once), then Down of its columns,
 * which continues the sums of the run before. Cluster by cluster the result has the same bits as
 * in one sweep, so a run may be as short as the stream buffer asks.
 *
 * No thread stands still between the matrices of a layer that streams: Gate and Up of the next run
 * need nothing of this one, so a thread that finds no chunk left goes on there, and comes back to this
 * run's Down when it is complete:
 *
 *   GU(0)  GU(1)  D(0)  GU(2)  D(1)  GU(3)  D(2) ...
 *
 * D(r) waits for GU(r) and, since the sums go on in order, for D(r - 1), both of which every thread
 * left a whole stage before. The stream buffer must hold two runs for that; where it cannot, a run
 * waits for the one before.
 */
#include "pipeline/forward_internal.h"

enum { TOKEN_BLOCK = 64 };

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

void pi2_forward_activate(const pi2_forward *forward, float *gate, float *up, size_t count,
                          const float *gate_bias, const float *up_bias) {
    if (gate_bias) forward->vector->add(gate, gate_bias, count);
    if (up_bias) forward->vector->add(up, up_bias, count);
    forward->vector->activate[forward->model->shape.activation](gate, gate, up, count);
}

void pi2_forward_set_counter(pi2_forward *forward, const pi2_neuron_counter *counter) { forward->counter = counter; }

void pi2_forward_tell_neurons(const pi2_forward_walk *walk, unsigned member, uint32_t expert, uint32_t token,
                              uint32_t begin, uint32_t end, const float *activations, const pi2_activation_set *set,
                              uint32_t slot, const pi2_weight_format *format) {
    const pi2_neuron_counter *counter = walk->forward->counter;
    const pi2_activations *kept = &set->of[format->activation];
    const pi2_neuron_values values = {
        .layer = walk->layer, .expert = expert, .position = walk->forward->position + token, .begin = begin,
        .count = end - begin, .activations = activations,
        .rounded = format->activation == PI2_ACTIVATION_F32 ? NULL : kept->values + slot * kept->value_stride + begin };
    counter->count(counter->user, member, &values);
}

/* Gate and Up of neurons [begin, end) for the tokens of one block; the result into hidden_set. */
static void neurons_of_tokens(pi2_forward_walk *walk, unsigned member, uint32_t begin, uint32_t end,
                              uint32_t token, uint32_t tokens, bool last) {
    pi2_forward *forward = walk->forward;
    pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_layer_weights *layer = layer_of(walk);
    const uint32_t tile = begin / PI2_TILE_ROWS;
    const uint32_t tiles = (end - begin + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS;
    const size_t stride = buffers->neuron_chunk;
    float *gate = buffers->member + member * buffers->member_floats;
    float *up = gate + buffers->gate_floats;
    pi2_forward_rows(forward, &layer->gate, tile, tiles, &buffers->normed_set, token, tokens, gate, stride, last);
    pi2_forward_rows(forward, &layer->up, tile, tiles, &buffers->normed_set, token, tokens, up, stride, last);
    if (pi2_forward_failed(forward)) return;
    const float *gate_bias = layer->tables[PI2_TABLE_GATE_BIAS], *up_bias = layer->tables[PI2_TABLE_UP_BIAS];
    for (uint32_t t = 0; t < tokens; t++) {
        float *hidden = gate + t * stride;
        pi2_forward_activate(forward, hidden, up + t * stride, end - begin, gate_bias ? gate_bias + begin : NULL,
                 up_bias ? up_bias + begin : NULL);
        pi2_activation_set_fill(&buffers->hidden_set, token + t, begin, end - begin, hidden);
        if (forward->counter) {
            pi2_forward_tell_neurons(walk, member, UINT32_MAX, token + t, begin, end, hidden, &buffers->hidden_set,
                                     token + t, layer->down.tensor->format);
        }
        if (!buffers->hidden) continue;
        float *copy = buffers->hidden + (token + t) * buffers->neuron_stride + begin;
        for (uint32_t i = 0; i < end - begin; i++) copy[i] = hidden[i];
    }
}

static void neuron_chunk(void *argument, unsigned member, uint32_t chunk) {
    pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const uint32_t begin = walk->run.begin + chunk * forward->buffers.neuron_chunk;
    const uint32_t wanted = begin + forward->buffers.neuron_chunk;
    const uint32_t end = wanted < walk->run.end ? wanted : walk->run.end;
    for (uint32_t token = 0; token < forward->token_count; token += TOKEN_BLOCK) {
        const uint32_t left = forward->token_count - token;
        neurons_of_tokens(walk, member, begin, end, token, left < TOKEN_BLOCK ? left : TOKEN_BLOCK,
                          left <= TOKEN_BLOCK);
    }
}

static pi2_tile_chunks down_chunks(const pi2_forward_walk *walk) {
    const pi2_operand *down = &layer_of(walk)->down;
    return pi2_forward_plan_chunks(walk->forward, down->tile_count,
                                   pi2_tile_bytes(down->tensor->format, walk->run.end - walk->run.begin), true);
}

static void down_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_operand *down = &layer_of(walk)->down;
    const pi2_tile_chunks chunks = down_chunks(walk);
    const uint32_t begin = pi2_tile_chunk_begin(&chunks, chunk), end = pi2_tile_chunk_begin(&chunks, chunk + 1);
    pi2_forward_columns(forward, down, begin, end - begin, walk->run.begin, walk->run.end, &buffers->hidden_set,
                        forward->token_count, buffers->out + (size_t)begin * PI2_TILE_ROWS, buffers->width_stride);
}

/* Residual, then the norm that comes next: of the next layer, or of the head where it is wanted. */
void pi2_forward_layer_end(pi2_forward_walk *walk, uint32_t token, const float *out) {
    pi2_forward *forward = walk->forward;
    const pi2_model *model = forward->model;
    const pi2_forward_buffers *buffers = &forward->buffers;
    forward->vector->add(buffers->x + token * buffers->width_stride, out, model->shape.embedding_length);
    if (walk->layer + 1 < model->shape.layer_count) {
        pi2_forward_norm_token(forward, model->layers[walk->layer + 1].tables[PI2_TABLE_ATTENTION_NORM], token);
    } else if (token >= walk->head_first && token - walk->head_first < walk->head_tokens) {
        pi2_forward_norm_token(forward, model->output_norm, token);
    }
}

void pi2_forward_end_ffn(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward *forward = walk->forward;
    float *out = forward->buffers.out + token * forward->buffers.width_stride;
    const float *bias = layer_of(walk)->tables[PI2_TABLE_DOWN_BIAS];
    if (bias) forward->vector->add(out, bias, forward->model->shape.embedding_length);
    pi2_forward_layer_end(walk, token, out);
}

/* Gate and Up of a run; returns the stage that its Down waits for. */
static uint32_t work_on_neurons(pi2_forward_walk *walk, uint32_t run) {
    const uint32_t chunk = walk->forward->buffers.neuron_chunk;
    walk->run = walk->forward->runs[run];
    walk->stage_name = "gate+up";
    return pi2_forward_stage_work(walk, (walk->run.end - walk->run.begin + chunk - 1) / chunk, neuron_chunk);
}

bool pi2_forward_two_runs_fit(const pi2_forward *forward, uint32_t run) {
    const size_t room = forward->options.stream_bytes, margin = forward->largest_extent;
    const size_t both = forward->runs[run].streamed_bytes + forward->runs[run + 1].streamed_bytes;
    return both == 0 || (room > margin && both <= room - margin);
}

void pi2_forward_ffn(pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const uint32_t first = forward->layer_first_run[walk->layer], end = forward->layer_first_run[walk->layer + 1];
    uint32_t neurons_done = work_on_neurons(walk, first), down_done = UINT32_MAX;
    for (uint32_t r = first; r < end; r++) {
        const bool is_last = r + 1 == end, ahead = !is_last && pi2_forward_two_runs_fit(forward, r);
        const uint32_t next = ahead ? work_on_neurons(walk, r + 1) : UINT32_MAX;
        pi2_forward_stage_wait(walk, neurons_done);
        if (down_done != UINT32_MAX) pi2_forward_stage_wait(walk, down_done);
        walk->run = forward->runs[r];
        walk->stage_name = "down";
        if (is_last) {
            pi2_forward_stage(walk, down_chunks(walk).count, down_chunk, pi2_forward_end_ffn);
        } else {
            down_done = pi2_forward_stage_work(walk, down_chunks(walk).count, down_chunk);
            if (!ahead) pi2_forward_stage_wait(walk, down_done);
            neurons_done = ahead ? next : work_on_neurons(walk, r + 1);
        }
    }
}
