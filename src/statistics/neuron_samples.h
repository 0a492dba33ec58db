/*
 * neuron_samples.h: which neurons fire together, told by some tokens: for each of at most 256 of them one bit of every
 * neuron, whether it fired there.
 *
 * Which tokens those are does not depend on the order in which they were counted, nor on who counted them: each has a
 * number by chance, its own whoever asks; of each chunk the 32 with the lowest numbers are candidates, and of all
 * candidates the 256 with the lowest are kept.
 */
#ifndef PI2_STATISTICS_NEURON_SAMPLES_H
#define PI2_STATISTICS_NEURON_SAMPLES_H

#include <stdbool.h>

#include "statistics/neuron_statistics.h"

enum { PI2_CHUNK_SAMPLES = 32 };

/** A token that is a candidate. */
typedef struct pi2_neuron_sample {
    uint64_t number;   /* by chance */
    uint32_t position; /* in its chunk */
} pi2_neuron_sample;

/** The candidates of a chunk, by ascending positions; returns how many. begin: tokens of the text before the chunk */
uint32_t pi2_neuron_samples_of_chunk(const pi2_statistics_text *text, uint64_t begin, size_t token_count,
                                     pi2_neuron_sample samples_out[PI2_CHUNK_SAMPLES]);

/**
 * Takes those of `count` numbers, which are all different and not among the statistics' own, that are among the lowest
 * 256, in place of others; the bits of all neurons at their places are 0 afterwards.
 * count       in   at most PI2_STATISTICS_SAMPLES
 * places_out  out  shape [count]: where the bits of each token go; -1: it is not taken
 */
void pi2_neuron_samples_take(pi2_neuron_statistics *statistics, const uint64_t *numbers, uint32_t count,
                             int16_t *places_out);

/** Whether both have a token in common. */
bool pi2_neuron_samples_share_one(const pi2_neuron_statistics *a, const pi2_neuron_statistics *b);

/** Adds those of other statistics with the same entries and columns. */
void pi2_neuron_samples_add(pi2_neuron_statistics *into, const pi2_neuron_statistics *from);

/** Puts them in ascending order of their numbers, as a file has them. */
void pi2_neuron_samples_sort(pi2_neuron_statistics *statistics);

/** The bits of a neuron. words: shape [PI2_STATISTICS_SAMPLES / 32] */
void pi2_neuron_samples_get(const pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry, uint32_t neuron,
                            uint32_t *words);

#endif
