/*
 * forward_predict.c: a predictor names neurons of an FFN, from its normed input alone.
 *
 *   input     each row's input as the predictor reads it
 *   code      the vector between input and scores, where the kind has one
 *   scores    of every neuron, in chunks; then each row's neurons are chosen
 *
 * Everything is a row's own and made of exact sums (predictor/predictor.h), so what is named depends on the token
 * alone. There are two who ask:
 *
 *   of this layer    which neurons the pass computes, where it leaves some out: what is not named is 0 in `hidden`.
 *                    Long passes, which only measure, compute all of them and take those for 0
 *   of the next one  which neurons it will probably want, since the residual stream changes little from layer to layer:
 *                    this layer's, normed as the next layer norms. They are read while this layer's are waited for and
 *                    while the next one's attention is computed. No result depends on it. Where Gate is in memory it
 *                    can be asked itself (gate_foretells): it takes no memory, and its own time once more
 */
#include <string.h>

#include "base/clock.h"
#include "pipeline/ffn_unit.h"

enum { CODE_CHUNK = PI2_SMALL_BLOCK, SCORE_CHUNK = 256 /* neurons */ };

static const pi2_predictor *predictor_of(const pi2_forward_walk *walk) {
    const pi2_forward_options *options = &walk->forward->options;
    return walk->asks_ahead ? options->foreteller : options->predictor;
}

static const pi2_neuron_buffers *buffers_of(const pi2_forward_walk *walk) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    return walk->forward->masks ? &buffers->mask : &buffers->neurons;
}

/* Number of the layer whose neurons are asked for. */
static uint32_t asked_layer(const pi2_forward_walk *walk) { return walk->layer + walk->asks_ahead; }

static const pi2_predictor_layer *layer_of(const pi2_forward_walk *walk) {
    return &predictor_of(walk)->layers[asked_layer(walk)];
}

static pi2_predictor_query query_of(const pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const float *const *tables = forward->model->layers[asked_layer(walk)].tables;
    const bool fires = walk->asks_ahead ? forward->options.foretells_firing : forward->options.left_out < 0;
    return (pi2_predictor_query){ .predictor = predictor_of(walk), .layer = layer_of(walk),
                                  .kernel = forward->cpu.small_rows, .vector = forward->cpu.vector,
                                  .gate_bias = tables[PI2_TABLE_GATE_BIAS], .up_bias = tables[PI2_TABLE_UP_BIAS],
                                  .score = fires ? PI2_SCORE_FIRES : PI2_SCORE_WORTH };
}

/* A row is a token: experts have no predictors. */
static float *scores_of(const pi2_forward_walk *walk, uint32_t row) {
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    return (walk->asks_ahead ? neurons->ahead_scores : neurons->hidden) + row * neurons->stride;
}

static uint32_t neuron_count(const pi2_forward_walk *walk) { return predictor_of(walk)->neuron_count; }

static void note_time(pi2_forward *forward, uint64_t begin_ns) {
    (void)atomic_fetch_add_explicit(&forward->predict_ns, pi2_clock_ns() - begin_ns, memory_order_relaxed);
}

static void input_chunk(void *argument, unsigned member, uint32_t row) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    const uint64_t begin_ns = pi2_clock_ns();
    const float *normed = buffers->normed + row * buffers->width_stride;
    if (walk->asks_ahead) {
        pi2_forward_norm_ahead(walk, row, neurons->ahead_normed + row * buffers->width_stride);
        normed = neurons->ahead_normed + row * buffers->width_stride;
    }
    neurons->inputs[row] = pi2_predictor_quantize(normed,
                                                  walk->forward->model->shape.embedding_length,
                                                  neurons->input_values + row * buffers->width_stride);
    note_time(walk->forward, begin_ns);
}

static void code_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    const pi2_predictor_query query = query_of(walk);
    const uint64_t begin_ns = pi2_clock_ns();
    for (uint32_t row = 0; row < walk->forward->token_count; row++) {
        query.predictor->kind->code(&query, &neurons->inputs[row], chunk * CODE_CHUNK, (chunk + 1) * CODE_CHUNK,
                                    neurons->code + row * neurons->code_stride);
    }
    note_time(walk->forward, begin_ns);
}

