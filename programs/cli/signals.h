/* signals.h: Ctrl-C. The first asks the running work to end cleanly, the second ends the program. */
#ifndef PI2_CLI_SIGNALS_H
#define PI2_CLI_SIGNALS_H

#include <stdbool.h>

/** Starts to catch SIGINT and SIGTERM, and forgets an earlier interruption. */
void pi2_cli_catch_signals(void);
/** True after the first signal. */
bool pi2_cli_interrupted(void);

#endif
