/*
 * perplexity_command.c: "powerinfer2 perplexity", by llama-perplexity's conventions, so that figures
 * compare: chunks of n_ctx tokens, the first of each replaced by BOS where the model adds one, and
 * the first half of a chunk is context only: tokens n_ctx/2 .. n_ctx-2 predict the next.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "compare_logits.h"
#include "engine_options.h"
#include "output.h"
#include "powerinfer2/logits_file.h"
#include "powerinfer2/scoring.h"
#include "powerinfer2/sizes.h"
#include "signals.h"
#include "sparsity_report.h"
#include "text_source.h"

enum { DEFAULT_CONTEXT = 512 };

typedef struct perplexity_settings {
    const char *file, *logits;
    int64_t chunks;
    bool json, count_zeros, compares;
} perplexity_settings;

#define PERPLEXITY(field) offsetof(perplexity_settings, field)
static const pi2_cli_option perplexity_options[] = {
    {"-f, --file", "FILE", PI2_CLI_TEXT, PERPLEXITY(file), NULL,
     "The text, less one newline at its end. \"-\" is stdin.", NULL, 0, 0},
    {"--chunks", "N", PI2_CLI_INTEGER, PERPLEXITY(chunks), "-1", "Chunks to compute; -1: all.", NULL, -1, INT32_MAX},
    {"--count-zeros", NULL, PI2_CLI_FLAG, PERPLEXITY(count_zeros), NULL,
     "Tells too how many neurons give nothing, as 'inspect --sparsity' does.", NULL, 0, 0},
    {"--kl-divergence-base, --save-all-logits", "FILE", PI2_CLI_TEXT, PERPLEXITY(logits), NULL,
     "Keeps what this model says of each token, for --kl-divergence, in llama-perplexity's own format (2 bytes for "
     "each token of the vocabulary and each that is scored). The text is then read twice, so it is a file and no pipe.",
     NULL, 0, 0},
    {"--kl-divergence", NULL, PI2_CLI_FLAG, PERPLEXITY(compares), NULL,
     "Compares the model with the one that wrote the file of --kl-divergence-base, which holds the text too "
     "(docs/evaluation.md).", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, PERPLEXITY(json), NULL,
     "Prints one JSON value: perplexity, error, chunks, tokens.", NULL, 0, 0},
};

typedef struct perplexity_state {
    pi2_engine *engine;
    pi2_session *session;
    pi2_sparsity_counter *counter;       /* NULL: zeros are not counted */
    uint32_t context, step;              /* step: tokens whose logits come with one call */
    int32_t bos;
    bool starts_with_bos;                /* the model puts BOS before a text */
    int32_t *chunk;                      /* [context] */
    int32_t *tokens;                     /* [2 * context]: those that wait for their chunk to be full */
    size_t count;                        /* of tokens */
    uint64_t total;                      /* tokens of the text so far */
    uint64_t done, most_chunks;          /* chunks */
    pi2_cli_text_source text;
    double sum, sum_of_squares;          /* of -log p */
    uint64_t scored;
    pi2_logits_writer *writer;           /* NULL: the logits are not kept */
} perplexity_state;

static pi2_status take_score(void *user, const float *logits, int32_t token, double surprise) {
    perplexity_state *state = user;
    (void)token;
    state->sum += surprise;
    state->sum_of_squares += surprise * surprise;
    state->scored++;
    return state->writer ? pi2_logits_writer_add(state->writer, logits) : PI2_OK;
}

static pi2_status score_chunk(perplexity_state *state, const int32_t *tokens) {
    const pi2_scored_chunk chunk = {.tokens = state->chunk, .count = state->context, .step = state->step,
                                    .first = state->done * state->context};
    memcpy(state->chunk, tokens, state->context * sizeof *tokens);
    if (state->starts_with_bos) state->chunk[0] = state->bos;
    if (state->counter) pi2_sparsity_new_text(state->counter);
    return pi2_score_chunk(state->engine, state->session, &chunk, take_score, state);
}

