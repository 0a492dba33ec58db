/*
 * perplexity_command.c: "powerinfer2 perplexity", by llama-perplexity's conventions, so that figures
 * compare: chunks of n_ctx tokens, the first of each replaced by BOS where the model adds one, and
 * the first half of a chunk is context only: tokens n_ctx/2 .. n_ctx-2 predict the next.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "engine_options.h"
#include "output.h"
#include "powerinfer2/session.h"
#include "signals.h"
#include "sparsity_report.h"
#include "text_source.h"

enum { DEFAULT_CONTEXT = 512 };

typedef struct perplexity_settings {
    const char *file;
    int64_t chunks;
    bool json, count_zeros;
} perplexity_settings;

#define PERPLEXITY(field) offsetof(perplexity_settings, field)
static const pi2_cli_option perplexity_options[] = {
    {"-f, --file", "FILE", PI2_CLI_TEXT, PERPLEXITY(file), NULL,
     "The text, less one newline at its end. \"-\" is stdin.", NULL, 0, 0},
    {"--chunks", "N", PI2_CLI_INTEGER, PERPLEXITY(chunks), "-1", "Chunks to compute; -1: all.", NULL, -1, INT32_MAX},
    {"--count-zeros", NULL, PI2_CLI_FLAG, PERPLEXITY(count_zeros), NULL,
     "Tells too how many neurons give nothing, as 'inspect --sparsity' does.", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, PERPLEXITY(json), NULL,
     "Prints one JSON value: perplexity, error, chunks, tokens.", NULL, 0, 0},
};

typedef struct perplexity_state {
    pi2_engine *engine;
    pi2_session *session;
    pi2_sparsity_counter *counter;       /* NULL: zeros are not counted */
    uint32_t context, vocabulary, piece; /* piece: tokens whose logits are kept by one call */
    int32_t bos;
    bool starts_with_bos;                /* the model puts BOS before a text */
    int32_t *chunk;                      /* [context] */
    int32_t *tokens;                     /* [2 * context]: those that wait for their chunk to be full */
    size_t count;                        /* of tokens */
    uint64_t total;                      /* tokens of the text so far */
    uint64_t done, most_chunks;          /* chunks */
    pi2_cli_text_source text;
    int code;                            /* of what went wrong here, after its error line */
    double sum, sum_of_squares;          /* of -log p */
    uint64_t scored;
    uint32_t not_finite_at;              /* token of the chunk whose surprise is no number; 0: none */
} perplexity_state;

/** -log of the probability that the logits give to a token. */
static double surprise(const float *logits, uint32_t count, int32_t token) {
    float largest = logits[0];
    for (uint32_t i = 1; i < count; i++) largest = logits[i] > largest ? logits[i] : largest;
    double sum = 0.0;
    for (uint32_t i = 0; i < count; i++) sum += (double)expf(logits[i] - largest);
    return -((double)logits[token] - (double)largest - log(sum));
}

