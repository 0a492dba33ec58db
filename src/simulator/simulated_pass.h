/*
 * simulated_pass.h: a pass of a planned run, by the clock that is counted: its stages in the engine's order, through
 * the stores. All threads together are one that is as fast: they share each stage's work out, and wait for the same
 * reads. What a stage computes takes as long as the machine's profile has it.
 */
#ifndef PI2_SIMULATOR_SIMULATED_PASS_H
#define PI2_SIMULATOR_SIMULATED_PASS_H

#include "planner/planned_run.h"
#include "planner/prediction.h"
#include "simulator/simulated_stores.h"
#include "simulator/simulated_uses.h"

enum { PI2_SIMULATED_SPEEDS = 256 };

/** What a byte of matrices of one type and width takes in a pass of so many tokens. */
typedef struct pi2_simulated_speed {
    const char *type;
    uint32_t columns, tokens;
    double seconds;
} pi2_simulated_speed;

typedef struct pi2_simulated_walk {
    const pi2_planned_run *run;
    const pi2_machine_profile *profile;
    const pi2_workload *workload;
    pi2_simulated_disk *disk;
    pi2_simulated_stores *stores;
    pi2_simulated_uses *uses;
    double layer_seconds;          /* of a layer, beside all that the profile has */
    double neuron_efficiency;      /* of the speed of whole matrices, of rows that lie apart */
    double computing, waiting;     /* seconds, since it was set up */
    /* of the pass under way */
    uint32_t tokens, position;
    double fixed_seconds;          /* of a layer, between matrices */
    double gate_seconds, neuron_seconds, column_seconds; /* of a layer's Gate; of a used unit's Up, and Down */
    double find_seconds, bring_seconds; /* of a used unit in the store; of one more that is not there */
    /* the rest is its own */
    pi2_simulated_speed speeds[PI2_SIMULATED_SPEEDS];
    uint32_t speed_count;
    uint32_t *bank_of;             /* [layers]; PI2_NO_RUN: it has none */
    uint32_t *late, *late_first;   /* units of a layer by the part of Gate that names them, and where parts begin */
    uint32_t *expert_keys;         /* of a layer's demand */
    uint32_t *expert_groups;       /* [keys]: the layout's group */
    pi2_batch_use *alike;          /* [experts of a layer] */
} pi2_simulated_walk;

/** What the first members point to outlives it; the others are 0. Errors  MEMORY */
pi2_status pi2_simulated_walk_begin(pi2_simulated_walk *walk);
void pi2_simulated_walk_end(pi2_simulated_walk *walk);

/**
 * Computes tokens from a position on. has_uses: `uses` is of this pass; without, all neurons are computed (a dense
 * model's, or a prompt's). Errors  MEMORY (a layer's experts find no slots)
 */
pi2_status pi2_simulated_walk_pass(pi2_simulated_walk *walk, uint32_t tokens, uint32_t position, bool has_uses);

#endif
