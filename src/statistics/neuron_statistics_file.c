/* neuron_statistics_file.c: writes and reads the file (docs/statistics_format.md). A file that is read is untrusted. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/output_file.h"
#include "base/permutation.h"
#include "base/whole_file.h"
#include "statistics/neuron_samples.h"
#include "statistics/neuron_statistics_internal.h"

enum { VERSION = 3, HEADER_BYTES = 72, ENTRY_BYTES = 24 + 8 * PI2_STATISTICS_SUMS, TEXT_BYTES = 48, SAMPLE_BYTES = 8,
       ENDING_BYTES = 8,
       CHUNK_NUMBERS = 4096 };
static const char magic[8] = { 'P', 'I', '2', 'N', 'E', 'U', 'R', 'O' };

/* ---- what the numbers must be ---- */

/** Where the meanings of the columns lie. */
static uint64_t columns_begin(uint32_t entries, uint32_t texts, uint32_t samples) {
    return HEADER_BYTES + (uint64_t)entries * ENTRY_BYTES + (uint64_t)texts * TEXT_BYTES +
           (uint64_t)samples * SAMPLE_BYTES;
}

static uint64_t file_bytes(uint32_t entries, uint32_t texts, uint32_t samples, uint32_t columns, uint64_t neurons) {
    return columns_begin(entries, texts, samples) + columns * (4 + 4 * neurons) + ENDING_BYTES;
}

/** Where a number of a column lies in the file. */
static uint64_t place_of(const pi2_neuron_statistics *statistics, uint32_t column, uint64_t number) {
    return columns_begin(statistics->entry_count, statistics->text_count, statistics->sample_count) +
           (uint64_t)statistics->column_count * 4 + 4 * (column * statistics->neuron_total + number);
}

/** The name of an activation, as bytes: small letters, digits and '_', then zeros alone. */
static bool name_is_good(const char *name) {
    size_t length = 0;
    while (length < PI2_STATISTICS_ACTIVATION_BYTES &&
           ((name[length] >= 'a' && name[length] <= 'z') || (name[length] >= '0' && name[length] <= '9') ||
            name[length] == '_')) length++;
    if (length == PI2_STATISTICS_ACTIVATION_BYTES) return false;
    for (size_t i = length; i < PI2_STATISTICS_ACTIVATION_BYTES; i++) {
        if (name[i]) return false;
    }
    return true;
}

/** Bits of word w of a neuron's samples that belong to none. */
static uint32_t unused_bits(uint32_t samples, uint32_t w) {
    const uint32_t used = samples > 32 * w ? samples - 32 * w : 0;
    return used >= 32 ? 0 : UINT32_MAX << used;
}

/** What a column's numbers must be, in words; NULL: they are. */
static pi2_status check_entry_column(const pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry,
                                     uint32_t column, const char **wrong_out) {
    const uint32_t *numbers = statistics->columns[column] + entry->first;
    const uint32_t id = statistics->column_ids[column];
    *wrong_out = NULL;
    if (id == PI2_STATISTICS_ORDER) {
        bool is_good = true;
        PI2_TRY(pi2_permutation_check(numbers, entry->neuron_count, &is_good));
        if (!is_good) *wrong_out = "does not name every neuron once";
        return PI2_OK;
    }
    if (id - PI2_STATISTICS_SAMPLED < PI2_STATISTICS_SAMPLED_COLUMNS) {
        const uint32_t unused = unused_bits(statistics->sample_count, id - PI2_STATISTICS_SAMPLED);
        for (uint32_t i = 0; i < entry->neuron_count; i++) {
            if (numbers[i] & unused) *wrong_out = "are of more tokens than were sampled";
        }
        return PI2_OK;
    }
    if (id < PI2_STATISTICS_FIRED || id > PI2_STATISTICS_IN_32) return PI2_OK;
    const uint32_t *fired = pi2_neuron_statistics_column(statistics, PI2_STATISTICS_FIRED, entry);
    for (uint32_t i = 0; i < entry->neuron_count; i++) {
        const uint32_t firings = fired ? fired[i] : 0;
        uint64_t least_tokens = numbers[i];
        if (id == PI2_STATISTICS_ZEROS) least_tokens += firings;
        if (id == PI2_STATISTICS_MAGNITUDE || id == PI2_STATISTICS_MAGNITUDE_HIGH) {
            const uint64_t magnitude = pi2_neuron_statistics_magnitude(statistics, entry, i);
            least_tokens = magnitude / PI2_STATISTICS_MOST_MAGNITUDE + (magnitude % PI2_STATISTICS_MOST_MAGNITUDE > 0);
        }
        if (least_tokens > entry->token_count) *wrong_out = "are more than its tokens";
        if (fired && id >= PI2_STATISTICS_IN_2 && numbers[i] > firings) *wrong_out = "are more than its firings";
    }
    return PI2_OK;
}

