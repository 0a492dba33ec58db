/*
 * predictor_measure.c: chunks of texts through the model, all neurons computed, and what a predictor says of each token
 * beside what its neurons gave. Threads share (layer, token) pairs out; what they add up are whole numbers.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu_features.h"
#include "base/fail.h"
#include "engine/neuron_recorder.h"
#include "engine/text_chunks.h"
#include "powerinfer2/neuron_predictor.h"
#include "powerinfer2/session.h"

/** Counts of an FFN: a layer's, or one of its experts' (whose number is that of predictors). */
typedef struct layer_counts {
    _Atomic uint64_t wanted, named, both, ns, visits;
    _Atomic uint64_t magnitude, named_magnitude; /* in units of a token's largest / 2^16 */
} layer_counts;

/** One thread's memory. */
typedef struct measure_scratch {
    float *scores, *worth, *code; /* [neurons], [neurons], [code rows] */
    int16_t *input, *code_values;
} measure_scratch;

typedef struct measure_run {
    pi2_engine *engine;
    const pi2_predictor *predictor;
    const pi2_small_kernel *kernel;
    const pi2_vector_kernels *vector;
    pi2_session *session;
    pi2_neuron_recorder recorder;
    layer_counts *layers;
    measure_scratch *scratch; /* [threads] */
    unsigned thread_count;
    uint32_t tokens;          /* of the chunk */
    double left_out;
    _Atomic uint32_t next;    /* pair */
} measure_run;

static uint32_t most_code_rows(const pi2_predictor *predictor) {
    uint32_t most = PI2_SMALL_BLOCK;
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        const uint32_t rows = predictor->kind->code_rows(&predictor->layers[i]);
        if (rows > most) most = rows;
    }
    return most;
}

/* ---- one token of one layer ---- */

/* 1 for each neuron that is named. */
static void name_neurons(const measure_run *run, uint32_t layer_number, const float *input, measure_scratch *scratch) {
    const pi2_predictor *predictor = run->predictor;
    const pi2_predictor_layer *layer = &predictor->layers[layer_number];
    const pi2_model *model = run->engine->run.source.model;
    const uint32_t ffns = pi2_layer_ffns(&model->shape);
    const float *const *tables = model->layers[layer_number / ffns].tables;
    const float *gate_bias = tables[PI2_TABLE_GATE_BIAS], *up_bias = tables[PI2_TABLE_UP_BIAS];
    const size_t row = layer_number % ffns * (size_t)predictor->neuron_count; /* of an expert */
    const pi2_predictor_query query = {
        .predictor = predictor, .layer = layer, .kernel = run->kernel, .vector = run->vector,
        .gate_bias = gate_bias ? gate_bias + row : NULL, .up_bias = up_bias ? up_bias + row : NULL,
        .score = run->left_out < 0 ? PI2_SCORE_FIRES : PI2_SCORE_WORTH };
    const uint32_t count = predictor->neuron_count, rows = predictor->kind->code_rows(layer);
    if (layer->size == 0) {
        for (uint32_t n = 0; n < count; n++) scratch->scores[n] = 1.0f;
        return;
    }
    pi2_predictor_vector from = pi2_predictor_quantize(input, predictor->width, scratch->input);
    if (rows) {
        predictor->kind->code(&query, &from, 0, rows, scratch->code);
        from = pi2_predictor_quantize(scratch->code, rows, scratch->code_values);
    }
    predictor->kind->scores(&query, &from, 0, count, scratch->scores);
    if (run->left_out < 0) pi2_predictor_choose_firing(scratch->scores, count, layer->threshold);
    else pi2_predictor_choose_largest(scratch->scores, count, pi2_predictor_kept(count, layer->left_out));
}

/* 1 for each neuron that should be: it fires, or it is among those that give most. */
static void want_neurons(const measure_run *run, uint32_t layer, const uint16_t *sizes, float *wanted) {
    const uint32_t count = run->predictor->neuron_count;
    const pi2_predictor *predictor = run->predictor;
    const bool tells = predictor->kind->worths && predictor->layers[layer].size;
    const float *worths = tells ? predictor->kind->worths(predictor, &predictor->layers[layer]) : NULL;
    if (run->left_out < 0) {
        for (uint32_t n = 0; n < count; n++) wanted[n] = sizes[n] ? 1.0f : 0.0f;
        return;
    }
    for (uint32_t n = 0; n < count; n++) wanted[n] = pi2_recorded_magnitude(sizes[n]) * (worths ? worths[n] : 1.0f);
    pi2_predictor_choose_largest(wanted, count,
                                 pi2_predictor_kept(count, run->predictor->layers[layer].left_out));
}

static void add(_Atomic uint64_t *sum, uint64_t number) {
    (void)atomic_fetch_add_explicit(sum, number, memory_order_relaxed);
}

