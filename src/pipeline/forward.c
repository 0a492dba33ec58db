/* forward.c: the walk of a pass through the layers, and what it needs to begin. */
#include "pipeline/forward.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/block.h"
#include "base/clock.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

enum { TAIL_TOKENS = 4, INLINE_TAIL_TOKENS = 2, LOGITS_CHUNK = 4096 };

/* ---- failures ---- */

bool pi2_forward_failed(const pi2_forward *forward) {
    return atomic_load_explicit(&forward->failed, memory_order_relaxed) != PI2_OK;
}

void pi2_forward_fail(pi2_forward *forward, pi2_status status) {
    int none = PI2_OK;
    if (!atomic_compare_exchange_strong(&forward->failed, &none, (int)status)) return;
    (void)snprintf(forward->failure_text, sizeof forward->failure_text, "%s", pi2_error_text());
}

/* ---- stages ---- */

typedef struct tail_call {
    pi2_forward_walk *walk;
    pi2_token_tail *tail;
    pi2_stage_chunk *chunk;
    const char *name;
    uint32_t own_chunks;
    uint64_t begin_ns, end_ns; /* of this thread's work in the stage, when it is traced */
} tail_call;

static void work_begins(tail_call *call) {
    if (call->walk->forward->options.trace && call->begin_ns == 0) call->begin_ns = pi2_clock_ns();
}

static void work_ends(tail_call *call) {
    if (call->walk->forward->options.trace) call->end_ns = pi2_clock_ns();
}

/* One span from this thread's first chunk to its last. */
static void trace_work(tail_call *call, bool is_tail) {
    const pi2_forward_walk *walk = call->walk;
    const bool in_layer = walk->layer < walk->forward->model->shape.layer_count;
    if (!walk->forward->options.trace || call->end_ns == 0) return;
    pi2_timeline_stage(walk->forward->options.trace, call->name ? call->name : "stage",
                    in_layer ? walk->layer : PI2_TIMELINE_NO_LAYER, is_tail, call->begin_ns, call->end_ns);
    call->begin_ns = call->end_ns = 0;
}

static void call_chunk(void *argument, unsigned member, uint32_t chunk) {
    tail_call *call = argument;
    if (pi2_forward_failed(call->walk->forward)) return;
    work_begins(call);
    /* What a device computes only because it had nothing left is not worth its memory. */
    call->walk->is_kept = chunk < call->own_chunks;
    call->chunk(call->walk, member, chunk);
    work_ends(call);
}

static void tail_all_tokens(void *argument, unsigned member) {
    (void)member;
    tail_call *call = argument;
    if (pi2_forward_failed(call->walk->forward)) return;
    work_begins(call);
    for (uint32_t t = 0; t < call->walk->forward->token_count; t++) call->tail(call->walk, t);
    work_ends(call);
}

static void tail_some_tokens(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    tail_call *call = argument;
    const uint32_t tokens = call->walk->forward->token_count;
    if (pi2_forward_failed(call->walk->forward)) return;
    work_begins(call);
    for (uint32_t t = chunk * TAIL_TOKENS; t < (chunk + 1) * TAIL_TOKENS && t < tokens; t++) {
        call->tail(call->walk, t);
    }
    work_ends(call);
}

void pi2_forward_stage(pi2_forward_walk *walk, uint32_t chunk_count, pi2_stage_chunk *chunk,
                       pi2_token_tail *tail) {
    pi2_forward *forward = walk->forward;
    tail_call call = { .walk = walk, .tail = tail, .chunk = chunk, .name = walk->stage_name,
                       .own_chunks = walk->own_chunks };
    const pi2_stage_parts parts = { chunk_count, walk->own_chunks, walk->device };
    walk->stage_name = NULL;
    walk->own_chunks = 0;
    const bool alone = tail && forward->token_count <= INLINE_TAIL_TOKENS;
    pi2_stage_run(&forward->stages, walk->stage++, parts, call_chunk, alone ? tail_all_tokens : NULL, &call,
                  walk->member);
    trace_work(&call, false);
    if (!tail || alone) return;
    const pi2_stage_parts tails = { .count = (forward->token_count + TAIL_TOKENS - 1) / TAIL_TOKENS };
    pi2_stage_run(&forward->stages, walk->stage++, tails, tail_some_tokens, NULL, &call, walk->member);
    trace_work(&call, true);
}

uint32_t pi2_forward_stage_work(pi2_forward_walk *walk, uint32_t chunk_count, pi2_stage_chunk *chunk) {
    const uint32_t stage = walk->stage++;
    tail_call call = { .walk = walk, .chunk = chunk, .name = walk->stage_name, .own_chunks = walk->own_chunks };
    const pi2_stage_parts parts = { chunk_count, walk->own_chunks, walk->device };
    walk->stage_name = NULL;
    walk->own_chunks = 0;
    pi2_stage_work(&walk->forward->stages, stage, parts, call_chunk, NULL, &call, walk->member);
    trace_work(&call, false);
    return stage;
}

