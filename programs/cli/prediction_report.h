/* prediction_report.h: what the machine profile said beforehand, beside what a run measured. */
#ifndef PI2_CLI_PREDICTION_REPORT_H
#define PI2_CLI_PREDICTION_REPORT_H

#include <jansson.h>

#include "generation.h"

/** Says on stderr how fast prompt and answer should have been and were, or how to make a profile that tells. */
void pi2_cli_note_prediction(const pi2_engine *engine, const pi2_cli_generation *generation);
/** Prompt and answer in tokens a second, predicted and measured; null without a profile of this machine. */
json_t *pi2_cli_predicted_json(const pi2_engine *engine, const pi2_cli_generation *generation);
/** What the next predictions go by: of mixtures of experts the routing of this trace, of single neurons these
 *  statistics; NULL: what is assumed without. */
void pi2_cli_predict_with(const char *trace_path, const char *statistics_path);

/** By how many percent predicted is off measured, both as they are shown with so many digits. */
double pi2_cli_percent_off(double predicted, double measured, int digits);

/** One test of bench. */
typedef struct pi2_cli_bench_case {
    uint32_t prompt, answer, depth, repetitions;
    uint32_t warm_tokens; /* of the longest prompt before */
    bool is_cold;         /* one prompt, before which nothing was computed: what stays in memory is read for it */
    bool fills_neurons;   /* no token was decoded before: the first one reads the neurons that stay in memory */
} pi2_cli_bench_case;

/** Adds predicted_ts and predicted_error (predicted / actual - 1) to a result of bench that is of a
 *  prompt or of an answer alone; nothing without a profile. */
void pi2_cli_add_predicted(json_t *result, const pi2_engine *engine, const pi2_cli_bench_case *bench);

#endif
