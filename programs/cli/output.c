/* output.c: error lines, reports, progress, JSON. */
#include "output.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "powerinfer2/sizes.h"
#include "signals.h"
#include "text_source.h"

enum { LINE_BYTES = 2048 };
static const uint64_t SECOND_NS = 1000000000u;
static const uint64_t PROGRESS_DELAY_NS = 1000000000u; /* shorter work needs no sign of life */

static FILE *log_stream; /* NULL: stderr */
static bool is_quiet;
static _Atomic bool shows_progress; /* a progress line stands on the terminal */
static bool has_status_line;        /* the command shows its own progress */
static uint64_t start_ns;

uint64_t pi2_cli_now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

void pi2_cli_note_start(void) { start_ns = pi2_cli_now_ns(); }

double pi2_cli_seconds_since_start(void) { return (double)(pi2_cli_now_ns() - start_ns) / 1e9; }

int pi2_cli_exit_code(pi2_status status) {
    switch (status) {
    case PI2_OK: return PI2_EXIT_OK;
    case PI2_ERR_INVALID:
    case PI2_ERR_CONTEXT: return PI2_EXIT_USAGE;
    case PI2_ERR_FORMAT:
    case PI2_ERR_UNSUPPORTED: return PI2_EXIT_BAD_FILE;
    case PI2_ERR_MEMORY: return PI2_EXIT_MEMORY;
    case PI2_ERR_IO: return PI2_EXIT_IO;
    case PI2_ERR_INTERRUPTED: return PI2_EXIT_INTERRUPTED;
    }
    return PI2_EXIT_IO;
}

