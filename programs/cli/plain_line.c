/*
 * plain_line.c: the least that a line needs, byte by byte. The terminal's own line discipline would cut a
 * line at 4095 bytes without a word, and would make text of arrow keys.
 */
#include "plain_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <utf8proc.h>

#include "terminal_input.h"

enum { BACKSPACE = 8, CTRL_U = 21, ESCAPE = 27, DELETE = 127 };

static struct termios as_it_was;
static bool is_terminal;
static const char *shown_prompt;
static const pi2_cli_text *shown_line;

static void show(const char *text, size_t length) {
    (void)fwrite(text, 1, length, stderr);
    (void)fflush(stderr);
}

static void leave(void) {
    if (is_terminal) (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &as_it_was);
}

static void enter(void) {
    is_terminal = tcgetattr(STDIN_FILENO, &as_it_was) == 0;
    if (!is_terminal) return;
    struct termios raw = as_it_was;
    raw.c_lflag &= (tcflag_t)~(ICANON | ECHO | IEXTEN);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

/* The prompt and what was typed of the last row. */
static void show_again(void) {
    size_t begin = shown_line->length;
    while (begin > 0 && shown_line->data[begin - 1] != '\n') begin--;
    if (begin == 0) show(shown_prompt, strlen(shown_prompt));
    if (shown_line->length > begin) show(shown_line->data + begin, shown_line->length - begin);
}

static void resume(void) {
    enter();
    show_again();
}

/* Takes the last character away, from the text and from the screen. */
static void erase(pi2_cli_text *line) {
    if (line->length == 0) return;
    size_t begin = line->length - 1;
    while (begin > 0 && ((unsigned char)line->data[begin] & 0xc0) == 0x80) begin--;
    utf8proc_int32_t code = 0;
    const utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)line->data + begin,
                                                    (utf8proc_ssize_t)(line->length - begin), &code);
    const bool is_newline = line->data[begin] == '\n';
    line->length = begin;
    line->data[begin] = '\0';
    if (is_newline) {
        show("\n", 1);
        show_again();
        return;
    }
    for (int width = bytes > 0 ? utf8proc_charwidth(code) : 1; width > 0; width--) show("\b \b", 3);
}

static bool add(pi2_cli_text *line, const char *text, size_t length) {
    if (!pi2_cli_text_add(line, text, length)) return false;
    show(text, length);
    return true;
}

static bool take_escape(pi2_cli_text *line) {
    const size_t before = line->length;
    switch (pi2_cli_terminal_escape()) {
    case PI2_CLI_ESCAPE_NEWLINE: return add(line, "\n", 1);
    case PI2_CLI_ESCAPE_PASTE:
        if (!pi2_cli_terminal_paste(line)) return false;
        show(line->data + before, line->length - before);
        return true;
    case PI2_CLI_ESCAPE_OTHER: break; /* such as an arrow key */
    }
    return true;
}

static bool take_byte(pi2_cli_text *line, unsigned char byte) {
    if (byte == ESCAPE) return take_escape(line);
    if (byte == BACKSPACE || byte == DELETE) {
        erase(line);
    } else if (byte == CTRL_U) {
        line->length = 0;
        show("\n", 1);
        show_again();
    } else if (byte >= 0x20 || byte == '\t') {
        return add(line, (const char *)&byte, 1);
    }
    return true;
}

static bool take_line(pi2_cli_text *line) {
    unsigned char byte;
    for (;;) {
        if (pi2_cli_terminal_byte(&byte) != 1) return false;
        if (byte == PI2_CLI_CTRL_D && line->length == 0) return false;
        if (byte == '\n' || byte == '\r') return add(line, "\n", 1);
        if (!take_byte(line, byte)) return false;
    }
}

bool pi2_cli_read_plain_line(const char *prompt, pi2_cli_text *text) {
    static const pi2_cli_terminal_modes modes = {.suspend = leave, .resume = resume};
    pi2_cli_text line = {0};
    shown_prompt = prompt;
    shown_line = &line;
    enter();
    pi2_cli_terminal_begin(&modes);
    if (is_terminal) pi2_cli_terminal_take_typed();
    show(prompt, strlen(prompt));
    const bool is_whole = take_line(&line) && pi2_cli_text_add(text, line.data, line.length);
    pi2_cli_terminal_end();
    leave();
    free(line.data);
    return is_whole;
}
