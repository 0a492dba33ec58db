/* gguf_writer.c: appends metadata and tensor lines to one growing buffer. */
#include "file_formats/gguf_writer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/little_endian.h"

enum { TENSOR_COUNT_OFFSET = 8, ENTRY_COUNT_OFFSET = 16 };

struct pi2_gguf_writer {
    uint8_t *bytes;
    size_t length, capacity;
    uint64_t entry_count, tensor_count;
    uint64_t data_bytes;
    uint32_t alignment;
    pi2_status status; /* of the first call that failed */
    char error[256];   /* its text */
};

static void keep_error(pi2_gguf_writer *writer, pi2_status status) {
    if (writer->status != PI2_OK) return;
    writer->status = status;
    const size_t length = strlen(pi2_error_text());
    const size_t kept = length < sizeof writer->error ? length : sizeof writer->error - 1;
    memcpy(writer->error, pi2_error_text(), kept);
    writer->error[kept] = '\0';
}

/** Adds `bytes` zero bytes and returns where they begin, or NULL after an error. */
static uint8_t *append_room(pi2_gguf_writer *writer, size_t bytes) {
    if (writer->status != PI2_OK) return NULL;
    if (bytes > writer->capacity - writer->length) {
        size_t capacity = writer->capacity + writer->capacity / 2;
        if (capacity < writer->length + bytes) capacity = writer->length + bytes;
        uint8_t *grown = bytes > SIZE_MAX / 4 ? NULL : realloc(writer->bytes, capacity);
        if (!grown) {
            keep_error(writer, pi2_fail(PI2_ERR_MEMORY, "no memory for a GGUF header"));
            return NULL;
        }
        writer->bytes = grown;
        writer->capacity = capacity;
    }
    uint8_t *room = writer->bytes + writer->length;
    memset(room, 0, bytes);
    writer->length += bytes;
    return room;
}

static void append(pi2_gguf_writer *writer, const void *data, size_t bytes) {
    uint8_t *room = append_room(writer, bytes);
    if (room && data && bytes) memcpy(room, data, bytes);
}

static void append_number(pi2_gguf_writer *writer, size_t bytes, uint64_t value) {
    uint8_t *room = append_room(writer, bytes);
    if (room) pi2_store_le(room, bytes, value);
}

static void append_string(pi2_gguf_writer *writer, const char *text, size_t length) {
    append_number(writer, 8, length);
    append(writer, text, length);
}

static void append_key(pi2_gguf_writer *writer, const char *key, size_t length, uint32_t type) {
    append_string(writer, key, length);
    append_number(writer, 4, type);
    writer->entry_count++;
}

pi2_status pi2_gguf_writer_open(uint32_t alignment, pi2_gguf_writer **writer_out) {
    *writer_out = NULL;
    if (alignment < 8 || alignment > 1u << 20 || (alignment & (alignment - 1)) != 0) {
        return pi2_fail(PI2_ERR_INVALID, "%" PRIu32 " is no alignment of a GGUF file", alignment);
    }
    pi2_gguf_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return pi2_fail(PI2_ERR_MEMORY, "no memory for a GGUF header");
    writer->alignment = alignment;
    append(writer, "GGUF", 4);
    append_number(writer, 4, 3);
    append_number(writer, 8, 0);
    append_number(writer, 8, 0);
    if (alignment != 32) pi2_gguf_writer_u32(writer, "general.alignment", alignment);
    if (writer->status != PI2_OK) {
        pi2_gguf_writer_close(writer);
        return PI2_ERR_MEMORY;
    }
    *writer_out = writer;
    return PI2_OK;
}

void pi2_gguf_writer_close(pi2_gguf_writer *writer) {
    if (!writer) return;
    free(writer->bytes);
    free(writer);
}

void pi2_gguf_writer_u32(pi2_gguf_writer *writer, const char *key, uint32_t value) {
    append_key(writer, key, strlen(key), PI2_GGUF_U32);
    append_number(writer, 4, value);
}

void pi2_gguf_writer_u64(pi2_gguf_writer *writer, const char *key, uint64_t value) {
    append_key(writer, key, strlen(key), PI2_GGUF_U64);
    append_number(writer, 8, value);
}

void pi2_gguf_writer_f32(pi2_gguf_writer *writer, const char *key, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    append_key(writer, key, strlen(key), PI2_GGUF_F32);
    append_number(writer, 4, bits);
}

void pi2_gguf_writer_bool(pi2_gguf_writer *writer, const char *key, bool value) {
    append_key(writer, key, strlen(key), PI2_GGUF_BOOL);
    append_number(writer, 1, value);
}

