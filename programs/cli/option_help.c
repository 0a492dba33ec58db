/* option_help.c: help text from the option tables, wrapped at 80 columns. */
#include "option_help.h"

#include <stdio.h>
#include <string.h>

#include "output.h"

enum { HELP_COLUMN = 30, LINE_COLUMNS = 80 };

/** Prints words from column `column` on, and starts further lines at `indent`. */
static void print_wrapped(const char *text, size_t column, size_t indent) {
    bool is_first = true;
    while (*text) {
        const size_t length = strcspn(text, " ");
        if (!is_first && column + 1 + length > LINE_COLUMNS) {
            (void)printf("\n%*s", (int)indent, "");
            column = indent;
            is_first = true;
        }
        (void)printf("%s%.*s", is_first ? "" : " ", (int)length, text);
        column += length + (is_first ? 0 : 1);
        is_first = false;
        text += length;
        while (*text == ' ') text++;
    }
    (void)printf("\n");
}

static bool is_without_effect(const pi2_cli_option *option) {
    return option->kind >= PI2_CLI_NO_EFFECT;
}

static void print_option(const pi2_cli_option *option) {
    char left[128], right[1024];
    (void)snprintf(left, sizeof left, "  %s%s%s", option->names, option->argument ? " " : "",
                   option->argument ? option->argument : "");
    size_t column = strlen(left);
    (void)printf("%s", left);
    if (column + 2 > HELP_COLUMN) {
        (void)printf("\n");
        column = 0;
    }
    (void)printf("%*s", (int)(HELP_COLUMN - column), "");
    (void)snprintf(right, sizeof right, "%s%s%s%s%s%s%s", option->help,
                   option->fallback ? " (default: " : "", option->fallback ? option->fallback : "",
                   option->fallback ? ")" : "", option->environment ? " [env: " : "",
                   option->environment ? option->environment : "", option->environment ? "]" : "");
    print_wrapped(right, HELP_COLUMN, HELP_COLUMN);
}

/** True when the same spelling means something to this command: the parser finds that first. */
static bool has_meaning(const pi2_cli_command *command, const char *names) {
    for (size_t i = 0; i < command->section_count; i++) {
        for (size_t k = 0; k < command->sections[i].count; k++) {
            const pi2_cli_option *option = &command->sections[i].options[k];
            if (!is_without_effect(option) && strcmp(option->names, names) == 0) return true;
        }
    }
    return false;
}

/** Options without effect take one paragraph. */
static void print_without_effect(const pi2_cli_command *command) {
    char text[4096];
    size_t length = 0;
    for (size_t i = 0; i < command->section_count; i++) {
        for (size_t k = 0; k < command->sections[i].count; k++) {
            const pi2_cli_option *option = &command->sections[i].options[k];
            if (!is_without_effect(option) || length >= sizeof text) continue;
            if (has_meaning(command, option->names)) continue;
            const int written = snprintf(text + length, sizeof text - length, "%s%s", length ? ", " : "",
                                         option->names);
            length += written > 0 ? (size_t)written : 0;
        }
    }
    if (!length) return;
    (void)printf("\nTaken for llama.cpp's sake, without effect here:\n  ");
    print_wrapped(text, 2, 2);
}

int pi2_cli_print_help(const pi2_cli_command *command) {
    (void)printf("Usage: powerinfer2 %s %s\n\n", command->name, command->usage);
    print_wrapped(command->description, 0, 0);
    for (size_t i = 0; i < command->section_count; i++) {
        const pi2_cli_section *section = &command->sections[i];
        if (is_without_effect(&section->options[0])) continue;
        (void)printf("\n%s:\n", section->title);
        for (size_t k = 0; k < section->count; k++) print_option(&section->options[k]);
    }
    (void)printf("\nOther:\n  %-*sThis text.\n", HELP_COLUMN - 2, "-h, --help");
    print_without_effect(command);
    (void)printf("\nSizes: bytes, or K, M, G (powers of 1000) and KiB, MiB, GiB (of 1024): 64M, 1.5G.\n"
                 "Exit codes: 0 done, 2 usage, 3 bad file, 4 not enough memory, 5 input or output,\n"
                 "6 divergence above the limit, 130 interrupted.\n");
    return pi2_cli_finish_stdout();
}
