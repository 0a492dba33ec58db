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
 *
 * A layer whose Gate has a cutoff (gelu_topk) is one run, since no neuron can be activated before all of Gate is there:
 * Gate, for each token the cutoff, then Up and what follows as ever. So is one whose neurons are normed together.
 */
#include "pipeline/ffn_unit.h"

#include <stdlib.h>

#include "base/fail.h"

enum { OWN_CHUNKS = 4 }; /* of a device's part: few calls, and nobody waits long for one */
enum { RUNS_OF_STREAM = 8 }; /* two runs are computed with, while three times as much is being read */

/* ---- runs of clusters ---- */

/* Neuron where the cluster that begins in this extent begins: of its first piece. */
static uint32_t first_neuron(const pi2_model *model, const pi2_dense_ffn *ffn, const pi2_extent *extent) {
    const pi2_piece *piece = &model->layout->pieces[extent->first_piece];
    const bool is_down = &model->layout->tensors[piece->tensor] == ffn->down->tensor;
    return is_down ? piece->column_begin : (uint32_t)(piece->row_begin - ffn->gate->row_base);
}

size_t pi2_forward_run_bytes(size_t stream_bytes) { return stream_bytes / RUNS_OF_STREAM; }

/* Cuts a layer's clusters into runs of at most so many streamed bytes; a run has one cluster at least. */
static void plan_layer_runs(pi2_forward *forward, uint32_t layer_index, uint32_t *run_count) {
    const pi2_model *model = forward->model;
    const pi2_dense_ffn ffn = pi2_layer_dense_ffn(&model->layers[layer_index]);
    if (!ffn.down) return;
    const pi2_group *group = &model->layout->groups[ffn.group];
    const bool is_whole = pi2_layer_is_one_run(&model->shape, layer_index);
    const size_t limit = is_whole ? 0 : pi2_forward_run_bytes(forward->options.stream_bytes);
    uint32_t begin = 0, cluster = 0;
    size_t run_bytes = 0, cluster_bytes = 0;
    for (uint32_t e = group->first_extent; e < group->first_extent + group->extent_count; e++) {
        const pi2_extent *extent = &model->layout->extents[e];
        const uint32_t neuron = first_neuron(model, &ffn, extent) / group->cluster_neurons * group->cluster_neurons;
        if (neuron != cluster) { /* a cluster is complete; does it still fit the run? */
            if (limit && run_bytes + cluster_bytes > limit && cluster > begin) {
                forward->runs[(*run_count)++] = (pi2_neuron_run){ begin, cluster, run_bytes };
                begin = cluster;
                run_bytes = 0;
            }
            run_bytes += cluster_bytes;
            cluster_bytes = 0;
            cluster = neuron;
        }
        if (forward->all_stream || !forward->options.resident[e]) cluster_bytes += pi2_extent_read_bytes(extent);
    }
    if (limit && run_bytes + cluster_bytes > limit && cluster > begin) {
        forward->runs[(*run_count)++] = (pi2_neuron_run){ begin, cluster, run_bytes };
        begin = cluster;
        run_bytes = 0;
    }
    forward->runs[(*run_count)++] = (pi2_neuron_run){ begin, ffn.down->tensor->columns, run_bytes + cluster_bytes };
}

uint32_t pi2_forward_plan_runs(pi2_forward *forward) {
    const pi2_model *model = forward->model;
    uint32_t run_count = 0;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        forward->layer_first_run[i] = run_count;
        plan_layer_runs(forward, i, &run_count);
    }
    forward->layer_first_run[model->shape.layer_count] = run_count;
    return run_count;
}

pi2_status pi2_forward_make_runs(pi2_forward *forward) {
    const pi2_model *model = forward->model;
    uint32_t most = model->shape.layer_count;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        const pi2_dense_ffn ffn = pi2_layer_dense_ffn(&model->layers[i]);
        if (ffn.down) most += model->layout->groups[ffn.group].extent_count;
    }
    forward->runs = calloc(most, sizeof *forward->runs);
    forward->layer_first_run = calloc(model->shape.layer_count + 1, sizeof(uint32_t));
    if (!forward->runs || !forward->layer_first_run) return pi2_fail(PI2_ERR_MEMORY, "no memory for runs of clusters");
    /* Fewer resident bytes never make fewer runs, so none resident makes the most. */
    forward->all_stream = true;
    forward->most_run_count = pi2_forward_plan_runs(forward);
    forward->all_stream = false;
    (void)pi2_forward_plan_runs(forward);
    return PI2_OK;
}