void pi2_forward_stage_wait(const pi2_forward_walk *walk, uint32_t stage) {
    pi2_stage_wait(&walk->forward->stages, stage);
}

static void nothing_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)argument;
    (void)member;
    (void)chunk;
}

void pi2_forward_token_stage(pi2_forward_walk *walk, pi2_token_tail *tail) {
    pi2_forward_stage(walk, 1, nothing_chunk, tail);
}

static pi2_tile_chunks head_chunks(const pi2_forward *forward) {
    const pi2_operand *head = &forward->model->head;
    return pi2_forward_plan_chunks(forward, head->tile_count,
                                   pi2_tile_bytes(head->tensor->format, head->tensor->columns), false, PI2_SHARE_HEAD);
}

static void head_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_tile_chunks chunks = head_chunks(forward);
    const uint32_t begin = pi2_tile_chunk_begin(&chunks, chunk), end = pi2_tile_chunk_begin(&chunks, chunk + 1);
    pi2_forward_rows(walk, &forward->model->head, begin, end - begin, &forward->buffers.normed_set,
                     0, forward->logits_rows,
                     forward->buffers.logits + forward->first_logits * forward->buffers.vocabulary_stride +
                         (size_t)begin * PI2_TILE_ROWS,
                     forward->buffers.vocabulary_stride, true);
    pi2_forward_tiles_done(walk, &chunks, chunk);
}

static void tell_layer(const pi2_forward_walk *walk) {
    pi2_forward *forward = walk->forward;
    const pi2_forward_hooks *hooks = forward->hooks;
    if (walk->member != 0 || !hooks) return;
    if (hooks->cancelled && hooks->cancelled(hooks->user)) {
        pi2_forward_fail(forward, pi2_fail(PI2_ERR_INTERRUPTED, "interrupted"));
    }
    if (hooks->layer_done) hooks->layer_done(hooks->user, walk->layer + 1, forward->model->shape.layer_count);
}

/* Logits as the model scales and caps them. */
static void logits_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t begin = chunk * LOGITS_CHUNK, left = shape->vocabulary_size - begin;
    const uint32_t count = left < LOGITS_CHUNK ? left : LOGITS_CHUNK;
    for (uint32_t row = 0; row < forward->logits_rows; row++) {
        float *logits = forward->buffers.logits + begin +
                        (forward->first_logits + row) * forward->buffers.vocabulary_stride;
        for (uint32_t i = 0; shape->logit_scale > 0.0f && i < count; i++) logits[i] *= shape->logit_scale;
        if (shape->logit_cap > 0.0f) pi2_soft_cap(logits, count, shape->logit_cap);
    }
}

static void end_head(pi2_forward_walk *walk) {
    const pi2_model_shape *shape = &walk->forward->model->shape;
    if (pi2_stages_beside_layers(shape) == PI2_STAGES_BESIDE_LAYERS) return;
    walk->stage_name = "logits";
    pi2_forward_stage(walk, (shape->vocabulary_size + LOGITS_CHUNK - 1) / LOGITS_CHUNK, logits_chunk, NULL);
}

/* The last members of the team have devices. False: one's device is left out, or lost, and nobody waits for it. */
static bool take_device(pi2_forward_walk *walk) {
    const pi2_forward_options *options = &walk->forward->options;
    if (walk->member == 0 || walk->member + options->device_count < walk->member_count) return true;
    walk->device = options->devices[walk->member + options->device_count - walk->member_count];
    return walk->forward->has_devices && !pi2_backend_loss(walk->device);
}

static bool some_device_lives(const pi2_forward *forward) {
    for (uint32_t i = 0; i < forward->options.device_count; i++) {
        if (!pi2_backend_loss(forward->options.devices[i])) return true;
    }
    return false;
}

static void walk_pass(void *argument, unsigned member, unsigned member_count) {
    pi2_forward *forward = argument;
    pi2_forward_walk walk = { .forward = forward, .member = member, .member_count = member_count };
    if (!take_device(&walk)) return;
    if (forward->options.trace) pi2_timeline_set_member(member);
    walk.stage_name = "norm";
    pi2_forward_token_stage(&walk, pi2_forward_first_norm);
    for (walk.layer = 0; walk.layer < forward->model->shape.layer_count; walk.layer++) {
        if (forward->is_short && walk.layer == forward->options.shortcut->first) pi2_forward_take_shortcut(&walk);
        if (walk.layer == forward->model->shape.layer_count) break; /* it leads to the head */
        const pi2_layer_shape *layer = &forward->model->shape.layers[walk.layer];
        for (walk.block = 0; walk.block < layer->block_count; walk.block++) {
            pi2_block_kind_of(layer->blocks[walk.block])->run(&walk);
        }
        tell_layer(&walk);
    }
    if (forward->logits_rows == 0) return;
    walk.stage_name = "head";
    const pi2_tile_chunks chunks = head_chunks(forward);
    pi2_forward_tile_stage(&walk, &chunks, head_chunk, NULL);
    end_head(&walk);
}