static void end_code_token(pi2_forward_walk *walk, uint32_t row) {
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    const size_t at = row * neurons->code_stride;
    neurons->code_vectors[row] =
        pi2_predictor_quantize(neurons->code + at, query_of(walk).predictor->kind->code_rows(layer_of(walk)),
                               neurons->code_values + at);
    if (!(neurons->inputs[row].scale >= 0)) neurons->code_vectors[row].scale = neurons->inputs[row].scale;
}

/* Each neuron by its own score; else they are compared. */
static bool chooses_firing(const pi2_forward *forward) { return forward->options.left_out < 0; }

static void count_named(pi2_forward *forward, const float *scores, uint32_t count) {
    uint64_t named = 0;
    for (uint32_t n = 0; n < count; n++) named += scores[n] != 0.0f;
    (void)atomic_fetch_add_explicit(&forward->predicted, named, memory_order_relaxed);
}

static void score_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    const pi2_predictor_query query = query_of(walk);
    const bool has_code = query.predictor->kind->code_rows(query.layer) > 0;
    const uint32_t all = neuron_count(walk), begin = chunk * SCORE_CHUNK;
    const uint32_t end = all - begin < SCORE_CHUNK ? all : begin + SCORE_CHUNK;
    const uint64_t begin_ns = pi2_clock_ns();
    for (uint32_t row = 0; row < forward->token_count; row++) {
        const pi2_predictor_vector *from = has_code ? &neurons->code_vectors[row] : &neurons->inputs[row];
        float *scores = scores_of(walk, row) + begin;
        query.predictor->kind->scores(&query, from, begin, end, scores);
        if (!walk->asks_ahead && chooses_firing(forward)) {
            pi2_predictor_choose_firing(scores, end - begin, query.layer->threshold);
            count_named(walk->forward, scores, end - begin);
        }
    }
    note_time(walk->forward, begin_ns);
}

/* Where a share is left out, which neurons are is known when all have a score. */
static void choose_token(pi2_forward_walk *walk, uint32_t row) {
    pi2_forward *forward = walk->forward;
    const uint32_t count = neuron_count(walk);
    const uint64_t begin_ns = pi2_clock_ns();
    if (chooses_firing(forward)) return;
    float *scores = scores_of(walk, row);
    pi2_predictor_choose_largest(scores, count, pi2_predictor_kept(count, layer_of(walk)->left_out));
    count_named(forward, scores, count);
    note_time(forward, begin_ns);
}

/* A layer of which nothing is known computes all of its neurons. */
static void name_all(void *argument, unsigned member, uint32_t row) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    float *scores = scores_of(walk, row);
    for (uint32_t n = 0; n < neuron_count(walk); n++) scores[n] = 1.0f;
    (void)atomic_fetch_add_explicit(&walk->forward->predicted, neuron_count(walk), memory_order_relaxed);
}

static void ask_stages(pi2_forward_walk *walk, void (*end_row)(pi2_forward_walk *walk, uint32_t row)) {
    const char *name = walk->asks_ahead ? "look ahead" : "predict";
    const uint32_t code_rows = predictor_of(walk)->kind->code_rows(layer_of(walk));
    walk->stage_name = name;
    pi2_forward_stage(walk, walk->forward->token_count, input_chunk, NULL);
    if (code_rows) {
        walk->stage_name = name;
        pi2_forward_stage(walk, code_rows / CODE_CHUNK, code_chunk, end_code_token);
    }
    walk->stage_name = name;
    pi2_forward_stage(walk, (neuron_count(walk) + SCORE_CHUNK - 1) / SCORE_CHUNK, score_chunk, end_row);
}

void pi2_forward_predict(pi2_forward_walk *walk) {
    if (layer_of(walk)->size) {
        ask_stages(walk, choose_token);
        return;
    }
    walk->stage_name = "predict";
    pi2_forward_stage(walk, walk->forward->token_count, name_all, NULL);
}

/* ---- where all neurons are computed all the same ---- */

void pi2_forward_mask(const pi2_forward_walk *walk, uint32_t row, uint32_t begin, uint32_t count, float *activations) {
    const float *named = scores_of(walk, row) + begin;
    uint64_t fired = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (named[i] == 0.0f) activations[i] = 0.0f;
        fired += activations[i] != 0.0f;
    }
    (void)atomic_fetch_add_explicit(&walk->forward->fired, fired, memory_order_relaxed);
}

/* ---- of the next layer ---- */