static pi2_status check_column(const pi2_neuron_statistics *statistics, const char *path, uint32_t column,
                               pi2_status error) {
    for (uint32_t e = 0; e < statistics->entry_count; e++) {
        const pi2_statistics_entry *entry = &statistics->entries[e];
        const char *wrong;
        PI2_TRY(check_entry_column(statistics, entry, column, &wrong));
        if (!wrong) continue;
        return pi2_fail(error, "%s: the %s of layer %" PRIu32 " at byte %" PRIu64 " %s: make the statistics again",
                        path, statistics->column_ids[column] == PI2_STATISTICS_ORDER ? "order" : "counts",
                        entry->layer, place_of(statistics, column, entry->first), wrong);
    }
    return PI2_OK;
}

static pi2_status check_numbers(const pi2_neuron_statistics *statistics, const char *path, pi2_status error) {
    if (statistics->token_count > PI2_STATISTICS_MOST_TOKENS || statistics->text_count > PI2_STATISTICS_MOST_TEXTS ||
        !pi2_statistics_texts_are_good(statistics) || !name_is_good(statistics->activation)) {
        return pi2_fail(error, "%s: impossible texts: make the statistics again", path);
    }
    if (!pi2_statistics_samples_are_good(statistics)) {
        return pi2_fail(error, "%s: impossible samples: make the statistics again", path);
    }
    for (uint32_t e = 0; e < statistics->entry_count; e++) {
        const pi2_statistics_entry *entry = &statistics->entries[e];
        if (entry->token_count <= statistics->token_count &&
            pi2_statistics_sums_are_good(entry, pi2_neuron_statistics_sums(statistics, entry))) continue;
        return pi2_fail(error, "%s: the sums of layer %" PRIu32 " at byte %" PRIu64
                        " are more than its tokens: make the statistics again", path, entry->layer,
                        HEADER_BYTES + (uint64_t)e * ENTRY_BYTES);
    }
    for (uint32_t c = 0; c < statistics->column_count; c++) PI2_TRY(check_column(statistics, path, c, error));
    return PI2_OK;
}

/* ---- writing ---- */

typedef struct statistics_writer {
    pi2_output_file file;
    XXH3_state_t *hash;
} statistics_writer;

static void put(statistics_writer *writer, const void *bytes, size_t count) {
    (void)XXH3_64bits_update(writer->hash, bytes, count);
    pi2_output_file_write(&writer->file, bytes, count);
}

