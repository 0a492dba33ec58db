/* Goal:   pi2_gguf_open reads what follows the format and refuses everything else in one line
 *         that names the file, the key or tensor and the byte.
 * Method: a small file is built by hand, byte by byte; each case changes one thing in it. Then
 *         every truncation and every single-byte change of it is opened: none may be read
 *         wrongly past its end (the sanitizers watch), and no truncation may succeed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/little_endian.h"
#include "file_formats/gguf.h"
#include "file_formats/gguf_writer.h"
#include "file_formats/powerinfer_gguf.h"
#include "support/temporary_files.h"

/* ---- a file built by hand --------------------------------------------------------------- */

enum { BUFFER_BYTES = 16384 };

typedef struct buffer {
    uint8_t bytes[BUFFER_BYTES];
    size_t length;
} buffer;

static void put(buffer *out, const void *bytes, size_t count) {
    assert_true(out->length + count <= BUFFER_BYTES);
    memcpy(out->bytes + out->length, bytes, count);
    out->length += count;
}

static void put_number(buffer *out, size_t bytes, uint64_t value) {
    uint8_t raw[8];
    pi2_store_le(raw, 8, value);
    put(out, raw, bytes);
}

static void put_string(buffer *out, const char *text) {
    put_number(out, 8, strlen(text));
    put(out, text, strlen(text));
}

static void put_key(buffer *out, const char *key, uint32_t type) {
    put_string(out, key);
    put_number(out, 4, type);
}

static void put_tensor(buffer *out, const char *name, uint32_t type, uint64_t columns,
                       uint64_t rows, uint64_t offset) {
    put_string(out, name);
    put_number(out, 4, 2);
    put_number(out, 8, columns);
    put_number(out, 8, rows);
    put_number(out, 4, type);
    put_number(out, 8, offset);
}

static void put_start(buffer *out, uint32_t version, uint64_t tensors, uint64_t entries) {
    out->length = 0;
    put(out, "GGUF", 4);
    put_number(out, 4, version);
    put_number(out, 8, tensors);
    put_number(out, 8, entries);
}

static void put_padding(buffer *out, size_t alignment) {
    while (out->length % alignment) put_number(out, 1, 0);
}

enum { SAMPLE_ENTRIES = 11, SAMPLE_TENSORS = 3, SAMPLE_DATA_BYTES = 64 + 128 + 64 };

static void put_sample_metadata(buffer *out) {
    put_key(out, "general.architecture", PI2_GGUF_STRING);
    put_string(out, "llama");
    put_key(out, "n.u32", PI2_GGUF_U32), put_number(out, 4, 7);
    put_key(out, "n.u8", PI2_GGUF_U8), put_number(out, 1, 255);
    put_key(out, "n.i32", PI2_GGUF_I32), put_number(out, 4, (uint32_t)-5);
    put_key(out, "n.u64", PI2_GGUF_U64), put_number(out, 8, (uint64_t)1 << 40);
    put_key(out, "n.f32", PI2_GGUF_F32), put_number(out, 4, 0x3f800000);
    put_key(out, "n.bool", PI2_GGUF_BOOL), put_number(out, 1, 1);
    put_key(out, "a.strings", PI2_GGUF_ARRAY);
    put_number(out, 4, PI2_GGUF_STRING), put_number(out, 8, 3);
    put_string(out, "one"), put_string(out, ""), put_string(out, "three");
    put_key(out, "a.i32", PI2_GGUF_ARRAY);
    put_number(out, 4, PI2_GGUF_I32), put_number(out, 8, 2);
    put_number(out, 4, 3), put_number(out, 4, (uint32_t)-4);
    put_key(out, "a.nested", PI2_GGUF_ARRAY);
    put_number(out, 4, PI2_GGUF_ARRAY), put_number(out, 8, 1);
    put_number(out, 4, PI2_GGUF_U8), put_number(out, 8, 2), put_number(out, 2, 0x0102);
    put_key(out, "a.empty", PI2_GGUF_ARRAY);
    put_number(out, 4, PI2_GGUF_F32), put_number(out, 8, 0);
}

static void put_sample(buffer *out, uint32_t version) {
    put_start(out, version, SAMPLE_TENSORS, SAMPLE_ENTRIES);
    put_sample_metadata(out);
    put_tensor(out, "zeta", 0, 4, 4, 0);
    put_tensor(out, "alpha.weight", 2, 64, 3, 64);
    put_tensor(out, "odd", 1000, 8, 1, 192); /* a type that nobody knows */
    put_padding(out, 32);
    for (size_t i = 0; i < SAMPLE_DATA_BYTES; i++) put_number(out, 1, i);
}

