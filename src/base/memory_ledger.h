/*
 * memory_ledger.h: memory that this process will come to hold, because engines that are open were planned with it.
 *
 * Much of what an engine reserves is touched late: a key-value cache grows with the text, weights are read by the first
 * pass. Who plans next must not take that for free. An engine claims what its plan adds to the process when it
 * opens, and takes the claim back when it closes. Engines that open at the same time are planned one after another,
 * each behind the claim of the one before. Threads: any.
 */
#ifndef PI2_BASE_MEMORY_LEDGER_H
#define PI2_BASE_MEMORY_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

/** Between them one thread plans and claims, which may take long where a cluster file is made; another that begins to
 *  waits, and asks now and then whether it shall no longer (NULL: it shall). False: it did not begin. */
bool pi2_memory_begin_plan(bool (*cancelled)(void *user), void *user);
void pi2_memory_end_plan(void);

/** held_bytes: what the process held when the plan was made, as pi2_memory_spoken_for() told; bytes: beside that. */
void pi2_memory_claim(uint64_t held_bytes, uint64_t bytes);
void pi2_memory_unclaim(uint64_t bytes);

/** What counts as held where the process holds so much now: that, or what it will with all claims, if that is more. */
uint64_t pi2_memory_spoken_for(uint64_t held_bytes);

#endif
