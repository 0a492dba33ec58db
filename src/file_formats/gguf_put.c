/* gguf_put.c: metadata that the user knows and the file does not say. */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "file_formats/gguf_internal.h"

/** The place of a key among the entries, a new one at their end where it is not there. */
static pi2_status place_of(pi2_gguf_table *table, const char *key, size_t *index_out) {
    const pi2_gguf_entry *found = pi2_gguf_table_find(table, key);
    *index_out = found ? (size_t)(found - table->entries) : table->count;
    if (found) return PI2_OK;
    pi2_gguf_entry *entries = realloc(table->entries, (table->count + 1) * sizeof *entries);
    if (!entries) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's metadata");
    table->entries = entries;
    table->capacity = table->count + 1;
    return pi2_gguf_table_index(table); /* whose pointers realloc has moved */
}

pi2_status pi2_gguf_put_string(pi2_gguf *gguf, const char *key, const char *text) {
    const size_t length = strlen(text), key_length = strlen(key);
    pi2_gguf_table *table = &gguf->table;
    size_t index = 0;
    uint8_t *bytes = pi2_gguf_keep(gguf, 8 + length + key_length);
    if (!bytes) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's metadata");
    PI2_TRY(place_of(table, key, &index));
    pi2_store_le64(bytes, length);
    memcpy(bytes + 8, text, length);
    memcpy(bytes + 8 + length, key, key_length);
    table->entries[index] = (pi2_gguf_entry){
        .key = { (const char *)bytes + 8 + length, key_length }, .value_type = PI2_GGUF_STRING,
        .value = bytes, .value_bytes = 8 + length };
    if (index == table->count) table->count++;
    return pi2_gguf_table_index(table);
}

void *pi2_gguf_keep(pi2_gguf *gguf, size_t bytes) {
    pi2_gguf_addition *addition = malloc(sizeof *addition + bytes);
    if (!addition) return NULL;
    addition->next = gguf->additions;
    gguf->additions = addition;
    return addition->bytes;
}

void pi2_gguf_free_additions(pi2_gguf *gguf) {
    while (gguf->additions) {
        pi2_gguf_addition *next = gguf->additions->next;
        free(gguf->additions);
        gguf->additions = next;
    }
}
