/* state_file.c: header, sections and checksums of a file of states. */
#define _DEFAULT_SOURCE
#include "engine/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/whole_file.h"

static const char magic[] = "PI2STATE";
enum { MAGIC_BYTES = sizeof magic - 1, CHECKSUM_BYTES = 8, SETTLE_BYTES = 8 << 20 };
enum { HAS_LOGITS = 1, HAS_STATES = 2, HAS_SAVED = 4, SEEN_ONLY = 8, KNOWN_SECTIONS = 15 };

/* Where each number lies. */
enum {
    AT_VERSION = 8, AT_SECTIONS = 12, AT_WEIGHTS = 16, AT_STATES = 24, AT_BODY = 32, AT_FIRST = 40, AT_POSITION = 44,
    AT_STATE_POSITION = 48, AT_SAVED_POSITION = 52, AT_VOCABULARY = 56, AT_NOTE = 60, AT_ARITHMETIC = 64,
    AT_CHECKSUM = PI2_STATE_HEADER_BYTES - CHECKSUM_BYTES
};

bool pi2_state_file_is(const uint8_t *head, size_t count) {
    return count >= MAGIC_BYTES && memcmp(head, magic, MAGIC_BYTES) == 0;
}

static bool recognises(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return pi2_state_file_is(head, count);
}

static const pi2_output_kind kind = { .what = "a saved session", .recognises = recognises, .is_private = true };

/* ---- writing ---- */

static void write_header(const pi2_state_header *header, uint8_t bytes[PI2_STATE_HEADER_BYTES]) {
    const uint32_t sections = (header->has_logits ? HAS_LOGITS : 0u) |
                              (header->state_position != PI2_NO_POSITION ? HAS_STATES : 0u) |
                              (header->saved_position != PI2_NO_POSITION ? HAS_SAVED : 0u) |
                              (header->seen_only ? SEEN_ONLY : 0u);
    memset(bytes, 0, PI2_STATE_HEADER_BYTES);
    memcpy(bytes, magic, MAGIC_BYTES);
    pi2_store_le32(bytes + AT_VERSION, PI2_STATE_VERSION);
    pi2_store_le32(bytes + AT_SECTIONS, sections);
    pi2_store_le64(bytes + AT_WEIGHTS, header->weights_hash);
    pi2_store_le64(bytes + AT_STATES, header->states_hash);
    pi2_store_le64(bytes + AT_BODY, header->body_bytes);
    pi2_store_le32(bytes + AT_FIRST, header->first);
    pi2_store_le32(bytes + AT_POSITION, header->position);
    pi2_store_le32(bytes + AT_STATE_POSITION, header->state_position);
    pi2_store_le32(bytes + AT_SAVED_POSITION, header->saved_position);
    pi2_store_le32(bytes + AT_VOCABULARY, header->vocabulary_size);
    pi2_store_le32(bytes + AT_NOTE, header->note_bytes);
    memcpy(bytes + AT_ARITHMETIC, header->arithmetic, strlen(header->arithmetic));
    pi2_store_le64(bytes + AT_CHECKSUM, XXH3_64bits(bytes, AT_CHECKSUM));
}

pi2_status pi2_state_writer_open(pi2_state_writer *writer, const char *path, const pi2_state_header *header) {
    uint8_t bytes[PI2_STATE_HEADER_BYTES];
    const pi2_output_request request = { .path = path, .kind = &kind };
    *writer = (pi2_state_writer){ .hash = XXH3_createState() };
    if (!writer->hash) return pi2_fail(PI2_ERR_MEMORY, "no memory to write %s", path);
    const pi2_status status = pi2_output_file_open(&writer->file, &request);
    if (status != PI2_OK) {
        (void)XXH3_freeState(writer->hash);
        return status;
    }
    write_header(header, bytes);
    pi2_output_file_write(&writer->file, bytes, sizeof bytes);
    (void)XXH3_64bits_reset(writer->hash);
    return PI2_OK;
}

static pi2_status fail_write(const pi2_state_writer *writer) {
    return pi2_fail(PI2_ERR_IO, "cannot write %s: %s", writer->file.place.path, strerror(writer->file.error_number));
}

