/* ffn_unit.c: Gate, Up, activation, rounding, Down: once, for every way in which an FFN is computed. */
#include "pipeline/ffn_unit.h"

#include <assert.h>
#include <math.h>
#include <string.h>


/* ---- units ---- */

pi2_ffn_unit pi2_ffn_of_layer(const pi2_forward_walk *walk) {
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    const pi2_layer_weights *layer = &walk->forward->model->layers[walk->layer];
    const pi2_dense_ffn ffn = pi2_layer_dense_ffn(layer);
    return (pi2_ffn_unit){ .gate = ffn.gate, .up = ffn.up, .down = ffn.down,
                           .gate_bias = layer->tables[PI2_TABLE_GATE_BIAS],
                           .up_bias = layer->tables[PI2_TABLE_UP_BIAS], .expert = UINT32_MAX,
                           .input = &buffers->normed_set, .hidden_set = &buffers->hidden_set,
                           .hidden = buffers->hidden, .hidden_stride = buffers->neuron_stride,
                           .gates = pi2_layer_cuts_gate(&walk->forward->model->shape, walk->layer) ? buffers->gates
                                                                                                   : NULL,
                           .gates_stride = buffers->neuron_stride };
}

/* Of an expert: its row of the layer's. */
static const float *bias_of(const pi2_layer_weights *layer, pi2_table_role role, uint32_t expert) {
    const float *biases = layer->tables[role];
    return biases ? biases + (size_t)expert * layer->down.tensor->columns : NULL;
}

pi2_ffn_unit pi2_ffn_of_expert(const pi2_forward_walk *walk, const pi2_expert_job *job) {
    pi2_forward *forward = walk->forward;
    pi2_expert_buffers *experts = &forward->buffers.experts;
    const pi2_layer_weights *layer = &forward->model->layers[walk->layer];
    const bool alone = forward->token_count == 1; /* then its activations are read where they are */
    return (pi2_ffn_unit){
        .source = { .experts = pi2_forward_experts_of(walk),
                    .key = layer->first_key + job->expert, .expert = job->expert,
                    .first_extent = forward->model->layout->groups[layer->ffn_group].first_extent },
        .gate = &layer->gate, .up = layer->up.tensor ? &layer->up : NULL, .down = &layer->down, .expert = job->expert,
        .gate_bias = bias_of(layer, PI2_TABLE_GATE_BIAS, job->expert),
        .up_bias = bias_of(layer, PI2_TABLE_UP_BIAS, job->expert),
        .input = alone ? &forward->buffers.normed_set : &experts->gathered_set,
        .input_shift = alone ? job->first_row : 0, .hidden_set = &experts->hidden_set, .hidden = experts->hidden,
        .hidden_stride = experts->neuron_stride, .row_token = alone ? NULL : experts->row_token };
}

/* ---- what neurons give ---- */

static void activate(const pi2_forward_walk *walk, float *gate, float *up, size_t count) {
    const pi2_forward *forward = walk->forward;
    forward->cpu.vector->activate[pi2_layer_activation(&forward->model->shape, walk->layer)](gate, gate, up, count);
}

void pi2_forward_set_counter(pi2_forward *forward, const pi2_neuron_counter *counter) { forward->counter = counter; }

static uint32_t token_of(const pi2_ffn_unit *unit, uint32_t row) {
    return unit->expert == UINT32_MAX ? row : unit->row_token ? unit->row_token[row] : 0;
}

/* Up of an ungated FFN: every activation is f(gate) * up, and 1 times f is f, to the bit. */
static void fill_ones(float *up, size_t count) {
    for (size_t i = 0; i < count; i++) up[i] = 1.0f;
}

