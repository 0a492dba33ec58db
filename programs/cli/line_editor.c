/* line_editor.c: libedit, or the C library where it is missing. */
#include "line_editor.h"

#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "signals.h"

#ifdef PI2_HAVE_LIBEDIT
#include <histedit.h>

enum { HISTORY_LINES = 100 };
static char shown_prompt[16];

/** Like libedit's own, except that Ctrl-C ends the line at once: -1. */
static int read_character(EditLine *editor, wchar_t *character) {
    mbstate_t state;
    memset(&state, 0, sizeof state);
    (void)editor;
    for (;;) {
        char byte;
        const ssize_t count = read(STDIN_FILENO, &byte, 1);
        if (count < 0 && errno == EINTR && !pi2_cli_interrupted()) continue; /* such as a resized window */
        if (count <= 0) return (int)count;
        const size_t length = mbrtowc(character, &byte, 1, &state);
        if (length == (size_t)-1) memset(&state, 0, sizeof state); /* no character: left out */
        else if (length != (size_t)-2) return 1;
    }
}

static char *prompt_text(EditLine *editor) {
    (void)editor;
    return shown_prompt;
}

/** NULL when the terminal is too simple for editing. */
static EditLine *open_editor(History **past_out) {
    HistEvent event;
    (void)setlocale(LC_CTYPE, ""); /* libedit decodes its input by the locale */
    if (MB_CUR_MAX == 1) (void)setlocale(LC_CTYPE, "C.UTF-8");
    EditLine *editor = el_init("powerinfer2", stdin, stderr, stderr); /* stdout is for answers */
    History *past = history_init();
    if (!editor || !past) return NULL; /* kept until the program ends */
    (void)history(past, &event, H_SETSIZE, HISTORY_LINES);
    (void)el_set(editor, EL_PROMPT, prompt_text);
    (void)el_set(editor, EL_EDITOR, "emacs");
    (void)el_set(editor, EL_GETCFN, read_character);
    (void)el_set(editor, EL_HIST, history, past);
    (void)el_source(editor, NULL);
    *past_out = past;
    return editor;
}

static bool read_edited(const char *prompt, char **line_out) {
    static EditLine *editor;
    static History *past;
    static bool is_tried;
    if (!is_tried) editor = open_editor(&past);
    is_tried = true;
    if (!editor) return false;
    (void)snprintf(shown_prompt, sizeof shown_prompt, "%s", prompt);
    int length = 0;
    const char *line = el_gets(editor, &length);
    if (!line || length <= 0) return true;
    if (length > 1) {
        HistEvent event;
        (void)history(past, &event, H_ENTER, line);
    }
    char *copy = malloc((size_t)length + 1);
    if (copy) (void)snprintf(copy, (size_t)length + 1, "%s", line);
    *line_out = copy;
    return true;
}
#else
static bool read_edited(const char *prompt, char **line_out) {
    (void)prompt;
    (void)line_out;
    return false;
}
#endif

static char *read_plain(const char *prompt) {
    char *line = NULL;
    size_t capacity = 0;
    (void)fputs(prompt, stderr);
    (void)fflush(stderr);
    if (getline(&line, &capacity, stdin) < 0) {
        free(line);
        return NULL;
    }
    return line;
}

char *pi2_cli_read_line(const char *prompt) {
    char *line = NULL;
    pi2_cli_catch_signals(); /* forgets what ended the last answer */
    if (!read_edited(prompt, &line)) line = read_plain(prompt);
    if (line) line[strcspn(line, "\n")] = '\0';
    else (void)fputc('\n', stderr);
    return line;
}
