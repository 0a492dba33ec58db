/* commands.h: the functions of commands.inc. Each takes its own name as arguments[0] and returns the
 * program's exit code. */
#ifndef PI2_CLI_COMMANDS_H
#define PI2_CLI_COMMANDS_H

#define COMMAND(name, function, summary) int function(int argument_count, char **arguments);
#include "commands.inc"
#undef COMMAND

#endif
