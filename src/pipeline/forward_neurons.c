/*
 * forward_neurons.c: FFNs of which only the neurons that fire are read and computed (PowerInfer-2, sections 4.3 and
 * 4.4), with the bits of the dense FFN (docs/arithmetic.md, Neurons). A layer has one, or those of the experts that its
 * router chose: a job each.
 *
 *   gate       of hot neurons, which are a device's, all that they give (forward_hot.c); of the others every Gate row,
 *              from tiles in memory; of experts from their Gates, as they arrive. Neurons that fire and whose bundle is
 *              there wait; the others' units are asked for in the file's order, neighbours in one read, so that reads
 *              go on while the next Gate rows are computed
 *              (gelu_topk: who fires is known when Gate is whole; so the second half is a stage of its own, `fire`)
 *   neurons    Up rows of the neurons that are there, while the last reads go on; Down of hot neurons
 *   late       Up rows of the neurons that were asked for, in that order, as they arrive
 *   quantise   hidden values to int8, block by block; what is zero after that is left out of Down
 *   columns    of the neurons that are left, in the model's order; threads share the rows out. Each row's result is
 *              kept apart where there are experts, and summed by ascending expert at last
 *
 * The last three take a layer's neurons part by part, in the model's order, where some are late: a chain of Down may
 * stop and go on, so the columns of one part are added while the neurons of the next are still being read.
 *
 * Where a predictor names the neurons (forward_predict.c) nothing of Gate is computed beforehand: its rows are parts of
 * the bundles, and come before Up's; what a neuron that was named gives may then be 0 all the same.
 *
 * A layer's neurons stay in memory until its Down is done (neuron_cache/neuron_store.h).
 */
#include <assert.h>
#include <string.h>

#include "pipeline/ffn_unit.h"

enum {
    FIRE_CHUNK = PI2_FFN_UP_ROWS, ARRIVAL_CHUNK = 8, ROW_UNIT = 32, ROW_CHUNKS_PER_THREAD = 2,
    LISTED_CHUNK = 512, /* neurons whose lists are gone through for those that are there, or late */
    WARM_TOKENS = PI2_NEURON_FADE_SHARE, /* of a prompt: those that heat would still know of */
    NEAR_TOKENS = 4 /* and those of which the store is told how near neurons were to firing */
};

/* One FFN of the layer, and the rows that read it. */
typedef struct neuron_job {
    uint32_t number, bank, first_row, row_count;
} neuron_job;

static const pi2_neuron_bank *bank_at(const pi2_forward_walk *walk, uint32_t number) {
    return &walk->forward->options.banks->banks[number];
}

/* Whether the layer's neurons are those of experts. */
static bool of_experts(const pi2_forward_walk *walk) {
    return pi2_layer_has_experts(&walk->forward->model->layers[walk->layer]);
}

/* All banks of a layer have its shape. */
static const pi2_neuron_bank *any_bank(const pi2_forward_walk *walk) {
    return bank_at(walk, walk->forward->bank_of[pi2_ffn_number(&walk->forward->model->shape, walk->layer, 0)]);
}

static neuron_job job_at(const pi2_forward_walk *walk, uint32_t number) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    if (!of_experts(walk)) {
        return (neuron_job){ 0, forward->bank_of[pi2_ffn_number(shape, walk->layer, UINT32_MAX)], 0,
                             forward->token_count };
    }
    const pi2_expert_job *job = &forward->buffers.experts.jobs[number];
    return (neuron_job){ number, forward->bank_of[pi2_ffn_number(shape, walk->layer, job->expert)], job->first_row,
                         job->row_count };
}

static neuron_job job_of_row(const pi2_forward_walk *walk, uint32_t row) {
    uint32_t number = 0;
    neuron_job job = job_at(walk, number);
    while (row >= job.first_row + job.row_count) job = job_at(walk, ++number);
    return job;
}

static pi2_ffn_unit unit_of(const pi2_forward_walk *walk, const neuron_job *job) {
    return of_experts(walk)
               ? pi2_ffn_of_expert(walk, &walk->forward->buffers.experts.jobs[job->number]) : pi2_ffn_of_layer(walk);
}

/* Rows of all jobs together. */
static uint32_t rows_of_pass(const pi2_forward *forward) {
    return forward->token_count * pi2_token_ffns(&forward->model->shape);
}

static float *hidden_of(const pi2_forward *forward, uint32_t row) {
    return forward->buffers.neurons.hidden + row * forward->buffers.neurons.stride;
}

static const uint8_t **bundles_of(const pi2_forward *forward, const neuron_job *job) {
    return forward->buffers.neurons.bundles + job->number * forward->buffers.neurons.stride;
}

