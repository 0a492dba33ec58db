/*
 * Goal:   a file of logits has the bytes of the format, gives back what was written as closely as it can tell, and is
 *         refused in one line wherever it is cut or its numbers cannot be.
 * Method: small files, cut at every byte, and with each number of the header and of a row changed.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/little_endian.h"
#include "powerinfer2/logits_file.h"
#include "powerinfer2/scoring.h"
#include "support/temporary_files.h"

enum { CONTEXT = 8, CHUNKS = 2, VOCABULARY = 5, SCORED = 3, ROW_BYTES = 8 + 2 * 6,
       ROWS_BEGIN = 20 + 4 * CONTEXT * CHUNKS, FILE_BYTES = ROWS_BEGIN + CHUNKS * SCORED * ROW_BYTES };

static void logits_of(uint32_t row, uint32_t vocabulary, float *logits_out) {
    for (uint32_t i = 0; i < vocabulary; i++) logits_out[i] = (float)((row * 7 + i * i * 13) % 29) * 0.75f - 9.0f;
}

/** Writes CHUNKS chunks, of `count` tokens that are added one by one. */
static pi2_status write_file(const char *path, const char *const *inputs, uint32_t vocabulary, uint32_t count) {
    pi2_logits_writer *writer = NULL;
    uint64_t bytes;
    float *logits = malloc(vocabulary * sizeof *logits);
    pi2_status status = pi2_logits_writer_create(path, inputs, CONTEXT, vocabulary, &writer);
    for (uint32_t i = 0; i < count && status == PI2_OK; i++) {
        const int32_t token = (int32_t)(i % vocabulary);
        status = pi2_logits_writer_add_tokens(writer, &token, 1);
    }
    if (status == PI2_OK) status = pi2_logits_writer_end_tokens(writer, CHUNKS, &bytes);
    for (uint32_t row = 0; row < CHUNKS * SCORED && status == PI2_OK; row++) {
        logits_of(row, vocabulary, logits);
        status = pi2_logits_writer_add(writer, logits);
    }
    free(logits);
    if (status == PI2_OK) return pi2_logits_writer_finish(writer);
    pi2_logits_writer_discard(writer);
    return status;
}

static char *small_file(void) {
    char *path = test_folder_path("small.logits");
    assert_int_equal(write_file(path, NULL, VOCABULARY, CONTEXT * CHUNKS + 3), PI2_OK);
    return path;
}

/** Reads all of a file; the first failure. */
static pi2_status read_all(const char *path) {
    pi2_logits_file *file = NULL;
    int32_t tokens[CONTEXT];
    float logs[64];
    pi2_status status = pi2_logits_file_open(path, &file);
    for (uint32_t chunk = 0; chunk < CHUNKS && status == PI2_OK; chunk++) {
        status = pi2_logits_file_tokens(file, chunk, tokens);
        for (uint32_t i = 0; i < SCORED && status == PI2_OK; i++) status = pi2_logits_file_read(file, chunk, i, logs);
    }
    pi2_logits_file_close(file);
    return status;
}

static void test_bytes_are_those_of_the_format(void **state) {
    (void)state;
    size_t count;
    float logits[VOCABULARY];
    uint8_t *bytes = test_file_read(small_file(), &count);
    assert_int_equal(count, FILE_BYTES);
    assert_memory_equal(bytes, "_logits_", 8);
    assert_int_equal(pi2_load_le32(bytes + 8), CONTEXT);
    assert_int_equal(pi2_load_le32(bytes + 12), VOCABULARY);
    assert_int_equal(pi2_load_le32(bytes + 16), CHUNKS);
    for (uint32_t i = 0; i < CONTEXT * CHUNKS; i++) assert_int_equal(pi2_load_le32(bytes + 20 + 4 * i), i % VOCABULARY);
    const uint8_t *row = bytes + ROWS_BEGIN;
    logits_of(0, VOCABULARY, logits);
    float largest = logits[0], least = logits[0];
    for (uint32_t i = 1; i < VOCABULARY; i++) {
        largest = fmaxf(largest, logits[i]);
        least = fmaxf(fminf(least, logits[i]), largest - 16);
    }
    assert_true(largest - least > 15.9f); /* so that the lowest are cut off in this row */
    assert_true(fabsf(pi2_load_le_f32(row) - 16.0f / 65535) < 1e-9f);
    for (uint32_t i = 0; i < VOCABULARY; i++) {
        const float level = fmaxf(0, (logits[i] - (largest - 16)) / 16 * 65535);
        assert_true(fabsf((float)pi2_load_le16(row + 8 + 2 * i) - level) <= 0.51f);
    }
    assert_int_equal(pi2_load_le16(row + 8 + 2 * VOCABULARY), 0); /* fills up to an even number */
    free(bytes);
}

