/* simulated_stores.h: the stores of a planned run, over a disk that is described: their own code, and no memory. */
#ifndef PI2_SIMULATOR_SIMULATED_STORES_H
#define PI2_SIMULATOR_SIMULATED_STORES_H

#include "neuron_cache/expert_cache.h"
#include "neuron_cache/neuron_store.h"
#include "neuron_cache/weight_store.h"
#include "planner/planned_run.h"
#include "simulator/simulated_disk.h"

typedef struct pi2_simulated_stores {
    pi2_store *store;
    pi2_weight_store *weights;
    pi2_expert_cache *experts;     /* NULL: a dense model */
    pi2_neuron_store *neurons;     /* NULL: passes are dense */
    void *ring, *resident, *slots, *units; /* addresses only */
    size_t ring_bytes, resident_bytes, slot_bytes, unit_bytes;
} pi2_simulated_stores;

/**
 * run outlives them, and its weights have their places in a file. Where the plan keeps everything and streams nothing,
 * all is there from the start. Errors  MEMORY, INVALID
 */
pi2_status pi2_simulated_stores_open(const pi2_planned_run *run, pi2_simulated_disk *disk,
                                     pi2_simulated_stores *stores);
void pi2_simulated_stores_close(pi2_simulated_stores *stores);

#endif
