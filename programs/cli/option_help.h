/* option_help.h: prints a command's tables. */
#ifndef PI2_CLI_OPTION_HELP_H
#define PI2_CLI_OPTION_HELP_H

#include "options.h"

/** Prints help on stdout; returns the exit code. */
int pi2_cli_print_help(const pi2_cli_command *command);

enum { PI2_CLI_OPTION_TEXT_BYTES = 1024 };
/** What help says of an option: its text, default and environment variable. */
void pi2_cli_option_text(const pi2_cli_option *option, char text_out[PI2_CLI_OPTION_TEXT_BYTES]);

/** Whether an option is only taken for another program's sake. */
bool pi2_cli_is_without_effect(const pi2_cli_option *option);
/** Whether such a spelling means something to this command after all: the parser finds that first. */
bool pi2_cli_has_meaning(const pi2_cli_command *command, const char *names);

/** What sizes and exit codes mean, for every command; a line each, with its newline. */
extern const char pi2_cli_sizes_text[], pi2_cli_exit_codes_text[];

/** Takes the tables of a command that is asked for its help. */
typedef void pi2_cli_help_taker(const pi2_cli_command *command);
/** Help goes to `taker` in place of stdout from now on; NULL: to stdout. */
void pi2_cli_set_help_taker(pi2_cli_help_taker *taker);

/** The next spelling in "-m, --model": its length, and *names moved past it. 0 at the end. */
size_t pi2_cli_next_name(const char **names, const char **name_out);

#endif
