/*
 * low_rank_start.h: where training of a low_rank predictor begins: the directions of the input that decide most about
 * who fires, by power iteration, and what they say of each neuron. From random numbers it takes thousands of steps to
 * find these.
 *
 *   low_rank_weights.c  from Gate's rows (and drelu's Up's), as inputs weigh their columns. What it says of a neuron
 *                       that fires rarely is as good as of any other: no sample is needed in which it does
 *   low_rank_start.c    where no weights are at hand: from how inputs and firing vary together
 */
#ifndef PI2_PREDICTOR_LOW_RANK_START_H
#define PI2_PREDICTOR_LOW_RANK_START_H

#include "kernels/training/training.h"
#include "predictor/low_rank_train.h"

typedef struct pi2_low_rank_begin {
    const pi2_low_rank_samples *samples;
    const uint32_t *order;      /* [count]: samples that are learned from */
    uint32_t count, rank;
    float scale, weight;        /* of inputs; of a neuron that fires */
    uint64_t seed;
    pi2_team *team;
    const pi2_training_kernels *kernels;
} pi2_low_rank_begin;

/**
 * a  out  [width][rank], b out [rank][neurons], bias out [neurons]
 * The same on any number of threads. Errors  MEMORY
 */
pi2_status pi2_low_rank_start(const pi2_low_rank_begin *begin, float *a, float *b, float *bias);
/** The same from the samples' weights. */
pi2_status pi2_low_rank_start_by_weights(const pi2_low_rank_begin *begin, float *a, float *b, float *bias);

/** Makes the columns of directions [width][count] orthogonal, of length 1 (of which nothing is left: 0), by Gram and
 *  Schmidt. turned  [count][width], out: the same by rows */
void pi2_low_rank_make_orthogonal(float *directions, float *turned, uint32_t width, uint32_t count);

/** The next number of a sequence that its state, any number at first, fixes (splitmix64). */
static inline uint64_t pi2_low_rank_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

#endif
