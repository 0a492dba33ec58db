/* run_prediction_neurons.h: what a plan knows of single neurons. */
#ifndef PI2_PLANNER_RUN_PREDICTION_NEURONS_H
#define PI2_PLANNER_RUN_PREDICTION_NEURONS_H

#include "planner/neuron_forecast.h"
#include "planner/planned_run.h"
#include "planner/prediction.h"

/** How often units are used, and by what that is known. */
typedef struct pi2_neuron_firing pi2_neuron_firing;
/** Reads the statistics of the run's options, if there are some, for all predictions to come: while no weight is in
 *  memory. What is wrong with them is kept, and told by those. Errors  MEMORY */
pi2_status pi2_neuron_firing_learn(pi2_planned_run *run);
/** NULL is fine. */
void pi2_neuron_firing_free(pi2_neuron_firing *known);

typedef struct pi2_neuron_plan {
    pi2_neuron_rates rates;
    char grounds[192];
} pi2_neuron_plan;

/** What passes by neuron do with a tensor of the layout; PLAIN where none go by neuron. */
pi2_weight_role pi2_run_role_of(const pi2_planned_run *run, uint32_t tensor);

/**
 * Fills in what the prediction of decoding by neuron goes by; both zeroed where passes are dense. streamed_bytes: of a
 * dense pass.
 * Errors  of the statistics: IO, FORMAT (damaged, of another model), UNSUPPORTED, INVALID (passes are dense); MEMORY
 */
pi2_status pi2_run_predict_neurons(const pi2_planned_run *run, uint64_t streamed_bytes,
                                   const pi2_prediction_request *request, pi2_neuron_plan *plan_out,
                                   pi2_workload_neurons *neurons_out);

/**
 * The probability that a token uses a unit, of all units of all banks, in their order; by the statistics, or, NULL, as
 * assumed, the first units being the hottest. grounds: what is known, in words.
 * Errors  of the statistics, as above; MEMORY
 */
pi2_status pi2_run_unit_rates(const pi2_planned_run *run, const char *statistics, float *rates_out, char *grounds,
                              size_t capacity);

#endif