/* ---- a pass ---- */

/* Extents that leave or come change what a run may hold. */
static void follow_residency(pi2_forward *forward) {
    const uint32_t generation = pi2_weight_store_generation(forward->options.weights);
    if (generation == forward->runs_generation) return;
    forward->runs_generation = generation;
    forward->streams = pi2_weight_store_streams(forward->options.weights);
    for (uint32_t i = 0; i < forward->options.device_count; i++) pi2_backend_forget(forward->options.devices[i]);
    (void)pi2_forward_plan_runs(forward); /* at most most_run_count, for which there are stages */
}

/* Stages that were left out would give another text: the pass fails instead. */
static void check_stages(pi2_forward *forward) {
    if (!atomic_load_explicit(&forward->stages.is_overrun, memory_order_relaxed)) return;
    pi2_forward_fail(forward, pi2_fail(PI2_ERR_MEMORY, "a pass of %u tokens has more stages than the %u that were "
                                       "made for it: this is a fault of the program, please report it",
                                       forward->token_count, forward->stages.capacity));
}

static void fill_cos_sin(pi2_forward *forward, uint32_t rope) {
    const uint32_t pairs = pi2_model_rope(&forward->model->shape, rope)->dimensions / 2;
    for (uint32_t t = 0; t < forward->token_count; t++) {
        float *row = forward->buffers.cos_sin[rope] + (size_t)t * pairs * 2;
        for (uint32_t i = 0; i < pairs; i++) {
            const double angle = (double)pi2_forward_position(forward, t) * forward->rope_frequencies[rope][i];
            row[2 * i] = (float)(pi2_cos(angle) * forward->rope_magnitudes[rope]);
            row[2 * i + 1] = (float)(pi2_sin(angle) * forward->rope_magnitudes[rope]);
        }
    }
}

/* Only this thread works, so its time counts for all. */
static pi2_status embed(pi2_forward *forward) {
    pi2_timeline *trace = forward->options.trace;
    const uint64_t begin = trace ? pi2_clock_ns() : 0;
    if (trace) pi2_timeline_set_member(0);
    const pi2_status status = pi2_forward_embed(forward);
    if (trace) {
        const uint64_t end = pi2_clock_ns();
        pi2_timeline_stage(trace, "embedding", PI2_TIMELINE_NO_LAYER, false, begin, end);
        pi2_timeline_add_busy(trace, (end - begin) * (forward->options.shape.thread_count - 1));
    }
    return status;
}

/* What a dense pass reads of whole experts: nearly all that it visits, since few stay; nothing where all do. */
static uint64_t experts_to_read(const pi2_forward *forward) {
    const pi2_model_shape *shape = &forward->model->shape;
    if (forward->options.gates == forward->options.experts) return 0;
    const uint64_t visits = (uint64_t)forward->token_count * pi2_token_ffns(shape);
    const uint64_t visited = visits < pi2_layer_ffns(shape) ? visits : pi2_layer_ffns(shape);
    return pi2_model_expert_layers(shape) * visited * forward->expert_bytes;
}

/* Who counts wants to hear of every neuron. */
static bool goes_by_neuron(pi2_forward *forward) {
    const pi2_forward_options *options = &forward->options;
    const bool is_short = forward->token_count <= options->shape.neuron_tokens;
    assert(!forward->predicts || is_short || options->shape.masks);
    if (options->predictor) return forward->predicts && is_short; /* others need Gate's tiles, which may be away */
    if (!options->neurons || forward->counter || !is_short) return false;
    if (options->neurons_always || forward->token_count == 1) return true;
    forward->choice.streamed_bytes = pi2_weight_store_spared_bytes(options->weights) + experts_to_read(forward);
    forward->choice.emptied = pi2_neuron_store_shared_slots(options->neurons);
    return pi2_pass_goes_by_neuron(&forward->choice, forward->token_count);
}

/* What a pass by neuron found tells what the next one will. */
static void note_neurons(pi2_forward *forward) {
    if (!forward->by_neuron || forward->token_count > 1) return;
    pi2_neuron_store_counters now;
    pi2_neuron_store_count(forward->options.neurons, &now);
    pi2_pass_choice_note(&forward->choice, now.uses - forward->neurons_before.uses,
                         now.hits - forward->neurons_before.hits);
}

/* A pass of all neurons has its scratch and its ring for itself, before anything is read into it. */
static void take_shared(pi2_forward *forward) {
    if (!forward->options.neurons || forward->by_neuron) return;
    pi2_neuron_store_close_shared(forward->options.neurons);
    pi2_neuron_store_begin_pass(forward->options.neurons, forward->token_count, forward->token_count);
    forward->keeps = pi2_neuron_store_begin_keeping(forward->options.neurons, forward->may_keep);
}