static uint32_t *listed_of(const pi2_forward *forward, const neuron_job *job) {
    return forward->buffers.neurons.listed + job->number * forward->buffers.neurons.stride;
}

static pi2_fired_list *lists_fired(const pi2_forward *forward, const neuron_job *job) {
    return forward->buffers.neurons.fired + job->number * forward->buffers.neurons.stride / PI2_TILE_ROWS;
}

bool pi2_forward_takes_neurons(const pi2_forward_walk *walk) {
    return walk->forward->by_neuron && walk->forward->has_banks[walk->layer];
}

/* A layer begins: one thread, while no other computes neurons. */
static void begin_layer(pi2_forward *forward) {
    pi2_neuron_buffers *buffers = &forward->buffers.neurons;
    pi2_neuron_store_begin_layer(forward->options.neurons);
    for (uint32_t row = 0; row < buffers->row_count; row++) {
        atomic_store_explicit(&buffers->careful[row], 0, memory_order_relaxed);
    }
    memset(buffers->fired, 0, buffers->fired_count * sizeof *buffers->fired);
}

void pi2_forward_begin_neurons(pi2_forward *forward) {
    for (uint32_t i = 0; i < forward->model->shape.layer_count; i++) {
        atomic_store(&forward->buffers.neurons.late_counts[i], 0);
    }
    pi2_neuron_store_begin_pass(forward->options.neurons, forward->token_count, 1);
    begin_layer(forward);
}

void pi2_forward_warm_neurons(const pi2_forward_walk *walk, uint32_t expert, uint32_t token, uint32_t begin,
                              uint32_t end, const float *gate) {
    const pi2_forward *forward = walk->forward;
    const uint32_t number = forward->bank_of[pi2_ffn_number(&forward->model->shape, walk->layer, expert)];
    if (number == PI2_NO_BANK || token + WARM_TOKENS < forward->token_count) return;
    const pi2_neuron_bank *bank = &forward->options.banks->banks[number];
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, number);
    const pi2_model_shape *shape = &forward->model->shape;
    const bool tells = !of_experts(walk) && !pi2_layer_cuts_gate(shape, walk->layer);
    if (tells && token + NEAR_TOKENS >= forward->token_count) {
        pi2_neuron_store_tell_gates(forward->options.neurons, number, begin, end - begin, gate);
    }
    for (uint32_t i = 0; i < end - begin; i++) {
        if (gate[i] <= 0.0f) continue;
        pi2_neuron_store_warm(forward->options.neurons, number, head->place_of[begin + i] / bank->unit_neurons);
    }
}

/* ---- Gate and Up ---- */

/* Gate of those listed that a predictor named for each of a job's rows: at most FIRE_CHUNK. */
static void compute_gate_of(pi2_forward_walk *walk, const neuron_job *job, const uint32_t *neurons, uint32_t count) {
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, job->bank);
    const size_t scale_bytes = bank_at(walk, job->bank)->gate_scale_bytes;
    const uint8_t *const *bundles = bundles_of(forward, job);
    const pi2_ffn_unit unit = unit_of(walk, job);
    const uint8_t *values[FIRE_CHUNK], *scales[FIRE_CHUNK];
    uint32_t named[FIRE_CHUNK];
    for (uint32_t row = job->first_row; row < job->first_row + job->row_count; row++) {
        float *hidden = hidden_of(forward, row);
        pi2_ffn_single_rows rows = { values, scales, named, 0 };
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t neuron = neurons[i];
            if (hidden[neuron] == 0.0f) continue;
            named[rows.count] = neuron;
            values[rows.count] = bundles[neuron];
            scales[rows.count++] = head->gate_scales + neuron * scale_bytes;
        }
        if (rows.count) pi2_ffn_single_gates(walk, &unit, forward->gate_kernels[walk->layer], &rows, row, hidden);
    }
}

/* Up of the neurons that fire for each of a job's rows, of those listed: at most FIRE_CHUNK. */
static void compute_up_of(pi2_forward_walk *walk, const neuron_job *job, const uint32_t *neurons, uint32_t count) {
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, job->bank);
    const size_t scale_bytes = bank_at(walk, job->bank)->up_scale_bytes, offset = bank_at(walk, job->bank)->up_offset;
    const uint8_t *const *bundles = bundles_of(forward, job);
    const pi2_ffn_unit unit = unit_of(walk, job);
    const uint8_t *values[FIRE_CHUNK], *scales[FIRE_CHUNK];
    uint32_t firing[FIRE_CHUNK];
    for (uint32_t row = job->first_row; row < job->first_row + job->row_count; row++) {
        float *hidden = hidden_of(forward, row);
        pi2_ffn_single_rows rows = { values, scales, firing, 0 };
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t neuron = neurons[i];
            if (hidden[neuron] == 0.0f) continue;
            firing[rows.count] = neuron;
            values[rows.count] = bundles[neuron] + offset;
            scales[rows.count++] = head->up_scales + neuron * scale_bytes;
        }
        if (rows.count == 0) continue;
        if (pi2_ffn_up(walk, &unit, forward->up_kernels[walk->layer], &rows, row, hidden)) {
            atomic_store_explicit(&forward->buffers.neurons.careful[row], 1, memory_order_relaxed);
        }
    }
}

