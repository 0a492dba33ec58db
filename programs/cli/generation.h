/* generation.h: one answer: prompt in, text out, and what it cost. Used by run and by the chat. */
#ifndef PI2_CLI_GENERATION_H
#define PI2_CLI_GENERATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "answer_text.h"
#include "draft_report.h"
#include "options.h"
#include "powerinfer2/engine.h"
#include "powerinfer2/generate.h"
#include "token_times.h"

/** Growing token list; starts as {0}. */
typedef struct pi2_cli_tokens {
    int32_t *data;
    size_t length, capacity;
} pi2_cli_tokens;
bool pi2_cli_tokens_add(pi2_cli_tokens *tokens, const int32_t *data, size_t length);

typedef struct pi2_cli_generation_options {
    int64_t limit;                  /* tokens at most; negative: none */
    bool print_special;             /* control tokens as text */
    const pi2_cli_texts *stop_words; /* the answer ends before one of these (generate.h) */
    bool (*show)(const char *text, size_t length); /* text that belongs to the answer; NULL: collect only. False: it
                                       cannot be shown, so no more is needed */
} pi2_cli_generation_options;

typedef struct pi2_cli_generation {
    pi2_cli_text text;              /* without end token and stop word */
    pi2_cli_tokens tokens;          /* generated; with the end token */
    pi2_stop stop;
    size_t prompt_count;            /* prompt tokens that were computed: fewer than wanted after an interruption */
    size_t prompt_wanted;           /* prompt tokens that had to be */
    size_t cached_count;            /* prompt tokens that the session already held, or its prompt cache */
    size_t recalled_count;          /* of these, tokens from the prompt cache */
    bool is_cold;                   /* the engine's first prompt, with which what stays in memory was read */
    double prompt_seconds, decode_seconds; /* decode: from the first token to the last */
    pi2_cli_token_times times;      /* from each decoded token to the next: sampling and showing it included */
    pi2_cli_percentiles latency;    /* of these times */
    double first_token_seconds;     /* since the program (run) or the turn (chat) began */
    pi2_engine_counters total;      /* of this answer */
    pi2_cli_drafts drafts;          /* of this answer */
    pi2_engine_counters decode;     /* of the second token and those after */
} pi2_cli_generation;

/**
 * Computes of a prompt of `prompt_count` tokens what neither the session nor its prompt cache holds, and generates.
 * Returns PI2_EXIT_OK, or the exit code after an error line. An interruption is no
 * error: the answer so far is the result. pi2_cli_generation_free() the result in every case.
 */
int pi2_cli_generate(pi2_engine *engine, pi2_session *session, const int32_t *prompt, size_t prompt_count,
                     const pi2_cli_generation_options *options, pi2_cli_generation *result);
void pi2_cli_generation_free(pi2_cli_generation *generation);

/** Decoded tokens that were timed: all but the first, which the prompt's pass gave. */
size_t pi2_cli_decoded_count(const pi2_cli_generation *generation);
/** Bytes read per decoded token, and 1 - bytes read / weight bytes needed; NaN without any. */
double pi2_cli_bytes_per_token(const pi2_cli_generation *generation);
double pi2_cli_hit_rate(const pi2_engine_counters *counters);

/** Of a report: what devices computed of all that was counted; nothing where there is none. */
void pi2_cli_print_devices(const pi2_engine *engine, const pi2_engine_counters *total);
/** Prints the report on stderr. */
void pi2_cli_print_report(const pi2_engine *engine, const pi2_cli_generation *generation, uint32_t seed);

#endif
