/* verify_command.c: "powerinfer2 verify": what an approximate mode costs beside the exact one, kept as a guard. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utf8proc.h>
#include <xxhash.h>

#include "commands.h"
#include "compare_logits.h"
#include "divergence_report.h"
#include "engine_options.h"
#include "guard_report.h"
#include "output.h"
#include "powerinfer2/guard.h"
#include "powerinfer2/logits_file.h"
#include "powerinfer2/scoring.h"
#include "signals.h"
#include "text_source.h"

enum { DEFAULT_CONTEXT = 512 };

typedef struct verify_settings {
    const char *text, *output;
    int64_t chunks;
    bool json;
} verify_settings;

#define VERIFY(field) offsetof(verify_settings, field)
static const pi2_cli_option verify_options[] = {
    {"-f, --file", "TEXT", PI2_CLI_TEXT, VERIFY(text), NULL, "The text that both modes are run over.", NULL, 0, 0},
    {"--chunks", "N", PI2_CLI_INTEGER, VERIFY(chunks), "8", "Chunks of it, at most; fewer where the text is shorter.",
     NULL, 1, 4096},
    {"-o, --output", "FILE", PI2_CLI_TEXT, VERIFY(output), NULL,
     "Where the guard goes; otherwise beside the weights: model.guard of model.gguf or model.pi2.", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, VERIFY(json), NULL, "Prints one JSON value instead of a table.", NULL, 0, 0},
};

typedef struct verification {
    const verify_settings *settings;
    pi2_engine *engine;
    pi2_session *session;
    pi2_cli_text_source text;
    int32_t *tokens;              /* [most_chunks * chunk_tokens] */
    size_t token_count;
    uint32_t chunk_tokens, chunk_count, most_chunks, step, vocabulary;
    uint32_t chunk, index;        /* the present chunk, and the scored token of it */
    uint64_t *hashes;             /* of each scored token's exact logits */
    double *surprises;            /* with these */
    pi2_logits_writer *writer;
    pi2_logits_file *exact;
    pi2_divergence *divergence;
    uint64_t weights_hash;
    char *guard_path, *logits_path;
} verification;

static pi2_status keep_tokens(void *user, const int32_t *tokens, size_t count) {
    verification *self = user;
    const size_t room = (size_t)self->most_chunks * self->chunk_tokens - self->token_count;
    const size_t taken = count < room ? count : room;
    memcpy(self->tokens + self->token_count, tokens, taken * sizeof *tokens);
    self->token_count += taken;
    return PI2_OK;
}

/** Reads until there are tokens enough. */
static pi2_status read_text(void *user, char *bytes, size_t capacity, size_t *length_out) {
    verification *self = user;
    *length_out = 0;
    if (self->token_count == (size_t)self->most_chunks * self->chunk_tokens) return PI2_OK;
    return pi2_cli_text_read(&self->text, bytes, capacity, length_out);
}

static uint64_t hash_logits(const verification *self, const float *logits) {
    return XXH3_64bits(logits, self->vocabulary * sizeof *logits);
}

/** Of the present token, among all that are scored. */
static uint64_t place(const verification *self) {
    return (uint64_t)self->chunk * pi2_scored_tokens(self->chunk_tokens) + self->index;
}

static pi2_status take_exact(void *user, const float *logits, int32_t token, double surprise) {
    verification *self = user;
    (void)token;
    self->hashes[place(self)] = hash_logits(self, logits);
    self->surprises[place(self)] = surprise;
    self->index++;
    return pi2_logits_writer_add(self->writer, logits);
}

/** What is the same to the bit is compared with itself, since the file keeps 16 bits of each logarithm only, and none
 *  of what is very unlikely: the token that came is told exactly. */
static pi2_status take_other(void *user, const float *logits, int32_t token, double surprise) {
    verification *self = user;
    pi2_status status = PI2_OK;
    float *reference = pi2_divergence_reference(self->divergence);
    (void)surprise;
    if (hash_logits(self, logits) == self->hashes[place(self)]) {
        pi2_log_probabilities(logits, self->vocabulary, reference);
    } else {
        status = pi2_logits_file_read(self->exact, self->chunk, self->index, reference);
        reference[token] = -(float)self->surprises[place(self)];
    }
    self->index++;
    return status == PI2_OK ? pi2_divergence_add(self->divergence, logits, token) : status;
}