/* Tells the counter what neurons [begin, end) gave for a row: as floats, and as what the set holds of them. */
static void tell(const pi2_forward_walk *walk, unsigned member, const pi2_ffn_unit *unit, uint32_t row, uint32_t begin,
                 uint32_t end, const float *activations) {
    const pi2_neuron_counter *counter = walk->forward->counter;
    const pi2_activation_kind kind = unit->down->tensor->format->activation;
    const pi2_activations *kept = &unit->hidden_set->of[kind];
    const uint32_t token = token_of(unit, row);
    const pi2_neuron_values values = {
        .layer = walk->layer, .expert = unit->expert, .position = pi2_forward_position(walk->forward, token),
        .begin = begin, .count = end - begin, .activations = activations,
        .input = walk->forward->buffers.normed + token * walk->forward->buffers.width_stride,
        .rounded = kind == PI2_ACTIVATION_F32 ? NULL : kept->values + row * kept->value_stride + begin };
    counter->count(counter->user, member, &values);
}

/* Of a row of what neurons [begin, end) give, in a member's buffer: whole tiles. */
static size_t stride_of(uint32_t begin, uint32_t end) {
    return ((size_t)(end - begin) + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS * PI2_TILE_ROWS;
}

static void rows_of(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, const pi2_operand *matrix, uint32_t begin,
                    uint32_t end, uint32_t first_row, uint32_t row_count, float *out, bool last) {
    pi2_forward_source_rows(walk, &unit->source, matrix, begin / PI2_TILE_ROWS,
                            (end - begin + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS, unit->input,
                            first_row - unit->input_shift, row_count, out, stride_of(begin, end), last);
}

void pi2_ffn_neurons(const pi2_forward_walk *walk, unsigned member, const pi2_ffn_unit *unit, uint32_t begin,
                     uint32_t end, uint32_t first_row, uint32_t row_count, bool last) {
    const pi2_forward *forward = walk->forward;
    const size_t stride = stride_of(begin, end), count = end - begin;
    float *gate = forward->buffers.member + member * forward->buffers.member_floats;
    float *up = gate + forward->buffers.gate_floats;
    const bool warms = forward->options.neurons && !forward->by_neuron;
    assert(row_count <= PI2_FFN_ROWS && row_count * stride <= forward->buffers.gate_floats);
    if (!unit->gates) rows_of(walk, unit, unit->gate, begin, end, first_row, row_count, gate, last);
    if (unit->up) rows_of(walk, unit, unit->up, begin, end, first_row, row_count, up, last);
    else fill_ones(up, count);
    if (pi2_forward_failed(forward)) return;
    for (uint32_t r = 0; r < row_count; r++) {
        float *hidden = gate + r * stride, *other = unit->up ? up + r * stride : up;
        const float *cut = unit->gates ? unit->gates + (first_row + r) * unit->gates_stride + begin : NULL;
        if (cut) memcpy(hidden, cut, count * sizeof *hidden);
        else if (unit->gate_bias) forward->cpu.vector->add(hidden, unit->gate_bias + begin, count);
        if (unit->up_bias) forward->cpu.vector->add(other, unit->up_bias + begin, count);
        if (warms) {
            pi2_forward_warm_neurons(walk, unit->expert, token_of(unit, first_row + r), begin, end, hidden);
        }
        activate(walk, hidden, other, count);
        if (pi2_forward_masks(walk)) pi2_forward_mask(walk, first_row + r, begin, end - begin, hidden);
        pi2_activation_set_fill(unit->hidden_set, first_row + r, begin, end - begin, hidden);
        if (forward->counter) tell(walk, member, unit, first_row + r, begin, end, hidden);
        if (!unit->hidden) continue;
        memcpy(unit->hidden + (first_row + r) * unit->hidden_stride + begin, hidden, count * sizeof *hidden);
    }
}

void pi2_ffn_leave_neurons(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, uint32_t begin, uint32_t end) {
    const uint32_t tile = begin / PI2_TILE_ROWS, count = (end - begin + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS;
    assert(!unit->source.experts);
    if (!unit->gates) pi2_forward_leave_rows(walk, unit->gate, tile, count);
    if (unit->up) pi2_forward_leave_rows(walk, unit->up, tile, count);
}

void pi2_ffn_down(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, uint32_t tile_begin, uint32_t tile_end,
                  uint32_t begin, uint32_t end, uint32_t first_row, uint32_t row_count, float *out) {
    pi2_forward_source_columns(walk, &unit->source, unit->down, tile_begin, tile_end - tile_begin, begin, end,
                               unit->hidden_set, first_row, row_count, out + (size_t)tile_begin * PI2_TILE_ROWS,
                               walk->forward->buffers.width_stride);
}

/* ---- single neurons ---- */

/* What a unit's rows are times. */
static float scale_of(const pi2_ffn_unit *unit, const pi2_operand *matrix) {
    return matrix->scales ? matrix->scales[unit->source.expert] : 1.0f;
}

void pi2_ffn_gate(const pi2_forward_walk *walk, unsigned member, const pi2_ffn_unit *unit, uint32_t begin, uint32_t end,
                  uint32_t first_row, uint32_t row_count, float *hidden, size_t hidden_stride, bool last) {
    const pi2_forward *forward = walk->forward;
    float *gate = forward->buffers.member + member * forward->buffers.member_floats;
    rows_of(walk, unit, unit->gate, begin, end, first_row, row_count, gate, last);
    if (pi2_forward_failed(forward)) return;
    for (uint32_t r = 0; r < row_count; r++) {
        float *row = gate + r * stride_of(begin, end);
        float *to = hidden + (first_row + r) * hidden_stride + begin;
        if (unit->gate_bias) forward->cpu.vector->add(row, unit->gate_bias + begin, end - begin);
        if (unit->tells_gates) {
            pi2_neuron_store_tell_gates(forward->options.neurons, forward->bank_of[walk->layer], begin, end - begin,
                                        row);
        }
        if (unit->gates) memcpy(to, row, (end - begin) * sizeof *to);
        else for (uint32_t i = 0; i < end - begin; i++) to[i] = row[i] > 0.0f ? row[i] : 0.0f;
    }
}

void pi2_ffn_cut(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, float *gate) {
    pi2_gate_cut(gate, unit->gate->tensor->rows, walk->forward->model->shape.gate_deviations[walk->layer]);
}

bool pi2_ffn_up(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, const pi2_neuron_kernel *kernel,
                const pi2_ffn_single_rows *rows, uint32_t row, float *hidden) {
    const pi2_layout_tensor *tensor = unit->up ? unit->up->tensor : NULL;
    float gate[PI2_FFN_UP_ROWS], up[PI2_FFN_UP_ROWS];
    bool is_absurd = false;
    if (tensor) {
        kernel->rows(up, rows->count, rows->values, rows->scales, tensor->columns,
                     &unit->input->of[tensor->format->activation], row - unit->input_shift);
    } else {
        fill_ones(up, rows->count);
    }
    for (uint32_t i = 0; tensor && unit->up->scales && i < rows->count; i++) up[i] *= scale_of(unit, unit->up);
    for (uint32_t i = 0; i < rows->count; i++) {
        gate[i] = hidden[rows->neurons[i]];
        if (unit->up_bias) up[i] += unit->up_bias[rows->neurons[i]];
    }
    activate(walk, gate, up, rows->count);
    for (uint32_t i = 0; i < rows->count; i++) {
        hidden[rows->neurons[i]] = gate[i];
        is_absurd = is_absurd || (gate[i] != 0.0f && fabsf(gate[i]) < PI2_LEAST_HIDDEN);
    }
    return is_absurd;
}

void pi2_ffn_single_gates(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, const pi2_neuron_kernel *kernel,
                          const pi2_ffn_single_rows *rows, uint32_t row, float *hidden) {
    const pi2_layout_tensor *tensor = unit->gate->tensor;
    const bool fires = pi2_layer_fires(&walk->forward->model->shape, walk->layer);
    float gate[PI2_FFN_UP_ROWS];
    kernel->rows(gate, rows->count, rows->values, rows->scales, tensor->columns,
                 &unit->input->of[tensor->format->activation], row - unit->input_shift);
    for (uint32_t i = 0; i < rows->count; i++) {
        const uint32_t neuron = rows->neurons[i];
        if (unit->gate->scales) gate[i] *= scale_of(unit, unit->gate);
        const float value = unit->gate_bias ? gate[i] + unit->gate_bias[neuron] : gate[i];
        hidden[neuron] = fires && !(value > 0.0f) ? 0.0f : value;
    }
}
