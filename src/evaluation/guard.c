/* guard.c: the measurements of one model, as one JSON value. A file that is read is untrusted. */
#include "powerinfer2/guard.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/output_file.h"
#include "base/whole_file.h"

enum { VERSION = 1, MOST_BYTES = 1 << 20 };
static const char first_words[] = "{\"powerinfer2_guard\"";

struct pi2_guard {
    uint64_t weights_hash;
    size_t count;
    pi2_guard_entry entries[PI2_GUARD_MOST];
};

pi2_status pi2_guard_create(uint64_t weights_hash, pi2_guard **guard_out) {
    *guard_out = calloc(1, sizeof **guard_out);
    if (!*guard_out) return pi2_fail(PI2_ERR_MEMORY, "no memory for a guard");
    (*guard_out)->weights_hash = weights_hash;
    return PI2_OK;
}

void pi2_guard_free(pi2_guard *guard) { free(guard); }

uint64_t pi2_guard_weights_hash(const pi2_guard *guard) { return guard->weights_hash; }

const pi2_guard_entry *pi2_guard_entry_at(const pi2_guard *guard, size_t index) {
    return index < guard->count ? &guard->entries[index] : NULL;
}

const pi2_guard_entry *pi2_guard_find(const pi2_guard *guard, const char *arithmetic) {
    for (size_t i = guard->count; i-- > 0;) {
        if (strcmp(guard->entries[i].arithmetic, arithmetic) == 0) return &guard->entries[i];
    }
    return NULL;
}

void pi2_guard_put(pi2_guard *guard, const pi2_guard_entry *entry) {
    size_t gone = guard->count == PI2_GUARD_MOST ? 0 : guard->count;
    for (size_t i = 0; i < guard->count; i++) {
        if (strcmp(guard->entries[i].arithmetic, entry->arithmetic) == 0 &&
            guard->entries[i].text_hash == entry->text_hash) gone = i;
    }
    if (gone < guard->count) {
        guard->count--;
        memmove(&guard->entries[gone], &guard->entries[gone + 1], (guard->count - gone) * sizeof *entry);
    }
    guard->entries[guard->count++] = *entry;
}

/* ---- writing ---- */

static bool is_guard(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return pi2_output_head_is(head, count, first_words);
}

static const pi2_output_kind kind = { .what = "a guard", .recognises = is_guard };

pi2_status pi2_guard_check_place(const char *path, const char *const *inputs) {
    const pi2_output_request request = { .path = path, .kind = &kind, .inputs = inputs };
    return pi2_output_check_ahead(&request);
}

static void put_hash(json_t *object, const char *name, uint64_t hash) {
    char text[17];
    (void)snprintf(text, sizeof text, "%016" PRIx64, hash);
    json_object_set_new(object, name, json_string(text));
}

static const struct { const char *name; size_t offset; } figures[] = {
    { "kl_divergence", offsetof(pi2_guard_entry, divergence) },
    { "same_top", offsetof(pi2_guard_entry, same_top) },
    { "perplexity_ratio", offsetof(pi2_guard_entry, perplexity_ratio) },
};
enum { FIGURES = sizeof figures / sizeof figures[0] };

static json_t *entry_json(const pi2_guard_entry *entry) {
    json_t *object = json_object();
    json_object_set_new(object, "arithmetic", json_string(entry->arithmetic));
    json_object_set_new(object, "text", json_string(entry->text));
    put_hash(object, "text_hash", entry->text_hash);
    json_object_set_new(object, "chunk_tokens", json_integer(entry->chunk_tokens));
    json_object_set_new(object, "chunks", json_integer(entry->chunk_count));
    json_object_set_new(object, "tokens", json_integer((json_int_t)entry->tokens));
    for (int i = 0; i < FIGURES; i++) {
        const pi2_estimate *estimate = (const pi2_estimate *)((const char *)entry + figures[i].offset);
        json_object_set_new(object, figures[i].name, json_pack("[ff]", estimate->value, estimate->error));
    }
    return object;
}

pi2_status pi2_guard_write(const pi2_guard *guard, const char *path) {
    const pi2_output_request request = { .path = path, .kind = &kind };
    pi2_output_file file;
    json_t *object = json_object(), *entries = json_array();
    json_object_set_new(object, "powerinfer2_guard", json_integer(VERSION));
    put_hash(object, "weights_hash", guard->weights_hash);
    for (size_t i = 0; i < guard->count; i++) json_array_append_new(entries, entry_json(&guard->entries[i]));
    json_object_set_new(object, "measured", entries);
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(object);
    if (!text) return pi2_fail(PI2_ERR_MEMORY, "no memory to write %s", path);
    /* The first words are those by which the file is known, whatever jansson puts between. */
    const char *rest = strchr(text, ':');
    pi2_status status = pi2_output_file_open(&file, &request);
    if (status == PI2_OK) {
        pi2_output_file_print(&file, "%s%s\n", first_words, rest);
        status = pi2_output_file_finish(&file);
    }
    free(text);
    return status;
}

pi2_status pi2_guard_default_path(const char *weights_path, char **path_out) {
    static const char *const endings[] = { ".gguf", ".pi2" };
    size_t length = strlen(weights_path);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        const size_t ending = strlen(endings[i]);
        if (length > ending && strcmp(weights_path + length - ending, endings[i]) == 0) {
            length -= ending;
            break;
        }
    }
    *path_out = malloc(length + sizeof ".guard");
    if (!*path_out) return pi2_fail(PI2_ERR_MEMORY, "no memory for a path");
    memcpy(*path_out, weights_path, length);
    memcpy(*path_out + length, ".guard", sizeof ".guard");
    return PI2_OK;
}