/* A pass by neuron leaves them to neurons, unless other weights stream through the ring just now. */
static void give_shared(pi2_forward *forward) {
    const pi2_forward_options *options = &forward->options;
    if (!options->ring_is_shared || pi2_weight_store_lend_ring(options->weights)) {
        pi2_neuron_store_open_shared(options->neurons);
    } else {
        pi2_neuron_store_close_shared(options->neurons);
    }
}

/* Tells the stores what comes. A batch that is full is probably not the last of its prompt. */
static pi2_status begin_pass(pi2_forward *forward, bool with_head) {
    forward->by_neuron = goes_by_neuron(forward);
    forward->masks = forward->predicts && !forward->by_neuron;
    forward->keeps = false;
    forward->buffers = forward->by_neuron ? forward->few : forward->all;
    take_shared(forward);
    const bool is_last = forward->options.neurons && !forward->by_neuron &&
                         forward->token_count < forward->options.shape.batch_tokens;
    pi2_weight_store_begin_pass(forward->options.weights, &(pi2_weight_store_pass){
        .with_head = with_head, .by_neuron = forward->by_neuron, .is_last = is_last });
    if (!forward->by_neuron) return PI2_OK;
    give_shared(forward);
    if (pi2_neuron_store_wants_filling(forward->options.neurons)) {
        PI2_TRY(pi2_neuron_store_fill(forward->options.neurons, forward->options.team));
    }
    pi2_neuron_store_count(forward->options.neurons, &forward->neurons_before);
    pi2_forward_begin_neurons(forward);
    return PI2_OK;
}

static uint32_t rows_of(const pi2_batch_span *span) {
    const uint32_t all = span->token_count - span->replayed;
    return span->logits == PI2_FORWARD_NO_LOGITS ? 0 : span->logits == PI2_FORWARD_LAST_LOGITS ? 1 : all;
}

static void take_batch(pi2_forward *forward, const pi2_batch *batch) {
    forward->tokens = batch->tokens;
    forward->given = batch->given;
    forward->given_is_own = batch->given_is_own;
    forward->is_short = batch->is_short;
    forward->token_count = batch->token_count;
    forward->spans = batch->spans;
    forward->span_count = batch->span_count;
    forward->logits_rows = 0;
    for (uint32_t s = 0; s < batch->span_count; s++) {
        forward->logits_rows += rows_of(&batch->spans[s]);
        if (batch->spans[s].position == 0) pi2_forward_clear_states(forward, batch->spans[s].sequence);
    }
}

static void place_tokens(pi2_forward *forward) {
    pi2_token_place *place = forward->buffers.places;
    uint32_t row = 0;
    for (uint32_t s = 0; s < forward->span_count; s++) {
        const pi2_batch_span *span = &forward->spans[s];
        const uint32_t silent = span->token_count - rows_of(span);
        for (uint32_t i = 0; i < span->token_count; i++) {
            *place++ = (pi2_token_place){ .span = s, .position = span->position + i,
                                          .logits_row = i < silent ? PI2_NO_LOGITS : row++ };
        }
    }
}

/* Tells the tokens that a branch goes on from: those before it of the span that it follows, and of the one that this
 * follows. */
static void place_branches(pi2_forward *forward) {
    uint32_t first[PI2_BRANCHES_MOST + 1] = { 0 };
    if (forward->spans[forward->span_count - 1].follows == 0) return; /* branches come last */
    assert(forward->span_count <= PI2_BRANCHES_MOST + 1 && !forward->has_rings && forward->recurrent_bytes == 0);
    for (uint32_t s = 1; s < forward->span_count; s++) first[s] = first[s - 1] + forward->spans[s - 1].token_count;
    for (uint32_t s = 1; s < forward->span_count; s++) {
        uint32_t end = forward->spans[s].position;
        for (uint32_t from = s; forward->spans[from].follows; end = forward->spans[from].position) {
            from = forward->spans[from].follows - 1;
            const pi2_batch_span *span = &forward->spans[from];
            assert(from < s && end > span->position && end <= span->position + span->token_count);
            for (uint32_t i = 0; i < end - span->position; i++) {
                forward->buffers.places[first[from] + i].branches |= 1u << s;
            }
        }
    }
}

/* Neurons that were not there when a layer asked, or only because they had been foretold: all until now. */
static uint64_t missing_neurons(const pi2_forward *forward) {
    pi2_neuron_store_counters counters = { .uses = 0 };
    if (forward->options.neurons) pi2_neuron_store_count(forward->options.neurons, &counters);
    return counters.uses - counters.hits + counters.foretold;
}

