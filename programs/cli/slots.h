/*
 * slots.h: jobs that are computed together: each has a sequence of the engine, and a pass computes for all of them.
 *
 * A pass takes the next token of every answer and a slice of the prompts that are being read, which take turns; the
 * slice costs about as much as the rest of the pass, so that a long prompt slows the answers and does not stop them.
 * Each answer is the one that its job has alone, to the bit.
 *
 * What a slot holds of earlier prompts and answers is not computed again where a new prompt begins with the same
 * tokens: the job gets that slot, or a copy of what another slot holds, also of one that is at work. A job whose prompt
 * another one is just reading waits for that and goes on from a copy.
 *
 * One thread uses slots; jobs are shared with those who wait for them (job.h).
 */
#ifndef PI2_CLI_SLOTS_H
#define PI2_CLI_SLOTS_H

#include "job.h"
#include "powerinfer2/engine.h"

typedef struct pi2_slots pi2_slots;

/** As many slots as the engine has sequences. Errors  MEMORY */
pi2_status pi2_slots_create(pi2_engine *engine, pi2_slots **slots_out);
/** NULL is fine. Its jobs must have ended. */
void pi2_slots_free(pi2_slots *slots);

/** Whether a slot is free. */
bool pi2_slots_have_room(const pi2_slots *slots);
/** Gives the job a free slot. */
void pi2_slots_admit(pi2_slots *slots, pi2_job *job);
/**
 * One pass for the jobs that can go on; those that end are done (PI2_JOB_DONE) when it returns. False: nothing can be
 * computed before a job comes or a reader takes text.
 */
bool pi2_slots_step(pi2_slots *slots);
/** When the first of the jobs has to end (pi2_job.deadline_ns), which pi2_slots_step() sees to; 0: never. */
uint64_t pi2_slots_deadline(const pi2_slots *slots);
/** Ends every job as interrupted. */
void pi2_slots_end_all(pi2_slots *slots);

/** From the engine's callbacks: whether a pass is computed, and nobody waits for any of its jobs any more. */
bool pi2_slots_are_unwanted(const pi2_slots *slots);
/** The same: how far a pass is, of `total`; told to the jobs whose prompts it reads. */
void pi2_slots_note_progress(const pi2_slots *slots, uint64_t done, uint64_t total);

typedef enum pi2_slot_state {
    PI2_SLOT_IDLE, PI2_SLOT_FOLLOWS, PI2_SLOT_READS, PI2_SLOT_DECODES,
    PI2_SLOT_HELD /* in reports: decodes, but its reader is behind */
} pi2_slot_state;
/** "idle", "waiting" (for another slot's prompt), "prompt", "decoding", "held". */
const char *pi2_slot_state_name(pi2_slot_state state);

/** What a slot does, and what it has done since it was made. */
typedef struct pi2_slot_report {
    pi2_slot_state state;
    uint32_t timeline_tokens;                /* that it holds */
    uint32_t prompt_tokens, cached_tokens, answer_tokens; /* of its present job */
    uint64_t all_jobs, all_prompt_tokens, all_cached_tokens, all_answer_tokens;
} pi2_slot_report;

typedef struct pi2_slots_counts {
    uint64_t prompt_tokens, cached_tokens, answer_tokens; /* of all jobs, as they are computed */
    double prompt_seconds, answer_seconds;   /* of jobs that have ended; of several at a time they add up */
    uint64_t passes, passes_slots;           /* slots that had a part in them, all passes together */
    uint32_t slots, running;
} pi2_slots_counts;
/** reports_out: [slots]. */
void pi2_slots_count(const pi2_slots *slots, pi2_slots_counts *counts_out, pi2_slot_report *reports_out);

#endif
