/* guard_report.h: the guard of a model at the start of a run in an approximate mode. */
#ifndef PI2_CLI_GUARD_REPORT_H
#define PI2_CLI_GUARD_REPORT_H

#include "options.h"
#include "powerinfer2/engine.h"
#include "powerinfer2/guard.h"

typedef struct pi2_cli_guard_settings {
    const char *guard, *on_divergence;
    double most;   /* --max-divergence; negative: any */
} pi2_cli_guard_settings;

pi2_cli_section pi2_cli_guard_section(pi2_cli_guard_settings *settings);

/** Whether the options ask for something that makes results differ from the exact ones. */
bool pi2_cli_asks_approximate(const pi2_engine_options *options);
/** Takes that out of them. */
void pi2_cli_make_exact(pi2_engine_options *options);

/** The guard that the options name, or the one beside the weights or the model; *guard_out NULL: there is none.
 *  Errors  as pi2_guard_read() */
pi2_status pi2_cli_find_guard(const pi2_cli_guard_settings *settings, const char *weights_path, const char *model_path,
                              pi2_guard **guard_out);

/**
 * Tells what the mode of an engine was measured to cost, and checks it against the limit. options: those that it was
 * opened with, identifies_weights where pi2_cli_asks_approximate().
 * falls_back_out: the run shall be exact instead. Returns PI2_CLI_GO_ON, or an exit code after an error line.
 */
int pi2_cli_check_guard(const pi2_cli_guard_settings *settings, const pi2_engine *engine,
                        const pi2_engine_options *options, bool *falls_back_out);

/**
 * Opens an engine whose mode costs at most what was allowed, or in the exact one where that shall be; chooses it first
 * where the options leave that open (mode_choice.h); sets
 * options->identifies_weights. Returns PI2_EXIT_OK, or an exit code after an error line. *engine_out: the caller's to
 * close in both cases; NULL: none was opened.
 */
int pi2_cli_open_within_guard(const pi2_cli_guard_settings *settings, pi2_engine_options *options,
                              pi2_engine **engine_out);

/** The same as pi2_cli_check_guard() without a limit, for commands that measure an approximate mode. */
int pi2_cli_tell_guard(const pi2_engine *engine, const pi2_engine_options *options);

#endif
