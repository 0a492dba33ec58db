/* inspect_sparsity.c: a text, or tokens that are drawn, through the model; then a table by layer. */
#include "inspect_sparsity.h"

#include <stdlib.h>

#include "output.h"
#include "powerinfer2/engine.h"
#include "powerinfer2/sparsity.h"
#include "sparsity_report.h"

enum { TEXT_BYTES_PER_TOKEN = 16, LEAST_TOKENS = 2 };

/** The same tokens for every model of a vocabulary; none that ends a text. */
static int32_t *draw_tokens(const pi2_engine *engine, size_t count) {
    const uint32_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
    uint32_t state = 1;
    int32_t *tokens = malloc(count * sizeof *tokens);
    for (size_t done = 0; tokens && done < count;) {
        state = state * UINT32_C(1664525) + UINT32_C(1013904223);
        const int32_t token = (int32_t)((uint64_t)state * vocabulary >> 32);
        if (!pi2_engine_ends_generation(engine, token)) tokens[done++] = token;
    }
    return tokens;
}

static int measure(pi2_engine *engine, const pi2_cli_sparsity_settings *settings, const char *text, size_t length) {
    int32_t *tokens = NULL;
    size_t count = settings->tokens;
    pi2_sparsity *sparsity = NULL;
    pi2_status status = PI2_OK;
    if (settings->text_path) status = pi2_engine_tokenize(engine, text, length, true, false, &tokens, &count);
    else tokens = draw_tokens(engine, count);
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (!tokens) {
        (void)pi2_cli_usage_error("inspect --sparsity: not enough memory for %zu tokens", count);
        return PI2_EXIT_MEMORY;
    }
    if (count > settings->tokens) count = settings->tokens;
    if (count < LEAST_TOKENS) {
        free(tokens);
        return pi2_cli_usage_error("inspect --sparsity: %s has %zu tokens, at least %d are needed",
                                   settings->text_path ? settings->text_path : "the text", count, (int)LEAST_TOKENS);
    }
    status = pi2_sparsity_measure(engine, tokens, count, &sparsity);
    pi2_cli_clear_progress();
    free(tokens);
    if (status != PI2_OK) return pi2_cli_failed(status);
    const int code = pi2_cli_report_sparsity(sparsity, settings->json);
    pi2_sparsity_free(sparsity);
    return code;
}

int pi2_cli_inspect_sparsity(const pi2_cli_sparsity_settings *settings) {
    char *text = NULL;
    size_t length = 0;
    int code = PI2_EXIT_OK;
    if (settings->text_path) {
        const size_t most = (size_t)settings->tokens * TEXT_BYTES_PER_TOKEN;
        code = pi2_cli_read_text(settings->text_path, most, &text, &length);
        if (code != PI2_EXIT_OK) return code;
    }
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&options);
    options.model_path = settings->model;
    options.memory_bytes = settings->memory;
    options.context_tokens = settings->tokens;
    options.ffn_activation = settings->ffn_activation;
    options.counts_neurons = true;
    options.sparsity = "off"; /* what is counted is computed whole */
    options.callbacks = pi2_cli_callbacks();
    const pi2_status status = pi2_engine_open(&options, &engine);
    code = status == PI2_OK ? measure(engine, settings, text, length) : pi2_cli_failed(status);
    pi2_engine_close(engine);
    free(text);
    return code;
}
