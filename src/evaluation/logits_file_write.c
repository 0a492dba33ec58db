/* logits_file_write.c: tokens as they come, then the header above them, then what is said of each. */
#define _DEFAULT_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/little_endian.h"
#include "base/output_file.h"
#include "evaluation/logits_layout.h"
#include "powerinfer2/logits_file.h"
#include "powerinfer2/scoring.h"

enum { PIECE_VALUES = 2048 };
static const uint64_t settle_bytes = 16 << 20;

struct pi2_logits_writer {
    pi2_output_file file;
    uint32_t chunk_tokens, vocabulary;
    uint64_t token_count;
    uint64_t rows_left;    /* of the tokens that are scored */
    uint64_t unsettled;    /* bytes that may be in the page cache */
};

static bool is_logits_file(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return pi2_logits_file_is(head, count);
}

static const pi2_output_kind kind = { .what = "a file of logits", .recognises = is_logits_file };

pi2_status pi2_logits_writer_create(const char *path, const char *const *inputs, uint32_t chunk_tokens,
                                    uint32_t vocabulary_size, pi2_logits_writer **writer_out) {
    static const uint8_t no_header[PI2_LOGITS_HEADER_BYTES];
    *writer_out = NULL;
    if (chunk_tokens < 4 || chunk_tokens > PI2_LOGITS_MOST_CONTEXT || vocabulary_size == 0 ||
        vocabulary_size > PI2_LOGITS_MOST_VOCABULARY) {
        return pi2_fail(PI2_ERR_INVALID, "%s: no file of logits has chunks of %u tokens and %u logits", path,
                        chunk_tokens, vocabulary_size);
    }
    pi2_logits_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return pi2_fail(PI2_ERR_MEMORY, "no memory for a file of logits");
    const pi2_output_request request = { .path = path, .kind = &kind, .inputs = inputs };
    const pi2_status status = pi2_output_file_open(&writer->file, &request);
    if (status != PI2_OK) {
        free(writer);
        return status;
    }
    writer->chunk_tokens = chunk_tokens;
    writer->vocabulary = vocabulary_size;
    pi2_output_file_write(&writer->file, no_header, sizeof no_header);
    *writer_out = writer;
    return PI2_OK;
}

static pi2_status fail_write(const pi2_logits_writer *writer, int reason) {
    return pi2_fail(PI2_ERR_IO, "cannot write %s: %s", writer->file.place.path, strerror(reason));
}

pi2_status pi2_logits_writer_add_tokens(pi2_logits_writer *writer, const int32_t *tokens, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[4];
        pi2_store_le32(bytes, (uint32_t)tokens[i]);
        pi2_output_file_write(&writer->file, bytes, sizeof bytes);
    }
    writer->token_count += count;
    return writer->file.error_number ? fail_write(writer, writer->file.error_number) : PI2_OK;
}

pi2_status pi2_logits_writer_end_tokens(pi2_logits_writer *writer, uint64_t chunk_count, uint64_t *bytes_out) {
    uint8_t header[PI2_LOGITS_HEADER_BYTES] = "_logits_";
    if (chunk_count == 0 || chunk_count > INT32_MAX || chunk_count > writer->token_count / writer->chunk_tokens) {
        return pi2_fail(PI2_ERR_INVALID, "%s: %llu tokens have no %llu chunks of %u", writer->file.place.path,
                        (unsigned long long)writer->token_count, (unsigned long long)chunk_count, writer->chunk_tokens);
    }
    pi2_store_le32(header + 8, writer->chunk_tokens);
    pi2_store_le32(header + 12, writer->vocabulary);
    pi2_store_le32(header + 16, (uint32_t)chunk_count);
    *bytes_out = pi2_logits_file_bytes(writer->chunk_tokens, writer->vocabulary, chunk_count);
    writer->rows_left = chunk_count * pi2_scored_tokens(writer->chunk_tokens);
    const uint64_t rows_begin = *bytes_out - writer->rows_left * pi2_logits_row_bytes(writer->vocabulary);
    if (fseeko(writer->file.stream, 0, SEEK_SET) != 0) return fail_write(writer, errno);
    pi2_output_file_write(&writer->file, header, sizeof header);
    if (fseeko(writer->file.stream, (off_t)rows_begin, SEEK_SET) != 0) return fail_write(writer, errno);
    return PI2_OK;
}

