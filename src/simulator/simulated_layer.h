/*
 * simulated_layer.h: a layer of a pass in counted time: threads that take ready work, an accelerator, and a disk.
 *
 * Work comes in the five stages of PowerInfer-2 (section 4.4): a part of the predictor names neurons; of those that are
 * there Gate is computed by clusters; of the others Gate is read first; of those that fire Up and Down are computed,
 * and read before where they are not there. A free thread takes what is ready: parts of the predictor first, since
 * reads wait for them, then Up and Down, then Gate. Without the pipeline nothing of a stage begins before all of the
 * one before has ended.
 */
#ifndef PI2_SIMULATOR_SIMULATED_LAYER_H
#define PI2_SIMULATOR_SIMULATED_LAYER_H

#include "powerinfer2/simulate.h"

enum { PI2_SIMULATED_PARTS = 16 /* of a layer's predictor */ };

/** What a part of the predictor names: neurons that are there, and neurons that must be read. */
typedef struct pi2_simulated_part {
    uint32_t hits, hit_fires, misses, miss_fires;
} pi2_simulated_part;

typedef struct pi2_simulated_work {
    pi2_simulated_part parts[PI2_SIMULATED_PARTS];
    double dense_bytes;     /* attention's and what goes with it, by processor and accelerator */
    double predictor_bytes; /* of all parts */
    double hot_bytes;       /* that the accelerator computes meanwhile */
} pi2_simulated_work;

/** Sums over layers, in seconds and counts. */
typedef struct pi2_simulated_sums {
    double seconds, exposed_seconds, thread_seconds, accelerator_seconds, disk_seconds, bytes, reads;
} pi2_simulated_sums;

typedef struct pi2_simulated_layer pi2_simulated_layer;

/** Room for a layer of a model with these descriptions, which outlive it. NULL: no memory. Freed by free(). */
pi2_simulated_layer *pi2_simulated_layer_create(const pi2_simulated_device *device, const pi2_simulated_model *model,
                                                const pi2_simulation *simulation);
/** Runs one layer; no memory is taken. One thread. */
void pi2_simulated_layer_run(pi2_simulated_layer *layer, const pi2_simulated_work *work, pi2_simulated_sums *sums);
bool pi2_simulated_has_accelerator(const pi2_simulated_device *device, const pi2_simulation *simulation);
/** Seconds of a part that all tokens use whole, with the accelerator where there is one. */
double pi2_simulated_dense_seconds(const pi2_simulated_device *device, const pi2_simulated_model *model,
                                   const pi2_simulation *simulation, double bytes);
/** Seconds that the disk takes for each of many reads of so many bytes. */
double pi2_simulated_read_seconds(const pi2_simulated_device *device, double bytes);

#endif
