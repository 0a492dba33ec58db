/* choice_file.c: reads tasks. The file is kept as it is; each task is taken apart when it is asked for. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/whole_file.h"
#include "powerinfer2/choices.h"

enum { MOST_BYTES = 256 << 20, HELLASWAG_CHOICES = 4 };

struct pi2_choice_file {
    char *path;
    uint8_t *bytes;
    size_t length, at;     /* at: of the next task */
    uint64_t line, count;  /* line: the last one that was read, from 1 */
    pi2_choice_format format;
    json_t *task;          /* which holds the texts of the last one */
};

static pi2_status fail_line(const pi2_choice_file *file, const char *what) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: line %llu: %s", file->path, (unsigned long long)file->line, what);
}

/** The next line, without its end. False: there is none. */
static bool next_line(pi2_choice_file *file, pi2_choice_text *line_out) {
    if (file->at >= file->length) return false;
    const char *begin = (const char *)file->bytes + file->at;
    const size_t left = file->length - file->at;
    const char *end = memchr(begin, '\n', left);
    const size_t length = end ? (size_t)(end - begin) : left;
    file->at += length + (end ? 1 : 0);
    file->line++;
    *line_out = (pi2_choice_text){ begin, length && begin[length - 1] == '\r' ? length - 1 : length };
    return true;
}

static bool is_blank_character(char character) { return character == ' ' || character == '\t'; }

static bool is_blank(pi2_choice_text text) {
    for (size_t i = 0; i < text.length; i++) {
        if (!is_blank_character(text.text[i])) return false;
    }
    return true;
}

/* ---- six lines ---- */

/* A space is put between context and ending: what they have of their own there would be a second one. */
static void trim(pi2_choice_text *text, bool at_end) {
    while (text->length && is_blank_character(text->text[at_end ? text->length - 1 : 0])) {
        text->text += !at_end;
        text->length--;
    }
}

static pi2_status read_hellaswag(pi2_choice_file *file, pi2_choice_task *task, bool *is_end_out) {
    pi2_choice_text number;
    *is_end_out = true;
    do {
        if (!next_line(file, &task->context)) return PI2_OK;
    } while (is_blank(task->context)); /* at the end of the file, or between tasks */
    *is_end_out = false;
    if (!next_line(file, &number)) return fail_line(file, "the number of the right ending should follow");
    if (number.length != 1 || number.text[0] < '0' || number.text[0] > '3') {
        return fail_line(file, "a task has six lines: context, number of the right ending (0 to 3), four endings; this "
                               "should be the number");
    }
    task->answer = (uint32_t)(number.text[0] - '0');
    task->choice_count = HELLASWAG_CHOICES;
    for (uint32_t i = 0; i < HELLASWAG_CHOICES; i++) {
        if (!next_line(file, &task->choices[i])) return fail_line(file, "four endings should follow the number");
        trim(&task->choices[i], false);
    }
    trim(&task->context, true);
    return PI2_OK;
}

/* ---- one object ---- */

static bool get_text(const json_t *value, pi2_choice_text *text_out) {
    if (!json_is_string(value)) return false;
    *text_out = (pi2_choice_text){ json_string_value(value), json_string_length(value) };
    return true;
}

static bool is_space(char character) { return character == ' ' || character == '\n' || character == '\t'; }

static pi2_status read_object(pi2_choice_file *file, pi2_choice_task *task) {
    const json_t *choices = json_object_get(file->task, "choices"), *answer = json_object_get(file->task, "answer");
    const size_t count = json_array_size(choices);
    if (!get_text(json_object_get(file->task, "context"), &task->context) || task->context.length == 0) {
        return fail_line(file, "\"context\" should be a text that is not empty");
    }
    if (count < 2 || count > PI2_CHOICES_MOST) {
        return fail_line(file, "\"choices\" should be an array of 2 to 64 texts");
    }
    for (size_t i = 0; i < count; i++) {
        if (!get_text(json_array_get(choices, i), &task->choices[i]) || task->choices[i].length == 0) {
            return fail_line(file, "each of \"choices\" should be a text that is not empty");
        }
        task->is_joined |= is_space(task->choices[i].text[0]);
    }
    task->is_joined |= is_space(task->context.text[task->context.length - 1]);
    if (!json_is_integer(answer) || json_integer_value(answer) < 0 ||
        json_integer_value(answer) >= (json_int_t)count) {
        return fail_line(file, "\"answer\" should be the number of the right choice, from 0 on");
    }
    task->choice_count = (uint32_t)count;
    task->answer = (uint32_t)json_integer_value(answer);
    return PI2_OK;
}

