/* line_editor.c: libedit, or plain_line.c where it is missing. */
#include "line_editor.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "plain_line.h"
#include "signals.h"
#include "terminal_input.h"

#ifdef PI2_HAVE_LIBEDIT
#include <histedit.h>

enum { HISTORY_LINES = 100 };
static char shown_prompt[16];
static EditLine *editor;
static History *past;

bool pi2_cli_has_line_editor(void) { return true; }

/** Like libedit's own, except that Ctrl-C ends the line at once (-1) and pastes and signals are seen to. */
static int read_character(EditLine *from, wchar_t *character) {
    mbstate_t state;
    memset(&state, 0, sizeof state);
    (void)from;
    for (;;) {
        unsigned char byte;
        const int count = pi2_cli_terminal_byte(&byte);
        if (count != 1) return count;
        const size_t length = mbrtowc(character, (const char *)&byte, 1, &state);
        if (length == (size_t)-1) memset(&state, 0, sizeof state); /* no character: left out */
        else if (length != (size_t)-2) return 1;
    }
}

static char *prompt_text(EditLine *from) {
    (void)from;
    return shown_prompt;
}

/* Puts the text where the cursor is. Bytes that are no UTF-8 are left out. */
static void insert(const char *text, size_t length) {
    wchar_t *wide = malloc((length + 1) * sizeof *wide);
    if (!wide) return;
    mbstate_t state;
    memset(&state, 0, sizeof state);
    size_t count = 0;
    while (length > 0) {
        const size_t used = mbrtowc(&wide[count], text, length, &state);
        const bool is_character = used != (size_t)-1 && used != (size_t)-2 && used != 0;
        if (is_character) count++;
        else memset(&state, 0, sizeof state);
        text += is_character ? used : 1;
        length -= is_character ? used : 1;
    }
    wide[count] = L'\0';
    (void)el_winsertstr(editor, wide);
    free(wide);
}

static unsigned char insert_newline(EditLine *from, int key) {
    (void)from;
    (void)key;
    insert("\n", 1);
    return CC_REFRESH;
}

static unsigned char insert_paste(EditLine *from, int key) {
    pi2_cli_text text = {0};
    (void)from;
    (void)key;
    const bool is_whole = pi2_cli_terminal_paste(&text);
    if (is_whole) insert(text.data, text.length);
    free(text.data);
    return is_whole ? CC_REFRESH : CC_EOF;
}

/* Makes the editor; false when the terminal is too simple for editing. */
static bool open_editor(void) {
    HistEvent event;
    (void)setlocale(LC_CTYPE, ""); /* libedit decodes its input by the locale */
    if (MB_CUR_MAX == 1) (void)setlocale(LC_CTYPE, "C.UTF-8");
    editor = el_init("powerinfer2", stdin, stderr, stderr); /* stdout is for answers */
    past = history_init();
    if (!editor || !past) return false; /* kept until the program ends */
    (void)history(past, &event, H_SETSIZE, HISTORY_LINES);
    (void)el_set(editor, EL_PROMPT, prompt_text);
    (void)el_set(editor, EL_EDITOR, "emacs");
    (void)el_set(editor, EL_GETCFN, read_character);
    (void)el_set(editor, EL_HIST, history, past);
    (void)el_source(editor, NULL);
    (void)el_set(editor, EL_ADDFN, "insert-paste", "Inserts a paste", insert_paste);
    (void)el_set(editor, EL_ADDFN, "insert-newline", "Inserts a newline", insert_newline);
    (void)el_set(editor, EL_BIND, "\033[200~", "insert-paste", NULL);
    (void)el_set(editor, EL_BIND, "\033\n", "insert-newline", NULL);
    (void)el_set(editor, EL_BIND, "\033\r", "insert-newline", NULL);
    return true;
}

static void suspend(void) { (void)el_set(editor, EL_PREP_TERM, 0); }

static void resume(void) {
    (void)el_set(editor, EL_PREP_TERM, 1);
    (void)el_set(editor, EL_REFRESH);
}

static void resized(void) { el_resize(editor); }

/* Before the prompt is shown, which libedit does first: a Ctrl-D in between would be lost. */
static void take_terminal(void) {
    int edits = 0;
    if (!isatty(STDERR_FILENO) || el_get(editor, EL_EDITMODE, &edits) != 0 || !edits) return; /* it makes lines */
    (void)el_set(editor, EL_PREP_TERM, 1);
    pi2_cli_terminal_take_typed();
}

/* Sets *can_edit to false, and does nothing, where there is no editor. */
static bool read_edited(const char *prompt, pi2_cli_text *text, bool *can_edit) {
    static const pi2_cli_terminal_modes modes = {.suspend = suspend, .resume = resume, .resized = resized};
    static bool is_tried;
    static bool is_open;
    if (!is_tried) is_open = open_editor();
    is_tried = true;
    *can_edit = is_open;
    if (!is_open) return false;
    (void)snprintf(shown_prompt, sizeof shown_prompt, "%s", prompt);
    int length = 0;
    pi2_cli_terminal_begin(&modes);
    take_terminal();
    const char *line = el_gets(editor, &length);
    pi2_cli_terminal_end();
    if (!line || length <= 0) return false;
    if (length > 1) {
        HistEvent event;
        (void)history(past, &event, H_ENTER, line);
    }
    return pi2_cli_text_add(text, line, strlen(line));
}
#else
bool pi2_cli_has_line_editor(void) { return false; }

static bool read_edited(const char *prompt, pi2_cli_text *text, bool *can_edit) {
    (void)prompt;
    (void)text;
    *can_edit = false;
    return false;
}
#endif

/* One line and its newline, added to the text. */
static bool read_line(const char *prompt, bool is_simple, pi2_cli_text *text) {
    bool can_edit = false;
    const bool is_read = !is_simple && read_edited(prompt, text, &can_edit);
    return can_edit ? is_read : pi2_cli_read_plain_line(prompt, text);
}

char *pi2_cli_read_message(const char *prompt, bool is_simple) {
    pi2_cli_text text = {0};
    pi2_cli_catch_signals(); /* forgets what ended the last answer */
    bool goes_on = true, is_read = true;
    while (goes_on && is_read) {
        is_read = read_line(text.length ? "... " : prompt, is_simple, &text);
        const size_t length = text.length;
        goes_on = is_read && length >= 2 && text.data[length - 1] == '\n' && text.data[length - 2] == '\\';
        if (!goes_on) continue;
        text.data[length - 2] = '\n'; /* the backslash and the line's end are one newline */
        text.length--;
    }
    if (!is_read) {
        (void)fputc('\n', stderr);
        free(text.data);
        return NULL;
    }
    while (text.length && text.data[text.length - 1] == '\n') text.data[--text.length] = '\0';
    return text.data;
}
