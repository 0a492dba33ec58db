/* predictor_command.c: "powerinfer2 predictor make|train|import|measure|balance": what foretells who matters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "commands.h"
#include "compare_logits.h"
#include "engine_options.h"
#include "output.h"
#include "powerinfer2/neuron_predictor.h"
#include "powerinfer2/sizes.h"
#include "signals.h"

enum { DEFAULT_CONTEXT = 512, BALANCE_CONTEXT = 256 };

typedef struct predictor_settings {
    const char *output;
    pi2_cli_texts texts;
    int64_t bits, tokens, epochs;
    uint64_t sample_memory;
    const char *rank, *kind;
    double recall, rate;
    bool json, resume;
} predictor_settings;

#define PREDICTOR(field) offsetof(predictor_settings, field)
static const pi2_cli_option make_options[] = {
    {"-o, --output", "FILE", PI2_CLI_TEXT, PREDICTOR(output), NULL,
     "Where to write. Otherwise beside the cluster file, where 'run' looks for it.", NULL, 0, 0},
    {"--bits", "N", PI2_CLI_INTEGER, PREDICTOR(bits), "2",
     "Bits of a weight's copy: 2, or 3, which foretell better and take half as much memory again.", NULL, 2, 3},
    {"--kind", "low-bit|svd", PI2_CLI_TEXT, PREDICTOR(kind), "low-bit",
     "svd: Gate and Up by the directions of their input that they have most of, a truncated singular value "
     "decomposition. The options below are for it; it wants -o.", NULL, 0, 0},
    {"--width", "N|auto", PI2_CLI_TEXT, PREDICTOR(rank), "auto",
     "Directions of a layer, a multiple of 32. auto: a tenth of the FFN's work; with texts as many of them as pay, by "
     "measured recall.", NULL, 0, 0},
    {"-f, --file", "TEXT...", PI2_CLI_FILES, PREDICTOR(texts), NULL,
     "Texts, at most 16 files, of which directions are weighed by what layers read. Without: by the weights of norms.",
     NULL, 0, 0},
    {"--tokens", "N", PI2_CLI_INTEGER, PREDICTOR(tokens), "2048", "Tokens of the texts at most; a fifth is held out.",
     NULL, 64, INT32_MAX},
    {"--recall", "X", PI2_CLI_NUMBER, PREDICTOR(recall), "0.96",
     "Share of the neurons that fire that each layer must name, of the tokens held out.", NULL, 0, 1},
    {"--sample-memory", "SIZE", PI2_CLI_SIZE, PREDICTOR(sample_memory), "512M",
     "Of --memory, for what layers read of the texts.", NULL, 0, 0},
};

static const pi2_cli_option measure_options[] = {
    {"-f, --file", "TEXT...", PI2_CLI_FILES, PREDICTOR(texts), NULL, "The texts, at most 16 files.", NULL, 0, 0},
    {"--tokens", "N", PI2_CLI_INTEGER, PREDICTOR(tokens), "4096",
     "Tokens of the texts at most, rounded up to a whole chunk (-c); 0: all.", NULL, 0, UINT32_MAX},
    {"--json", NULL, PI2_CLI_FLAG, PREDICTOR(json), NULL, "Prints one JSON value instead of a table.", NULL, 0, 0},
};

static const pi2_cli_option train_options[] = {
    {"-f, --file", "TEXT...", PI2_CLI_FILES, PREDICTOR(texts), NULL, "The texts, at most 16 files.", NULL, 0, 0},
    {"-o, --output", "FILE", PI2_CLI_TEXT, PREDICTOR(output), NULL, "Where the predictor goes.", NULL, 0, 0},
    {"--tokens", "N", PI2_CLI_INTEGER, PREDICTOR(tokens), "16384",
     "Tokens of the texts at most; a fifth of them is held out, to measure.", NULL, 64, INT32_MAX},
    {"--width", "N|auto", PI2_CLI_TEXT, PREDICTOR(rank), "auto",
     "Length of the vector between the two matrices, a multiple of 32. auto: chosen for each layer, as long as a "
     "longer one saves more work than it takes, up to a tenth of the FFN's.", NULL, 0, 0},
    {"--recall", "X", PI2_CLI_NUMBER, PREDICTOR(recall), "0.96",
     "Share of the neurons that fire that each layer must name, of the tokens held out.", NULL, 0, 1},
    {"--epochs", "N", PI2_CLI_INTEGER, PREDICTOR(epochs), "24",
     "Passes over the tokens at most; a layer that learns no more ends earlier.", NULL, 1, 10000},
    {"--rate", "X", PI2_CLI_NUMBER, PREDICTOR(rate), "0.004", "Rate of learning.", NULL, 0, 1000},
    {"--sample-memory", "SIZE", PI2_CLI_SIZE, PREDICTOR(sample_memory), "512M",
     "Of --memory, for what layers read and what fired: as many layers at once as it holds, each time with a pass over "
     "the texts.", NULL, 0, 0},
    {"--resume", NULL, PI2_CLI_FLAG, PREDICTOR(resume), NULL,
     "Passes over the layers that an interrupted run left in FILE.part.", NULL, 0, 0},
};

static const pi2_cli_option balance_options[] = {
    {"-f, --file", "TEXT...", PI2_CLI_FILES, PREDICTOR(texts), NULL, "The texts, at most 16 files.", NULL, 0, 0},
    {"--tokens", "N", PI2_CLI_INTEGER, PREDICTOR(tokens), "512",
     "Tokens of the texts at most, rounded up to a whole chunk (-c); 0: all. Each takes three passes for each layer.",
     NULL, 0, UINT32_MAX},
    {"--json", NULL, PI2_CLI_FLAG, PREDICTOR(json), NULL, "Prints one JSON value instead of a table.", NULL, 0, 0},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- make ---- */