/* What neurons whose bundles are there give. */
static void compute(pi2_forward_walk *walk, const neuron_job *job, const uint32_t *neurons, uint32_t count) {
    if (pi2_forward_predicts(walk->forward)) compute_gate_of(walk, job, neurons, count);
    compute_up_of(walk, job, neurons, count);
}

/* ---- Gate, whole ---- */

/* The neurons of [begin, end) that fire for some row of a job. */
static uint32_t list_firing(const pi2_forward *forward, const neuron_job *job, uint32_t begin, uint32_t end,
                            uint32_t *neurons) {
    const size_t stride = forward->buffers.neurons.stride;
    const float *first = hidden_of(forward, job->first_row);
    uint32_t count = 0;
    /* One row's are written down before it is known whether they stay: who fires is nothing that can be guessed. */
    for (uint32_t neuron = begin; job->row_count == 1 && neuron < end; neuron++) {
        neurons[count] = neuron;
        count += first[neuron] != 0.0f;
    }
    for (uint32_t neuron = begin; job->row_count > 1 && neuron < end; neuron++) {
        bool fires = false;
        for (uint32_t r = 0; r < job->row_count && !fires; r++) fires = first[r * stride + neuron] != 0.0f;
        if (fires) neurons[count++] = neuron;
    }
    return count;
}

/* Neurons in the order of their units in the file: few, and often in it already. */
static void sort_by_unit(uint32_t *neurons, uint32_t *units, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        const uint32_t neuron = neurons[i], unit = units[i];
        uint32_t at = i;
        for (; at > 0 && units[at - 1] > unit; at--) {
            neurons[at] = neurons[at - 1];
            units[at] = units[at - 1];
        }
        neurons[at] = neuron;
        units[at] = unit;
    }
}

/* Asks for what was gathered, in the file's order. */
static void ask_gathered(pi2_forward_walk *walk) {
    uint32_t *units = walk->wanted;
    const uint32_t count = walk->wanted_count, bank = walk->forward->bank_of[walk->layer];
    walk->wanted_count = 0;
    if (count == 0 || pi2_forward_failed(walk->forward)) return;
    for (uint32_t i = 1; i < count; i++) {
        const uint32_t unit = units[i];
        uint32_t at = i;
        for (; at > 0 && units[at - 1] > unit; at--) units[at] = units[at - 1];
        units[at] = unit;
    }
    pi2_neuron_store_want(walk->forward->options.neurons, bank, units, count);
}

/* Asks for units, or gathers them: a chunk of Gate misses one or two, and waking the I/O thread for each, and by it the
 * device, takes as much of the processors as the reads themselves. They are late by a few chunks for it. */
static void want(pi2_forward_walk *walk, const neuron_job *job, const uint32_t *units, uint32_t count) {
    if (walk->gathers && walk->wanted_count + count > PI2_WANTED_TOGETHER) ask_gathered(walk);
    if (!walk->gathers || count > PI2_WANTED_TOGETHER) {
        pi2_neuron_store_want(walk->forward->options.neurons, job->bank, units, count);
        return;
    }
    memcpy(walk->wanted + walk->wanted_count, units, count * sizeof *units);
    walk->wanted_count += count;
}

/* A stage of a layer's own FFN in which threads gather what they want: each asks for the rest when no chunk is left. */
static void gathering_stage(pi2_forward_walk *walk, uint32_t chunks, pi2_stage_chunk *chunk) {
    walk->gathers = true;
    const uint32_t stage = pi2_forward_stage_work(walk, chunks, chunk);
    ask_gathered(walk);
    walk->gathers = false;
    pi2_forward_stage_wait(walk, stage);
}

/* Asks for the units of a chunk's neurons that are not there, and lists those neurons in the order in which they will
 * arrive. */
static void leave_for_later(pi2_forward_walk *walk, const neuron_job *job, uint32_t *neurons, uint32_t *units,
                            uint32_t count, uint32_t *list) {
    const pi2_forward *forward = walk->forward;
    if (count == 0) return;
    sort_by_unit(neurons, units, count);
    memcpy(list, neurons, count * sizeof *list);
    (void)atomic_fetch_add(&forward->buffers.neurons.late_counts[walk->layer], count);
    want(walk, job, units, count);
}

