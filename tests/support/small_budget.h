/* small_budget.h: engines that are opened with little more memory than the test's own process holds. */
#ifndef PI2_TESTS_SUPPORT_SMALL_BUDGET_H
#define PI2_TESTS_SUPPORT_SMALL_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/engine.h"

/**
 * Opens an engine whose budget is `more_bytes` beyond what the process holds. A sanitizer's notes and
 * quarantine grow while it opens, and so does what an emulator has translated, by what differs from run to
 * run: under one, a budget that is refused as too small is raised by half a megabyte and tried again, to
 * `more_bytes` + 8 MB at most, under an emulator 16 MB.
 */
pi2_status pi2_small_budget_open(const pi2_engine_options *options, uint64_t more_bytes, pi2_engine **engine_out);
/** The least multiple of `step`, at most about `steps` of it, that is enough; what is enough of less is taken to be so
 *  of more. The last that is_enough() was asked for and found enough is the one that is returned. 0: none is. */
uint64_t pi2_small_budget_least(uint64_t step, uint64_t steps, bool (*is_enough)(uint64_t more_bytes, void *user),
                                void *user);

#endif
