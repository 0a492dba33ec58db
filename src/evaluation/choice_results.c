/*
 * choice_results.c: what was picked so far, as lines of JSON: one that says of what, then one for each task, in order.
 * A file that is read is untrusted.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/output_file.h"
#include "base/whole_file.h"
#include "powerinfer2/choices.h"

enum { VERSION = 1, MOST_BYTES = 256 << 20, LINE_BYTES = 512 };
static const char first_words[] = "{\"powerinfer2_eval\"";
static const char *const rule_names[PI2_CHOICE_RULES] = { "sum", "per_token", "per_character" };

struct pi2_choice_results {
    pi2_choice_subject subject;
    pi2_choice_result *results; /* [capacity] */
    uint64_t count, capacity;
};

pi2_status pi2_choice_results_create(const pi2_choice_subject *subject, uint64_t most_tasks,
                                     pi2_choice_results **results_out) {
    pi2_choice_results *results = calloc(1, sizeof *results);
    *results_out = results;
    if (results && most_tasks <= SIZE_MAX) results->results = calloc((size_t)most_tasks, sizeof *results->results);
    if (!results || !results->results) {
        free(results);
        *results_out = NULL;
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the results of %" PRIu64 " tasks", most_tasks);
    }
    results->subject = *subject;
    results->capacity = most_tasks;
    return PI2_OK;
}

void pi2_choice_results_free(pi2_choice_results *results) {
    if (!results) return;
    free(results->results);
    free(results);
}

uint64_t pi2_choice_results_count(const pi2_choice_results *results) { return results->count; }

const pi2_choice_result *pi2_choice_results_at(const pi2_choice_results *results, uint64_t index) {
    return &results->results[index];
}

pi2_status pi2_choice_results_add(pi2_choice_results *results, const pi2_choice_result *result) {
    if (results->count == results->capacity) {
        return pi2_fail(PI2_ERR_INVALID, "there are results of more than %" PRIu64 " tasks", results->capacity);
    }
    results->results[results->count++] = *result;
    return PI2_OK;
}

void pi2_wilson_interval(uint64_t hits, uint64_t count, double *low_out, double *high_out) {
    const double z = 1.959963984540054, n = (double)count, share = (double)hits / n, square = z * z / n;
    const double middle = share + square / 2, half = z * sqrt(share * (1 - share) / n + square / (4 * n));
    *low_out = fmax(0, (middle - half) / (1 + square));
    *high_out = fmin(1, (middle + half) / (1 + square));
}

void pi2_choice_results_summarize(const pi2_choice_results *results, uint64_t count, pi2_choice_summary *summary_out) {
    memset(summary_out, 0, sizeof *summary_out);
    summary_out->count = count;
    for (uint64_t i = 0; i < count; i++) {
        const pi2_choice_result *result = &results->results[i];
        summary_out->chance += 1.0 / result->choice_count / (double)count;
        for (int rule = 0; rule < PI2_CHOICE_RULES; rule++) {
            summary_out->rules[rule].hits += result->picked[rule] == result->answer;
        }
    }
    for (int rule = 0; rule < PI2_CHOICE_RULES; rule++) {
        summary_out->rules[rule].share = (double)summary_out->rules[rule].hits / (double)count;
        pi2_wilson_interval(summary_out->rules[rule].hits, count, &summary_out->rules[rule].low,
                            &summary_out->rules[rule].high);
    }
}

/* ---- the file ---- */

static bool is_results(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return pi2_output_head_is(head, count, first_words);
}

static const pi2_output_kind kind = { .what = "a file of results of 'eval'", .recognises = is_results };

pi2_status pi2_choice_results_check_place(const char *path, const char *const *inputs) {
    const pi2_output_request request = { .path = path, .kind = &kind, .inputs = inputs };
    return pi2_output_check_ahead(&request);
}

static const char *format_name(pi2_choice_format format) {
    return format == PI2_CHOICES_HELLASWAG ? "hellaswag" : "multiple-choice";
}