/* A pass that foretells, or might have, ends. One by all neurons has told nothing of what the next one will miss. */
static void note_foretelling(pi2_forward *forward, uint64_t missing_before, uint64_t begin_ns) {
    pi2_look_ahead_note(&forward->look_ahead, forward->token_count, pi2_clock_ns() - begin_ns);
    pi2_look_ahead_note_missing(&forward->look_ahead, missing_neurons(forward) > missing_before);
}

pi2_device_worth pi2_forward_device_worth(const pi2_forward *forward, bool of_many) {
    const pi2_device_trial *trial = &forward->device_trials[of_many];
    return (pi2_device_worth){ .without_ns = trial->medians[0], .with_ns = trial->medians[1],
                               .is_off = trial->is_off && !forward->options.devices_always };
}

double pi2_forward_device_share(const pi2_forward *forward, uint32_t tokens, bool by_neuron) {
    return pi2_device_share_of(&forward->share, tokens, by_neuron, PI2_SHARE_FFN);
}

pi2_status pi2_forward_run(pi2_forward *forward, const pi2_batch *batch, const pi2_forward_hooks *hooks) {
    const uint32_t token_count = batch->token_count;
    take_batch(forward, batch);
    forward->hooks = hooks;
    atomic_store(&forward->failed, PI2_OK);
    pi2_stage_list_reset(&forward->stages);
    follow_residency(forward);
    const pi2_status filled = batch->is_short ? pi2_forward_begin_short(forward)
                                              : begin_pass(forward, forward->logits_rows > 0);
    place_tokens(forward);
    place_branches(forward);
    const uint64_t begin = pi2_clock_ns(), missing = missing_neurons(forward);
    const bool predicts = pi2_forward_predicts(forward); /* then tokens ask for no experts */
    pi2_expert_cache *experts =
        forward->by_neuron && !predicts ? forward->options.gates : forward->options.experts;
    if (experts) {
        pi2_expert_cache_begin_pass(experts, token_count);
        forward->looks_ahead = !predicts && pi2_expert_cache_can_look_ahead(experts) &&
                               pi2_look_ahead_wanted(&forward->look_ahead, token_count);
        forward->ahead_first = token_count > PI2_AHEAD_TOKENS ? token_count - PI2_AHEAD_TOKENS : 0;
    }
    const bool can_foretell = forward->options.foreteller || forward->options.gate_foretells;
    forward->foretells = forward->by_neuron && can_foretell &&
                         pi2_look_ahead_wanted(&forward->look_ahead, token_count);
    pi2_device_trial *trial = &forward->device_trials[token_count > 1];
    forward->has_devices = !forward->is_short && some_device_lives(forward) &&
                           (forward->options.devices_always || pi2_device_trial_wanted(trial));
    forward->stages.spin_us = forward->has_devices ? forward->options.device_spin_us : forward->options.spin_us;
    pi2_device_share_begin(&forward->share, token_count, forward->by_neuron, forward->has_devices);
    pi2_forward_find_hot(forward);
    pi2_status status = filled == PI2_OK ? embed(forward) : filled;
    if (status == PI2_OK) {
        for (uint32_t i = 0; i < PI2_ROPES; i++) fill_cos_sin(forward, i);
        pi2_team_run(forward->options.team, walk_pass, forward);
        check_stages(forward);
        status = (pi2_status)atomic_load(&forward->failed);
        if (status != PI2_OK) status = pi2_fail(status, "%s", forward->failure_text);
    }
    if (forward->keeps) pi2_neuron_store_end_keeping(forward->options.neurons);
    if (status != PI2_OK) {
        pi2_store_reset(forward->options.store);
        return status;
    }
    note_neurons(forward);
    pi2_device_share_end(&forward->share);
    if (forward->options.device_count && !forward->is_short) {
        (void)pi2_device_trial_note(trial, (pi2_clock_ns() - begin) / token_count);
    }
    if (can_foretell && forward->by_neuron) note_foretelling(forward, missing, begin);
    else if (can_foretell) pi2_look_ahead_note_missing(&forward->look_ahead, true);
    else if (forward->options.experts && !predicts) {
        pi2_look_ahead_note(&forward->look_ahead, token_count, pi2_clock_ns() - begin);
    }
    return status;
}

void pi2_forward_set_prediction(pi2_forward *forward, bool predicts) { forward->predicts = predicts; }

void pi2_forward_set_first_logits(pi2_forward *forward, uint32_t index) { forward->first_logits = index; }

void pi2_forward_count_predictions(const pi2_forward *forward, pi2_prediction_counters *counters_out) {
    *counters_out = (pi2_prediction_counters){ .predicted = atomic_load(&forward->predicted),
                                               .fired = atomic_load(&forward->fired),
                                               .predict_ns = atomic_load(&forward->predict_ns) };
}

const float *pi2_forward_logits_at(const pi2_forward *forward, uint32_t index) {
    return forward->buffers.logits + index * forward->buffers.vocabulary_stride;
}