static void gate_of_job(const pi2_forward_walk *walk, unsigned member, const neuron_job *job, uint32_t begin,
                        uint32_t end) {
    const pi2_forward *forward = walk->forward;
    pi2_ffn_unit ffn = unit_of(walk, job);
    ffn.tells_gates = !of_experts(walk); /* those of an expert are old when it is chosen again */
    pi2_ffn_gate(walk, member, &ffn, begin, end, job->first_row, job->row_count, forward->buffers.neurons.hidden,
                 forward->buffers.neurons.stride, true);
}

/* What follows for neurons [begin, end) of a job when it is known which of them fire. */
static void fire(pi2_forward_walk *walk, const neuron_job *job, uint32_t begin, uint32_t end) {
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_bank *bank = bank_at(walk, job->bank);
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, job->bank);
    uint32_t firing[FIRE_CHUNK], late[FIRE_CHUNK], units[FIRE_CHUNK], late_count = 0;
    uint32_t *here = listed_of(forward, job) + begin;
    pi2_fired_list *fired = &lists_fired(forward, job)[begin / PI2_TILE_ROWS];
    assert(end - begin <= FIRE_CHUNK && begin % PI2_TILE_ROWS == 0);
    if (pi2_forward_failed(forward)) return;
    const uint32_t count = list_firing(forward, job, begin, end, firing);
    if (count) pi2_neuron_store_collect(forward->options.neurons);
    for (uint32_t i = 0; i < count; i++) units[i] = head->place_of[firing[i]] / bank->unit_neurons;
    pi2_neuron_store_expect(forward->options.neurons, job->bank, units, count);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t neuron = firing[i], unit = units[i];
        const uint8_t *memory = pi2_neuron_store_hit(forward->options.neurons, job->bank, unit);
        if (memory) {
            const uint32_t in_unit = head->place_of[neuron] % bank->unit_neurons;
            bundles_of(forward, job)[neuron] = memory + in_unit * (size_t)bank->bundle_bytes;
            here[fired->here++] = neuron;
        } else {
            late[late_count] = neuron;
            units[late_count++] = unit; /* in a place that was looked at */
        }
    }
    fired->late = (uint16_t)late_count;
    leave_for_later(walk, job, late, units, late_count, here + fired->here);
    pi2_neuron_store_note(forward->options.neurons, job->bank, count, fired->here);
}

void pi2_forward_fire(pi2_forward_walk *walk, unsigned member, uint32_t number, uint32_t begin, uint32_t end) {
    const neuron_job job = job_at(walk, number);
    gate_of_job(walk, member, &job, begin, end);
    fire(walk, &job, begin, end);
}

static uint32_t end_of_chunk(const pi2_forward_walk *walk, uint32_t begin) {
    const uint32_t step = walk->forward->buffers.neuron_chunk, neurons = any_bank(walk)->neuron_count;
    return neurons - begin < step ? neurons : begin + step;
}

static pi2_neuron_cut gate_cut(const pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    pi2_neuron_cut cut = pi2_forward_cut_neurons(forward, 0, any_bank(walk)->neuron_count, forward->hot[walk->layer]);
    cut.is_capped = forward->hot_is_capped[walk->layer];
    return cut;
}

/* Of a layer's own FFN: hot neurons, or Gate, and at once what follows from it. */
static void gate_chunk(void *argument, unsigned member, uint32_t chunk) {
    pi2_forward_walk *walk = argument;
    const pi2_neuron_cut cut = gate_cut(walk);
    const uint32_t begin = pi2_neuron_cut_begin(walk->forward, &cut, chunk);
    const uint32_t end = pi2_neuron_cut_begin(walk->forward, &cut, chunk + 1);
    if (chunk < cut.own_count) pi2_forward_hot_neurons(walk, member, begin, end);
    else pi2_forward_fire(walk, member, 0, begin, end);
    pi2_forward_neurons_done(walk, &cut, chunk);
}

/* The same in two stages, with a token's cutoff between them. */
static void whole_gate_chunk(void *argument, unsigned member, uint32_t chunk) {
    const pi2_forward_walk *walk = argument;
    const uint32_t begin = chunk * walk->forward->buffers.neuron_chunk;
    const neuron_job job = job_at(walk, 0);
    gate_of_job(walk, member, &job, begin, end_of_chunk(walk, begin));
}

static void cut_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_ffn_unit unit = pi2_ffn_of_layer(walk);
    if (!pi2_forward_failed(walk->forward)) pi2_ffn_cut(walk, &unit, hidden_of(walk->forward, token));
}

