/*
 * simulated_neurons.h: which neurons a pass uses, and which of them it finds: drawn, and kept by the policy that keeps
 * neurons in a run (neuron_cache/cache_policy.h). Neurons lie in the order of how often they fire.
 */
#ifndef PI2_SIMULATOR_SIMULATED_NEURONS_H
#define PI2_SIMULATOR_SIMULATED_NEURONS_H

#include "simulator/simulated_layer.h"

typedef struct pi2_simulated_neurons pi2_simulated_neurons;

/** slots: cold neurons of all layers that memory holds. Errors  INVALID (policy), MEMORY */
pi2_status pi2_simulated_neurons_create(const pi2_simulated_model *model, const pi2_simulation *simulation,
                                        double hot_share, uint32_t slots, pi2_simulated_neurons **neurons_out);
void pi2_simulated_neurons_free(pi2_simulated_neurons *neurons); /* NULL is fine */
/** Hot neurons of each expert: the first ones. */
uint32_t pi2_simulated_neurons_hot(const pi2_simulated_neurons *neurons);
void pi2_simulated_neurons_begin_pass(pi2_simulated_neurons *neurons);
/** Draws what a layer uses and books it; sets the work's parts. Returns the experts that it uses. */
uint32_t pi2_simulated_neurons_draw(pi2_simulated_neurons *neurons, uint32_t layer, pi2_simulated_work *work);

#endif
