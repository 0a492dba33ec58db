/* run_prediction.h: how fast a planned run will be on a measured machine. */
#ifndef PI2_PLANNER_RUN_PREDICTION_H
#define PI2_PLANNER_RUN_PREDICTION_H

#include "planner/planned_run.h"
#include "planner/prediction.h"

/** What would make it faster, and whether a prompt's batch is long enough to hide its reads. */
typedef struct pi2_run_advice {
    pi2_advice list[PI2_ADVICE_MOST];
    size_t count;
    pi2_batch_check batch;
} pi2_run_advice;

/**
 * request: complete. advice_out: zeroed by the caller; NULL: not wanted
 * Errors  UNSUPPORTED (the disk was not measured), of the request's files: IO, FORMAT, INVALID; MEMORY
 */
pi2_status pi2_run_predict(const pi2_planned_run *run, const pi2_machine_profile *profile,
                           const pi2_prediction_request *request, pi2_prediction *prediction_out,
                           pi2_run_advice *advice_out);

/** What decides about its speed, as that is predicted. Errors  as pi2_run_predict() */
pi2_status pi2_run_workload(const pi2_planned_run *run, const pi2_machine_profile *profile,
                            const pi2_prediction_request *request, pi2_workload *workload_out);

#endif