/* ---- opening buffers -------------------------------------------------------------------- */

static pi2_status open_bytes(const uint8_t *bytes, size_t count, pi2_gguf **gguf_out) {
    char *path = test_path(test_folder, "model.gguf");
    test_file_write(path, bytes, count);
    const pi2_status status = pi2_gguf_open(path, gguf_out);
    free(path);
    return status;
}

static void expect_refused(const buffer *file, pi2_status expected, const char *what) {
    pi2_gguf *gguf;
    const pi2_status status = open_bytes(file->bytes, file->length, &gguf);
    if (status != expected || !strstr(pi2_error_text(), what)) {
        fail_msg("wanted '%s', got %s: %s", what, pi2_status_name(status),
                 status == PI2_OK ? "" : pi2_error_text());
    }
    assert_null(gguf);
    assert_non_null(strstr(pi2_error_text(), "model.gguf"));
    assert_null(strchr(pi2_error_text(), '\n'));
}

/* ---- reading ---------------------------------------------------------------------------- */

static void check_sample_metadata(const pi2_gguf *gguf) {
    uint32_t u32;
    uint64_t u64;
    float f32;
    bool flag;
    pi2_gguf_string string;
    assert_int_equal(pi2_gguf_u32(gguf, "n.u32", &u32), PI2_OK);
    assert_int_equal(u32, 7);
    assert_int_equal(pi2_gguf_u32(gguf, "n.u8", &u32), PI2_OK);
    assert_int_equal(u32, 255);
    assert_int_equal(pi2_gguf_u64_or(gguf, "n.u64", 0, &u64), PI2_OK);
    assert_true(u64 == (uint64_t)1 << 40);
    assert_int_equal(pi2_gguf_u32_or(gguf, "none", 9, &u32), PI2_OK);
    assert_int_equal(u32, 9);
    assert_int_equal(pi2_gguf_f32_or(gguf, "n.f32", 0, &f32), PI2_OK);
    assert_true(f32 == 1.0f);
    assert_int_equal(pi2_gguf_bool_or(gguf, "n.bool", false, &flag), PI2_OK);
    assert_true(flag);
    assert_int_equal(pi2_gguf_string_get(gguf, "general.architecture", &string), PI2_OK);
    assert_int_equal(string.length, 5);
    assert_memory_equal(string.text, "llama", 5);
    /* Wrong types and missing keys say which key. */
    assert_int_equal(pi2_gguf_u32(gguf, "n.u64", &u32), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "'n.u64'"));
    assert_int_equal(pi2_gguf_u32(gguf, "n.i32", &u32), PI2_ERR_FORMAT);
    assert_int_equal(pi2_gguf_u32(gguf, "n.f32", &u32), PI2_ERR_FORMAT);
    assert_int_equal(pi2_gguf_u32(gguf, "none", &u32), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "'none'"));
    assert_int_equal(pi2_gguf_f32_or(gguf, "n.u32", 0, &f32), PI2_ERR_FORMAT);
    assert_int_equal(pi2_gguf_bool_or(gguf, "n.u32", false, &flag), PI2_ERR_FORMAT);
    assert_int_equal(pi2_gguf_string_get(gguf, "n.u32", &string), PI2_ERR_FORMAT);
}

static void check_sample_arrays(const pi2_gguf *gguf) {
    pi2_gguf_array array;
    pi2_gguf_string string;
    static const char *const texts[] = { "one", "", "three" };
    size_t cursor = 0, count = 0;
    assert_int_equal(pi2_gguf_array_get(gguf, "a.strings", &array), PI2_OK);
    assert_int_equal(array.count, 3);
    while (pi2_gguf_array_next_string(&array, &cursor, &string)) {
        assert_int_equal(string.length, strlen(texts[count]));
        assert_memory_equal(string.text, texts[count], string.length);
        count++;
    }
    assert_int_equal(count, 3);
    assert_int_equal(pi2_gguf_array_get(gguf, "a.i32", &array), PI2_OK);
    assert_int_equal(pi2_gguf_array_u64(&array, 0), 3);
    assert_true(pi2_gguf_array_u64(&array, 1) == (uint64_t)-4);
    assert_true(pi2_gguf_array_f32(&array, 1) == -4.0f);
    assert_int_equal(pi2_gguf_array_u64(&array, 2), 0); /* past the end */
    assert_int_equal(pi2_gguf_array_get(gguf, "a.nested", &array), PI2_OK);
    assert_int_equal(array.element_type, PI2_GGUF_ARRAY);
    assert_int_equal(array.data_bytes, 14);
    assert_int_equal(pi2_gguf_array_get(gguf, "a.empty", &array), PI2_OK);
    assert_int_equal(array.count, 0);
    assert_int_equal(pi2_gguf_array_get(gguf, "n.u32", &array), PI2_ERR_FORMAT);
    assert_int_equal(pi2_gguf_array_get(gguf, "none", &array), PI2_ERR_FORMAT);
}

