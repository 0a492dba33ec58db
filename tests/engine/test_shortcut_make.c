/*
 * Goal:   a shortcut that is made of a model is what its layers do: where those left out do nothing, every guess is
 *         right; it is made within the budget, and of files as well; layers that cannot be left out, models that have
 *         no shortcut, budgets without room, and an interruption are refused, and leave nothing behind.
 * Method: tiny models whose middle layers' output matrices are zeros, one of them large enough to stream.
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

#include "base/fail.h"
#include "base/memory_limit.h"
#include "file_formats/gguf.h"
#include "powerinfer2/model_shortcut.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum { TOKENS = 300, PLENTY = 400000000, STREAMS = 24000000 };

static char *model_path, *large_path, *other_path, *made_path, *large_made_path, *text_path, *cluster_path;

static void blank(const pi2_gguf *gguf, FILE *file, const char *name) {
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(gguf, name);
    assert_non_null(tensor);
    assert_int_equal(fseek(file, (long)tensor->file_offset, SEEK_SET), 0);
    for (uint64_t i = 0; i < tensor->bytes; i++) assert_int_equal(fputc(0, file), 0);
}

/* Of layers 1 and 2 nothing is added. */
static void make_idle(const char *path) {
    pi2_gguf *gguf = NULL;
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    for (int layer = 1; layer <= 2; layer++) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%d.attn_output.weight", layer);
        blank(gguf, file, name);
        (void)snprintf(name, sizeof name, "blk.%d.ffn_down.weight", layer);
        blank(gguf, file, name);
    }
    pi2_gguf_close(gguf);
    assert_int_equal(fclose(file), 0);
}

static pi2_engine_options options_for(const char *path, uint64_t more_bytes) {
    uint64_t peak = 0, current = 0;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    (void)pi2_process_memory(&peak, &current);
    options.model_path = path;
    options.memory_bytes = current + more_bytes;
    options.thread_count = 2;
    return options;
}

static pi2_status make(const pi2_engine_options *options, const pi2_shortcut_request *request,
                       pi2_shortcut_report *report) {
    const pi2_status status = pi2_shortcut_make(options, request, report);
    const char *made = options->model_path == large_path ? large_made_path : made_path;
    assert_int_equal(access(made, F_OK) == 0, status == PI2_OK && !request->output_path);
    return status;
}

