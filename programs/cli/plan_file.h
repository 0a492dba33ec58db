/* plan_file.h: a plan as JSON, and its use by a run. */
#ifndef PI2_CLI_PLAN_FILE_H
#define PI2_CLI_PLAN_FILE_H

#include <jansson.h>

#include "powerinfer2/plan.h"

/** The plan's object; NULL without memory. request: what it was predicted for. */
json_t *pi2_cli_plan_json(const pi2_plan *plan, const pi2_machine_profile *profile, const pi2_engine_options *options,
                          const pi2_prediction_request *request);
/** The routing trace that the plan was made with; NULL: none. Lives as long as the plan. */
const char *pi2_cli_plan_routing_trace(const json_t *plan);
/** Likewise, the statistics of neurons. */
const char *pi2_cli_plan_statistics(const json_t *plan);

/**
 * Reads a plan file and fills those of the options that are 0 with its parameters: memory, context,
 * batch and threads; the read method and the cache policy where they are "auto"; the cache type
 * where it is f16; sparsity "off"; and the share of hot experts where it is negative. Refuses, by line or field, what
 * is no plan, or has numbers or words that no run takes, or is of another version or machine; the options
 * are then as they were. *plan_out keeps the object, in which their texts lie, for
 * pi2_cli_plan_check_model(): json_decref() it after the options' use.
 * Returns PI2_EXIT_OK, or the exit code after an error line.
 */
int pi2_cli_plan_read(const char *path, pi2_engine_options *options, json_t **plan_out);
/** Refuses a plan of another model than the one that the options name: reads its header. Returns
 *  PI2_EXIT_OK, or the exit code after an error line. */
int pi2_cli_plan_check_model(const char *path, const json_t *plan, const pi2_engine_options *options);

#endif
