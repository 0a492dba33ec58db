/*
 * job.h: one answer that a client waits for.
 *
 * Made by a client's thread, computed by the scheduler's, read by the client's while it grows. The one who made it
 * waits for its end (pi2_scheduler_finish()) before it goes away: nothing else owns it.
 */
#ifndef PI2_CLI_JOB_H
#define PI2_CLI_JOB_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "answer_text.h"
#include "generation.h"
#include "powerinfer2/session.h"

enum { PI2_JOB_MOST_TOP = 20, PI2_JOB_ERROR_BYTES = 512, PI2_JOB_STOP_BYTES = 4096 };
/* Of an answer that is taken while it grows: what may lie there untaken before no more of it is made. */
enum { PI2_JOB_UNTAKEN_BYTES = 16384, PI2_JOB_UNTAKEN_CHANCES = 32 };

typedef enum pi2_job_state { PI2_JOB_WAITING, PI2_JOB_PROMPT, PI2_JOB_DECODING, PI2_JOB_DONE } pi2_job_state;

/** A token and the logarithm of its probability, before any sampling. */
typedef struct pi2_token_chance {
    int32_t token;
    float logprob;
} pi2_token_chance;

typedef struct pi2_job_times {
    double prompt_ms, decode_ms; /* decode: from the first token to the last */
} pi2_job_times;

typedef struct pi2_job {
    /* What is asked. It does not change once the job is submitted. */
    const int32_t *prompt; /* the caller's */
    size_t prompt_count;
    pi2_sampling sampling;
    pi2_logit_bias *biases; /* NULL, or those of sampling, if they were asked for with the job */
    int64_t limit;   /* tokens at most; negative: until the model ends or the context is full */
    int64_t most_ms; /* from the first token to the last, if a line has ended by then; 0 and below: no matter */
    pi2_cli_texts stop_words;
    char stop_text[PI2_JOB_STOP_BYTES]; /* where these lie */
    size_t stop_length;
    bool print_special;
    bool wants_chances;
    uint32_t top_count; /* with wants_chances: how many likeliest tokens beside the picked one */
    bool is_streamed;   /* text and chances are taken while the answer grows, and forgotten then */
    uint64_t deadline_ns; /* of pi2_cli_now_ns(), at which it ends if it has not by then; 0: none */

    /* Under the mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int socket;         /* the client's; -1: not looked at */
    bool is_cancelled;
    bool is_late, was_queued; /* its deadline passed before it was done; and before it had a slot */
    pi2_job_state state;
    pi2_cli_text text;        /* of the answer, without the stop word */
    size_t text_taken, chances_taken; /* of those that are there */
    bool is_held;             /* nothing more was made, as the reader is behind */
    pi2_cli_tokens tokens;    /* generated; with the end token */
    pi2_token_chance *chances; /* [count][1 + top_count]: of the tokens but the end token */
    size_t chance_count, chance_capacity;
    size_t cached_count, computed_count; /* of the prompt's tokens: found in the session; computed so far */
    uint64_t progress_done, progress_total; /* of what has to be computed of the prompt; total 0: not begun */
    pi2_stop stop;
    size_t stop_word;         /* which one, where a stop word ended it */
    uint32_t seed;
    pi2_status status;
    char error[PI2_JOB_ERROR_BYTES]; /* when status is not PI2_OK */
    pi2_job_times times;

    struct pi2_job *next; /* the scheduler's */
} pi2_job;

/** The seed of answer number `index`, from 0, to one request: `seed` and those behind it; UINT32_MAX stays: any. */
uint32_t pi2_job_seed(uint32_t seed, uint32_t index);

/** Sets up a zeroed job. */
void pi2_job_init(pi2_job *job, const pi2_sampling *sampling);
void pi2_job_free(pi2_job *job);
/** Adds a stop word, which is copied. Empty ones count for nothing. False: too many, or too long. */
bool pi2_job_add_stop(pi2_job *job, const char *word);

/** Whether the reader is so far behind that no more is to be made before it takes some: locks the mutex. */
bool pi2_job_is_full(pi2_job *job);
/** The mutex is held: takes text that may be read, in whole characters. Returns its bytes. */
size_t pi2_job_take_text(pi2_job *job, char *text_out, size_t capacity);
/** The mutex is held: takes chances of up to `most` tokens, [1 + top_count] each. Returns how many. */
size_t pi2_job_take_chances(pi2_job *job, pi2_token_chance *chances_out, size_t most);

/** Whether a client has closed its side of a connection, or both; negative: there is none. */
bool pi2_client_has_left(int socket);
/** The mutex is held: whether the job is wanted yet. It is not once its client has gone, by its socket, it was
 *  cancelled, or its deadline has passed. */
bool pi2_job_look_after(pi2_job *job);
/** The opposite: locks the mutex. */
bool pi2_job_is_unwanted(pi2_job *job);
/** The mutex is held: waits for a change, 250 ms at most, and looks after the job. False: it is not wanted. */
bool pi2_job_wait(pi2_job *job);
bool pi2_job_is_done(pi2_job *job);

#endif
