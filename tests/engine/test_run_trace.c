/*
 * Goal:   the timeline and the table tell the truth: valid JSON whose spans nest and lie inside the
 *         run, whose reads add up to the reader's counter; a line for each append whose sums are the
 *         counters. A full buffer, a full disk and a bad path are told; without them nothing is written.
 * Method: a tiny model is streamed; the files are parsed and compared with the engine's counters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/clock.h"
#include "base/memory_limit.h"
#include "base/team.h"
#include "engine/run_trace.h"
#include "file_formats/cluster_file.h"
#include "powerinfer2/session.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { LAYERS = 6, THREADS = 2, PROMPT = 40, BATCH = 16, DECODED = 9, APPENDS = 1 + DECODED };

static char *model_path, *cluster_path, *trace_path, *stats_path, *partial_path;

/* In a child: this process's memory counts against the engine's budget. */
static int write_model(void) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = LAYERS;
    options.embedding_length = 512;
    options.feed_forward_length = 6144;
    options.head_count = 8;
    return pi2_tiny_model_write_apart(&options, model_path);
}

static pi2_engine_options streaming_options(void) {
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.cluster_path = cluster_path;
    options.memory_bytes = current + 20000000;
    options.context_tokens = 64;
    options.batch_tokens = BATCH;
    options.thread_count = THREADS;
    return options;
}

