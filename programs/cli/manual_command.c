/* manual_command.c: the manual page and the shells' completions, of the very tables that --help prints. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "completion.h"
#include "option_help.h"
#include "output.h"

/* ---- every command's tables ---- */

static const pi2_cli_command_entry *visited;
static pi2_cli_help_taker *visitor;

static void visit_action(const char *action, size_t length) {
    char name[32], action_name[32], help[] = "--help";
    (void)snprintf(name, sizeof name, "%s", visited->name);
    (void)snprintf(action_name, sizeof action_name, "%.*s", (int)length, action);
    char *arguments[] = {name, action_name, help, NULL};
    (void)visited->function(3, arguments);
}

static void take_command(const pi2_cli_command *command) {
    visitor(command);
    (void)pi2_cli_each_action(command->usage, visit_action);
}

/** Shows the tables of every command, and of the commands of a command behind it, to `taker`. */
static void each_command(pi2_cli_help_taker *taker) {
    visitor = taker;
    pi2_cli_set_help_taker(take_command);
    for (size_t i = 0; i < pi2_cli_command_count; i++) {
        char name[32], help[] = "--help";
        (void)snprintf(name, sizeof name, "%s", pi2_cli_commands[i].name);
        char *arguments[] = {name, help, NULL};
        visited = &pi2_cli_commands[i];
        (void)visited->function(2, arguments);
    }
    pi2_cli_set_help_taker(NULL);
}

/* ---- the page, in roff ---- */

/** Text in which nothing is an instruction to roff. Newlines stay: a line must not begin with a dot or a quote. */
static void print_roff(const char *text) {
    for (bool begins = true; *text; begins = *text++ == '\n') {
        if (begins && (*text == '.' || *text == '\'')) (void)printf("\\&");
        if (*text == '\\') (void)printf("\\e");
        else if (*text == '-') (void)printf("\\-");
        else if (*text == '\'') (void)printf("\\(aq");
        else if (*text == '^') (void)printf("\\(ha");
        else if (*text == '~') (void)printf("\\(ti");
        else (void)putchar(*text);
    }
}

static void print_roff_option(const pi2_cli_option *option) {
    (void)printf(".TP\n\\fB");
    print_roff(option->names);
    (void)printf("\\fR");
    if (option->argument) {
        (void)printf(" \\fI");
        print_roff(option->argument);
        (void)printf("\\fR");
    }
    (void)printf("\n");
    char text[PI2_CLI_OPTION_TEXT_BYTES];
    pi2_cli_option_text(option, text);
    print_roff(*text ? text : "Taken for llama.cpp's sake, without effect here.");
    (void)printf("\n");
}

static const pi2_cli_option help_option = {
    "-h, --help", NULL, PI2_CLI_FLAG, 0, NULL, "Prints the help of this command.", NULL, 0, 0};
static const pi2_cli_option version_option = {
    "--version", NULL, PI2_CLI_FLAG, 0, NULL, "Tells the version.", NULL, 0, 0};

static void print_roff_command(const pi2_cli_command *command) {
    (void)printf(".SH \"COMMAND ");
    print_roff(command->name);
    (void)printf("\"\n\\fBpowerinfer2 ");
    print_roff(command->name);
    (void)printf("\\fR ");
    print_roff(command->usage);
    (void)printf("\n.PP\n");
    print_roff(command->description);
    (void)printf("\n");
    for (size_t i = 0; i < command->section_count; i++) {
        const pi2_cli_section *section = &command->sections[i];
        bool has_title = false;
        for (size_t k = 0; k < section->count; k++) {
            const pi2_cli_option *option = &section->options[k];
            const bool is_without_effect = pi2_cli_is_without_effect(option);
            if (is_without_effect && pi2_cli_has_meaning(command, option->names)) continue;
            if (!has_title) {
                (void)printf(".SS \"");
                print_roff(is_without_effect ? "Without effect" : section->title);
                (void)printf("\"\n");
            }
            has_title = true;
            print_roff_option(option);
        }
    }
    (void)printf(".SS \"Other\"\n");
    print_roff_option(&help_option);
}

static void print_page(void) {
    (void)printf(".TH POWERINFER2 1 \"\" \"powerinfer2 %s\" \"User Commands\"\n"
                 ".SH NAME\npowerinfer2 \\- run language models that are larger than memory\n"
                 ".SH SYNOPSIS\n.B powerinfer2\n.I COMMAND\n[options]\n"
                 ".SH DESCRIPTION\nKeeps a part of a model's weights in memory and streams the rest from disk while it "
                 "computes, within the memory that it is given.\nThe text is the same as when everything fits.\n"
                 ".SH COMMANDS\n", PI2_VERSION);
    for (size_t i = 0; i < pi2_cli_command_count; i++) {
        (void)printf(".TP\n\\fB");
        print_roff(pi2_cli_commands[i].name);
        (void)printf("\\fR\n");
        print_roff(pi2_cli_commands[i].summary);
        (void)printf("\n");
    }
    print_roff_option(&version_option);
    each_command(print_roff_command);
    (void)printf(".SH NOTES\n");
    print_roff(pi2_cli_sizes_text);
    (void)printf(".SH \"EXIT STATUS\"\n");
    print_roff(pi2_cli_exit_codes_text);
    (void)printf(".SH EXAMPLES\n.EX\n");
    print_roff(PI2_CLI_EXAMPLE);
    (void)printf("\n.EE\n");
}

/* ---- the command ---- */

typedef struct manual_settings {
    const char *shell;
} manual_settings;

static const pi2_cli_option manual_options[] = {
    {"--completion", "bash|zsh|fish", PI2_CLI_CHOICE, offsetof(manual_settings, shell), NULL,
     "Print the completion of command lines in this shell instead: 'source <(powerinfer2 manual --completion bash)'.",
     NULL, 0, 0},
};

int pi2_cli_manual(int argument_count, char **arguments) {
    static manual_settings settings;
    const pi2_cli_section sections[] = {
        {"Options", manual_options, sizeof manual_options / sizeof manual_options[0], &settings}};
    const pi2_cli_command command = {
        "manual", "[--completion SHELL]",
        "Prints the manual page, of all commands, in roff: 'powerinfer2 manual | man -l -'.", sections, 1};
    const int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    if (!settings.shell) print_page();
    const size_t count = sizeof pi2_cli_completions / sizeof pi2_cli_completions[0];
    for (size_t i = 0; settings.shell && i < count; i++) {
        const pi2_cli_completion *completion = &pi2_cli_completions[i];
        if (strcmp(completion->shell, settings.shell) != 0) continue;
        completion->begin();
        each_command(completion->command);
        completion->end();
    }
    return pi2_cli_finish_stdout();
}
