/*
 * logits_file.h: what a reference says of each token of a text, in llama-perplexity's own file (docs/evaluation.md), so
 * that either program reads what the other wrote.
 */
#ifndef POWERINFER2_LOGITS_FILE_H
#define POWERINFER2_LOGITS_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- writing ---- */

typedef struct pi2_logits_writer pi2_logits_writer;

/**
 * Begins a file: tokens of the text first, then what is said of them. It has its name only when it is whole.
 * inputs  in  files that the same command reads, NULL at the end: none of them is written over; NULL: none
 * Errors  INVALID (what lies there and may not be replaced; a pipe), IO, MEMORY
 */
PI2_API pi2_status pi2_logits_writer_create(const char *path, const char *const *inputs, uint32_t chunk_tokens,
                                            uint32_t vocabulary_size, pi2_logits_writer **writer_out);
PI2_API pi2_status pi2_logits_writer_add_tokens(pi2_logits_writer *writer, const int32_t *tokens, size_t count);
/** No more tokens: so many chunks are scored, the tokens behind them are forgotten. bytes_out: of the whole file.
 *  Errors  INVALID (none, or more than there are), IO */
PI2_API pi2_status pi2_logits_writer_end_tokens(pi2_logits_writer *writer, uint64_t chunk_count, uint64_t *bytes_out);
/** What is said of the next token that is scored (scoring.h). logits: [vocabulary_size]. Errors  IO, INVALID (all are
 *  there) */
PI2_API pi2_status pi2_logits_writer_add(pi2_logits_writer *writer, const float *logits);
/** Ends and frees it, also when that fails. NULL is fine. Errors  IO, INVALID (tokens without logits) */
PI2_API pi2_status pi2_logits_writer_finish(pi2_logits_writer *writer);
/** Leaves nothing behind. NULL is fine. */
PI2_API void pi2_logits_writer_discard(pi2_logits_writer *writer);

/* ---- reading ---- */

typedef struct pi2_logits_file pi2_logits_file;

typedef struct pi2_logits_file_info {
    uint32_t chunk_tokens, vocabulary_size, chunk_count;
    uint64_t scored; /* tokens, of all chunks */
} pi2_logits_file_info;

/** Opens a file and checks its numbers against each other and its length. Errors  FORMAT, UNSUPPORTED, IO, MEMORY */
PI2_API pi2_status pi2_logits_file_open(const char *path, pi2_logits_file **file_out);
PI2_API void pi2_logits_file_close(pi2_logits_file *file);
PI2_API const pi2_logits_file_info *pi2_logits_file_get_info(const pi2_logits_file *file);
/** The text's tokens of a chunk, [chunk_tokens]. Errors  FORMAT (a token that is not in the vocabulary), IO */
PI2_API pi2_status pi2_logits_file_tokens(pi2_logits_file *file, uint32_t chunk, int32_t *tokens_out);
/**
 * The logarithms of the probabilities, [vocabulary_size], that the reference gave for scored token `index` of a chunk.
 * Errors  FORMAT (they are no probabilities: byte offset), IO
 */
PI2_API pi2_status pi2_logits_file_read(pi2_logits_file *file, uint32_t chunk, uint32_t index,
                                        float *log_probabilities_out);

#ifdef __cplusplus
}
#endif
#endif
