/*
 * choices.h: tasks that offer several endings of a context, one of which is right: which one a model expects most
 * (docs/evaluation.md).
 */
#ifndef POWERINFER2_CHOICES_H
#define POWERINFER2_CHOICES_H

#include "powerinfer2/session.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PI2_CHOICES_MOST = 64 };

/* ---- tasks ---- */

/** HELLASWAG: six lines a task (context, number of the right ending, four endings). JSON_LINES: one object a line, of
 *  "context", "choices" and "answer". */
typedef enum pi2_choice_format { PI2_CHOICES_HELLASWAG, PI2_CHOICES_JSON_LINES } pi2_choice_format;

/** Text of a task; not ended by a NUL. */
typedef struct pi2_choice_text {
    const char *text;
    size_t length;
} pi2_choice_text;

typedef struct pi2_choice_task {
    pi2_choice_text context, choices[PI2_CHOICES_MOST];
    uint32_t choice_count, answer; /* 2 or more; the right one, from 0 */
    bool is_joined;                /* a choice follows the context as it is, without a space between */
} pi2_choice_task;

typedef struct pi2_choice_file pi2_choice_file;

/**
 * Reads a file of tasks whole, of 256 MB at most, and checks every one.
 * Errors  FORMAT (line and what is wrong with it; no task at all), UNSUPPORTED (too large), IO, MEMORY
 */
PI2_API pi2_status pi2_choice_file_open(const char *path, pi2_choice_format format, pi2_choice_file **file_out);
PI2_API void pi2_choice_file_close(pi2_choice_file *file);
PI2_API uint64_t pi2_choice_file_count(const pi2_choice_file *file);
/** By which files of the same tasks are known: XXH3 64 of their bytes. */
PI2_API uint64_t pi2_choice_file_hash(const pi2_choice_file *file);
/** The next task, which lives until the next call; behind the last one the first. Errors  MEMORY */
PI2_API pi2_status pi2_choice_file_next(pi2_choice_file *file, pi2_choice_task *task_out);

/* ---- what a model picks ---- */

/** How the logarithms of the probabilities of an ending's tokens become its score: their sum, the sum by the number of
 *  tokens (llama-perplexity), or by that of characters (acc_norm of lm-evaluation-harness). */
typedef enum pi2_choice_rule { PI2_CHOICE_SUM, PI2_CHOICE_PER_TOKEN, PI2_CHOICE_PER_CHARACTER, PI2_CHOICE_RULES }
    pi2_choice_rule;

typedef struct pi2_choice_result {
    uint8_t answer, choice_count, picked[PI2_CHOICE_RULES];
} pi2_choice_result;

/**
 * Has a model score each ending: what the endings' tokens have in common is computed once.
 * step     in   as in pi2_scored_chunk
 * Errors  CONTEXT (tokens that are needed), INVALID (endings without a common first token), FORMAT (logits that are no
 *         numbers), as pi2_session_append()
 */
PI2_API pi2_status pi2_choice_pick(const pi2_engine *engine, pi2_session *session, const pi2_choice_task *task,
                                   uint32_t step, pi2_choice_result *result_out);

/** The 95 % confidence interval of a share by Wilson's score. count: at least 1. Threads: any. */
PI2_API void pi2_wilson_interval(uint64_t hits, uint64_t count, double *low_out, double *high_out);

/* ---- what was picked so far ---- */

/** What results are of: all of it must be the same to go on with them. */
typedef struct pi2_choice_subject {
    pi2_choice_format format;
    uint64_t task_hash;            /* pi2_choice_file_hash() */
    uint64_t weights_hash;         /* which weights */
    const char *arithmetic;        /* in which mode they are computed, in words without control characters */
} pi2_choice_subject;

typedef struct pi2_choice_summary {
    uint64_t count;
    double chance;                 /* of a pick at random */
    struct { uint64_t hits; double share, low, high; } rules[PI2_CHOICE_RULES];
} pi2_choice_summary;

typedef struct pi2_choice_results pi2_choice_results;

/** Room for most_tasks. Strings of the subject are the caller's and live as long. Errors  MEMORY */
PI2_API pi2_status pi2_choice_results_create(const pi2_choice_subject *subject, uint64_t most_tasks,
                                             pi2_choice_results **results_out);
PI2_API void pi2_choice_results_free(pi2_choice_results *results);
PI2_API uint64_t pi2_choice_results_count(const pi2_choice_results *results);
PI2_API const pi2_choice_result *pi2_choice_results_at(const pi2_choice_results *results, uint64_t index);
/** Errors  INVALID (no room) */
PI2_API pi2_status pi2_choice_results_add(pi2_choice_results *results, const pi2_choice_result *result);
/** Of the first `count`, at least 1. */
PI2_API void pi2_choice_results_summarize(const pi2_choice_results *results, uint64_t count,
                                          pi2_choice_summary *summary_out);
/** Looks whether results may be written there. inputs: as in pi2_profile_check_place(). Errors  INVALID, IO (folder) */
PI2_API pi2_status pi2_choice_results_check_place(const char *path, const char *const *inputs);
/** Writes all of them; the file has its name once it is whole. Errors  INVALID, IO */
PI2_API pi2_status pi2_choice_results_write(const pi2_choice_results *results, const char *path);
/** Reads what an earlier run wrote into results that have none yet. Errors  INVALID (they are of another subject, or
 *  of more tasks), FORMAT (line and what is wrong), IO, MEMORY */
PI2_API pi2_status pi2_choice_results_read(pi2_choice_results *results, const char *path);

#ifdef __cplusplus
}
#endif
#endif
