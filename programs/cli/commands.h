/* commands.h: the functions of commands.inc. Each takes its own name as arguments[0] and returns the
 * program's exit code. */
#ifndef PI2_CLI_COMMANDS_H
#define PI2_CLI_COMMANDS_H

#include <stddef.h>

typedef struct pi2_cli_command_entry {
    const char *name;
    int (*function)(int argument_count, char **arguments);
    const char *summary;
} pi2_cli_command_entry;

/** Every command, in the order of commands.inc. */
extern const pi2_cli_command_entry pi2_cli_commands[];
extern const size_t pi2_cli_command_count;

/** What main's help ends with: a command line. */
#define PI2_CLI_EXAMPLE "powerinfer2 run -m model.gguf --memory 64M -p \"Why is the sky blue?\""

#define COMMAND(name, function, summary) int function(int argument_count, char **arguments);
#include "commands.inc"
#undef COMMAND

#endif
