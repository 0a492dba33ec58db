/*
 * neuron_forecast.h: what share of its units a token finds in the store of neurons, from how often each is used.
 *
 * The store is taken to be in its steady state, and each unit to be used by a token with a probability of its own. What
 * repeats from token to token beyond that, where it was counted, is found: the default rule keeps what the last token
 * used. The other uses are taken to be independent of the tokens before: for them the store keeps what is hottest, and
 * heat estimates the probability from the last tens of tokens: units of like probability
 * are mistaken for one another. A layer is taken to use far fewer units than there are slots.
 */
#ifndef PI2_PLANNER_NEURON_FORECAST_H
#define PI2_PLANNER_NEURON_FORECAST_H

#include <stdint.h>

#include "architectures/architecture.h"

enum { PI2_NEURON_RATES = 512 };

/**
 * What is assumed of a model that nobody has counted: the share of an FFN's neurons, or of a chosen expert's, that give
 * something for a token, as docs/synthetic.md has it from what was published: a tenth in models that were made sparse,
 * 12 % in experts with dReLU (TurboSparse-Mixtral), 40 % in those with ReLU (SmallThinker); with gelu_topk what the
 * layers' cutoffs let through of normally distributed Gates. gate_out: the share that Gate lets through, which is read.
 */
double pi2_neuron_assumed_share(const pi2_model_shape *shape, double *gate_out);
/** Whether a file with single neurons beside the tiles, and half as large again, is likely to be of use: where the
 *  activation has exact zeros; of experts where they are large beside what of theirs fires. */
bool pi2_neuron_layout_pays(const pi2_model_shape *shape);
/**
 * Of the neurons that fire, the share that a store finds which holds the hottest `held` of all, where a token's are a
 * share `fires`. As published a third gives 80 % (TurboSparse: 26 to 43 %) and a half about 95 %; where many fire they
 * are more alike, since none fires more often than always.
 */
double pi2_neuron_assumed_hits(double held, double fires);

/** Units by the probability that a token uses them: all those of a class have its mean. */
typedef struct pi2_neuron_rates {
    double units[PI2_NEURON_RATES], sums[PI2_NEURON_RATES]; /* of a class: its units, and their probabilities' sum */
    double repeats; /* of what a token uses, the share that the token before used too; 0: not known */
} pi2_neuron_rates;

/** Adds so many units that a token uses with this probability, 0 .. 1. */
void pi2_neuron_rates_add(pi2_neuron_rates *rates, double probability, double units);

/** The probability that a token uses a unit of so many neurons, than which a share `place` of all is hotter (0 .. below
 *  1), where they fire as assumed. */
double pi2_neuron_assumed_rate(double place, double fires, double visits, uint32_t neurons);

/** Adds units of so many neurons each, which fire as assumed: pi2_neuron_assumed_hits(). visits: share of tokens that
 *  compute the FFN. */
void pi2_neuron_rates_assume(pi2_neuron_rates *rates, double fires, double visits, double units, uint32_t neurons);

/** Units that a token uses. */
double pi2_neuron_rates_used(const pi2_neuron_rates *rates);

/** Of the units that a token uses, the share that so many slots hold; 0 .. 1. 1 where no unit is used. */
double pi2_neuron_rates_hits(const pi2_neuron_rates *rates, double slots);

#endif