static double perplexity(const perplexity_state *state) { return exp(state->sum / (double)state->scored); }

/** The standard error of the mean of -log p, carried over to the perplexity. */
static double standard_error(const perplexity_state *state) {
    const double count = (double)state->scored, mean = state->sum / count;
    const double variance = state->sum_of_squares / count - mean * mean;
    return variance > 0 && count > 1 ? sqrt(variance / (count - 1)) * perplexity(state) : 0.0;
}

static void show_running(const perplexity_state *state) {
    pi2_cli_status_line("%llu chunks, perplexity %.4f so far, %.1f s", (unsigned long long)state->done,
                        perplexity(state), pi2_cli_seconds_since_start());
}

static int print_numbers(const perplexity_state *state, const perplexity_settings *settings, uint64_t chunks,
                         const pi2_sparsity *sparsity) {
    if (!settings->json) {
        (void)printf("perplexity %.4f +/- %.5f (%llu chunks of %u tokens, %llu scored)\n", perplexity(state),
                     standard_error(state), (unsigned long long)chunks, (unsigned)state->context,
                     (unsigned long long)state->scored);
        if (sparsity) {
            (void)printf("\n");
            pi2_cli_print_sparsity(sparsity);
        }
        return pi2_cli_finish_stdout();
    }
    json_t *object = json_object();
    json_object_set_new(object, "perplexity", pi2_cli_json_number(perplexity(state)));
    json_object_set_new(object, "error", pi2_cli_json_number(standard_error(state)));
    json_object_set_new(object, "chunks", json_integer((json_int_t)chunks));
    json_object_set_new(object, "tokens", json_integer((json_int_t)state->scored));
    if (sparsity) json_object_set_new(object, "sparsity", pi2_cli_sparsity_json(sparsity));
    return pi2_cli_print_json(object, JSON_COMPACT);
}

static int print_result(perplexity_state *state, const perplexity_settings *settings, uint64_t chunks) {
    pi2_sparsity *sparsity = NULL;
    const pi2_status status = pi2_sparsity_end(state->counter, &sparsity);
    state->counter = NULL;
    if (status != PI2_OK) return pi2_cli_failed(status);
    const int code = print_numbers(state, settings, chunks, sparsity);
    pi2_sparsity_free(sparsity);
    return code;
}

/** Scores the chunk that is full, and keeps what the next one begins with. */
static pi2_status score_full_chunk(perplexity_state *state) {
    const pi2_status status = score_chunk(state, state->tokens);
    if (status != PI2_OK) return status;
    state->done++;
    state->count -= state->context;
    memmove(state->tokens, state->tokens + state->context, state->count * sizeof *state->tokens);
    show_running(state);
    return PI2_OK;
}

/** Takes tokens of the text as they come. The first chunk waits for the second: one alone is too few. */
static pi2_status take_tokens(void *user, const int32_t *tokens, size_t count) {
    perplexity_state *state = user;
    for (size_t i = 0; i < count; i++) {
        if (state->done == state->most_chunks) return PI2_OK; /* the rest is read past */
        if (state->total++ == 0) state->starts_with_bos = state->bos >= 0 && tokens[i] == state->bos;
        state->tokens[state->count++] = tokens[i];
        if (state->count < (state->done ? 1u : 2u) * (size_t)state->context) continue;
        while (state->count >= state->context && state->done < state->most_chunks) {
            const pi2_status status = score_full_chunk(state);
            if (status != PI2_OK) return status;
        }
    }
    return PI2_OK;
}

/** Reads the text until its end, or until no more of it is needed. */
static pi2_status read_text(void *user, char *bytes, size_t capacity, size_t *length_out) {
    perplexity_state *state = user;
    *length_out = 0;
    return state->done == state->most_chunks ? PI2_OK : pi2_cli_text_read(&state->text, bytes, capacity, length_out);
}

