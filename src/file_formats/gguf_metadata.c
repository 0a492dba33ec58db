/* gguf_metadata.c: looks things up in a parsed GGUF header. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "file_formats/gguf_internal.h"

/* ---- strings and types ------------------------------------------------------------------ */

int pi2_gguf_string_compare(const pi2_gguf_string *a, const pi2_gguf_string *b) {
    const size_t shorter = a->length < b->length ? a->length : b->length;
    const int order = shorter ? memcmp(a->text, b->text, shorter) : 0;
    if (order != 0) return order;
    return a->length < b->length ? -1 : a->length > b->length;
}

const char *pi2_gguf_printable(char *out, size_t out_bytes, pi2_gguf_string string) {
    size_t length = 0;
    for (; length < string.length && length + 4 < out_bytes; length++) {
        const char c = string.text[length];
        out[length] = c >= ' ' && c <= '~' ? c : '?';
    }
    if (length < string.length) {
        memcpy(out + length, "...", 3);
        length += 3;
    }
    out[length] = '\0';
    return out;
}

size_t pi2_gguf_value_bytes(uint32_t value_type) {
    static const uint8_t bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return value_type < sizeof bytes ? bytes[value_type] : 0;
}

static const char *value_type_name(uint32_t value_type) {
    static const char *const names[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64" };
    return value_type < sizeof names / sizeof names[0] ? names[value_type] : "unknown";
}

/* ---- numbers ---------------------------------------------------------------------------- */

static bool is_signed(uint32_t type) {
    return type == PI2_GGUF_I8 || type == PI2_GGUF_I16 || type == PI2_GGUF_I32 ||
           type == PI2_GGUF_I64;
}

static bool is_integer(uint32_t type) {
    return is_signed(type) || type == PI2_GGUF_U8 || type == PI2_GGUF_U16 ||
           type == PI2_GGUF_U32 || type == PI2_GGUF_U64;
}

/** An integer as 64 bits, its sign extended. */
static uint64_t load_integer(const uint8_t *value, uint32_t type) {
    const size_t bytes = pi2_gguf_value_bytes(type);
    uint64_t number = pi2_load_le(value, bytes);
    if (is_signed(type) && bytes < 8 && (number >> (8 * bytes - 1)) != 0) {
        number |= ~(uint64_t)0 << (8 * bytes);
    }
    return number;
}

bool pi2_gguf_entry_u64(const pi2_gguf_entry *entry, uint64_t *value_out) {
    if (!is_integer(entry->value_type)) return false;
    const uint64_t number = load_integer(entry->value, entry->value_type);
    if (is_signed(entry->value_type) && number > (uint64_t)INT64_MAX) return false;
    *value_out = number;
    return true;
}

/* ---- metadata --------------------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b) {
    const pi2_gguf_entry *const *left = a, *const *right = b;
    return pi2_gguf_string_compare(&(*left)->key, &(*right)->key);
}

pi2_status pi2_gguf_table_index(pi2_gguf_table *table) {
    const pi2_gguf_entry **by_key = realloc(table->by_key, (table->count + 1) * sizeof *by_key);
    if (!by_key) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's metadata");
    table->by_key = by_key;
    for (size_t i = 0; i < table->count; i++) by_key[i] = &table->entries[i];
    qsort(by_key, table->count, sizeof *by_key, compare_entries);
    return PI2_OK;
}

const pi2_gguf_entry *pi2_gguf_table_find(const pi2_gguf_table *table, const char *key) {
    const pi2_gguf_string wanted = { key, strlen(key) };
    size_t low = 0, high = table->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = pi2_gguf_string_compare(&table->by_key[middle]->key, &wanted);
        if (order == 0) return table->by_key[middle];
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

static pi2_status fail_missing(const pi2_gguf *gguf, const char *key) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: the key '%s' is missing: convert the model again",
                    gguf->parts[0].path, key);
}

static pi2_status fail_type(const pi2_gguf *gguf, const pi2_gguf_entry *entry, const char *key,
                            const char *wanted) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' at byte %zu is of type %s and should be %s: "
                    "convert the model again",
                    gguf->parts[0].path, key,
                    (size_t)(entry->value - gguf->parts[0].header.memory),
                    value_type_name(entry->value_type), wanted);
}

bool pi2_gguf_has(const pi2_gguf *gguf, const char *key) {
    return pi2_gguf_table_find(&gguf->table, key) != NULL;
}

pi2_status pi2_gguf_u64_or(const pi2_gguf *gguf, const char *key, uint64_t fallback,
                           uint64_t *value_out) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(&gguf->table, key);
    *value_out = fallback;
    if (!entry) return PI2_OK;
    if (!pi2_gguf_entry_u64(entry, value_out)) {
        return fail_type(gguf, entry, key, "an integer that is not negative");
    }
    return PI2_OK;
}

pi2_status pi2_gguf_u32_or(const pi2_gguf *gguf, const char *key, uint32_t fallback,
                           uint32_t *value_out) {
    uint64_t value;
    *value_out = fallback;
    PI2_TRY(pi2_gguf_u64_or(gguf, key, fallback, &value));
    if (value > UINT32_MAX) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' is %" PRIu64 ", more than 32 bits hold: "
                        "convert the model again",
                        gguf->parts[0].path, key, value);
    }
    *value_out = (uint32_t)value;
    return PI2_OK;
}

pi2_status pi2_gguf_u32(const pi2_gguf *gguf, const char *key, uint32_t *value_out) {
    if (!pi2_gguf_has(gguf, key)) {
        *value_out = 0;
        return fail_missing(gguf, key);
    }
    return pi2_gguf_u32_or(gguf, key, 0, value_out);
}

pi2_status pi2_gguf_f32_or(const pi2_gguf *gguf, const char *key, float fallback,
                           float *value_out) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(&gguf->table, key);
    *value_out = fallback;
    if (!entry) return PI2_OK;
    if (entry->value_type == PI2_GGUF_F32) *value_out = pi2_load_le_f32(entry->value);
    else if (entry->value_type == PI2_GGUF_F64) *value_out = (float)pi2_load_le_f64(entry->value);
    else return fail_type(gguf, entry, key, "a float");
    return PI2_OK;
}

pi2_status pi2_gguf_number_or(const pi2_gguf *gguf, const char *key, double fallback, double *value_out) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(&gguf->table, key);
    *value_out = fallback;
    if (!entry) return PI2_OK;
    if (entry->value_type == PI2_GGUF_F32) *value_out = (double)pi2_load_le_f32(entry->value);
    else if (entry->value_type == PI2_GGUF_F64) *value_out = pi2_load_le_f64(entry->value);
    else if (is_signed(entry->value_type)) *value_out = (double)(int64_t)load_integer(entry->value, entry->value_type);
    else if (is_integer(entry->value_type)) *value_out = (double)load_integer(entry->value, entry->value_type);
    else return fail_type(gguf, entry, key, "a number");
    return PI2_OK;
}

pi2_status pi2_gguf_bool_or(const pi2_gguf *gguf, const char *key, bool fallback,
                            bool *value_out) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(&gguf->table, key);
    *value_out = fallback;
    if (!entry) return PI2_OK;
    if (entry->value_type != PI2_GGUF_BOOL) return fail_type(gguf, entry, key, "a bool");
    *value_out = entry->value[0] != 0;
    return PI2_OK;
}

pi2_status pi2_gguf_string_get(const pi2_gguf *gguf, const char *key,
                               pi2_gguf_string *value_out) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(&gguf->table, key);
    *value_out = (pi2_gguf_string){ "", 0 };
    if (!entry) return fail_missing(gguf, key);
    if (entry->value_type != PI2_GGUF_STRING) return fail_type(gguf, entry, key, "a string");
    *value_out = (pi2_gguf_string){ (const char *)entry->value + 8, entry->value_bytes - 8 };
    return PI2_OK;
}

/* ---- arrays ----------------------------------------------------------------------------- */

pi2_status pi2_gguf_array_get(const pi2_gguf *gguf, const char *key, pi2_gguf_array *array_out) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(&gguf->table, key);
    *array_out = (pi2_gguf_array){ 0 };
    if (!entry) return fail_missing(gguf, key);
    if (entry->value_type != PI2_GGUF_ARRAY) return fail_type(gguf, entry, key, "an array");
    *array_out = (pi2_gguf_array){ .element_type = pi2_load_le32(entry->value),
                                   .count = pi2_load_le64(entry->value + 4),
                                   .data = entry->value + 12,
                                   .data_bytes = entry->value_bytes - 12 };
    return PI2_OK;
}