/* ---- computing ---- */

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

uint32_t pi2_forward_own_neurons(const pi2_forward *forward, uint32_t count) {
    const uint32_t step = forward->buffers.neuron_chunk, steps = (count + step - 1) / step;
    const uint64_t own = (uint64_t)(pi2_device_share_now(&forward->share, PI2_SHARE_FFN) * steps + 0.5) * step;
    return own < count ? (uint32_t)own : count;
}

/* As much of the own part in a call as a member has buffers for, and not all of it. */
pi2_neuron_cut pi2_forward_cut_neurons(const pi2_forward *forward, uint32_t begin, uint32_t end, uint32_t own) {
    const uint32_t step = forward->buffers.neuron_chunk, tokens = forward->token_count;
    const size_t rows = tokens < PI2_FFN_ROWS ? tokens : PI2_FFN_ROWS;
    const uint32_t room = (uint32_t)(forward->buffers.gate_floats / rows / step);
    const uint32_t steps = (own + step - 1) / step, wanted = (steps + OWN_CHUNKS - 1) / OWN_CHUNKS;
    pi2_neuron_cut cut = { .begin = begin, .end = end, .own = own, .kind = PI2_SHARE_FFN };
    cut.own_size = step * (wanted < room ? wanted > 0 ? wanted : 1 : room);
    cut.own_count = (own + cut.own_size - 1) / cut.own_size;
    cut.count = cut.own_count + (end - begin - own + step - 1) / step;
    return cut;
}

uint32_t pi2_neuron_cut_begin(const pi2_forward *forward, const pi2_neuron_cut *cut, uint32_t chunk) {
    const bool is_own = chunk < cut->own_count;
    const uint32_t at = is_own ? chunk * cut->own_size
                               : cut->own + (chunk - cut->own_count) * forward->buffers.neuron_chunk;
    return at < cut->end - cut->begin ? cut->begin + at : cut->end;
}

static size_t row_bytes(const pi2_operand *matrix) {
    return matrix ? pi2_tile_bytes(matrix->tensor->format, matrix->tensor->columns) / PI2_TILE_ROWS : 0;
}

void pi2_forward_neurons_done(const pi2_forward_walk *walk, const pi2_neuron_cut *cut, uint32_t chunk) {
    const pi2_forward *forward = walk->forward;
    const pi2_ffn_unit unit = pi2_ffn_of_layer(walk);
    const uint64_t neurons = pi2_neuron_cut_begin(forward, cut, chunk + 1) - pi2_neuron_cut_begin(forward, cut, chunk);
    const bool is_own = chunk < cut->own_count;
    pi2_device_share_did(&walk->forward->share, cut->kind, is_own, walk->device && (is_own || !cut->is_capped),
                         neurons * (row_bytes(unit.gate) + row_bytes(unit.up)));
}

/* Of the run under way. Where it streams its weights arrive in order: whoever is free takes the next chunk. */
static pi2_neuron_cut run_cut(const pi2_forward_walk *walk) {
    const bool streams = walk->run.streamed_bytes > 0;
    const uint32_t neurons = walk->run.end - walk->run.begin;
    pi2_neuron_cut cut = pi2_forward_cut_neurons(walk->forward, walk->run.begin, walk->run.end,
                                                 streams ? 0 : pi2_forward_own_neurons(walk->forward, neurons));
    if (streams) cut.kind = PI2_SHARE_NONE;
    return cut;
}

static void neuron_chunk(void *argument, unsigned member, uint32_t chunk) {
    pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_cut cut = run_cut(walk);
    const uint32_t begin = pi2_neuron_cut_begin(forward, &cut, chunk);
    const uint32_t end = pi2_neuron_cut_begin(forward, &cut, chunk + 1);
    const pi2_ffn_unit unit = pi2_ffn_of_layer(walk);
    const bool keeps = pi2_forward_keeps_rows(walk); /* then their tiles are still needed */
    for (uint32_t token = 0; token < forward->token_count; token += PI2_FFN_ROWS) {
        const uint32_t left = forward->token_count - token;
        pi2_ffn_neurons(walk, member, &unit, begin, end, token, left < PI2_FFN_ROWS ? left : PI2_FFN_ROWS,
                        left <= PI2_FFN_ROWS && !keeps);
    }
    if (keeps) {
        pi2_forward_keep_rows(walk, begin, end);
        pi2_ffn_leave_neurons(walk, &unit, begin, end);
    }
    pi2_forward_neurons_done(walk, &cut, chunk);
}

