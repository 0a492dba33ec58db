/* trial.h: how well one layer of a predictor tells what samples, which it was not made from, want. */
#ifndef PI2_PREDICTOR_TRIAL_H
#define PI2_PREDICTOR_TRIAL_H

#include "base/team.h"
#include "predictor/predictor.h"

typedef struct pi2_predictor_trial {
    const pi2_predictor *predictor;
    const pi2_predictor_layer *layer;  /* size and data */
    const float *gate_bias, *up_bias;  /* NULL: there is none */
    pi2_score_kind score;
    uint32_t count;                    /* samples */
    /** Any thread. */
    const float *(*input)(const void *user, uint32_t sample);
    bool (*wants)(const void *user, uint32_t sample, uint32_t neuron);
    const void *user;
    pi2_team *team;
} pi2_predictor_trial;

/** What came out; shares of 1. */
typedef struct pi2_predictor_rating {
    float threshold;
    double recall, precision, density, named; /* density, named: of all neurons */
} pi2_predictor_rating;

/**
 * Names by the highest threshold that enough of what is wanted is above: a share of `recall` of it, over all samples.
 * The same on any number of threads. Errors  MEMORY
 */
pi2_status pi2_predictor_try_firing(const pi2_predictor_trial *trial, double recall, pi2_predictor_rating *rating_out);
/** Names `kept` neurons of each sample, the largest. Errors  MEMORY */
pi2_status pi2_predictor_try_worth(const pi2_predictor_trial *trial, uint32_t kept, pi2_predictor_rating *rating_out);

#endif