/** "auto" is 0. */
static int read_width(const char *action, const char *text, uint32_t *rank_out) {
    char *end = NULL;
    *rank_out = 0;
    if (strcmp(text, "auto") == 0) return PI2_CLI_GO_ON;
    const unsigned long rank = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
    if (rank == 0 || *end != '\0' || rank % 32 || rank > 8192) {
        return pi2_cli_usage_error("predictor %s: --width wants auto, or a multiple of 32 up to 8192: '%s' is "
                                   "neither", action, text);
    }
    *rank_out = (uint32_t)rank;
    return PI2_CLI_GO_ON;
}

static void list_paths(const pi2_cli_texts *texts, const char *paths[PI2_CLI_MAX_TEXTS + 1]) {
    for (size_t i = 0; i < texts->count; i++) paths[i] = texts->items[i];
    paths[texts->count] = NULL;
}

static pi2_status make_kind(const pi2_engine_options *options, const predictor_settings *settings, uint32_t rank,
                            char **path) {
    const char *paths[PI2_CLI_MAX_TEXTS + 1];
    if (strcmp(settings->kind, "svd") != 0) {
        return pi2_predictor_make(options, (uint32_t)settings->bits, settings->output, path);
    }
    pi2_predictor_svd svd;
    pi2_predictor_svd_init(&svd);
    svd.output_path = settings->output;
    svd.rank = rank;
    svd.recall = settings->recall;
    svd.sample_bytes = settings->sample_memory;
    list_paths(&settings->texts, paths);
    const pi2_predictor_texts texts = {.paths = paths, .tokens = (uint64_t)settings->tokens};
    const pi2_status status = pi2_predictor_make_svd(options, settings->texts.count ? &texts : NULL, &svd);
    *path = status == PI2_OK ? strdup(settings->output) : NULL;
    return status;
}

