/*
 * neuron_counter.h: who is told what neurons gave. For counting how sparse a model is; off in every ordinary run, where
 * it costs the test of one pointer for each chunk of neurons.
 */
#ifndef PI2_PIPELINE_NEURON_COUNTER_H
#define PI2_PIPELINE_NEURON_COUNTER_H

#include <stdint.h>

/** What some neighbouring neurons of an FFN gave for one token. */
typedef struct pi2_neuron_values {
    uint32_t layer, expert;      /* expert: UINT32_MAX in a dense layer */
    uint32_t position;           /* of the token */
    uint32_t begin, count;       /* neurons [begin, begin + count) of the FFN or expert: multiples of 32 */
    const float *input;          /* the normed vector that the FFN or expert read, whole */
    const float *activations;    /* [count], before they were rounded */
    const int8_t *rounded;       /* [count]: what Down multiplies; NULL where Down takes floats */
} pi2_neuron_values;

typedef struct pi2_neuron_counter {
    void *user;
    /**
     * Called after each chunk's activation, by the thread `member` that computed it. For one layer, expert and neuron,
     * the calls of a pass come from one thread, in ascending order of positions. May not block.
     */
    void (*count)(void *user, unsigned member, const pi2_neuron_values *values);
} pi2_neuron_counter;

#endif
