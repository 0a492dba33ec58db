/* sampler_filters.h: what leaves tokens out of a list of candidates, and how hot the draw among the rest is. */
#ifndef PI2_ENGINE_SAMPLER_FILTERS_H
#define PI2_ENGINE_SAMPLER_FILTERS_H

#include <stdbool.h>
#include <stdint.h>

/* Meaning and order are llama.cpp's: top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature. All arithmetic is our
 * own, so that the same tokens stay on every machine. Thread rule of all: one at a time a list. */

typedef struct pi2_candidate {
    float logit;
    int32_t token;
} pi2_candidate;

/** e to the power of x <= 0; 0 where a float keeps nothing of it. */
float pi2_candidate_weight(float x);
/** The best comes first; of equal logits the lowest id. */
bool pi2_candidate_ranks_before(pi2_candidate a, pi2_candidate b);

/**
 * Top-n-sigma (Tang and others 2024, arXiv 2411.07641): the lowest logit that stays, which is so many standard
 * deviations of all logits below the best one. Those that are no numbers, or infinite, do not count.
 */
float pi2_filter_sigma_floor(const float *logits, uint32_t count, float best, float sigmas);

/**
 * Locally typical sampling (Meister and others 2022, arXiv 2202.00666): those stay, the first in the list, whose
 * surprise is nearest to the distribution's entropy, until their chances exceed `mass` (in (0, 1)); returns how many,
 * at least 1. The order of the list changes.
 */
uint32_t pi2_filter_typical(pi2_candidate *items, uint32_t count, float mass);

/**
 * XTC, exclude top choices: of those that have at least the chance `threshold` all but the last one leave; returns how
 * many are left. The others keep their order.
 */
uint32_t pi2_filter_top_choices(pi2_candidate *items, uint32_t count, float threshold);

/**
 * Dynamic temperature: from least to most by the entropy of the candidates, as a share of the largest that so many can
 * have, to the power of `exponent`.
 */
float pi2_dynamic_temperature(const pi2_candidate *items, uint32_t count, float least, float most, float exponent);

#endif