static void test_what_is_read_is_what_was_written(void **state) {
    (void)state;
    for (uint32_t vocabulary = 4; vocabulary < 64; vocabulary += 29) { /* even and odd */
        pi2_logits_file *file = NULL;
        int32_t tokens[CONTEXT];
        float logits[64], want[64], got[64];
        char *path = test_folder_path("whole.logits");
        assert_int_equal(write_file(path, NULL, vocabulary, CONTEXT * CHUNKS), PI2_OK);
        assert_int_equal(pi2_logits_file_open(path, &file), PI2_OK);
        const pi2_logits_file_info *info = pi2_logits_file_get_info(file);
        assert_int_equal(info->chunk_tokens, CONTEXT);
        assert_int_equal(info->vocabulary_size, vocabulary);
        assert_int_equal(info->chunk_count, CHUNKS);
        assert_int_equal(info->scored, CHUNKS * SCORED);
        for (uint32_t chunk = CHUNKS; chunk-- > 0;) { /* in any order */
            assert_int_equal(pi2_logits_file_tokens(file, chunk, tokens), PI2_OK);
            for (uint32_t i = 0; i < CONTEXT; i++) assert_int_equal(tokens[i], (chunk * CONTEXT + i) % vocabulary);
            for (uint32_t i = 0; i < SCORED; i++) {
                logits_of(chunk * SCORED + i, vocabulary, logits);
                pi2_log_probabilities(logits, vocabulary, want);
                assert_int_equal(pi2_logits_file_read(file, chunk, i, got), PI2_OK);
                for (uint32_t v = 0; v < vocabulary; v++) {
                    if (want[v] > -16) assert_true(fabsf(got[v] - want[v]) < 16.0f / 65535);
                    else assert_true(got[v] < -15.9f);
                }
            }
        }
        pi2_logits_file_close(file);
    }
}

static void test_flat_logits_have_one_level(void **state) {
    (void)state;
    static const float flat[VOCABULARY];
    pi2_logits_writer *writer = NULL;
    pi2_logits_file *file = NULL;
    int32_t tokens[4] = { 0 };
    uint64_t bytes;
    float logs[VOCABULARY];
    char *path = test_folder_path("flat.logits");
    assert_int_equal(pi2_logits_writer_create(path, NULL, 4, VOCABULARY, &writer), PI2_OK);
    assert_int_equal(pi2_logits_writer_add_tokens(writer, tokens, 4), PI2_OK);
    assert_int_equal(pi2_logits_writer_end_tokens(writer, 1, &bytes), PI2_OK);
    assert_int_equal(pi2_logits_writer_add(writer, flat), PI2_OK);
    assert_int_equal(pi2_logits_writer_finish(writer), PI2_OK);
    assert_int_equal(pi2_logits_file_open(path, &file), PI2_OK);
    assert_int_equal(pi2_logits_file_read(file, 0, 0, logs), PI2_OK);
    for (int i = 0; i < VOCABULARY; i++) assert_true(fabs((double)logs[i] + log(VOCABULARY)) < 1e-6);
    pi2_logits_file_close(file);
}

static void test_a_cut_file_is_refused(void **state) {
    (void)state;
    size_t count;
    uint8_t *bytes = test_file_read(small_file(), &count);
    char *path = test_folder_path("cut.logits");
    for (size_t length = 0; length < count; length++) {
        test_file_write(path, bytes, length);
        assert_int_equal(read_all(path), PI2_ERR_FORMAT);
        assert_non_null(strstr(pi2_error_text(), "cut.logits"));
        assert_null(strchr(pi2_error_text(), '\n'));
    }
    uint8_t *longer = calloc(1, count + 1);
    memcpy(longer, bytes, count);
    test_file_write(path, longer, count + 1);
    assert_int_equal(read_all(path), PI2_ERR_FORMAT);
    free(longer);
    free(bytes);
    assert_int_equal(read_all(test_folder_path("none.logits")), PI2_ERR_IO);
    assert_int_equal(read_all(test_folder_path(".")), PI2_ERR_IO);
}