static int measure(perplexity_state *state, const perplexity_settings *settings) {
    state->most_chunks = settings->chunks < 0 ? UINT64_MAX : (uint64_t)settings->chunks;
    state->chunk = malloc(state->context * sizeof *state->chunk);
    state->tokens = malloc(2 * (size_t)state->context * sizeof *state->tokens);
    int code = PI2_EXIT_OK;
    if (!state->chunk || !state->tokens) {
        code = PI2_EXIT_MEMORY;
        (void)pi2_cli_usage_error("no memory for a chunk of tokens");
    } else {
        const pi2_status status =
            pi2_engine_tokenize_parts(state->engine, read_text, state, true, false, take_tokens, state);
        pi2_cli_clear_progress();
        if (state->text.code != PI2_EXIT_OK) code = state->text.code;
        else if (status != PI2_OK) code = pi2_cli_failed(status);
    }
    if (code == PI2_EXIT_OK && state->done == 0) { /* llama-perplexity asks for the same */
        code = pi2_cli_usage_error("%s: %llu tokens are too few: two chunks of %u are needed; a smaller -c helps",
                                   settings->file, (unsigned long long)state->total, (unsigned)state->context);
    }
    free(state->tokens);
    free(state->chunk);
    if (code != PI2_EXIT_OK) return code;
    const pi2_status status = pi2_logits_writer_finish(state->writer);
    state->writer = NULL;
    return status == PI2_OK ? print_result(state, settings, state->done) : pi2_cli_failed(status);
}

/* ---- the logits are kept: tokens lie before them in the file, so the text is read once for these alone ---- */

static pi2_status keep_tokens(void *user, const int32_t *tokens, size_t count) {
    perplexity_state *state = user;
    for (size_t i = 0; i < count && state->done < state->most_chunks; i++) {
        const pi2_status status = pi2_logits_writer_add_tokens(state->writer, tokens + i, 1);
        if (status != PI2_OK) return status;
        state->done = ++state->total / state->context;
    }
    return PI2_OK;
}

/** Writes the tokens, and has the text read from its beginning again. */
static int keep_text(perplexity_state *state, const perplexity_settings *settings) {
    uint64_t bytes = 0;
    char size[PI2_SIZE_TEXT_BYTES];
    state->most_chunks = settings->chunks < 0 ? UINT64_MAX : (uint64_t)settings->chunks;
    pi2_status status = pi2_engine_tokenize_parts(state->engine, read_text, state, true, false, keep_tokens, state);
    if (state->text.code != PI2_EXIT_OK) return state->text.code;
    if (status == PI2_OK && state->done) status = pi2_logits_writer_end_tokens(state->writer, state->done, &bytes);
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (bytes) pi2_cli_note("%s: it will have %s", settings->logits, pi2_format_size(bytes, size));
    state->done = state->total = 0;
    pi2_cli_text_close(&state->text);
    return pi2_cli_text_open(settings->file, &state->text);
}

static int measure_and_keep(perplexity_state *state, const perplexity_settings *settings,
                            const pi2_engine_options *options) {
    const pi2_engine_report *report = pi2_engine_get_report(state->engine);
    const char *const inputs[] = {settings->file, options->model_path, report->weights_path, NULL};
    pi2_status status = pi2_logits_writer_create(settings->logits, inputs, state->context, report->vocabulary_size,
                                                 &state->writer);
    if (status != PI2_OK) return pi2_cli_failed(status);
    int code = keep_text(state, settings);
    if (code == PI2_EXIT_OK) code = measure(state, settings);
    pi2_logits_writer_discard(state->writer);
    return code;
}