static pi2_status run_chunks(verification *self, const char *what, pi2_score_taker *taker) {
    const int32_t begin = pi2_engine_bos(self->engine);
    pi2_status status = pi2_session_create(self->engine, NULL, &self->session);
    for (self->chunk = 0; status == PI2_OK && self->chunk < self->chunk_count; self->chunk++) {
        int32_t *tokens = self->tokens + (size_t)self->chunk * self->chunk_tokens;
        const pi2_scored_chunk chunk = {.tokens = tokens, .count = self->chunk_tokens, .step = self->step,
                                        .first = (uint64_t)self->chunk * self->chunk_tokens};
        const int32_t first = tokens[0];
        self->index = 0;
        if (begin >= 0) tokens[0] = begin;
        status = pi2_score_chunk(self->engine, self->session, &chunk, taker, self);
        tokens[0] = first;
        if (status == PI2_OK) {
            pi2_cli_status_line("%s: %u of %u chunks, %.1f s", what, (unsigned)self->chunk + 1,
                                (unsigned)self->chunk_count, pi2_cli_seconds_since_start());
        }
    }
    pi2_cli_clear_progress();
    pi2_session_free(self->session);
    self->session = NULL;
    return status;
}

static pi2_status open_engine(verification *self, pi2_engine_options *options) {
    const pi2_status status = pi2_cli_open_for_logits(options, &self->engine);
    self->step = options->logits_tokens;
    return status;
}

static void close_engine(verification *self) {
    pi2_engine_close(self->engine);
    self->engine = NULL;
}

static int take_memory(verification *self) {
    const size_t tokens = (size_t)self->most_chunks * self->chunk_tokens;
    const size_t scored = (size_t)self->most_chunks * pi2_scored_tokens(self->chunk_tokens);
    self->tokens = calloc(tokens, sizeof *self->tokens);
    self->hashes = calloc(scored, sizeof *self->hashes);
    self->surprises = calloc(scored, sizeof *self->surprises);
    if (self->tokens && self->hashes && self->surprises) return PI2_EXIT_OK;
    (void)pi2_cli_usage_error("no memory for %zu tokens", tokens);
    return PI2_EXIT_MEMORY;
}

/** The guard's place, and one beside it for the exact mode's logits. */
static pi2_status find_place(verification *self, const pi2_engine_options *options) {
    const pi2_engine_report *report = pi2_engine_get_report(self->engine);
    const char *const inputs[] = {self->settings->text, options->model_path, report->weights_path, NULL};
    pi2_status status = PI2_OK;
    if (self->settings->output) self->guard_path = strdup(self->settings->output);
    else status = pi2_guard_default_path(report->weights_path, &self->guard_path);
    if (status != PI2_OK || !self->guard_path) return status == PI2_OK ? PI2_ERR_MEMORY : status;
    status = pi2_guard_check_place(self->guard_path, inputs);
    if (status != PI2_OK) return status;
    const size_t length = strlen(self->guard_path);
    self->logits_path = malloc(length + sizeof ".logits");
    if (!self->logits_path) return PI2_ERR_MEMORY;
    memcpy(self->logits_path, self->guard_path, length);
    memcpy(self->logits_path + length, ".logits", sizeof ".logits");
    return pi2_logits_writer_create(self->logits_path, inputs, self->chunk_tokens, self->vocabulary, &self->writer);
}

static int read_tokens(verification *self) {
    uint64_t bytes;
    pi2_status status = pi2_engine_tokenize_parts(self->engine, read_text, self, true, false, keep_tokens, self);
    if (self->text.code != PI2_EXIT_OK) return self->text.code;
    if (status != PI2_OK) return pi2_cli_failed(status);
    self->chunk_count = (uint32_t)(self->token_count / self->chunk_tokens);
    if (self->chunk_count == 0) {
        return pi2_cli_usage_error("%s: %zu tokens are too few: a chunk has %u; a smaller -c helps",
                                   self->settings->text, self->token_count, (unsigned)self->chunk_tokens);
    }
    status = pi2_logits_writer_add_tokens(self->writer, self->tokens, self->token_count);
    if (status == PI2_OK) status = pi2_logits_writer_end_tokens(self->writer, self->chunk_count, &bytes);
    return status == PI2_OK ? PI2_EXIT_OK : pi2_cli_failed(status);
}

