/* logits_file.c: reads a file of logits, of which every byte is untrusted. */
#define _DEFAULT_SOURCE
#include "powerinfer2/logits_file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/whole_file.h"
#include "evaluation/logits_layout.h"
#include "powerinfer2/scoring.h"

struct pi2_logits_file {
    pi2_logits_file_info info;
    FILE *stream;
    char *path;
    uint64_t row_bytes, rows_begin;
    uint8_t *row;          /* [row_bytes] */
};

static const char magic[] = "_logits_";
enum { MAGIC_BYTES = sizeof magic - 1 };

bool pi2_logits_file_is(const uint8_t *head, size_t count) {
    return count >= MAGIC_BYTES && memcmp(head, magic, MAGIC_BYTES) == 0;
}

uint64_t pi2_logits_row_bytes(uint32_t vocabulary_size) {
    return PI2_LOGITS_ROW_HEAD_BYTES + 4 * (((uint64_t)vocabulary_size + 1) / 2);
}

/* Below 2^31 * (2^2 * 2^26 + 2^26 * 2^26), which is more than 64 bits hold: the caller bounds it by a file's length. */
uint64_t pi2_logits_file_bytes(uint32_t chunk_tokens, uint32_t vocabulary_size, uint64_t chunk_count) {
    const uint64_t chunk_bytes =
        4 * (uint64_t)chunk_tokens + pi2_scored_tokens(chunk_tokens) * pi2_logits_row_bytes(vocabulary_size);
    if (chunk_count > (UINT64_MAX - PI2_LOGITS_HEADER_BYTES) / chunk_bytes) return UINT64_MAX;
    return PI2_LOGITS_HEADER_BYTES + chunk_count * chunk_bytes;
}

static pi2_status read_bytes(pi2_logits_file *file, uint64_t offset, void *bytes, size_t count) {
    if (ftello(file->stream) != (off_t)offset && fseeko(file->stream, (off_t)offset, SEEK_SET) != 0) {
        return pi2_fail(PI2_ERR_IO, "%s: %s", file->path, strerror(errno));
    }
    if (fread(bytes, 1, count, file->stream) == count) return PI2_OK;
    return pi2_fail(PI2_ERR_IO, "%s: cannot read %zu bytes at byte %llu", file->path, count,
                    (unsigned long long)offset);
}

static pi2_status check_header(pi2_logits_file *file, const uint8_t *header, uint64_t length) {
    pi2_logits_file_info *info = &file->info;
    info->chunk_tokens = pi2_load_le32(header + 8);
    info->vocabulary_size = pi2_load_le32(header + 12);
    info->chunk_count = pi2_load_le32(header + 16);
    if (info->chunk_tokens < 4 || info->chunk_tokens > PI2_LOGITS_MOST_CONTEXT || info->vocabulary_size == 0 ||
        info->vocabulary_size > PI2_LOGITS_MOST_VOCABULARY || info->chunk_count == 0 ||
        info->chunk_count > INT32_MAX) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %u chunks of %u tokens with %u logits (bytes 8 to 20) cannot be: the file "
                        "is damaged, make it again", file->path, info->chunk_count, info->chunk_tokens,
                        info->vocabulary_size);
    }
    const uint64_t wanted = pi2_logits_file_bytes(info->chunk_tokens, info->vocabulary_size, info->chunk_count);
    if (wanted != length) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %llu bytes, but %u chunks of %u tokens with %u logits have %llu: %s, make "
                        "it again", file->path, (unsigned long long)length, info->chunk_count, info->chunk_tokens,
                        info->vocabulary_size, (unsigned long long)wanted,
                        length < wanted ? "it was not written to its end" : "it is damaged");
    }
    info->scored = (uint64_t)info->chunk_count * pi2_scored_tokens(info->chunk_tokens);
    file->row_bytes = pi2_logits_row_bytes(info->vocabulary_size);
    file->rows_begin = length - info->scored * file->row_bytes;
    file->row = malloc((size_t)file->row_bytes);
    return file->row ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for %u logits", info->vocabulary_size);
}

