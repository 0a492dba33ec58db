/*
 * line_editor.h: messages from the terminal: with editing and history where libedit is there, else (or when
 * that is asked for) with Backspace and Ctrl-U alone.
 *
 * A pasted block of several lines is one message where the terminal marks pastes (ESC [ 200 ~). A newline is
 * typed as Alt-Enter, or by ending the line with a backslash. Lines may be of any length: the terminal's own
 * lines, which end at 4095 bytes, are not used. Control characters but tabs are left out.
 */
#ifndef PI2_CLI_LINE_EDITOR_H
#define PI2_CLI_LINE_EDITOR_H

#include <stdbool.h>

/** True when the program was built with libedit. */
bool pi2_cli_has_line_editor(void);

/**
 * Prompts on stderr and reads a message, without newlines at its end. is_simple: without libedit. Returns
 * it malloc'd, or NULL at the end of input, without memory, and on Ctrl-C, which pi2_cli_interrupted() tells.
 */
char *pi2_cli_read_message(const char *prompt, bool is_simple);

#endif