/** Bytes of the valid UTF-8 character at text, or 0. */
static size_t utf8_character(const unsigned char *text, size_t length) {
    const unsigned char lead = text[0];
    const size_t bytes = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
    if (bytes == 0 || bytes > length) return 0;
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t code = bytes == 1 ? lead : lead & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((text[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (text[i] & 0x3fu);
    }
    return code < least[bytes] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : bytes;
}

void pi2_cli_print_safely(FILE *stream, const char *text, size_t length) {
    for (size_t i = 0; i < length;) {
        const unsigned char *at = (const unsigned char *)text + i;
        const size_t bytes = utf8_character(at, length - i);
        if (bytes == 2 && at[0] == 0xc2 && at[1] < 0xa0) { /* U+0080 .. U+009F: controls too, such as CSI */
            (void)fprintf(stream, "\\u%04x", (unsigned)at[1]);
        } else if (*at == '\n') (void)fputs("\\n", stream);
        else if (*at == '\t') (void)fputs("\\t", stream);
        else if (bytes == 0 || *at < 32 || *at == 127) (void)fprintf(stream, "\\x%02x", (unsigned)*at);
        else (void)fwrite(at, 1, bytes, stream);
        i += bytes ? bytes : 1;
    }
}

void pi2_cli_print_line(const char *format, ...) {
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    pi2_cli_print_safely(stdout, line, strlen(line));
    (void)putchar('\n');
}

void pi2_cli_set_log(FILE *stream) { log_stream = stream; }

static void print_line(const char *prefix, const char *format, va_list arguments) {
    FILE *stream = log_stream ? log_stream : stderr;
    char line[LINE_BYTES];
    (void)vsnprintf(line, sizeof line, format, arguments);
    pi2_cli_clear_progress();
    (void)fputs(prefix, stream);
    pi2_cli_print_safely(stream, line, strlen(line));
    (void)fputc('\n', stream);
}

int pi2_cli_usage_error(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line("powerinfer2: ", format, arguments);
    va_end(arguments);
    return PI2_EXIT_USAGE;
}

int pi2_cli_io_error(const char *format, ...) {
    const int error = errno;
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    (void)pi2_cli_usage_error("%s: %s", line, strerror(error));
    return PI2_EXIT_IO;
}

int pi2_cli_failed(pi2_status status) {
    (void)pi2_cli_usage_error("%s", pi2_error_text());
    return pi2_cli_exit_code(status);
}

void pi2_cli_warn(const char *format, ...) {
    if (is_quiet) return;
    va_list arguments;
    va_start(arguments, format);
    print_line("powerinfer2: warning: ", format, arguments);
    va_end(arguments);
}

void pi2_cli_warn_two_beginnings(const int32_t *tokens, size_t count, int32_t begin) {
    if (count < 2 || begin < 0 || tokens[0] != begin || tokens[1] != begin) return;
    pi2_cli_warn("the text begins with the beginning-of-sequence token (%d), and the model puts one before it: two of "
                 "them spoil answers; leave it out of the text", (int)begin);
}

void pi2_cli_note(const char *format, ...) {
    if (is_quiet) return;
    va_list arguments;
    va_start(arguments, format);
    print_line("", format, arguments);
    va_end(arguments);
}

void pi2_cli_set_quiet(bool quiet) { is_quiet = quiet; }

/* ---- progress ---- */

void pi2_cli_clear_progress(void) {
    if (!shows_progress) return;
    shows_progress = false;
    (void)fputs("\r\033[K", stderr);
    (void)fflush(stderr);
}

void pi2_cli_progress(const char *what, uint64_t done, uint64_t total) {
    static char current[32];
    static uint64_t begin_ns;
    if (is_quiet || has_status_line || !isatty(STDERR_FILENO)) return;
    const uint64_t now = pi2_cli_now_ns();
    if (strncmp(current, what, sizeof current - 1) != 0 || done == 0) {
        (void)snprintf(current, sizeof current, "%s", what);
        begin_ns = now;
    }
    if (done >= total) {
        pi2_cli_clear_progress();
        current[0] = '\0';
        return;
    }
    if (now - begin_ns < PROGRESS_DELAY_NS) return;
    const double share = (double)done / (double)total;
    char left[32] = "";
    if (share > 0.01) { /* an estimate from less would only mislead */
        const double seconds = (double)(now - begin_ns) / 1e9 * (1.0 - share) / share;
        (void)snprintf(left, sizeof left, ", %.0f s left", seconds);
    }
    (void)fprintf(stderr, "\r\033[K%s: %.0f %%%s", what, 100.0 * share, left);
    (void)fflush(stderr);
    shows_progress = true;
}

void pi2_cli_status_line(const char *format, ...) {
    if (is_quiet || !isatty(STDERR_FILENO)) return;
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    has_status_line = true;
    shows_progress = true;
    (void)fprintf(stderr, "\r\033[K%s", line);
    (void)fflush(stderr);
}

static void on_log(void *user, const char *line) {
    (void)user;
    pi2_cli_note("%s", line);
}

static void on_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user;
    pi2_cli_progress(what, done, total);
}

static bool on_cancelled(void *user) {
    (void)user;
    return pi2_cli_interrupted();
}

pi2_callbacks pi2_cli_callbacks(void) {
    return (pi2_callbacks){.log = on_log, .progress = on_progress, .cancelled = on_cancelled};
}

/* ---- stdout ---- */

int pi2_cli_finish_stdout(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return PI2_EXIT_OK;
    return pi2_cli_io_error("cannot write to stdout");
}

/** JSON's own escapes leave out DEL and U+0080 .. U+009F, which a terminal obeys; both occur in strings alone. */
static void print_json_text(const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at == 0x7f) (void)fputs("\\u007f", stdout);
        else if (at[0] == 0xc2 && at[1] < 0xa0) (void)printf("\\u%04x", (unsigned)*++at);
        else (void)putchar(*at);
    }
    (void)putchar('\n');
}

