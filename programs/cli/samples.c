/* samples.c: see samples.h. */
#include "samples.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "generation.h"
#include "output.h"
#include "powerinfer2/generate.h"
#include "powerinfer2/identity.h"
#include "powerinfer2/sizes.h"
#include "scheduler.h"

static json_t *tokens_json(const int32_t *tokens, size_t count) {
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) (void)json_array_append_new(array, json_integer(tokens[i]));
    return array;
}

static json_t *timings_json(const pi2_job *job) {
    const double decoded = job->tokens.length > 1 ? (double)job->tokens.length - 1 : 0;
    return json_pack("{s:I, s:I, s:o, s:I, s:o, s:o}", "cache_n", (json_int_t)job->cached_count, "prompt_n",
                     (json_int_t)job->computed_count, "prompt_ms", pi2_cli_json_number(job->times.prompt_ms),
                     "predicted_n", (json_int_t)job->tokens.length, "predicted_ms",
                     pi2_cli_json_number(job->times.decode_ms), "predicted_per_second",
                     pi2_cli_json_number(1e3 * decoded / job->times.decode_ms));
}

static int print_json(const pi2_cli_samples *asked, const pi2_job *jobs) {
    json_t *array = json_array();
    for (uint32_t i = 0; i < asked->count; i++) {
        const pi2_job *job = &jobs[i];
        json_t *sample = json_pack(
            "{s:I, s:o, s:o, s:o, s:s, s:I, s:s, s:I, s:o}", "index", (json_int_t)i, "text",
            pi2_cli_json_text(job->text.data ? job->text.data : "", job->text.length), "tokens",
            tokens_json(job->tokens.data, job->tokens.length), "prompt_tokens",
            tokens_json(asked->prompt, asked->prompt_count), "stop_type", pi2_stop_name(job->stop), "seed",
            (json_int_t)job->seed, "arithmetic", pi2_engine_arithmetic(asked->engine), "n_ctx",
            (json_int_t)pi2_engine_get_report(asked->engine)->context_tokens, "timings", timings_json(job));
        (void)json_array_append_new(array, sample);
    }
    return pi2_cli_print_json(array, JSON_COMPACT);
}

static int print_texts(const pi2_cli_samples *asked, const pi2_job *jobs) {
    for (uint32_t i = 0; i < asked->count; i++) {
        const pi2_job *job = &jobs[i];
        (void)printf("%s=== sample %" PRIu32 " of %" PRIu32 ", seed %" PRIu32 ", ended by: %s ===\n", i ? "\n" : "",
                     i + 1, asked->count, job->seed, pi2_stop_name(job->stop));
        (void)fwrite(job->text.data ? job->text.data : "", 1, job->text.length, stdout);
        (void)putchar('\n');
    }
    return pi2_cli_finish_stdout();
}

static void print_report(const pi2_cli_samples *asked, const pi2_job *jobs, const pi2_slots_counts *counts) {
    const pi2_engine_report *report = pi2_engine_get_report(asked->engine);
    char peak[PI2_SIZE_TEXT_BYTES], budget[PI2_SIZE_TEXT_BYTES], read[PI2_SIZE_TEXT_BYTES];
    double first_ms = 0, last_ms = 0; /* the first token of any, and the last */
    size_t tokens = 0, behind_first = 0; /* of all; of each but its first token, which the prompt gave */
    for (uint32_t i = 0; i < asked->count; i++) {
        const pi2_job_times *times = &jobs[i].times;
        if (i == 0 || times->prompt_ms < first_ms) first_ms = times->prompt_ms;
        if (times->prompt_ms + times->decode_ms > last_ms) last_ms = times->prompt_ms + times->decode_ms;
        tokens += jobs[i].tokens.length;
        behind_first += jobs[i].tokens.length ? jobs[i].tokens.length - 1 : 0;
    }
    pi2_engine_counters all;
    pi2_engine_count(asked->engine, &all);
    pi2_cli_note("prompt   %" PRIu64 " tokens computed for %" PRIu32 " samples of %zu, %.1f tokens/s",
                 counts->prompt_tokens, asked->count, asked->prompt_count,
                 first_ms > 0 ? 1e3 * (double)counts->prompt_tokens / first_ms : 0.0);
    pi2_cli_note("decode   %zu tokens in all, %.2f tokens/s together, %" PRIu64 " passes", tokens,
                 last_ms > first_ms ? 1e3 * (double)behind_first / (last_ms - first_ms) : 0.0,
                 counts->passes);
    pi2_cli_note("memory   peak %s of %s (%s)", pi2_format_size(pi2_peak_memory_bytes(), peak),
                 pi2_format_size(report->budget_bytes, budget), report->budget_reason);
    pi2_cli_note("weights  %s read (%s)", pi2_format_size(all.bytes_read, read),
                 *report->read_description ? report->read_description : "all weights are in memory");
    pi2_cli_print_devices(asked->engine, &all);
    pi2_cli_note("context  %u tokens for each sample", (unsigned)report->context_tokens);
}

