/* small_budget.h: engines that are opened with little more memory than the test's own process holds. */
#ifndef PI2_TESTS_SUPPORT_SMALL_BUDGET_H
#define PI2_TESTS_SUPPORT_SMALL_BUDGET_H

#include "powerinfer2/engine.h"

/**
 * Opens an engine whose budget is `more_bytes` beyond what the process holds. A sanitizer's notes and
 * quarantine grow while it opens, and so does what an emulator has translated, by what differs from run to
 * run: under one, a budget that is refused as too small is raised by half a megabyte and tried again, to
 * `more_bytes` + 8 MB at most, under an emulator 16 MB.
 */
pi2_status pi2_small_budget_open(const pi2_engine_options *options, uint64_t more_bytes, pi2_engine **engine_out);

#endif