/* What was written goes to the disk and leaves the page cache, which counts as this process's memory. */
static void settle(pi2_state_writer *writer) {
    const int file = fileno(writer->file.stream);
    writer->unsettled = 0;
    if (writer->file.error_number) return;
    if (fflush(writer->file.stream) != 0 || fdatasync(file) != 0) writer->file.error_number = errno;
    (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
}

pi2_status pi2_state_writer_put(pi2_state_writer *writer, const void *bytes, size_t count) {
    (void)XXH3_64bits_update(writer->hash, bytes, count);
    pi2_output_file_write(&writer->file, bytes, count);
    writer->unsettled += count;
    if (writer->unsettled >= SETTLE_BYTES) settle(writer);
    return writer->file.error_number ? fail_write(writer) : PI2_OK;
}

void pi2_state_writer_end(pi2_state_writer *writer) {
    uint8_t checksum[CHECKSUM_BYTES];
    pi2_store_le64(checksum, XXH3_64bits_digest(writer->hash));
    pi2_output_file_write(&writer->file, checksum, sizeof checksum);
    (void)XXH3_64bits_reset(writer->hash);
}

pi2_status pi2_state_writer_close(pi2_state_writer *writer, pi2_status status) {
    (void)XXH3_freeState(writer->hash);
    if (status != PI2_OK) {
        pi2_output_file_discard(&writer->file);
        return status;
    }
    settle(writer);
    return pi2_output_file_finish(&writer->file);
}

/* ---- reading ---- */

static pi2_status fail_damaged(const pi2_state_reader *reader, unsigned at) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: the saved session's header is damaged at byte %u: it cannot be used",
                    reader->path, at);
}

/* What of the header does not fit: the byte where it lies; 0: all fits. */
static unsigned misfit(const pi2_state_header *header, uint32_t sections, uint64_t length) {
    if (sections & ~(uint32_t)KNOWN_SECTIONS) return AT_SECTIONS;
    if (header->position == 0 || header->position > INT32_MAX) return AT_POSITION;
    if (header->first >= header->position || header->first % 16) return AT_FIRST;
    if (((sections & HAS_STATES) != 0) != (header->state_position != PI2_NO_POSITION)) return AT_STATE_POSITION;
    if (header->state_position != PI2_NO_POSITION && header->state_position > header->position) {
        return AT_STATE_POSITION;
    }
    if (((sections & HAS_SAVED) != 0) != (header->saved_position != PI2_NO_POSITION)) return AT_SAVED_POSITION;
    if (header->saved_position != PI2_NO_POSITION && header->saved_position > header->position) {
        return AT_SAVED_POSITION;
    }
    if (header->vocabulary_size == 0 || header->vocabulary_size > INT32_MAX) return AT_VOCABULARY;
    if (header->arithmetic[0] == '\0' || header->arithmetic[sizeof header->arithmetic - 1]) return AT_ARITHMETIC;
    return header->body_bytes == length - PI2_STATE_HEADER_BYTES ? 0 : AT_BODY;
}

