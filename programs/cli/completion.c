/* completion.c: what the shells need of an option: its spellings, and what its argument may be. */
#include "completion.h"

#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "option_help.h"

typedef void name_printer(const char *name, size_t length);

size_t pi2_cli_each_action(const char *usage, void (*take)(const char *action, size_t length)) {
    const size_t length = strcspn(usage, " ");
    if (strcspn(usage, "|") >= length || usage[0] < 'a' || usage[0] > 'z') return 0;
    size_t count = 0;
    for (size_t start = 0, end; start < length; start = end + 1) {
        end = start + strcspn(usage + start, "| ");
        if (take) take(usage + start, end - start);
        count++;
    }
    return count;
}

static void each_name(const pi2_cli_option *option, name_printer *print) {
    const char *names = option->names, *name;
    for (size_t length; (length = pi2_cli_next_name(&names, &name)) > 0;) print(name, length);
}

/** Of an argument such as "FILE|low-bit|none": prints what is meant literally, each with `print`; returns whether a
 *  file is meant as well. */
static bool each_word(const pi2_cli_option *option, name_printer *print) {
    bool is_file = option->kind == PI2_CLI_FILES;
    for (const char *word = option->argument; *word;) {
        const size_t length = strcspn(word, "|");
        const bool is_literal = *word >= 'a' && *word <= 'z';
        if (is_literal && print) print(word, length);
        if ((length == 4 && (strncmp(word, "FILE", 4) == 0 || strncmp(word, "PATH", 4) == 0)) ||
            (length == 3 && strncmp(word, "DIR", 3) == 0)) is_file = true;
        word += length + (word[length] == '|');
    }
    return is_file;
}

static bool has_words(const pi2_cli_option *option) {
    const char *word = option->argument;
    while (*word && (*word < 'a' || *word > 'z')) {
        word += strcspn(word, "|");
        word += *word == '|';
    }
    return *word != '\0';
}

/** The options of a command that mean something, one after another. */
static void each_option(const pi2_cli_command *command, void (*take)(const pi2_cli_option *option)) {
    for (size_t i = 0; i < command->section_count; i++) {
        for (size_t k = 0; k < command->sections[i].count; k++) {
            const pi2_cli_option *option = &command->sections[i].options[k];
            if (!pi2_cli_is_without_effect(option)) take(option);
        }
    }
}

static void print_after_blank(const char *word, size_t length) {
    (void)printf(" %.*s", (int)length, word);
}

/* ---- bash ---- */

static void print_names_after_blanks(const pi2_cli_option *option) {
    each_name(option, print_after_blank);
}

static const char *shown_command;   /* whose options are printed */
static const char *shown_separator; /* before the next name */

static void print_bash_name(const char *name, size_t length) {
    (void)printf("%s'%s %.*s'", shown_separator, shown_command, (int)length, name);
    shown_separator = " | ";
}

static void print_bash_argument(const pi2_cli_option *option) {
    if (!pi2_cli_takes_argument(option->kind)) return;
    shown_separator = "    ";
    each_name(option, print_bash_name);
    (void)printf(") words='");
    const bool is_file = each_word(option, print_after_blank);
    (void)printf("'%s ;;\n", is_file ? " files=1" : "");
}

static void begin_bash(void) {
    (void)printf("# bash completion of powerinfer2 %s\n"
                 "_powerinfer2() {\n"
                 "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} files=\n"
                 "    local command=${COMP_WORDS[1]} action=${COMP_WORDS[2]} words=' --help --version help'\n"
                 "    COMPREPLY=()\n"
                 "    if [ $COMP_CWORD -eq 1 ] || "
                 "{ [ $COMP_CWORD -eq 2 ] && [ \"$command\" = help ]; }; then\n"
                 "        words=\"$words", PI2_VERSION);
    for (size_t i = 0; i < pi2_cli_command_count; i++) (void)printf(" %s", pi2_cli_commands[i].name);
    (void)printf("\"\n        COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n        return\n    fi\n");
}

static void print_bash_command(const pi2_cli_command *command) {
    shown_command = command->name;
    if (pi2_cli_each_action(command->usage, NULL)) {
        (void)printf("    if [ \"$command\" = %s ]; then\n        if [ \"$COMP_CWORD\" -eq 2 ]; then\n"
                     "            COMPREPLY=($(compgen -W '--help", command->name);
        pi2_cli_each_action(command->usage, print_after_blank);
        (void)printf("' -- \"$word\"))\n            return\n        fi\n"
                     "        command=\"$command $action\"\n    fi\n");
        return;
    }
    (void)printf("    case \"$command\" in '%s') words=' --help", command->name);
    each_option(command, print_names_after_blanks);
    (void)printf("' ;; esac\n    case \"$command $before\" in\n");
    each_option(command, print_bash_argument);
    (void)printf("    esac\n");
}

static void end_bash(void) {
    (void)printf("    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
                 "    if [ -n \"$files\" ]; then\n"
                 "        compopt -o filenames 2>/dev/null\n"
                 "        local file\n"
                 "        while IFS= read -r file; do COMPREPLY+=(\"$file\"); done < <(compgen -f -- \"$word\")\n"
                 "    fi\n"
                 "}\ncomplete -F _powerinfer2 powerinfer2\n");
}

/* ---- zsh and fish ---- */

/** Prints the first sentence of a text inside '...', where `escaped` characters have a backslash before them. */
static void print_sentence(const char *text, const char *escaped) {
    for (; *text && !(*text == '.' && (text[1] == ' ' || !text[1])); text++) {
        if (*text == '\'') (void)printf("'\\''");
        else (void)printf("%s%c", strchr(escaped, *text) ? "\\" : "", *text);
    }
}

