/*
 * forward_predict.c: a predictor names neurons of an FFN, from its normed input alone.
 *
 *   input     each token's input as the predictor reads it
 *   code      the vector between input and scores, where the kind has one
 *   scores    of every neuron, in chunks; then each row's neurons are chosen
 *
 * A row is a token, or of experts a token's visit to one: code and scores are those of that expert.
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

/* Neurons of a chunk; of those that are looked through for what is absent. The first rows of a chunk are waited for. */
enum { CODE_CHUNK = PI2_SMALL_BLOCK, SCORE_CHUNK = 512, ABSENT_CHUNK = 1024 };

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

/* A dense FFN's. */
static const pi2_predictor_layer *layer_of(const pi2_forward_walk *walk) {
    return &predictor_of(walk)->layers[asked_layer(walk)];
}

/* What is asked of a token: a row, and the FFN that it is of. expert: UINT32_MAX of a dense one. */
typedef struct asked_row {
    uint32_t row, expert;
} asked_row;

/* Rows of a token. */
static uint32_t rows_of_token(const pi2_forward_walk *walk) { return pi2_token_ffns(&walk->forward->model->shape); }

static asked_row row_at(const pi2_forward_walk *walk, uint32_t token, uint32_t number) {
    const pi2_expert_buffers *experts = &walk->forward->buffers.experts;
    const pi2_layer_weights *layer = &walk->forward->model->layers[asked_layer(walk)];
    if (!pi2_layer_has_experts(layer)) return (asked_row){ token, UINT32_MAX };
    const uint32_t visit = token * rows_of_token(walk) + number;
    return (asked_row){ experts->row_of[visit], experts->chosen[visit] };
}

static const float *bias_of(const pi2_forward_walk *walk, pi2_table_role role, uint32_t expert) {
    const float *biases = walk->forward->model->layers[asked_layer(walk)].tables[role];
    return biases && expert != UINT32_MAX ? biases + (size_t)expert * predictor_of(walk)->neuron_count : biases;
}

static pi2_predictor_query query_of(const pi2_forward_walk *walk, uint32_t expert) {
    const pi2_forward *forward = walk->forward;
    const bool fires = walk->asks_ahead ? forward->options.foretells_firing : forward->options.left_out < 0;
    const size_t ffn = pi2_ffn_number(&forward->model->shape, asked_layer(walk), expert);
    return (pi2_predictor_query){ .predictor = predictor_of(walk), .layer = &predictor_of(walk)->layers[ffn],
                                  .kernel = forward->cpu.small_rows, .vector = forward->cpu.vector,
                                  .gate_bias = bias_of(walk, PI2_TABLE_GATE_BIAS, expert),
                                  .up_bias = bias_of(walk, PI2_TABLE_UP_BIAS, expert),
                                  .score = fires ? PI2_SCORE_FIRES : PI2_SCORE_WORTH };
}

static float *scores_of(const pi2_forward_walk *walk, uint32_t row) {
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    return (walk->asks_ahead ? neurons->ahead_scores : neurons->hidden) + row * neurons->stride;
}

static uint32_t neuron_count(const pi2_forward_walk *walk) { return predictor_of(walk)->neuron_count; }

static void note_time(pi2_forward *forward, uint64_t begin_ns) {
    (void)atomic_fetch_add_explicit(&forward->predict_ns, pi2_clock_ns() - begin_ns, memory_order_relaxed);
}

/* The bank of the neurons that are asked for ahead. */
static uint32_t bank_ahead(const pi2_forward_walk *walk) { return walk->forward->bank_of[walk->layer + 1]; }

static _Atomic uint8_t *marks_of(const pi2_forward_walk *walk, uint32_t row) {
    const pi2_neuron_buffers *neurons = &walk->forward->buffers.neurons;
    return neurons->ahead_marks + row * neurons->stride;
}

static void clear_marks(const pi2_forward_walk *walk, uint32_t row) {
    memset((void *)marks_of(walk, row), 0, walk->forward->options.banks->banks[bank_ahead(walk)].unit_count);
}

