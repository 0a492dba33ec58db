/* gguf_writer.h: builds the header of a GGUF v3 file in memory; the caller writes the data. */
#ifndef PI2_FILE_FORMATS_GGUF_WRITER_H
#define PI2_FILE_FORMATS_GGUF_WRITER_H

#include "file_formats/gguf.h"

/**
 * A header is built in order: metadata, then tensors, then pi2_gguf_writer_finish().
 * An error is kept: later calls do nothing and finish() reports it, so callers need not check
 * each call. Threads: a writer belongs to one thread.
 */
typedef struct pi2_gguf_writer pi2_gguf_writer;

/** alignment: a power of two from 8 to 1048576; written as general.alignment when it is not the
 *  default 32. Errors  INVALID, MEMORY */
pi2_status pi2_gguf_writer_open(uint32_t alignment, pi2_gguf_writer **writer_out);
void pi2_gguf_writer_close(pi2_gguf_writer *writer); /* NULL is fine */

void pi2_gguf_writer_u32(pi2_gguf_writer *writer, const char *key, uint32_t value);
void pi2_gguf_writer_u64(pi2_gguf_writer *writer, const char *key, uint64_t value);
void pi2_gguf_writer_f32(pi2_gguf_writer *writer, const char *key, float value);
void pi2_gguf_writer_bool(pi2_gguf_writer *writer, const char *key, bool value);
void pi2_gguf_writer_string(pi2_gguf_writer *writer, const char *key, const char *text);

/** Bytes of the header so far: a number just written ends there (for pi2_gguf_writer_patch). */
size_t pi2_gguf_writer_position(const pi2_gguf_writer *writer);

/** A whole entry of another file, such as pi2_gguf_entry_at() gives. general.alignment is left
 *  out: it is the writer's. */
void pi2_gguf_writer_entry(pi2_gguf_writer *writer, const pi2_gguf_entry *entry);

/**
 * An array of numbers: `count` elements, little-endian, of pi2_gguf_value_bytes(element_type).
 * data may be NULL: zeros, to be filled in with pi2_gguf_writer_patch() once they are known.
 * Returns where the data begin in the header.
 */
size_t pi2_gguf_writer_array(pi2_gguf_writer *writer, const char *key, uint32_t element_type,
                             uint64_t count, const void *data);
void pi2_gguf_writer_string_array(pi2_gguf_writer *writer, const char *key,
                                  const char *const *texts, size_t count);
void pi2_gguf_writer_patch(pi2_gguf_writer *writer, size_t offset, const void *data,
                           size_t bytes);

/**
 * Adds a tensor; its bytes follow from type and dimensions. Returns its offset from the start
 * of the data: offsets rise in the order of the calls, each a multiple of the alignment.
 */
uint64_t pi2_gguf_writer_tensor(pi2_gguf_writer *writer, const char *name, uint32_t type,
                                uint32_t dimension_count, const uint64_t *dimensions);

/**
 * Ends the header, padding included: `bytes` of it, then the data. The memory is the writer's;
 * it does not move any more, and patches still reach it.
 * Errors  INVALID (an impossible tensor or array), MEMORY. A key given twice is not noticed.
 */
pi2_status pi2_gguf_writer_finish(pi2_gguf_writer *writer, const uint8_t **header_out,
                                  size_t *bytes_out);

/** Bytes of the data, padding after each tensor included: the file's size less the header's. */
uint64_t pi2_gguf_writer_data_bytes(const pi2_gguf_writer *writer);

#endif