/** Ends early where a token's surprise is no number: then the logits are none, and so is every mean. */
static pi2_status score_chunk(perplexity_state *state, const int32_t *tokens) {
    memcpy(state->chunk, tokens, state->context * sizeof *tokens);
    if (state->starts_with_bos) state->chunk[0] = state->bos;
    const uint32_t first = state->context / 2;
    pi2_status status = pi2_session_truncate(state->session, 0);
    if (state->counter) pi2_sparsity_new_text(state->counter);
    if (status == PI2_OK && first) {
        status = pi2_session_append(state->session, state->chunk, first, PI2_LOGITS_NONE);
    }
    for (uint32_t at = first; status == PI2_OK && at + 1 < state->context; at += state->piece) {
        const uint32_t rest = state->context - 1 - at;
        const uint32_t count = rest < state->piece ? rest : state->piece;
        status = pi2_session_append(state->session, state->chunk + at, count, PI2_LOGITS_ALL);
        for (uint32_t i = 0; status == PI2_OK && i < count; i++) {
            const double value = surprise(pi2_session_logits(state->session, i), state->vocabulary,
                                          state->chunk[at + i + 1]);
            if (!isfinite(value)) {
                state->not_finite_at = at + i + 1;
                return PI2_OK;
            }
            state->sum += value;
            state->sum_of_squares += value * value;
            state->scored++;
        }
    }
    return status;
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

static int fail_not_finite(const perplexity_state *state, uint64_t token) {
    pi2_cli_clear_progress();
    (void)pi2_cli_usage_error("%s: the logits of token %llu are no numbers: the model file may be damaged "
                              "('powerinfer2 inspect --verify' checks a cluster file)",
                              pi2_engine_get_report(state->engine)->weights_path, (unsigned long long)token);
    return PI2_EXIT_BAD_FILE;
}

/** Scores the chunk that is full, and keeps what the next one begins with. */
static pi2_status score_full_chunk(perplexity_state *state) {
    const pi2_status status = score_chunk(state, state->tokens);
    if (status != PI2_OK) return status;
    if (state->not_finite_at) {
        state->code = fail_not_finite(state, state->done * state->context + state->not_finite_at);
        return PI2_ERR_FORMAT;
    }
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
    if (settings->chunks == 0) return pi2_cli_usage_error("perplexity: --chunks 0 leaves nothing to measure");
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
        else if (state->code != PI2_EXIT_OK) code = state->code;
        else if (status != PI2_OK) code = pi2_cli_failed(status);
    }
    if (code == PI2_EXIT_OK && state->done == 0) { /* llama-perplexity asks for the same */
        code = pi2_cli_usage_error("%s: %llu tokens are too few: two chunks of %u are needed; a smaller -c helps",
                                   settings->file, (unsigned long long)state->total, (unsigned)state->context);
    }
    free(state->tokens);
    free(state->chunk);
    return code == PI2_EXIT_OK ? print_result(state, settings, state->done) : code;
}

/** Opens with room for as many logits as the budget allows: more of them, fewer passes. */
static pi2_status open_engine(pi2_engine_options *options, pi2_engine **engine_out) {
    static const uint32_t pieces[] = {64, 16, 4, 1};
    pi2_status status = PI2_ERR_MEMORY;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0] && status == PI2_ERR_MEMORY; i++) {
        options->logits_tokens = pieces[i];
        status = pi2_engine_open(options, engine_out);
    }
    return status;
}

static int run_perplexity(const perplexity_settings *settings, pi2_engine_options *options) {
    perplexity_state state = {0};
    int code = pi2_cli_text_open(settings->file, &state.text); /* before anything that takes long */
    if (code != PI2_EXIT_OK) return code;
    pi2_status status = open_engine(options, &state.engine);
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
        state.vocabulary = report->vocabulary_size;
        state.piece = options->logits_tokens;
        state.bos = pi2_engine_bos(state.engine);
        code = measure(&state, settings);
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

int pi2_cli_perplexity(int argument_count, char **arguments) {
    static perplexity_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {
        {"Measurement", perplexity_options, sizeof perplexity_options / sizeof perplexity_options[0], &settings},
        pi2_cli_model_section(&model), pi2_cli_size_section(&size), pi2_cli_no_effect_section()};
    const pi2_cli_command command = {
        "perplexity", "-m MODEL -f FILE [options]",
        "Measures how well a model predicts a text, by llama-perplexity's conventions. Without -c, chunks "
        "have 512 tokens.",
        sections, sizeof sections / sizeof sections[0]};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_engine_options options;
    code = pi2_cli_fill_options(&model, &size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    if (options.context_tokens == 0) options.context_tokens = DEFAULT_CONTEXT;
    if (options.context_tokens < 4) return pi2_cli_usage_error("perplexity: -c must be at least 4");
    if (!settings.file) return pi2_cli_usage_error("perplexity: no text: give one with -f FILE");
    const char *const inputs[] = {pi2_cli_input_path(settings.file), NULL};
    options.input_paths = inputs;
    pi2_cli_catch_signals();
    options.counts_neurons = settings.count_zeros;
    return run_perplexity(&settings, &options);
}