/** The exact mode, whose logits go into a file that nobody else sees. */
static int run_exact(verification *self, const pi2_engine_options *asked) {
    pi2_engine_options options = *asked;
    pi2_cli_make_exact(&options);
    options.identifies_weights = true;
    pi2_status status = open_engine(self, &options);
    if (status != PI2_OK) return pi2_cli_failed(status);
    self->vocabulary = pi2_engine_get_report(self->engine)->vocabulary_size;
    self->chunk_tokens = pi2_engine_get_report(self->engine)->context_tokens;
    int code = take_memory(self);
    if (code != PI2_EXIT_OK) return code;
    status = pi2_engine_weights_hash(self->engine, &self->weights_hash);
    if (status == PI2_OK) status = find_place(self, asked);
    if (status != PI2_OK) return pi2_cli_failed(status);
    code = read_tokens(self);
    if (code != PI2_EXIT_OK) return code;
    status = run_chunks(self, "exact", take_exact);
    if (status == PI2_OK) {
        status = pi2_logits_writer_finish(self->writer);
        self->writer = NULL;
    }
    if (status == PI2_OK) {
        status = pi2_logits_file_open(self->logits_path, &self->exact);
        (void)unlink(self->logits_path);
    }
    close_engine(self);
    return status == PI2_OK ? PI2_EXIT_OK : pi2_cli_failed(status);
}

static pi2_status keep(const verification *self, const pi2_guard_entry *entry) {
    pi2_guard *guard = NULL;
    pi2_status status = PI2_OK;
    if (access(self->guard_path, F_OK) == 0) status = pi2_guard_read(self->guard_path, &guard);
    if (status == PI2_OK && guard && pi2_guard_weights_hash(guard) != self->weights_hash) {
        pi2_cli_note("%s: was of other weights: it is made anew", self->guard_path);
        pi2_guard_free(guard);
        guard = NULL;
    }
    if (status == PI2_OK && !guard) status = pi2_guard_create(self->weights_hash, &guard);
    if (status == PI2_OK) {
        pi2_guard_put(guard, entry);
        status = pi2_guard_write(guard, self->guard_path);
    }
    pi2_guard_free(guard);
    return status;
}

static int print_figures(const verification *self, const pi2_divergence_summary *summary, const char *arithmetic) {
    if (self->settings->json) {
        json_t *object = json_object();
        const bool is_exact = strcmp(arithmetic, "exact") == 0;
        json_object_set_new(object, "arithmetic", json_string(arithmetic));
        json_object_set_new(object, "guard", is_exact ? json_null() : pi2_cli_json_text(self->guard_path,
                                                                                        strlen(self->guard_path)));
        json_object_set_new(object, "chunks", json_integer(self->chunk_count));
        pi2_cli_divergence_json(summary, object);
        return pi2_cli_print_json(object, JSON_COMPACT);
    }
    char what[64];
    (void)snprintf(what, sizeof what, "%u chunks of %u", (unsigned)self->chunk_count, (unsigned)self->chunk_tokens);
    (void)printf("%-26s %12s\n", "mode", arithmetic);
    pi2_cli_print_divergence(summary, what);
    return pi2_cli_finish_stdout();
}

/* A file's name as a guard keeps it: its end, where it is longer than there is room, in characters that can be read. */
static void name_text(const char *path, char text[PI2_GUARD_TEXT_BYTES]) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const size_t length = strlen(name), room = PI2_GUARD_TEXT_BYTES - 1;
    (void)snprintf(text, PI2_GUARD_TEXT_BYTES, "%s", name + (length > room ? length - room : 0));
    for (char *at = text; *at;) {
        utf8proc_int32_t character;
        const utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)at, -1, &character);
        if (bytes < 1 || character < ' ') *at = '?';
        at += bytes < 1 ? 1 : bytes;
    }
}