static void compare(const measure_run *run, uint32_t layer, uint32_t token, measure_scratch *scratch) {
    const uint16_t *sizes = pi2_recorded_sizes(&run->recorder, layer, token);
    layer_counts *counts = &run->layers[layer];
    if (!pi2_recorded_visit(&run->recorder, layer, token)) return;
    add(&counts->visits, 1);
    uint64_t wanted = 0, named = 0, both = 0;
    double magnitude = 0, of_named = 0, most = 0;
    const uint64_t begin_ns = pi2_clock_thread_ns(); /* of other work on the machine it shall not tell */
    name_neurons(run, layer, pi2_recorded_input(&run->recorder, layer, token), scratch);
    add(&counts->ns, pi2_clock_thread_ns() - begin_ns);
    want_neurons(run, layer, sizes, scratch->worth);
    for (uint32_t n = 0; n < run->predictor->neuron_count; n++) {
        const bool is_named = scratch->scores[n] != 0.0f, is_wanted = scratch->worth[n] != 0.0f;
        const double size = (double)pi2_recorded_magnitude(sizes[n]);
        wanted += is_wanted;
        named += is_named;
        both += is_wanted && is_named;
        magnitude += size;
        if (is_named) of_named += size;
        if (size > most) most = size;
    }
    add(&counts->wanted, wanted);
    add(&counts->named, named);
    add(&counts->both, both);
    if (most <= 0) return;
    add(&counts->magnitude, (uint64_t)(magnitude / most * 65536.0));
    add(&counts->named_magnitude, (uint64_t)(of_named / most * 65536.0));
}

static void compare_pairs(void *argument, unsigned member, unsigned member_count) {
    measure_run *run = argument;
    const uint32_t pairs = run->tokens * run->predictor->layer_count;
    (void)member_count;
    for (;;) {
        const uint32_t pair = atomic_fetch_add(&run->next, 1);
        if (pair >= pairs) return;
        compare(run, pair / run->tokens, pair % run->tokens, &run->scratch[member]);
    }
}

static pi2_status take_chunk(void *user, const int32_t *tokens, size_t count) {
    measure_run *run = user;
    PI2_TRY(pi2_session_truncate(run->session, 0));
    pi2_neuron_recorder_begin(&run->recorder);
    pi2_forward_set_counter(run->engine->forward, &run->recorder.counter);
    const pi2_status status = pi2_session_append(run->session, tokens, count, PI2_LOGITS_NONE);
    pi2_forward_set_counter(run->engine->forward, NULL);
    PI2_TRY(status);
    PI2_TRY(pi2_neuron_recorder_check(&run->recorder, (uint32_t)count, run->engine->run.source.model_path));
    run->tokens = (uint32_t)count;
    atomic_store(&run->next, 0);
    pi2_team_run(run->engine->team, compare_pairs, run);
    return PI2_OK;
}

/* ---- the whole ---- */

static double share(uint64_t part, uint64_t whole) { return whole ? (double)part / (double)whole : 0; }

/* A layer of the model: of a mixture its experts together, each visit of a token being one. */
static void fill_layer(const measure_run *run, uint32_t number, uint32_t ffns, uint64_t tokens,
                       pi2_predictor_layer_measure *layer) {
    uint64_t named = 0, wanted = 0, both = 0, visits = 0, magnitude = 0, of_named = 0, ns = 0;
    *layer = (pi2_predictor_layer_measure){ .size = 0 };
    for (uint32_t f = number * ffns; f < (number + 1) * ffns; f++) {
        layer_counts *counts = &run->layers[f];
        if (layer->size < run->predictor->layers[f].size) layer->size = run->predictor->layers[f].size;
        layer->bytes += run->predictor->layers[f].bytes;
        named += atomic_load(&counts->named);
        wanted += atomic_load(&counts->wanted);
        both += atomic_load(&counts->both);
        visits += atomic_load(&counts->visits);
        magnitude += atomic_load(&counts->magnitude);
        of_named += atomic_load(&counts->named_magnitude);
        ns += atomic_load(&counts->ns);
    }
    const uint64_t all = visits * run->predictor->neuron_count;
    layer->recall = wanted ? share(both, wanted) : 1;
    layer->precision = named ? share(both, named) : 1;
    layer->wanted = share(wanted, all);
    layer->named = share(named, all);
    layer->magnitude = share(of_named, magnitude);
    layer->microseconds = (double)ns / 1000.0 / (double)tokens;
}

