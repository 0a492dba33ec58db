/* whole_file.h: a regular file, read into memory at once: for the small files beside a model. */
#ifndef PI2_BASE_WHOLE_FILE_H
#define PI2_BASE_WHOLE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "powerinfer2/status.h"

/**
 * Opens a file whose bytes can be read again, and tells how many it has; fclose() it.
 * Errors  as below
 */
pi2_status pi2_regular_file_open(const char *path, const char *what, uint64_t most_bytes, FILE **file_out,
                                 uint64_t *length_out);

/** FORMAT where a text begins with the byte-order mark of UTF-16: as UTF-8, which texts are in, it is noise. */
pi2_status pi2_text_refuse_utf16(const char *path, const void *bytes, size_t length);

/** pi2_regular_file_open() of a text of any length, which may not be UTF-16. */
pi2_status pi2_text_file_open(const char *path, const char *what, FILE **file_out, uint64_t *length_out);

/**
 * what       in   what the file is, with its article, for error texts: "a trace"
 * bytes_out  out  malloc'd; NULL on any error
 * Errors  IO (path, reason; a folder, pipe or device), UNSUPPORTED (more than most_bytes), MEMORY
 */
pi2_status pi2_whole_file_read(const char *path, const char *what, size_t most_bytes, uint8_t **bytes_out,
                               size_t *length_out);

/**
 * XXH3 64 of an open file's bytes, from where it stands to its end.
 * path   in   for error texts
 * check  in   asked with `user` before each piece whether to go on: what it returns but PI2_OK ends it; NULL: nobody is
 * Errors  IO, MEMORY
 */
pi2_status pi2_file_hash(FILE *file, const char *path, pi2_status (*check)(void *user), void *user,
                         uint64_t *bytes_out, uint64_t *hash_out);

/**
 * Reads a part of an open file, for headers and for what says whose a file is: weights are read by src/store.
 * path     in   for error texts
 * Errors  IO (path, byte offset, reason; also when the file ends too early)
 */
pi2_status pi2_file_read_at(int file, const char *path, uint64_t offset, size_t bytes, void *to);

#endif
