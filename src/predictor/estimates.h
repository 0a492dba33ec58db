/*
 * estimates.h: from what a predictor estimates of rows of Gate and Up, a mean and how far it is likely to be off, to
 * the scores of neurons; for kinds that estimate so (low_bit, svd).
 */
#ifndef PI2_PREDICTOR_ESTIMATES_H
#define PI2_PREDICTOR_ESTIMATES_H

#include "predictor/predictor.h"

enum { PI2_ESTIMATES_MOST = 128 }; /* neurons of a call */

/** As many deviations as a neuron is given in doubt, where nobody measured more. */
#define PI2_ESTIMATES_DOUBT 1.0f

/** Of some neurons: row times input, and its deviation, at least 0. */
typedef struct pi2_estimates {
    float mean[PI2_ESTIMATES_MOST], deviation[PI2_ESTIMATES_MOST];
} pi2_estimates;

/** How many deviations Gate, and of drelu Up where it is estimated, is above zero; up NULL: it is not estimated. */
void pi2_estimates_score_firing(const pi2_predictor_query *query, const pi2_estimates *gate, const pi2_estimates *up,
                                uint32_t count, float *scores);
/** The expectation of (activation(gate) * up)^2 times worths^2; up NULL: taken for 1. */
void pi2_estimates_score_worth(const pi2_predictor_query *query, const pi2_estimates *gate, const pi2_estimates *up,
                               const float *worths, uint32_t count, float *scores);

#endif
