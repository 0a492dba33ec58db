/*
 * Goal:   every family gives the same bits whatever the budget, batch, threads and read method, from the GGUF and from
 *         the file that is prepared of it; a session goes back in its timeline where states are recurrent, too.
 * Method: models that are wide enough to stream; a few variations that cover pairs, against one thread in memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "file_formats/cluster_file.h"
#include "powerinfer2/model_file.h"
#include "support/emulator.h"
#include "support/family_model.h"
#include "support/read_methods.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"

enum { PROMPT = 17, DECODED = 2, SCALE = 10, MORE_BYTES = 9500000 };

typedef struct variation {
    const char *cpu, *read_method;
    uint32_t threads, batch;
    bool streams;
} variation;

static pi2_engine *open_variation(const char *path, const variation *v) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = v->streams ? 0 : PI2_TEST_PLENTY_BYTES;
    options.thread_count = v->threads;
    options.batch_tokens = v->batch;
    options.context_tokens = 64;
    options.read_method = v->read_method;
    pi2_session_run_cpu(v->cpu);
    pi2_engine *engine = NULL;
    const pi2_status status = v->streams ? pi2_small_budget_open(&options, MORE_BYTES, &engine)
                                         : pi2_engine_open(&options, &engine);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

/* So wide that it streams: some have fewer matrices. */
static uint32_t scale_of(const char *family) {
    static const struct { const char *family; uint32_t scale; } wider[] = { { "arcee", 14 }, { "nemotron_h", 22 },
                                                                           { "nemotron_h_moe", 16 } };
    for (size_t i = 0; i < sizeof wider / sizeof wider[0]; i++) {
        if (strcmp(family, wider[i].family) == 0) return wider[i].scale;
    }
    return SCALE;
}

static void check_family(const char *family, const char *path) {
    static const variation variations[] = {
        { NULL, "pread", 2, 7, true }, { "avx2", "io_uring", 1, 1, true }, { NULL, "auto", 2, 1, false } };
    const variation plain = { "scalar", "auto", 1, 16, false };
    pi2_session_run want, got;
    bool has_streamed = false;
    const uint32_t scale = scale_of(family);
    if (pi2_family_model_write_apart(family, PI2_Q8_0, scale, path) != 0) fail_msg("cannot write %s", path);
    pi2_engine *engine = open_variation(path, &plain);
    pi2_session_run_make(engine, PROMPT, DECODED, &want);
    pi2_engine_close(engine);
    for (size_t i = 0; i < sizeof variations / sizeof variations[0]; i++) {
        if (!test_has_read_method(variations[i].read_method, path)) continue;
        engine = open_variation(path, &variations[i]);
        const pi2_engine_report *report = pi2_engine_get_report(engine);
        has_streamed |= report->resident_bytes < report->weight_bytes;
        pi2_session_run_make(engine, PROMPT, DECODED, &got);
        pi2_engine_close(engine);
        pi2_session_run_compare(&want, &got, i);
        pi2_session_run_free(&got);
    }
    /* A sanitizer's own memory may raise the budget until all fits (support/small_budget.h). */
    const bool is_exact = !PI2_UNDER_ASAN && !PI2_UNDER_TSAN && !PI2_UNDER_EMULATOR;
    if (is_exact && !has_streamed) fail_msg("%s never streamed", family);
    pi2_session_run_free(&want);
}

static void test_families(void **state) {
    (void)state;
    for (size_t i = 0; pi2_family_name(i); i++) {
        char *folder = test_folder_make(), *path = test_path(folder, "family.gguf");
        check_family(pi2_family_name(i), path);
        free(path);
        test_folder_remove(folder);
    }
}

/* ---- what reckons with single neurons ---- */

static void run_as(const char *path, const char *activation, pi2_session_run *run) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.ffn_activation = activation;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s: %s", path, pi2_error_text());
    pi2_session_run_make(engine, PROMPT, DECODED, run);
    pi2_engine_close(engine);
}

