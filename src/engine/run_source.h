/* run_source.h: opens what a run is planned on, and plans it (planner/planned_run.h). */
#ifndef PI2_ENGINE_RUN_SOURCE_H
#define PI2_ENGINE_RUN_SOURCE_H

#include "engine/run_trace.h"
#include "file_formats/gguf.h"
#include "planner/planned_run.h"

/** Stacks, code that has not run yet, the ring of the I/O thread, malloc's slack. */
enum { PI2_RUN_GROWTH_BYTES = 900 * 1000 };

/**
 * Opens the model that the options name. run: zeroed; closed by the caller, whatever is returned. gguf_out: the file,
 * which stays open; pi2_gguf_close() by the caller.
 * Errors  INVALID (options), UNSUPPORTED, FORMAT (why the model cannot run), IO, MEMORY
 */
pi2_status pi2_planned_run_open(const pi2_engine_options *options, pi2_planned_run *run, pi2_gguf **gguf_out);

/**
 * Chooses the file that the weights come from and plans the run. is_to_run: a cluster file that is missing is made, or
 * its lack is an error; else the plan is one for weights that would have it. trace: of the run; may be NULL. *gguf: as
 * it was opened; NULL afterwards where weights come from a cluster file.
 * Errors  as pi2_engine_open()
 */
pi2_status pi2_planned_run_settle(pi2_planned_run *run, bool is_to_run, const pi2_run_trace *trace, pi2_gguf **gguf);

/** Spends the budget of an opened run by its options. Errors  as pi2_memory_plan_make() */
pi2_status pi2_planned_run_spend(pi2_planned_run *run);
/** Tokens that may be guessed ahead: what the options ask for, or 0 where guesses cannot be. */
uint32_t pi2_planned_run_draft_tokens(const pi2_planned_run *run);
/** Of a guess that parts, as many as are wanted; 0: guesses are chains. */
uint32_t pi2_planned_run_draft_nodes(const pi2_planned_run *run);

/** Both, for a run that does not begin. Errors as pi2_plan_make(). The run is closed by the caller all the same. */
pi2_status pi2_planned_run_make(const pi2_engine_options *options, pi2_planned_run *run);

/** Finds the weights and makes a predictor of them, as run->plan.predictor_recipe and _path say; nothing is planned.
 *  Errors  as pi2_predictor_make() */
pi2_status pi2_planned_run_make_predictor(const pi2_engine_options *options, pi2_planned_run *run);

/** Frees what it holds, but not itself. */
void pi2_planned_run_close(pi2_planned_run *run);

#endif