static void test_reads_both_versions(void **state) {
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        buffer file;
        pi2_gguf *gguf;
        put_sample(&file, version);
        assert_int_equal(open_bytes(file.bytes, file.length, &gguf), PI2_OK);
        check_sample_metadata(gguf);
        check_sample_arrays(gguf);
        assert_int_equal(pi2_gguf_tensor_count(gguf), 3);
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(gguf, "alpha.weight");
        assert_non_null(tensor);
        assert_string_equal(tensor->name, "alpha.weight");
        assert_int_equal(tensor->type, 2);
        assert_int_equal(tensor->bytes, 3 * 2 * 18);
        assert_int_equal(tensor->dimensions[0], 64);
        assert_int_equal(tensor->dimensions[1], 3);
        assert_int_equal(tensor->dimensions[2], 1);
        assert_int_equal(tensor->file_offset, file.length - SAMPLE_DATA_BYTES + 64);
        assert_int_equal(pi2_gguf_tensor_find(gguf, "odd")->bytes, 0);
        assert_null(pi2_gguf_tensor_find(gguf, "alpha"));
        assert_string_equal(pi2_gguf_tensor_at(gguf, 0)->name, "zeta");
        assert_int_equal(pi2_gguf_entry_count(gguf), SAMPLE_ENTRIES);
        pi2_gguf_close(gguf);
    }
}

static void test_header_hash_follows_header(void **state) {
    (void)state;
    buffer file;
    pi2_gguf *first, *same, *other;
    put_sample(&file, 3);
    assert_int_equal(open_bytes(file.bytes, file.length, &first), PI2_OK);
    file.bytes[file.length - 1] ^= 1; /* data are no part of it */
    assert_int_equal(open_bytes(file.bytes, file.length, &same), PI2_OK);
    assert_true(pi2_gguf_file_header_hash(first, 0) == pi2_gguf_file_header_hash(same, 0));
    file.bytes[24 + 8 + 20 + 4 + 8] ^= 1; /* "llama" */
    assert_int_equal(open_bytes(file.bytes, file.length, &other), PI2_OK);
    assert_true(pi2_gguf_file_header_hash(first, 0) != pi2_gguf_file_header_hash(other, 0));
    pi2_gguf_close(first);
    pi2_gguf_close(same);
    pi2_gguf_close(other);
}

/* ---- refusals --------------------------------------------------------------------------- */

static void test_refuses_other_files(void **state) {
    (void)state;
    buffer file;
    put_sample(&file, 1);
    expect_refused(&file, PI2_ERR_UNSUPPORTED, "version 1");
    put_sample(&file, 4);
    expect_refused(&file, PI2_ERR_UNSUPPORTED, "version 4");
    put_sample(&file, 3u << 24);
    expect_refused(&file, PI2_ERR_UNSUPPORTED, "big-endian");
    put_sample(&file, 3);
    memcpy(file.bytes, "PK\3\4", 4);
    expect_refused(&file, PI2_ERR_FORMAT, "PyTorch");
    memcpy(file.bytes, "abcd", 4);
    expect_refused(&file, PI2_ERR_FORMAT, "no GGUF file");
    file.length = 0;
    expect_refused(&file, PI2_ERR_FORMAT, "empty");
    pi2_gguf *gguf;
    assert_int_equal(pi2_gguf_open(test_folder, &gguf), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "not a regular file"));
    char *path = test_path(test_folder, "absent");
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "absent"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_ERR_IO); /* and does not wait for a writer */
    assert_int_equal(unlink(path), 0);
    free(path);
}