/** The nearest of the levels between the least logit that is told apart and the largest. */
static uint32_t level_of(float logit, float least, float levels_per_logit) {
    if (!(logit > least)) return 0;
    const float level = levels_per_logit * (logit - least) + 0.5f;
    return level < (float)PI2_LOGITS_LEVELS ? (uint32_t)level : PI2_LOGITS_LEVELS;
}

static void write_levels(pi2_logits_writer *writer, const float *logits, float least, float levels_per_logit) {
    uint8_t piece[2 * PIECE_VALUES + 2];
    for (uint32_t done = 0; done < writer->vocabulary;) {
        const uint32_t left = writer->vocabulary - done, count = left < PIECE_VALUES ? left : PIECE_VALUES;
        for (uint32_t i = 0; i < count; i++) {
            pi2_store_le(piece + 2 * i, 2, level_of(logits[done + i], least, levels_per_logit));
        }
        done += count;
        const bool is_odd_end = done == writer->vocabulary && done % 2;
        if (is_odd_end) pi2_store_le(piece + 2 * count, 2, 0);
        pi2_output_file_write(&writer->file, piece, 2 * (size_t)count + (is_odd_end ? 2 : 0));
    }
}

/** What was written goes to the disk and leaves the page cache, which counts as this process's memory. */
static pi2_status settle(pi2_logits_writer *writer, uint64_t bytes) {
    writer->unsettled += bytes;
    if (writer->file.error_number) return fail_write(writer, writer->file.error_number);
    if (writer->unsettled < settle_bytes) return PI2_OK;
    writer->unsettled = 0;
    if (fflush(writer->file.stream) != 0 || fdatasync(fileno(writer->file.stream)) != 0) {
        return fail_write(writer, errno);
    }
    (void)posix_fadvise(fileno(writer->file.stream), 0, 0, POSIX_FADV_DONTNEED);
    return PI2_OK;
}

pi2_status pi2_logits_writer_add(pi2_logits_writer *writer, const float *logits) {
    uint8_t head[PI2_LOGITS_ROW_HEAD_BYTES];
    float largest = logits[0], least = logits[0];
    if (writer->rows_left == 0) {
        return pi2_fail(PI2_ERR_INVALID, "%s: there are logits of more tokens than the text has: was it changed while "
                        "it was read?", writer->file.place.path);
    }
    for (uint32_t i = 1; i < writer->vocabulary; i++) {
        largest = logits[i] > largest ? logits[i] : largest;
        least = logits[i] < least ? logits[i] : least;
    }
    if (least < largest - PI2_LOGITS_DEPTH) least = largest - PI2_LOGITS_DEPTH;
    const float scale = (largest - least) / (float)PI2_LOGITS_LEVELS;
    int32_t likeliest = 0;
    while (logits[likeliest] < largest) likeliest++;
    const float least_logarithm =
        (float)((double)(least - largest) - pi2_surprise(logits, writer->vocabulary, likeliest));
    uint32_t bits[2];
    memcpy(&bits[0], &scale, 4);
    memcpy(&bits[1], &least_logarithm, 4);
    pi2_store_le32(head, bits[0]);
    pi2_store_le32(head + 4, bits[1]);
    pi2_output_file_write(&writer->file, head, sizeof head);
    write_levels(writer, logits, least, scale > 0 ? 1 / scale : 0);
    writer->rows_left--;
    return settle(writer, pi2_logits_row_bytes(writer->vocabulary));
}

pi2_status pi2_logits_writer_finish(pi2_logits_writer *writer) {
    if (!writer) return PI2_OK;
    pi2_status status = PI2_OK;
    if (writer->rows_left) {
        status = pi2_fail(PI2_ERR_INVALID, "%s: the logits of %llu tokens are missing: was the text changed while it "
                          "was read?", writer->file.place.path, (unsigned long long)writer->rows_left);
        pi2_output_file_discard(&writer->file);
    } else {
        status = pi2_output_file_finish(&writer->file);
    }
    free(writer);
    return status;
}

void pi2_logits_writer_discard(pi2_logits_writer *writer) {
    if (!writer) return;
    pi2_output_file_discard(&writer->file);
    free(writer);
}
