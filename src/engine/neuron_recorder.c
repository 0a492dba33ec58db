/* neuron_recorder.c: each neuron's numbers are written by the thread that computed them. */
#include "engine/neuron_recorder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"

/* The upper half of a float's bits: a magnitude that is not 0 stays so, if only as the smallest. */
static uint16_t size_of(float value) {
    const float magnitude = fabsf(value);
    uint32_t bits;
    memcpy(&bits, &magnitude, sizeof bits);
    return bits == 0 ? 0 : bits >> 16 ? (uint16_t)(bits >> 16) : 1;
}

float pi2_recorded_magnitude(uint16_t size) {
    const uint32_t bits = (uint32_t)size << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void record(void *user, unsigned member, const pi2_neuron_values *values) {
    pi2_neuron_recorder *recorder = user;
    const uint32_t number = values->layer * recorder->layer_ffns + (values->expert == UINT32_MAX ? 0 : values->expert);
    const uint32_t layer = number - recorder->first_layer;
    (void)member;
    if (number < recorder->first_layer || layer >= recorder->layer_count ||
        values->position >= recorder->token_count || values->begin >= recorder->neurons) {
        return;
    }
    const size_t row = (size_t)layer * recorder->token_count + values->position;
    const uint32_t left = recorder->neurons - values->begin, count = values->count < left ? values->count : left;
    if (values->begin == 0) {
        memcpy(recorder->inputs + row * recorder->width, values->input, recorder->width * sizeof(float));
        recorder->visited[row] = 1;
    }
    uint16_t *sizes = recorder->sizes + row * recorder->neurons + values->begin;
    for (uint32_t i = 0; i < count; i++) {
        sizes[i] = values->rounded && values->rounded[i] == 0 ? 0 : size_of(values->activations[i]);
    }
}

uint64_t pi2_neuron_recorder_bytes(uint32_t layers, uint32_t tokens, uint32_t width, uint32_t neurons) {
    return (uint64_t)layers * tokens * (width * sizeof(float) + neurons * sizeof(uint16_t) + 1);
}

pi2_status pi2_neuron_recorder_open(pi2_neuron_recorder *recorder, uint32_t first_layer, uint32_t layer_count,
                                    uint32_t token_count, uint32_t width, uint32_t neurons, uint32_t layer_ffns) {
    const size_t rows = (size_t)layer_count * token_count;
    *recorder = (pi2_neuron_recorder){ .counter = { .user = recorder, .count = record }, .first_layer = first_layer,
                                       .layer_count = layer_count, .token_count = token_count, .width = width,
                                       .neurons = neurons, .layer_ffns = layer_ffns };
    recorder->inputs = calloc(rows * width, sizeof *recorder->inputs);
    recorder->sizes = calloc(rows * neurons, sizeof *recorder->sizes);
    recorder->visited = calloc(rows, 1);
    if (recorder->inputs && recorder->sizes && recorder->visited) return PI2_OK;
    pi2_neuron_recorder_close(recorder);
    return pi2_fail(PI2_ERR_MEMORY, "no memory to keep what %u layers give for %u tokens", layer_count, token_count);
}

void pi2_neuron_recorder_begin(pi2_neuron_recorder *recorder) {
    memset(recorder->visited, 0, (size_t)recorder->layer_count * recorder->token_count);
}

pi2_status pi2_neuron_recorder_check(const pi2_neuron_recorder *recorder, uint32_t tokens, const char *path) {
    for (uint32_t l = recorder->first_layer; l < recorder->first_layer + recorder->layer_count; l++) {
        for (uint32_t t = 0; t < tokens; t++) {
            const float *input = pi2_recorded_input(recorder, l, t);
            float sum = 0;
            for (uint32_t c = 0; c < recorder->width; c++) sum += input[c] * 0.0f;
            if (sum == 0) continue;
            return pi2_fail(PI2_ERR_FORMAT, "%s: what layer %u reads are no numbers: the model file may be damaged "
                            "('powerinfer2 inspect --verify' checks a cluster file)", path, l / recorder->layer_ffns);
        }
    }
    return PI2_OK;
}

void pi2_neuron_recorder_close(pi2_neuron_recorder *recorder) {
    free(recorder->inputs);
    free(recorder->sizes);
    free(recorder->visited);
    memset(recorder, 0, sizeof *recorder);
}
