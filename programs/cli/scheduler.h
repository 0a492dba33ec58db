/*
 * scheduler.h: which job is computed when.
 *
 * Jobs wait in the order in which they came, a bounded number of them, and one at a time is computed. Whoever submits
 * knows nothing of that: an engine that holds many sequences changes this file's inside alone. What the session holds
 * of the last conversation is not computed again where the next prompt begins with the same tokens.
 */
#ifndef PI2_CLI_SCHEDULER_H
#define PI2_CLI_SCHEDULER_H

#include "job.h"
#include "powerinfer2/engine.h"

typedef struct pi2_scheduler pi2_scheduler;

/** What the engine's `cancelled` callback asks: begins as {0}, lives longer than engine and scheduler. */
typedef struct pi2_scheduler_watch {
    _Atomic bool is_stopping;
    pi2_job *job; /* of the scheduler's thread alone */
} pi2_scheduler_watch;
/** pi2_callbacks.cancelled with a watch as its user: the server ends, or the client has gone. */
bool pi2_scheduler_is_cancelled(void *watch);

/** What pi2_callbacks.progress tells of a prompt, for the job that is computed; false: there is none, or other work. */
bool pi2_scheduler_note_progress(pi2_scheduler_watch *watch, const char *what, uint64_t done, uint64_t total);

/** Makes a session of the engine and starts the thread. queue_most: jobs that wait at most. Errors  MEMORY, INVALID */
pi2_status pi2_scheduler_create(pi2_engine *engine, pi2_scheduler_watch *watch, size_t queue_most,
                                pi2_scheduler **scheduler_out);
/** Ends the running job and those that wait, as interrupted; no job is taken from then on. */
void pi2_scheduler_stop(pi2_scheduler *scheduler);
/** After stop, when nobody submits any more. */
void pi2_scheduler_free(pi2_scheduler *scheduler);

/** False: the queue is full, or the server ends; the job is as it was. */
bool pi2_scheduler_submit(pi2_scheduler *scheduler, pi2_job *job);
/** Returns when the job is done. cancel: it is no longer wanted. */
void pi2_scheduler_finish(pi2_scheduler *scheduler, pi2_job *job, bool cancel);

typedef struct pi2_scheduler_counts {
    uint64_t requests, refused, prompt_tokens, cached_tokens, answer_tokens;
    double prompt_seconds, answer_seconds;
    size_t running, waiting, queue_most;
    size_t timeline_tokens;       /* that the session holds */
    pi2_engine_counters counters; /* as of the last token */
} pi2_scheduler_counts;
void pi2_scheduler_count(pi2_scheduler *scheduler, pi2_scheduler_counts *counts_out);

#endif
