/*
 * memory_relief.h: weights are given back to the system while others need the memory, and taken again
 * afterwards. docs/memory.md tells what is watched and how much moves when.
 *
 * The engine asks between passes and after each layer of a pass. What a pass is done with can leave at
 * once: resident extents begin to stream, experts' slots close. So the text does not change, only the
 * bytes that are read.
 */
#ifndef PI2_ENGINE_MEMORY_RELIEF_H
#define PI2_ENGINE_MEMORY_RELIEF_H

#include "base/memory_pressure.h"
#include "powerinfer2/engine.h"

/** What decides when how much moves. Pure; for tests too. */
typedef struct pi2_relief_decision {
    uint64_t planned_bytes, least_bytes, step_bytes; /* of weights that can move */
    uint64_t calm_since_ns;     /* since when nothing was missing */
    uint64_t passes, taken_at_pass;
    int64_t last_level;         /* spare less missing bytes of the last reading */
} pi2_relief_decision;

/**
 * Bytes to take again (> 0) or to give back (< 0), of held_bytes that are held now. Gives what is
 * missing, and as much again as has just been taken by others, a step at least. Takes a step at a time,
 * when for some seconds nothing was missing, what was taken before has been read, and it is to spare.
 */
int64_t pi2_relief_decide(pi2_relief_decision *decision, const pi2_memory_reading *reading, uint64_t now_ns,
                          uint64_t held_bytes);

typedef struct pi2_memory_relief pi2_memory_relief;

/** Begins to watch. The engine has its threads and weights' memory. Errors  MEMORY */
pi2_status pi2_engine_start_relief(pi2_engine *engine);
void pi2_memory_relief_free(pi2_memory_relief *relief);
/** Memory that it takes. */
size_t pi2_memory_relief_bytes(void);

/**
 * Looks whether memory is short, at most every 50 ms, and moves what should move.
 * layers_done: layers that the running pass is done with; UINT32_MAX: no pass runs.
 * Threads: one at a time.
 */
void pi2_engine_relieve(pi2_engine *engine, uint32_t layers_done);

/**
 * Before a pass that fills the key-value cache up to its first `positions` positions, after which it will fill about
 * `next` more: weights leave the room that the cache lent them and now needs itself (pi2_memory_plan.loan_bytes). It is
 * not lent again. Threads: no pass runs.
 */
void pi2_engine_end_loan(pi2_engine *engine, uint32_t positions, uint32_t next);

/** Adds what was moved. */
void pi2_memory_relief_count(const pi2_engine *engine, pi2_engine_counters *counters);
/** What is watched, in words, or why weights cannot be given back. */
const char *pi2_memory_relief_description(const pi2_engine *engine);

/**
 * For tests: `wanted` is asked instead of the system, at every call of pi2_engine_relieve(), how many of
 * the planned bytes should be held. An engine that does not give back weights ignores it.
 */
void pi2_engine_simulate_pressure(pi2_engine *engine, uint64_t (*wanted)(void *user, uint64_t planned_bytes),
                                  void *user);

#endif
