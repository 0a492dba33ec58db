/* command_list.c: commands.inc as a table. */
#include "commands.h"

const pi2_cli_command_entry pi2_cli_commands[] = {
#define COMMAND(name, function, summary) {name, function, summary},
#include "commands.inc"
#undef COMMAND
};
const size_t pi2_cli_command_count = sizeof pi2_cli_commands / sizeof pi2_cli_commands[0];