float *pi2_forward_kept_logits(const pi2_forward *forward, uint32_t sequence) {
    float *kept = forward->few.kept_logits;
    return kept ? kept + sequence * forward->few.vocabulary_stride : NULL;
}

/* ---- creation ---- */

/* Dimension at which a rotation has turned `turns` times over the original context (YaRN). */
static double yarn_dimension(const pi2_rope_shape *rope, double turns) {
    const double pi = 3.14159265358979323846;
    return rope->dimensions * log(rope->original_context / (turns * 2.0 * pi)) / (2.0 * log(rope->base));
}

/*
 * Rotary frequencies with their scaling: linear divides all, Llama 3's factors divide each, YaRN
 * mixes scaled and unscaled by a ramp over the dimensions (arXiv 2309.00071, section 3.2).
 */
static void fill_frequencies(pi2_forward *forward, uint32_t number) {
    const pi2_rope_shape *rope = pi2_model_rope(&forward->model->shape, number);
    const float *factors = number == 0 ? forward->model->rope_factors : NULL;
    const uint32_t pairs = rope->dimensions / 2;
    double low = 0, high = 0;
    forward->rope_magnitudes[number] = rope->attention_factor;
    if (rope->yarn) {
        low = floor(yarn_dimension(rope, rope->yarn_beta_fast));
        high = ceil(yarn_dimension(rope, rope->yarn_beta_slow));
        if (low < 0) low = 0;
        if (high > rope->dimensions - 1) high = rope->dimensions - 1;
        forward->rope_magnitudes[number] = rope->attention_factor * (1.0 + 0.1 * log(1.0 / rope->linear_scale));
    }
    for (uint32_t i = 0; i < pairs; i++) {
        double frequency = pi2_pow(rope->base, -2.0 * i / rope->dimensions);
        if (factors) frequency /= factors[i];
        double scale = rope->linear_scale;
        if (rope->yarn) {
            double ramp = (i - low) / (high - low > 0.001 ? high - low : 0.001);
            ramp = 1.0 - (ramp < 0 ? 0 : ramp > 1 ? 1 : ramp);
            scale = scale * (1.0 - ramp) + ramp;
        }
        forward->rope_frequencies[number][i] = frequency * scale;
    }
}

/* Which bank each FFN has, and the kernels for its neurons. */
static pi2_status find_banks(pi2_forward *forward) {
    const pi2_model_shape *shape = &forward->model->shape;
    const uint32_t layers = shape->layer_count, each = pi2_layer_ffns(shape);
    forward->bank_of = malloc((size_t)layers * each * sizeof *forward->bank_of);
    forward->has_banks = calloc(layers, 1);
    forward->gate_kernels = calloc(layers, sizeof(pi2_neuron_kernel *));
    forward->up_kernels = calloc(layers, sizeof(pi2_neuron_kernel *));
    forward->down_kernels = calloc(layers, sizeof(pi2_neuron_kernel *));
    if (!forward->bank_of || !forward->has_banks || !forward->gate_kernels || !forward->up_kernels ||
        !forward->down_kernels) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the forward pass's lists");
    }
    for (size_t i = 0; i < (size_t)layers * each; i++) forward->bank_of[i] = PI2_NO_BANK;
    if (!forward->options.neurons) return PI2_OK;
    pi2_neuron_store_counters counters;
    pi2_neuron_store_count(forward->options.neurons, &counters);
    forward->choice = (pi2_pass_choice){ .units = counters.units, .slots = counters.slots,
                                         .unit_bytes = forward->options.banks->banks[0].unit_bytes };
    forward->expert_bytes = pi2_expert_cache_slot_bytes(forward->model->layout);
    forward->may_keep = malloc(forward->options.banks->count ? forward->options.banks->count : 1);
    if (!forward->may_keep) return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of banks of neurons");
    for (uint32_t b = 0; b < forward->options.banks->count; b++) {
        const pi2_neuron_bank *bank = &forward->options.banks->banks[b];
        forward->may_keep[b] = pi2_forward_may_keep(forward, bank);
        forward->bank_of[pi2_ffn_number(shape, bank->layer, bank->expert)] = b;
        if (bank->gate_format) {
            forward->gate_kernels[bank->layer] =
                forward->cpu.neuron[bank->gate_format->type];
        }
        if (bank->up_format) {
            forward->up_kernels[bank->layer] = forward->cpu.neuron[bank->up_format->type];
        }
        forward->down_kernels[bank->layer] = forward->cpu.neuron[bank->down_format->type];
    }
    for (uint32_t i = 0; i < layers; i++) {
        const uint32_t *banks = forward->bank_of + (size_t)i * each;
        forward->has_banks[i] = 1;
        for (uint32_t e = 0; e < each; e++) forward->has_banks[i] &= banks[e] != PI2_NO_BANK;
    }
    return PI2_OK;
}

/* Where each layer's state lies, and the stages of a pass: a stage and its tail are two in the list. What runs of a
 * dense FFN have beyond one comes to these. */