static void test_idle_layers(void **state) {
    (void)state;
    pi2_shortcut_report report;
    const char *const texts[] = { text_path, NULL };
    const pi2_shortcut_request requests[] = { { .tokens = TOKENS, .first_layer = 1, .end_layer = 3 },
                                              { .tokens = TOKENS, .texts = texts } };
    const pi2_engine_options options = options_for(model_path, PLENTY);
    for (int i = 0; i < 2; i++) {
        if (make(&options, &requests[i], &report) != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_string_equal(report.path, made_path);
        assert_int_equal(report.layer_count, 4);
        assert_int_equal(report.first_layer, 1);
        assert_int_equal(report.end_layer, 3);
        assert_true(report.tokens >= TOKENS);
        assert_true(report.counted > 100);
        assert_int_equal(report.first, report.counted);
        assert_int_equal(report.among_eight, report.counted);
    }
    assert_true(report.tokens >= TOKENS + 90); /* the file's, too */
    assert_int_equal(unlink(made_path), 0);
}

static void test_streamed(void **state) {
    (void)state;
    pi2_shortcut_report report;
    const pi2_shortcut_request request = { .tokens = 100, .first_layer = 1, .end_layer = 3 };
    if (PI2_UNDER_EMULATOR || PI2_UNDER_ASAN || PI2_UNDER_TSAN) skip();
    const pi2_engine_options options = options_for(large_path, STREAMS);
    if (make(&options, &request, &report) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(report.counted > 100);
    assert_int_equal(report.first, report.counted);
    assert_int_equal(access(cluster_path, F_OK), 0); /* it did not fit */
    assert_int_equal(unlink(large_made_path), 0);
    assert_int_equal(unlink(cluster_path), 0);
}

static void refuse(const pi2_engine_options *options, pi2_shortcut_request request, pi2_status status,
                   const char *words) {
    pi2_shortcut_report report;
    assert_int_equal(make(options, &request, &report), status);
    if (!strstr(pi2_error_text(), words)) fail_msg("no \"%s\" in: %s", words, pi2_error_text());
}

/* Of budgets that grow there is one that the model runs in, and the layers that would guess have no room. */
static void test_no_room(void **state) {
    (void)state;
    const pi2_shortcut_request request = { .tokens = 1, .first_layer = 3, .end_layer = 4 };
    pi2_shortcut_report report;
    if (PI2_UNDER_EMULATOR || PI2_UNDER_ASAN || PI2_UNDER_TSAN) skip();
    for (uint64_t more = 4000000; more < STREAMS; more += 250000) {
        const pi2_engine_options options = options_for(large_path, more);
        assert_int_equal(make(&options, &request, &report), PI2_ERR_MEMORY);
        if (strstr(pi2_error_text(), "the budget has") && strstr(pi2_error_text(), "leave out more")) return;
    }
    fail_msg("no budget was too small for the layers alone");
}

static int calls_left;

static bool cancel_later(void *user) {
    (void)user;
    return calls_left-- <= 0;
}

static void test_refusals(void **state) {
    (void)state;
    static const uint32_t wrong[][2] = { { 0, 4 }, { 2, 2 }, { 3, 2 }, { 1, 5 } };
    pi2_engine_options options = options_for(model_path, PLENTY);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        refuse(&options, (pi2_shortcut_request){ .tokens = 1, .first_layer = wrong[i][0], .end_layer = wrong[i][1] },
               PI2_ERR_INVALID, "cannot be left out");
    }
    refuse(&options, (pi2_shortcut_request){ .tokens = 1, .output_path = "/nowhere/x.shortcut" }, PI2_ERR_IO,
           "/nowhere");
    refuse(&options, (pi2_shortcut_request){ .tokens = 1, .output_path = model_path }, PI2_ERR_INVALID, model_path);
    options.model_path = other_path;
    refuse(&options, (pi2_shortcut_request){ .tokens = 1 }, PI2_ERR_UNSUPPORTED, "has experts");
}

static void test_interruptions(void **state) {
    (void)state;
    pi2_engine_options options = options_for(model_path, PLENTY);
    options.callbacks.cancelled = cancel_later;
    for (int calls = 0; calls < 100000; calls = 2 * calls + 1) {
        pi2_shortcut_report report;
        const pi2_shortcut_request request = { .tokens = 1 };
        calls_left = calls;
        const pi2_status status = make(&options, &request, &report);
        if (status == PI2_OK) break;
        assert_int_equal(status, PI2_ERR_INTERRUPTED);
    }
    assert_int_equal(unlink(made_path), 0); /* it was not interrupted in the end */
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("idle.gguf");
    made_path = test_folder_path("idle.shortcut");
    other_path = test_folder_path("experts.gguf");
    large_path = test_folder_path("large.gguf");
    large_made_path = test_folder_path("large.shortcut");
    cluster_path = test_folder_path("large.pi2");
    text_path = test_folder_path("text.txt");
    FILE *file = fopen(text_path, "wb");
    if (!file) return 1;
    for (int i = 0; i < 30; i++) (void)fputs("the hand and the house; ", file);
    if (fclose(file) != 0) return 1;
    pi2_tiny_model_options options;
    pi2_streamed_model_options_init(&options);
    options.tied_head = false;
    if (pi2_tiny_model_write_apart(&options, large_path) != 0) return 1;
    make_idle(large_path);
    pi2_tiny_model_options_init(&options);
    options.layer_count = 4;
    if (pi2_tiny_model_write_apart(&options, model_path) != 0) return 1;
    make_idle(model_path);
    options.expert_count = 4;
    options.expert_used_count = 2;
    return pi2_tiny_model_write_apart(&options, other_path);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_idle_layers), cmocka_unit_test(test_streamed),
                                        cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_room),
                                        cmocka_unit_test(test_interruptions) };
    return cmocka_run_group_tests_name("making shortcuts", tests, set_up, test_folder_end);
}