/* ---- reading ---- */

static bool get_hash(const json_t *object, const char *name, uint64_t *hash_out) {
    const char *text = json_string_value(json_object_get(object, name));
    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) return false;
    *hash_out = strtoull(text, NULL, 16);
    return true;
}

/** A text that fits, without control characters: it is printed. */
static bool get_text(const json_t *object, const char *name, char text_out[PI2_GUARD_TEXT_BYTES]) {
    const json_t *value = json_object_get(object, name);
    const size_t length = json_string_length(value);
    if (!json_is_string(value) || length >= PI2_GUARD_TEXT_BYTES) return false;
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)json_string_value(value)[i] < ' ') return false;
    }
    memcpy(text_out, json_string_value(value), length + 1);
    return true;
}

static bool get_count(const json_t *object, const char *name, uint64_t most, uint64_t *count_out) {
    const json_t *value = json_object_get(object, name);
    *count_out = (uint64_t)json_integer_value(value);
    return json_is_integer(value) && json_integer_value(value) >= 1 && *count_out <= most;
}

/** Two finite numbers, the second not negative. */
static bool get_estimate(const json_t *object, const char *name, pi2_estimate *estimate_out) {
    const json_t *pair = json_object_get(object, name);
    const json_t *value = json_array_get(pair, 0), *error = json_array_get(pair, 1);
    *estimate_out = (pi2_estimate){ json_number_value(value), json_number_value(error) };
    return json_array_size(pair) == 2 && json_is_number(value) && json_is_number(error) &&
           isfinite(estimate_out->value) && isfinite(estimate_out->error) && estimate_out->error >= 0;
}

static bool read_entry(const json_t *object, pi2_guard_entry *entry) {
    uint64_t chunk_tokens = 0, chunks = 0;
    memset(entry, 0, sizeof *entry);
    bool is_good = get_text(object, "arithmetic", entry->arithmetic) && get_text(object, "text", entry->text) &&
                   get_hash(object, "text_hash", &entry->text_hash) &&
                   get_count(object, "chunk_tokens", UINT32_MAX, &chunk_tokens) &&
                   get_count(object, "chunks", UINT32_MAX, &chunks) &&
                   get_count(object, "tokens", INT64_MAX, &entry->tokens);
    for (int i = 0; i < FIGURES && is_good; i++) {
        is_good = get_estimate(object, figures[i].name, (pi2_estimate *)((char *)entry + figures[i].offset));
    }
    entry->chunk_tokens = (uint32_t)chunk_tokens;
    entry->chunk_count = (uint32_t)chunks;
    return is_good && entry->same_top.value >= 0 && entry->same_top.value <= 1 && entry->perplexity_ratio.value > 0;
}

static pi2_status read_value(const char *path, const json_t *value, pi2_guard *guard) {
    const json_t *entries = json_object_get(value, "measured");
    if (json_integer_value(json_object_get(value, "powerinfer2_guard")) != VERSION ||
        !get_hash(value, "weights_hash", &guard->weights_hash) || !json_is_array(entries)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: this is no guard of this version: delete it, and measure with "
                        "'powerinfer2 verify'", path);
    }
    if (json_array_size(entries) > PI2_GUARD_MOST) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: a guard has at most %d measurements: delete it, and measure with "
                        "'powerinfer2 verify'", path, (int)PI2_GUARD_MOST);
    }
    for (size_t i = 0; i < json_array_size(entries); i++) {
        if (read_entry(json_array_get(entries, i), &guard->entries[i])) continue;
        return pi2_fail(PI2_ERR_FORMAT, "%s: measurement %zu lacks a figure, or has an impossible one: delete it, "
                        "and measure with 'powerinfer2 verify'", path, i + 1);
    }
    guard->count = json_array_size(entries);
    return PI2_OK;
}

pi2_status pi2_guard_read(const char *path, pi2_guard **guard_out) {
    uint8_t *bytes = NULL;
    size_t length = 0;
    json_error_t error;
    *guard_out = NULL;
    PI2_TRY(pi2_whole_file_read(path, "a guard", MOST_BYTES, &bytes, &length));
    json_t *value = json_loadb((const char *)bytes, length, JSON_REJECT_DUPLICATES, &error);
    free(bytes);
    if (!value) {
        const bool no_memory = json_error_code(&error) == json_error_out_of_memory;
        return pi2_fail(no_memory ? PI2_ERR_MEMORY : PI2_ERR_FORMAT, "%s: line %d, column %d: %s: delete "
                        "it, and measure with 'powerinfer2 verify'", path, error.line, error.column, error.text);
    }
    pi2_guard *guard = NULL;
    pi2_status status = pi2_guard_create(0, &guard);
    if (status == PI2_OK) status = read_value(path, value, guard);
    json_decref(value);
    if (status == PI2_OK) *guard_out = guard;
    else pi2_guard_free(guard);
    return status;
}

pi2_status pi2_text_hash(const char *path, uint64_t *hash_out) {
    FILE *file = NULL;
    uint64_t bytes;
    PI2_TRY(pi2_regular_file_open(path, "a text that is measured twice", INT64_MAX, &file, &bytes));
    const pi2_status status = pi2_file_hash(file, path, NULL, NULL, &bytes, hash_out);
    (void)fclose(file);
    return status;
}