void pi2_gguf_writer_string(pi2_gguf_writer *writer, const char *key, const char *text) {
    append_key(writer, key, strlen(key), PI2_GGUF_STRING);
    append_string(writer, text, strlen(text));
}

size_t pi2_gguf_writer_position(const pi2_gguf_writer *writer) { return writer->length; }

void pi2_gguf_writer_entry(pi2_gguf_writer *writer, const pi2_gguf_entry *entry) {
    static const char alignment_key[] = "general.alignment";
    if (entry->key.length == sizeof alignment_key - 1 &&
        memcmp(entry->key.text, alignment_key, entry->key.length) == 0) {
        return;
    }
    append_key(writer, entry->key.text, entry->key.length, entry->value_type);
    append(writer, entry->value, entry->value_bytes);
}

size_t pi2_gguf_writer_array(pi2_gguf_writer *writer, const char *key, uint32_t element_type,
                             uint64_t count, const void *data) {
    const size_t bytes = pi2_gguf_value_bytes(element_type);
    if (bytes == 0 || count > SIZE_MAX / 8) {
        keep_error(writer, pi2_fail(PI2_ERR_INVALID, "the array '%s' cannot be written", key));
        return 0;
    }
    append_key(writer, key, strlen(key), PI2_GGUF_ARRAY);
    append_number(writer, 4, element_type);
    append_number(writer, 8, count);
    const size_t start = writer->length;
    append(writer, data, (size_t)count * bytes);
    return start;
}

void pi2_gguf_writer_string_array(pi2_gguf_writer *writer, const char *key,
                                  const char *const *texts, size_t count) {
    append_key(writer, key, strlen(key), PI2_GGUF_ARRAY);
    append_number(writer, 4, PI2_GGUF_STRING);
    append_number(writer, 8, count);
    for (size_t i = 0; i < count; i++) append_string(writer, texts[i], strlen(texts[i]));
}

void pi2_gguf_writer_patch(pi2_gguf_writer *writer, size_t offset, const void *data,
                           size_t bytes) {
    if (writer->status != PI2_OK) return;
    if (offset > writer->length || bytes > writer->length - offset) {
        keep_error(writer, pi2_fail(PI2_ERR_INVALID, "a patch lies outside the GGUF header"));
        return;
    }
    memcpy(writer->bytes + offset, data, bytes);
}

uint64_t pi2_gguf_writer_tensor(pi2_gguf_writer *writer, const char *name, uint32_t type,
                                uint32_t dimension_count, const uint64_t *dimensions) {
    uint32_t block_columns, block_bytes;
    if (dimension_count < 1 || dimension_count > 4 ||
        !pi2_gguf_tensor_type_size(type, &block_columns, &block_bytes) ||
        dimensions[0] % block_columns != 0) {
        keep_error(writer, pi2_fail(PI2_ERR_INVALID, "tensor '%s' cannot be written", name));
        return 0;
    }
    append_string(writer, name, strlen(name));
    append_number(writer, 4, dimension_count);
    uint64_t blocks = dimensions[0] / block_columns;
    for (uint32_t i = 0; i < dimension_count; i++) {
        append_number(writer, 8, dimensions[i]);
        if (i > 0) blocks *= dimensions[i];
    }
    const uint64_t offset = writer->data_bytes;
    append_number(writer, 4, type);
    append_number(writer, 8, offset);
    const uint64_t bytes = blocks * block_bytes;
    writer->data_bytes += (bytes + writer->alignment - 1) / writer->alignment * writer->alignment;
    writer->tensor_count++;
    return offset;
}

pi2_status pi2_gguf_writer_finish(pi2_gguf_writer *writer, const uint8_t **header_out,
                                  size_t *bytes_out) {
    const size_t alignment = writer->alignment;
    const size_t padding = (alignment - writer->length % alignment) % alignment;
    append(writer, NULL, padding);
    if (writer->status != PI2_OK) return pi2_fail(writer->status, "%s", writer->error);
    pi2_store_le64(writer->bytes + TENSOR_COUNT_OFFSET, writer->tensor_count);
    pi2_store_le64(writer->bytes + ENTRY_COUNT_OFFSET, writer->entry_count);
    *header_out = writer->bytes;
    *bytes_out = writer->length;
    return PI2_OK;
}

uint64_t pi2_gguf_writer_data_bytes(const pi2_gguf_writer *writer) { return writer->data_bytes; }