/* A file of the neuron layout serves families whose layers' FFNs differ: they are computed whole. */
static void test_neuron_layout(void **state) {
    (void)state;
    static const char *const cases[][2] = { { "qwen2moe", "relu" }, { "qwen35moe", NULL }, { "lfm2moe", "relu" },
                                            { "nemotron_h", NULL }, { "arcee", NULL }, { "gpt-oss", "relu" },
                                            { "gemma3n", NULL } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *folder = test_folder_make(), *path = test_path(folder, "f.gguf"), *made = test_path(folder, "f.pi2");
        pi2_session_run want, got;
        assert_int_equal(pi2_family_model_write_apart(cases[i][0], PI2_Q8_0, 1, path), 0);
        const pi2_prepare_options options = { .model_path = path, .output_path = made, .layout = PI2_LAYOUT_NEURON,
                                              .ffn_activation = cases[i][1],
                                              .memory_bytes = PI2_TEST_PREPARE_BYTES };
        run_as(path, cases[i][1], &want);
        if (pi2_prepare_file(&options, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
        run_as(made, cases[i][1], &got);
        pi2_session_run_compare(&want, &got, i);
        pi2_session_run_free(&want);
        pi2_session_run_free(&got);
        free(path);
        free(made);
        test_folder_remove(folder);
    }
}

/* ---- going back ---- */

static void append(pi2_session *session, const int32_t *tokens, size_t count) {
    if (pi2_session_append(session, tokens, count, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static bool stop_now;
static bool is_stopped(void *user) {
    (void)user;
    return stop_now;
}

static void check_same(const pi2_session *session, const float *want, size_t bytes, const char *what) {
    if (memcmp(pi2_session_logits(session, 0), want, bytes) != 0) fail_msg("%s gives other logits", what);
}

/* To before, at and behind what a prompt left, and after a pass that was interrupted. */
static void check_going_back(const char *family, const char *path) {
    static const uint32_t places[] = { 12, 9, 4, 14, 0 };
    int32_t tokens[20];
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_session *session = NULL;
    assert_int_equal(pi2_family_model_write(family, PI2_Q8_0, 1, path), 0);
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.batch_tokens = 4;
    options.callbacks.cancelled = is_stopped;
    for (int32_t i = 0; i < 20; i++) tokens[i] = (i * 31 + 5) % 256;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    const size_t bytes = pi2_engine_get_report(engine)->vocabulary_size * sizeof(float);
    float *want = malloc(bytes);
    assert_non_null(want);
    append(session, tokens, 20);
    memcpy(want, pi2_session_logits(session, 0), bytes);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const int32_t other[3] = { 250, 251, 252 };
        assert_int_equal(pi2_session_truncate(session, 0), PI2_OK);
        append(session, tokens, 9);
        for (uint32_t t = 9; t < 14; t++) append(session, tokens + t, 1);
        append(session, other, 3);
        assert_int_equal(pi2_session_truncate(session, 14), PI2_OK);
        assert_int_equal(pi2_session_truncate(session, places[i]), PI2_OK);
        stop_now = i % 2 == 1;
        if (stop_now) {
            assert_int_equal(pi2_session_append(session, other, 3, PI2_LOGITS_LAST), PI2_ERR_INTERRUPTED);
        }
        stop_now = false;
        append(session, tokens + places[i], 20 - places[i]);
        check_same(session, want, bytes, family);
    }
    free(want);
    pi2_session_free(session);
    pi2_engine_close(engine);
}

static void test_going_back(void **state) {
    (void)state;
    static const char *const families[] = { "lfm2", "qwen35moe", "gemma3", "gemma4" };
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char *folder = test_folder_make(), *path = test_path(folder, "family.gguf");
        check_going_back(families[i], path);
        free(path);
        test_folder_remove(folder);
    }
}

/* ---- tables of rows ---- */

/* Flips a bit of the row of `token` in the table of a prepared file. */
static void flip_row(const char *path, uint32_t token) {
    pi2_gguf *gguf = NULL;
    pi2_extent_layout *layout = NULL;
    pi2_source_identity source;
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    if (pi2_cluster_file_layout(gguf, &layout, &source) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        const pi2_piece *piece = &layout->pieces[layout->extents[e].first_piece];
        const uint64_t end = piece->row_begin + piece->row_count;
        uint32_t bytes;
        if (layout->groups[layout->extents[e].group].kind != PI2_GROUP_TABLE || token < piece->row_begin ||
            token >= end) continue;
        const uint32_t run = (token - (uint32_t)piece->row_begin) / 16 * 16;
        FILE *file = fopen(path, "r+b");
        assert_non_null(file);
        const long at = (long)(layout->extents[e].file_offset + pi2_piece_run(layout, piece, run, &bytes));
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        const int byte = fgetc(file);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
        assert_int_equal(fclose(file), 0);
    }
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
}

/* A row of the table of tokens' vectors is compared with its checksum when it is read, as any other weight. */
static void test_table_rows(void **state) {
    (void)state;
    static const int32_t good = 70, bad = 33;
    char *folder = test_folder_make(), *path = test_path(folder, "f.gguf"), *made = test_path(folder, "f.pi2");
    const pi2_prepare_options prepare = { .model_path = path, .output_path = made,
                                          .memory_bytes = PI2_TEST_PREPARE_BYTES };
    const variation v = { NULL, "pread", 1, 1, true };
    pi2_session *session = NULL;
    assert_int_equal(pi2_family_model_write_apart("gemma4", PI2_Q8_0, SCALE, path), 0);
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    flip_row(made, (uint32_t)bad);
    pi2_engine *engine = open_variation(made, &v);
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    append(session, &good, 1);
    assert_int_equal(pi2_session_append(session, &bad, 1, PI2_LOGITS_LAST), PI2_ERR_FORMAT);
    if (!strstr(pi2_error_text(), "the run of rows from 32 on of tensor 'per_layer_token_embd.weight'")) {
        fail_msg("no rows in: %s", pi2_error_text());
    }
    pi2_session_free(session);
    pi2_engine_close(engine);
    free(path);
    free(made);
    test_folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_families), cmocka_unit_test(test_neuron_layout),
                                        cmocka_unit_test(test_going_back), cmocka_unit_test(test_table_rows) };
    return cmocka_run_group_tests_name("runs of families", tests, NULL, NULL);
}