static int finish(const verification *self, const pi2_divergence_summary *summary, const char *arithmetic) {
    pi2_guard_entry entry = {.chunk_tokens = self->chunk_tokens, .chunk_count = self->chunk_count,
                             .tokens = summary->tokens, .divergence = summary->divergence,
                             .same_top = summary->same_top, .perplexity_ratio = summary->perplexity_ratio};
    (void)snprintf(entry.arithmetic, sizeof entry.arithmetic, "%s", arithmetic);
    name_text(self->settings->text, entry.text);
    if (strcmp(arithmetic, "exact") == 0) {
        pi2_cli_note("these options compute exactly: nothing is approximate, and no guard is needed");
        return print_figures(self, summary, arithmetic);
    }
    pi2_status status = pi2_text_hash(self->settings->text, &entry.text_hash);
    if (status == PI2_OK) status = keep(self, &entry);
    if (status != PI2_OK) return pi2_cli_failed(status);
    pi2_cli_note("%s: the guard of this mode", self->guard_path);
    return print_figures(self, summary, arithmetic);
}

static int run_other(verification *self, const pi2_engine_options *asked) {
    pi2_engine_options options = *asked;
    pi2_divergence_summary summary;
    char arithmetic[PI2_GUARD_TEXT_BYTES];
    pi2_status status = pi2_divergence_create(
        self->vocabulary, (uint64_t)self->chunk_count * pi2_scored_tokens(self->chunk_tokens), &self->divergence);
    options.context_tokens = self->chunk_tokens;
    if (status == PI2_OK) status = open_engine(self, &options);
    if (status == PI2_OK) {
        (void)snprintf(arithmetic, sizeof arithmetic, "%s", pi2_engine_arithmetic(self->engine));
        status = run_chunks(self, arithmetic, take_other);
    }
    if (status == PI2_OK) status = pi2_divergence_summarize(self->divergence, &summary);
    close_engine(self);
    return status == PI2_OK ? finish(self, &summary, arithmetic) : pi2_cli_failed(status);
}

static int verify(const verify_settings *settings, const pi2_engine_options *options) {
    verification self = {.settings = settings, .most_chunks = (uint32_t)settings->chunks};
    int code = pi2_cli_text_open(settings->text, &self.text);
    if (code == PI2_EXIT_OK) code = run_exact(&self, options);
    if (code == PI2_EXIT_OK) code = run_other(&self, options);
    pi2_logits_writer_discard(self.writer);
    pi2_logits_file_close(self.exact);
    pi2_divergence_free(self.divergence);
    close_engine(&self);
    pi2_cli_text_close(&self.text);
    free(self.tokens);
    free(self.hashes);
    free(self.surprises);
    free(self.guard_path);
    free(self.logits_path);
    return code;
}

int pi2_cli_verify(int argument_count, char **arguments) {
    static verify_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    struct stat what;
    const pi2_cli_section sections[] = {
        {"Measurement", verify_options, sizeof verify_options / sizeof verify_options[0], &settings},
        pi2_cli_model_section(&model), pi2_cli_size_section(&size), pi2_cli_no_effect_section()};
    const pi2_cli_command command = {
        "verify", "-m MODEL -f TEXT [options that approximate] [options]",
        "Runs a text in the mode that the options ask for and in the exact one, and says how far apart they are: KL "
        "divergence, likeliest tokens, perplexity. The result is kept as the model's guard, which 'run' tells and "
        "'run --max-divergence' asks for (docs/evaluation.md). Without -c, chunks have 512 tokens.",
        sections, sizeof sections / sizeof sections[0]};
    pi2_engine_options options;
    int code = pi2_cli_parse_run(&command, argument_count, arguments, &model, &size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    if (!settings.text) return pi2_cli_usage_error("verify: no text: give one with -f FILE");
    if (strcmp(settings.text, "-") == 0 || (stat(settings.text, &what) == 0 && !S_ISREG(what.st_mode))) {
        return pi2_cli_usage_error("verify: %s is no regular file, which the text must be", settings.text);
    }
    if (options.context_tokens == 0) options.context_tokens = DEFAULT_CONTEXT;
    if (options.context_tokens < 4) return pi2_cli_usage_error("verify: -c must be at least 4");
    const char *const inputs[] = {settings.text, NULL};
    options.input_paths = inputs;
    if (options.device_any_precision) { /* the more a device computes, the more it costs */
        options.device_always = true;
        if (options.device_share < 0) options.device_share = 1;
    }
    options.predicts_prompts = true; /* what is measured is what tokens of an answer would be */
    pi2_cli_catch_signals();
    return verify(&settings, &options);
}