static void put_header(statistics_writer *writer, const pi2_neuron_statistics *statistics) {
    uint8_t bytes[HEADER_BYTES] = { 0 };
    memcpy(bytes, magic, sizeof magic);
    pi2_store_le32(bytes + 8, VERSION);
    pi2_store_le32(bytes + 12, statistics->entry_count);
    pi2_store_le32(bytes + 16, statistics->column_count);
    pi2_store_le64(bytes + 24, statistics->model_hash);
    pi2_store_le64(bytes + 32, statistics->token_count);
    pi2_store_le64(bytes + 40, statistics->neuron_total);
    pi2_store_le32(bytes + 20, statistics->text_count);
    pi2_store_le32(bytes + 48, statistics->chunk_tokens);
    pi2_store_le32(bytes + 52, statistics->sample_count);
    memcpy(bytes + 56, statistics->activation, PI2_STATISTICS_ACTIVATION_BYTES);
    put(writer, bytes, sizeof bytes);
    for (uint32_t i = 0; i < statistics->entry_count; i++) {
        const pi2_statistics_entry *entry = &statistics->entries[i];
        uint8_t line[ENTRY_BYTES] = { 0 };
        pi2_store_le32(line, entry->layer);
        pi2_store_le32(line + 4, entry->expert);
        pi2_store_le32(line + 8, entry->neuron_count);
        pi2_store_le64(line + 16, entry->token_count);
        const uint64_t *sums = pi2_neuron_statistics_sums(statistics, entry);
        for (int k = 0; k < PI2_STATISTICS_SUMS; k++) pi2_store_le64(line + 24 + 8 * k, sums[k]);
        put(writer, line, sizeof line);
    }
    for (uint32_t i = 0; i < statistics->text_count; i++) {
        const pi2_statistics_text *text = &statistics->texts[i];
        uint8_t line[TEXT_BYTES] = { 0 };
        pi2_store_le64(line, text->bytes);
        pi2_store_le64(line + 8, text->hash);
        pi2_store_le64(line + 16, text->token_count);
        pi2_store_le64(line + 24, text->end);
        pi2_store_le64(line + 32, text->parts);
        pi2_store_le32(line + 40, text->part_count);
        put(writer, line, sizeof line);
    }
    for (uint32_t i = 0; i < statistics->sample_count; i++) {
        uint8_t number[SAMPLE_BYTES];
        pi2_store_le64(number, statistics->samples[i]);
        put(writer, number, sizeof number);
    }
}

static void put_numbers(statistics_writer *writer, const uint32_t *numbers, uint64_t count) {
    uint8_t bytes[4 * CHUNK_NUMBERS];
    for (uint64_t done = 0; done < count;) {
        const size_t step = count - done < CHUNK_NUMBERS ? (size_t)(count - done) : CHUNK_NUMBERS;
        for (size_t i = 0; i < step; i++) pi2_store_le32(bytes + 4 * i, numbers[done + i]);
        put(writer, bytes, 4 * step);
        done += step;
    }
}

static bool recognises_statistics(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return count >= sizeof magic && memcmp(head, magic, sizeof magic) == 0;
}

static const pi2_output_kind statistics_kind = { .what = "statistics of neurons", .recognises = recognises_statistics,
                                                 .may_flow = true };

pi2_status pi2_neuron_statistics_check_place(const char *path, const char *const *inputs) {
    const pi2_output_request request = { .path = path, .kind = &statistics_kind, .inputs = inputs };
    return pi2_output_check_ahead(&request);
}

static pi2_status write_file(statistics_writer *writer, const char *path, pi2_neuron_statistics *statistics) {
    writer->hash = XXH3_createState();
    if (!writer->hash) return pi2_fail(PI2_ERR_MEMORY, "no memory for a checksum");
    (void)XXH3_64bits_reset(writer->hash);
    const pi2_output_request request = { .path = path, .kind = &statistics_kind };
    PI2_TRY(pi2_output_file_open(&writer->file, &request));
    put_header(writer, statistics);
    put_numbers(writer, statistics->column_ids, statistics->column_count);
    for (uint32_t c = 0; c < statistics->column_count; c++) {
        put_numbers(writer, statistics->columns[c], statistics->neuron_total);
    }
    uint8_t ending[ENDING_BYTES];
    statistics->checksum = XXH3_64bits_digest(writer->hash);
    pi2_store_le64(ending, statistics->checksum);
    pi2_output_file_write(&writer->file, ending, sizeof ending);
    return pi2_output_file_finish(&writer->file);
}