/* Gate alone, of a layer that has a cutoff. */
static void gate_chunk(void *argument, unsigned member, uint32_t chunk) {
    pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const uint32_t begin = chunk * forward->buffers.neuron_chunk, wanted = begin + forward->buffers.neuron_chunk;
    const pi2_ffn_unit unit = pi2_ffn_of_layer(walk);
    const uint32_t neurons = unit.down->tensor->columns, end = wanted < neurons ? wanted : neurons;
    for (uint32_t token = 0; token < forward->token_count; token += PI2_FFN_ROWS) {
        const uint32_t left = forward->token_count - token;
        pi2_ffn_gate(walk, member, &unit, begin, end, token, left < PI2_FFN_ROWS ? left : PI2_FFN_ROWS, unit.gates,
                     unit.gates_stride, left <= PI2_FFN_ROWS);
    }
}

static void cut_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_ffn_unit unit = pi2_ffn_of_layer(walk);
    if (!pi2_forward_failed(walk->forward)) pi2_ffn_cut(walk, &unit, unit.gates + token * unit.gates_stride);
}

static pi2_tile_chunks down_chunks(const pi2_forward_walk *walk) {
    const pi2_operand *down = pi2_layer_dense_ffn(layer_of(walk)).down;
    return pi2_forward_plan_chunks(walk->forward, down->tile_count,
                                   pi2_tile_bytes(down->tensor->format, walk->run.end - walk->run.begin), true,
                                   walk->run.streamed_bytes > 0 ? PI2_SHARE_NONE : PI2_SHARE_FFN);
}

static void down_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    const pi2_ffn_unit unit = pi2_ffn_of_layer(walk);
    const pi2_tile_chunks chunks = down_chunks(walk);
    const uint32_t begin = pi2_tile_chunk_begin(&chunks, chunk), end = pi2_tile_chunk_begin(&chunks, chunk + 1);
    pi2_ffn_down(walk, &unit, begin, end, walk->run.begin, walk->run.end, 0, walk->forward->token_count,
                 walk->forward->buffers.out);
    pi2_forward_tiles_done(walk, &chunks, chunk);
}

/* Of the FFN that every token uses: what came of all its clusters is whole. */
static void scale_down(const pi2_forward_walk *walk, float *out) {
    const float *scale = pi2_layer_dense_ffn(layer_of(walk)).down->scales;
    for (uint32_t i = 0; scale && i < walk->forward->model->shape.embedding_length; i++) out[i] *= *scale;
}

void pi2_forward_end_ffn(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward *forward = walk->forward;
    float *out = forward->buffers.out + token * forward->buffers.width_stride;
    scale_down(walk, out);
    const float *bias = layer_of(walk)->tables[PI2_TABLE_DOWN_BIAS];
    if (bias) forward->cpu.vector->add(out, bias, forward->model->shape.embedding_length);
    pi2_forward_end_block(walk, token, out);
}

/* Beside experts: weighed by its own gate, where it has one, for the experts' sum to begin with. */
static void weigh_shared(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const float *gate = layer_of(walk)->tables[PI2_TABLE_SHARED_GATE];
    const float *x = forward->buffers.normed + token * forward->buffers.width_stride;
    float *out = forward->buffers.out + token * forward->buffers.width_stride;
    const uint32_t width = forward->model->shape.embedding_length;
    if (!gate) return;
    const float weight = 1.0f / (1.0f + pi2_expf(-pi2_forward_dot(gate, x, width)));
    for (uint32_t i = 0; i < width; i++) out[i] *= weight;
}

/* Nobody reads what this FFN read any more: where experts have a norm of their own, that is what comes next. */
static void end_shared(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward *forward = walk->forward;
    const float *const *tables = layer_of(walk)->tables;
    const float *post_norm = tables[PI2_TABLE_POST_SHARED_NORM];
    float *out = forward->buffers.out + token * forward->buffers.width_stride;
    scale_down(walk, out);
    weigh_shared(walk, token);
    if (post_norm) {
        forward->cpu.vector->rms_norm(out, out, post_norm, forward->model->shape.embedding_length,
                                  forward->model->shape.norm_epsilon);
    }
    if (tables[PI2_TABLE_EXPERT_NORM]) {
        pi2_forward_norm_token(forward, tables[PI2_TABLE_EXPERT_NORM], NULL, token, token);
    }
}

