/* temporary_files.c */
#define _XOPEN_SOURCE 700 /* nftw */

#include "support/temporary_files.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

char *test_folder_make(void) {
    const char *parent = getenv("TMPDIR");
    char *folder = test_path(parent && *parent ? parent : "/tmp", "pi2-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

char *test_folder_make_in_memory(void) {
    if (access("/dev/shm", W_OK | X_OK) != 0) return test_folder_make();
    char *folder = test_path("/dev/shm", "pi2-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    return remove(path);
}

void test_folder_remove(char *folder) {
    assert_int_equal(nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(folder);
}

char *test_path(const char *folder, const char *name) {
    const size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = malloc(bytes);
    assert_non_null(path);
    (void)snprintf(path, bytes, "%s/%s", folder, name);
    return path;
}

enum { MOST_PATHS = 32 };
char *test_folder;
static char *paths[MOST_PATHS];
static size_t path_count;

int test_folder_begin(void **state) {
    (void)state;
    test_folder = test_folder_make();
    return 0;
}

int test_folder_begin_in_memory(void **state) {
    (void)state;
    test_folder = test_folder_make_in_memory();
    return 0;
}

int test_folder_end(void **state) {
    (void)state;
    while (path_count > 0) free(paths[--path_count]);
    test_folder_remove(test_folder);
    return 0;
}

char *test_folder_path(const char *name) {
    assert_true(path_count < MOST_PATHS);
    return paths[path_count++] = test_path(test_folder, name);
}

void test_file_write(const char *path, const void *bytes, size_t count) {
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(file >= 0);
    for (size_t done = 0; done < count;) {
        const ssize_t written = write(file, (const uint8_t *)bytes + done, count - done);
        assert_true(written > 0 || errno == EINTR);
        if (written > 0) done += (size_t)written;
    }
    assert_int_equal(close(file), 0);
}

uint8_t *test_file_read(const char *path, size_t *count_out) {
    struct stat status;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    assert_int_equal(fstat(file, &status), 0);
    const size_t count = (size_t)status.st_size;
    uint8_t *bytes = malloc(count + 1);
    assert_non_null(bytes);
    for (size_t done = 0; done < count;) {
        const ssize_t got = read(file, bytes + done, count - done);
        assert_true(got > 0);
        done += (size_t)got;
    }
    assert_int_equal(close(file), 0);
    *count_out = count;
    return bytes;
}

void test_file_copy(const char *from_path, const char *to_path) {
    static char buffer[65536];
    FILE *from = fopen(from_path, "rb"), *to = fopen(to_path, "wb");
    assert_non_null(from);
    assert_non_null(to);
    for (size_t got; (got = fread(buffer, 1, sizeof buffer, from)) > 0;) {
        assert_int_equal(fwrite(buffer, 1, got, to), got);
    }
    assert_int_equal(fclose(from), 0);
    assert_int_equal(fclose(to), 0);
}
