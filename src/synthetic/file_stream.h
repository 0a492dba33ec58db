/* file_stream.h: a large file written once, from front to back, past the page cache. */
#ifndef PI2_SYNTHETIC_FILE_STREAM_H
#define PI2_SYNTHETIC_FILE_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/callbacks.h"
#include "powerinfer2/status.h"

typedef struct pi2_file_stream pi2_file_stream;

/**
 * Makes ".<name>.tmp" beside path for a file of `bytes` bytes, after looking whether the disk has
 * that much room.
 * callbacks  in  progress "writing" and cancellation; must outlive the stream
 * Errors  INVALID (path is there and may not be overwritten, or is a folder or device), IO, MEMORY.
 *         Nothing is left then.
 * Threads a stream belongs to one thread.
 */
pi2_status pi2_file_stream_open(const char *path, uint64_t bytes, bool overwrite,
                                const pi2_callbacks *callbacks, pi2_file_stream **stream_out);

/** Appends. Errors  IO (file, reason), INTERRUPTED */
pi2_status pi2_file_stream_write(pi2_file_stream *stream, const void *bytes, size_t count);
/** Bytes appended so far. */
uint64_t pi2_file_stream_position(const pi2_file_stream *stream);

/** Writes what is left, waits for the disk, gives the file its name. Errors  IO */
pi2_status pi2_file_stream_finish(pi2_file_stream *stream);

/** Frees the stream; without a finish that went well it removes the file too. NULL is fine. */
void pi2_file_stream_close(pi2_file_stream *stream);

#endif
