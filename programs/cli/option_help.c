/* option_help.c: help text from the option tables, wrapped at 80 columns. */
#include "option_help.h"

#include <stdio.h>
#include <string.h>

#include "output.h"

enum { HELP_COLUMN = 30, LINE_COLUMNS = 80 };

const char pi2_cli_sizes_text[] = "Sizes: bytes, or K, M, G (powers of 1000) and KiB, MiB, GiB (of 1024): 64M, 1.5G.\n";
const char pi2_cli_exit_codes_text[] =
    "Exit codes: 0 done, 2 usage, 3 bad file, 4 not enough memory, 5 input or output,\n"
    "6 divergence above the limit, 130 interrupted.\n";

static pi2_cli_help_taker *help_taker;

void pi2_cli_set_help_taker(pi2_cli_help_taker *taker) {
    help_taker = taker;
}

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

bool pi2_cli_is_without_effect(const pi2_cli_option *option) {
    return option->kind >= PI2_CLI_NO_EFFECT;
}

void pi2_cli_option_text(const pi2_cli_option *option, char text_out[PI2_CLI_OPTION_TEXT_BYTES]) {
    (void)snprintf(text_out, PI2_CLI_OPTION_TEXT_BYTES, "%s%s%s%s%s%s%s", option->help,
                   option->fallback ? " (default: " : "", option->fallback ? option->fallback : "",
                   option->fallback ? ")" : "", option->environment ? " [env: " : "",
                   option->environment ? option->environment : "", option->environment ? "]" : "");
}

static void print_option(const pi2_cli_option *option) {
    char left[128], right[PI2_CLI_OPTION_TEXT_BYTES];
    (void)snprintf(left, sizeof left, "  %s%s%s", option->names, option->argument ? " " : "",
                   option->argument ? option->argument : "");
    size_t column = strlen(left);
    (void)printf("%s", left);
    if (column + 2 > HELP_COLUMN) {
        (void)printf("\n");
        column = 0;
    }
    (void)printf("%*s", (int)(HELP_COLUMN - column), "");
    pi2_cli_option_text(option, right);
    print_wrapped(right, HELP_COLUMN, HELP_COLUMN);
}

bool pi2_cli_has_meaning(const pi2_cli_command *command, const char *names) {
    for (size_t i = 0; i < command->section_count; i++) {
        for (size_t k = 0; k < command->sections[i].count; k++) {
            const pi2_cli_option *option = &command->sections[i].options[k];
            if (!pi2_cli_is_without_effect(option) && strcmp(option->names, names) == 0) return true;
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
            if (!pi2_cli_is_without_effect(option) || length >= sizeof text) continue;
            if (pi2_cli_has_meaning(command, option->names)) continue;
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
    if (help_taker) {
        help_taker(command);
        return PI2_EXIT_OK;
    }
    (void)printf("Usage: powerinfer2 %s %s\n\n", command->name, command->usage);
    print_wrapped(command->description, 0, 0);
    for (size_t i = 0; i < command->section_count; i++) {
        const pi2_cli_section *section = &command->sections[i];
        if (pi2_cli_is_without_effect(&section->options[0])) continue;
        (void)printf("\n%s:\n", section->title);
        for (size_t k = 0; k < section->count; k++) print_option(&section->options[k]);
    }
    (void)printf("\nOther:\n  %-*sThis text.\n", HELP_COLUMN - 2, "-h, --help");
    print_without_effect(command);
    (void)printf("\n%s%s", pi2_cli_sizes_text, pi2_cli_exit_codes_text);
    return pi2_cli_finish_stdout();
}