static uint32_t fire_chunks(const pi2_forward_walk *walk) {
    return (any_bank(walk)->neuron_count + FIRE_CHUNK - 1) / FIRE_CHUNK;
}

/* Nothing is computed of all of a chunk's neurons here, so a chunk has as many as are listed at a time. Of experts
 * chunks of one job follow those of the one before. */
static void fire_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    const uint32_t each = fire_chunks(walk), begin = chunk % each * FIRE_CHUNK;
    const uint32_t neurons = any_bank(walk)->neuron_count;
    if (pi2_forward_failed(walk->forward)) return; /* there may be no jobs */
    const neuron_job job = job_at(walk, chunk / each);
    fire(walk, &job, begin, neurons - begin < FIRE_CHUNK ? neurons : begin + FIRE_CHUNK);
}

static void fire_stage(pi2_forward_walk *walk, uint32_t jobs) {
    walk->stage_name = "fire";
    if (of_experts(walk)) pi2_forward_stage(walk, jobs * fire_chunks(walk), fire_chunk, NULL);
    else gathering_stage(walk, fire_chunks(walk), fire_chunk);
}

static void gate_stages(pi2_forward_walk *walk) {
    const uint32_t chunk = walk->forward->buffers.neuron_chunk;
    const uint32_t chunks = (any_bank(walk)->neuron_count + chunk - 1) / chunk;
    if (pi2_forward_predicts(walk->forward)) {
        pi2_forward_predict(walk);
        fire_stage(walk, 1);
        return;
    }
    walk->stage_name = "gate";
    if (!pi2_layer_cuts_gate(&walk->forward->model->shape, walk->layer)) {
        const pi2_neuron_cut cut = gate_cut(walk);
        if (walk->device && cut.own) walk->stage_name = "hot gate+up";
        walk->own_chunks = cut.own_count;
        gathering_stage(walk, cut.count, gate_chunk);
        return;
    }
    pi2_forward_stage(walk, chunks, whole_gate_chunk, cut_token);
    fire_stage(walk, 1);
}

/* The same of the experts that the layer's router chose. */
static void expert_gate_stages(pi2_forward_walk *walk) {
    if (!pi2_forward_predicts(walk->forward)) {
        pi2_forward_expert_gates(walk);
        return;
    }
    pi2_forward_gather(walk);
    pi2_forward_predict(walk);
    fire_stage(walk, walk->forward->plan.unit_counts[walk->layer]);
}

/* ---- neurons that had to be read ---- */

/* The memory of a neuron's bundle, which is waited for; NULL: the pass fails. */
static const uint8_t *take_bundle(const pi2_forward_walk *walk, uint32_t bank_number, uint32_t neuron) {
    pi2_forward *forward = walk->forward;
    const pi2_neuron_bank *bank = bank_at(walk, bank_number);
    const uint32_t place = pi2_neuron_store_head(forward->options.neurons, bank_number)->place_of[neuron];
    const uint8_t *memory;
    const pi2_status status =
        pi2_neuron_store_take(forward->options.neurons, bank_number, place / bank->unit_neurons, &memory);
    if (status == PI2_OK) return memory + place % bank->unit_neurons * (size_t)bank->bundle_bytes;
    pi2_forward_fail(forward, status);
    return NULL;
}

/* Up of a job's neurons whose bundles are waited for. */
static void arrive(pi2_forward_walk *walk, const neuron_job *job, const uint32_t *neurons, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        bundles_of(walk->forward, job)[neurons[i]] = take_bundle(walk, job->bank, neurons[i]);
        if (pi2_forward_failed(walk->forward)) return;
    }
    compute(walk, job, neurons, count);
}

/* Late neurons of [begin, end) that found no read when they were asked for, since a layer that misses much has more of
 * them than there are reads, are asked for together: one by one each would be waited for alone. */
static void want_again(const pi2_forward_walk *walk, const neuron_job *job, uint32_t begin, uint32_t end) {
    pi2_neuron_store *store = walk->forward->options.neurons;
    const pi2_neuron_bank *bank = bank_at(walk, job->bank);
    const uint32_t *place_of = pi2_neuron_store_head(store, job->bank)->place_of;
    uint32_t neurons[LISTED_CHUNK], units[LISTED_CHUNK], count = 0;
    for (uint32_t at = begin; at < end; at += PI2_TILE_ROWS) {
        const pi2_fired_list *list = &lists_fired(walk->forward, job)[at / PI2_TILE_ROWS];
        const uint32_t *late = listed_of(walk->forward, job) + at + list->here;
        for (uint32_t i = 0; i < list->late && count < LISTED_CHUNK; i++) {
            const uint32_t unit = place_of[late[i]] / bank->unit_neurons;
            neurons[count] = late[i];
            units[count] = unit;
            count += !pi2_neuron_store_has(store, job->bank, unit);
        }
    }
    if (count == 0) return;
    sort_by_unit(neurons, units, count);
    pi2_neuron_store_want(store, job->bank, units, count);
}

