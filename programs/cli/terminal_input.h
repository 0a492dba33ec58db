/*
 * terminal_input.h: bytes from the terminal while a line is typed, and the signals meanwhile.
 *
 * While a line is typed the terminal is in a state of its own (no echo, no lines, pastes are marked). A
 * signal that stops or ends the program is obeyed only when the terminal is as it was before, and after
 * `fg` the line goes on where it was.
 */
#ifndef PI2_CLI_TERMINAL_INPUT_H
#define PI2_CLI_TERMINAL_INPUT_H

#include <stdbool.h>

#include "answer_text.h"

/** What the reader of a line does to the terminal; called between bytes, never inside a signal handler. */
typedef struct pi2_cli_terminal_modes {
    void (*suspend)(void); /* makes the terminal as it was */
    void (*resume)(void);  /* takes it again, and shows the line anew */
    void (*resized)(void); /* NULL: it does not matter */
} pi2_cli_terminal_modes;

/** Between these two calls Ctrl-Z, Ctrl-\ and a hangup are obeyed by way of `modes`, and pastes are marked. */
void pi2_cli_terminal_begin(const pi2_cli_terminal_modes *modes);
void pi2_cli_terminal_end(void);

enum { PI2_CLI_CTRL_D = 4 };

/** Takes what was typed before, while the terminal made lines: call once after the terminal gives single bytes. */
void pi2_cli_terminal_take_typed(void);

/** The next byte. Returns 1; 0 at the end of input; -1 once pi2_cli_interrupted(). */
int pi2_cli_terminal_byte(unsigned char *byte_out);

/** What an escape sequence asks for, whose first byte (ESC) has come: the rest of it is read. */
typedef enum pi2_cli_escape { PI2_CLI_ESCAPE_OTHER, PI2_CLI_ESCAPE_NEWLINE, PI2_CLI_ESCAPE_PASTE } pi2_cli_escape;
pi2_cli_escape pi2_cli_terminal_escape(void);

/**
 * The rest of a paste, whose beginning (ESC [ 200 ~) has come, added to the text. Line ends become \n;
 * other control characters but tabs are left out. False: input ended, or no memory.
 */
bool pi2_cli_terminal_paste(pi2_cli_text *text);

#endif
