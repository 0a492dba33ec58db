/* token_times.c: times of tokens and their percentiles. */
#include "token_times.h"

#include <math.h>
#include <stdlib.h>

#include "output.h"

bool pi2_cli_token_times_reserve(pi2_cli_token_times *times, uint64_t capacity) {
    pi2_cli_token_times_free(times);
    if (capacity == 0) return true;
    if (capacity > SIZE_MAX / sizeof *times->ms) return false;
    times->ms = malloc((size_t)capacity * sizeof *times->ms);
    if (times->ms) times->capacity = (size_t)capacity;
    return times->ms != NULL;
}

void pi2_cli_token_times_add(pi2_cli_token_times *times, uint64_t ns) {
    if (times->count < times->capacity) times->ms[times->count++] = (float)((double)ns / 1e6);
}

void pi2_cli_token_times_free(pi2_cli_token_times *times) {
    free(times->ms);
    *times = (pi2_cli_token_times){0};
}

static int compare(const void *first, const void *second) {
    const float a = *(const float *)first, b = *(const float *)second;
    return (a > b) - (a < b);
}

/** Nearest rank; the times are sorted. */
static double percentile(const pi2_cli_token_times *times, size_t percent) {
    const size_t rank = times->count / 100 * percent + (times->count % 100 * percent + 99) / 100;
    return rank ? (double)times->ms[rank - 1] : (double)NAN;
}

pi2_cli_percentiles pi2_cli_token_percentiles(pi2_cli_token_times *times) {
    if (times->count) qsort(times->ms, times->count, sizeof *times->ms, compare);
    return (pi2_cli_percentiles){percentile(times, 50), percentile(times, 90), percentile(times, 99)};
}

void pi2_cli_set_percentiles(json_t *object, const pi2_cli_percentiles *percentiles) {
    json_object_set_new(object, "p50_ms", pi2_cli_json_number(percentiles->p50));
    json_object_set_new(object, "p90_ms", pi2_cli_json_number(percentiles->p90));
    json_object_set_new(object, "p99_ms", pi2_cli_json_number(percentiles->p99));
}
