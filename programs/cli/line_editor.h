/* line_editor.h: one line from the terminal, with editing and history where libedit is there. */
#ifndef PI2_CLI_LINE_EDITOR_H
#define PI2_CLI_LINE_EDITOR_H

/**
 * Prompts on stderr and reads. Returns the line without its newline, malloc'd, or NULL at the end
 * of input and on Ctrl-C, which pi2_cli_interrupted() then tells.
 */
char *pi2_cli_read_line(const char *prompt);

#endif