int pi2_cli_print_json(json_t *value, size_t flags) {
    char *text = value ? json_dumps(value, flags | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(value);
    if (!text) {
        (void)pi2_cli_usage_error("not enough memory for the JSON text");
        return PI2_EXIT_MEMORY;
    }
    print_json_text(text);
    free(text);
    return pi2_cli_finish_stdout();
}

json_t *pi2_cli_json_text(const char *text, size_t length) {
    char *copy = malloc(3 * length + 1);
    if (!copy) return NULL;
    size_t written = 0;
    for (size_t i = 0; i < length;) {
        const size_t bytes = utf8_character((const unsigned char *)text + i, length - i);
        memcpy(copy + written, bytes ? text + i : "\xef\xbf\xbd", bytes ? bytes : 3);
        written += bytes ? bytes : 3;
        i += bytes ? bytes : 1;
    }
    json_t *value = json_stringn(copy, written);
    free(copy);
    return value;
}

json_t *pi2_cli_json_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

void pi2_cli_json_set_numbers(json_t *object, const pi2_cli_named_number *numbers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        (void)json_object_set_new(object, numbers[i].name, pi2_cli_json_number(numbers[i].value));
    }
}

/* ---- stdin and files ---- */

/* Whether a line is as long as a terminal's line can be: what was typed or pasted beyond is lost. */
static bool is_cut_by_terminal(FILE *stream, const char *text, size_t length) {
    enum { TERMINAL_LINE_BYTES = 4095 };
    const int file = fileno(stream);
    if (file < 0 || !isatty(file)) return false;
    for (const char *end; length > 0; length -= (size_t)(end - text), text = end) {
        const char *newline = memchr(text, '\n', length);
        end = newline ? newline + 1 : text + length;
        if ((newline ? newline : end) - text >= TERMINAL_LINE_BYTES) return true;
    }
    return false;
}

static int read_stream(FILE *stream, const char *path, size_t most, char **text_out, size_t *length_out) {
    size_t capacity = 65536, length = 0;
    char *text = malloc(capacity);
    while (text) {
        const size_t room = capacity - 1 - length, wanted = most - length;
        const size_t got = fread(text + length, 1, room < wanted ? room : wanted, stream);
        length += got;
        if (ferror(stream)) {
            const int code = pi2_cli_io_error("%s", path);
            free(text);
            return pi2_cli_interrupted() ? PI2_EXIT_INTERRUPTED : code;
        }
        const bool is_end = got == 0 || feof(stream); /* a terminal's end is told once */
        if (is_end && is_cut_by_terminal(stream, text, length)) {
            free(text);
            return pi2_cli_usage_error("%s: a terminal cuts a line at 4095 bytes, and one is as long: use shorter "
                                       "lines, or a file", path);
        }
        if (is_end) {
            text[length] = '\0';
            *text_out = text;
            *length_out = length;
            return PI2_EXIT_OK;
        }
        if (length + 1 < capacity) continue;
        capacity *= 2;
        char *grown = realloc(text, capacity);
        if (!grown) free(text);
        text = grown;
    }
    (void)pi2_cli_usage_error("%s: not enough memory to read it", path);
    return PI2_EXIT_MEMORY;
}

const char *pi2_cli_input_path(const char *path) {
    return path && strcmp(path, "-") == 0 ? "/dev/stdin" : path;
}

static int read_start(const char *path, size_t most, char **text_out, size_t *length_out) {
    if (strcmp(path, "-") == 0) return read_stream(stdin, "stdin", most, text_out, length_out);
    FILE *file = fopen(path, "rb");
    if (!file) return pi2_cli_io_error("%s", path);
    const int code = read_stream(file, path, most, text_out, length_out);
    (void)fclose(file);
    return code;
}

int pi2_cli_read_file(const char *path, char **text_out, size_t *length_out) {
    return read_start(path, SIZE_MAX, text_out, length_out);
}

int pi2_cli_read_text(const char *path, size_t most, char **text_out, size_t *length_out) {
    enum { MARK_BYTES = 3 }; /* a text of `most` bytes may have one before it */
    int code = read_start(path, most + MARK_BYTES, text_out, length_out);
    if (code != PI2_EXIT_OK) return code;
    code = pi2_cli_drop_mark(strcmp(path, "-") == 0 ? "stdin" : path, *text_out, length_out);
    if (code != PI2_EXIT_OK) {
        free(*text_out);
        *text_out = NULL;
        return code;
    }
    if (*length_out > most) *length_out = most;
    (*text_out)[*length_out] = '\0';
    return PI2_EXIT_OK;
}