static pi2_status read_json_line(pi2_choice_file *file, pi2_choice_task *task, bool *is_end_out) {
    pi2_choice_text line;
    json_error_t error;
    *is_end_out = true;
    do {
        if (!next_line(file, &line)) return PI2_OK;
    } while (is_blank(line));
    *is_end_out = false;
    json_decref(file->task);
    file->task = json_loadb(line.text, line.length, JSON_REJECT_DUPLICATES, &error);
    if (!file->task && json_error_code(&error) == json_error_out_of_memory) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a task");
    }
    if (!file->task) return fail_line(file, error.text);
    return read_object(file, task);
}

/* ---- the file ---- */

static pi2_status read_task(pi2_choice_file *file, pi2_choice_task *task, bool *is_end_out) {
    memset(task, 0, sizeof *task);
    return file->format == PI2_CHOICES_HELLASWAG ? read_hellaswag(file, task, is_end_out)
                                                 : read_json_line(file, task, is_end_out);
}

static void go_to_begin(pi2_choice_file *file) {
    static const char mark[] = "\xef\xbb\xbf"; /* says that the file is UTF-8, and belongs to no task */
    const size_t bytes = sizeof mark - 1;
    file->at = file->length >= bytes && memcmp(file->bytes, mark, bytes) == 0 ? bytes : 0;
    file->line = 0;
}

static pi2_status check_all(pi2_choice_file *file) {
    pi2_choice_task task;
    bool is_end = false;
    PI2_TRY(pi2_text_refuse_utf16(file->path, file->bytes, file->length));
    for (go_to_begin(file);; file->count++) {
        PI2_TRY(read_task(file, &task, &is_end));
        if (is_end) break;
    }
    go_to_begin(file);
    return file->count ? PI2_OK : pi2_fail(PI2_ERR_FORMAT, "%s: there is no task in it", file->path);
}

pi2_status pi2_choice_file_open(const char *path, pi2_choice_format format, pi2_choice_file **file_out) {
    *file_out = NULL;
    pi2_choice_file *file = calloc(1, sizeof *file);
    if (file) file->path = malloc(strlen(path) + 1);
    if (!file || !file->path) {
        free(file);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a file of tasks");
    }
    memcpy(file->path, path, strlen(path) + 1);
    file->format = format;
    pi2_status status = pi2_whole_file_read(path, "a file of tasks", MOST_BYTES, &file->bytes, &file->length);
    if (status == PI2_OK) status = check_all(file);
    if (status != PI2_OK) {
        pi2_choice_file_close(file);
        return status;
    }
    *file_out = file;
    return PI2_OK;
}

void pi2_choice_file_close(pi2_choice_file *file) {
    if (!file) return;
    json_decref(file->task);
    free(file->bytes);
    free(file->path);
    free(file);
}

uint64_t pi2_choice_file_count(const pi2_choice_file *file) { return file->count; }

uint64_t pi2_choice_file_hash(const pi2_choice_file *file) { return XXH3_64bits(file->bytes, file->length); }

pi2_status pi2_choice_file_next(pi2_choice_file *file, pi2_choice_task *task_out) {
    bool is_end = false;
    PI2_TRY(read_task(file, task_out, &is_end));
    if (!is_end) return PI2_OK;
    go_to_begin(file);
    return read_task(file, task_out, &is_end);
}
