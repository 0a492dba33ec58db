/* bench_report.h: what bench measured, as JSON objects with llama-bench's field names, and their
 * printing as JSON, CSV or a Markdown table. */
#ifndef PI2_CLI_BENCH_REPORT_H
#define PI2_CLI_BENCH_REPORT_H

#include <jansson.h>
#include <stdint.h>
#include <time.h>

#include "powerinfer2/engine.h"
#include "token_times.h"

typedef struct pi2_bench_test {
    uint32_t prompt, answer, depth; /* tokens */
    time_t time;                    /* when it began */
    uint64_t *samples_ns;
    size_t sample_count;
    pi2_cli_token_times times; /* of each token of the answers, over all samples */
    uint64_t bytes_read, bytes_needed; /* over all samples */
} pi2_bench_test;

/** One test's object; NULL without memory. Sorts the times. */
json_t *pi2_bench_result(const pi2_engine_options *options, const pi2_engine_report *report,
                         pi2_bench_test *test);
/** Prints an array of them: "json", "csv" or "md". Returns the exit code. */
int pi2_bench_print(const json_t *results, const char *format);

#endif