/* A prompt of three batches, then single tokens; the sampled ones are noted. */
static void run_tokens(pi2_engine *engine, int32_t *tokens_out) {
    pi2_session *session = NULL;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 0;
    assert_int_equal(pi2_session_create(engine, &sampling, &session), PI2_OK);
    int32_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = (i * 29 + 7) % 256;
    if (pi2_session_append(session, prompt, PROMPT, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (int i = 0; i < DECODED; i++) {
        assert_int_equal(pi2_session_sample(session, &tokens_out[i]), PI2_OK);
        if (pi2_session_append(session, &tokens_out[i], 1, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
    pi2_session_free(session);
}

/* ---- the timeline ---- */

static double number(const json_t *event, const char *name) {
    const json_t *value = json_object_get(event, name);
    if (!json_is_number(value)) fail_msg("no number %s", name);
    return json_number_value(value);
}

static double argument(const json_t *event, const char *name) { return number(json_object_get(event, "args"), name); }

static const char *text(const json_t *event, const char *name) {
    const json_t *value = json_object_get(event, name);
    return json_is_string(value) ? json_string_value(value) : "";
}

static json_t *load_trace(void) {
    json_error_t error;
    json_t *root = json_load_file(trace_path, JSON_REJECT_DUPLICATES, &error);
    if (!root) fail_msg("the trace is no JSON: line %d: %s", error.line, error.text);
    assert_true(json_is_array(json_object_get(root, "traceEvents")));
    return root;
}

static uint64_t other(const json_t *root, const char *name) {
    const char *value = text(json_object_get(root, "otherData"), name);
    if (*value == '\0') fail_msg("no otherData.%s", name);
    return strtoull(value, NULL, 10);
}

/* Every "b" has its "e", later; returns the bytes of all. */
static uint64_t check_reads(const json_t *events, uint64_t *reads_out) {
    uint64_t bytes = 0;
    size_t i;
    const json_t *event, *begin = NULL;
    json_t *open = json_object(), *ended = json_object();
    json_array_foreach(events, i, event) {
        const char *phase = text(event, "ph"), *id = text(event, "id");
        if (strcmp(phase, "b") == 0) {
            assert_null(json_object_get(open, id));
            assert_null(json_object_get(ended, id));
            json_object_set(open, id, (json_t *)event);
            bytes += (uint64_t)argument(event, "bytes");
            ++*reads_out;
        } else if (strcmp(phase, "e") == 0) {
            begin = json_object_get(open, id);
            assert_non_null(begin);
            assert_true(number(event, "ts") >= number(begin, "ts"));
            json_object_set(ended, id, (json_t *)event);
            json_object_del(open, id);
        }
    }
    assert_int_equal(json_object_size(open), 0);
    json_decref(open);
    json_decref(ended);
    return bytes;
}

typedef struct span {
    double begin, end;
    bool stall;
} span;

static int compare_spans(const void *left, const void *right) {
    const span *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return a->end > b->end ? -1 : a->end < b->end;
}

/* The spans of one row follow each other or nest, and lie inside the run; a stall is inside a stage. */
static size_t check_row(const json_t *events, int row, double last_us) {
    span *spans = calloc(json_array_size(events), sizeof *spans);
    assert_non_null(spans);
    size_t count = 0, i;
    const json_t *event;
    json_array_foreach(events, i, event) {
        if (strcmp(text(event, "ph"), "X") != 0 || (int)number(event, "tid") != row) continue;
        const double begin = number(event, "ts");
        spans[count++] = (span){ begin, begin + number(event, "dur"), strcmp(text(event, "cat"), "stall") == 0 };
    }
    qsort(spans, count, sizeof *spans, compare_spans);
    const double rounding = 0.01; /* microseconds; times are printed in nanoseconds */
    double outer_end = 0;
    for (size_t s = 0; s < count; s++) {
        assert_true(spans[s].begin >= 0 && spans[s].end >= spans[s].begin && spans[s].end <= last_us);
        if (spans[s].stall) {
            if (spans[s].end > outer_end + rounding) fail_msg("a stall outside every stage");
        } else {
            if (spans[s].begin + rounding < outer_end) fail_msg("two spans of row %d overlap", row);
            outer_end = spans[s].end;
        }
    }
    free(spans);
    return count;
}

static size_t count_named(const json_t *events, const char *name) {
    size_t found = 0, i;
    const json_t *event;
    json_array_foreach(events, i, event) found += strcmp(text(event, "name"), name) == 0;
    return found;
}

/* Each layer's stages were computed in every pass, by one thread at least and by each at most once. */
static void check_stages(const json_t *events, size_t passes) {
    static const char *const names[] = { "q+k+v", "attention", "attention output" };
    for (unsigned layer = 0; layer < LAYERS; layer++) {
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            char name[64];
            (void)snprintf(name, sizeof name, "L%u %s", layer, names[i]);
            const size_t found = count_named(events, name);
            if (found < passes || found > passes * THREADS) fail_msg("%zu spans of '%s'", found, name);
        }
        char gate[32], down[32]; /* these may be cut into several runs */
        (void)snprintf(gate, sizeof gate, "L%u gate+up", layer);
        (void)snprintf(down, sizeof down, "L%u down", layer);
        assert_true(count_named(events, gate) >= passes && count_named(events, down) >= passes);
    }
    assert_true(count_named(events, "head") >= APPENDS);
    assert_int_equal(count_named(events, "embedding"), passes);
}

/* The extents that reads and stalls name are those that lie there in the file. */
static void check_extents(const json_t *events) {
    pi2_gguf *gguf = NULL;
    pi2_extent_layout *layout = NULL;
    pi2_source_identity source;
    assert_int_equal(pi2_gguf_open(cluster_path, &gguf), PI2_OK);
    assert_int_equal(pi2_cluster_file_layout(gguf, &layout, &source), PI2_OK);
    size_t i, stalls = 0;
    const json_t *event;
    json_array_foreach(events, i, event) {
        if (strcmp(text(event, "cat"), "stall") == 0) {
            assert_true(argument(event, "extent") < layout->extent_count);
            stalls++;
        }
        if (strcmp(text(event, "ph"), "b") != 0) continue;
        const uint64_t offset = (uint64_t)argument(event, "offset"), bytes = (uint64_t)argument(event, "bytes");
        const uint32_t first = (uint32_t)argument(event, "extent"), count = (uint32_t)argument(event, "extents");
        assert_true(first < layout->extent_count && count >= 1);
        const pi2_extent *extent = &layout->extents[first];
        assert_true(offset >= extent->file_offset && offset < extent->file_offset + pi2_extent_read_bytes(extent));
        uint32_t touched = 0;
        for (uint32_t e = 0; e < layout->extent_count; e++) {
            const uint64_t begin = layout->extents[e].file_offset;
            touched += begin < offset + bytes && begin + pi2_extent_read_bytes(&layout->extents[e]) > offset;
        }
        assert_int_equal(touched, count);
    }
    assert_true(stalls > 0);
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
}

/* ---- the table ---- */

/* Sums the lines; their first column counts up. */
static unsigned check_table(const pi2_engine_counters *counters, uint64_t ahead_bytes) {
    FILE *file = fopen(stats_path, "r");
    assert_non_null(file);
    char line[1024], phase[16];
    assert_non_null(fgets(line, sizeof line, file));
    /* After its own columns the table has one for each counter. */
    const char *begins = "index,phase,position,tokens,begin_ms,total_ms,hit_rate,bytes_read,reads,bytes_needed,"
                         "stall_ms,compute_ms,give_backs,bytes_given_back,";
    assert_memory_equal(line, begins, strlen(begins));
    size_t counter_count, commas = 0;
    (void)pi2_counter_descriptions(&counter_count);
    for (const char *c = line; *c; c++) commas += *c == ',';
    assert_int_equal(commas, 6 + counter_count);
    unsigned lines = 0, index, position, tokens, next_position = 0;
    double begin, total, compute, stall, hit_rate, stalls = 0, computes = 0, last_end = 0;
    unsigned long long read, needed, given;
    uint64_t reads = 0, needs = 0;
    while (fgets(line, sizeof line, file)) {
        const int fields = sscanf(line, "%u,%15[a-z],%u,%u,%lf,%lf,%lf,%llu,%*u,%llu,%lf,%lf,%llu", &index, phase,
                                  &position, &tokens, &begin, &total, &hit_rate, &read, &needed, &stall, &compute,
                                  &given);
        assert_int_equal(fields, 12);
        assert_int_equal(given, 0);
        assert_int_equal(index, lines);
        assert_string_equal(phase, lines == 0 ? "prefill" : "decode");
        assert_int_equal(position, next_position);
        assert_int_equal(tokens, lines == 0 ? PROMPT : 1);
        assert_true(begin + 0.01 >= last_end && hit_rate >= 0 && hit_rate < 1);
        assert_true(compute + stall <= total * 1.001 + 0.01); /* both are averages over the threads */
        last_end = begin + total;
        next_position += tokens;
        reads += read;
        needs += needed;
        stalls += stall;
        computes += compute;
        lines++;
    }
    assert_int_equal(fclose(file), 0);
    assert_int_equal(needs, counters->bytes_needed);
    assert_true(reads <= counters->bytes_read && counters->bytes_read - reads <= ahead_bytes);
    const double stall_error = stalls - (double)counters->stall_ns / 1e6;
    const double compute_error = computes - (double)counters->compute_ns / 1e6;
    if (stall_error > 0.001 || stall_error < -0.001) fail_msg("the stalls differ by %f ms", stall_error);
    if (compute_error > 0.001 || compute_error < -0.001) fail_msg("the computing differs by %f ms", compute_error);
    assert_true(stalls > 0 && computes > 0);
    return lines;
}

static void test_files_tell_the_run(void **state) {
    (void)state;
    pi2_engine_options options = streaming_options();
    options.trace_path = trace_path;
    options.stats_path = stats_path;
    const uint64_t begin = pi2_clock_ns();
    pi2_engine *engine = NULL;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    const uint64_t ahead_bytes = pi2_engine_get_report(engine)->stream_buffer_bytes;
    int32_t tokens[DECODED], plain_tokens[DECODED];
    run_tokens(engine, tokens);
    if (pi2_engine_finish_trace(engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    const double last_us = (double)(pi2_clock_ns() - begin) / 1e3;
    pi2_engine_counters counters;
    pi2_engine_count(engine, &counters);
    pi2_engine_close(engine);
    assert_int_equal(access(partial_path, F_OK), -1);

    json_t *root = load_trace();
    const json_t *events = json_object_get(root, "traceEvents");
    uint64_t reads = 0;
    const uint64_t bytes = check_reads(events, &reads);
    assert_int_equal(bytes, counters.bytes_read);
    assert_int_equal(reads, counters.reads);
    assert_int_equal(other(root, "bytes_read"), counters.bytes_read);
    assert_int_equal(other(root, "reads"), counters.reads);
    assert_int_equal(other(root, "dropped_events"), 0);
    const size_t passes = (PROMPT + BATCH - 1) / BATCH + DECODED;
    assert_int_equal(check_row(events, 0, last_us), passes);
    for (int member = 0; member < THREADS; member++) assert_true(check_row(events, 1 + member, last_us) >= passes);
    check_stages(events, passes);
    check_extents(events);
    json_decref(root);
    assert_int_equal(check_table(&counters, ahead_bytes), APPENDS);
    assert_int_equal(unlink(trace_path), 0);
    assert_int_equal(unlink(stats_path), 0);

    /* Not asked for: the same tokens, no file, and nothing measured. */
    options = streaming_options();
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    run_tokens(engine, plain_tokens);
    assert_int_equal(pi2_engine_finish_trace(engine), PI2_OK);
    pi2_engine_count(engine, &counters);
    assert_int_equal(counters.compute_ns, 0);
    pi2_engine_close(engine);
    assert_memory_equal(tokens, plain_tokens, sizeof tokens);
    assert_int_equal(access(trace_path, F_OK), -1);
    assert_int_equal(access(stats_path, F_OK), -1);
}

static void test_unwritable_paths(void **state) {
    (void)state;
    char *nowhere = test_path(test_folder, "no such folder/trace.json");
    const char *const paths[] = { nowhere, test_folder };
    for (size_t i = 0; i < 4; i++) {
        pi2_engine_options options = streaming_options();
        options.trace_path = i % 2 ? NULL : paths[i / 2];
        options.stats_path = i % 2 ? paths[i / 2] : NULL;
        pi2_engine *engine = NULL;
        assert_int_equal(pi2_engine_open(&options, &engine), i / 2 ? PI2_ERR_INVALID : PI2_ERR_IO);
        assert_null(engine);
        assert_non_null(strstr(pi2_error_text(), i / 2 ? test_folder : "no such folder"));
    }
    free(nowhere);
    pi2_engine_options options = streaming_options(); /* an engine that does not open leaves nothing behind */
    options.trace_path = trace_path;
    options.memory_bytes = 3000000;
    pi2_engine *engine = NULL;
    assert_int_equal(pi2_engine_open(&options, &engine), PI2_ERR_MEMORY);
    assert_int_equal(access(trace_path, F_OK), -1);
    assert_int_equal(access(partial_path, F_OK), -1);
}

/* ---- without a model: more events than there is room for, from several threads ---- */

enum { WRITERS = 4, EVENTS_EACH = 5000 };

static void write_events(void *argument_pointer, unsigned member, unsigned member_count) {
    (void)member_count;
    pi2_timeline *events = pi2_run_trace_events(argument_pointer);
    pi2_timeline_set_member(member);
    for (unsigned i = 0; i < EVENTS_EACH; i++) {
        const uint64_t begin = pi2_clock_ns();
        if (i % 2) pi2_timeline_read(events, i, 1, false, begin, pi2_clock_ns());
        else pi2_timeline_stage(events, "gate+up", i % 100, false, begin, pi2_clock_ns());
    }
}

static void test_full_buffer(void **state) {
    (void)state;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.trace_path = trace_path;
    pi2_run_trace *trace = NULL;
    assert_int_equal(pi2_run_trace_open(&options, 0, &trace), PI2_OK);
    const uint64_t room = pi2_run_trace_bytes(trace, 1) / sizeof(pi2_timeline_event);
    assert_true(room < WRITERS * EVENTS_EACH);
    pi2_team *team = NULL;
    assert_int_equal(pi2_team_create(WRITERS, NULL, &team), PI2_OK);
    pi2_team_run(team, write_events, trace);
    pi2_team_destroy(team);
    pi2_extent extent = { .bytes = 4096 };
    const pi2_extent_layout layout = { .extents = &extent, .extent_count = 1 };
    const pi2_engine_counters counters = { .reads = 1 };
    assert_int_equal(pi2_run_trace_finish(trace, &layout, &counters), PI2_OK);
    pi2_run_trace_close(trace);
    json_t *root = load_trace();
    assert_int_equal(other(root, "events") + other(root, "dropped_events"), WRITERS * EVENTS_EACH);
    const json_t *events = json_object_get(root, "traceEvents");
    uint64_t reads = 0;
    const uint64_t bytes = check_reads(events, &reads); /* one byte each */
    assert_int_equal(bytes, reads);
    const size_t stages = count_named(events, "L0 gate+up") ? json_array_size(events) : 0;
    const size_t names = 2 + WRITERS; /* process, row of tokens, and a row for each that got a place */
    assert_true(stages >= other(root, "events") + reads && stages <= other(root, "events") + reads + names);
    json_decref(root);
    assert_int_equal(unlink(trace_path), 0);
}

static void test_full_disk(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    for (int i = 0; i < 2; i++) {
        pi2_engine_options options;
        pi2_engine_options_init(&options);
        options.trace_path = i ? trace_path : "/dev/full";
        options.stats_path = i ? "/dev/full" : stats_path;
        pi2_run_trace *trace = NULL;
        assert_int_equal(pi2_run_trace_open(&options, 0, &trace), PI2_OK);
        const pi2_run_trace_line line = { .tokens = 1 };
        pi2_run_trace_add(trace, &line);
        const pi2_extent_layout layout = { .extent_count = 0 };
        const pi2_engine_counters counters = { .reads = 0 };
        assert_int_equal(pi2_run_trace_finish(trace, &layout, &counters), PI2_ERR_IO);
        assert_non_null(strstr(pi2_error_text(), "/dev/full: No space"));
        assert_int_equal(pi2_run_trace_finish(trace, &layout, &counters), PI2_OK); /* ended; nothing is left */
        pi2_run_trace_close(trace);
        assert_int_equal(unlink(i ? trace_path : stats_path), 0); /* the other one is whole */
    }
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("tiny.gguf");
    cluster_path = test_folder_path("tiny.pi2");
    trace_path = test_folder_path("trace.json");
    stats_path = test_folder_path("stats.csv");
    partial_path = test_folder_path(".trace.json.tmp");
    return write_model();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_tell_the_run), cmocka_unit_test(test_unwritable_paths),
        cmocka_unit_test(test_full_buffer), cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests_name("timeline and table of a run", tests, set_up, test_folder_end);
}
