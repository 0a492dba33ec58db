/* plain_line.h: a line from the terminal without libedit. */
#ifndef PI2_CLI_PLAIN_LINE_H
#define PI2_CLI_PLAIN_LINE_H

#include "answer_text.h"

/**
 * Prompts on stderr and adds a line to the text, with a newline at its end. What is typed is shown here, not
 * by the terminal. False: input ended before a line did, Ctrl-C, or no memory.
 */
bool pi2_cli_read_plain_line(const char *prompt, pi2_cli_text *line);

#endif
