/*
 * Goal:   any range of a file comes whole, whatever its offset, its length and the shortness of reads; a failure names
 *         the file, the byte and the reason, and a file that became shorter is told as such; opening goes to another
 *         file and stays with the same.
 * Method: a file of known bytes; hooks that shorten reads and let them fail.
 */
#include <errno.h>

#include "storage/storage_test.h"

#include "store/weight_file.h"

enum { FILE_BYTES = 9 * 4096 + 77, MEMORY = FILE_BYTES + PI2_WEIGHT_FILE_SLACK };

typedef struct fault {
    uint64_t bad_byte; /* reads over it fail; UINT64_MAX: none does */
    int64_t most;      /* bytes that a read gives */
    unsigned reads;
} fault;

static int64_t on_read(void *context, const pi2_read_operation *operation, int64_t result) {
    fault *f = context;
    f->reads++;
    if (f->bad_byte >= operation->offset && f->bad_byte - operation->offset < operation->bytes) return -EIO;
    return test_shorten(operation, result, f->most);
}

/* As pi2_weight_file_open() does, with hooks. */
static void open_with(const test_file *file, const pi2_read_hooks *hooks, pi2_weight_file *weights) {
    *weights = (pi2_weight_file){ .reader = test_open(file, "pread", 0, hooks), .path = file->path };
    assert_non_null(weights->reader);
}

static void check_range(pi2_weight_file *weights, uint8_t *memory, uint64_t offset, size_t bytes) {
    const uint8_t *data = NULL;
    memset(memory, 0xcc, MEMORY);
    if (pi2_weight_file_read(weights, offset, bytes, memory, &data) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(data >= memory && data + bytes <= memory + MEMORY);
    for (size_t i = 0; i < bytes; i++) {
        if (data[i] != test_byte(offset + i)) fail_msg("byte %zu of %zu at %d is wrong", i, bytes, (int)offset);
    }
}

static void test_ranges(void **state) {
    (void)state;
    static const size_t lengths[] = { 0, 1, 4095, 4096, 4097, 3 * 4096 + 5 };
    test_file file;
    test_file_make(&file, FILE_BYTES);
    uint8_t *memory = test_pages(MEMORY);
    for (int64_t most = 4096; most <= FILE_BYTES; most += FILE_BYTES - 4096) { /* one block at a time; all */
        fault f = { .bad_byte = UINT64_MAX, .most = most };
        const pi2_read_hooks hooks = { .context = &f, .read_result = on_read };
        pi2_weight_file weights;
        open_with(&file, &hooks, &weights);
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            for (uint64_t offset = 0; offset + lengths[i] <= FILE_BYTES; offset += 1021) {
                check_range(&weights, memory, offset, lengths[i]);
            }
            check_range(&weights, memory, FILE_BYTES - lengths[i], lengths[i]);
        }
        f.reads = 0;
        check_range(&weights, memory, 0, FILE_BYTES);
        assert_int_equal(f.reads, most == 4096 ? 10 : 1);
        pi2_weight_file_close(&weights);
    }
    pi2_pages_release(memory, MEMORY);
    test_file_remove(&file);
}

static void test_failures(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, FILE_BYTES);
    uint8_t *memory = test_pages(MEMORY);
    const uint8_t *data;
    fault f = { .bad_byte = 3 * 4096 + 5, .most = 4096 };
    const pi2_read_hooks hooks = { .context = &f, .read_result = on_read };
    pi2_weight_file weights;
    open_with(&file, &hooks, &weights);
    f.most = FILE_BYTES;
    check_range(&weights, memory, 100, 2 * 4096);
    assert_int_equal(pi2_weight_file_read(&weights, 4096 + 9, 3 * 4096, memory, &data), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), file.path));
    assert_non_null(strstr(pi2_error_text(), "at byte 4096:"));
    assert_non_null(strstr(pi2_error_text(), strerror(EIO)));
    /* The file ends: where it was opened, and since. Nothing is taken from behind its end. */
    f.bad_byte = UINT64_MAX;
    f.reads = 0;
    assert_int_equal(pi2_weight_file_read(&weights, FILE_BYTES - 9, 10, memory, &data), PI2_ERR_IO);
    assert_int_equal(pi2_weight_file_read(&weights, UINT64_MAX - 1, 10, memory, &data), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), file.path));
    assert_non_null(strstr(pi2_error_text(), "ends at byte 36941, inside"));
    assert_non_null(strstr(pi2_error_text(), "become shorter"));
    assert_int_equal(f.reads, 0);
    assert_int_equal(truncate(file.path, 5000), 0);
    check_range(&weights, memory, 7, 4000);
    assert_int_equal(pi2_weight_file_read(&weights, 4096, 2 * 4096, memory, &data), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), file.path));
    assert_non_null(strstr(pi2_error_text(), "ended early at byte 5000,"));
    pi2_weight_file_close(&weights);
    pi2_pages_release(memory, MEMORY);
    test_file_remove(&file);
}

static void test_opening(void **state) {
    (void)state;
    test_file first, second;
    test_file_make(&first, FILE_BYTES);
    test_file_make(&second, 4096);
    uint8_t *memory = test_pages(MEMORY);
    pi2_weight_file weights = { 0 };
    pi2_weight_file_close(&weights);
    assert_int_equal(pi2_weight_file_open(&weights, first.path), PI2_OK);
    const struct pi2_reader *reader = weights.reader;
    assert_int_equal(pi2_weight_file_open(&weights, first.path), PI2_OK);
    assert_ptr_equal(weights.reader, reader);
    check_range(&weights, memory, 4096, 4096);
    assert_int_equal(pi2_weight_file_open(&weights, second.path), PI2_OK);
    const uint8_t *data;
    assert_int_equal(pi2_weight_file_read(&weights, 4096, 4096, memory, &data), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), second.path));
    test_file_remove(&second);
    assert_int_equal(pi2_weight_file_open(&weights, first.path), PI2_OK);
    assert_int_equal(pi2_weight_file_open(&weights, second.path), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), second.path));
    assert_null(weights.reader);
    pi2_weight_file_close(&weights);
    pi2_pages_release(memory, MEMORY);
    test_file_remove(&first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_opening),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
