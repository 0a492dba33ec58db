/*
 * scheduler.h: which job is computed when.
 *
 * Jobs wait in the order in which they came, a bounded number of them, until one of the engine's sequences is free
 * (slots.h); those that have one are computed together, by the scheduler's thread. Whoever submits knows nothing of
 * that.
 */
#ifndef PI2_CLI_SCHEDULER_H
#define PI2_CLI_SCHEDULER_H

#include "job.h"
#include "powerinfer2/engine.h"
#include "slots.h"

typedef struct pi2_scheduler pi2_scheduler;

/** What the engine's `cancelled` callback asks: begins as {0}, lives longer than engine and scheduler. */
typedef struct pi2_scheduler_watch {
    _Atomic bool is_stopping;
    pi2_slots *slots; /* in a pass of theirs; of the scheduler's thread alone */
} pi2_scheduler_watch;
/** pi2_callbacks.cancelled with a watch as its user: the server ends, or nobody waits for what is computed. */
bool pi2_scheduler_is_cancelled(void *watch);

/** What pi2_callbacks.progress tells of prompts, for the jobs that are computed; false: it is of other work. */
bool pi2_scheduler_note_progress(const pi2_scheduler_watch *watch, const char *what, uint64_t done, uint64_t total);

/** Makes slots of the engine's sequences and starts the thread. queue_most: jobs that wait at most. Errors  MEMORY */
pi2_status pi2_scheduler_create(pi2_engine *engine, pi2_scheduler_watch *watch, size_t queue_most,
                                pi2_scheduler **scheduler_out);
/** Ends the running jobs and those that wait, as interrupted; no job is taken from then on. */
void pi2_scheduler_stop(pi2_scheduler *scheduler);
/** After stop, when nobody submits any more. NULL is fine. */
void pi2_scheduler_free(pi2_scheduler *scheduler);
/** Asks for so many sequences, and for the memory that slots, and jobs that run and wait, have beside the engine. */
void pi2_scheduler_plan(pi2_engine_options *options, uint32_t slots, size_t queue_most);

/** Takes all of the jobs, or none: the queue has not room for them, or the server ends; they are as they were then. */
bool pi2_scheduler_submit(pi2_scheduler *scheduler, pi2_job *const *jobs, size_t count);
/** Returns when the job is done; it ends at once where it is no longer wanted (pi2_job_look_after()), or cancel is. */
void pi2_scheduler_finish(pi2_scheduler *scheduler, pi2_job *job, bool cancel);
/** A reader has taken from a job that was held. */
void pi2_scheduler_wake(pi2_scheduler *scheduler);

typedef struct pi2_scheduler_counts {
    uint64_t requests, refused;
    size_t waiting, queue_most;
    pi2_slots_counts slots;       /* as of the last pass */
    pi2_engine_counters counters; /* the same */
} pi2_scheduler_counts;
void pi2_scheduler_count(pi2_scheduler *scheduler, pi2_scheduler_counts *counts_out);
/** Of slot `index`, below counts.slots.slots, as of the last pass. */
pi2_slot_report pi2_scheduler_slot(pi2_scheduler *scheduler, uint32_t index);

#endif
