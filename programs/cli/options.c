/* options.c: parses a command line against the tables of options.h. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "option_help.h"
#include "output.h"
#include "powerinfer2/sizes.h"

enum { LONGEST_NAME = 40, MAX_NAMES = 384, MOST_GIVEN = 256 };

/** The next spelling in "-m, --model": its length, and *names moved past it. 0 at the end. */
size_t pi2_cli_next_name(const char **names, const char **name_out) {
    while (**names == ',' || **names == ' ') (*names)++;
    const size_t length = strcspn(*names, ",");
    *name_out = *names;
    *names += length;
    return length;
}

static bool is_among(const char *names, const char *word, size_t word_length) {
    const char *name;
    for (size_t length; (length = pi2_cli_next_name(&names, &name)) > 0;) {
        if (length == word_length && memcmp(name, word, length) == 0) return true;
    }
    return false;
}

static bool has_name(const pi2_cli_option *option, const char *word, size_t word_length) {
    return is_among(option->names, word, word_length);
}

static const pi2_cli_option *find(const pi2_cli_command *command, const char *word, size_t length,
                                  const pi2_cli_section **section_out) {
    for (size_t i = 0; i < command->section_count; i++) {
        const pi2_cli_section *section = &command->sections[i];
        for (size_t k = 0; k < section->count; k++) {
            if (has_name(&section->options[k], word, length)) {
                *section_out = section;
                return &section->options[k];
            }
        }
    }
    return NULL;
}

/** Letters to insert, delete or replace to come from one word to the other. */
static size_t edit_distance(const char *first, const char *second) {
    size_t row[LONGEST_NAME + 1];
    const size_t length = strlen(second);
    if (length > LONGEST_NAME || strlen(first) > LONGEST_NAME) return SIZE_MAX;
    for (size_t i = 0; i <= length; i++) row[i] = i;
    for (; *first; first++) {
        size_t diagonal = row[0]++;
        for (size_t i = 1; i <= length; i++) {
            const size_t above = row[i];
            size_t best = diagonal + (*first != second[i - 1]);
            if (above + 1 < best) best = above + 1;
            if (row[i - 1] + 1 < best) best = row[i - 1] + 1;
            row[i] = best;
            diagonal = above;
        }
    }
    return row[length];
}

const char *pi2_cli_nearest(const char *word, const char *const *words) {
    const char *best = NULL;
    size_t best_distance = strlen(word) > 6 ? 4 : 3; /* further away is no misspelling */
    for (; *words; words++) {
        const size_t distance = edit_distance(word, *words);
        if (distance < best_distance && distance < strlen(*words)) {
            best = *words;
            best_distance = distance;
        }
    }
    return best;
}

/** Options of llama.cpp's for which something else is here, so that a name that looks alike would mislead. */
static const struct { const char *names, *instead; } elsewhere[] = {
    {"--list-devices", "'powerinfer2 machine --list-devices' lists them"},
    {"-hfd,-hfrd,--hf-repo-draft,--spec-draft-hf", "'run -md FILE' takes a draft model that was downloaded"},
    {"--hellaswag,--hellaswag-tasks", "'powerinfer2 eval --hellaswag FILE' asks such tasks"},
    {"--multiple-choice,--multiple-choice-tasks,--winogrande,--winogrande-tasks,-bf,--binary-file",
     "'powerinfer2 eval --multiple-choice FILE' asks tasks that are lines of JSON (docs/evaluation.md)"},
    {"--slot-save-path,--prompt-cache-all,--prompt-cache-ro,--session",
     "'run --prompt-cache FOLDER' keeps what was computed of prompts, for all runs and servers (docs/prompt_cache.md)"},
};

static int unknown_option(const pi2_cli_command *command, const char *word) {
    static char storage[MAX_NAMES][LONGEST_NAME];
    const char *words[MAX_NAMES + 1] = {NULL};
    size_t count = 0;
    for (size_t i = 0; i < command->section_count; i++) {
        for (size_t k = 0; k < command->sections[i].count; k++) {
            const char *names = command->sections[i].options[k].names, *name;
            for (size_t length; (length = pi2_cli_next_name(&names, &name)) > 0;) {
                if (count == MAX_NAMES || length >= LONGEST_NAME) continue;
                memcpy(storage[count], name, length);
                storage[count][length] = '\0';
                words[count] = storage[count];
                count++;
            }
        }
    }
    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++) {
        if (!is_among(elsewhere[i].names, word, strcspn(word, "="))) continue;
        return pi2_cli_usage_error("%s: unknown option '%s'; %s", command->name, word, elsewhere[i].instead);
    }
    const char *nearest = pi2_cli_nearest(word, words);
    if (nearest) {
        return pi2_cli_usage_error("%s: unknown option '%s'; did you mean '%s'?", command->name, word,
                                   nearest);
    }
    return pi2_cli_usage_error("%s: unknown option '%s'; 'powerinfer2 %s --help' lists them all",
                               command->name, word, command->name);
}