static void add_up_blocks(pi2_forward *forward) {
    const pi2_model_shape *model = &forward->model->shape;
    const bool foretells = forward->options.foreteller || forward->options.gate_foretells;
    const uint32_t askers = (forward->options.predictor ? 1u : 0u) + (foretells ? 1u : 0u);
    const uint32_t predict_stages = 2 * askers * PI2_STAGES_OF_A_PREDICTION;
    size_t keys = 0, recurrent = 0;
    /* Each run's Down is looked through for neurons that are kept. */
    const uint32_t run_stages = PI2_STAGES_OF_A_RUN + (forward->options.neurons ? 1 : 0);
    forward->stages.capacity = run_stages * forward->most_run_count + 2 * pi2_stages_beside_layers(model) + 2;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        forward->stages.capacity += predict_stages;
        forward->state_at[i] = keys;
        for (uint32_t b = 0; b < model->layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(model, i, b, &forward->options.shape);
            if (needs.is_recurrent) forward->state_at[i] = recurrent; /* no layer has both */
            *(needs.is_recurrent ? &recurrent : &keys) += pi2_block_state_bytes(&needs);
            forward->stages.capacity += 2 * (needs.stages + needs.batch_stages);
            if (!forward->options.neurons || needs.neuron_stages == 0) continue;
            forward->stages.capacity += needs.neuron_stages + PI2_NEURON_PARTS * PI2_STAGES_OF_A_PART;
        }
    }
    forward->keys_bytes = keys;
    forward->recurrent_bytes = recurrent;
    forward->own_bytes = pi2_forward_saved_bytes(forward->model, &forward->options.shape) +
                         (pi2_forward_state_copies(&forward->options.shape) - 1) * recurrent;
}

/* Of layer i, as another layer has them, or new. */
static pi2_status make_ring(pi2_forward *forward, uint32_t i) {
    const pi2_forward_shape *shape = &forward->options.shape;
    const pi2_layer_shape *layers = forward->model->shape.layers;
    const uint32_t tiles = pi2_forward_ring_tiles(&layers[i], shape), stride = forward->ring_stride;
    const uint32_t sequences = shape->sequences > 1 ? shape->sequences : 1;
    if (tiles == 0) return PI2_OK;
    forward->has_rings = true;
    for (uint32_t earlier = 0; earlier < i && !forward->ring_pages[i]; earlier++) {
        const bool is_alike = pi2_forward_ring_tiles(&layers[earlier], shape) == tiles;
        if (is_alike) forward->ring_pages[i] = forward->ring_pages[earlier];
    }
    if (forward->ring_pages[i]) return PI2_OK;
    uint32_t *pages = forward->ring_pages[i] = malloc((size_t)sequences * stride * sizeof *pages);
    if (!pages) return pi2_fail(PI2_ERR_MEMORY, "no memory for the forward pass's lists");
    for (size_t p = 0; p < (size_t)sequences * stride; p++) {
        pages[p] = (uint32_t)(p / stride * tiles + p % stride % tiles);
    }
    return PI2_OK;
}

static pi2_status make_rings(pi2_forward *forward) {
    const uint32_t layers = forward->model->shape.layer_count;
    const uint64_t context = forward->options.shape.context_tokens;
    forward->ring_stride = (uint32_t)((context + PI2_KV_TILE - 1) / PI2_KV_TILE);
    forward->ring_pages = calloc(layers, sizeof *forward->ring_pages);
    if (!forward->ring_pages) return pi2_fail(PI2_ERR_MEMORY, "no memory for the forward pass's lists");
    for (uint32_t i = 0; i < layers; i++) PI2_TRY(make_ring(forward, i));
    return PI2_OK;
}

static void free_rings(pi2_forward *forward) {
    for (uint32_t i = 0; forward->ring_pages && i < forward->model->shape.layer_count; i++) {
        bool is_anothers = false;
        for (uint32_t k = 0; k < i; k++) is_anothers |= forward->ring_pages[k] == forward->ring_pages[i];
        if (!is_anothers) free(forward->ring_pages[i]);
    }
    free(forward->ring_pages);
}

