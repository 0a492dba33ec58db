/* next_table_file.c: see next_table_file.h. */
#include "engine/next_table_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/output_file.h"
#include "base/whole_file.h"
#include "engine/session_internal.h"

enum { HEADER_BYTES = 32, AT_HASH = 8, AT_CHECKSUM = 16, AT_COUNT = 24, ENTRY_BYTES = 4, MOST_ENTRIES = 1 << 22 };

static const char magic[8] = { 'P', 'I', '2', 'N', 'E', 'X', 'T', '1' };

bool pi2_next_table_path(const pi2_planned_run *run, char path_out[PI2_NEXT_TABLE_PATH_BYTES]) {
    static const char *const ends[] = { ".gguf", ".pi2" };
    const char *path = run->source.model_path;
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        const size_t end = strlen(ends[i]);
        if (length > end && strcasecmp(path + length - end, ends[i]) == 0) {
            length -= end;
            break;
        }
    }
    const int written = snprintf(path_out, PI2_NEXT_TABLE_PATH_BYTES, "%.*s.next-tokens", (int)length, path);
    return written > 0 && written < PI2_NEXT_TABLE_PATH_BYTES;
}

/* ---- reading ---- */

/* Opens the table and reads its header. Errors  IO, FORMAT (no table, of another model) */
static pi2_status open_table(const pi2_planned_run *run, FILE **file_out, uint8_t header[HEADER_BYTES]) {
    char path[PI2_NEXT_TABLE_PATH_BYTES];
    uint64_t length = 0;
    *file_out = NULL;
    if (!pi2_next_table_path(run, path)) return pi2_fail(PI2_ERR_INVALID, "the path of a table is too long");
    PI2_TRY(pi2_regular_file_open(path, "a table of next tokens", HEADER_BYTES + (uint64_t)MOST_ENTRIES * ENTRY_BYTES,
                                  file_out, &length));
    const bool is_whole = fread(header, 1, HEADER_BYTES, *file_out) == HEADER_BYTES &&
                          memcmp(header, magic, sizeof magic) == 0 &&
                          length == HEADER_BYTES + (uint64_t)pi2_load_le32(header + AT_COUNT) * ENTRY_BYTES;
    const bool is_ours = is_whole && pi2_load_le64(header + AT_HASH) == run->source.header_hash;
    if (is_ours) return PI2_OK;
    (void)fclose(*file_out);
    *file_out = NULL;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s: make it again with 'powerinfer2 guesses'", path,
                    is_whole ? "this table is another model's" : "this is no table of next tokens, or a damaged one");
}

uint32_t pi2_next_table_entries(const pi2_planned_run *run) {
    uint8_t header[HEADER_BYTES];
    FILE *file;
    if (open_table(run, &file, header) != PI2_OK) return 0;
    (void)fclose(file);
    const uint32_t count = pi2_load_le32(header + AT_COUNT);
    return count == run->source.model->shape.vocabulary_size ? count : 0;
}

pi2_status pi2_next_table_read(const pi2_planned_run *run, uint32_t count, uint32_t *entries_out) {
    uint8_t header[HEADER_BYTES];
    FILE *file;
    PI2_TRY(open_table(run, &file, header));
    const bool is_read = pi2_load_le32(header + AT_COUNT) == count &&
                         fread(entries_out, ENTRY_BYTES, count, file) == count;
    (void)fclose(file);
    bool is_sound = is_read && XXH3_64bits(entries_out, (size_t)count * ENTRY_BYTES) ==
                                   pi2_load_le64(header + AT_CHECKSUM);
    for (uint32_t i = 0; i < count && is_sound; i++) {
        entries_out[i] = pi2_load_le32((const uint8_t *)(entries_out + i));
        is_sound = entries_out[i] < count || entries_out[i] == PI2_NO_NEXT;
    }
    if (is_sound) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: its table of next tokens is damaged: make it again with 'powerinfer2 guesses'",
                    run->source.model_path);
}

/* ---- making ---- */

static bool is_table(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return count >= sizeof magic && memcmp(head, magic, sizeof magic) == 0;
}

static const pi2_output_kind table_kind = { .what = "a table of next tokens", .recognises = is_table };

/** A table that is being made. */
typedef struct table_maker {
    pi2_engine *engine;
    int32_t begin;              /* before each token: without one models say other things; -1: there is none */
    uint32_t session_count, count;
    pi2_session **sessions;     /* [session_count] */
    pi2_session_tokens *parts;  /* likewise */
    int32_t *tokens;            /* [2 * session_count] */
    uint32_t *entries;          /* [count] */
} table_maker;

