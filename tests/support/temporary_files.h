/* temporary_files.h: temporary folders and whole files for tests. Failures end the test (cmocka). */
#ifndef PI2_TESTS_TEMPORARY_FILES_H
#define PI2_TESTS_TEMPORARY_FILES_H

#include <stddef.h>
#include <stdint.h>

/** Makes a new folder below TMPDIR or /tmp; free() the path after test_folder_remove(). */
char *test_folder_make(void);
/** The same in memory where the system has /dev/shm: for tests that write thousands of files. */
char *test_folder_make_in_memory(void);
/** Removes the folder and everything inside it, and frees the path. */
void test_folder_remove(char *folder);

/**
 * The folder of a test or of a whole program: set-up and tear-down functions for cmocka, given as they are or called by
 * a test's own. Paths made by test_folder_path() go with it; they may be written into.
 */
extern char *test_folder;
int test_folder_begin(void **state);
int test_folder_begin_in_memory(void **state);
int test_folder_end(void **state);
char *test_folder_path(const char *name);

/** "folder/name", malloc'd. */
char *test_path(const char *folder, const char *name);

void test_file_write(const char *path, const void *bytes, size_t count);
/** The whole file, malloc'd. */
uint8_t *test_file_read(const char *path, size_t *count_out);

/** Copies a file's bytes over those of another, or into a new one, in small steps. */
void test_file_copy(const char *from_path, const char *to_path);

#endif
