/*
 * Goal:   a damaged cluster file is found and named, and nothing computes on; a changed source is
 *         noticed; a budget is never passed silently.
 * Method: a tiny model is streamed once, then its cluster file is altered byte by byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "file_formats/cluster_file.h"
#include "powerinfer2/session.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

static char *model_path, *cluster_path, *copy_path;

/* In a child: this process's memory counts against the engine's budget. */
static int write_model(uint32_t seed, float rope_base) {
    pi2_tiny_model_options options;
    pi2_streamed_model_options_init(&options);
    options.seed = seed;
    options.rope_base = rope_base;
    return pi2_tiny_model_write_apart(&options, model_path);
}

enum { MORE_BYTES = 11500000 }; /* enough to stream the tiny model beside what the process holds */

static pi2_status open_streaming(const char *method, pi2_engine **engine) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.cluster_path = cluster_path;
    options.context_tokens = 64;
    options.read_method = method;
    return pi2_small_budget_open(&options, MORE_BYTES, engine);
}

static pi2_status run_some(pi2_engine *engine) {
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    const int32_t tokens[4] = { 1, 2, 3, 4 };
    pi2_status status = pi2_session_append(session, tokens, 4, PI2_LOGITS_LAST);
    if (status != PI2_OK) assert_int_equal(pi2_session_position(session), 0);
    for (int i = 0; status == PI2_OK && i < 3; i++) status = pi2_session_append(session, tokens, 1, PI2_LOGITS_LAST);
    pi2_session_free(session);
    return status;
}

/* Offset of byte `inside` of extent `index` in the cluster file. */
static long extent_offset(uint32_t index, uint32_t inside) {
    pi2_gguf *gguf = NULL;
    pi2_extent_layout *layout = NULL;
    pi2_source_identity source;
    assert_int_equal(pi2_gguf_open(cluster_path, &gguf), PI2_OK);
    assert_int_equal(pi2_cluster_file_layout(gguf, &layout, &source), PI2_OK);
    assert_true(index < layout->extent_count);
    const long offset = (long)layout->extents[index].file_offset + (long)inside;
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
    return offset;
}

static void flip_byte(long offset) {
    FILE *file = fopen(cluster_path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ 4, file), EOF);
    assert_int_equal(fclose(file), 0);
}

static void test_flipped_byte_is_named(void **state) {
    (void)state;
    static const char *const methods[] = { "auto", "pread" };
    for (size_t m = 0; m < 2; m++) {
        for (uint32_t extent = 3; extent < 12; extent += 4) {
            pi2_engine *engine = NULL;
            if (open_streaming(methods[m], &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
            const long offset = extent_offset(extent, 1000);
            flip_byte(offset);
            assert_int_equal(run_some(engine), PI2_ERR_FORMAT);
            char wanted[32];
            (void)snprintf(wanted, sizeof wanted, "extent %u", extent);
            assert_non_null(strstr(pi2_error_text(), wanted));
            assert_non_null(strstr(pi2_error_text(), "tensor 'blk."));
            assert_int_equal(run_some(engine), PI2_ERR_FORMAT); /* and again, not ignored */
            flip_byte(offset); /* mended: the engine can go on */
            if (run_some(engine) != PI2_OK) fail_msg("%s", pi2_error_text());
            pi2_engine_close(engine);
        }
    }
}

static void test_truncated_while_open(void **state) {
    (void)state;
    struct stat whole;
    assert_int_equal(stat(cluster_path, &whole), 0);
    test_file_copy(cluster_path, copy_path);
    pi2_engine *engine = NULL;
    if (open_streaming("auto", &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(truncate(cluster_path, whole.st_size / 2), 0);
    assert_int_equal(run_some(engine), PI2_ERR_IO);
    if (!strstr(pi2_error_text(), "at byte")) fail_msg("no place in: %s", pi2_error_text());
    pi2_engine_close(engine);
    test_file_copy(copy_path, cluster_path);
}

static void test_truncated_before_open(void **state) {
    (void)state;
    struct stat whole;
    assert_int_equal(stat(cluster_path, &whole), 0);
    test_file_copy(cluster_path, copy_path);
    static const int parts[] = { 2, 3, 100, 100000 };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        assert_int_equal(truncate(copy_path, whole.st_size - whole.st_size / parts[i] - 1), 0);
        pi2_engine_options options;
        pi2_engine_options_init(&options);
        options.model_path = copy_path; /* named itself, it cannot be made again */
        pi2_engine *engine = NULL;
        assert_int_equal(pi2_small_budget_open(&options, MORE_BYTES, &engine), PI2_ERR_FORMAT);
        assert_null(engine);
        test_file_copy(cluster_path, copy_path);
    }
}

static void test_changed_source_is_prepared_again(void **state) {
    (void)state;
    assert_int_equal(write_model(2, 20000), 0); /* another header: another identity */
    pi2_engine *engine = NULL;
    if (open_streaming("auto", &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    if (run_some(engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_engine_close(engine);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("tiny.gguf");
    cluster_path = test_folder_path("elsewhere.pi2");
    copy_path = test_folder_path("copy.pi2");
    if (write_model(1, 10000) != 0) return -1;
    pi2_engine *engine = NULL;
    if (open_streaming("auto", &engine) != PI2_OK || run_some(engine) != PI2_OK) {
        print_error("%s\n", pi2_error_text());
        return -1;
    }
    pi2_engine_close(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flipped_byte_is_named), cmocka_unit_test(test_truncated_while_open),
        cmocka_unit_test(test_truncated_before_open), cmocka_unit_test(test_changed_source_is_prepared_again),
    };
    return cmocka_run_group_tests_name("engine and damaged files", tests, set_up, test_folder_end);
}
