/* compare_logits.c: the text's tokens come from the file of logits, which says what the reference had for each. */
#include "compare_logits.h"

#include <stdio.h>
#include <stdlib.h>

#include "divergence_report.h"
#include "output.h"
#include "powerinfer2/logits_file.h"
#include "powerinfer2/scoring.h"

typedef struct comparison {
    const char *path;
    pi2_logits_file *file;
    const pi2_logits_file_info *info;
    pi2_divergence *divergence;
    uint32_t chunks, chunk, index; /* to compare; the present one, and the scored token of it */
    uint32_t step;
    int32_t *tokens;               /* [info->chunk_tokens] */
    pi2_engine *engine;
    pi2_session *session;
    double sum;                    /* of surprises, for progress */
    uint64_t scored;
} comparison;

pi2_status pi2_cli_open_for_logits(pi2_engine_options *options, pi2_engine **engine_out) {
    static const uint32_t steps[] = {64, 16, 4, 1};
    pi2_status status = PI2_ERR_MEMORY;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && status == PI2_ERR_MEMORY; i++) {
        options->logits_tokens = steps[i];
        status = pi2_engine_open(options, engine_out);
    }
    return status;
}

static pi2_status take(void *user, const float *logits, int32_t token, double surprise) {
    comparison *self = user;
    const pi2_status status = pi2_logits_file_read(self->file, self->chunk, self->index++,
                                                   pi2_divergence_reference(self->divergence));
    self->sum += surprise;
    self->scored++;
    return status == PI2_OK ? pi2_divergence_add(self->divergence, logits, token) : status;
}

static pi2_status compare_chunk(comparison *self) {
    const int32_t begin = pi2_engine_bos(self->engine);
    const pi2_scored_chunk chunk = {.tokens = self->tokens, .count = self->info->chunk_tokens, .step = self->step,
                                    .first = (uint64_t)self->chunk * self->info->chunk_tokens};
    pi2_status status = pi2_logits_file_tokens(self->file, self->chunk, self->tokens);
    if (status != PI2_OK) return status;
    self->index = 0;
    if (begin >= 0) self->tokens[0] = begin;
    return pi2_score_chunk(self->engine, self->session, &chunk, take, self);
}

static int check_model(const comparison *self) {
    const pi2_engine_report *report = pi2_engine_get_report(self->engine);
    if (report->vocabulary_size != self->info->vocabulary_size) {
        (void)pi2_cli_usage_error("%s: it has logits of %u tokens, and %s has a vocabulary of %u: its reference is "
                                  "another model", self->path, (unsigned)self->info->vocabulary_size,
                                  report->weights_path, (unsigned)report->vocabulary_size);
        return PI2_EXIT_BAD_FILE;
    }
    if (report->context_tokens >= self->info->chunk_tokens) return PI2_EXIT_OK;
    return pi2_cli_usage_error("%s: its chunks have %u tokens, and the context %u: leave -c out",
                               self->path, (unsigned)self->info->chunk_tokens, (unsigned)report->context_tokens);
}

static int print_figures(const comparison *self, bool json) {
    pi2_divergence_summary summary;
    const pi2_status status = pi2_divergence_summarize(self->divergence, &summary);
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (json) {
        json_t *object = json_object();
        json_object_set_new(object, "chunks", json_integer(self->chunks));
        pi2_cli_divergence_json(&summary, object);
        return pi2_cli_print_json(object, JSON_COMPACT);
    }
    char what[64];
    (void)snprintf(what, sizeof what, "%u chunks of %u", (unsigned)self->chunks, (unsigned)self->info->chunk_tokens);
    pi2_cli_print_divergence(&summary, what);
    return pi2_cli_finish_stdout();
}

static int compare(comparison *self, bool json) {
    const int code = check_model(self);
    if (code != PI2_EXIT_OK) return code;
    pi2_status status = pi2_session_create(self->engine, NULL, &self->session);
    for (self->chunk = 0; status == PI2_OK && self->chunk < self->chunks; self->chunk++) {
        status = compare_chunk(self);
        if (status == PI2_OK) {
            pi2_cli_status_line("%u of %u chunks, mean surprise %.4f so far, %.1f s", (unsigned)self->chunk + 1,
                                (unsigned)self->chunks, self->sum / (double)self->scored,
                                pi2_cli_seconds_since_start());
        }
    }
    pi2_cli_clear_progress();
    if (status == PI2_OK) status = pi2_engine_finish_trace(self->engine);
    return status == PI2_OK ? print_figures(self, json) : pi2_cli_failed(status);
}

/** Takes the memory for the comparison, before the engine plans with what is left of the budget. */
static pi2_status prepare(comparison *self, int64_t chunks) {
    pi2_status status = pi2_logits_file_open(self->path, &self->file);
    if (status != PI2_OK) return status;
    self->info = pi2_logits_file_get_info(self->file);
    self->chunks = self->info->chunk_count;
    if (chunks >= 0 && chunks < self->chunks) self->chunks = (uint32_t)chunks;
    status = pi2_divergence_create(self->info->vocabulary_size,
                                   self->chunks * (self->info->scored / self->info->chunk_count), &self->divergence);
    self->tokens = calloc(self->info->chunk_tokens, sizeof *self->tokens);
    return status;
}

int pi2_cli_compare_logits(const char *path, int64_t chunks, bool json, pi2_engine_options *options) {
    comparison self = {.path = path};
    int code = PI2_EXIT_OK;
    pi2_status status = prepare(&self, chunks);
    if (status == PI2_OK && !self.tokens) {
        code = PI2_EXIT_MEMORY;
        (void)pi2_cli_usage_error("no memory for a chunk of tokens");
    }
    if (status == PI2_OK && code == PI2_EXIT_OK) {
        if (options->context_tokens == 0) options->context_tokens = self.info->chunk_tokens;
        status = pi2_cli_open_for_logits(options, &self.engine);
        self.step = options->logits_tokens;
        if (status == PI2_OK) code = compare(&self, json);
    }
    if (status != PI2_OK) code = pi2_cli_failed(status);
    pi2_session_free(self.session);
    pi2_engine_close(self.engine);
    pi2_divergence_free(self.divergence);
    pi2_logits_file_close(self.file);
    free(self.tokens);
    return code;
}
