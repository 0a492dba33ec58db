/* run_trace.c: the table of a run's tokens, and when its files are opened and ended. */
#include "engine/run_trace.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/run_trace_internal.h"

enum { BUDGET_SHARE = 64, LEAST_BYTES = 256 * 1024, MOST_BYTES = 16 * 1024 * 1024, FILE_BUFFER_BYTES = 8192 };

static size_t event_bytes(uint64_t budget_bytes) {
    const uint64_t share = budget_bytes / BUDGET_SHARE;
    return (size_t)(share < LEAST_BYTES ? LEAST_BYTES : share > MOST_BYTES ? MOST_BYTES : share);
}

static bool recognises_timeline(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return pi2_output_head_is(head, count, PI2_TIMELINE_BEGIN);
}

static bool recognises_table(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return pi2_output_head_is(head, count, PI2_TABLE_BEGIN);
}

static const pi2_output_kind timeline_kind = { .what = "a timeline", .recognises = recognises_timeline,
                                               .may_flow = true };
static const pi2_output_kind table_kind = { .what = "a table of tokens", .recognises = recognises_table,
                                            .may_flow = true };

/* A column for each counter; times in milliseconds. */
static void print_counter_names(pi2_output_file *table) {
    size_t count;
    const pi2_counter_description *all = pi2_counter_descriptions(&count);
    for (size_t i = 0; i < count; i++) {
        if (all[i].kind != PI2_COUNTER_TIME) pi2_output_file_print(table, ",%s", all[i].name);
        else pi2_output_file_print(table, ",%.*s_ms", (int)(strlen(all[i].name) - strlen("_ns")), all[i].name);
    }
    pi2_output_file_print(table, "\n");
}

static void print_counters(pi2_output_file *table, const pi2_engine_counters *counters) {
    size_t count;
    const pi2_counter_description *all = pi2_counter_descriptions(&count);
    for (size_t i = 0; i < count; i++) {
        const uint64_t value = pi2_counter_value(counters, &all[i]);
        if (all[i].kind != PI2_COUNTER_TIME) pi2_output_file_print(table, ",%" PRIu64, value);
        else pi2_output_file_print(table, ",%.6f", (double)value / 1e6);
    }
    pi2_output_file_print(table, "\n");
}

static pi2_status open_files(pi2_run_trace *trace, const pi2_engine_options *options, uint64_t budget_bytes) {
    if (options->trace_path) {
        const pi2_output_request request = { .path = options->trace_path, .kind = &timeline_kind,
                                             .inputs = options->input_paths };
        trace->bytes = event_bytes(budget_bytes);
        PI2_TRY(pi2_output_file_open(&trace->timeline, &request));
    }
    if (options->stats_path) {
        const pi2_output_request request = { .path = options->stats_path, .kind = &table_kind,
                                             .inputs = options->input_paths };
        PI2_TRY(pi2_output_file_open(&trace->table, &request));
        pi2_output_file_print(&trace->table, PI2_TABLE_BEGIN "tokens,begin_ms,total_ms,hit_rate");
        print_counter_names(&trace->table);
    }
    return pi2_timeline_create(trace->bytes, &trace->events);
}

pi2_status pi2_run_trace_open(const pi2_engine_options *options, uint64_t budget_bytes, pi2_run_trace **trace_out) {
    *trace_out = NULL;
    if (!options->trace_path && !options->stats_path) return PI2_OK;
    pi2_run_trace *trace = calloc(1, sizeof *trace);
    if (!trace) return pi2_fail(PI2_ERR_MEMORY, "no memory for a trace");
    const pi2_status status = open_files(trace, options, budget_bytes);
    if (status != PI2_OK) {
        pi2_run_trace_close(trace);
        return status;
    }
    *trace_out = trace;
    return PI2_OK;
}

void pi2_run_trace_close(pi2_run_trace *trace) {
    if (!trace) return;
    pi2_output_file_discard(&trace->timeline);
    pi2_output_file_discard(&trace->table);
    pi2_timeline_free(trace->events);
    free(trace);
}

uint64_t pi2_run_trace_bytes(const pi2_run_trace *trace, uint32_t extent_count) {
    if (!trace) return 0;
    const uint64_t index_bytes = trace->bytes ? (uint64_t)extent_count * sizeof(pi2_timeline_extent_place) : 0;
    return trace->bytes + index_bytes + sizeof *trace + 2 * FILE_BUFFER_BYTES;
}

pi2_timeline *pi2_run_trace_events(const pi2_run_trace *trace) { return trace ? trace->events : NULL; }

void pi2_run_trace_add(pi2_run_trace *trace, const pi2_run_trace_line *line) {
    if (!trace->table.stream) return;
    const pi2_engine_counters *now = &line->counters;
    pi2_engine_counters line_counters;
    pi2_counters_between(&trace->last, now, &line_counters);
    const uint64_t read = line_counters.bytes_read, needed = line_counters.bytes_needed;
    const double hit_rate = needed && read < needed ? 1.0 - (double)read / (double)needed : 0.0;
    pi2_output_file_print(&trace->table, "%" PRIu64 ",%s,%" PRIu32 ",%" PRIu32 ",%.3f,%.3f,%.6f", trace->lines,
                          line->is_prefill ? "prefill" : "decode", line->position, line->tokens,
                          (double)(line->begin_ns - pi2_timeline_begin_ns(trace->events)) / 1e6,
                          (double)(line->end_ns - line->begin_ns) / 1e6, hit_rate);
    print_counters(&trace->table, &line_counters);
    trace->lines++;
    trace->last = *now;
}

pi2_status pi2_run_trace_finish(pi2_run_trace *trace, const pi2_extent_layout *layout,
                                const pi2_engine_counters *counters) {
    const pi2_status table = pi2_output_file_finish(&trace->table);
    if (!trace->timeline.stream) return table;
    PI2_TRY(pi2_run_trace_write_timeline(trace, layout, counters));
    if (table == PI2_OK) return pi2_output_file_finish(&trace->timeline);
    char text[512];
    (void)snprintf(text, sizeof text, "%s", pi2_error_text());
    (void)pi2_output_file_finish(&trace->timeline);
    return pi2_fail(table, "%s", text); /* of two failures the first */
}