/* Of the chunks of Gate that begin in [begin, end), what is there, or what was asked for: many together, since rows of
 * neurons come the faster the more follow each other. */
static void compute_listed(pi2_forward_walk *walk, const neuron_job *job, uint32_t begin, uint32_t end, bool late) {
    const pi2_fired_list *fired = lists_fired(walk->forward, job);
    const uint32_t *listed = listed_of(walk->forward, job), most = late ? ARRIVAL_CHUNK : FIRE_CHUNK;
    uint32_t neurons[FIRE_CHUNK], count = 0;
    for (uint32_t at = begin; at < end; at += PI2_TILE_ROWS) {
        const pi2_fired_list *list = &fired[at / PI2_TILE_ROWS];
        const uint32_t *from = listed + at + (late ? list->here : 0), n = late ? list->late : list->here;
        for (uint32_t i = 0; i < n; i++) {
            neurons[count++] = from[i];
            if (count < most) continue;
            if (late) arrive(walk, job, neurons, count);
            else compute(walk, job, neurons, count);
            count = 0;
            if (pi2_forward_failed(walk->forward)) return;
        }
    }
    if (count == 0) return;
    if (late) arrive(walk, job, neurons, count);
    else compute(walk, job, neurons, count);
}

/* ---- parts of a layer ---- */

static uint32_t segments_of(const pi2_forward_walk *walk) {
    return (any_bank(walk)->neuron_count + PI2_NEURON_SEGMENT - 1) / PI2_NEURON_SEGMENT;
}

/* Segments of a part. */
static uint32_t part_segments(const pi2_forward_walk *walk) {
    return (segments_of(walk) + PI2_NEURON_PARTS - 1) / PI2_NEURON_PARTS;
}

/* Parts that a layer is computed in: its late neurons are known. Experts have one. */
static uint32_t parts_of(const pi2_forward_walk *walk, uint32_t late) {
    if (late == 0 || of_experts(walk)) return 1;
    return (segments_of(walk) + part_segments(walk) - 1) / part_segments(walk);
}

static void choose_part(pi2_forward_walk *walk, uint32_t part, uint32_t parts) {
    const uint32_t all = segments_of(walk), each = parts == 1 ? all : part_segments(walk);
    walk->part_begin = part * each;
    walk->part_end = all - walk->part_begin < each ? all : walk->part_begin + each;
}

/* Jobs that a layer may have: a late thread counts as the others did, though the next layer's are there. */
static uint32_t most_jobs(const pi2_forward_walk *walk) {
    return of_experts(walk) ? rows_of_pass(walk->forward) : 1;
}

static bool has_job(const pi2_forward_walk *walk, uint32_t number) {
    return !of_experts(walk) || number < walk->forward->plan.job_count;
}

/* Chunks of LISTED_CHUNK neurons that the part under way has, of one job. */
static uint32_t listed_chunks(const pi2_forward_walk *walk) {
    return (walk->part_end - walk->part_begin) * (PI2_NEURON_SEGMENT / LISTED_CHUNK);
}

static void listed_chunk(pi2_forward_walk *walk, uint32_t chunk, bool late) {
    const uint32_t each = listed_chunks(walk), neurons = any_bank(walk)->neuron_count;
    const uint32_t begin = walk->part_begin * PI2_NEURON_SEGMENT + chunk % each * LISTED_CHUNK;
    if (begin >= neurons || !has_job(walk, chunk / each)) return;
    const neuron_job job = job_at(walk, chunk / each);
    if (late) want_again(walk, &job, begin, neurons - begin < LISTED_CHUNK ? neurons : begin + LISTED_CHUNK);
    compute_listed(walk, &job, begin, neurons - begin < LISTED_CHUNK ? neurons : begin + LISTED_CHUNK, late);
}

static void late_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    listed_chunk(argument, chunk, true);
}

static void here_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    const pi2_tile_chunks down = pi2_forward_hot_down_chunks(walk);
    if (chunk < down.count) {
        pi2_forward_hot_down(walk, &down, chunk);
        return;
    }
    chunk -= down.count;
    if (chunk < walk->foretold_rows) pi2_forward_foretell(walk, chunk);
    else listed_chunk(walk, chunk - walk->foretold_rows, false);
}

/* ---- Down's operands ---- */