static int set_integer(const pi2_cli_option *option, const char *name, const char *value, void *target) {
    char *end = NULL;
    errno = 0;
    const long long number = strtoll(value, &end, 10);
    if (end == value || *end || errno) {
        return pi2_cli_usage_error("%s: '%s' is not a whole number", name, value);
    }
    if ((option->minimum || option->maximum) &&
        (number < option->minimum || number > option->maximum)) {
        return pi2_cli_usage_error("%s: %lld lies outside %lld .. %lld", name, number,
                                   (long long)option->minimum, (long long)option->maximum);
    }
    *(int64_t *)target = number;
    return PI2_CLI_GO_ON;
}

static int set_number(const pi2_cli_option *option, const char *name, const char *value, void *target) {
    char *end = NULL;
    const double number = strtod(value, &end);
    if (end == value || *end || !isfinite(number)) {
        return pi2_cli_usage_error("%s: '%s' is not a number", name, value);
    }
    if ((option->minimum || option->maximum) &&
        (number < (double)option->minimum || number > (double)option->maximum)) {
        return pi2_cli_usage_error("%s: %g lies outside %lld .. %lld", name, number,
                                   (long long)option->minimum, (long long)option->maximum);
    }
    *(double *)target = number;
    return PI2_CLI_GO_ON;
}

bool pi2_cli_is_choice(const char *words, const char *value) {
    for (const char *word = words; *word;) {
        const size_t length = strcspn(word, "|");
        if (strlen(value) == length && memcmp(word, value, length) == 0) return true;
        word += length + (word[length] == '|');
    }
    return false;
}

static int set_choice(const pi2_cli_option *option, const char *name, const char *value, void *target) {
    if (!pi2_cli_is_choice(option->argument, value)) {
        return pi2_cli_usage_error("%s: '%s' is none of %s", name, value, option->argument);
    }
    *(const char **)target = value;
    return PI2_CLI_GO_ON;
}

static int set_texts(const char *name, const char *value, void *target) {
    pi2_cli_texts *texts = target;
    if (texts->count == PI2_CLI_MAX_TEXTS) {
        return pi2_cli_usage_error("%s: given more than %d times", name, (int)PI2_CLI_MAX_TEXTS);
    }
    texts->items[texts->count++] = value;
    return PI2_CLI_GO_ON;
}

static struct { const pi2_cli_option *rows[MOST_GIVEN]; size_t count; } given;

static void note_given(const pi2_cli_option *option) {
    if (!pi2_cli_was_given(option) && given.count < MOST_GIVEN) given.rows[given.count++] = option;
}

bool pi2_cli_was_given(const pi2_cli_option *option) {
    for (size_t i = 0; i < given.count; i++) {
        if (given.rows[i] == option) return true;
    }
    return false;
}

/** value is NULL for flags. `name` is how the user wrote the option. */
static int set(const pi2_cli_option *option, const char *name, const char *value, void *settings) {
    void *target = (char *)settings + option->offset;
    switch (option->kind) {
    case PI2_CLI_FLAG: *(bool *)target = true; return PI2_CLI_GO_ON;
    case PI2_CLI_TEXT: *(const char **)target = value; return PI2_CLI_GO_ON;
    case PI2_CLI_TEXTS:
    case PI2_CLI_FILES: return set_texts(name, value, target);
    case PI2_CLI_CHOICE: return set_choice(option, name, value, target);
    case PI2_CLI_INTEGER: return set_integer(option, name, value, target);
    case PI2_CLI_NUMBER: return set_number(option, name, value, target);
    case PI2_CLI_SIZE:
        if (pi2_parse_size(value, target) == PI2_OK) return PI2_CLI_GO_ON;
        return pi2_cli_usage_error("%s: %s", name, pi2_error_text());
    case PI2_CLI_NO_EFFECT:
    case PI2_CLI_NO_EFFECT_VALUE:
    case PI2_CLI_NO_EFFECT_SWITCH:
        pi2_cli_warn("%s has no effect here%s%s", name, *option->help ? ": " : "", option->help);
        return PI2_CLI_GO_ON;
    case PI2_CLI_SILENT:
    case PI2_CLI_SILENT_SWITCH: return PI2_CLI_GO_ON;
    }
    return PI2_CLI_GO_ON;
}

bool pi2_cli_takes_argument(pi2_cli_kind kind) {
    return kind != PI2_CLI_FLAG && kind != PI2_CLI_NO_EFFECT && kind != PI2_CLI_SILENT &&
           kind != PI2_CLI_NO_EFFECT_SWITCH && kind != PI2_CLI_SILENT_SWITCH;
}