static int make(int argument_count, char **arguments) {
    static predictor_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {{"Making", make_options, COUNT(make_options), &settings},
                                        pi2_cli_model_section(&model), pi2_cli_size_section(&size)};
    const pi2_cli_command command = {
        "predictor make", "-m MODEL [-o FILE] [--bits 3] [--kind svd]",
        "Makes a predictor of a model's weights: copies of Gate and Up with 2 or 3 bits, or their main directions. It "
        "needs no training and no text. 'run --sparsity SHARE' makes copies of 2 bits by itself.",
        sections, COUNT(sections)};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_engine_options options;
    char *path = NULL, text[PI2_SIZE_TEXT_BYTES];
    uint32_t rank = 0;
    const bool is_svd = strcmp(settings.kind, "svd") == 0;
    if (!is_svd && strcmp(settings.kind, "low-bit") != 0) {
        return pi2_cli_usage_error("predictor make: unknown kind '%s': low-bit or svd", settings.kind);
    }
    if (is_svd && !settings.output) return pi2_cli_usage_error("predictor make: an svd wants a place: give -o FILE");
    if (!is_svd && settings.texts.count) {
        return pi2_cli_usage_error("predictor make: copies need no text: leave -f out, or give --kind svd");
    }
    code = read_width("make", settings.rank, &rank);
    if (code != PI2_CLI_GO_ON) return code;
    code = pi2_cli_fill_options(&model, &size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    if (is_svd && options.context_tokens == 0) options.context_tokens = DEFAULT_CONTEXT;
    pi2_cli_catch_signals();
    const pi2_status status = make_kind(&options, &settings, rank, &path);
    pi2_cli_clear_progress();
    if (status != PI2_OK) return pi2_cli_failed(status);
    pi2_cli_note("%s: ready after %.1f s (peak memory %s)", path, pi2_cli_seconds_since_start(),
                 pi2_format_size(pi2_peak_memory_bytes(), text));
    free(path);
    return PI2_EXIT_OK;
}

/* ---- import ---- */

static const pi2_cli_option import_options[] = {
    {"-o, --output", "FILE", PI2_CLI_TEXT, PREDICTOR(output), NULL, "Where the predictor goes.", NULL, 0, 0},
};

static int import(int argument_count, char **arguments) {
    static predictor_settings settings;
    static pi2_cli_model_settings model;
    const pi2_cli_section sections[] = {{"Importing", import_options, COUNT(import_options), &settings},
                                        pi2_cli_model_section(&model)};
    const pi2_cli_command command = {
        "predictor import", "-m MODEL -o FILE",
        "Takes the predictors out of a PowerInfer file (*.powerinfer.gguf, or a cluster file made from one), for 'run "
        "--sparsity auto --predictor FILE'. Of models with RMS norms.",
        sections, COUNT(sections)};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_engine_options options;
    code = pi2_cli_fill_options(&model, NULL, &options);
    if (code != PI2_CLI_GO_ON) return code;
    if (!settings.output) return pi2_cli_usage_error("predictor import: no output: give one with -o FILE");
    options.sparsity = "off";
    options.predictor = NULL;
    pi2_cli_catch_signals();
    const pi2_status status = pi2_predictor_import(&options, settings.output);
    pi2_cli_clear_progress();
    if (status != PI2_OK) return pi2_cli_failed(status);
    pi2_cli_note("%s: ready after %.1f s", settings.output, pi2_cli_seconds_since_start());
    return PI2_EXIT_OK;
}

/* ---- measure ---- */

static void print_layer(const char *name, const pi2_predictor_layer_measure *layer) {
    char bytes[PI2_SIZE_TEXT_BYTES];
    (void)printf("%-6s %6.2f %% %9.2f %% %9.2f %% %9.2f %% %9.2f %% %10s %9.1f\n", name, 100 * layer->recall,
                 100 * layer->precision, 100 * layer->wanted, 100 * layer->named, 100 * layer->magnitude,
                 pi2_format_size(layer->bytes, bytes), layer->microseconds);
}

static int print_table(const pi2_predictor_measurement *measurement) {
    pi2_cli_print_line("%s, %llu tokens", measurement->kind, (unsigned long long)measurement->token_count);
    pi2_cli_print_line("layer    recall   precision      wanted       named   magnitude      bytes  us/token");
    for (uint32_t i = 0; i < measurement->layer_count; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%u", (unsigned)i);
        print_layer(name, &measurement->layers[i]);
    }
    print_layer("all", &measurement->mean);
    return pi2_cli_finish_stdout();
}

static json_t *json_layer(const pi2_predictor_layer_measure *layer) {
    json_t *object = json_object();
    json_object_set_new(object, "size", json_integer(layer->size));
    json_object_set_new(object, "bytes", json_integer((json_int_t)layer->bytes));
    json_object_set_new(object, "recall", pi2_cli_json_number(layer->recall));
    json_object_set_new(object, "precision", pi2_cli_json_number(layer->precision));
    json_object_set_new(object, "wanted", pi2_cli_json_number(layer->wanted));
    json_object_set_new(object, "named", pi2_cli_json_number(layer->named));
    json_object_set_new(object, "magnitude", pi2_cli_json_number(layer->magnitude));
    json_object_set_new(object, "microseconds", pi2_cli_json_number(layer->microseconds));
    return object;
}

static int print_json(const pi2_predictor_measurement *measurement) {
    json_t *object = json_object(), *layers = json_array();
    json_object_set_new(object, "kind", json_string(measurement->kind));
    json_object_set_new(object, "token_count", json_integer((json_int_t)measurement->token_count));
    json_object_set_new(object, "mean", json_layer(&measurement->mean));
    json_object_set_new(object, "layers", layers);
    for (uint32_t i = 0; i < measurement->layer_count; i++) {
        json_array_append_new(layers, json_layer(&measurement->layers[i]));
    }
    return pi2_cli_print_json(object, JSON_INDENT(2));
}

/** An engine that a predictor is tried with, and the texts. */
typedef struct text_run {
    const char *sparsity; /* unless another is asked for */
    uint32_t context;
    uint64_t beside;      /* bytes that are used beside the engine */
    pi2_engine_options options;
    const char *paths[PI2_CLI_MAX_TEXTS + 1];
    pi2_predictor_texts texts;
} text_run;

/** What `measure` and `balance` open alike. */
static int fill_run(const char *action, const predictor_settings *settings, pi2_cli_model_settings *model,
                    pi2_cli_size_settings *size, text_run *run) {
    const int code = pi2_cli_fill_options(model, size, &run->options);
    if (code != PI2_CLI_GO_ON) return code;
    if (settings->texts.count == 0) {
        return pi2_cli_usage_error("predictor %s: no text: give one with -f FILE", action);
    }
    if (strcmp(run->options.sparsity, "exact") == 0) run->options.sparsity = run->sparsity;
    if (run->options.context_tokens == 0) run->options.context_tokens = run->context;
    run->options.beside_bytes = run->beside;
    pi2_cli_catch_signals();
    list_paths(&settings->texts, run->paths);
    run->texts = (pi2_predictor_texts){.paths = run->paths, .tokens = (uint64_t)settings->tokens};
    return PI2_CLI_GO_ON;
}

static int measure(int argument_count, char **arguments) {
    static predictor_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {{"Measuring", measure_options, COUNT(measure_options), &settings},
                                        pi2_cli_model_section(&model), pi2_cli_size_section(&size)};
    const pi2_cli_command command = {
        "predictor measure", "-m MODEL -f TEXT... --sparsity auto|SHARE [--predictor FILE]",
        "Runs texts through the model, all neurons computed, and compares what each layer gave with what the predictor "
        "says of it: recall and precision, of the neurons that fire or (with a share left out) of those that give "
        "most; the shares of neurons that should be computed and that would be; and the predictor's bytes and time.",
        sections, COUNT(sections)};
    text_run run = {.sparsity = "auto", .context = DEFAULT_CONTEXT, .beside = PI2_PREDICTOR_MEASURE_BYTES};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code == PI2_CLI_GO_ON) code = fill_run("measure", &settings, &model, &size, &run);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_engine *engine = NULL;
    pi2_predictor_measurement *measurement = NULL;
    pi2_status status = pi2_engine_open(&run.options, &engine);
    if (status == PI2_OK) status = pi2_predictor_measure(engine, &run.texts, &measurement);
    pi2_engine_close(engine);
    pi2_cli_clear_progress();
    if (status == PI2_OK) code = settings.json ? print_json(measurement) : print_table(measurement);
    else code = pi2_cli_failed(status);
    pi2_predictor_measurement_free(measurement);
    return code;
}

