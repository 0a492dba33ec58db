/* session_run.h: the logits of a prompt and of tokens decoded after it, to compare runs bit by bit. */
#ifndef PI2_TESTS_SUPPORT_SESSION_RUN_H
#define PI2_TESTS_SUPPORT_SESSION_RUN_H

#include "powerinfer2/session.h"

typedef struct pi2_session_run {
    float *logits;   /* shape [decoded, vocabulary] */
    int32_t *tokens; /* shape [decoded], the likeliest each */
    size_t logit_count, decoded;
} pi2_session_run;

/** Has engines that are opened from now on use the instruction set `cpu`; NULL: the best. */
void pi2_session_run_cpu(const char *cpu);

/**
 * Runs a prompt of always the same `prompt` tokens, then `decoded` more, in a session of its own.
 * Fails the test on any error. Free with pi2_session_run_free().
 */
void pi2_session_run_make(pi2_engine *engine, size_t prompt, size_t decoded, pi2_session_run *run_out);
void pi2_session_run_free(pi2_session_run *run);

/** Fails the test when the runs differ in one bit; the message names the variation. */
void pi2_session_run_compare(const pi2_session_run *want, const pi2_session_run *got, size_t variation);

#endif
