/* bench_report.c: statistics and formats of bench. */
#include "bench_report.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "prediction_report.h"
#include "powerinfer2/sizes.h"

typedef struct statistics {
    double mean, deviation;
} statistics;

/** Mean and sample standard deviation: of nanoseconds, or of tokens a second when `tokens` is not 0. */
static statistics summarize(const pi2_bench_test *test, double tokens) {
    double sum = 0, squares = 0;
    const double count = (double)test->sample_count;
    for (size_t i = 0; i < test->sample_count; i++) {
        const double ns = (double)test->samples_ns[i];
        sum += tokens > 0 ? 1e9 * tokens / ns : ns;
    }
    const double mean = count > 0 ? sum / count : 0;
    for (size_t i = 0; i < test->sample_count; i++) {
        const double ns = (double)test->samples_ns[i];
        const double off = (tokens > 0 ? 1e9 * tokens / ns : ns) - mean;
        squares += off * off;
    }
    return (statistics){mean, count > 1 ? sqrt(squares / (count - 1)) : 0};
}

static json_t *text(const char *value) { return pi2_cli_json_text(value, strlen(value)); }
static json_t *integer(uint64_t value) { return json_integer((json_int_t)value); }

static void add_model(json_t *object, const pi2_engine_options *options, const pi2_engine_report *report) {
    char type[160], backends[320];
    (void)snprintf(type, sizeof type, "%s %.2fM %s", report->architecture, (double)report->parameter_count / 1e6,
                   report->weight_types);
    const char *cache = pi2_cache_type_name(options->cache_type);
    json_object_set_new(object, "build_commit", text(PI2_VERSION));
    json_object_set_new(object, "cpu_info", text(report->cpu_name));
    (void)snprintf(backends, sizeof backends, "CPU%s%s", report->devices ? ", " : "",
                   report->devices ? report->devices : "");
    json_object_set_new(object, "backends", text(backends));
    json_object_set_new(object, "model_filename", text(options->model_path));
    json_object_set_new(object, "model_type", text(type));
    json_object_set_new(object, "model_size", integer(report->weight_bytes));
    json_object_set_new(object, "model_n_params", integer(report->parameter_count));
    json_object_set_new(object, "n_batch", integer(report->batch_tokens));
    json_object_set_new(object, "n_ubatch", integer(report->batch_tokens));
    json_object_set_new(object, "n_threads", integer(report->thread_count));
    json_object_set_new(object, "type_k", text(cache));
    json_object_set_new(object, "type_v", text(cache));
    json_object_set_new(object, "n_gpu_layers", integer(0));
    json_object_set_new(object, "n_ctx", integer(report->context_tokens));
    json_object_set_new(object, "budget_bytes", integer(report->budget_bytes));
    json_object_set_new(object, "resident_bytes", integer(report->resident_bytes));
    json_object_set_new(object, "read_method", text(report->read_method));
}

json_t *pi2_bench_result(const pi2_engine_options *options, const pi2_engine_report *report,
                         pi2_bench_test *test) {
    json_t *object = json_object(), *samples_ns = json_array(), *samples_ts = json_array();
    const double tokens = (double)test->prompt + (double)test->answer;
    const statistics ns = summarize(test, 0), rate = summarize(test, tokens);
    char when[32] = "";
    struct tm utc;
    if (gmtime_r(&test->time, &utc)) (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    for (size_t i = 0; i < test->sample_count; i++) {
        json_array_append_new(samples_ns, integer(test->samples_ns[i]));
        json_array_append_new(samples_ts, pi2_cli_json_number(1e9 * tokens / (double)test->samples_ns[i]));
    }
    add_model(object, options, report);
    json_object_set_new(object, "n_prompt", integer(test->prompt));
    json_object_set_new(object, "n_gen", integer(test->answer));
    json_object_set_new(object, "n_depth", integer(test->depth));
    json_object_set_new(object, "test_time", text(when));
    json_object_set_new(object, "avg_ns", integer((uint64_t)(ns.mean + 0.5)));
    json_object_set_new(object, "stddev_ns", integer((uint64_t)(ns.deviation + 0.5)));
    json_object_set_new(object, "avg_ts", pi2_cli_json_number(rate.mean));
    json_object_set_new(object, "stddev_ts", pi2_cli_json_number(rate.deviation));
    if (test->answer) {
        const pi2_cli_percentiles latency = pi2_cli_token_percentiles(&test->times);
        pi2_cli_set_percentiles(object, &latency);
    }
    json_object_set_new(object, "samples_ns", samples_ns);
    json_object_set_new(object, "samples_ts", samples_ts);
    json_object_set_new(object, "bytes_per_token",
                        pi2_cli_json_number((double)test->bytes_read / (tokens * (double)test->sample_count)));
    json_object_set_new(object, "hit_rate",
                        pi2_cli_json_number(1.0 - (double)test->bytes_read / (double)test->bytes_needed));
    json_object_set_new(object, "peak_bytes", integer(pi2_peak_memory_bytes()));
    return object;
}

/** One value in quotes, as llama-bench does for every column; nothing between them where there is none. */
static void print_csv_value(const json_t *value) {
    char *dumped = !value || json_is_string(value) ? NULL
                                                   : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(12));
    (void)putchar('"');
    const char *characters = json_is_string(value) ? json_string_value(value) : dumped ? dumped : "";
    while (*characters) {
        const size_t length = strcspn(characters, "\"");
        pi2_cli_print_safely(stdout, characters, length);
        characters += length;
        if (!*characters) break;
        (void)fputs("\"\"", stdout);
        characters++;
    }
    (void)putchar('"');
    free(dumped);
}