static void test_numbers_that_cannot_be_are_refused(void **state) {
    (void)state;
    const uint32_t nan_bits = 0x7fc00000, minus_one = 0xbf800000, one = 0x3f800000;
    const struct { size_t at; uint32_t value; } changes[] = {
        { 0, 0 }, { 8, 0 }, { 8, 3 }, { 8, UINT32_MAX }, { 8, CONTEXT + 1 }, { 12, 0 }, { 12, UINT32_MAX },
        { 12, VOCABULARY + 2 }, { 16, 0 }, { 16, UINT32_MAX }, { 16, 0x7fffffff }, { 16, CHUNKS + 1 },
        { 16, CHUNKS - 1 }, { 20, VOCABULARY }, { 20 + 4 * CONTEXT, UINT32_MAX }, { ROWS_BEGIN, nan_bits },
        { ROWS_BEGIN, minus_one }, { ROWS_BEGIN, one }, { ROWS_BEGIN + 4, nan_bits }, { ROWS_BEGIN + 4, minus_one },
        { ROWS_BEGIN + 4, one }, { ROWS_BEGIN + ROW_BYTES, 0 },
    };
    size_t count;
    uint8_t *bytes = test_file_read(small_file(), &count);
    char *path = test_folder_path("changed.logits");
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        uint8_t old[4];
        memcpy(old, bytes + changes[i].at, 4);
        pi2_store_le32(bytes + changes[i].at, changes[i].value);
        test_file_write(path, bytes, count);
        if (read_all(path) != PI2_ERR_FORMAT) fail_msg("change %zu is taken", i);
        assert_non_null(strstr(pi2_error_text(), "changed.logits"));
        memcpy(bytes + changes[i].at, old, 4);
    }
    test_file_write(path, bytes, count);
    assert_int_equal(read_all(path), PI2_OK);
    free(bytes);
}

static void test_nothing_is_written_over_or_left_behind(void **state) {
    (void)state;
    char *path = test_folder_path("notes.txt"), *hidden = test_folder_path(".new.logits.tmp");
    const char *inputs[] = { path, NULL };
    pi2_logits_writer *writer = NULL;
    uint64_t bytes;
    test_file_write(path, "my notes", 8);
    assert_int_equal(write_file(path, NULL, VOCABULARY, CONTEXT * CHUNKS), PI2_ERR_INVALID);
    path = small_file();
    inputs[0] = path;
    assert_int_equal(write_file(path, inputs, VOCABULARY, CONTEXT * CHUNKS), PI2_ERR_INVALID);
    assert_int_equal(write_file(path, NULL, VOCABULARY, CONTEXT * CHUNKS), PI2_OK); /* its kind gives way */
    path = test_folder_path("new.logits");
    assert_int_equal(write_file(path, NULL, VOCABULARY, CONTEXT * CHUNKS - 1), PI2_ERR_INVALID); /* too few tokens */
    assert_int_not_equal(access(hidden, F_OK), 0);
    assert_int_equal(pi2_logits_writer_create(path, NULL, CONTEXT, VOCABULARY, &writer), PI2_OK);
    const int32_t tokens[CONTEXT] = { 0 };
    assert_int_equal(pi2_logits_writer_add_tokens(writer, tokens, CONTEXT), PI2_OK);
    assert_int_equal(pi2_logits_writer_end_tokens(writer, 1, &bytes), PI2_OK);
    assert_int_equal(pi2_logits_writer_finish(writer), PI2_ERR_INVALID); /* no logits came */
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(hidden, F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bytes_are_those_of_the_format, test_folder_begin_in_memory,
                                        test_folder_end),
        cmocka_unit_test_setup_teardown(test_what_is_read_is_what_was_written, test_folder_begin_in_memory,
                                        test_folder_end),
        cmocka_unit_test_setup_teardown(test_flat_logits_have_one_level, test_folder_begin_in_memory,
                                        test_folder_end),
        cmocka_unit_test_setup_teardown(test_a_cut_file_is_refused, test_folder_begin_in_memory,
                                        test_folder_end),
        cmocka_unit_test_setup_teardown(test_numbers_that_cannot_be_are_refused, test_folder_begin_in_memory,
                                        test_folder_end),
        cmocka_unit_test_setup_teardown(test_nothing_is_written_over_or_left_behind, test_folder_begin_in_memory,
                                        test_folder_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
