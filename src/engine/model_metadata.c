/* model_metadata.c: metadata values as text, cut where they grow long. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "engine/model_file_internal.h"
#include "file_formats/gguf.h"

/* GGUF value types. */
enum {
    TYPE_U8, TYPE_I8, TYPE_U16, TYPE_I16, TYPE_U32, TYPE_I32, TYPE_F32, TYPE_BOOL, TYPE_STRING, TYPE_ARRAY,
    TYPE_U64, TYPE_I64, TYPE_F64
};

/** Text of bounded size; once it is full nothing is added any more. */
typedef struct bounded_text {
    char *text;
    size_t length, capacity;
    bool is_cut;
} bounded_text;

static void add(bounded_text *out, const char *bytes, size_t length) {
    const size_t room = out->capacity - 1 - out->length;
    if (out->is_cut) return;
    out->is_cut = length > room;
    const size_t taken = out->is_cut ? room : length;
    memcpy(out->text + out->length, bytes, taken);
    out->length += taken;
}

static void add_number(bounded_text *out, const char *format, ...) PI2_PRINTF_LIKE(2, 3);
static void add_number(bounded_text *out, const char *format, ...) {
    char digits[64];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(digits, sizeof digits, format, arguments);
    va_end(arguments);
    if (length > 0) add(out, digits, (size_t)length < sizeof digits ? (size_t)length : sizeof digits - 1);
}

/** Bytes of a number of this type; 0 when it is none. */
static size_t number_bytes(uint32_t type) {
    static const unsigned char bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

static void add_value(bounded_text *out, uint32_t type, const uint8_t *value) {
    const uint64_t bits = pi2_load_le(value, number_bytes(type));
    switch (type) {
    case TYPE_I8: add_number(out, "%" PRId64, (int64_t)(int8_t)(uint8_t)bits); break;
    case TYPE_I16: add_number(out, "%" PRId64, (int64_t)(int16_t)(uint16_t)bits); break;
    case TYPE_I32: add_number(out, "%" PRId64, (int64_t)(int32_t)(uint32_t)bits); break;
    case TYPE_I64: add_number(out, "%" PRId64, (int64_t)bits); break;
    case TYPE_F32: add_number(out, "%.9g", (double)pi2_load_le_f32(value)); break;
    case TYPE_F64: add_number(out, "%.17g", pi2_load_le_f64(value)); break;
    case TYPE_BOOL: add_number(out, "%s", bits ? "true" : "false"); break;
    default: add_number(out, "%" PRIu64, bits); break;
    }
}

static void add_string(bounded_text *out, const char *text, size_t length) {
    for (size_t i = 0; i < length && !out->is_cut; i++) {
        if (text[i]) add(out, &text[i], 1);
        else add(out, "\\0", 2); /* the result is a C string */
    }
}

static void add_array(bounded_text *out, const pi2_gguf_array *array) {
    add(out, "[", 1);
    size_t cursor = 0;
    pi2_gguf_string text;
    for (uint64_t i = 0; i < array->count && !out->is_cut; i++) {
        if (i) add(out, ", ", 2);
        if (array->element_type == TYPE_STRING) {
            if (!pi2_gguf_array_next_string(array, &cursor, &text)) break;
            add(out, "\"", 1);
            add_string(out, text.text, text.length);
            add(out, "\"", 1);
        } else if (number_bytes(array->element_type)) {
            add_value(out, array->element_type, array->data + i * number_bytes(array->element_type));
        } else {
            add_number(out, "%" PRIu64 " arrays", array->count);
            break;
        }
    }
    add(out, "]", 1);
}

/** Ends the text; one that was cut ends in "..." after a whole UTF-8 character. */
static void finish(bounded_text *out) {
    if (out->is_cut && out->capacity > 4) {
        size_t end = out->capacity - 4;
        while (end > 0 && ((unsigned char)out->text[end] & 0xc0) == 0x80) end--;
        memcpy(out->text + end, "...", 3);
        out->length = end + 3;
    }
    out->text[out->length] = '\0';
}

pi2_status pi2_model_file_metadata(const pi2_model_file *file, uint32_t index, const char **key_out,
                                   size_t *key_length_out, char *text_out, size_t capacity) {
    if (index >= pi2_gguf_entry_count(file->gguf) || capacity == 0) {
        return pi2_fail(PI2_ERR_INVALID, "%s has %zu metadata entries, number %u was asked for",
                        pi2_gguf_file_path(file->gguf, 0), pi2_gguf_entry_count(file->gguf), (unsigned)index);
    }
    const pi2_gguf_entry entry = pi2_gguf_entry_at(file->gguf, index);
    bounded_text out = {.text = text_out, .capacity = capacity};
    *key_out = entry.key.text;
    *key_length_out = entry.key.length;
    if (entry.value_type == TYPE_STRING && entry.value_bytes >= 8) {
        add_string(&out, (const char *)entry.value + 8, entry.value_bytes - 8);
    } else if (entry.value_type == TYPE_ARRAY && entry.value_bytes >= 12) {
        const pi2_gguf_array array = {.element_type = pi2_load_le32(entry.value),
                                      .count = pi2_load_le64(entry.value + 4),
                                      .data = entry.value + 12,
                                      .data_bytes = entry.value_bytes - 12};
        add_array(&out, &array);
    } else if (number_bytes(entry.value_type) && entry.value_bytes >= number_bytes(entry.value_type)) {
        add_value(&out, entry.value_type, entry.value);
    }
    finish(&out);
    return PI2_OK;
}