pi2_status pi2_logits_file_open(const char *path, pi2_logits_file **file_out) {
    uint8_t header[PI2_LOGITS_HEADER_BYTES];
    uint64_t length = 0;
    *file_out = NULL;
    pi2_logits_file *file = calloc(1, sizeof *file);
    if (file) file->path = malloc(strlen(path) + 1);
    if (!file || !file->path) {
        free(file);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a file of logits");
    }
    memcpy(file->path, path, strlen(path) + 1);
    pi2_status status = pi2_regular_file_open(path, "a file of logits", INT64_MAX, &file->stream, &length);
    if (status == PI2_OK && length < sizeof header) {
        status = pi2_fail(PI2_ERR_FORMAT, "%s: %llu bytes are no file of logits: make one with 'powerinfer2 perplexity "
                          "--kl-divergence-base'", path, (unsigned long long)length);
    }
    if (status == PI2_OK) status = read_bytes(file, 0, header, sizeof header);
    if (status == PI2_OK && !pi2_logits_file_is(header, sizeof header)) {
        status = pi2_fail(PI2_ERR_FORMAT, "%s: this is no file of logits (its first 8 bytes are not \"_logits_\"): "
                          "make one with 'powerinfer2 perplexity --kl-divergence-base'", path);
    }
    if (status == PI2_OK) status = check_header(file, header, length);
    if (status != PI2_OK) {
        pi2_logits_file_close(file);
        return status;
    }
    *file_out = file;
    return PI2_OK;
}

void pi2_logits_file_close(pi2_logits_file *file) {
    if (!file) return;
    if (file->stream) (void)fclose(file->stream);
    free(file->row);
    free(file->path);
    free(file);
}

const pi2_logits_file_info *pi2_logits_file_get_info(const pi2_logits_file *file) { return &file->info; }

/* Also gives the pages that were read back: they count as this process's memory. */
pi2_status pi2_logits_file_tokens(pi2_logits_file *file, uint32_t chunk, int32_t *tokens_out) {
    const uint32_t count = file->info.chunk_tokens;
    const uint64_t begin = PI2_LOGITS_HEADER_BYTES + 4 * (uint64_t)chunk * count;
    (void)posix_fadvise(fileno(file->stream), 0, 0, POSIX_FADV_DONTNEED);
    PI2_TRY(read_bytes(file, begin, tokens_out, 4 * (size_t)count));
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t token = pi2_load_le32(&tokens_out[i]);
        if (token >= file->info.vocabulary_size) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: token %u at byte %llu is not one of the vocabulary's %u: the file is "
                            "damaged, make it again", file->path, token, (unsigned long long)(begin + 4 * (uint64_t)i),
                            file->info.vocabulary_size);
        }
        tokens_out[i] = (int32_t)token;
    }
    return PI2_OK;
}

pi2_status pi2_logits_file_read(pi2_logits_file *file, uint32_t chunk, uint32_t index, float *log_probabilities_out) {
    const uint64_t row = (uint64_t)chunk * pi2_scored_tokens(file->info.chunk_tokens) + index;
    const uint64_t begin = file->rows_begin + row * file->row_bytes;
    PI2_TRY(read_bytes(file, begin, file->row, (size_t)file->row_bytes));
    const float scale = pi2_load_le_f32(file->row), least = pi2_load_le_f32(file->row + 4);
    double sum = 0.0;
    if (scale >= 0 && isfinite(scale) && isfinite(least)) {
        for (uint32_t i = 0; i < file->info.vocabulary_size; i++) {
            const uint16_t level = pi2_load_le16(file->row + PI2_LOGITS_ROW_HEAD_BYTES + 2 * (size_t)i);
            log_probabilities_out[i] = scale * (float)level + least;
            sum += (double)expf(log_probabilities_out[i]);
        }
    }
    /* Those that are not told apart are taken for e^-16 of the likeliest: of 2^18 tokens 3 % at most. */
    if (sum > 0.9 && sum < 1.0 + 1.2e-7 * file->info.vocabulary_size + 0.01) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: what is at byte %llu are no probabilities (their sum is %g): the file is "
                    "damaged, make it again", file->path, (unsigned long long)begin, sum);
}