static void input_chunk(void *argument, unsigned member, uint32_t row) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    const uint64_t begin_ns = pi2_clock_ns();
    const float *normed = buffers->normed + row * buffers->width_stride;
    if (walk->asks_ahead) {
        clear_marks(walk, row);
        pi2_forward_norm_ahead(walk, row, neurons->ahead_normed + row * buffers->width_stride);
        normed = neurons->ahead_normed + row * buffers->width_stride;
    }
    neurons->inputs[row] = pi2_predictor_quantize(normed,
                                                  walk->forward->model->shape.embedding_length,
                                                  neurons->input_values + row * buffers->width_stride);
    note_time(walk->forward, begin_ns);
}

/* Rows of the code of an FFN; 0 where nothing is known of it. */
static uint32_t code_rows_of(const pi2_predictor_query *query) {
    return query->layer->size ? query->predictor->kind->code_rows(query->layer) : 0;
}

static void code_row(const pi2_forward_walk *walk, const asked_row *asked, uint32_t token, uint32_t chunk) {
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    const pi2_predictor_query query = query_of(walk, asked->expert);
    if (chunk * CODE_CHUNK >= code_rows_of(&query)) return; /* other experts' have more */
    query.predictor->kind->code(&query, &neurons->inputs[token], chunk * CODE_CHUNK, (chunk + 1) * CODE_CHUNK,
                                neurons->code + asked->row * neurons->code_stride);
}

static void code_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const uint64_t begin_ns = pi2_clock_ns();
    if (pi2_forward_failed(walk->forward)) return; /* there may be no rows */
    for (uint32_t token = 0; token < walk->forward->token_count; token++) {
        for (uint32_t i = 0; i < rows_of_token(walk); i++) {
            const asked_row asked = row_at(walk, token, i);
            code_row(walk, &asked, token, chunk);
        }
    }
    note_time(walk->forward, begin_ns);
}

static void end_code_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    if (pi2_forward_failed(walk->forward)) return;
    for (uint32_t i = 0; i < rows_of_token(walk); i++) {
        const asked_row asked = row_at(walk, token, i);
        const pi2_predictor_query query = query_of(walk, asked.expert);
        const uint32_t code_rows = code_rows_of(&query);
        const size_t at = asked.row * neurons->code_stride;
        if (code_rows == 0) continue;
        pi2_predictor_vector *vector = &neurons->code_vectors[asked.row];
        *vector = pi2_predictor_quantize(neurons->code + at, code_rows, neurons->code_values + at);
        if (!(neurons->inputs[token].scale >= 0)) vector->scale = neurons->inputs[token].scale;
    }
}

/* Each neuron by its own score; else they are compared. */
static bool chooses_firing(const pi2_forward *forward) { return forward->options.left_out < 0; }

static void count_named(pi2_forward *forward, const float *scores, uint32_t count) {
    uint64_t named = 0;
    for (uint32_t n = 0; n < count; n++) named += scores[n] != 0.0f;
    (void)atomic_fetch_add_explicit(&forward->predicted, named, memory_order_relaxed);
}

/* Where no Gate is computed the scores say how near neurons are to being named. Those of an expert are old when it is
 * chosen again. */
static void tell_near(const pi2_forward_walk *walk, const asked_row *asked, uint32_t begin, uint32_t end,
                      const float *scores) {
    const pi2_forward *forward = walk->forward;
    if (!pi2_forward_predicts(forward) || asked->expert != UINT32_MAX) return;
    pi2_neuron_store_tell_gates(forward->options.neurons, forward->bank_of[walk->layer], begin, end - begin, scores);
}

/* Of an FFN of which nothing is known all neurons are computed. */
static void score_row(const pi2_forward_walk *walk, const asked_row *asked, uint32_t token, uint32_t begin,
                      uint32_t end) {
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    const pi2_predictor_query query = query_of(walk, asked->expert);
    float *scores = scores_of(walk, asked->row) + begin;
    if (query.layer->size == 0) {
        for (uint32_t n = 0; n < end - begin; n++) scores[n] = 1.0f;
    } else {
        const pi2_predictor_vector *from = code_rows_of(&query) ? &neurons->code_vectors[asked->row]
                                                                : &neurons->inputs[token];
        query.predictor->kind->scores(&query, from, begin, end, scores);
    }
    if (!walk->asks_ahead && query.layer->size) tell_near(walk, asked, begin, end, scores);
    if (walk->asks_ahead || !chooses_firing(forward)) return;
    if (query.layer->size) pi2_predictor_choose_firing(scores, end - begin, query.layer->threshold);
    count_named(walk->forward, scores, end - begin);
}