static uint32_t likeliest(const float *logits, uint32_t count) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return logits[best] == logits[best] ? best : PI2_NO_NEXT;
}

/* The next tokens of `first` and of those behind it, one for each session. */
static pi2_status make_some(table_maker *maker, uint32_t first) {
    const uint32_t left = maker->count - first, some = left < maker->session_count ? left : maker->session_count;
    for (uint32_t i = 0; i < some; i++) {
        pi2_session *session = maker->sessions[i];
        const bool has_begun = maker->begin >= 0 && pi2_session_position(session) > 0;
        int32_t *tokens = maker->tokens + 2 * (size_t)i;
        PI2_TRY(pi2_session_truncate(session, has_begun ? 1 : 0));
        size_t count = 0;
        if (maker->begin >= 0 && !has_begun) tokens[count++] = maker->begin;
        tokens[count++] = (int32_t)(first + i);
        maker->parts[i] = (pi2_session_tokens){ session, tokens, count, true };
    }
    PI2_TRY(pi2_sessions_append(maker->parts, some));
    for (uint32_t i = 0; i < some; i++) {
        const float *logits = pi2_session_logits(maker->sessions[i], 0);
        maker->entries[first + i] = logits ? likeliest(logits, maker->count) : PI2_NO_NEXT;
    }
    return PI2_OK;
}

static pi2_status make_entries(table_maker *maker) {
    const pi2_callbacks *callbacks = &maker->engine->run.options.callbacks;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    for (uint32_t i = 0; i < maker->session_count; i++) {
        PI2_TRY(pi2_session_create(maker->engine, &sampling, &maker->sessions[i]));
    }
    for (uint32_t done = 0; done < maker->count; done += maker->session_count) {
        if (callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
            return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
        }
        if (callbacks->progress) callbacks->progress(callbacks->user, "guesses", done, maker->count);
        PI2_TRY(make_some(maker, done));
    }
    return PI2_OK;
}

static pi2_status write_table(const table_maker *maker, const pi2_output_request *request) {
    uint8_t header[HEADER_BYTES] = { 0 };
    pi2_output_file file = { .stream = NULL };
    for (uint32_t i = 0; i < maker->count; i++) pi2_store_le32((uint8_t *)(maker->entries + i), maker->entries[i]);
    memcpy(header, magic, sizeof magic);
    pi2_store_le64(header + AT_HASH, maker->engine->run.source.header_hash);
    pi2_store_le64(header + AT_CHECKSUM, XXH3_64bits(maker->entries, (size_t)maker->count * ENTRY_BYTES));
    pi2_store_le32(header + AT_COUNT, maker->count);
    PI2_TRY(pi2_output_file_open(&file, request));
    pi2_output_file_write(&file, header, sizeof header);
    pi2_output_file_write(&file, maker->entries, (size_t)maker->count * ENTRY_BYTES);
    return pi2_output_file_finish(&file);
}

static void free_maker(table_maker *maker) {
    for (uint32_t i = 0; maker->sessions && i < maker->session_count; i++) pi2_session_free(maker->sessions[i]);
    free(maker->sessions);
    free(maker->parts);
    free(maker->tokens);
    free(maker->entries);
}

pi2_status pi2_next_table_make(pi2_engine *engine, char path_out[PI2_NEXT_TABLE_PATH_BYTES]) {
    const pi2_planned_run *run = &engine->run;
    const pi2_tokenizer *tokenizer = run->source.tokenizer;
    if (!pi2_next_table_path(run, path_out)) return pi2_fail(PI2_ERR_INVALID, "the path of the model is too long");
    const pi2_output_request request = { .path = path_out, .kind = &table_kind };
    PI2_TRY(pi2_output_check_ahead(&request));
    table_maker maker = { .engine = engine, .begin = pi2_tokenizer_bos(tokenizer),
                          .session_count = run->plan.memory.shape.sequences ? run->plan.memory.shape.sequences : 1,
                          .count = run->source.model->shape.vocabulary_size };
    if (maker.begin < 0) maker.begin = pi2_tokenizer_eos(tokenizer);
    maker.sessions = calloc(maker.session_count, sizeof *maker.sessions);
    maker.parts = calloc(maker.session_count, sizeof *maker.parts);
    maker.tokens = calloc(2 * (size_t)maker.session_count, sizeof *maker.tokens);
    maker.entries = calloc(maker.count, sizeof *maker.entries);
    const bool has_memory = maker.sessions && maker.parts && maker.tokens && maker.entries;
    pi2_status status = has_memory ? make_entries(&maker) : pi2_fail(PI2_ERR_MEMORY, "no memory for a table");
    if (status == PI2_OK) status = write_table(&maker, &request);
    free_maker(&maker);
    return status;
}
