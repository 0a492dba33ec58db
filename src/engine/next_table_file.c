/* next_table_file.c: see next_table_file.h. */
#include "engine/next_table_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/output_file.h"
#include "base/whole_file.h"
#include "engine/next_learnt.h"
#include "engine/session_internal.h"

enum { HEADER_BYTES = PI2_NEXT_HEADER_BYTES, AT_HASH = PI2_NEXT_AT_HASH, AT_CHECKSUM = 16,
       AT_COUNT = PI2_NEXT_AT_COUNT, AT_WIDTH = 28, ENTRY_BYTES = 4,
       MOST_TOKENS = 1 << 22, MOST_WIDTH = 32, WIDTH = PI2_LEARNT_WIDTH };

static const char magic[8] = { 'P', 'I', '2', 'N', 'E', 'X', 'T', '2' };
#define LEAST_LOGIT (-80.0) /* so far below the best one a token's chance is nothing */
enum { NAME_BYTES = sizeof magic - 1 }; /* the version's digit is behind it */

bool pi2_path_beside_model(const pi2_planned_run *run, const char *ending, char *path_out, size_t capacity) {
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
    const int written = snprintf(path_out, capacity, "%.*s.%s", (int)length, path, ending);
    return written > 0 && (size_t)written < capacity;
}

bool pi2_next_table_path(const pi2_planned_run *run, char path_out[PI2_NEXT_TABLE_PATH_BYTES]) {
    return pi2_path_beside_model(run, "next-tokens", path_out, PI2_NEXT_TABLE_PATH_BYTES);
}

/* ---- reading ---- */

static pi2_status refuse(const char *path, const char *why) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s: make it again with 'powerinfer2 guesses'", path, why);
}

/* Opens a table and reads its header. Errors  IO, FORMAT (no table, another version's, of another model) */
static pi2_status open_table(const char *path, uint64_t header_hash, uint32_t count, FILE **file_out,
                             uint32_t *width_out) {
    uint8_t header[HEADER_BYTES];
    uint64_t length = 0;
    const char *why = NULL;
    PI2_TRY(pi2_regular_file_open(path, "a table of next tokens",
                                  HEADER_BYTES + (uint64_t)MOST_TOKENS * MOST_WIDTH * ENTRY_BYTES, file_out, &length));
    const bool is_read = fread(header, 1, HEADER_BYTES, *file_out) == HEADER_BYTES;
    const uint32_t width = is_read ? pi2_load_le32(header + AT_WIDTH) : 0;
    if (!is_read || memcmp(header, magic, NAME_BYTES) != 0) why = "this is no table of next tokens, or a damaged one";
    else if (header[NAME_BYTES] != magic[NAME_BYTES]) why = "this table is of another version";
    else if (pi2_load_le64(header + AT_HASH) != header_hash) why = "this table is another model's";
    else if (width == 0 || width > MOST_WIDTH || pi2_load_le32(header + AT_COUNT) != count ||
             length != HEADER_BYTES + (uint64_t)count * width * ENTRY_BYTES) {
        why = "this table is damaged";
    }
    *width_out = width;
    if (!why) return PI2_OK;
    (void)fclose(*file_out);
    *file_out = NULL;
    return refuse(path, why);
}

size_t pi2_next_table_bytes(const pi2_planned_run *run) {
    const uint32_t count = run->source.model->shape.vocabulary_size;
    char path[PI2_NEXT_TABLE_PATH_BYTES];
    uint32_t width;
    FILE *file;
    if (!pi2_next_table_path(run, path)) return 0;
    if (open_table(path, run->source.header_hash, count, &file, &width) != PI2_OK) return 0;
    (void)fclose(file);
    return sizeof(pi2_next_table) + (size_t)count * width * ENTRY_BYTES;
}

/* Other ids, each once, the likeliest first, and none behind one that is missing. */
static bool is_sound(const uint32_t *entries, uint32_t width, uint32_t count) {
    for (uint32_t i = 0; i < width; i++) {
        const bool is_none = entries[i] == PI2_NO_NEXT;
        if (i > 0 && entries[i - 1] == PI2_NO_NEXT && !is_none) return false;
        if (is_none) continue;
        if (pi2_next_id(entries[i]) >= count) return false;
        if (i > 0 && pi2_next_unlikeliness(entries[i]) < pi2_next_unlikeliness(entries[i - 1])) return false;
        for (uint32_t j = 0; j < i; j++) {
            if (pi2_next_id(entries[j]) == pi2_next_id(entries[i])) return false;
        }
    }
    return true;
}

