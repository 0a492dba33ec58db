/* main.c: finds the command and hands over. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "options.h"
#include "output.h"

static void print_usage(FILE *stream) {
    (void)fprintf(stream, "Usage: powerinfer2 COMMAND [options]\n\n"
                          "Runs language models that are larger than memory.\n\nCommands:\n");
    for (size_t i = 0; i < pi2_cli_command_count; i++) {
        (void)fprintf(stream, "  %-13s %s\n", pi2_cli_commands[i].name, pi2_cli_commands[i].summary);
    }
    (void)fprintf(stream, "\n'powerinfer2 COMMAND --help' lists a command's options.\n"
                          "'powerinfer2 --version' tells the version.\n\n"
                          "For example:\n"
                          "  " PI2_CLI_EXAMPLE "\n");
}

enum { MOST_COMMANDS = 64 }; /* that a misspelt one is compared with */

static int unknown_command(const char *word) {
    const char *names[MOST_COMMANDS + 1] = {NULL};
    for (size_t i = 0; i < pi2_cli_command_count && i < MOST_COMMANDS; i++) {
        names[i] = pi2_cli_commands[i].name;
    }
    const char *nearest = pi2_cli_nearest(word, names);
    if (nearest) return pi2_cli_usage_error("unknown command '%s'; did you mean '%s'?", word, nearest);
    return pi2_cli_usage_error("unknown command '%s'; 'powerinfer2 --help' lists them", word);
}

/**
 * A standard stream that is closed (">&-") gives its number to the next file that is opened, and what is meant for the
 * stream would go into that file. Its place is taken by a descriptor that can do the other thing only, so that reading
 * or writing the stream fails as on a closed one. False: there is none to take it with.
 */
static bool hold_closed_streams(void) {
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++) {
        if (fcntl(stream, F_GETFD) != -1 || errno != EBADF) continue;
        /* The lowest free number is given: those below are open by now. */
        if (open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) != stream) return false;
    }
    return true;
}

int main(int argument_count, char **arguments) {
    pi2_cli_note_start();
    if (!hold_closed_streams()) {
        return pi2_cli_io_error("a standard stream is closed, and /dev/null cannot stand in for it");
    }
    if (argument_count < 2) {
        print_usage(stderr);
        return PI2_EXIT_USAGE;
    }
    const char *word = arguments[1];
    const bool asks_help = strcmp(word, "help") == 0;
    if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        (void)printf("powerinfer2 %s\n", PI2_VERSION);
        return pi2_cli_finish_stdout();
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || (asks_help && argument_count == 2)) {
        print_usage(stdout);
        return pi2_cli_finish_stdout();
    }
    if (asks_help) word = arguments[2];
    for (size_t i = 0; i < pi2_cli_command_count; i++) {
        if (strcmp(word, pi2_cli_commands[i].name) != 0) continue;
        char help[] = "--help";
        char *help_arguments[] = {arguments[1], help, NULL};
        if (asks_help) return pi2_cli_commands[i].function(2, help_arguments);
        return pi2_cli_commands[i].function(argument_count - 1, arguments + 1);
    }
    return unknown_command(word);
}