static void test_refuses_bad_metadata(void **state) {
    (void)state;
    buffer file;
    put_start(&file, 3, (uint64_t)1 << 60, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "do not fit");
    put_start(&file, 3, 0, UINT64_MAX);
    expect_refused(&file, PI2_ERR_FORMAT, "do not fit");

    put_start(&file, 3, 0, 2);
    put_key(&file, "same", PI2_GGUF_U8), put_number(&file, 1, 0);
    put_key(&file, "same", PI2_GGUF_U8), put_number(&file, 1, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "'same' at byte");

    put_start(&file, 3, 0, 1);
    put_key(&file, "", PI2_GGUF_U8), put_number(&file, 8, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "empty");

    put_start(&file, 3, 0, 1);
    put_number(&file, 8, 3), put(&file, "a\0b", 3), put_number(&file, 8, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "zero byte");

    put_start(&file, 3, 0, 1);
    put_key(&file, "k\nz", 13), put_number(&file, 8, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "'k?z' at byte 39: unknown value type 13");

    put_start(&file, 3, 0, 1);
    put_key(&file, "k", PI2_GGUF_BOOL), put_number(&file, 8, 2);
    expect_refused(&file, PI2_ERR_FORMAT, "neither 0 nor 1");

    put_start(&file, 3, 0, 1);
    put_key(&file, "k", PI2_GGUF_STRING), put_number(&file, 8, UINT64_MAX - 3);
    expect_refused(&file, PI2_ERR_FORMAT, "'k' at byte");

    put_start(&file, 3, 0, 1);
    put_key(&file, "k", PI2_GGUF_ARRAY);
    put_number(&file, 4, PI2_GGUF_U64), put_number(&file, 8, (uint64_t)1 << 61);
    expect_refused(&file, PI2_ERR_FORMAT, "'k' at byte");

    put_start(&file, 3, 0, 1);
    put_key(&file, "k", PI2_GGUF_ARRAY);
    put_number(&file, 4, PI2_GGUF_STRING), put_number(&file, 8, UINT64_MAX);
    expect_refused(&file, PI2_ERR_FORMAT, "'k' at byte");

    put_start(&file, 3, 0, 1);
    put_key(&file, "deep", PI2_GGUF_ARRAY);
    for (int depth = 0; depth < 64; depth++) {
        put_number(&file, 4, PI2_GGUF_ARRAY), put_number(&file, 8, 1);
    }
    expect_refused(&file, PI2_ERR_FORMAT, "nested too deep");
}

static void test_refuses_bad_alignment(void **state) {
    (void)state;
    static const uint32_t wrong[] = { 0, 3, 48, 1u << 21, 0x80000000u };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        buffer file;
        put_start(&file, 3, 0, 1);
        put_key(&file, "general.alignment", PI2_GGUF_U32), put_number(&file, 4, wrong[i]);
        expect_refused(&file, PI2_ERR_FORMAT, "power of two");
    }
    buffer file;
    put_start(&file, 3, 0, 1);
    put_key(&file, "general.alignment", PI2_GGUF_U64), put_number(&file, 8, 64);
    expect_refused(&file, PI2_ERR_FORMAT, "power of two");
    put_start(&file, 3, 1, 1);
    put_key(&file, "general.alignment", PI2_GGUF_U32), put_number(&file, 4, 256);
    put_tensor(&file, "t", 0, 1, 1, 32);
    put_padding(&file, 256);
    put_number(&file, 8, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "'t' at byte 57: its offset");
}

/** A file with one tensor as given, and 4096 bytes of data. */
static void put_one_tensor(buffer *file, const char *name, uint32_t type, uint64_t columns,
                           uint64_t rows, uint64_t offset) {
    put_start(file, 3, 1, 0);
    put_tensor(file, name, type, columns, rows, offset);
    put_padding(file, 32);
    for (int i = 0; i < 4096 / 8; i++) put_number(file, 8, 0);
}

static void test_refuses_bad_tensors(void **state) {
    (void)state;
    buffer file;
    char name[66];
    memset(name, 'n', 65);
    name[65] = '\0';
    put_one_tensor(&file, name, 0, 4, 4, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "longer than 64");
    put_one_tensor(&file, name + 1, 0, 4, 4, 0); /* 64 bytes are fine */
    pi2_gguf *gguf;
    assert_int_equal(open_bytes(file.bytes, file.length, &gguf), PI2_OK);
    assert_non_null(pi2_gguf_tensor_find(gguf, name + 1));
    pi2_gguf_close(gguf);
    put_one_tensor(&file, "", 0, 4, 4, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "empty");
    put_one_tensor(&file, "t", 0, 4, 0, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "dimension is 0");
    put_one_tensor(&file, "t", 0, (uint64_t)1 << 32, (uint64_t)1 << 32, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "impossible number of elements");
    put_one_tensor(&file, "t", 0, (uint64_t)1 << 31, (uint64_t)1 << 31, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "impossible number of bytes");
    put_one_tensor(&file, "t", 2, 33, 4, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "multiple of its type's block");
    put_one_tensor(&file, "t", 0, 4, 4, 16);
    expect_refused(&file, PI2_ERR_FORMAT, "multiple of the file's alignment");
    put_one_tensor(&file, "t", 0, 4, 256, 32);
    expect_refused(&file, PI2_ERR_FORMAT, "tensor 't' has 4096 bytes");
    put_one_tensor(&file, "t", 0, 4, 4, UINT64_MAX - 31);
    expect_refused(&file, PI2_ERR_FORMAT, "truncated");
    put_one_tensor(&file, "t", 0, 4, 256, 0);
    pi2_store_le32(file.bytes + 24 + 9, 5);
    expect_refused(&file, PI2_ERR_FORMAT, "1 to 4 dimensions");
    pi2_store_le32(file.bytes + 24 + 9, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "1 to 4 dimensions");
}