pi2_status pi2_neuron_statistics_write(const char *path, pi2_neuron_statistics *statistics) {
    statistics_writer writer = { .hash = NULL };
    pi2_neuron_samples_sort(statistics);
    PI2_TRY(check_numbers(statistics, path, PI2_ERR_INVALID));
    const pi2_status status = write_file(&writer, path, statistics);
    pi2_output_file_discard(&writer.file);
    (void)XXH3_freeState(writer.hash);
    return status;
}

/* ---- reading ---- */

static pi2_status damaged(const char *path, uint64_t at, const char *what) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s at byte %" PRIu64 ": these are no whole statistics: make them again", path,
                    what, at);
}

/** Checks what makes the bytes statistics at all; the counts of the header are right afterwards. */
static pi2_status check_whole(const char *path, const uint8_t *bytes, size_t length) {
    if (length < HEADER_BYTES + ENDING_BYTES || memcmp(bytes, magic, sizeof magic) != 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: these are no statistics of neurons ('powerinfer2 profile' makes them)",
                        path);
    }
    const uint32_t version = pi2_load_le32(bytes + 8);
    if (version != VERSION) {
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "%s: statistics of version %" PRIu32 ", version %d is read: make them again", path, version,
                        VERSION);
    }
    const uint32_t entries = pi2_load_le32(bytes + 12), columns = pi2_load_le32(bytes + 16);
    const uint32_t texts = pi2_load_le32(bytes + 20), samples = pi2_load_le32(bytes + 52);
    const uint64_t neurons = pi2_load_le64(bytes + 40);
    if (entries > PI2_STATISTICS_MOST_ENTRIES || columns > PI2_STATISTICS_MOST_COLUMNS || neurons > INT32_MAX ||
        texts > PI2_STATISTICS_MOST_TEXTS || samples > PI2_STATISTICS_SAMPLES) {
        return damaged(path, 12, "impossible numbers");
    }
    if (file_bytes(entries, texts, samples, columns, neurons) != length) {
        return damaged(path, length, "another end than its numbers say");
    }
    if (XXH3_64bits(bytes, length - ENDING_BYTES) != pi2_load_le64(bytes + length - ENDING_BYTES)) {
        return damaged(path, length - ENDING_BYTES, "another checksum than that of its bytes");
    }
    return PI2_OK;
}

static pi2_status read_entries(const char *path, const uint8_t *bytes, uint32_t count,
                               pi2_neuron_statistics *statistics) {
    const uint32_t columns = pi2_load_le32(bytes + 16);
    pi2_statistics_entry *entries = malloc((count + (size_t)1) * sizeof *entries);
    if (!entries) return pi2_fail(PI2_ERR_MEMORY, "%s: no memory for its layers", path);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *line = bytes + HEADER_BYTES + (size_t)i * ENTRY_BYTES;
        entries[i] = (pi2_statistics_entry){ .layer = pi2_load_le32(line), .expert = pi2_load_le32(line + 4),
                                             .neuron_count = pi2_load_le32(line + 8),
                                             .token_count = pi2_load_le64(line + 16) };
    }
    const uint8_t *ids = bytes + columns_begin(count, pi2_load_le32(bytes + 20), pi2_load_le32(bytes + 52));
    uint32_t column_ids[PI2_STATISTICS_MOST_COLUMNS];
    for (uint32_t c = 0; c < columns; c++) column_ids[c] = pi2_load_le32(ids + 4 * c);
    uint64_t total = 0;
    pi2_status status = PI2_OK;
    if (!pi2_statistics_entries_are_good(entries, count, &total) || total != pi2_load_le64(bytes + 40)) {
        status = damaged(path, HEADER_BYTES, "impossible layers");
    } else if (!pi2_statistics_columns_are_good(column_ids, columns)) {
        status = damaged(path, (uint64_t)(ids - bytes), "impossible columns");
    } else {
        status = pi2_neuron_statistics_make(entries, count, column_ids, columns, statistics);
    }
    free(entries);
    return status;
}

