/*
 * neuron_recorder.h: keeps, of some FFNs of a model, what each token's FFN read and what its neurons gave, while all
 * neurons are computed: what predictors are measured by and trained on. A "layer" is an FFN here (pi2_ffn_number()): of
 * a mixture an expert, which some tokens do not visit.
 */
#ifndef PI2_ENGINE_NEURON_RECORDER_H
#define PI2_ENGINE_NEURON_RECORDER_H

#include "pipeline/forward.h"
#include "pipeline/neuron_counter.h"

typedef struct pi2_neuron_recorder {
    pi2_neuron_counter counter;              /* what the pipeline calls */
    uint32_t first_layer, layer_count;       /* layers [first_layer, first_layer + layer_count) */
    uint32_t token_count, width, neurons;    /* positions [0, token_count) */
    uint32_t layer_ffns;                     /* FFNs of a layer of the model */
    uint8_t *visited;                        /* [layer_count][token_count]: 1: there are numbers */
    float *inputs;                           /* [layer_count][token_count][width] */
    uint16_t *sizes;                         /* [layer_count][token_count][neurons]: magnitudes, as BF16; 0: Down reads
                                                0 */
} pi2_neuron_recorder;

uint64_t pi2_neuron_recorder_bytes(uint32_t layers, uint32_t tokens, uint32_t width, uint32_t neurons);
/** Sets counter up and takes the memory. Errors MEMORY. It stays where it is while it is used. */
pi2_status pi2_neuron_recorder_open(pi2_neuron_recorder *recorder, uint32_t first_layer, uint32_t layer_count,
                                    uint32_t token_count, uint32_t width, uint32_t neurons, uint32_t layer_ffns);
/** Other tokens come: what is kept is forgotten. */
void pi2_neuron_recorder_begin(pi2_neuron_recorder *recorder);
/** Whether what was read of `tokens` positions are numbers. Errors  FORMAT (path, layer) */
pi2_status pi2_neuron_recorder_check(const pi2_neuron_recorder *recorder, uint32_t tokens, const char *path);
void pi2_neuron_recorder_close(pi2_neuron_recorder *recorder); /* zeroed is fine */

static inline size_t pi2_recorded_row(const pi2_neuron_recorder *recorder, uint32_t layer, uint32_t token) {
    return (size_t)(layer - recorder->first_layer) * recorder->token_count + token;
}
static inline const float *pi2_recorded_input(const pi2_neuron_recorder *recorder, uint32_t layer, uint32_t token) {
    return recorder->inputs + pi2_recorded_row(recorder, layer, token) * recorder->width;
}
static inline const uint16_t *pi2_recorded_sizes(const pi2_neuron_recorder *recorder, uint32_t layer, uint32_t token) {
    return recorder->sizes + pi2_recorded_row(recorder, layer, token) * recorder->neurons;
}
/** Whether the token visited it. */
static inline bool pi2_recorded_visit(const pi2_neuron_recorder *recorder, uint32_t layer, uint32_t token) {
    return recorder->visited[pi2_recorded_row(recorder, layer, token)] != 0;
}
/** A magnitude of `sizes`. */
float pi2_recorded_magnitude(uint16_t size);

#endif
