/* storage_test.h: a file of known bytes, and reads of it that are checked. */
#ifndef PI2_TESTS_STORAGE_TEST_H
#define PI2_TESTS_STORAGE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pages.h"
#include "storage/read_faults.h"
#include "storage/reader.h"

typedef struct test_file {
    char path[512];
    uint64_t bytes;
} test_file;

/* Every 8 bytes tell their own position, so that data from a wrong place is noticed. */
static inline unsigned char test_byte(uint64_t offset) {
    uint64_t word = offset / 8 * 0x9e3779b97f4a7c15u;
    word ^= word >> 29;
    return (unsigned char)(word >> (offset % 8 * 8));
}

static inline void test_file_make(test_file *file, uint64_t bytes) {
    const char *folder = getenv("TMPDIR");
    (void)snprintf(file->path, sizeof file->path, "%s/pi2-reader-XXXXXX", folder ? folder : "/tmp");
    const int fd = mkstemp(file->path);
    assert_true(fd >= 0);
    file->bytes = bytes;
    unsigned char block[4096];
    for (uint64_t at = 0; at < bytes; at += sizeof block) {
        for (size_t i = 0; i < sizeof block; i++) block[i] = test_byte(at + i);
        const size_t part = bytes - at < sizeof block ? (size_t)(bytes - at) : sizeof block;
        assert_int_equal(write(fd, block, part), part);
    }
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(close(fd), 0);
}

static inline void test_file_remove(const test_file *file) {
    assert_int_equal(unlink(file->path), 0);
}

static inline void *test_pages(size_t bytes) {
    void *pages = NULL;
    assert_int_equal(pi2_pages_reserve(bytes, false, "test", &pages), PI2_OK);
    return pages;
}

/* Where byte i of a read goes; NULL: nowhere. */
static inline const unsigned char *test_place(const pi2_read_request *request, uint32_t i) {
    if (!request->pieces) return (const unsigned char *)request->destination + i;
    const unsigned char *piece = request->pieces[i / request->piece_bytes];
    return piece ? piece + i % request->piece_bytes : NULL;
}

/* The file's bytes, and zeros past its end. Returns the first wrong position, or -1. */
static inline long test_first_wrong(const test_file *file, const pi2_read_request *request) {
    for (uint32_t i = 0; i < request->bytes; i++) {
        const uint64_t at = request->offset + i;
        const unsigned char *place = test_place(request, i);
        if (place && *place != (at < file->bytes ? test_byte(at) : 0)) return (long)i;
    }
    return -1;
}

static inline void test_check_read(const test_file *file, const pi2_read_request *request) {
    const long wrong = test_first_wrong(file, request);
    if (wrong >= 0) {
        fail_msg("byte %ld of the read at %llu is wrong", wrong,
                 (unsigned long long)request->offset);
    }
}

/* A hook's result: no more than `kept` bytes were read, and what lies behind them is spoiled. */
static inline int64_t test_shorten(const pi2_read_operation *operation, int64_t result, int64_t kept) {
    if (result <= kept) return result;
    int64_t at = 0;
    for (uint32_t i = 0; i < operation->place_count; i++) {
        const struct iovec *place = &operation->places[i];
        for (size_t k = 0; k < place->iov_len && at < result; k++, at++) {
            if (at >= kept) ((unsigned char *)place->iov_base)[k] = 0xee;
        }
    }
    return kept;
}

/* Opens a reader, or says that the method does not work on this system and returns NULL. */
static inline pi2_reader *test_open(const test_file *file, const char *method, uint32_t depth,
                                    const pi2_read_hooks *hooks) {
    const pi2_reader_options options = {.path = file->path, .method = method, .depth = depth};
    pi2_reader *reader = NULL;
    const pi2_status status = pi2_reader_open_with_hooks(&options, hooks, &reader);
    if (status == PI2_OK) return reader;
    assert_null(reader);
    assert_string_not_equal(method, "pread"); /* this one works everywhere */
    assert_string_not_equal(method, "auto");
    print_message("skipped %s: %s\n", method, pi2_error_text());
    return NULL;
}

#endif