/* Where a row's lists of one segment lie. */
typedef struct column_lists {
    const uint8_t **values;
    int8_t *activations;
    uint8_t *places;
    pi2_neuron_block *blocks;
    uint32_t *block_count;
} column_lists;

static column_lists lists_of(const pi2_forward *forward, uint32_t row, uint32_t segment) {
    const pi2_neuron_buffers *buffers = &forward->buffers.neurons;
    const size_t at = row * buffers->stride + (size_t)segment * PI2_NEURON_SEGMENT;
    return (column_lists){ buffers->values + at, buffers->activations + at, buffers->places + at, buffers->blocks + at,
                           buffers->block_counts + row * buffers->segments + segment };
}

static bool is_careful(const pi2_forward *forward, uint32_t row) {
    return atomic_load_explicit(&forward->buffers.neurons.careful[row], memory_order_relaxed) != 0;
}

/* Floats: every neuron is a block of its own. Where no zero may be left out, its bundle is read for nothing else. */
static void list_floats(const pi2_forward_walk *walk, const neuron_job *job, uint32_t row, uint32_t segment,
                        uint32_t begin, uint32_t end) {
    const float *hidden = hidden_of(walk->forward, row);
    const uint8_t *const *bundles = bundles_of(walk->forward, job);
    const bool all = is_careful(walk->forward, row);
    const uint32_t down = bank_at(walk, job->bank)->down_offset;
    const column_lists lists = lists_of(walk->forward, row, segment);
    uint32_t count = 0;
    for (uint32_t neuron = begin; neuron < end; neuron++) {
        if (hidden[neuron] == 0.0f && !all) continue;
        const uint8_t *bundle = hidden[neuron] == 0.0f ? take_bundle(walk, job->bank, neuron) : bundles[neuron];
        if (!bundle) return;
        lists.values[count] = bundle + down;
        lists.blocks[count] = (pi2_neuron_block){ .scale = hidden[neuron], .first = count, .count = 1 };
        count++;
    }
    *lists.block_count = count;
}

/* Quantises the blocks in which a neuron fires, and lists what is not zero after that. */
static void list_quantised(const pi2_forward_walk *walk, const neuron_job *job, const pi2_weight_format *format,
                           uint32_t row, uint32_t segment, uint32_t begin, uint32_t end) {
    pi2_forward *forward = walk->forward;
    const pi2_neuron_bank *bank = bank_at(walk, job->bank);
    const uint8_t *scales = pi2_neuron_store_head(forward->options.neurons, job->bank)->down_scales;
    const uint8_t *const *bundles = bundles_of(forward, job);
    const float *hidden = hidden_of(forward, row);
    pi2_activations *x = &forward->buffers.neurons.hidden_set.of[format->activation];
    const bool all = is_careful(forward, row);
    const column_lists lists = lists_of(forward, row, segment);
    const uint32_t width = format->block_columns;
    uint32_t columns = 0, blocks = 0;
    for (uint32_t block = begin; block < end; block += width) {
        uint32_t first = block;
        while (first < block + width && hidden[first] == 0.0f) first++;
        if (first == block + width && !all) continue;
        pi2_activations_quantize(x, row, block, width, hidden + block);
        const int8_t *values = x->values + row * x->value_stride;
        const uint32_t before = columns;
        for (uint32_t neuron = first; neuron < block + width; neuron++) {
            if (values[neuron] == 0) continue;
            lists.values[columns] = bundles[neuron] + bank->down_offset;
            lists.activations[columns] = values[neuron];
            lists.places[columns++] = (uint8_t)(neuron - block);
        }
        lists.blocks[blocks++] = (pi2_neuron_block){
            .scales = scales + (size_t)(block / width) * bank->down_scale_bytes,
            .scale = x->scales[row * x->block_stride + block / width], .first = before, .count = columns - before };
    }
    *lists.block_count = blocks;
}

/* Of the neurons that were named, those that give more than zero. */
static void count_fired(pi2_forward *forward, uint32_t row, uint32_t begin, uint32_t end) {
    const float *hidden = hidden_of(forward, row);
    uint64_t fired = 0;
    for (uint32_t neuron = begin; neuron < end; neuron++) fired += hidden[neuron] != 0.0f;
    (void)atomic_fetch_add_explicit(&forward->fired, fired, memory_order_relaxed);
}

