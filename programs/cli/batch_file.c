/* batch_file.c: see batch_file.h. */
#include "batch_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.h"
#include "signals.h"

/* What every result begins with: a last line that begins otherwise was not cut off from one. */
static const char result_begin[] = "{\"line\":";
enum { MOST_RESULT_BYTES = 64 << 20 };

/* ---- lines ---- */

int pi2_cli_lines_open(pi2_cli_lines *lines, const char *path, size_t most) {
    const bool is_stdin = strcmp(path, "-") == 0;
    *lines = (pi2_cli_lines){.path = is_stdin ? "stdin" : path, .most = most};
    lines->stream = is_stdin ? stdin : fopen(path, "rb");
    if (!lines->stream) return pi2_cli_io_error("%s", path);
    return PI2_EXIT_OK;
}

void pi2_cli_lines_close(pi2_cli_lines *lines) {
    if (lines->stream && lines->stream != stdin) (void)fclose(lines->stream);
    free(lines->text);
    *lines = (pi2_cli_lines){0};
}

/** Room for a byte more, which grows with the lines up to the most. */
static bool make_room(pi2_cli_lines *lines, size_t *capacity) {
    if (lines->length < *capacity) return true;
    const size_t doubled = *capacity ? 2 * *capacity : 4096;
    *capacity = doubled < lines->most ? doubled : lines->most;
    char *grown = realloc(lines->text, *capacity + 1);
    if (grown) lines->text = grown;
    return grown != NULL;
}

bool pi2_cli_lines_next(pi2_cli_lines *lines, int *code_out) {
    size_t capacity = 0;
    int byte = 0;
    free(lines->text);
    lines->text = NULL;
    lines->length = 0;
    lines->is_too_long = lines->has_end = false;
    *code_out = PI2_EXIT_OK;
    while (!lines->has_end && (byte = getc(lines->stream)) != EOF) {
        lines->has_end = byte == '\n';
        if (lines->has_end) break;
        lines->is_too_long = lines->is_too_long || lines->length == lines->most;
        if (lines->is_too_long) continue;
        if (!make_room(lines, &capacity)) {
            (void)pi2_cli_usage_error("no memory for line %llu of %s", (unsigned long long)lines->number + 1,
                                      lines->path);
            *code_out = PI2_EXIT_MEMORY;
            return false;
        }
        lines->text[lines->length++] = (char)byte;
    }
    if (ferror(lines->stream)) {
        const int code = pi2_cli_interrupted() ? PI2_EXIT_INTERRUPTED : pi2_cli_io_error("%s", lines->path);
        *code_out = code;
        return false;
    }
    if (!lines->has_end && lines->length == 0 && !lines->is_too_long) return false;
    if (!make_room(lines, &capacity)) return false;
    lines->text[lines->length] = '\0';
    lines->number++;
    return true;
}

/* ---- results ---- */

/** Whether the file may take what results.path names. */
static int check_place(const char *path, const char *const *inputs) {
    struct stat place, input;
    if (stat(path, &place) != 0) return PI2_EXIT_OK;
    if (S_ISDIR(place.st_mode)) return pi2_cli_usage_error("%s is a folder", path);
    for (size_t i = 0; inputs[i]; i++) {
        if (stat(inputs[i], &input) != 0 || input.st_dev != place.st_dev || input.st_ino != place.st_ino) continue;
        return pi2_cli_usage_error("%s is an input of this command", path);
    }
    return PI2_EXIT_OK;
}