static int run_perplexity(const perplexity_settings *settings, pi2_engine_options *options) {
    perplexity_state state = {0};
    int code = pi2_cli_text_open(settings->file, &state.text); /* before anything that takes long */
    if (code != PI2_EXIT_OK) return code;
    pi2_status status = pi2_cli_open_for_logits(options, &state.engine);
    if (status != PI2_OK) {
        pi2_cli_text_close(&state.text);
        return pi2_cli_failed(status);
    }
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    status = pi2_session_create(state.engine, &sampling, &state.session);
    const pi2_engine_report *report = pi2_engine_get_report(state.engine);
    if (status == PI2_OK && settings->count_zeros) { /* a chunk's last token predicts nothing */
        status = pi2_sparsity_begin(state.engine, report->context_tokens - 1, &state.counter);
    }
    if (status == PI2_OK) {
        state.context = report->context_tokens;
        state.step = options->logits_tokens;
        state.bos = pi2_engine_bos(state.engine);
        code = settings->logits ? measure_and_keep(&state, settings, options) : measure(&state, settings);
    } else {
        code = pi2_cli_failed(status);
    }
    status = pi2_engine_finish_trace(state.engine);
    if (status != PI2_OK && code == PI2_EXIT_OK) code = pi2_cli_failed(status);
    pi2_cli_text_close(&state.text);
    (void)pi2_sparsity_end(state.counter, NULL);
    pi2_session_free(state.session);
    pi2_engine_close(state.engine);
    return code;
}

static int check_settings(const perplexity_settings *settings, const pi2_engine_options *options) {
    struct stat what;
    if (settings->chunks == 0) return pi2_cli_usage_error("perplexity: --chunks 0 leaves nothing to measure");
    if (settings->compares) {
        if (!settings->logits) {
            return pi2_cli_usage_error("perplexity: --kl-divergence compares with a file: name it with "
                                       "--kl-divergence-base FILE");
        }
        if (settings->count_zeros) {
            return pi2_cli_usage_error("perplexity: --count-zeros and --kl-divergence exclude each other");
        }
        if (settings->file) {
            pi2_cli_warn("-f %s is not read: %s holds the text that is compared", settings->file, settings->logits);
        }
        return PI2_CLI_GO_ON;
    }
    if (options->context_tokens > 0 && options->context_tokens < 4) {
        return pi2_cli_usage_error("perplexity: -c must be at least 4");
    }
    if (!settings->file) return pi2_cli_usage_error("perplexity: no text: give one with -f FILE");
    if (settings->logits && (strcmp(settings->file, "-") == 0 ||
                             (stat(settings->file, &what) == 0 && !S_ISREG(what.st_mode)))) {
        return pi2_cli_usage_error("perplexity: with --kl-divergence-base the text is read twice: %s is no regular "
                                   "file", settings->file);
    }
    return PI2_CLI_GO_ON;
}

int pi2_cli_perplexity(int argument_count, char **arguments) {
    static perplexity_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {
        {"Measurement", perplexity_options, sizeof perplexity_options / sizeof perplexity_options[0], &settings},
        pi2_cli_model_section(&model), pi2_cli_size_section(&size), pi2_cli_no_effect_section()};
    const pi2_cli_command command = {
        "perplexity",
        "-m MODEL -f FILE [options]\n       powerinfer2 perplexity -m MODEL --kl-divergence --kl-divergence-base FILE",
        "Measures how well a model predicts a text, by llama-perplexity's conventions. Without -c, chunks "
        "have 512 tokens.",
        sections, sizeof sections / sizeof sections[0]};
    pi2_engine_options options;
    int code = pi2_cli_parse_run(&command, argument_count, arguments, &model, &size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    code = check_settings(&settings, &options);
    if (code != PI2_CLI_GO_ON) return code;
    const char *const inputs[] = {pi2_cli_input_path(settings.compares ? settings.logits : settings.file), NULL};
    options.input_paths = inputs;
    options.predicts_prompts = true; /* what is measured is what tokens of an answer would be */
    pi2_cli_catch_signals();
    if (settings.compares) return pi2_cli_compare_logits(settings.logits, settings.chunks, settings.json, &options);
    if (options.context_tokens == 0) options.context_tokens = DEFAULT_CONTEXT;
    options.counts_neurons = settings.count_zeros;
    return run_perplexity(&settings, &options);
}