static pi2_status read_header(pi2_state_reader *reader, const uint8_t *bytes, uint64_t length) {
    pi2_state_header *header = &reader->header;
    if (!pi2_state_file_is(bytes, PI2_STATE_HEADER_BYTES)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: this is no saved session (its first 8 bytes are not \"%s\")", reader->path,
                        magic);
    }
    const uint32_t version = pi2_load_le32(bytes + AT_VERSION);
    if (version != PI2_STATE_VERSION) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a saved session of version %u, and this program reads version %d: "
                        "save it again", reader->path, version, PI2_STATE_VERSION);
    }
    if (pi2_load_le64(bytes + AT_CHECKSUM) != XXH3_64bits(bytes, AT_CHECKSUM)) {
        return fail_damaged(reader, AT_CHECKSUM);
    }
    header->weights_hash = pi2_load_le64(bytes + AT_WEIGHTS);
    header->states_hash = pi2_load_le64(bytes + AT_STATES);
    header->body_bytes = pi2_load_le64(bytes + AT_BODY);
    header->first = pi2_load_le32(bytes + AT_FIRST);
    header->position = pi2_load_le32(bytes + AT_POSITION);
    header->state_position = pi2_load_le32(bytes + AT_STATE_POSITION);
    header->saved_position = pi2_load_le32(bytes + AT_SAVED_POSITION);
    header->vocabulary_size = pi2_load_le32(bytes + AT_VOCABULARY);
    header->note_bytes = pi2_load_le32(bytes + AT_NOTE);
    memcpy(header->arithmetic, bytes + AT_ARITHMETIC, sizeof header->arithmetic);
    const uint32_t sections = pi2_load_le32(bytes + AT_SECTIONS);
    header->has_logits = (sections & HAS_LOGITS) != 0;
    header->seen_only = (sections & SEEN_ONLY) != 0;
    const unsigned at = misfit(header, sections, length);
    if (at == AT_BODY && header->body_bytes > length - PI2_STATE_HEADER_BYTES) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: the saved session ends at byte %llu, and its header tells of %llu bytes "
                        "more: the file was cut", reader->path, (unsigned long long)length,
                        (unsigned long long)(header->body_bytes - (length - PI2_STATE_HEADER_BYTES)));
    }
    return at ? fail_damaged(reader, at) : PI2_OK;
}

pi2_status pi2_state_reader_open(pi2_state_reader *reader, const char *path) {
    uint8_t bytes[PI2_STATE_HEADER_BYTES];
    uint64_t length = 0;
    *reader = (pi2_state_reader){ .path = path };
    PI2_TRY(pi2_regular_file_open(path, "a saved session", INT64_MAX, &reader->stream, &length));
    reader->hash = XXH3_createState();
    if (!reader->hash) return pi2_fail(PI2_ERR_MEMORY, "no memory to read %s", path);
    (void)XXH3_64bits_reset(reader->hash);
    if (length < sizeof bytes) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %llu bytes are no saved session: the file was cut, or is something else",
                        path, (unsigned long long)length);
    }
    PI2_TRY(pi2_state_reader_get(reader, bytes, sizeof bytes));
    (void)XXH3_64bits_reset(reader->hash);
    reader->section_at = reader->at;
    return read_header(reader, bytes, length);
}

pi2_status pi2_state_reader_get(pi2_state_reader *reader, void *bytes, size_t count) {
    const size_t got = fread(bytes, 1, count, reader->stream);
    if (got != count) {
        const bool failed = ferror(reader->stream) != 0;
        return pi2_fail(PI2_ERR_IO, "%s: cannot read at byte %llu: %s", reader->path,
                        (unsigned long long)(reader->at + got),
                        failed ? strerror(errno) : "the file has become shorter");
    }
    reader->at += count;
    reader->unsettled += count;
    (void)XXH3_64bits_update(reader->hash, bytes, count);
    if (reader->unsettled < SETTLE_BYTES) return PI2_OK;
    reader->unsettled = 0;
    (void)posix_fadvise(fileno(reader->stream), 0, (off_t)reader->at, POSIX_FADV_DONTNEED);
    return PI2_OK;
}

pi2_status pi2_state_reader_end(pi2_state_reader *reader, const char *what) {
    uint8_t checksum[CHECKSUM_BYTES];
    const uint64_t computed = XXH3_64bits_digest(reader->hash), begin = reader->section_at;
    PI2_TRY(pi2_state_reader_get(reader, checksum, sizeof checksum));
    (void)XXH3_64bits_reset(reader->hash);
    reader->section_at = reader->at;
    if (pi2_load_le64(checksum) == computed) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s at byte %llu do not match their checksum: the file is damaged",
                    reader->path, what, (unsigned long long)begin);
}

void pi2_state_reader_close(pi2_state_reader *reader) {
    if (reader->stream) {
        (void)posix_fadvise(fileno(reader->stream), 0, 0, POSIX_FADV_DONTNEED);
        (void)fclose(reader->stream);
    }
    (void)XXH3_freeState(reader->hash);
    *reader = (pi2_state_reader){ .path = NULL };
}