static pi2_status allocate(pi2_forward *forward) {
    const pi2_model *model = forward->model;
    forward->plan.unit_counts = calloc(model->shape.layer_count, sizeof(uint32_t));
    forward->state_at = calloc(model->shape.layer_count, sizeof *forward->state_at);
    forward->hot = calloc(model->shape.layer_count, sizeof *forward->hot);
    forward->hot_is_capped = calloc(model->shape.layer_count, 1);
    forward->ones = calloc(PI2_LONGEST_HEAD, sizeof *forward->ones);
    bool is_there = forward->plan.unit_counts && forward->state_at && forward->hot && forward->hot_is_capped &&
                    forward->ones;
    for (uint32_t i = 0; is_there && i < PI2_LONGEST_HEAD; i++) forward->ones[i] = 1.0f;
    for (uint32_t i = 0; i < PI2_ROPES; i++) {
        forward->rope_frequencies[i] = calloc(pi2_model_rope(&model->shape, i)->dimensions / 2 + 1, sizeof(double));
        is_there = is_there && forward->rope_frequencies[i];
    }
    if (!is_there) return pi2_fail(PI2_ERR_MEMORY, "no memory for the forward pass's lists");
    const pi2_forward_shape *shape = &forward->options.shape;
    PI2_TRY(pi2_kv_pages_create(pi2_forward_cache_positions(shape) / PI2_KV_TILE,
                                (shape->sequences > 1 ? shape->sequences : 1) + shape->branches,
                                (uint32_t)((shape->context_tokens + (uint64_t)PI2_KV_TILE - 1) / PI2_KV_TILE),
                                &forward->pages));
    PI2_TRY(make_rings(forward));
    PI2_TRY(find_banks(forward));
    PI2_TRY(pi2_forward_make_runs(forward));
    forward->streams = pi2_weight_store_streams(forward->options.weights);
    forward->largest_extent = 0;
    for (uint32_t e = 0; e < model->layout->extent_count; e++) {
        const size_t bytes = pi2_extent_read_bytes(&model->layout->extents[e]);
        if (bytes > forward->largest_extent) forward->largest_extent = bytes;
    }
    add_up_blocks(forward);
    if (forward->options.shortcut) forward->stages.capacity += PI2_STAGES_OF_A_SHORTCUT;
    if (posix_memalign((void **)&forward->stages.stages, 64,
                       forward->stages.capacity * sizeof(pi2_stage)) != 0) {
        forward->stages.stages = NULL;
        return pi2_fail(PI2_ERR_MEMORY, "no memory for %u stages", forward->stages.capacity);
    }
    memset(forward->stages.stages, 0, forward->stages.capacity * sizeof(pi2_stage));
    return PI2_OK;
}

/* Logits are kept from pass to pass, and so lie where no pass writes anything else. */
static void carve(pi2_forward *forward) {
    const pi2_forward_options *options = &forward->options;
    const pi2_forward_shape *shape = &options->shape;
    const pi2_forward_shape few = pi2_forward_shape_by_neuron(shape), all = pi2_forward_shape_of_all(shape);
    (void)pi2_forward_carve(options->model, shape->dense_apart ? &few : shape, options->scratch, &forward->few);
    forward->all = forward->few;
    if (shape->dense_apart) {
        (void)pi2_forward_carve(options->model, &all, options->dense_scratch, &forward->all);
        forward->all.logits = forward->few.logits;
    }
    forward->buffers = forward->all;
}

pi2_status pi2_forward_create(const pi2_forward_options *options, pi2_forward **forward_out) {
    *forward_out = NULL;
    pi2_forward *forward = calloc(1, sizeof *forward);
    if (!forward) return pi2_fail(PI2_ERR_MEMORY, "no memory for the forward pass");
    if (pi2_sleepers_init(&forward->sleepers, false) != PI2_OK) {
        free(forward);
        return PI2_ERR_MEMORY;
    }
    if (pthread_mutex_init(&forward->plan.lock, NULL) != 0) {
        pi2_sleepers_destroy(&forward->sleepers);
        free(forward);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a lock");
    }
    forward->options = *options;
    forward->look_ahead.mode = options->look_ahead;
    pi2_device_share_init(&forward->share, &options->device_shares);
    forward->model = options->model;
    pi2_cpu_backend_choose(&forward->cpu, options->cpu_features);
    forward->stages.sleepers = &forward->sleepers;
    forward->stages.spin_us = options->spin_us;
    carve(forward);
    const pi2_status status = allocate(forward);
    if (status != PI2_OK) {
        pi2_forward_free(forward);
        return status;
    }
    for (uint32_t i = 0; i < PI2_ROPES; i++) fill_frequencies(forward, i);
    *forward_out = forward;
    return PI2_OK;
}

void pi2_forward_free(pi2_forward *forward) {
    if (!forward) return;
    for (uint32_t i = 0; i < PI2_ROPES; i++) free(forward->rope_frequencies[i]);
    free(forward->state_at);
    free(forward->hot);
    free(forward->hot_is_capped);
    pi2_kv_pages_free(forward->pages);
    free_rings(forward);
    free(forward->ones);
    free(forward->runs);
    free(forward->layer_first_run);
    free(forward->plan.unit_counts);
    free(forward->bank_of);
    free(forward->may_keep);
    free(forward->has_banks);
    free(forward->gate_kernels);
    free(forward->up_kernels);
    free(forward->down_kernels);
    free(forward->stages.stages);
    pi2_sleepers_destroy(&forward->sleepers);
    (void)pthread_mutex_destroy(&forward->plan.lock);
    free(forward);
}
