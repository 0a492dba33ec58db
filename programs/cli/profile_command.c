/* profile_command.c: "powerinfer2 profile": counts over texts, into a file of statistics; or adds such files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "engine_options.h"
#include "output.h"
#include "powerinfer2/profile.h"
#include "processes.h"
#include "signals.h"
#include "sparsity_report.h"

enum { DEFAULT_CONTEXT = 512, MOST_PARTS = 64 };

typedef struct profile_settings {
    pi2_cli_texts texts, merge;
    const char *output, *part, *plot;
    int64_t tokens;
    uint32_t part_number, part_count; /* of --part: from 1 */
    bool resume, json;
} profile_settings;

#define PROFILE(field) offsetof(profile_settings, field)
static const pi2_cli_option profile_options[] = {
    {"-f, --file", "TEXT...", PI2_CLI_FILES, PROFILE(texts), NULL,
     "The texts, at most 16. They are read twice, so files and no pipes.", NULL, 0, 0},
    {"-o, --output", "FILE", PI2_CLI_TEXT, PROFILE(output), NULL,
     "Where the statistics go, for 'prepare --statistics FILE'.", NULL, 0, 0},
    {"--tokens", "N", PI2_CLI_INTEGER, PROFILE(tokens), "0",
     "Tokens of each text at most, rounded up to whole chunks (-c); 0: all.", NULL, 0, UINT32_MAX},
    {"--part", "K/N", PI2_CLI_TEXT, PROFILE(part), NULL,
     "Counts the K-th of N parts of each text, that is chunks K, K+N, ...: so N processes, at most 64, share a text. "
     "Merged, the N files are that of one run.", NULL, 0, 0},
    {"--resume", NULL, PI2_CLI_FLAG, PROFILE(resume), NULL,
     "Goes on with the statistics in FILE: after Ctrl-C, with a larger --tokens, or with more texts. The result is "
     "that of one run.", NULL, 0, 0},
    {"--merge", "FILE...", PI2_CLI_FILES, PROFILE(merge), NULL,
     "Counts nothing: adds statistics of one model, counted over different texts or parts, at most 16 files. So "
     "several processes share the work.", NULL, 0, 0},
    {"--plot", "NAME", PI2_CLI_TEXT, PROFILE(plot), NULL,
     "Plots activation by rank, sparsity and repetition by layer: NAME.gnuplot (commands and data) and, where gnuplot "
     "is installed, NAME.svg.", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, PROFILE(json), NULL, "Prints one JSON value instead of a table.", NULL, 0, 0},
};

/** The texts as a list that ends with NULL. */
static void list_paths(const pi2_cli_texts *texts, const char *paths[PI2_CLI_MAX_TEXTS + 1]) {
    for (size_t i = 0; i < texts->count; i++) paths[i] = texts->items[i];
    paths[texts->count] = NULL;
}

/** Whether a plot may be written, before what takes long. */
static pi2_status check_plot(const profile_settings *settings, const char *model) {
    const pi2_cli_texts *read = settings->merge.count ? &settings->merge : &settings->texts;
    const char *inputs[PI2_CLI_MAX_TEXTS + 3];
    size_t count = 0;
    if (!settings->plot) return PI2_OK;
    for (; count < read->count; count++) inputs[count] = read->items[count];
    inputs[count++] = settings->output;
    if (model) inputs[count++] = model;
    inputs[count] = NULL;
    return pi2_sparsity_check_plot(settings->plot, inputs);
}

static pi2_status plot(const profile_settings *settings, const pi2_sparsity *sparsity) {
    const char *name = settings->plot;
    bool is_drawn = false;
    if (!name) return PI2_OK;
    const pi2_status status = pi2_sparsity_plot(sparsity, name, &is_drawn);
    if (status != PI2_OK) return status;
    if (is_drawn) pi2_cli_note("%s.gnuplot, %s.svg: the plot", name, name);
    else pi2_cli_note("%s.gnuplot: the plot; gnuplot, which draws it, is not installed", name);
    return PI2_OK;
}