bool pi2_gguf_array_next_string(const pi2_gguf_array *array, size_t *cursor,
                                pi2_gguf_string *string_out) {
    if (array->element_type != PI2_GGUF_STRING || *cursor >= array->data_bytes) return false;
    const size_t length = (size_t)pi2_load_le64(array->data + *cursor); /* checked when parsed */
    *string_out = (pi2_gguf_string){ (const char *)array->data + *cursor + 8, length };
    *cursor += 8 + length;
    return true;
}

uint64_t pi2_gguf_array_u64(const pi2_gguf_array *array, uint64_t index) {
    const size_t bytes = pi2_gguf_value_bytes(array->element_type);
    if (bytes == 0 || index >= array->count) return 0;
    const uint8_t *value = array->data + (size_t)index * bytes;
    if (is_integer(array->element_type)) return load_integer(value, array->element_type);
    if (array->element_type == PI2_GGUF_BOOL) return value[0] != 0;
    const double number = array->element_type == PI2_GGUF_F32 ? (double)pi2_load_le_f32(value)
                                                              : pi2_load_le_f64(value);
    /* A float that no integer can hold would be undefined behaviour to convert. */
    return number >= 0 && number < 18446744073709549568.0 ? (uint64_t)number : 0;
}

float pi2_gguf_array_f32(const pi2_gguf_array *array, uint64_t index) {
    const size_t bytes = pi2_gguf_value_bytes(array->element_type);
    if (bytes == 0 || index >= array->count) return 0.0f;
    const uint8_t *value = array->data + (size_t)index * bytes;
    if (array->element_type == PI2_GGUF_F32) return pi2_load_le_f32(value);
    if (array->element_type == PI2_GGUF_F64) return (float)pi2_load_le_f64(value);
    const uint64_t number = pi2_gguf_array_u64(array, index);
    if (is_signed(array->element_type) && number > (uint64_t)INT64_MAX) {
        return -(float)(~number + 1);
    }
    return (float)number;
}

