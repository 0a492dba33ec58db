/*
 * forward_predict.c: a predictor names the neurons of a layer's FFN that a pass computes, from its normed input alone.
 *
 *   input     each row's input as the predictor reads it
 *   code      the vector between input and scores, where the kind has one
 *   scores    of every neuron, in chunks; then each row's neurons are chosen. What is not named is 0 in `hidden`
 *
 * Everything is a row's own and made of exact sums (predictor/predictor.h), so which neurons a token computes depends
 * on the token alone.
 */
#include "base/clock.h"
#include "pipeline/ffn_unit.h"

enum { CODE_CHUNK = PI2_SMALL_BLOCK };

static const pi2_predictor_layer *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->options.predictor->layers[walk->layer];
}

static pi2_predictor_query query_of(const pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const float *const *tables = forward->model->layers[walk->layer].tables;
    return (pi2_predictor_query){ .predictor = forward->options.predictor, .layer = layer_of(walk),
                                  .kernel = forward->small_kernel, .vector = forward->vector,
                                  .gate_bias = tables[PI2_TABLE_GATE_BIAS], .up_bias = tables[PI2_TABLE_UP_BIAS],
                                  .score = forward->options.left_out < 0 ? PI2_SCORE_FIRES : PI2_SCORE_WORTH };
}

/* A row is a token: experts have no predictors. */
static float *scores_of(const pi2_forward *forward, uint32_t row) {
    return forward->buffers.neurons.hidden + row * forward->buffers.neurons.stride;
}

static uint32_t neuron_count(const pi2_forward_walk *walk) { return walk->forward->options.predictor->neuron_count; }

static void note_time(pi2_forward *forward, uint64_t begin_ns) {
    (void)atomic_fetch_add_explicit(&forward->predict_ns, pi2_clock_ns() - begin_ns, memory_order_relaxed);
}

static void input_chunk(void *argument, unsigned member, uint32_t row) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_forward_buffers *buffers = &walk->forward->buffers;
    pi2_neuron_buffers *neurons = &buffers->neurons;
    const uint64_t begin_ns = pi2_clock_ns();
    neurons->inputs[row] = pi2_predictor_quantize(buffers->normed + row * buffers->width_stride,
                                                  walk->forward->model->shape.embedding_length,
                                                  neurons->input_values + row * buffers->width_stride);
    note_time(walk->forward, begin_ns);
}

static void code_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_neuron_buffers *neurons = &walk->forward->buffers.neurons;
    const pi2_predictor_query query = query_of(walk);
    const uint64_t begin_ns = pi2_clock_ns();
    for (uint32_t row = 0; row < walk->forward->token_count; row++) {
        query.predictor->kind->code(&query, &neurons->inputs[row], chunk * CODE_CHUNK, (chunk + 1) * CODE_CHUNK,
                                    neurons->code + row * neurons->code_stride);
    }
    note_time(walk->forward, begin_ns);
}

static void end_code_token(pi2_forward_walk *walk, uint32_t row) {
    pi2_neuron_buffers *neurons = &walk->forward->buffers.neurons;
    const size_t at = row * neurons->code_stride;
    neurons->code_vectors[row] =
        pi2_predictor_quantize(neurons->code + at, query_of(walk).predictor->kind->code_rows(layer_of(walk)),
                               neurons->code_values + at);
    if (!(neurons->inputs[row].scale >= 0)) neurons->code_vectors[row].scale = neurons->inputs[row].scale;
}

static void score_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *neurons = &forward->buffers.neurons;
    const pi2_predictor_query query = query_of(walk);
    const bool has_code = query.predictor->kind->code_rows(query.layer) > 0;
    const uint32_t step = forward->buffers.neuron_chunk, all = neuron_count(walk), begin = chunk * step;
    const uint32_t end = all - begin < step ? all : begin + step;
    const uint64_t begin_ns = pi2_clock_ns();
    for (uint32_t row = 0; row < forward->token_count; row++) {
        const pi2_predictor_vector *from = has_code ? &neurons->code_vectors[row] : &neurons->inputs[row];
        query.predictor->kind->scores(&query, from, begin, end, scores_of(forward, row) + begin);
    }
    note_time(walk->forward, begin_ns);
}

static void choose_token(pi2_forward_walk *walk, uint32_t row) {
    pi2_forward *forward = walk->forward;
    const uint32_t count = neuron_count(walk);
    const uint64_t begin_ns = pi2_clock_ns();
    float *scores = scores_of(forward, row);
    const double left_out = forward->options.left_out;
    if (left_out < 0) pi2_predictor_choose_firing(scores, count, layer_of(walk)->threshold);
    else pi2_predictor_choose_largest(scores, count, pi2_predictor_kept(count, left_out));
    uint64_t named = 0;
    for (uint32_t n = 0; n < count; n++) named += scores[n] != 0.0f;
    (void)atomic_fetch_add_explicit(&forward->predicted, named, memory_order_relaxed);
    note_time(forward, begin_ns);
}

/* A layer of which nothing is known computes all of its neurons. */
static void name_all(void *argument, unsigned member, uint32_t row) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    float *scores = scores_of(walk->forward, row);
    for (uint32_t n = 0; n < neuron_count(walk); n++) scores[n] = 1.0f;
    (void)atomic_fetch_add_explicit(&walk->forward->predicted, neuron_count(walk), memory_order_relaxed);
}

void pi2_forward_predict(pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const pi2_predictor_layer *layer = layer_of(walk);
    const uint32_t rows = forward->token_count, step = forward->buffers.neuron_chunk;
    walk->stage_name = "predict";
    if (layer->size == 0) {
        pi2_forward_stage(walk, rows, name_all, NULL);
        return;
    }
    pi2_forward_stage(walk, rows, input_chunk, NULL);
    const uint32_t code_rows = forward->options.predictor->kind->code_rows(layer);
    if (code_rows) {
        walk->stage_name = "predict";
        pi2_forward_stage(walk, code_rows / CODE_CHUNK, code_chunk, end_code_token);
    }
    walk->stage_name = "predict";
    pi2_forward_stage(walk, (neuron_count(walk) + step - 1) / step, score_chunk, choose_token);
}
