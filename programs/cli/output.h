/*
 * output.h: what the program writes. stdout carries the answer or the one JSON value; progress,
 * reports, warnings and the one error line go to stderr.
 */
#ifndef PI2_CLI_OUTPUT_H
#define PI2_CLI_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "powerinfer2/engine.h"

#if defined(__GNUC__)
#define PI2_CLI_PRINTF(text_index, first_argument) \
    __attribute__((format(printf, text_index, first_argument)))
#else
#define PI2_CLI_PRINTF(text_index, first_argument)
#endif

enum {
    PI2_EXIT_OK = 0, PI2_EXIT_USAGE = 2, PI2_EXIT_BAD_FILE = 3, PI2_EXIT_MEMORY = 4, PI2_EXIT_IO = 5,
    PI2_EXIT_DIVERGENCE = 6, /* an approximate mode costs more than was allowed, or nobody knows */
    PI2_EXIT_INTERRUPTED = 130
};

/** The exit code of a status. */
int pi2_cli_exit_code(pi2_status status);

/** Prints "powerinfer2: " and the line; returns PI2_EXIT_USAGE. Control characters are escaped. */
int pi2_cli_usage_error(const char *format, ...) PI2_CLI_PRINTF(1, 2);
/** The same for a system call that failed: adds its errno's text; returns PI2_EXIT_IO. */
int pi2_cli_io_error(const char *format, ...) PI2_CLI_PRINTF(1, 2);
/** Prints the library's error of a failed call; returns its exit code. */
int pi2_cli_failed(pi2_status status);
/** Prints "powerinfer2: warning: " and the line, unless quiet. */
void pi2_cli_warn(const char *format, ...) PI2_CLI_PRINTF(1, 2);
/** Warns when the text itself began with the token that was put before it. begin: that token; negative: none. */
void pi2_cli_warn_two_beginnings(const int32_t *tokens, size_t count, int32_t begin);
/** Prints a line of a report on stderr, unless quiet. */
void pi2_cli_note(const char *format, ...) PI2_CLI_PRINTF(1, 2);
/** Error lines, warnings and notes go to the stream from now on; NULL: to stderr. For tests. */
void pi2_cli_set_log(FILE *stream);
/** No warnings, notes and progress from now on. */
void pi2_cli_set_quiet(bool quiet);

/** The callbacks that every command gives to the library: log lines and progress on stderr, and
 *  Ctrl-C as cancellation. */
pi2_callbacks pi2_cli_callbacks(void);
/** Shows progress when stderr is a terminal and the work has lasted long enough to notice. */
void pi2_cli_progress(const char *what, uint64_t done, uint64_t total);
/** Shows a line of the command's own making instead, on a terminal: from the first one on the
 *  library's progress is left out. */
void pi2_cli_status_line(const char *format, ...) PI2_CLI_PRINTF(1, 2);
/** Removes a progress line from the terminal. */
void pi2_cli_clear_progress(void);

/** Flushes stdout. Returns PI2_EXIT_OK, or PI2_EXIT_IO with an error line when it was not written. */
int pi2_cli_finish_stdout(void);
/** Prints the value as the one thing on stdout and frees it. NULL (no memory) is an error. */
int pi2_cli_print_json(json_t *value, size_t flags);
/** A JSON string of any bytes: what is no UTF-8 becomes U+FFFD. */
json_t *pi2_cli_json_text(const char *text, size_t length);
/** A finite number, or null. */
json_t *pi2_cli_json_number(double value);
/** Members of an object, each a finite number or null. */
typedef struct pi2_cli_named_number {
    const char *name;
    double value;
} pi2_cli_named_number;
void pi2_cli_json_set_numbers(json_t *object, const pi2_cli_named_number *numbers, size_t count);

/** Writes bytes that came from a file so that a terminal shows them and obeys none of them. */
void pi2_cli_print_safely(FILE *stream, const char *text, size_t length);

/** Prints a line on stdout, so: for lines that hold text of a file, such as a model's name, or a path. */
void pi2_cli_print_line(const char *format, ...) PI2_CLI_PRINTF(1, 2);

/** Nanoseconds of the monotonic clock. */
uint64_t pi2_cli_now_ns(void);
/** Seconds since the program began. */
double pi2_cli_seconds_since_start(void);
/** Notes when the program began: first thing in main. */
void pi2_cli_note_start(void);

/** The path of a file that pi2_cli_read_file() reads: "-" is stdin. NULL for NULL. */
const char *pi2_cli_input_path(const char *path);
/** Reads a whole file ("-": stdin) into *text_out, malloc'd and followed by a NUL that *length_out
 *  does not count. Returns PI2_EXIT_OK, or an exit code after an error line. */
int pi2_cli_read_file(const char *path, char **text_out, size_t *length_out);
/** The same of a text without its byte-order mark (text_source.h), of which `most` bytes at most are read: a file that
 *  is longer, or endless, so far. *text_out stays as it was on an error. */
int pi2_cli_read_text(const char *path, size_t most, char **text_out, size_t *length_out);

#endif
