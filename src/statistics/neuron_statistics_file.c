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
#include "statistics/neuron_statistics_internal.h"

enum { VERSION = 1, HEADER_BYTES = 48, ENTRY_BYTES = 24, ENDING_BYTES = 8, CHUNK_NUMBERS = 4096 };
static const char magic[8] = { 'P', 'I', '2', 'N', 'E', 'U', 'R', 'O' };

/* ---- what the numbers must be ---- */

static uint64_t file_bytes(uint32_t entries, uint32_t columns, uint64_t neurons) {
    return HEADER_BYTES + (uint64_t)entries * ENTRY_BYTES + columns * (4 + 4 * neurons) + ENDING_BYTES;
}

/** Where a number of a column lies in the file. */
static uint64_t place_of(const pi2_neuron_statistics *statistics, uint32_t column, uint64_t number) {
    return HEADER_BYTES + (uint64_t)statistics->entry_count * ENTRY_BYTES + (uint64_t)statistics->column_count * 4 +
           4 * (column * statistics->neuron_total + number);
}

static pi2_status check_column(const pi2_neuron_statistics *statistics, const char *path, uint32_t column,
                               pi2_status error) {
    const uint32_t id = statistics->column_ids[column];
    for (uint32_t e = 0; e < statistics->entry_count; e++) {
        const pi2_statistics_entry *entry = &statistics->entries[e];
        const uint32_t *numbers = statistics->columns[column] + entry->first;
        bool is_good = true;
        if (id == PI2_STATISTICS_ORDER) {
            PI2_TRY(pi2_permutation_check(numbers, entry->neuron_count, &is_good));
        }
        for (uint32_t i = 0; id == PI2_STATISTICS_FIRED && is_good && i < entry->neuron_count; i++) {
            is_good = numbers[i] <= entry->token_count;
        }
        if (is_good) continue;
        return pi2_fail(error, "%s: the %s of layer %" PRIu32 " at byte %" PRIu64 " %s: make the statistics again",
                        path, id == PI2_STATISTICS_ORDER ? "order" : "counts", entry->layer,
                        place_of(statistics, column, entry->first),
                        id == PI2_STATISTICS_ORDER ? "does not name every neuron once" : "are more than its tokens");
    }
    return PI2_OK;
}

static pi2_status check_numbers(const pi2_neuron_statistics *statistics, const char *path, pi2_status error) {
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
    put(writer, bytes, sizeof bytes);
    for (uint32_t i = 0; i < statistics->entry_count; i++) {
        const pi2_statistics_entry *entry = &statistics->entries[i];
        uint8_t line[ENTRY_BYTES] = { 0 };
        pi2_store_le32(line, entry->layer);
        pi2_store_le32(line + 4, entry->expert);
        pi2_store_le32(line + 8, entry->neuron_count);
        pi2_store_le64(line + 16, entry->token_count);
        put(writer, line, sizeof line);
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
    const uint64_t neurons = pi2_load_le64(bytes + 40);
    if (entries > PI2_STATISTICS_MOST_ENTRIES || columns > PI2_STATISTICS_MOST_COLUMNS || neurons > INT32_MAX) {
        return damaged(path, 12, "impossible numbers");
    }
    if (file_bytes(entries, columns, neurons) != length) {
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
    const uint8_t *ids = bytes + HEADER_BYTES + (size_t)count * ENTRY_BYTES;
    uint32_t column_ids[PI2_STATISTICS_MOST_COLUMNS];
    for (uint32_t c = 0; c < columns; c++) column_ids[c] = pi2_load_le32(ids + 4 * c);
    uint64_t total = 0;
    pi2_status status = PI2_OK;
    if (!pi2_statistics_entries_are_good(entries, count, &total) || total != pi2_load_le64(bytes + 40)) {
        status = damaged(path, HEADER_BYTES, "impossible layers");
    } else if (!pi2_statistics_columns_are_good(column_ids, columns)) {
        status = damaged(path, HEADER_BYTES + (uint64_t)count * ENTRY_BYTES, "impossible columns");
    } else {
        status = pi2_neuron_statistics_make(entries, count, column_ids, columns, statistics);
    }
    free(entries);
    return status;
}

static pi2_status read_bytes(const char *path, const uint8_t *bytes, size_t length, pi2_neuron_statistics *statistics) {
    PI2_TRY(check_whole(path, bytes, length));
    PI2_TRY(read_entries(path, bytes, pi2_load_le32(bytes + 12), statistics));
    statistics->model_hash = pi2_load_le64(bytes + 24);
    statistics->token_count = pi2_load_le64(bytes + 32);
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
