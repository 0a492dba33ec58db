/*
 * guesses_command.c: "powerinfer2 guesses": makes what guesses come from: a table, where earlier text has none, or with
 * --shortcut a map by which what is in memory of a model guesses.
 */
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "engine_options.h"
#include "output.h"
#include "powerinfer2/next_table.h"
#include "powerinfer2/model_shortcut.h"
#include "powerinfer2/sizes.h"
#include "signals.h"

enum { SEQUENCES = 16, CONTEXT = 32 };

typedef struct shortcut_settings {
    const char *layers, *output;
    pi2_cli_texts texts;
    int64_t tokens;
    bool is_wanted;
} shortcut_settings;

#define SHORTCUT(field) offsetof(shortcut_settings, field)
static const pi2_cli_option shortcut_options[] = {
    {"--shortcut", NULL, PI2_CLI_FLAG, SHORTCUT(is_wanted), NULL,
     "Makes a map that stands for the model's middle layers, so that what --memory holds of a model that streams "
     "guesses for it. It lies beside the model, as MODEL.shortcut, and is used by itself. The options below are for "
     "it.",
     NULL, 0, 0},
    {"--layers", "FIRST,END", PI2_CLI_TEXT, SHORTCUT(layers), NULL,
     "Layers that are left out: from FIRST, counted from 0, up to but not END. Otherwise all but about three in eight, "
     "most of these at the end, or fewer where --memory has no room for them.", NULL, 0, 0},
    {"--tokens", "N", PI2_CLI_INTEGER, SHORTCUT(tokens), "30000",
     "Tokens that the model writes for it, about, and of the texts at most. More are better.", NULL, 1, INT32_MAX},
    {"-f, --file", "TEXT...", PI2_CLI_FILES, SHORTCUT(texts), NULL, "Texts to learn from as well, at most 16 files.",
     NULL, 0, 0},
    {"-o, --output", "FILE", PI2_CLI_TEXT, SHORTCUT(output), NULL,
     "Where to write it; 'run -md FILE' uses it then.", NULL, 0, 0},
};

static int make_table(pi2_engine_options *options) {
    char path[PI2_NEXT_TABLE_PATH_BYTES];
    pi2_engine *engine = NULL;
    options->sequences = SEQUENCES;
    options->context_tokens = CONTEXT;
    options->draft_tokens = 0;
    pi2_cli_catch_signals();
    pi2_status status = pi2_engine_open(options, &engine);
    if (status == PI2_OK) status = pi2_next_table_make(engine, path);
    pi2_engine_close(engine);
    pi2_cli_clear_progress();
    if (status != PI2_OK) return pi2_cli_failed(status);
    pi2_cli_note("%s: the table is made", path);
    return PI2_EXIT_OK;
}

/* ---- --shortcut ---- */

/* "2,16". Returns PI2_CLI_GO_ON, or the exit code after an error line. */
static int read_layers(const char *text, pi2_shortcut_request *request) {
    char rest = 0;
    if (!text) return PI2_CLI_GO_ON;
    const bool is_number = *text >= '0' && *text <= '9';
    if (is_number && sscanf(text, "%9u,%9u%c", &request->first_layer, &request->end_layer, &rest) == 2) {
        if (request->first_layer < request->end_layer) return PI2_CLI_GO_ON;
    }
    return pi2_cli_usage_error("guesses: --layers wants two numbers such as 2,16, the second one larger: '%s' is "
                               "neither", text);
}

static void print_report(const pi2_shortcut_report *report) {
    char size[PI2_SIZE_TEXT_BYTES];
    const uint32_t kept = report->layer_count - (report->end_layer - report->first_layer);
    pi2_cli_note("%s: the shortcut is made of %llu tokens; %u of %u layers and the head stay in memory for it, %s "
                 "(without layers %u to %u)", report->path, (unsigned long long)report->tokens, kept,
                 report->layer_count, pi2_format_size(report->kept_bytes, size), report->first_layer,
                 report->end_layer - 1);
    if (report->counted == 0) return;
    pi2_cli_note("of %llu tokens of other answers it names %.0f %% first, %.0f %% among eight",
                 (unsigned long long)report->counted, 100.0 * (double)report->first / (double)report->counted,
                 100.0 * (double)report->among_eight / (double)report->counted);
}

static int make_shortcut(const pi2_engine_options *options, const shortcut_settings *settings) {
    const char *paths[PI2_CLI_MAX_TEXTS + 1] = {NULL};
    for (size_t i = 0; i < settings->texts.count; i++) paths[i] = settings->texts.items[i];
    pi2_shortcut_request request = {.tokens = (uint64_t)settings->tokens, .texts = paths,
                                    .output_path = settings->output};
    static pi2_shortcut_report report;
    const int code = read_layers(settings->layers, &request);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_catch_signals();
    const pi2_status status = pi2_shortcut_make(options, &request, &report);
    pi2_cli_clear_progress();
    if (status != PI2_OK) return pi2_cli_failed(status);
    print_report(&report);
    return PI2_EXIT_OK;
}

int pi2_cli_guesses(int argument_count, char **arguments) {
    static shortcut_settings shortcut;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {
        {"Shortcuts", shortcut_options, sizeof shortcut_options / sizeof shortcut_options[0], &shortcut},
        pi2_cli_model_section(&model), pi2_cli_size_section(&size), pi2_cli_no_effect_section()};
    const pi2_cli_command command = {
        "guesses", "-m MODEL [--shortcut] [options]",
        "Makes a table of what the model says behind each token of its vocabulary, for guesses ahead where earlier "
        "text has none (docs/guesses.md). It lies beside the model, as MODEL.next-tokens, and is used by itself.",
        sections, sizeof sections / sizeof sections[0]};
    pi2_engine_options options;
    int code = pi2_cli_parse_run(&command, argument_count, arguments, &model, &size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    const bool has_more = shortcut.layers || shortcut.output || shortcut.texts.count ||
                          pi2_cli_was_given(&shortcut_options[2]);
    if (has_more && !shortcut.is_wanted) {
        return pi2_cli_usage_error("guesses: --layers, --tokens, --file and --output are for --shortcut");
    }
    return shortcut.is_wanted ? make_shortcut(&options, &shortcut) : make_table(&options);
}