static const pi2_cli_option *shown_option; /* whose names are printed */

static void print_zsh_name(const char *name, size_t length) {
    const pi2_cli_option *option = shown_option;
    const bool repeats = option->kind == PI2_CLI_FILES || option->kind == PI2_CLI_TEXTS;
    (void)printf("            '%s%.*s[", repeats ? "*" : "", (int)length, name);
    print_sentence(option->help, "[]\\");
    (void)printf("]");
    if (pi2_cli_takes_argument(option->kind)) {
        (void)printf(":%s:", has_words(option) ? "word" : option->argument);
        const bool is_file = each_word(option, NULL);
        if (is_file && !has_words(option)) (void)printf("_files");
        if (!is_file && !has_words(option)) (void)printf(" ");
        if (has_words(option)) {
            (void)printf(is_file ? "{_alternative \"words\\:word\\:(" : "(");
            each_word(option, print_after_blank);
            (void)printf(is_file ? ")\" \"files\\:file\\:_files\"}" : ")");
        }
    }
    (void)printf("' \\\n");
}

static void print_zsh_option(const pi2_cli_option *option) {
    shown_option = option;
    each_name(option, print_zsh_name);
}

static void begin_zsh(void) {
    (void)printf("#compdef powerinfer2\n# zsh completion of powerinfer2 %s\n_powerinfer2() {\n"
                 "    if ((CURRENT == 2)) || [[ $CURRENT = 3 && $words[2] = help ]]; then\n"
                 "        local -a commands=(\n", PI2_VERSION);
    for (size_t i = 0; i < pi2_cli_command_count; i++) {
        (void)printf("            '%s:", pi2_cli_commands[i].name);
        print_sentence(pi2_cli_commands[i].summary, ":\\");
        (void)printf("'\n");
    }
    (void)printf("            'help:Print a command'\\''s help'\n        )\n        _describe command commands\n"
                 "        return\n    fi\n    local command=$words[2]\n    shift words\n    ((CURRENT--))\n");
}

static void print_zsh_command(const pi2_cli_command *command) {
    if (pi2_cli_each_action(command->usage, NULL)) {
        (void)printf("    if [[ $command = %s ]]; then\n        if ((CURRENT == 2)); then\n            compadd --",
                     command->name);
        pi2_cli_each_action(command->usage, print_after_blank);
        (void)printf(" --help\n            return\n        fi\n        command=\"$command $words[2]\"\n"
                     "        shift words\n        ((CURRENT--))\n    fi\n");
        return;
    }
    (void)printf("    case $command in\n    '%s')\n        _arguments \\\n", command->name);
    each_option(command, print_zsh_option);
    (void)printf("            '--help[Print the help]'\n        ;;\n    esac\n");
}

static void end_zsh(void) {
    (void)printf("}\nif [[ $funcstack[1] = _powerinfer2 ]]; then _powerinfer2 \"$@\"; "
                 "else compdef _powerinfer2 powerinfer2; fi\n");
}

static void print_fish_name(const char *name, size_t length) {
    const char *form = name[1] == '-' ? "-l" : length == 2 ? "-s" : "-o";
    const size_t dashes = name[1] == '-' ? 2 : 1;
    (void)printf(" %s %.*s", form, (int)(length - dashes), name + dashes);
}

static void print_fish_option(const pi2_cli_option *option) {
    const size_t first = strcspn(shown_command, " ");
    (void)printf("complete -c powerinfer2 -n '__fish_seen_subcommand_from %.*s", (int)first, shown_command);
    if (shown_command[first]) (void)printf("; and __fish_seen_subcommand_from %s", shown_command + first + 1);
    (void)printf("'");
    each_name(option, print_fish_name);
    if (pi2_cli_takes_argument(option->kind)) {
        const bool is_file = each_word(option, NULL);
        (void)printf(is_file ? " -r -F" : " -x");
        if (has_words(option)) {
            (void)printf(" -a '");
            each_word(option, print_after_blank);
            (void)printf("'");
        }
    }
    (void)printf(" -d '");
    print_sentence(option->help, "\\");
    (void)printf("'\n");
}

static void print_fish_action(const char *action, size_t length) {
    (void)printf("complete -c powerinfer2 -n '__fish_seen_subcommand_from %s' -a %.*s\n", shown_command, (int)length,
                 action);
}

static void begin_fish(void) {
    (void)printf("# fish completion of powerinfer2 %s\ncomplete -c powerinfer2 -f\n", PI2_VERSION);
    for (size_t i = 0; i < pi2_cli_command_count; i++) {
        (void)printf("complete -c powerinfer2 -n __fish_use_subcommand -a %s -d '", pi2_cli_commands[i].name);
        print_sentence(pi2_cli_commands[i].summary, "\\");
        (void)printf("'\n");
    }
    (void)printf("complete -c powerinfer2 -l help -s h -d 'Print the help'\n"
                 "complete -c powerinfer2 -n __fish_use_subcommand -l version -d 'Print the version'\n");
}

static void print_fish_command(const pi2_cli_command *command) {
    shown_command = command->name;
    if (pi2_cli_each_action(command->usage, print_fish_action) == 0) each_option(command, print_fish_option);
}

static void end_fish(void) {}

const pi2_cli_completion pi2_cli_completions[3] = {
    {"bash", begin_bash, print_bash_command, end_bash},
    {"zsh", begin_zsh, print_zsh_command, end_zsh},
    {"fish", begin_fish, print_fish_command, end_fish},
};
