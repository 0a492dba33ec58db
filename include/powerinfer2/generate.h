/*
 * generate.h: answers: tokens picked one after another until something ends them, and their text.
 *
 *   static bool show(void *user, const char *text, size_t length) { return fwrite(text, 1, length, user) == length; }
 *   ...
 *   pi2_answer_options options = { .limit = -1, .user = stdout, .text = show };
 *   pi2_answer_result result;
 *   if (pi2_generate(session, prompt, prompt_count, &options, &result) != PI2_OK) puts(pi2_error_text());
 */
#ifndef POWERINFER2_GENERATE_H
#define POWERINFER2_GENERATE_H

#include "powerinfer2/session.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What ended an answer. */
typedef enum pi2_stop {
    PI2_STOP_EOS,         /* a token that ends answers (pi2_engine_ends_generation()) */
    PI2_STOP_LIMIT,       /* so many tokens as were wanted */
    PI2_STOP_WORD,        /* a stop word */
    PI2_STOP_CONTEXT,     /* the context is full */
    PI2_STOP_INTERRUPTED  /* the engine's cancelled(), or a callback of the answer */
} pi2_stop;
/** "eos", "limit", "word", "context", "interrupted". */
PI2_API const char *pi2_stop_name(pi2_stop stop);

typedef struct pi2_answer_options {
    int64_t limit;                  /* tokens at most; negative: none */
    bool special;                   /* control tokens as text */
    const char *const *stop_words;  /* [stop_word_count]; the answer ends before the one that is complete first, of
                                       several that end together the longest. Empty ones count for nothing. They are the
                                       caller's, and live as long as the answer; NULL where there are none */
    size_t stop_word_count;
    void *user;                     /* of the callbacks, which may be NULL. False ends the answer, as interrupted. They
                                       are called on the calling thread, between passes */
    /** A token was picked, the end token too; the session still has the logits that it was picked from. */
    bool (*token)(void *user, int32_t token);
    /** Text that belongs to the answer, in whole characters: what may yet become a stop word is held back. */
    bool (*text)(void *user, const char *text, size_t length);
} pi2_answer_options;

typedef struct pi2_answer_result {
    pi2_stop stop;
    size_t stop_word;               /* which one, where a stop word ended it */
    size_t token_count;             /* tokens that were picked, the end token too */
    size_t prompt_count;            /* tokens of the prompt that were computed: fewer than wanted where interrupted */
} pi2_answer_result;

/**
 * Computes a prompt and generates its answer. What the session's timeline holds must be the prompt's beginning, and
 * is not computed again: pi2_session_truncate() cuts it to what both have in common; one token at least is left to
 * compute. Afterwards the timeline lacks the answer's last token. result_out is filled in also where it fails.
 * Errors  INVALID (no prompt; nothing of it is left to compute), as pi2_session_append() but for INTERRUPTED, which is
 *         an answer's end; FORMAT (no logit is a number); MEMORY
 */
PI2_API pi2_status pi2_generate(pi2_session *session, const int32_t *prompt, size_t prompt_count,
                                const pi2_answer_options *options, pi2_answer_result *result_out);

/* ---- step by step, for those that append tokens themselves: of several sessions in one pass ---- */

typedef struct pi2_answer pi2_answer;

/** The answer to what pi2_session_begin_answer() was told. The session outlives it. Errors  MEMORY */
PI2_API pi2_status pi2_answer_create(pi2_session *session, const pi2_answer_options *options,
                                     pi2_answer **answer_out);
/**
 * Picks a token from the session's logits and hands out what it completes. *token_out: what is to be appended, with
 * PI2_LOGITS_LAST, before the next call; -1: the answer has ended, and all its text was handed out.
 * Errors  INVALID (no logits), FORMAT (none is a number)
 */
PI2_API pi2_status pi2_answer_next(pi2_answer *answer, int32_t *token_out);
/** Ends it from outside, as interrupted: hands out what was held back. Nothing where it has ended already. */
PI2_API void pi2_answer_interrupt(pi2_answer *answer);
/** prompt_count is 0: the caller knows. */
PI2_API pi2_answer_result pi2_answer_result_of(const pi2_answer *answer);
/** NULL is fine. */
PI2_API void pi2_answer_free(pi2_answer *answer);

/** Where a text ends, as far as it has come. */
typedef struct pi2_text_end {
    size_t certain;                 /* bytes that belong to it whatever follows */
    bool is_stopped;                /* it ends there, before stop word number `stop_word` */
    size_t stop_word;
} pi2_text_end;
/** text: from the first byte that was not certain yet; seen: how much of it was looked at before, without an end. */
PI2_API pi2_text_end pi2_text_find_end(const char *text, size_t length, size_t seen, const char *const *stop_words,
                                       size_t stop_word_count);

#ifdef __cplusplus
}
#endif
#endif
