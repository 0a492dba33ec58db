/* uncached_file.h: reads of a file that leave nothing in the page cache. */
#ifndef PI2_BASE_UNCACHED_FILE_H
#define PI2_BASE_UNCACHED_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

enum { PI2_UNCACHED_ALIGNMENT = 4096, PI2_UNCACHED_SLACK = 2 * PI2_UNCACHED_ALIGNMENT };

/** Uses O_DIRECT where the file system has it; elsewhere what was read is dropped behind. */
typedef struct pi2_uncached_file {
    int file;          /* -1 while closed */
    bool is_direct;
    const char *path;  /* the caller's, for error texts */
    uint64_t bytes_read;
} pi2_uncached_file;

/** path must live as long as the file is open. Errors  IO. Threads: one at a time. */
pi2_status pi2_uncached_file_open(const char *path, pi2_uncached_file *file_out);
void pi2_uncached_file_close(pi2_uncached_file *file);

/**
 * Reads `bytes` bytes at any offset. buffer: aligned to PI2_UNCACHED_ALIGNMENT, with room for
 * bytes + PI2_UNCACHED_SLACK. *data_out points at the first wanted byte inside it.
 * Errors  IO (file, byte offset, reason; also when the file ends too early)
 */
pi2_status pi2_uncached_file_read(pi2_uncached_file *file, uint64_t offset, size_t bytes,
                                  void *buffer, const uint8_t **data_out);

#endif
