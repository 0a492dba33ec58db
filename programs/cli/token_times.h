/*
 * token_times.h: what each token of an answer took, and how slow the slow ones are.
 *
 * Percentiles are by nearest rank: P90 of n times is the ceil(0.9 n)-th smallest, so it is always a
 * time that was measured, and nine tenths of the tokens took as long or less.
 */
#ifndef PI2_CLI_TOKEN_TIMES_H
#define PI2_CLI_TOKEN_TIMES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Starts as {0}. */
typedef struct pi2_cli_token_times {
    float *ms;
    size_t count, capacity;
} pi2_cli_token_times;

/** Makes room before the first token, so that none allocates. False: no memory. */
bool pi2_cli_token_times_reserve(pi2_cli_token_times *times, uint64_t capacity);
/** Beyond the capacity nothing is kept. */
void pi2_cli_token_times_add(pi2_cli_token_times *times, uint64_t ns);
void pi2_cli_token_times_free(pi2_cli_token_times *times);

/** Milliseconds; NaN without any time. */
typedef struct pi2_cli_percentiles {
    double p50, p90, p99;
} pi2_cli_percentiles;
/** Sorts the times. */
pi2_cli_percentiles pi2_cli_token_percentiles(pi2_cli_token_times *times);
/** Sets p50_ms, p90_ms and p99_ms of an object; null without any time. */
void pi2_cli_set_percentiles(json_t *object, const pi2_cli_percentiles *percentiles);

#endif
