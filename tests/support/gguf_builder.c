/* gguf_builder.c: encodes metadata, tensor table and data apart, and joins them at the end. */
#include "support/gguf_builder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pi2_test_bytes_add(pi2_test_bytes *bytes, const void *data, size_t length) {
    if (length > bytes->capacity - bytes->length) {
        size_t capacity = bytes->capacity ? bytes->capacity : 4096;
        while (capacity - bytes->length < length) capacity *= 2;
        unsigned char *grown = realloc(bytes->data, capacity);
        if (!grown) abort();
        bytes->data = grown;
        bytes->capacity = capacity;
    }
    if (length) memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
}

void pi2_test_bytes_add_u32(pi2_test_bytes *bytes, uint32_t value) {
    unsigned char encoded[4];
    for (int i = 0; i < 4; i++) encoded[i] = (unsigned char)(value >> (8 * i));
    pi2_test_bytes_add(bytes, encoded, sizeof encoded);
}

void pi2_test_bytes_add_u64(pi2_test_bytes *bytes, uint64_t value) {
    pi2_test_bytes_add_u32(bytes, (uint32_t)value);
    pi2_test_bytes_add_u32(bytes, (uint32_t)(value >> 32));
}

void pi2_test_bytes_add_f32(pi2_test_bytes *bytes, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    pi2_test_bytes_add_u32(bytes, bits);
}

void pi2_test_bytes_free(pi2_test_bytes *bytes) {
    free(bytes->data);
    *bytes = (pi2_test_bytes){0};
}

static void add_string(pi2_test_bytes *bytes, const char *text) {
    pi2_test_bytes_add_u64(bytes, strlen(text));
    pi2_test_bytes_add(bytes, text, strlen(text));
}

static void pad(pi2_test_bytes *bytes, size_t alignment) {
    static const unsigned char zeros[64];
    while (bytes->length % alignment) {
        const size_t missing = alignment - bytes->length % alignment;
        pi2_test_bytes_add(bytes, zeros, missing < sizeof zeros ? missing : sizeof zeros);
    }
}

void pi2_gguf_builder_init(pi2_gguf_builder *builder) {
    *builder = (pi2_gguf_builder){.magic = "GGUF", .version = 3, .alignment = 32};
}

void pi2_gguf_builder_free(pi2_gguf_builder *builder) {
    pi2_test_bytes_free(&builder->entries);
    pi2_test_bytes_free(&builder->tensors);
    pi2_test_bytes_free(&builder->data);
}

static pi2_test_bytes *begin_entry(pi2_gguf_builder *builder, const char *key, uint32_t type) {
    builder->entry_count++;
    add_string(&builder->entries, key);
    pi2_test_bytes_add_u32(&builder->entries, type);
    return &builder->entries;
}

void pi2_gguf_builder_u32(pi2_gguf_builder *builder, const char *key, uint32_t value) {
    pi2_test_bytes_add_u32(begin_entry(builder, key, PI2_TEST_GGUF_U32), value);
}

void pi2_gguf_builder_f32(pi2_gguf_builder *builder, const char *key, float value) {
    pi2_test_bytes_add_f32(begin_entry(builder, key, PI2_TEST_GGUF_F32), value);
}

void pi2_gguf_builder_bool(pi2_gguf_builder *builder, const char *key, bool value) {
    const unsigned char encoded = value ? 1 : 0;
    pi2_test_bytes_add(begin_entry(builder, key, PI2_TEST_GGUF_BOOL), &encoded, 1);
}

void pi2_gguf_builder_string(pi2_gguf_builder *builder, const char *key, const char *value) {
    add_string(begin_entry(builder, key, PI2_TEST_GGUF_STRING), value);
}

void pi2_gguf_builder_array(pi2_gguf_builder *builder, const char *key, uint32_t element_type,
                            uint64_t count, const pi2_test_bytes *elements) {
    pi2_test_bytes *entries = begin_entry(builder, key, PI2_TEST_GGUF_ARRAY);
    pi2_test_bytes_add_u32(entries, element_type);
    pi2_test_bytes_add_u64(entries, count);
    pi2_test_bytes_add(entries, elements->data, elements->length);
}

void pi2_gguf_builder_tensor(pi2_gguf_builder *builder, const char *name, uint32_t type,
                             uint32_t dimension_count, const uint64_t *dimensions, const void *data,
                             size_t length) {
    builder->tensor_count++;
    pad(&builder->data, builder->alignment);
    add_string(&builder->tensors, name);
    pi2_test_bytes_add_u32(&builder->tensors, dimension_count);
    for (uint32_t i = 0; i < dimension_count; i++) {
        pi2_test_bytes_add_u64(&builder->tensors, dimensions[i]);
    }
    pi2_test_bytes_add_u32(&builder->tensors, type);
    pi2_test_bytes_add_u64(&builder->tensors, builder->data.length);
    pi2_test_bytes_add(&builder->data, data, length);
}

unsigned char *pi2_gguf_builder_image(const pi2_gguf_builder *builder, size_t *length_out) {
    pi2_test_bytes image = {0};
    pi2_test_bytes_add(&image, builder->magic, 4);
    pi2_test_bytes_add_u32(&image, builder->version);
    pi2_test_bytes_add_u64(&image, builder->tensor_count);
    pi2_test_bytes_add_u64(&image, builder->entry_count);
    pi2_test_bytes_add(&image, builder->entries.data, builder->entries.length);
    pi2_test_bytes_add(&image, builder->tensors.data, builder->tensors.length);
    pad(&image, builder->alignment);
    pi2_test_bytes_add(&image, builder->data.data, builder->data.length);
    *length_out = image.length;
    return image.data;
}

int pi2_gguf_builder_write(const pi2_gguf_builder *builder, const char *path) {
    size_t length = 0;
    unsigned char *image = pi2_gguf_builder_image(builder, &length);
    int error = 0;
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(image, 1, length, file) != length) error = errno ? errno : EIO;
    if (file && fclose(file) != 0 && !error) error = errno;
    free(image);
    return error;
}
