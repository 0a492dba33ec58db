/*
 * Goal:   a guard holds what was measured, the newest of a mode is found, and any file that is cut or has impossible
 *         figures is refused in one line.
 * Method: a file of two measurements, cut at every byte and changed figure by figure.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/guard.h"
#include "support/temporary_files.h"

static pi2_guard_entry make_entry(const char *arithmetic, uint64_t text_hash, double divergence) {
    pi2_guard_entry entry = { .text_hash = text_hash, .chunk_tokens = 512, .chunk_count = 8, .tokens = 2040,
                              .divergence = { divergence, divergence / 10 }, .same_top = { 0.97, 0.004 },
                              .perplexity_ratio = { 1.0 / 3, 0.001 } };
    (void)snprintf(entry.arithmetic, sizeof entry.arithmetic, "%s", arithmetic);
    (void)snprintf(entry.text, sizeof entry.text, "a \"text\"");
    return entry;
}

static pi2_guard *make_guard(void) {
    pi2_guard *guard = NULL;
    assert_int_equal(pi2_guard_create(0xfedcba9876543210u, &guard), PI2_OK);
    const pi2_guard_entry entries[] = { make_entry("cache q8_0", 1, 0.001), make_entry("other", 2, 0.25) };
    pi2_guard_put(guard, &entries[0]);
    pi2_guard_put(guard, &entries[1]);
    return guard;
}

static void test_what_was_measured_is_found(void **state) {
    (void)state;
    pi2_guard *guard = make_guard();
    assert_null(pi2_guard_find(guard, "cache q8"));
    assert_true(pi2_guard_find(guard, "cache q8_0")->divergence.value == 0.001);
    const pi2_guard_entry other_text = make_entry("cache q8_0", 3, 0.002), again = make_entry("cache q8_0", 1, 0.003);
    pi2_guard_put(guard, &other_text);
    assert_true(pi2_guard_find(guard, "cache q8_0")->divergence.value == 0.002); /* the newest */
    pi2_guard_put(guard, &again); /* in place of the first: of one mode and text there is one */
    assert_true(pi2_guard_find(guard, "cache q8_0")->divergence.value == 0.003);
    assert_non_null(pi2_guard_entry_at(guard, 2));
    assert_null(pi2_guard_entry_at(guard, 3));
    for (uint64_t i = 0; i < PI2_GUARD_MOST; i++) { /* the oldest give way */
        const pi2_guard_entry entry = make_entry("many", 100 + i, 0.1);
        pi2_guard_put(guard, &entry);
    }
    assert_null(pi2_guard_find(guard, "cache q8_0"));
    assert_non_null(pi2_guard_entry_at(guard, PI2_GUARD_MOST - 1));
    assert_null(pi2_guard_entry_at(guard, PI2_GUARD_MOST));
    pi2_guard_free(guard);
}

static void test_a_file_keeps_every_bit(void **state) {
    (void)state;
    char *path = test_folder_path("model.guard");
    pi2_guard *guard = make_guard(), *read = NULL;
    assert_int_equal(pi2_guard_check_place(path, NULL), PI2_OK);
    assert_int_equal(pi2_guard_write(guard, path), PI2_OK);
    assert_int_equal(pi2_guard_write(guard, path), PI2_OK); /* a guard gives way to a guard */
    assert_int_equal(pi2_guard_read(path, &read), PI2_OK);
    assert_true(pi2_guard_weights_hash(read) == 0xfedcba9876543210u);
    for (size_t i = 0; i < 2; i++) {
        assert_memory_equal(pi2_guard_entry_at(read, i), pi2_guard_entry_at(guard, i), sizeof(pi2_guard_entry));
    }
    assert_null(pi2_guard_entry_at(read, 2));
    pi2_guard_free(read);
    const char *inputs[] = { path, NULL };
    assert_int_equal(pi2_guard_check_place(path, inputs), PI2_ERR_INVALID);
    path = test_folder_path("notes");
    test_file_write(path, "notes", 5);
    assert_int_equal(pi2_guard_check_place(path, NULL), PI2_ERR_INVALID);
    assert_int_equal(pi2_guard_write(guard, path), PI2_ERR_INVALID);
    pi2_guard_free(guard);
}

static void test_it_lies_beside_the_weights(void **state) {
    (void)state;
    static const char *const paths[][2] = {
        { "a/model.gguf", "a/model.guard" }, { "model.pi2", "model.guard" }, { "model", "model.guard" },
        { "/x.gguf.pi2", "/x.gguf.guard" }, { ".pi2", ".pi2.guard" },
    };
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char *path = NULL;
        assert_int_equal(pi2_guard_default_path(paths[i][0], &path), PI2_OK);
        assert_string_equal(path, paths[i][1]);
        free(path);
    }
}

static void test_damaged_guards_are_refused(void **state) {
    (void)state;
    char *path = test_folder_path("model.guard");
    pi2_guard *guard = make_guard(), *read = NULL;
    size_t count;
    assert_int_equal(pi2_guard_write(guard, path), PI2_OK);
    pi2_guard_free(guard);
    char *bytes = (char *)test_file_read(path, &count);
    for (size_t length = 0; length + 2 < count; length++) { /* "}" and a newline are its end */
        test_file_write(path, bytes, length);
        assert_int_equal(pi2_guard_read(path, &read), PI2_ERR_FORMAT);
        assert_null(read);
        assert_null(strchr(pi2_error_text(), '\n'));
    }
    static const char *const changes[][2] = {
        { "_guard\": 1", "_guard\": 2" }, { "fedcba98", "fedcbaXX" }, { "\"measured\"", "\"measures\"" },
        { "\"tokens\": 2040", "\"tokens\": -204" }, { "\"chunks\": 8", "\"chunks\": 0" },
        { "\"chunk_tokens\": 512", "\"chunk_tokens\": 5.1" }, { "\"arithmetic\"", "\"arithmetik\"" },
        { "a \\\"text\\\"", "a \\ttext\\\\\\\"" }, { "\"same_top\"", "\"some_top\"" }, { "0.9699", "1.9699" },
        { "0.3333", "-3.333" }, { "0.001", "\"001" }, { "[", "{" },
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char *at = strstr(bytes, changes[i][0]);
        const size_t length = strlen(changes[i][0]);
        if (!at) fail_msg("there is no %s in %s", changes[i][0], bytes);
        memcpy(at, changes[i][1], length);
        test_file_write(path, bytes, count);
        if (pi2_guard_read(path, &read) != PI2_ERR_FORMAT) fail_msg("%s is taken", changes[i][1]);
        memcpy(at, changes[i][0], length);
    }
    test_file_write(path, bytes, count);
    assert_int_equal(pi2_guard_read(path, &read), PI2_OK);
    pi2_guard_free(read);
    free(bytes);
}

#define TEST_IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, test_folder_begin_in_memory, test_folder_end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(test_what_was_measured_is_found),
        TEST_IN_FOLDER(test_a_file_keeps_every_bit),
        TEST_IN_FOLDER(test_it_lies_beside_the_weights),
        TEST_IN_FOLDER(test_damaged_guards_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