/** A row; NULL: the names. */
static void print_csv_row(json_t *columns, const json_t *result) {
    const char *key, *separator = "";
    json_t *column;
    json_object_foreach(columns, key, column) {
        (void)fputs(separator, stdout);
        if (result) print_csv_value(json_object_get(result, key));
        else (void)fputs(key, stdout);
        separator = ",";
    }
    (void)putchar('\n');
}

/* Tests differ in what they have (a prompt has no hit rate predicted): a column is whatever any of them has. */
static void print_csv(const json_t *results) {
    json_t *columns = json_object(), *result, *value;
    const char *key;
    size_t i;
    json_array_foreach(results, i, result) {
        json_object_foreach(result, key, value) {
            if (!json_is_array(value)) json_object_set(columns, key, json_true());
        }
    }
    for (i = 0; i <= json_array_size(results) && json_array_size(results); i++) {
        print_csv_row(columns, i ? json_array_get(results, i - 1) : NULL);
    }
    json_decref(columns);
}

static uint64_t get_integer(const json_t *object, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static double get_number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

/** Tokens a second and how far they were off; "-" where nothing was predicted. */
static void print_predicted(const json_t *object) {
    if (json_object_get(object, "predicted_ts")) {
        const double predicted = get_number(object, "predicted_ts"), measured = get_number(object, "avg_ts");
        (void)printf(" %.2f (%+.0f %%) |", predicted, pi2_cli_percent_off(predicted, measured, 2));
    } else {
        (void)printf(" - |");
    }
}

static void print_markdown_row(const json_t *object, bool with_predicted) {
    char size[PI2_SIZE_TEXT_BYTES], budget[PI2_SIZE_TEXT_BYTES], read[PI2_SIZE_TEXT_BYTES];
    char peak[PI2_SIZE_TEXT_BYTES], test[64], hit_rate[16] = "-", latency[96] = "-";
    const uint64_t prompt = get_integer(object, "n_prompt"), answer = get_integer(object, "n_gen");
    const uint64_t depth = get_integer(object, "n_depth");
    size_t length = 0;
    test[0] = '\0';
    if (prompt) {
        length = (size_t)snprintf(test, sizeof test, "pp%llu%s", (unsigned long long)prompt, answer ? "+" : "");
    }
    if (answer) {
        length += (size_t)snprintf(test + length, sizeof test - length, "tg%llu", (unsigned long long)answer);
    }
    if (depth) (void)snprintf(test + length, sizeof test - length, " @ d%llu", (unsigned long long)depth);
    if (json_is_number(json_object_get(object, "hit_rate"))) {
        (void)snprintf(hit_rate, sizeof hit_rate, "%.1f %%", 100.0 * get_number(object, "hit_rate"));
    }
    if (answer) {
        (void)snprintf(latency, sizeof latency, "%.2f / %.2f / %.2f", get_number(object, "p50_ms"),
                       get_number(object, "p90_ms"), get_number(object, "p99_ms"));
    }
    const char *model = json_string_value(json_object_get(object, "model_type"));
    (void)fputs("| ", stdout);
    pi2_cli_print_safely(stdout, model, strlen(model));
    (void)printf(" | %s | %llu | %s | %s | %.2f ± %.2f |",
                 pi2_format_size(get_integer(object, "model_size"), size),
                 (unsigned long long)get_integer(object, "n_threads"),
                 pi2_format_size(get_integer(object, "budget_bytes"), budget), test, get_number(object, "avg_ts"),
                 get_number(object, "stddev_ts"));
    if (with_predicted) print_predicted(object);
    (void)printf(" %s | %s | %s | %s |\n", latency,
                 pi2_format_size((uint64_t)get_number(object, "bytes_per_token"), read), hit_rate,
                 pi2_format_size(get_integer(object, "peak_bytes"), peak));
}

static void print_markdown(const json_t *results) {
    bool with_predicted = false; /* a machine profile is there */
    for (size_t i = 0; i < json_array_size(results); i++) {
        if (json_object_get(json_array_get(results, i), "predicted_ts")) with_predicted = true;
    }
    (void)printf("| model | size | threads | memory | test | t/s |%s P50 / P90 / P99 ms | read/token | hit rate "
                 "| peak |\n", with_predicted ? " predicted |" : "");
    (void)printf("| --- | ---: | ---: | ---: | ---: | ---: |%s ---: | ---: | ---: | ---: |\n",
                 with_predicted ? " ---: |" : "");
    for (size_t i = 0; i < json_array_size(results); i++) {
        print_markdown_row(json_array_get(results, i), with_predicted);
    }
}

int pi2_bench_print(const json_t *results, const char *format) {
    if (strcmp(format, "json") == 0) {
        return pi2_cli_print_json(json_deep_copy(results), JSON_INDENT(2));
    }
    if (strcmp(format, "csv") == 0) {
        print_csv(results);
        return pi2_cli_finish_stdout();
    }
    print_markdown(results);
    return pi2_cli_finish_stdout();
}