static void list_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const uint32_t each = walk->part_end - walk->part_begin, row = chunk / each;
    const uint32_t segment = walk->part_begin + chunk % each;
    const neuron_job job = job_of_row(walk, row);
    const uint32_t neurons = bank_at(walk, job.bank)->neuron_count, first = segment * PI2_NEURON_SEGMENT;
    const uint32_t end = neurons - first < PI2_NEURON_SEGMENT ? neurons : first + PI2_NEURON_SEGMENT;
    const uint32_t hot = walk->forward->hot[walk->layer], cold = hot < end ? hot : end;
    const uint32_t begin = cold > first ? cold : first; /* hot ones are rounded and summed already */
    const pi2_weight_format *format = unit_of(walk, &job).down->tensor->format;
    if (pi2_forward_predicts(walk->forward)) count_fired(walk->forward, row, begin, end);
    if (format->activation == PI2_ACTIVATION_F32) list_floats(walk, &job, row, segment, begin, end);
    else list_quantised(walk, &job, format, row, segment, begin, end);
}

/* ---- Down ---- */

/* Rows of a chunk of Down: short ones at no point, since all neurons are passed for each. */
static uint32_t rows_of_chunk(const pi2_forward_walk *walk) {
    const uint32_t chunks = walk->member_count > 1 ? walk->member_count * ROW_CHUNKS_PER_THREAD : 1;
    const uint32_t rows = (any_bank(walk)->width + chunks - 1) / chunks;
    return (rows + ROW_UNIT - 1) / ROW_UNIT * ROW_UNIT;
}

static void columns_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_kernel *kernel = forward->down_kernels[walk->layer];
    const uint32_t width = any_bank(walk)->width, rows = rows_of_chunk(walk), begin = chunk * rows;
    const uint32_t count = width - begin < rows ? width - begin : rows;
    const bool is_begun = forward->hot[walk->layer] > 0;
    float *out = of_experts(walk) ? forward->buffers.experts.y : forward->buffers.out;
    for (uint32_t row = 0; row < rows_of_pass(forward); row++) {
        for (uint32_t segment = walk->part_begin; segment < walk->part_end; segment++) {
            const column_lists lists = lists_of(forward, row, segment);
            const pi2_neuron_columns columns = { .rows = width, .block_count = *lists.block_count,
                                                 .blocks = lists.blocks, .values = lists.values,
                                                 .activations = lists.activations, .places = lists.places };
            kernel->columns(out + row * forward->buffers.width_stride, begin, count, &columns,
                            segment == 0 && !is_begun);
        }
    }
}

static void after_columns_token(pi2_forward_walk *walk, uint32_t token) {
    if (token == 0) begin_layer(walk->forward); /* no thread is in the store: every column is added */
    if (of_experts(walk)) pi2_forward_sum_experts(walk, token);
    else pi2_forward_end_ffn(walk, token);
}

/* What is left of the part under way, up to its columns. */
static void prepare_part(pi2_forward_walk *walk, bool is_late) {
    if (is_late) {
        walk->stage_name = "late";
        pi2_forward_stage_wait(walk, pi2_forward_stage_work(walk, most_jobs(walk) * listed_chunks(walk), late_chunk));
    }
    walk->stage_name = "quantise";
    pi2_forward_stage(walk, rows_of_pass(walk->forward) * (walk->part_end - walk->part_begin), list_chunk, NULL);
    walk->stage_name = "columns";
}

/* A thread that has added its share of a part's columns goes on to the next part's neurons: only the next columns wait
 * for them, since the sums go on in order. */
static void parts_stages(pi2_forward_walk *walk) {
    const uint32_t late = atomic_load(&walk->forward->buffers.neurons.late_counts[walk->layer]);
    const uint32_t parts = parts_of(walk, late), rows = rows_of_chunk(walk);
    const uint32_t chunks = (any_bank(walk)->width + rows - 1) / rows;
    uint32_t columns = UINT32_MAX;
    for (uint32_t part = 0; part < parts; part++) {
        choose_part(walk, part, parts);
        prepare_part(walk, late > 0);
        if (columns != UINT32_MAX) pi2_forward_stage_wait(walk, columns);
        if (part + 1 < parts) columns = pi2_forward_stage_work(walk, chunks, columns_chunk);
        else pi2_forward_stage(walk, chunks, columns_chunk, after_columns_token);
    }
}

void pi2_forward_neurons(pi2_forward_walk *walk) {
    if (of_experts(walk)) expert_gate_stages(walk);
    else gate_stages(walk);
    /* One thread asks for the next layer's units while others compute this one's. */
    walk->foretold_rows = pi2_forward_ask_ahead(walk);
    const pi2_tile_chunks down = pi2_forward_hot_down_chunks(walk);
    choose_part(walk, 0, 1);
    walk->stage_name = walk->device && down.count ? "hot down" : "neurons";
    walk->own_chunks = down.count;
    pi2_forward_stage(walk, down.count + walk->foretold_rows + most_jobs(walk) * listed_chunks(walk), here_chunk, NULL);
    parts_stages(walk);
}