static void test_refuses_overlap_and_repeats(void **state) {
    (void)state;
    buffer file;
    put_start(&file, 3, 2, 0);
    put_tensor(&file, "b", 0, 8, 4, 0);
    put_tensor(&file, "a", 0, 4, 4, 96);
    put_padding(&file, 32);
    const size_t data = file.length;
    for (int i = 0; i < 512; i++) put_number(&file, 1, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "tensor 'a' at byte");
    put_start(&file, 3, 2, 0);
    put_tensor(&file, "a", 0, 8, 4, 0);
    put_tensor(&file, "a", 0, 4, 4, 128);
    put_padding(&file, 32);
    assert_int_equal(file.length, data);
    for (int i = 0; i < 512; i++) put_number(&file, 1, 0);
    expect_refused(&file, PI2_ERR_FORMAT, "twice");
}

/* ---- damage ----------------------------------------------------------------------------- */

static void test_every_truncation_is_refused(void **state) {
    (void)state;
    buffer file;
    put_sample(&file, 3);
    for (size_t length = 0; length < file.length; length++) {
        pi2_gguf *gguf;
        const pi2_status status = open_bytes(file.bytes, length, &gguf);
        /* What lies behind the last tensor whose size is known may be missing. */
        if (length >= file.length - 64) {
            pi2_gguf_close(gguf);
            continue;
        }
        if (status != PI2_ERR_FORMAT) fail_msg("%zu of %zu bytes were read", length, file.length);
        assert_non_null(strstr(pi2_error_text(), "model.gguf"));
        assert_true(strstr(pi2_error_text(), "download it again") != NULL);
    }
}

static void test_every_changed_byte_is_survived(void **state) {
    (void)state;
    buffer file;
    put_sample(&file, 3);
    static const uint8_t changes[] = { 0x01, 0x80, 0xff };
    for (size_t i = 0; i < file.length - SAMPLE_DATA_BYTES; i++) {
        for (size_t c = 0; c < sizeof changes; c++) {
            pi2_gguf *gguf;
            file.bytes[i] ^= changes[c];
            if (open_bytes(file.bytes, file.length, &gguf) == PI2_OK) {
                for (size_t t = 0; t < pi2_gguf_tensor_count(gguf); t++) {
                    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, t);
                    assert_true(tensor->file_offset + tensor->bytes <= file.length);
                    assert_ptr_equal(pi2_gguf_tensor_find(gguf, tensor->name), tensor);
                }
            } else {
                assert_null(strchr(pi2_error_text(), '\n'));
            }
            pi2_gguf_close(gguf);
            file.bytes[i] ^= changes[c];
        }
    }
}

/* ---- split models ----------------------------------------------------------------------- */

static const char *part_magic = "GGUF";

static void write_part(const char *name, unsigned number, unsigned count, const char *tensor,
                       unsigned total) {
    buffer file;
    put_start(&file, 3, 1, number == 0 ? 3 : 2);
    put_key(&file, "split.no", PI2_GGUF_U16), put_number(&file, 2, number);
    put_key(&file, "split.count", PI2_GGUF_U16), put_number(&file, 2, count);
    if (number == 0) {
        put_key(&file, "split.tensors.count", PI2_GGUF_I32), put_number(&file, 4, total);
    }
    put_tensor(&file, tensor, 0, 4, 2, 0);
    put_padding(&file, 32);
    for (int i = 0; i < 4; i++) put_number(&file, 8, number);
    memcpy(file.bytes, part_magic, 4);
    char *path = test_path(test_folder, name);
    test_file_write(path, file.bytes, file.length);
    free(path);
}

static void expect_split_refused(const char *name, pi2_status expected, const char *what) {
    pi2_gguf *gguf;
    char *path = test_path(test_folder, name);
    const pi2_status status = pi2_gguf_open(path, &gguf);
    if (status != expected || !strstr(pi2_error_text(), what)) {
        fail_msg("wanted '%s', got: %s", what, status == PI2_OK ? "ok" : pi2_error_text());
    }
    free(path);
}