static bool is_switch_word(const char *word) {
    return word && (strcmp(word, "on") == 0 || strcmp(word, "off") == 0 || strcmp(word, "auto") == 0 ||
                    strcmp(word, "0") == 0 || strcmp(word, "1") == 0);
}

/** The first variable of "A, B" that is set, and not to nothing; its name goes to name_out. NULL: none is. */
static const char *from_environment(const char *names, char name_out[LONGEST_NAME + 1]) {
    const char *name;
    for (size_t length; names && (length = pi2_cli_next_name(&names, &name)) > 0;) {
        (void)snprintf(name_out, LONGEST_NAME + 1, "%.*s", (int)length, name);
        const char *value = getenv(name_out);
        if (value && *value) return value;
    }
    return NULL;
}

static int set_defaults(const pi2_cli_command *command) {
    char name[LONGEST_NAME + 1];
    for (size_t i = 0; i < command->section_count; i++) {
        const pi2_cli_section *section = &command->sections[i];
        for (size_t k = 0; k < section->count; k++) {
            const pi2_cli_option *option = &section->options[k];
            int code = PI2_CLI_GO_ON;
            if (option->fallback) code = set(option, option->names, option->fallback, section->settings);
            const char *value = from_environment(option->environment, name);
            if (code == PI2_CLI_GO_ON && value) {
                code = set(option, name, value, section->settings);
                note_given(option);
            }
            if (code != PI2_CLI_GO_ON) return code;
        }
    }
    return PI2_CLI_GO_ON;
}

/** Takes the first file, and those behind arguments[*index]. */
static int take_files(const pi2_cli_option *option, const char *name, const char *first, int argument_count,
                      char **arguments, int *index, void *settings) {
    int code = set(option, name, first, settings);
    while (code == PI2_CLI_GO_ON && *index + 1 < argument_count && arguments[*index + 1][0] != '-') {
        code = set(option, name, arguments[++*index], settings);
    }
    return code;
}

/** Takes the option at arguments[*index], and its argument. */
static int take(const pi2_cli_command *command, int argument_count, char **arguments, int *index) {
    const char *word = arguments[*index];
    const char *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    const size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const pi2_cli_section *section = NULL;
    const pi2_cli_option *option = find(command, word, length, &section);
    if (!option) return unknown_option(command, word);
    char name[LONGEST_NAME + 1];
    (void)snprintf(name, sizeof name, "%.*s", (int)length, word);
    note_given(option);
    const char *next = *index + 1 < argument_count ? arguments[*index + 1] : NULL;
    const char *value = NULL;
    if (pi2_cli_takes_argument(option->kind)) {
        value = equals ? equals + 1 : next;
        if (!value) {
            return pi2_cli_usage_error("%s: %s needs an argument: %s", command->name, name,
                                       option->argument);
        }
        if (!equals) (*index)++;
        if (option->kind == PI2_CLI_FILES) return take_files(option, name, value, argument_count, arguments, index,
                                                             section->settings);
    } else if (option->kind == PI2_CLI_NO_EFFECT_SWITCH || option->kind == PI2_CLI_SILENT_SWITCH) {
        if (!equals && is_switch_word(next)) (*index)++;
    } else if (equals) {
        return pi2_cli_usage_error("%s: %s takes no argument", command->name, name);
    }
    return set(option, name, value, section->settings);
}

/**
 * What is obeyed before anything can be wrong or warned about: help, and quiet. An option's argument is none
 * of both, whatever it reads like. Returns whether help is asked for.
 */
static bool look_through(const pi2_cli_command *command, int argument_count, char **arguments) {
    for (int i = 1; i < argument_count; i++) {
        const char *word = arguments[i];
        const pi2_cli_section *section = NULL;
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return true;
        const pi2_cli_option *option = find(command, word, strlen(word), &section);
        if (option && option->kind == PI2_CLI_FLAG && has_name(option, "--quiet", 7)) pi2_cli_set_quiet(true);
        if (option && pi2_cli_takes_argument(option->kind)) i++;
    }
    return false;
}

int pi2_cli_parse(const pi2_cli_command *command, int argument_count, char **arguments) {
    if (look_through(command, argument_count, arguments)) return pi2_cli_print_help(command);
    given.count = 0;
    int code = set_defaults(command);
    for (int i = 1; i < argument_count && code == PI2_CLI_GO_ON; i++) {
        if (arguments[i][0] != '-') {
            return pi2_cli_usage_error("%s: unexpected argument '%s'; 'powerinfer2 %s --help' says more",
                                       command->name, arguments[i], command->name);
        }
        code = take(command, argument_count, arguments, &i);
    }
    return code;
}
