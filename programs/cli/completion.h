/* completion.h: scripts that complete command lines in shells, made of the tables that --help prints. */
#ifndef PI2_CLI_COMPLETION_H
#define PI2_CLI_COMPLETION_H

#include "options.h"

/** How a shell's script is printed: its beginning, a part for each command, its end. */
typedef struct pi2_cli_completion {
    const char *shell;
    void (*begin)(void);
    void (*command)(const pi2_cli_command *command);
    void (*end)(void);
} pi2_cli_completion;

/** bash, zsh and fish. */
extern const pi2_cli_completion pi2_cli_completions[3];

/** Calls `take` for each action of a command of commands ("make|train [options]"), in order, and returns how many
 *  there are; 0: the command is none. take NULL: counts. */
size_t pi2_cli_each_action(const char *usage, void (*take)(const char *action, size_t length));

#endif