/** Tells what was counted, or why nothing was. */
static int finish(pi2_status status, const profile_settings *settings, pi2_sparsity *sparsity) {
    pi2_cli_clear_progress();
    int code = PI2_EXIT_OK;
    if (status == PI2_OK) {
        pi2_cli_note("%s: %u tokens are counted", settings->output, sparsity->token_count);
        status = plot(settings, sparsity);
    }
    if (status != PI2_OK) code = pi2_cli_failed(status);
    if (status == PI2_OK) code = pi2_cli_report_sparsity(sparsity, settings->json);
    pi2_sparsity_free(sparsity);
    return code;
}

static int merge(const profile_settings *settings, const pi2_cli_model_settings *model) {
    const char *paths[PI2_CLI_MAX_TEXTS + 1];
    pi2_sparsity *sparsity = NULL;
    pi2_cli_set_quiet(model->quiet);
    if (settings->texts.count || settings->resume || settings->tokens || settings->part) {
        return pi2_cli_usage_error("profile: --merge counts nothing: leave out -f, --tokens, --part and --resume");
    }
    list_paths(&settings->merge, paths);
    pi2_status status = check_plot(settings, NULL);
    if (status == PI2_OK) status = pi2_profile_merge(paths, settings->output, &sparsity);
    return finish(status, settings, sparsity);
}

/** Counts this process's part into `output`. */
static pi2_status count_part(const profile_settings *settings, const pi2_engine_options *options, const char *output,
                             pi2_sparsity **sparsity_out) {
    const char *paths[PI2_CLI_MAX_TEXTS + 1];
    pi2_engine *engine = NULL;
    list_paths(&settings->texts, paths);
    const pi2_profile_options profile = {.text_paths = paths, .text_tokens = (uint64_t)settings->tokens,
                                         .output_path = output, .resume = settings->resume,
                                         .part = settings->part_number - 1, .part_count = settings->part_count};
    pi2_status status = check_plot(settings, options->model_path);
    if (status == PI2_OK) status = pi2_engine_open(options, &engine);
    if (status == PI2_OK) status = pi2_profile_texts(engine, &profile, sparsity_out);
    if (status == PI2_OK) status = pi2_engine_finish_trace(engine);
    pi2_engine_close(engine);
    return status;
}

static int count(const profile_settings *settings, const pi2_engine_options *options) {
    pi2_sparsity *sparsity = NULL;
    const pi2_status status = count_part(settings, options, settings->output, &sparsity);
    return finish(status, settings, sparsity);
}

/* ---- under mpirun: each process counts a part into a file beside the output; the first adds them up ---- */

enum { PART_PATH_BYTES = 1024 };

static bool name_part(char path[PART_PATH_BYTES], const char *output, uint32_t number, uint32_t count) {
    const int length = snprintf(path, PART_PATH_BYTES, "%s.part%uof%u", output, (unsigned)number, (unsigned)count);
    return length > 0 && length < PART_PATH_BYTES;
}

/** Merges the parts, which are not needed any more then. */
static int add_parts(const profile_settings *settings, uint32_t count) {
    static char names[MOST_PARTS][PART_PATH_BYTES];
    const char *paths[MOST_PARTS + 1] = {NULL};
    pi2_sparsity *sparsity = NULL;
    for (uint32_t i = 0; i < count; i++) {
        (void)name_part(names[i], settings->output, i + 1, count);
        paths[i] = names[i];
    }
    const pi2_status status = pi2_profile_merge(paths, settings->output, &sparsity);
    const int code = finish(status, settings, sparsity);
    for (uint32_t i = 0; i < count && code == PI2_EXIT_OK; i++) (void)remove(names[i]);
    return code;
}

