/* prepare_command.c: "powerinfer2 prepare": writes a model's cluster file. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "engine_options.h"
#include "options.h"
#include "output.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/sizes.h"
#include "signals.h"

typedef struct prepare_settings {
    const char *model, *output, *ffn_activation, *layout, *statistics;
    uint64_t memory;
    bool force, quiet;
} prepare_settings;

#define PREPARE(field) offsetof(prepare_settings, field)
static const pi2_cli_option prepare_options[] = {
    {"-m, --model", "FILE", PI2_CLI_TEXT, PREPARE(model), NULL,
     "GGUF file (of a split model its first part).", "LLAMA_ARG_MODEL", 0, 0},
    {"-o, --output", "FILE", PI2_CLI_TEXT, PREPARE(output), NULL,
     "Where to write. Otherwise beside the model, or in the cache folder where the model's folder "
     "cannot be written.", NULL, 0, 0},
    {"--ffn-activation", PI2_CLI_FFN_ACTIVATIONS, PI2_CLI_CHOICE, PREPARE(ffn_activation), NULL,
     "Written into the file: what the FFN does with Gate and Up, for a model that was converted as llama or qwen2 "
     "and does not say that it is another (docs/sparsity.md).", NULL, 0, 0},
    {"--layout", "auto|dense|neuron|bundle", PI2_CLI_CHOICE, PREPARE(layout), "auto",
     "neuron: single neurons can be read too, for models whose activations are mostly zero. Up and Down then take "
     "their room on the disk twice. Such a file serves as a dense one as well. bundle: Gate too lies by neuron, for "
     "runs with a predictor. auto: neuron where the activation has exact zeros (docs/sparsity.md), else dense.", NULL,
     0, 0},
    {"--statistics", "FILE", PI2_CLI_TEXT, PREPARE(statistics), NULL,
     "How often neurons fire: those that fire often lie together in the neuron layout.", NULL, 0, 0},
    {"--memory", "SIZE", PI2_CLI_SIZE, PREPARE(memory), NULL,
     "Memory that the whole process may use. 0, or none given: 256 MB, or what is free.", NULL, 0, 0},
    {"--force", NULL, PI2_CLI_FLAG, PREPARE(force), NULL,
     "Makes it again when a good one is there, and replaces a file of another kind or another model's.", NULL, 0, 0},
    {"-q, --quiet", NULL, PI2_CLI_FLAG, PREPARE(quiet), NULL, "Only errors on stderr.", NULL, 0, 0},
};

static pi2_layout_kind layout_of(const char *word) {
    return strcmp(word, "neuron") == 0   ? PI2_LAYOUT_NEURON
           : strcmp(word, "bundle") == 0 ? PI2_LAYOUT_BUNDLE
           : strcmp(word, "dense") == 0  ? PI2_LAYOUT_DENSE
                                         : PI2_LAYOUT_AUTO;
}

int pi2_cli_prepare(int argument_count, char **arguments) {
    static prepare_settings settings;
    const pi2_cli_section sections[] = {
        {"Options", prepare_options, sizeof prepare_options / sizeof prepare_options[0], &settings}};
    const pi2_cli_command command = {
        "prepare", "-m MODEL [-o FILE] [--layout neuron]",
        "Writes the cluster file of a model: the layout from which weights are read when they do not fit "
        "in memory. 'run' does this by itself at a model's first use.",
        sections, 1};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_set_quiet(settings.quiet);
    if (!settings.model) return pi2_cli_usage_error("prepare: no model: give one with -m FILE");
    if (settings.statistics && strcmp(settings.layout, "dense") == 0) {
        return pi2_cli_usage_error("prepare: --statistics orders neurons: not with --layout dense");
    }
    pi2_cli_catch_signals();
    char *path = NULL;
    const pi2_prepare_options options = {.model_path = settings.model,
                                         .output_path = settings.output,
                                         .ffn_activation = settings.ffn_activation,
                                         .memory_bytes = settings.memory,
                                         .overwrite = settings.force,
                                         .layout = layout_of(settings.layout),
                                         .statistics_path = settings.statistics,
                                         .callbacks = pi2_cli_callbacks()};
    const pi2_status status = pi2_prepare_file(&options, &path);
    pi2_cli_clear_progress();
    if (status != PI2_OK) return pi2_cli_failed(status);
    struct stat info;
    char size[PI2_SIZE_TEXT_BYTES], peak[PI2_SIZE_TEXT_BYTES];
    if (stat(path, &info) == 0) {
        pi2_cli_note("%s: %s, ready after %.1f s (peak memory %s)", path,
                     pi2_format_size((uint64_t)info.st_size, size), pi2_cli_seconds_since_start(),
                     pi2_format_size(pi2_peak_memory_bytes(), peak));
    }
    free(path);
    return PI2_EXIT_OK;
}