pi2_status pi2_choice_results_write(const pi2_choice_results *results, const char *path) {
    const pi2_output_request request = { .path = path, .kind = &kind };
    const pi2_choice_subject *subject = &results->subject;
    pi2_output_file file;
    PI2_TRY(pi2_output_file_open(&file, &request));
    pi2_output_file_print(&file, "%s: %d, \"tasks\": \"%s\", \"tasks_hash\": \"%016" PRIx64 "\", \"weights_hash\": "
                          "\"%016" PRIx64 "\", \"arithmetic\": \"%s\"}\n", first_words, (int)VERSION,
                          format_name(subject->format), subject->task_hash, subject->weights_hash, subject->arithmetic);
    for (uint64_t i = 0; i < results->count; i++) {
        const pi2_choice_result *result = &results->results[i];
        pi2_output_file_print(&file, "{\"task\": %" PRIu64 ", \"choices\": %u, \"answer\": %u", i,
                              (unsigned)result->choice_count, (unsigned)result->answer);
        for (int rule = 0; rule < PI2_CHOICE_RULES; rule++) {
            pi2_output_file_print(&file, ", \"%s\": %u", rule_names[rule], (unsigned)result->picked[rule]);
        }
        pi2_output_file_print(&file, "}\n");
    }
    return pi2_output_file_finish(&file);
}

/* ---- reading it ---- */

static bool has_text(const json_t *object, const char *name, const char *want) {
    const char *text = json_string_value(json_object_get(object, name));
    return text && strcmp(text, want) == 0;
}

static bool has_hash(const json_t *object, const char *name, uint64_t want) {
    char text[17];
    (void)snprintf(text, sizeof text, "%016" PRIx64, want);
    return has_text(object, name, text);
}

static pi2_status check_subject(const pi2_choice_results *results, const char *path, const json_t *head) {
    const pi2_choice_subject *subject = &results->subject;
    const char *other = NULL;
    if (json_integer_value(json_object_get(head, "powerinfer2_eval")) != VERSION) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: line 1: these are no results of 'eval' of this version", path);
    }
    if (!has_text(head, "arithmetic", subject->arithmetic)) other = "was computed in another mode";
    if (!has_hash(head, "weights_hash", subject->weights_hash)) other = "is of another model";
    if (!has_text(head, "tasks", format_name(subject->format)) || !has_hash(head, "tasks_hash", subject->task_hash)) {
        other = "is of other tasks";
    }
    if (!other) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s %s: 'eval --resume' cannot go on with it: name another file", path, other);
}

/** A number below `end`; false: it is none. */
static bool get_number(const json_t *object, const char *name, json_int_t end, uint8_t *number_out) {
    const json_t *value = json_object_get(object, name);
    *number_out = (uint8_t)json_integer_value(value);
    return json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) < end;
}

static pi2_status read_result(pi2_choice_results *results, const char *path, const json_t *object) {
    pi2_choice_result result;
    const json_t *task = json_object_get(object, "task");
    bool is_good = json_is_integer(task) && json_integer_value(task) == (json_int_t)results->count &&
                   get_number(object, "choices", PI2_CHOICES_MOST + 1, &result.choice_count) &&
                   get_number(object, "answer", result.choice_count, &result.answer) && result.choice_count >= 2;
    for (int rule = 0; rule < PI2_CHOICE_RULES && is_good; rule++) {
        is_good = get_number(object, rule_names[rule], result.choice_count, &result.picked[rule]);
    }
    if (is_good) return pi2_choice_results_add(results, &result);
    return pi2_fail(PI2_ERR_FORMAT, "%s: line %" PRIu64 ": this should be the result of task %" PRIu64, path,
                    results->count + 2, results->count);
}

static pi2_status read_lines(pi2_choice_results *results, const char *path, const char *bytes, size_t length) {
    size_t at = 0;
    for (bool is_head = true; at < length; is_head = false) {
        json_error_t error;
        const char *end = memchr(bytes + at, '\n', length - at);
        const size_t line = end ? (size_t)(end - bytes) - at : length - at;
        json_t *object = json_loadb(bytes + at, line, JSON_REJECT_DUPLICATES, &error);
        if (!object && json_error_code(&error) == json_error_out_of_memory) {
            return pi2_fail(PI2_ERR_MEMORY, "%s: no memory to read it", path);
        }
        const pi2_status status = is_head ? check_subject(results, path, object) : read_result(results, path, object);
        json_decref(object);
        PI2_TRY(status);
        at += line + 1;
    }
    return length ? PI2_OK : pi2_fail(PI2_ERR_FORMAT, "%s is empty", path);
}

pi2_status pi2_choice_results_read(pi2_choice_results *results, const char *path) {
    uint8_t *bytes = NULL;
    size_t length = 0;
    results->count = 0;
    PI2_TRY(pi2_whole_file_read(path, "a file of results of 'eval'", MOST_BYTES, &bytes, &length));
    const pi2_status status = read_lines(results, path, (const char *)bytes, length);
    free(bytes);
    if (status != PI2_OK) results->count = 0;
    return status;
}
