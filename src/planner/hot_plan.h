/*
 * hot_plan.h: chooses a hot set from a recorded run: experts by how often they were used, for that share of the
 * slots which reads least. It is tried on the half of the run that the frequencies are not of, cut into runs of 64
 * tokens: each begins with an empty cache, and the reads of the hot set count.
 */
#ifndef PI2_PLANNER_HOT_PLAN_H
#define PI2_PLANNER_HOT_PLAN_H

#include "neuron_cache/cache_policy.h"
#include "neuron_cache/cache_trace.h"

enum { PI2_HOT_SHARES = 5 };
/** Shares that are tried: 0, 1/8, 1/4, 1/2, 3/4. */
extern const double pi2_hot_shares[PI2_HOT_SHARES];

typedef struct pi2_hot_plan {
    double share;          /* of the slots */
    uint32_t *keys, count; /* hot experts, ascending; pi2_hot_plan_free() */
    uint32_t passes;       /* that the choice was tried on; 0: it was given, or the trace is too short to choose */
    double reads[PI2_HOT_SHARES]; /* of each share that was tried: experts read, over uses */
} pi2_hot_plan;

/**
 * share   0 .. 0.75 of the slots; negative: chosen. It is 0 unless another reads a fiftieth less: where all
 *         experts are alike, less than that is chance
 * Errors  MEMORY
 */
pi2_status pi2_hot_plan_make(const pi2_trace *trace, const pi2_cache_policy *policy, uint32_t slot_count, double share,
                             pi2_hot_plan *plan_out);
/** The same with a share that is given, by the uses of the first passes only. */
pi2_status pi2_hot_plan_choose(const pi2_trace *trace, uint32_t passes, uint32_t slot_count, double share,
                               pi2_hot_plan *plan_out);
void pi2_hot_plan_free(pi2_hot_plan *plan);

#endif