static void score_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const uint32_t all = neuron_count(walk), begin = chunk * SCORE_CHUNK;
    const uint32_t end = all - begin < SCORE_CHUNK ? all : begin + SCORE_CHUNK;
    const uint64_t begin_ns = pi2_clock_ns();
    if (pi2_forward_failed(walk->forward)) return;
    for (uint32_t token = 0; token < walk->forward->token_count; token++) {
        for (uint32_t i = 0; i < rows_of_token(walk); i++) {
            const asked_row asked = row_at(walk, token, i);
            score_row(walk, &asked, token, begin, end);
        }
    }
    note_time(walk->forward, begin_ns);
}

/* Whoever leaves neurons out will read all that are named, likely to fire or not: the same are read ahead. Where Gate
 * tells who fires, those are that fire more likely than not. */
static float threshold_ahead(const pi2_forward_walk *walk) {
    const float own = layer_of(walk)->threshold;
    return walk->forward->options.predictor || own > 0 ? own : 0;
}

/* Of the next layer nothing is to be known but what to read: where each neuron is named by its own score, those that
 * are in memory need none. */
static bool asks_for_absent(const pi2_forward_walk *walk) {
    return walk->asks_ahead && query_of(walk, UINT32_MAX).score == PI2_SCORE_FIRES;
}

static void absent_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *neurons = buffers_of(walk);
    const pi2_predictor_query query = query_of(walk, UINT32_MAX);
    const uint32_t number = bank_ahead(walk);
    const uint32_t *place_of = pi2_neuron_store_head(forward->options.neurons, number)->place_of;
    const uint32_t in_unit = forward->options.banks->banks[number].unit_neurons, all = neuron_count(walk);
    const uint32_t begin = chunk * ABSENT_CHUNK, end = all - begin < ABSENT_CHUNK ? all : begin + ABSENT_CHUNK;
    const bool has_code = query.predictor->kind->code_rows(query.layer) > 0;
    const float threshold = threshold_ahead(walk);
    uint32_t absent[ABSENT_CHUNK], units[ABSENT_CHUNK], count = 0;
    const uint64_t begin_ns = pi2_clock_ns();
    const uint32_t hot = forward->hot[walk->layer + 1], cold = hot < end ? hot : end;
    for (uint32_t n = begin > cold ? begin : cold; n < end; n++) {
        const uint32_t unit = in_unit == 1 ? place_of[n] : place_of[n] / in_unit;
        absent[count] = n;
        units[count] = unit;
        count += !pi2_neuron_store_has(forward->options.neurons, number, unit);
    }
    for (uint32_t row = 0; row < forward->token_count; row++) {
        float scores[ABSENT_CHUNK];
        query.predictor->kind->scores_of(&query, has_code ? &neurons->code_vectors[row] : &neurons->inputs[row],
                                         absent, count, scores);
        pi2_predictor_choose_firing(scores, count, threshold);
        for (uint32_t i = 0; i < count; i++) {
            if (scores[i] != 0.0f) atomic_store_explicit(&marks_of(walk, row)[units[i]], 1, memory_order_relaxed);
        }
    }
    note_time(walk->forward, begin_ns);
}

/* Where a share is left out, which neurons are is known when all have a score. */
static void choose_token(pi2_forward_walk *walk, uint32_t token) {
    pi2_forward *forward = walk->forward;
    const uint32_t count = neuron_count(walk);
    const uint64_t begin_ns = pi2_clock_ns();
    if (chooses_firing(forward) || pi2_forward_failed(forward)) return;
    for (uint32_t i = 0; i < rows_of_token(walk); i++) {
        const asked_row asked = row_at(walk, token, i);
        const pi2_predictor_query query = query_of(walk, asked.expert);
        float *scores = scores_of(walk, asked.row);
        if (query.layer->size) {
            pi2_predictor_choose_largest(scores, count, pi2_predictor_kept(count, query.layer->left_out));
        }
        count_named(forward, scores, count);
    }
    note_time(forward, begin_ns);
}

