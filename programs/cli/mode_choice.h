/* mode_choice.h: whether leaving neurons out pays, and which of the measured modes is the fastest: by predictions. */
#ifndef PI2_CLI_MODE_CHOICE_H
#define PI2_CLI_MODE_CHOICE_H

#include "guard_report.h"
#include "powerinfer2/plan.h"

/** --sparsity best: the fastest of the exact mode and those that 'verify' measured within --max-divergence. */
#define PI2_CLI_BEST_SPARSITY "best"

/** Whether the options leave neurons out, as they are. */
bool pi2_cli_leaves_out(const pi2_engine_options *options);

/**
 * What the same run would be predicted to do with all neurons. request: of both plans.
 * Errors  as pi2_plan_make()
 */
pi2_status pi2_cli_predict_exact(const pi2_engine_options *options, const pi2_machine_profile *profile,
                                 const pi2_prediction_request *request, pi2_speed *speed_out);
/** "it pays, 1.80 times", or that it does not. */
void pi2_cli_say_gain(const pi2_speed *with, const pi2_speed *without, char *text, size_t capacity);

/** Tells of a run that left neurons out what is predicted of it, with and without; nothing where that is not known: the
 *  machine was not measured. Once its engine is closed: plans take memory that the run should have. */
void pi2_cli_tell_gain(const pi2_engine_options *options);

/**
 * Where the options ask for the best sparsity: chooses it, and says by what; the texts that the options point to live
 * as long as the process. Others are left alone. profile NULL: the kept one.
 * Returns PI2_EXIT_OK, or an exit code after an error line (no limit; the machine was not measured; the guard).
 */
int pi2_cli_choose_mode(const pi2_cli_guard_settings *settings, const pi2_machine_profile *profile,
                        pi2_engine_options *options);

#endif