/* Gate and Up of a run; returns the stage that its Down waits for. */
static uint32_t work_on_neurons(pi2_forward_walk *walk, uint32_t run) {
    walk->run = walk->forward->runs[run];
    walk->stage_name = "gate+up";
    const pi2_neuron_cut cut = run_cut(walk);
    walk->own_chunks = cut.own_count;
    return pi2_forward_stage_work(walk, cut.count, neuron_chunk);
}

/* What the neurons gave for a token, all of them, in place of what was kept of each chunk. */
static void norm_hidden(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    const uint32_t neurons = layer_of(walk)->down.tensor->columns;
    float *hidden = buffers->hidden + token * buffers->neuron_stride;
    if (pi2_forward_failed(forward)) return;
    forward->cpu.vector->rms_norm(hidden, hidden, layer_of(walk)->tables[PI2_TABLE_HIDDEN_NORM], neurons,
                              forward->model->shape.norm_epsilon);
    pi2_activation_set_fill(&buffers->hidden_set, token, 0, neurons, hidden);
}

/* One run: Gate and Up, the norm, Down. */
static void normed_ffn(pi2_forward_walk *walk, uint32_t run, pi2_token_tail *tail) {
    walk->run = walk->forward->runs[run];
    walk->stage_name = "gate+up";
    const pi2_neuron_cut cut = run_cut(walk);
    walk->own_chunks = cut.own_count;
    pi2_forward_stage(walk, cut.count, neuron_chunk, norm_hidden);
    walk->stage_name = "down";
    const pi2_tile_chunks chunks = down_chunks(walk);
    pi2_forward_tile_stage(walk, &chunks, down_chunk, tail);
}

bool pi2_forward_two_runs_fit(const pi2_forward *forward, uint32_t run) {
    const size_t room = forward->options.stream_bytes, margin = forward->largest_extent;
    const size_t both = forward->runs[run].streamed_bytes + forward->runs[run + 1].streamed_bytes;
    return both == 0 || (room > margin && both <= room - margin);
}

void pi2_forward_ffn(pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    pi2_token_tail *tail = pi2_layer_has_experts(layer_of(walk)) ? end_shared : pi2_forward_end_ffn;
    const uint32_t first = forward->layer_first_run[walk->layer], end = forward->layer_first_run[walk->layer + 1];
    if (layer_of(walk)->tables[PI2_TABLE_HIDDEN_NORM]) {
        normed_ffn(walk, first, tail);
        return;
    }
    if (pi2_layer_cuts_gate(&forward->model->shape, walk->layer)) {
        const uint32_t chunk = forward->buffers.neuron_chunk, neurons = layer_of(walk)->down.tensor->columns;
        walk->stage_name = "gate";
        pi2_forward_stage(walk, (neurons + chunk - 1) / chunk, gate_chunk, cut_token);
    }
    if (pi2_forward_masks(walk)) pi2_forward_predict(walk);
    uint32_t neurons_done = work_on_neurons(walk, first), down_done = UINT32_MAX;
    for (uint32_t r = first; r < end; r++) {
        const bool is_last = r + 1 == end, ahead = !is_last && pi2_forward_two_runs_fit(forward, r);
        const uint32_t next = ahead ? work_on_neurons(walk, r + 1) : UINT32_MAX;
        pi2_forward_stage_wait(walk, neurons_done);
        if (down_done != UINT32_MAX) pi2_forward_stage_wait(walk, down_done);
        walk->run = forward->runs[r];
        pi2_forward_keep_columns(walk);
        walk->stage_name = "down";
        const pi2_tile_chunks chunks = down_chunks(walk);
        if (is_last) {
            pi2_forward_tile_stage(walk, &chunks, down_chunk, tail);
        } else {
            walk->own_chunks = chunks.own_count;
            down_done = pi2_forward_stage_work(walk, chunks.count, down_chunk);
            if (!ahead) pi2_forward_stage_wait(walk, down_done);
            neurons_done = ahead ? next : work_on_neurons(walk, r + 1);
        }
    }
}