static pi2_status report(const measure_run *run, uint64_t tokens, pi2_predictor_measurement **measurement_out) {
    const uint32_t ffns = pi2_layer_ffns(&run->engine->run.source.model->shape);
    const uint32_t count = run->predictor->layer_count / ffns;
    pi2_predictor_measurement *measurement = calloc(1, sizeof *measurement + count * sizeof *measurement->layers);
    if (!measurement) return pi2_fail(PI2_ERR_MEMORY, "no memory for a measurement");
    *measurement = (pi2_predictor_measurement){ .kind = run->predictor->kind->name, .token_count = tokens,
                                                .layer_count = count,
                                                .layers = (pi2_predictor_layer_measure *)(measurement + 1) };
    pi2_predictor_layer_measure *mean = &measurement->mean;
    for (uint32_t i = 0; i < count; i++) {
        pi2_predictor_layer_measure *layer = &measurement->layers[i];
        fill_layer(run, i, ffns, tokens, layer);
        mean->recall += layer->recall / count;
        mean->precision += layer->precision / count;
        mean->wanted += layer->wanted / count;
        mean->named += layer->named / count;
        mean->magnitude += layer->magnitude / count;
        mean->bytes += layer->bytes;
        mean->microseconds += layer->microseconds;
    }
    *measurement_out = measurement;
    return PI2_OK;
}

static pi2_status make_scratch(measure_run *run) {
    const uint32_t neurons = run->predictor->neuron_count, code = most_code_rows(run->predictor);
    run->thread_count = pi2_team_member_count(run->engine->team);
    run->scratch = calloc(run->thread_count, sizeof *run->scratch);
    run->layers = calloc(run->predictor->layer_count, sizeof *run->layers);
    bool is_there = run->scratch && run->layers;
    for (unsigned i = 0; is_there && i < run->thread_count; i++) {
        measure_scratch *scratch = &run->scratch[i];
        scratch->scores = malloc(neurons * sizeof *scratch->scores);
        scratch->worth = malloc(neurons * sizeof *scratch->worth);
        scratch->code = malloc(code * sizeof *scratch->code);
        scratch->input = malloc(run->predictor->width * sizeof *scratch->input);
        scratch->code_values = malloc(code * sizeof *scratch->code_values);
        is_there = scratch->scores && scratch->worth && scratch->code && scratch->input && scratch->code_values;
    }
    return is_there ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory to measure a predictor");
}

static void free_run(measure_run *run) {
    for (unsigned i = 0; run->scratch && i < run->thread_count; i++) {
        free(run->scratch[i].scores);
        free(run->scratch[i].worth);
        free(run->scratch[i].code);
        free(run->scratch[i].input);
        free(run->scratch[i].code_values);
    }
    free(run->scratch);
    free(run->layers);
    pi2_session_free(run->session);
    pi2_neuron_recorder_close(&run->recorder);
}

/* As many tokens as the memory beside the engine holds what all layers give for. */
static uint32_t chunk_tokens(const measure_run *run) {
    const pi2_predictor *predictor = run->predictor;
    const uint32_t context = run->engine->run.plan.memory.shape.context_tokens;
    const uint64_t each =
        pi2_neuron_recorder_bytes(predictor->layer_count, 1, predictor->width, predictor->neuron_count);
    const uint64_t most = PI2_PREDICTOR_MEASURE_BYTES / each;
    return most < 2 ? 2 : most < context ? (uint32_t)most : context;
}

static pi2_status measure(measure_run *run, const pi2_predictor_texts *texts,
                          pi2_predictor_measurement **measurement_out) {
    uint64_t tokens = 0;
    const uint32_t chunk = chunk_tokens(run);
    PI2_TRY(make_scratch(run));
    PI2_TRY(pi2_neuron_recorder_open(&run->recorder, 0, run->predictor->layer_count, chunk, run->predictor->width,
                                     run->predictor->neuron_count,
                                     pi2_layer_ffns(&run->engine->run.source.model->shape)));
    PI2_TRY(pi2_session_create(run->engine, NULL, &run->session));
    const pi2_text_chunks chunks = { .engine = run->engine, .paths = texts->paths, .most_tokens = texts->tokens,
                                     .chunk_tokens = chunk, .take = take_chunk, .user = run };
    PI2_TRY(pi2_text_chunks_run(&chunks, &tokens));
    return report(run, tokens, measurement_out);
}

pi2_status pi2_predictor_measure(pi2_engine *engine, const pi2_predictor_texts *texts,
                                 pi2_predictor_measurement **measurement_out) {
    *measurement_out = NULL;
    if (!engine->run.plan.approximates || engine->run.options.predicts_prompts) {
        return pi2_fail(PI2_ERR_INVALID, "there is no predictor to measure: open the engine with one, for an answer");
    }
    measure_run run = { .engine = engine, .predictor = &engine->run.plan.predictor,
                        .left_out = engine->run.plan.left_out, .kernel = pi2_small_select(pi2_cpu_features()),
                        .vector = pi2_vector_select(pi2_cpu_features()) };
    const pi2_status status = measure(&run, texts, measurement_out);
    free_run(&run);
    return status;
}

void pi2_predictor_measurement_free(pi2_predictor_measurement *measurement) { free(measurement); }