/* A name may end in capitals: the other parts' names do then. */
static void test_split_model_in_capitals(void **state) {
    (void)state;
    static const char first[] = "C-00001-of-00002.GGUF", second[] = "C-00002-of-00002.GGUF";
    write_part(first, 0, 2, "a", 2);
    expect_split_refused(first, PI2_ERR_IO, second);
    write_part(second, 1, 2, "b", 2);
    char *path = test_path(test_folder, first);
    pi2_gguf *gguf;
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    assert_int_equal(pi2_gguf_tensor_count(gguf), 2);
    assert_non_null(strstr(pi2_gguf_file_path(gguf, 1), second));
    pi2_gguf_close(gguf);
    free(path);
    expect_split_refused(second, PI2_ERR_FORMAT, "open the first part");
}

static void test_split_model(void **state) {
    (void)state;
    static const char first[] = "m-00001-of-00002.gguf", second[] = "m-00002-of-00002.gguf";
    write_part(first, 0, 2, "a", 2);
    expect_split_refused(first, PI2_ERR_IO, second);
    write_part(second, 1, 2, "b", 2);
    char *path = test_path(test_folder, first);
    pi2_gguf *gguf;
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    assert_int_equal(pi2_gguf_file_count(gguf), 2);
    assert_int_equal(pi2_gguf_tensor_count(gguf), 2);
    assert_int_equal(pi2_gguf_tensor_find(gguf, "a")->file_index, 0);
    assert_int_equal(pi2_gguf_tensor_find(gguf, "b")->file_index, 1);
    assert_non_null(strstr(pi2_gguf_file_path(gguf, 1), second));
    pi2_gguf_close(gguf);
    free(path);
    expect_split_refused(second, PI2_ERR_FORMAT, "open the first part");
    write_part(second, 1, 2, "a", 2);
    expect_split_refused(first, PI2_ERR_FORMAT, "twice");
    write_part(second, 0, 2, "b", 2);
    expect_split_refused(first, PI2_ERR_FORMAT, "split.no");
    write_part(second, 1, 3, "b", 2);
    expect_split_refused(first, PI2_ERR_FORMAT, "split.count");
    write_part(second, 1, 2, "b", 2);
    write_part(first, 0, 2, "a", 3);
    expect_split_refused(first, PI2_ERR_FORMAT, "split.tensors.count");
    write_part("renamed.gguf", 0, 2, "a", 2);
    expect_split_refused("renamed.gguf", PI2_ERR_FORMAT, "one of the 2 parts");
}

/* Parts one behind the other, as cat joins them, are no model, and are not told to have lost their names. */
static void test_split_model_joined(void **state) {
    (void)state;
    buffer joined = {.length = 0};
    for (unsigned i = 0; i < 2; i++) {
        write_part("part.gguf", i, 2, i ? "b" : "a", 2);
        char *path = test_path(test_folder, "part.gguf");
        size_t length;
        uint8_t *bytes = test_file_read(path, &length);
        put(&joined, bytes, length);
        free(bytes), free(path);
    }
    char *path = test_path(test_folder, "joined.gguf");
    test_file_write(path, joined.bytes, joined.length);
    free(path);
    expect_split_refused("joined.gguf", PI2_ERR_FORMAT, "parts that were joined with cat are no model");
}

/* A file that was cut into pieces for its size says by their names what they are; an unfinished download is none. */
static void test_pieces_of_a_file(void **state) {
    (void)state;
    static const struct { const char *name; bool is_piece; } names[] = {
        {"m.gguf.part1of2", true}, {"m.Q4_K_M.gguf-split-a", true}, {"m.gguf.001", true}, {"m.GGUF.part02of10", true},
        {"m.gguf", false}, {"m.gguf.part", false}, {"m.gguf.part1of", false}, {"m.gguf.part1of2.tmp", false},
        {"m.gguf-split-", false}, {"m.gguf-split-ab", false}, {"m.gguf.001x", false}, {"m.gguf.", false},
        {"m.part1of2", false}, {"m.gguf-split-1", false},
    };
    static const char random_bytes[64] = "no model's beginning, but of the middle of its weights";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        write_part("whole.gguf", 0, 1, "a", 1);
        char *whole = test_path(test_folder, "whole.gguf"), *path = test_path(test_folder, names[i].name);
        size_t length;
        uint8_t *bytes = test_file_read(whole, &length);
        test_file_write(path, bytes, length - 1);
        const char *joins = "join all pieces into one with cat";
        expect_split_refused(names[i].name, PI2_ERR_FORMAT, names[i].is_piece ? joins : "it is truncated: download it");
        test_file_write(path, random_bytes, sizeof random_bytes);
        expect_split_refused(names[i].name, PI2_ERR_FORMAT, names[i].is_piece ? joins : "give the path of a .gguf");
        free(bytes), free(whole), free(path);
    }
}

