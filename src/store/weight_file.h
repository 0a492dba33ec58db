/*
 * weight_file.h: a file whose weights are read outside of passes: to load, prepare, verify or compare a model. The same
 * reader as theirs reads (storage/reader.h), so that short reads, failures and their texts are the same; here on the
 * caller's thread, one range after another.
 */
#ifndef PI2_STORE_WEIGHT_FILE_H
#define PI2_STORE_WEIGHT_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"
#include "storage/read_sizes.h"

enum { PI2_WEIGHT_FILE_SLACK = 2 * PI2_READ_ALIGNMENT };

/** Closed when zeroed. */
typedef struct pi2_weight_file {
    struct pi2_reader *reader;
    const char *path;  /* the caller's */
} pi2_weight_file;

/**
 * Does nothing where `path` is what is open; closes another file. path must live as long as the file is open.
 * Errors  IO (file, reason), MEMORY: it is closed. Threads: one at a time.
 */
pi2_status pi2_weight_file_open(pi2_weight_file *file, const char *path);
void pi2_weight_file_close(pi2_weight_file *file);

/**
 * Reads `bytes` bytes at any offset; they do not stay in the page cache. buffer: aligned to PI2_READ_ALIGNMENT, with
 * room for bytes + PI2_WEIGHT_FILE_SLACK. *data_out points at the first wanted byte inside it.
 * Errors  IO (file, byte offset, reason; also when the file ends too early)
 */
pi2_status pi2_weight_file_read(pi2_weight_file *file, uint64_t offset, size_t bytes, void *buffer,
                                const uint8_t **data_out);

#endif