static int share(profile_settings *settings, const pi2_engine_options *options, pi2_cli_processes processes) {
    char path[PART_PATH_BYTES];
    const char *inputs[PI2_CLI_MAX_TEXTS + 1];
    pi2_sparsity *sparsity = NULL;
    settings->part_number = processes.number + 1;
    settings->part_count = processes.count;
    if (processes.number > 0) pi2_cli_set_quiet(true);
    if (settings->part || processes.count > MOST_PARTS ||
        !name_part(path, settings->output, processes.count, processes.count)) {
        return pi2_cli_usage_error("profile: under mpirun there are at most %d processes, with an output whose name is "
                                   "not too long, and no --part", (int)MOST_PARTS);
    }
    (void)name_part(path, settings->output, processes.number + 1, processes.count);
    list_paths(&settings->texts, inputs);
    pi2_status status = pi2_profile_check_place(settings->output, inputs);
    if (status == PI2_OK) status = count_part(settings, options, path, &sparsity);
    pi2_sparsity_free(sparsity);
    pi2_cli_clear_progress();
    const int code = status == PI2_OK ? PI2_EXIT_OK : pi2_cli_failed(status);
    if (!pi2_cli_all_are_well(code == PI2_EXIT_OK)) {
        return code == PI2_EXIT_OK ? PI2_EXIT_IO : code; /* another one has said why */
    }
    return processes.number == 0 ? add_parts(settings, processes.count) : PI2_EXIT_OK;
}

/** "K/N" of --part; without it part 1 of 1. */
static int read_part(profile_settings *settings) {
    char *end = NULL;
    settings->part_number = settings->part_count = 1;
    if (!settings->part) return PI2_CLI_GO_ON;
    const unsigned long number = strtoul(settings->part, &end, 10);
    const bool has_slash = end != settings->part && *end == '/';
    const char *behind = has_slash ? end + 1 : end;
    const unsigned long count = has_slash ? strtoul(behind, &end, 10) : 0;
    const bool is_plain = strspn(settings->part, "0123456789/") == strlen(settings->part) && end != behind && !*end;
    if (!is_plain || number < 1 || number > count || count > MOST_PARTS) {
        return pi2_cli_usage_error("profile: --part wants K/N, K of 1 to N, N at most %d: '%s' is not that",
                                   (int)MOST_PARTS, settings->part);
    }
    settings->part_number = (uint32_t)number;
    settings->part_count = (uint32_t)count;
    return PI2_CLI_GO_ON;
}

int pi2_cli_profile(int argument_count, char **arguments) {
    static profile_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {
        {"Counting", profile_options, sizeof profile_options / sizeof profile_options[0], &settings},
        pi2_cli_model_section(&model), pi2_cli_size_section(&size), pi2_cli_no_effect_section()};
    const pi2_cli_command command = {
        "profile",
        "-m MODEL -f TEXT... -o STATISTICS [options]\n       powerinfer2 profile --merge FILE... -o STATISTICS",
        "Runs texts through a model and counts how often each neuron of its FFNs fires, and what repeats "
        "(docs/sparsity.md). Texts are cut into chunks of -c tokens, otherwise 512, each of which begins anew.",
        sections, sizeof sections / sizeof sections[0]};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    if (!settings.output) return pi2_cli_usage_error("profile: no file for the statistics: give one with -o FILE");
    code = read_part(&settings);
    if (code != PI2_CLI_GO_ON) return code;
    if (settings.merge.count) return merge(&settings, &model);
    pi2_engine_options options;
    code = pi2_cli_fill_options(&model, &size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    if (settings.texts.count == 0) return pi2_cli_usage_error("profile: no text: give one with -f FILE");
    if (options.context_tokens == 0) options.context_tokens = DEFAULT_CONTEXT;
    options.counts_neurons = true;
    options.sparsity = "off"; /* what is counted is computed whole */
    pi2_cli_catch_signals();
    const pi2_cli_processes processes = pi2_cli_join_processes();
    code = processes.count > 1 ? share(&settings, &options, processes) : count(&settings, &options);
    pi2_cli_leave_processes();
    return code;
}
