/*
 * gguf_builder.h: builds GGUF files for tests, apart from the library's own reader and writer, so
 * that a mistake there cannot hide here. Keeps everything in memory: meant for small files.
 *
 * Test code: running out of memory ends the program.
 */
#ifndef PI2_TESTS_SUPPORT_GGUF_BUILDER_H
#define PI2_TESTS_SUPPORT_GGUF_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A growing run of bytes. Starts as {0}; free with pi2_test_bytes_free(). */
typedef struct pi2_test_bytes {
    unsigned char *data;
    size_t length, capacity;
} pi2_test_bytes;
void pi2_test_bytes_add(pi2_test_bytes *bytes, const void *data, size_t length);
void pi2_test_bytes_add_u32(pi2_test_bytes *bytes, uint32_t value); /* little-endian, as all below */
void pi2_test_bytes_add_u64(pi2_test_bytes *bytes, uint64_t value);
void pi2_test_bytes_add_f32(pi2_test_bytes *bytes, float value);
void pi2_test_bytes_free(pi2_test_bytes *bytes);

enum {
    PI2_TEST_GGUF_U8 = 0, PI2_TEST_GGUF_U32 = 4, PI2_TEST_GGUF_I32 = 5, PI2_TEST_GGUF_F32 = 6,
    PI2_TEST_GGUF_BOOL = 7, PI2_TEST_GGUF_STRING = 8, PI2_TEST_GGUF_ARRAY = 9, PI2_TEST_GGUF_U64 = 10
};

typedef struct pi2_gguf_builder {
    const char *magic;            /* "GGUF" by pi2_gguf_builder_init(), as are 3 and 32 */
    uint32_t version, alignment;
    uint64_t entry_count, tensor_count;
    pi2_test_bytes entries;       /* encoded metadata */
    pi2_test_bytes tensors;       /* encoded tensor table */
    pi2_test_bytes data;          /* tensor data, each aligned */
} pi2_gguf_builder;

void pi2_gguf_builder_init(pi2_gguf_builder *builder);
void pi2_gguf_builder_free(pi2_gguf_builder *builder);

void pi2_gguf_builder_u32(pi2_gguf_builder *builder, const char *key, uint32_t value);
void pi2_gguf_builder_f32(pi2_gguf_builder *builder, const char *key, float value);
void pi2_gguf_builder_bool(pi2_gguf_builder *builder, const char *key, bool value);
void pi2_gguf_builder_string(pi2_gguf_builder *builder, const char *key, const char *value);
/** elements: `count` elements already encoded as the format asks (strings: u64 length, bytes). */
void pi2_gguf_builder_array(pi2_gguf_builder *builder, const char *key, uint32_t element_type,
                            uint64_t count, const pi2_test_bytes *elements);
/** Appends one tensor; data is `length` bytes of its GGUF type. dimensions[0] is the row length. */
void pi2_gguf_builder_tensor(pi2_gguf_builder *builder, const char *name, uint32_t type,
                             uint32_t dimension_count, const uint64_t *dimensions, const void *data,
                             size_t length);

/** The whole file, malloc'd; *length_out bytes. */
unsigned char *pi2_gguf_builder_image(const pi2_gguf_builder *builder, size_t *length_out);
/** Writes the file. Returns 0, or an errno value. */
int pi2_gguf_builder_write(const pi2_gguf_builder *builder, const char *path);

#endif
