/* text_source.h: a text that is read piece by piece, so that a long one takes no memory. */
#ifndef PI2_CLI_TEXT_SOURCE_H
#define PI2_CLI_TEXT_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "powerinfer2/status.h"

typedef struct pi2_cli_text_source {
    FILE *stream;      /* NULL: not open */
    const char *path;
    bool is_exact;     /* every byte counts: the newline at the end, and a byte-order mark at the beginning */
    bool has_newline;  /* one was read and is handed on only when something follows it */
    bool has_text;     /* something was read */
    int code;          /* PI2_EXIT_OK, or the exit code of a read that failed, after an error line, or of a signal */
} pi2_cli_text_source;

/** Opens a file, "-": stdin. Returns PI2_EXIT_OK, or an exit code after an error line. */
int pi2_cli_text_open(const char *path, pi2_cli_text_source *source);
void pi2_cli_text_close(pi2_cli_text_source *source);
/** Takes the byte-order mark of UTF-8 away from the beginning of a file's text: it says how the file is written, and
 *  no model was trained to be greeted by one. That of UTF-16 is refused: whoever reads on measures or answers noise.
 *  Returns PI2_EXIT_OK, or PI2_EXIT_BAD_FILE after an error line. */
int pi2_cli_drop_mark(const char *path, char *text, size_t *length);
/** The text, less a byte-order mark at its beginning and one newline at its end unless it is exact. A
 *  pi2_text_reader; user: the source. Errors IO, INTERRUPTED (a signal), FORMAT (UTF-16) set source->code. */
pi2_status pi2_cli_text_read(void *user, char *bytes, size_t capacity, size_t *length_out);

#endif