/** The first failure as an error line; an interruption is none: the texts so far are the result. */
static int tell_failure(const pi2_cli_samples *asked, const pi2_job *jobs, bool *was_interrupted_out) {
    *was_interrupted_out = false;
    for (uint32_t i = 0; i < asked->count; i++) {
        if (jobs[i].status == PI2_ERR_INTERRUPTED) *was_interrupted_out = true;
        if (jobs[i].status == PI2_OK || jobs[i].status == PI2_ERR_INTERRUPTED) continue;
        (void)pi2_cli_usage_error("%s", jobs[i].error);
        return pi2_cli_exit_code(jobs[i].status);
    }
    return PI2_EXIT_OK;
}

static int print_all(const pi2_cli_samples *asked, const pi2_job *jobs, const pi2_slots_counts *counts) {
    bool was_interrupted;
    pi2_cli_clear_progress();
    int code = tell_failure(asked, jobs, &was_interrupted);
    if (code == PI2_EXIT_OK) code = asked->json ? print_json(asked, jobs) : print_texts(asked, jobs);
    if (code != PI2_EXIT_OK) return code;
    print_report(asked, jobs, counts);
    return was_interrupted ? PI2_EXIT_INTERRUPTED : PI2_EXIT_OK;
}

static int answer(const pi2_cli_samples *asked, pi2_job *jobs, pi2_job **list) {
    pi2_scheduler_watch watch = {0};
    pi2_scheduler *scheduler = NULL;
    if (pi2_scheduler_create(asked->engine, &watch, 0, &scheduler) != PI2_OK) {
        (void)pi2_cli_usage_error("no memory for %" PRIu32 " samples", asked->count);
        return PI2_EXIT_MEMORY;
    }
    for (uint32_t i = 0; i < asked->count; i++) {
        pi2_job *job = list[i] = &jobs[i];
        pi2_sampling sampling = asked->sampling;
        sampling.seed = pi2_job_seed(sampling.seed, i);
        pi2_job_init(job, &sampling);
        job->prompt = asked->prompt;
        job->prompt_count = asked->prompt_count;
        job->limit = asked->limit;
        job->print_special = asked->print_special;
        job->stop_words = *asked->stop_words;
    }
    (void)pi2_scheduler_submit(scheduler, list, asked->count); /* there are as many slots */
    for (uint32_t i = 0; i < asked->count; i++) pi2_scheduler_finish(scheduler, &jobs[i], false);
    pi2_scheduler_stop(scheduler);
    pi2_scheduler_counts counts;
    pi2_scheduler_count(scheduler, &counts);
    const int code = print_all(asked, jobs, &counts.slots);
    for (uint32_t i = 0; i < asked->count; i++) pi2_job_free(&jobs[i]);
    pi2_scheduler_free(scheduler);
    return code;
}

int pi2_cli_answer_samples(const pi2_cli_samples *asked) {
    pi2_job *jobs = calloc(asked->count, sizeof *jobs), **list = calloc(asked->count, sizeof *list);
    int code = PI2_EXIT_MEMORY;
    if (jobs && list) code = answer(asked, jobs, list);
    else (void)pi2_cli_usage_error("no memory for %" PRIu32 " samples", asked->count);
    free(jobs);
    free(list);
    return code;
}
