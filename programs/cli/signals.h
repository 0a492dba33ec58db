/* signals.h: Ctrl-C and its like. The first asks the running work to end cleanly, the second ends the program. */
#ifndef PI2_CLI_SIGNALS_H
#define PI2_CLI_SIGNALS_H

#include <stdbool.h>

/**
 * Starts to catch what asks a program to end: SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU. Forgets an earlier SIGINT,
 * which ends an answer; the others end the program, and stay. A closed pipe and a limit of file size become failed
 * writes.
 */
void pi2_cli_catch_signals(void);
/** True after the first signal. */
bool pi2_cli_interrupted(void);

#endif
