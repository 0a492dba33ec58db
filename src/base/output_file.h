/*
 * output_file.h: a file that we write as a whole: under a temporary name beside its place, which it
 * takes when it is complete. A pipe or a device is written directly.
 */
#ifndef PI2_BASE_OUTPUT_FILE_H
#define PI2_BASE_OUTPUT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/fail.h"

typedef struct pi2_output_file {
    FILE *stream;              /* NULL: not open */
    int error_number;          /* of the first write that failed */
    bool is_direct;            /* no temporary name */
    char path[1024], temporary_path[1040];
} pi2_output_file;

/** Whether both name one place for a file, so that one would replace the other; pipes and devices may be shared. */
bool pi2_output_file_same(const char *path, const char *other);
/** Errors  IO (path, reason), INVALID (a path that is too long). The file is then not open. */
pi2_status pi2_output_file_open(pi2_output_file *file, const char *path);
/** Writes text, or bytes. A failure is kept, and told by pi2_output_file_finish(). */
void pi2_output_file_write(pi2_output_file *file, const void *bytes, size_t count);
void pi2_output_file_print(pi2_output_file *file, const char *format, ...) PI2_PRINTF_LIKE(2, 3);
/** Ends the file and gives it its name. Errors  IO (path, reason): nothing is left behind. */
pi2_status pi2_output_file_finish(pi2_output_file *file);
/** Closes and removes what was not finished. */
void pi2_output_file_discard(pi2_output_file *file);

#endif