/* "PWRI" of PowerInfer's files is as good as "GGUF", in all parts or in none; bytes like it are not. */
static void test_powerinfer_magic(void **state) {
    (void)state;
    static const char first[] = "p-00001-of-00002.gguf", second[] = "p-00002-of-00002.gguf";
    char *path = test_path(test_folder, first);
    pi2_gguf *gguf;
    part_magic = "PWRI";
    write_part(first, 0, 2, "a", 2);
    part_magic = "GGUF";
    write_part(second, 1, 2, "b", 2);
    expect_split_refused(first, PI2_ERR_FORMAT, "p-00002-of-00002.gguf: at byte 0: it begins otherwise");
    part_magic = "PWRI";
    write_part(second, 1, 2, "b", 2);
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    assert_true(pi2_gguf_is_powerinfer(gguf));
    pi2_gguf_close(gguf);
    part_magic = "GGUF";
    write_part(first, 0, 2, "a", 2);
    expect_split_refused(first, PI2_ERR_FORMAT, "it begins otherwise than the first part");
    write_part(second, 1, 2, "b", 2);
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    assert_false(pi2_gguf_is_powerinfer(gguf));
    pi2_gguf_close(gguf);
    part_magic = "PWRJ";
    write_part(first, 0, 2, "a", 2);
    expect_split_refused(first, PI2_ERR_FORMAT, "this is no GGUF file");
    part_magic = "GGUF";
    free(path);
}

/* ---- the writer ------------------------------------------------------------------------- */

static void test_writer_is_read_back(void **state) {
    (void)state;
    pi2_gguf_writer *writer;
    const uint8_t *header;
    size_t header_bytes;
    static const char *const texts[] = { "x", "", "yz" };
    const uint64_t numbers[] = { 0, 0 }, patched[] = { 5, 6 };
    assert_int_equal(pi2_gguf_writer_open(4096, &writer), PI2_OK);
    pi2_gguf_writer_string(writer, "s", "text");
    pi2_gguf_writer_u32(writer, "u", 3);
    pi2_gguf_writer_u64(writer, "w", 4);
    pi2_gguf_writer_f32(writer, "f", 0.5f);
    pi2_gguf_writer_bool(writer, "b", true);
    pi2_gguf_writer_string_array(writer, "as", texts, 3);
    const size_t at = pi2_gguf_writer_array(writer, "a", PI2_GGUF_U64, 2, numbers);
    const uint64_t dimensions[] = { 64, 5 };
    assert_int_equal(pi2_gguf_writer_tensor(writer, "t", 8, 2, dimensions), 0);
    assert_int_equal(pi2_gguf_writer_tensor(writer, "i", 24, 1, dimensions), 4096);
    pi2_gguf_writer_patch(writer, at, patched, sizeof patched);
    assert_int_equal(pi2_gguf_writer_finish(writer, &header, &header_bytes), PI2_OK);
    assert_int_equal(header_bytes, 4096);
    assert_int_equal(pi2_gguf_writer_data_bytes(writer), 8192);
    uint8_t *bytes = calloc(1, header_bytes + 8192);
    assert_non_null(bytes);
    memcpy(bytes, header, header_bytes);
    pi2_gguf *gguf;
    assert_int_equal(open_bytes(bytes, header_bytes + 8192, &gguf), PI2_OK);
    pi2_gguf_array array;
    uint64_t u64;
    assert_int_equal(pi2_gguf_array_get(gguf, "a", &array), PI2_OK);
    assert_int_equal(pi2_gguf_array_u64(&array, 1), 6);
    assert_int_equal(pi2_gguf_u64_or(gguf, "w", 0, &u64), PI2_OK);
    assert_int_equal(u64, 4);
    assert_int_equal(pi2_gguf_tensor_find(gguf, "i")->file_offset, 8192);
    assert_int_equal(pi2_gguf_tensor_find(gguf, "t")->bytes, 5 * 2 * 34);

    /* Entries copied from one file to another are the same bytes. */
    pi2_gguf_writer *copy;
    const uint8_t *copy_header;
    size_t copy_bytes;
    assert_int_equal(pi2_gguf_writer_open(4096, &copy), PI2_OK);
    for (size_t i = 0; i < pi2_gguf_entry_count(gguf); i++) {
        const pi2_gguf_entry entry = pi2_gguf_entry_at(gguf, i);
        pi2_gguf_writer_entry(copy, &entry);
    }
    (void)pi2_gguf_writer_tensor(copy, "t", 8, 2, dimensions);
    (void)pi2_gguf_writer_tensor(copy, "i", 24, 1, dimensions);
    assert_int_equal(pi2_gguf_writer_finish(copy, &copy_header, &copy_bytes), PI2_OK);
    assert_int_equal(copy_bytes, header_bytes);
    assert_memory_equal(copy_header, header, header_bytes);
    pi2_gguf_writer_close(copy);
    pi2_gguf_writer_close(writer);
    pi2_gguf_close(gguf);
    free(bytes);
}