/* The entries of an open table, its checksum compared. */
static bool read_entries(FILE *file, pi2_next_table *table) {
    const size_t total = (size_t)table->count * table->width;
    uint8_t checksum[8];
    if (fseek(file, AT_CHECKSUM, SEEK_SET) != 0 || fread(checksum, 1, sizeof checksum, file) != sizeof checksum ||
        fseek(file, HEADER_BYTES, SEEK_SET) != 0 || fread(table->entries, ENTRY_BYTES, total, file) != total) {
        return false;
    }
    if (XXH3_64bits(table->entries, total * ENTRY_BYTES) != pi2_load_le64(checksum)) return false;
    for (size_t i = 0; i < total; i++) table->entries[i] = pi2_load_le32((const uint8_t *)(table->entries + i));
    for (uint32_t token = 0; token < table->count; token++) {
        if (!is_sound(table->entries + (size_t)token * table->width, table->width, table->count)) return false;
    }
    return true;
}

pi2_status pi2_next_table_read(const char *path, uint64_t header_hash, uint32_t count, pi2_next_table **table_out) {
    uint32_t width = 0;
    FILE *file;
    *table_out = NULL;
    PI2_TRY(open_table(path, header_hash, count, &file, &width));
    pi2_next_table *table = malloc(sizeof *table + (size_t)count * width * ENTRY_BYTES);
    if (table) *table = (pi2_next_table){ .count = count, .width = width };
    const bool is_read = table && read_entries(file, table);
    (void)fclose(file);
    if (is_read) {
        *table_out = table;
        return PI2_OK;
    }
    free(table);
    return table ? refuse(path, "this table is damaged") : pi2_fail(PI2_ERR_MEMORY, "no memory for %s", path);
}

/* ---- making ---- */

static bool is_table(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return count >= NAME_BYTES && memcmp(head, magic, NAME_BYTES) == 0; /* of whatever version */
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
    uint32_t *entries;          /* [count][WIDTH] */
} table_maker;

/* The likeliest tokens, with their chances among all. */
static void list_likeliest(const float *logits, uint32_t count, uint32_t *entries) {
    float values[WIDTH];
    uint32_t ids[WIDTH];
    const uint32_t found = pi2_next_likeliest(logits, count, values, ids);
    double sum = 0;
    for (uint32_t i = 0; i < count && found; i++) {
        const double below = (double)logits[i] - (double)values[0];
        if (below > LEAST_LOGIT) sum += exp(below);
    }
    for (uint32_t i = 0; i < WIDTH; i++) entries[i] = PI2_NO_NEXT;
    if (!isfinite(sum)) return;
    for (uint32_t i = 0; i < found; i++) {
        const double below = (double)values[0] - (double)values[i] + log(sum);
        const double steps = below / log(2) * PI2_NEXT_STEPS + 0.5;
        const uint32_t most = UINT32_MAX >> PI2_NEXT_ID_BITS;
        entries[i] = ids[i] | (steps < most ? (uint32_t)steps : most) << PI2_NEXT_ID_BITS;
        if (entries[i] == PI2_NO_NEXT) return;
    }
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
        list_likeliest(pi2_session_logits(maker->sessions[i], 0), maker->count,
                       maker->entries + (size_t)(first + i) * WIDTH);
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
    const size_t total = (size_t)maker->count * WIDTH;
    uint8_t header[HEADER_BYTES] = { 0 };
    pi2_output_file file = { .stream = NULL };
    for (size_t i = 0; i < total; i++) pi2_store_le32((uint8_t *)(maker->entries + i), maker->entries[i]);
    memcpy(header, magic, sizeof magic);
    pi2_store_le64(header + AT_HASH, maker->engine->run.source.header_hash);
    pi2_store_le64(header + AT_CHECKSUM, XXH3_64bits(maker->entries, total * ENTRY_BYTES));
    pi2_store_le32(header + AT_COUNT, maker->count);
    pi2_store_le32(header + AT_WIDTH, WIDTH);
    PI2_TRY(pi2_output_file_open(&file, request));
    pi2_output_file_write(&file, header, sizeof header);
    pi2_output_file_write(&file, maker->entries, total * ENTRY_BYTES);
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
    maker.entries = calloc((size_t)maker.count * WIDTH, sizeof *maker.entries);
    const bool has_memory = maker.sessions && maker.parts && maker.tokens && maker.entries;
    pi2_status status = has_memory ? make_entries(&maker) : pi2_fail(PI2_ERR_MEMORY, "no memory for a table");
    if (status == PI2_OK) status = write_table(&maker, &request);
    free_maker(&maker);
    return status;
}