/* ---- balance ---- */

static int print_balance(const pi2_predictor_balancing *balancing, const char *share) {
    pi2_cli_print_line("%s, over %llu tokens: KL divergence with this much of one layer left out", balancing->path,
                       (unsigned long long)balancing->token_count);
    pi2_cli_print_line("layer        25 %%       50 %%       75 %%   left out at %s", share);
    for (uint32_t i = 0; i < balancing->layer_count; i++) {
        const pi2_predictor_layer_balance *layer = &balancing->layers[i];
        (void)printf("%-6u %10.6f %10.6f %10.6f %8.1f %%\n", (unsigned)i, layer->lost[0], layer->lost[1],
                     layer->lost[2], 100 * layer->left_out);
    }
    return pi2_cli_finish_stdout();
}

static int print_balance_json(const pi2_predictor_balancing *balancing) {
    json_t *object = json_object(), *layers = json_array();
    json_object_set_new(object, "predictor", pi2_cli_json_text(balancing->path, strlen(balancing->path)));
    json_object_set_new(object, "token_count", json_integer((json_int_t)balancing->token_count));
    json_object_set_new(object, "layers", layers);
    for (uint32_t i = 0; i < balancing->layer_count; i++) {
        const pi2_predictor_layer_balance *from = &balancing->layers[i];
        json_t *layer = json_object(), *lost = json_array();
        for (size_t p = 0; p < COUNT(from->lost); p++) json_array_append_new(lost, pi2_cli_json_number(from->lost[p]));
        json_object_set_new(layer, "kl_divergence", lost);
        json_object_set_new(layer, "left_out", pi2_cli_json_number(from->left_out));
        json_array_append_new(layers, layer);
    }
    return pi2_cli_print_json(object, JSON_INDENT(2));
}

