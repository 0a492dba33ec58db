/* option_help.h: prints a command's tables. */
#ifndef PI2_CLI_OPTION_HELP_H
#define PI2_CLI_OPTION_HELP_H

#include "options.h"

/** Prints help on stdout; returns the exit code. */
int pi2_cli_print_help(const pi2_cli_command *command);

/** The next spelling in "-m, --model": its length, and *names moved past it. 0 at the end. */
size_t pi2_cli_next_name(const char **names, const char **name_out);

#endif