/* Rows of the longest code of the FFNs that may be asked. */
static uint32_t most_code_rows(const pi2_forward_walk *walk) {
    const uint32_t ffns = pi2_layer_ffns(&walk->forward->model->shape);
    uint32_t most = 0;
    for (uint32_t f = 0; f < ffns; f++) {
        const pi2_predictor_query query = query_of(walk, ffns == 1 ? UINT32_MAX : f);
        const uint32_t rows = code_rows_of(&query);
        if (rows > most) most = rows;
    }
    return most;
}

static void ask_stages(pi2_forward_walk *walk, void (*end_token)(pi2_forward_walk *walk, uint32_t token)) {
    const char *name = walk->asks_ahead ? "look ahead" : "predict";
    const uint32_t code_rows = most_code_rows(walk);
    walk->stage_name = name;
    pi2_forward_stage(walk, walk->forward->token_count, input_chunk, NULL);
    if (code_rows) {
        walk->stage_name = name;
        pi2_forward_stage(walk, code_rows / CODE_CHUNK, code_chunk, end_code_token);
    }
    walk->stage_name = name;
    const bool absent = asks_for_absent(walk);
    const uint32_t step = absent ? ABSENT_CHUNK : SCORE_CHUNK;
    pi2_forward_stage(walk, (neuron_count(walk) + step - 1) / step, absent ? absent_chunk : score_chunk, end_token);
}

void pi2_forward_predict(pi2_forward_walk *walk) { ask_stages(walk, choose_token); }

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

/* Marks units by the scores of all neurons: of which those are chosen that are kept when a share is left out; Gate has
 * left those that fire. */
static void mark_by_scores(const pi2_forward_walk *walk, uint32_t row) {
    const pi2_forward *forward = walk->forward;
    const uint32_t number = bank_ahead(walk);
    const pi2_neuron_bank *bank = &forward->options.banks->banks[number];
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, number);
    const uint32_t count = bank->neuron_count;
    _Atomic uint8_t *marks = marks_of(walk, row);
    float *scores = scores_of(walk, row);
    if (forward->options.foreteller) {
        pi2_predictor_choose_largest(scores, count, pi2_predictor_kept(count, layer_of(walk)->left_out));
    }
    for (uint32_t n = forward->hot[walk->layer + 1]; n < count; n++) {
        if (scores[n] == 0.0f) continue;
        atomic_store_explicit(&marks[head->place_of[n] / bank->unit_neurons], 1, memory_order_relaxed);
    }
}

/* ---- by Gate ---- */

static void gate_input_chunk(void *argument, unsigned member, uint32_t row) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    float *normed = buffers->neurons.ahead_normed + row * buffers->width_stride;
    const uint64_t begin_ns = pi2_clock_ns();
    clear_marks(walk, row);
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
    pi2_forward_stage(walk, (neurons + step - 1) / step, gate_chunk, NULL);
}

uint32_t pi2_forward_ask_ahead(pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const uint32_t next = walk->layer + 1;
    if (!forward->foretells || next >= forward->model->shape.layer_count || !forward->has_banks[next]) return 0;
    if (forward->options.foreteller && forward->options.foreteller->layers[next].size == 0) return 0;
    walk->asks_ahead = true;
    if (forward->options.foreteller) ask_stages(walk, NULL);
    else ask_gate(walk, forward->options.banks->banks[forward->bank_of[next]].neuron_count);
    walk->asks_ahead = false;
    return forward->token_count;
}

/* Units of the neurons that were named for a row, in the file's order. */
static void foretell_row(const pi2_forward_walk *walk, uint32_t row) {
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *neurons = &forward->buffers.neurons;
    const uint32_t number = bank_ahead(walk), unit_count = forward->options.banks->banks[number].unit_count;
    const uint64_t begin_ns = pi2_clock_ns();
    const _Atomic uint8_t *marks = marks_of(walk, row);
    uint32_t *list = neurons->ahead_units + row * neurons->stride, units = 0;
    if (!forward->options.foreteller || !asks_for_absent(walk)) mark_by_scores(walk, row);
    for (uint32_t u = 0; u < unit_count; u++) {
        if (atomic_load_explicit(&marks[u], memory_order_relaxed)) list[units++] = u;
    }
    pi2_neuron_store_foretell(forward->options.neurons, number, list, units);
    note_time(walk->forward, begin_ns);
}

void pi2_forward_foretell(pi2_forward_walk *walk, uint32_t row) {
    walk->asks_ahead = true;
    foretell_row(walk, row);
    walk->asks_ahead = false;
}
