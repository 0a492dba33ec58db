/*
 * options.h: what a command accepts, in one table per topic.
 *
 * A row holds an option's spellings, its argument, default, environment twin and help text. The
 * parser and --help both work from the rows, so that the help is complete and true by construction;
 * the printed default is the very text from which the setting gets its value.
 */
#ifndef PI2_CLI_OPTIONS_H
#define PI2_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pi2_cli_kind {
    PI2_CLI_FLAG,      /* bool: becomes true */
    PI2_CLI_TEXT,      /* const char * */
    PI2_CLI_TEXTS,     /* pi2_cli_texts: may be given again */
    PI2_CLI_FILES,     /* the same, and takes all arguments that follow up to the next option */
    PI2_CLI_CHOICE,    /* const char *: one of the words in `argument`, separated by '|' */
    PI2_CLI_INTEGER,   /* int64_t within minimum .. maximum */
    PI2_CLI_NUMBER,    /* double, finite, within minimum .. maximum */
    PI2_CLI_SIZE,      /* uint64_t bytes; see powerinfer2/sizes.h */
    PI2_CLI_NO_EFFECT, /* known from llama.cpp, means nothing here: a warning */
    PI2_CLI_NO_EFFECT_VALUE, /* the same with an argument */
    PI2_CLI_NO_EFFECT_SWITCH, /* the same with an argument where "on", "off" or "auto" follows */
    PI2_CLI_SILENT,    /* known from llama.cpp, asks for what happens anyway */
    PI2_CLI_SILENT_SWITCH
} pi2_cli_kind;

enum { PI2_CLI_MAX_TEXTS = 16 };
typedef struct pi2_cli_texts {
    const char *items[PI2_CLI_MAX_TEXTS];
    size_t count;
} pi2_cli_texts;

typedef struct pi2_cli_option {
    const char *names;        /* every spelling: "-m, --model" */
    const char *argument;     /* "FILE"; NULL: none */
    pi2_cli_kind kind;
    size_t offset;            /* of the setting in the section's struct */
    const char *fallback;     /* default; NULL: the setting starts as zero */
    const char *help;
    const char *environment;  /* variables that stand in for the option, the first that is set: "A, B"; NULL: none */
    int64_t minimum, maximum; /* INTEGER and NUMBER; both 0: any */
} pi2_cli_option;

/** Options that share a heading and a struct. */
typedef struct pi2_cli_section {
    const char *title;
    const pi2_cli_option *options;
    size_t count;
    void *settings;
} pi2_cli_section;

typedef struct pi2_cli_command {
    const char *name;
    const char *usage;       /* arguments after the name: "-m MODEL -p TEXT [options]" */
    const char *description; /* some sentences */
    const pi2_cli_section *sections;
    size_t section_count;
} pi2_cli_command;

enum { PI2_CLI_GO_ON = -1 };

/**
 * Sets defaults, then the environment, then the command line (arguments[0] is the command's name).
 * Prints help or one error line. Returns PI2_CLI_GO_ON, or the exit code to leave with.
 */
int pi2_cli_parse(const pi2_cli_command *command, int argument_count, char **arguments);

/** Whether the last pi2_cli_parse() found this row on the command line, or its variable in the environment. */
bool pi2_cli_was_given(const pi2_cli_option *option);

/** Whether an option of this kind is followed by its argument. */
bool pi2_cli_takes_argument(pi2_cli_kind kind);

/** Whether the value is one of the words, which '|' separates. */
bool pi2_cli_is_choice(const char *words, const char *value);

/** The word among `words` (NULL-terminated) that a misspelt one is near, or NULL. */
const char *pi2_cli_nearest(const char *word, const char *const *words);

#endif