int pi2_cli_results_open(pi2_cli_results *results, const char *path, const char *const *inputs) {
    *results = (pi2_cli_results){.stream = stdout};
    if (!path) return PI2_EXIT_OK;
    struct stat place;
    results->path = path;
    results->stream = NULL;
    const int code = check_place(path, inputs);
    if (code != PI2_EXIT_OK) return code;
    const bool may_read = stat(path, &place) != 0 || S_ISREG(place.st_mode);
    const int file = open(path, (may_read ? O_RDWR | O_CREAT : O_WRONLY) | O_CLOEXEC, 0666);
    if (file < 0) return pi2_cli_io_error("%s cannot be written", path);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const bool is_regular = fstat(file, &place) == 0 && S_ISREG(place.st_mode);
    if (is_regular && fcntl(file, F_SETLK, &lock) != 0) {
        const bool is_locked = errno == EACCES || errno == EAGAIN;
        if (is_locked) (void)pi2_cli_usage_error("%s: another run is writing its results there", path);
        else (void)pi2_cli_io_error("%s cannot be locked", path);
        (void)close(file);
        return is_locked ? PI2_EXIT_USAGE : PI2_EXIT_IO;
    }
    results->stream = fdopen(file, is_regular ? "r+b" : "wb");
    if (!results->stream) {
        (void)close(file);
        return pi2_cli_io_error("%s", path);
    }
    if (is_regular) {
        results->old = (pi2_cli_lines){.stream = results->stream, .path = path, .most = MOST_RESULT_BYTES};
    }
    return PI2_EXIT_OK;
}

/** What a result says; false: the text is none. */
static bool read_result(pi2_cli_results *results) {
    const pi2_cli_lines *old = &results->old;
    json_t *value = old->is_too_long ? NULL : json_loadb(old->text, old->length, JSON_REJECT_DUPLICATES, NULL);
    const json_t *line = json_object_get(value, "line");
    const char *hash = json_string_value(json_object_get(value, "hash"));
    const bool is_good = json_is_integer(line) && json_integer_value(line) > 0 && hash && strlen(hash) == 16;
    if (is_good) {
        results->line = (uint64_t)json_integer_value(line);
        results->hash = strtoull(hash, NULL, 16);
        results->has_error = json_object_get(value, "error") != NULL;
    }
    json_decref(value);
    return is_good;
}

/** Whether the line, which is the file's last, is what a kill left of a result. */
static bool is_cut_result(const pi2_cli_lines *line) {
    const size_t begin = sizeof result_begin - 1, length = line->length < begin ? line->length : begin;
    return !line->has_end && memcmp(line->text, result_begin, length) == 0;
}

bool pi2_cli_results_skip(pi2_cli_results *results, int *code_out) {
    pi2_cli_lines *old = &results->old;
    *code_out = PI2_EXIT_OK;
    if (!old->stream) return false;
    const off_t begin = ftello(results->stream);
    if (pi2_cli_lines_next(old, code_out)) {
        if (old->has_end && read_result(results)) return true;
        if (!is_cut_result(old)) {
            *code_out = pi2_cli_usage_error("%s is there and is not a file of results of 'batch' (line %llu): it is "
                                            "not continued and not replaced", results->path,
                                            (unsigned long long)old->number);
            return false;
        }
        if (fflush(results->stream) != 0 || ftruncate(fileno(results->stream), begin) != 0) {
            *code_out = pi2_cli_io_error("%s: its last line, which was cut off, cannot be removed", results->path);
            return false;
        }
    }
    if (*code_out != PI2_EXIT_OK) return false;
    free(old->text);
    *old = (pi2_cli_lines){0};
    if (fseeko(results->stream, 0, SEEK_END) != 0) *code_out = pi2_cli_io_error("%s", results->path);
    return false;
}

int pi2_cli_results_write(pi2_cli_results *results, json_t *value) {
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    if (!text) {
        (void)pi2_cli_usage_error("no memory for a result");
        return PI2_EXIT_MEMORY;
    }
    const bool is_written = fputs(text, results->stream) >= 0 && putc('\n', results->stream) != EOF &&
                            fflush(results->stream) == 0;
    free(text);
    if (is_written) return PI2_EXIT_OK;
    return pi2_cli_io_error("%s cannot be written", results->path ? results->path : "stdout");
}

int pi2_cli_results_close(pi2_cli_results *results) {
    free(results->old.text);
    if (!results->path || !results->stream) return PI2_EXIT_OK;
    return fclose(results->stream) == 0 ? PI2_EXIT_OK : pi2_cli_io_error("%s cannot be written", results->path);
}