bool pi2_gguf_is_array(const pi2_gguf *gguf, const char *key) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(&gguf->table, key);
    return entry && entry->value_type == PI2_GGUF_ARRAY;
}

/* ---- what a gguf holds ------------------------------------------------------------------ */

size_t pi2_gguf_file_count(const pi2_gguf *gguf) { return gguf->part_count; }

const char *pi2_gguf_file_path(const pi2_gguf *gguf, size_t file_index) {
    return gguf->parts[file_index].path;
}

uint64_t pi2_gguf_file_bytes(const pi2_gguf *gguf, size_t file_index) {
    return gguf->parts[file_index].bytes;
}

int64_t pi2_gguf_file_modified_ns(const pi2_gguf *gguf, size_t file_index) {
    return gguf->parts[file_index].modified_ns;
}

uint64_t pi2_gguf_file_header_hash(const pi2_gguf *gguf, size_t file_index) {
    return gguf->parts[file_index].header_hash;
}

uint64_t pi2_gguf_file_header_bytes(const pi2_gguf *gguf, size_t file_index) {
    return gguf->parts[file_index].header_bytes;
}

uint64_t pi2_gguf_file_data_offset(const pi2_gguf *gguf, size_t file_index) {
    return gguf->parts[file_index].data_offset;
}

size_t pi2_gguf_tensor_count(const pi2_gguf *gguf) { return gguf->tensor_count; }

const pi2_gguf_tensor *pi2_gguf_tensor_at(const pi2_gguf *gguf, size_t index) {
    return &gguf->tensors[index];
}

const pi2_gguf_tensor *pi2_gguf_tensor_find(const pi2_gguf *gguf, const char *name) {
    size_t low = 0, high = gguf->tensor_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(gguf->by_name[middle]->name, name);
        if (order == 0) return gguf->by_name[middle];
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

size_t pi2_gguf_entry_count(const pi2_gguf *gguf) { return gguf->table.count; }

pi2_gguf_entry pi2_gguf_entry_at(const pi2_gguf *gguf, size_t index) {
    return gguf->table.entries[index];
}