/** As many logits at a time as the memory allows. */
static pi2_status open_and_balance(pi2_engine_options *options, const pi2_predictor_texts *texts, pi2_engine **engine,
                                   pi2_predictor_balancing **balancing) {
    const pi2_status status = pi2_cli_open_for_logits(options, engine);
    return status == PI2_OK ? pi2_predictor_balance(*engine, texts, balancing) : status;
}

static int balance(int argument_count, char **arguments) {
    static predictor_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {{"Balancing", balance_options, COUNT(balance_options), &settings},
                                        pi2_cli_model_section(&model), pi2_cli_size_section(&size)};
    const pi2_cli_command command = {
        "predictor balance", "-m MODEL -f TEXT... [--predictor FILE]",
        "Measures what leaving neurons out costs layer by layer, and keeps it with the predictor: from then on 'run "
        "--sparsity SHARE' leaves out more of the layers that lose least, together as many as before. The table shows "
        "the shares for the --sparsity that is given (0.5).",
        sections, COUNT(sections)};
    text_run run = {.sparsity = "0.5", .context = BALANCE_CONTEXT, .beside = PI2_PREDICTOR_BALANCE_BYTES};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code == PI2_CLI_GO_ON) code = fill_run("balance", &settings, &model, &size, &run);
    if (code != PI2_CLI_GO_ON) return code;
    if (strcmp(run.options.sparsity, "auto") == 0) {
        return pi2_cli_usage_error("predictor balance: shares of layers serve --sparsity with a share, not 'auto'");
    }
    run.options.predicts_prompts = true; /* what is measured is what tokens of an answer would be */
    pi2_engine *engine = NULL;
    pi2_predictor_balancing *balancing = NULL;
    const pi2_status status = open_and_balance(&run.options, &run.texts, &engine, &balancing);
    pi2_cli_clear_progress();
    if (status != PI2_OK) code = pi2_cli_failed(status);
    else code = settings.json ? print_balance_json(balancing) : print_balance(balancing, run.options.sparsity);
    pi2_predictor_balancing_free(balancing);
    pi2_engine_close(engine);
    return code;
}