/* Leaves the scores of those that are read ahead. */
static void choose_foretold(const pi2_forward_walk *walk, float *scores) {
    const pi2_forward *forward = walk->forward;
    /* Whoever leaves neurons out will read all that are named, likely to fire or not: the same are read ahead. Where
     * Gate tells who fires, those are that fire more likely than not. */
    const uint32_t count = neuron_count(walk);
    const float own = layer_of(walk)->threshold, threshold = forward->options.predictor || own > 0 ? own : 0;
    if (query_of(walk).score == PI2_SCORE_FIRES) pi2_predictor_choose_firing(scores, count, threshold);
    else pi2_predictor_choose_largest(scores, count, pi2_predictor_kept(count, layer_of(walk)->left_out));
}

/* Units of the neurons that were named for a row, in the file's order, are read. */
static void foretell_token(pi2_forward_walk *walk, uint32_t row) {
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *neurons = &forward->buffers.neurons;
    const uint32_t number = forward->bank_of[walk->layer + 1];
    const pi2_neuron_bank *bank = &forward->options.banks->banks[number];
    const uint32_t count = bank->neuron_count;
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, number);
    const uint64_t begin_ns = pi2_clock_ns();
    float *scores = scores_of(walk, row);
    uint8_t *marks = neurons->ahead_marks + row * neurons->stride;
    uint32_t *list = neurons->ahead_units + row * neurons->stride;
    if (forward->options.foreteller) choose_foretold(walk, scores);
    memset(marks, 0, bank->unit_count);
    for (uint32_t n = 0; n < count; n++) {
        if (scores[n] != 0.0f) marks[head->place_of[n] / bank->unit_neurons] = 1;
    }
    uint32_t units = 0;
    for (uint32_t u = 0; u < bank->unit_count; u++) {
        if (marks[u]) list[units++] = u;
    }
    pi2_neuron_store_foretell(forward->options.neurons, number, list, units);
    note_time(walk->forward, begin_ns);
}

/* ---- by Gate ---- */

static void gate_input_chunk(void *argument, unsigned member, uint32_t row) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    float *normed = buffers->neurons.ahead_normed + row * buffers->width_stride;
    const uint64_t begin_ns = pi2_clock_ns();
    pi2_forward_norm_ahead(walk, row, normed);
    pi2_activation_set_fill(&buffers->neurons.ahead_set, row, 0, walk->forward->model->shape.embedding_length, normed);
    note_time(walk->forward, begin_ns);
}

static void gate_chunk(void *argument, unsigned member, uint32_t chunk) {
    const pi2_forward_walk *walk = argument;
    pi2_neuron_buffers *neurons = &walk->forward->buffers.neurons;
    const pi2_layer_weights *layer = &walk->forward->model->layers[walk->layer + 1];
    const pi2_ffn_unit unit = { .gate = pi2_layer_dense_ffn(layer).gate,
                                .gate_bias = layer->tables[PI2_TABLE_GATE_BIAS], .expert = UINT32_MAX,
                                .input = &neurons->ahead_set };
    const uint32_t step = walk->forward->buffers.neuron_chunk, all = (uint32_t)unit.gate->tensor->rows;
    const uint32_t begin = chunk * step, end = all - begin < step ? all : begin + step;
    const uint64_t begin_ns = pi2_clock_ns();
    pi2_ffn_gate(walk, member, &unit, begin, end, 0, walk->forward->token_count, neurons->ahead_scores, neurons->stride,
                 false);
    note_time(walk->forward, begin_ns);
}

static void ask_gate(pi2_forward_walk *walk, uint32_t neurons) {
    const uint32_t step = walk->forward->buffers.neuron_chunk;
    walk->stage_name = "look ahead";
    pi2_forward_stage(walk, walk->forward->token_count, gate_input_chunk, NULL);
    walk->stage_name = "look ahead";
    pi2_forward_stage(walk, (neurons + step - 1) / step, gate_chunk, foretell_token);
}

void pi2_forward_foretell(pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const uint32_t next = walk->layer + 1;
    if (!forward->foretells || next >= forward->model->shape.layer_count || !forward->has_banks[next]) return;
    if (forward->options.foreteller && forward->options.foreteller->layers[next].size == 0) return;
    walk->asks_ahead = true;
    if (forward->options.foreteller) ask_stages(walk, foretell_token);
    else ask_gate(walk, forward->options.banks->banks[forward->bank_of[next]].neuron_count);
    walk->asks_ahead = false;
}
