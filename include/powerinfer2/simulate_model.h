/*
 * simulate_model.h: how fast a model's file would run on a machine: one that was measured, here or elsewhere, or one
 * that is described (simulate.h).
 *
 * The run is planned as any other, for the memory that the machine has. Then its passes are taken through the engine's
 * own stores, orders and rules of what leaves, and time is counted instead of taken: nothing is read and nothing
 * computed. What tokens use is what a recorded run used, or it is drawn. The same input gives the same figures.
 */
#ifndef POWERINFER2_SIMULATE_MODEL_H
#define POWERINFER2_SIMULATE_MODEL_H

#include "powerinfer2/plan.h"
#include "powerinfer2/simulate.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PI2_SIMULATED_TOKENS_MOST = 100000 };

typedef struct pi2_model_simulation {
    const pi2_simulated_device *device;  /* what is described; its accelerator is not used. NULL: */
    const pi2_machine_profile *profile;  /* what was measured */
    const char *trace;         /* what passes use: a run recorded with pi2_engine_options.record_trace; NULL: drawn */
    const char *statistics;    /* single neurons that are drawn: how often each fires; NULL: as plans assume */
    uint32_t prompt_tokens;    /* where the trace has no prompt */
    uint32_t tokens;           /* passes after the prompt, 1 to PI2_SIMULATED_TOKENS_MOST; a trace may have fewer */
    uint32_t skipped_tokens;   /* of these, the first so many do not count; fewer than there are */
    uint64_t seed;
} pi2_model_simulation;

typedef struct pi2_model_simulated {
    double tokens_per_second;
    double mean_seconds, p50_seconds, p90_seconds, p99_seconds; /* of a pass */
    double exposed_share;      /* of the time: threads wait for reads */
    double disk_share;         /* of the time: the disk reads */
    double bytes_per_token, reads_per_token;
    double hit_share;          /* of the experts or units that passes used; 1: nothing was chosen */
    double joules_per_token;   /* 0: not described */
    double prompt_seconds;     /* 0: without a prompt; what stays in memory is there before it */
    uint32_t tokens, prompt_tokens, threads; /* that counted; before them */
    char uses[320];            /* by what it is known what tokens use; empty: they use everything */
    char model[128];           /* its name */
    uint64_t budget_bytes, resident_bytes;
} pi2_model_simulated;

/** Sets 128 tokens after a prompt of 16, all of which count, seed 1. */
PI2_API void pi2_model_simulation_init(pi2_model_simulation *simulation);

/**
 * options: as for pi2_plan_make(); memory_bytes is the machine's.
 * Errors  as pi2_plan_make(); of trace and statistics: IO, FORMAT, UNSUPPORTED, INVALID (of another model); INVALID
 *         (numbers of the device or of the simulation, by name; passes that are too many to draw); UNSUPPORTED (what is
 *         not simulated: single neurons of experts, a predictor that reads ahead); MEMORY
 * Threads any, each call by itself
 */
PI2_API pi2_status pi2_simulate_model(const pi2_engine_options *options, const pi2_model_simulation *simulation,
                                      pi2_model_simulated *run_out);

#ifdef __cplusplus
}
#endif

#endif