static void read_samples(const uint8_t *bytes, pi2_neuron_statistics *statistics) {
    const uint8_t *number = bytes + columns_begin(statistics->entry_count, statistics->text_count, 0);
    statistics->sample_count = pi2_load_le32(bytes + 52);
    for (uint32_t i = 0; i < statistics->sample_count; i++, number += SAMPLE_BYTES) {
        statistics->samples[i] = pi2_load_le64(number);
    }
}

static pi2_status read_sums_and_texts(const char *path, const uint8_t *bytes, pi2_neuron_statistics *statistics) {
    const uint32_t count = pi2_load_le32(bytes + 20);
    for (uint32_t i = 0; i < statistics->entry_count; i++) {
        const uint8_t *line = bytes + HEADER_BYTES + (size_t)i * ENTRY_BYTES + 24;
        uint64_t *sums = pi2_neuron_statistics_sums(statistics, &statistics->entries[i]);
        for (int k = 0; k < PI2_STATISTICS_SUMS; k++) sums[k] = pi2_load_le64(line + 8 * k);
    }
    if (count == 0) return PI2_OK;
    statistics->texts = malloc(count * sizeof *statistics->texts);
    if (!statistics->texts) return pi2_fail(PI2_ERR_MEMORY, "%s: no memory for its texts", path);
    statistics->text_count = count;
    const uint8_t *line = bytes + columns_begin(statistics->entry_count, 0, 0);
    for (uint32_t i = 0; i < count; i++, line += TEXT_BYTES) {
        statistics->texts[i] = (pi2_statistics_text){ .bytes = pi2_load_le64(line), .hash = pi2_load_le64(line + 8),
                                                      .token_count = pi2_load_le64(line + 16),
                                                      .end = pi2_load_le64(line + 24),
                                                      .parts = pi2_load_le64(line + 32),
                                                      .part_count = pi2_load_le32(line + 40) };
    }
    return PI2_OK;
}

static pi2_status read_bytes(const char *path, const uint8_t *bytes, size_t length, pi2_neuron_statistics *statistics) {
    PI2_TRY(check_whole(path, bytes, length));
    PI2_TRY(read_entries(path, bytes, pi2_load_le32(bytes + 12), statistics));
    statistics->model_hash = pi2_load_le64(bytes + 24);
    statistics->token_count = pi2_load_le64(bytes + 32);
    statistics->chunk_tokens = pi2_load_le32(bytes + 48);
    memcpy(statistics->activation, bytes + 56, PI2_STATISTICS_ACTIVATION_BYTES);
    PI2_TRY(read_sums_and_texts(path, bytes, statistics));
    read_samples(bytes, statistics);
    statistics->checksum = pi2_load_le64(bytes + length - ENDING_BYTES);
    for (uint32_t c = 0; c < statistics->column_count; c++) {
        const uint8_t *column = bytes + place_of(statistics, c, 0);
        for (uint64_t i = 0; i < statistics->neuron_total; i++) {
            statistics->columns[c][i] = pi2_load_le32(column + 4 * i);
        }
    }
    return check_numbers(statistics, path, PI2_ERR_FORMAT);
}

pi2_status pi2_neuron_statistics_read(const char *path, pi2_neuron_statistics *statistics_out) {
    uint8_t *bytes = NULL;
    size_t length = 0;
    *statistics_out = (pi2_neuron_statistics){ 0 };
    PI2_TRY(pi2_whole_file_read(path, "a file of statistics", UINT32_MAX, &bytes, &length));
    const pi2_status status = read_bytes(path, bytes, length, statistics_out);
    free(bytes);
    if (status != PI2_OK) pi2_neuron_statistics_free(statistics_out);
    return status;
}