/* ---- train ---- */

static int train(int argument_count, char **arguments) {
    static predictor_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {{"Training", train_options, COUNT(train_options), &settings},
                                        pi2_cli_model_section(&model), pi2_cli_size_section(&size)};
    const pi2_cli_command command = {
        "predictor train", "-m MODEL -f TEXT... -o FILE [--width N]",
        "Trains two small matrices for each layer of a model with ReLU, or its kind, to tell which neurons will fire, "
        "on what they do over texts: for 'run --sparsity auto --predictor FILE'. Ctrl-C keeps what is done.",
        sections, COUNT(sections)};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_engine_options options;
    pi2_predictor_training training;
    const char *paths[PI2_CLI_MAX_TEXTS + 1];
    code = pi2_cli_fill_options(&model, &size, &options);
    pi2_predictor_training_init(&training);
    if (code == PI2_CLI_GO_ON) code = read_width("train", settings.rank, &training.rank);
    if (code != PI2_CLI_GO_ON) return code;
    if (settings.texts.count == 0) return pi2_cli_usage_error("predictor train: no text: give one with -f FILE");
    if (!settings.output) return pi2_cli_usage_error("predictor train: no output: give one with -o FILE");
    training.output_path = settings.output;
    training.sample_tokens = (uint64_t)settings.tokens;
    training.sample_bytes = settings.sample_memory;
    training.most_epochs = (uint32_t)settings.epochs;
    training.recall = settings.recall;
    training.rate = settings.rate;
    training.resume = settings.resume;
    options.beside_bytes = settings.sample_memory;
    options.sparsity = "off"; /* what is learned from is computed whole */
    if (options.context_tokens == 0) options.context_tokens = DEFAULT_CONTEXT;
    pi2_cli_catch_signals();
    list_paths(&settings.texts, paths);
    const pi2_predictor_texts texts = {.paths = paths};
    pi2_engine *engine = NULL;
    pi2_status status = pi2_engine_open(&options, &engine);
    if (status == PI2_OK) status = pi2_predictor_train(engine, &texts, &training);
    pi2_engine_close(engine);
    pi2_cli_clear_progress();
    if (status != PI2_OK) return pi2_cli_failed(status);
    pi2_cli_note("%s: ready after %.1f s", settings.output, pi2_cli_seconds_since_start());
    return PI2_EXIT_OK;
}

/* ---- which ---- */

int pi2_cli_predictor(int argument_count, char **arguments) {
    static const struct { const char *name; int (*run)(int, char **); } actions[] = {
        {"make", make}, {"train", train}, {"import", import}, {"measure", measure}, {"balance", balance}};
    const pi2_cli_command command = {
        "predictor", "make|train|import|measure|balance [options]",
        "Predictors say which neurons of a model will matter, for 'run --sparsity auto' and '--sparsity SHARE' "
        "(docs/sparsity.md). 'make' makes one of the weights alone, 'train' one of what a text's neurons do, 'import' "
        "takes a PowerInfer file's, 'measure' compares one with what a text's neurons do, 'balance' finds how much of "
        "each layer to leave out; each has a --help of its own.",
        NULL, 0};
    for (size_t i = 0; i < COUNT(actions) && argument_count > 1; i++) {
        if (strcmp(arguments[1], actions[i].name) == 0) return actions[i].run(argument_count - 1, arguments + 1);
    }
    if (argument_count > 1 && arguments[1][0] != '-') {
        return pi2_cli_usage_error("predictor: unknown action '%s': make, train, import, measure or balance",
                                   arguments[1]);
    }
    const int code = pi2_cli_parse(&command, argument_count, arguments);
    return code != PI2_CLI_GO_ON ? code : pi2_cli_usage_error("predictor: make, train, import, measure or balance?");
}
