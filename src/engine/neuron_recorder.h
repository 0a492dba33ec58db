/*
 * neuron_recorder.h: keeps, of some layers of a model without experts, what each token's FFN read and what its neurons
 * gave, while all neurons are computed: what predictors are measured by and trained on.
 */
#ifndef PI2_ENGINE_NEURON_RECORDER_H
#define PI2_ENGINE_NEURON_RECORDER_H

#include "pipeline/forward.h"
#include "pipeline/neuron_counter.h"

typedef struct pi2_neuron_recorder {
    pi2_neuron_counter counter;              /* what the pipeline calls */
    uint32_t first_layer, layer_count;       /* layers [first_layer, first_layer + layer_count) */
    uint32_t token_count, width, neurons;    /* positions [0, token_count) */
    float *inputs;                           /* [layer_count][token_count][width] */
    uint16_t *sizes;                         /* [layer_count][token_count][neurons]: magnitudes, as BF16; 0: Down reads
                                                0 */
} pi2_neuron_recorder;

uint64_t pi2_neuron_recorder_bytes(uint32_t layers, uint32_t tokens, uint32_t width, uint32_t neurons);
/** Sets counter up and takes the memory. Errors MEMORY. It stays where it is while it is used. */
pi2_status pi2_neuron_recorder_open(pi2_neuron_recorder *recorder, uint32_t first_layer, uint32_t layer_count,
                                    uint32_t token_count, uint32_t width, uint32_t neurons);
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
/** A magnitude of `sizes`. */
float pi2_recorded_magnitude(uint16_t size);

#endif