/* What is put in is found and written like the file's own; a key that is there gets the new value. */
static void test_put_string(void **state) {
    (void)state;
    pi2_gguf_writer *writer, *copy;
    const uint8_t *header;
    size_t header_bytes;
    pi2_gguf *gguf;
    pi2_gguf_string text;
    assert_int_equal(pi2_gguf_writer_open(32, &writer), PI2_OK);
    for (int i = 0; i < 70; i++) { /* more than one step of the table's growth */
        char key[16];
        (void)snprintf(key, sizeof key, "k%02d", i);
        pi2_gguf_writer_string(writer, key, key);
    }
    assert_int_equal(pi2_gguf_writer_finish(writer, &header, &header_bytes), PI2_OK);
    assert_int_equal(open_bytes(header, header_bytes, &gguf), PI2_OK);
    const uint64_t hash = pi2_gguf_file_header_hash(gguf, 0);
    assert_int_equal(pi2_gguf_put_string(gguf, "k33", "other"), PI2_OK);
    assert_int_equal(pi2_gguf_put_string(gguf, "a", "first"), PI2_OK);
    assert_int_equal(pi2_gguf_put_string(gguf, "z", ""), PI2_OK);
    assert_int_equal(pi2_gguf_put_string(gguf, "a", "again"), PI2_OK);
    assert_true(pi2_gguf_file_header_hash(gguf, 0) == hash);
    assert_int_equal(pi2_gguf_entry_count(gguf), 72);
    static const char *const want[][2] = { { "k33", "other" }, { "a", "again" }, { "z", "" }, { "k00", "k00" },
                                           { "k69", "k69" } };
    assert_int_equal(pi2_gguf_writer_open(32, &copy), PI2_OK);
    for (size_t i = 0; i < pi2_gguf_entry_count(gguf); i++) {
        const pi2_gguf_entry entry = pi2_gguf_entry_at(gguf, i);
        pi2_gguf_writer_entry(copy, &entry);
    }
    assert_int_equal(pi2_gguf_writer_finish(copy, &header, &header_bytes), PI2_OK);
    pi2_gguf_close(gguf);
    assert_int_equal(open_bytes(header, header_bytes, &gguf), PI2_OK);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_int_equal(pi2_gguf_string_get(gguf, want[i][0], &text), PI2_OK);
        assert_int_equal(text.length, strlen(want[i][1]));
        assert_memory_equal(text.text, want[i][1], text.length);
    }
    pi2_gguf_close(gguf);
    pi2_gguf_writer_close(writer);
    pi2_gguf_writer_close(copy);
}

static void test_writer_keeps_its_first_error(void **state) {
    (void)state;
    pi2_gguf_writer *writer;
    const uint8_t *header;
    size_t bytes;
    const uint64_t dimensions[] = { 33 };
    assert_int_equal(pi2_gguf_writer_open(48, &writer), PI2_ERR_INVALID);
    assert_int_equal(pi2_gguf_writer_open(32, &writer), PI2_OK);
    (void)pi2_gguf_writer_tensor(writer, "bad", 8, 1, dimensions);
    (void)pi2_gguf_writer_array(writer, "k", PI2_GGUF_STRING, 1, "x");
    assert_int_equal(pi2_gguf_writer_finish(writer, &header, &bytes), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "'bad'"));
    pi2_gguf_writer_close(writer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_both_versions),
        cmocka_unit_test(test_header_hash_follows_header),
        cmocka_unit_test(test_refuses_other_files),
        cmocka_unit_test(test_refuses_bad_metadata),
        cmocka_unit_test(test_refuses_bad_alignment),
        cmocka_unit_test(test_refuses_bad_tensors),
        cmocka_unit_test(test_refuses_overlap_and_repeats),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_every_changed_byte_is_survived),
        cmocka_unit_test(test_split_model),
        cmocka_unit_test(test_split_model_in_capitals),
        cmocka_unit_test(test_split_model_joined),
        cmocka_unit_test(test_pieces_of_a_file),
        cmocka_unit_test(test_powerinfer_magic),
        cmocka_unit_test(test_writer_is_read_back),
        cmocka_unit_test(test_put_string),
        cmocka_unit_test(test_writer_keeps_its_first_error),
    };
    return cmocka_run_group_tests(tests, test_folder_begin_in_memory, test_folder_end);
}
