/* inspect_sparsity.c: a text, or tokens that are drawn, through the model; then a table by layer. */
#include "inspect_sparsity.h"

#include <stdio.h>
#include <stdlib.h>

#include "output.h"
#include "powerinfer2/engine.h"
#include "powerinfer2/sparsity.h"

enum { TEXT_BYTES_PER_TOKEN = 16, LEAST_TOKENS = 2 };

static const double rank_shares[PI2_SPARSITY_RANKS] = PI2_SPARSITY_RANK_SHARES;

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

static json_t *json_layer(const pi2_layer_sparsity *layer) {
    json_t *object = json_object(), *ranks = json_array();
    const struct { const char *key; double value; } numbers[] = {
        {"zeros", layer->zeros}, {"rounded_zeros", layer->rounded_zeros}, {"zero_tiles", layer->zero_tiles},
        {"zero_blocks", layer->zero_blocks}, {"hot", layer->hot}, {"repeat", layer->repeat}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        json_object_set_new(object, numbers[i].key, pi2_cli_json_number(numbers[i].value));
    }
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) json_array_append_new(ranks, pi2_cli_json_number(layer->by_rank[i]));
    json_object_set_new(object, "by_rank", ranks);
    return object;
}

json_t *pi2_cli_sparsity_json(const pi2_sparsity *sparsity) {
    json_t *object = json_object(), *layers = json_array(), *ranks = json_array();
    json_object_set_new(object, "token_count", json_integer(sparsity->token_count));
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) json_array_append_new(ranks, pi2_cli_json_number(rank_shares[i]));
    json_object_set_new(object, "ranks", ranks);
    json_object_set_new(object, "mean", json_layer(&sparsity->mean));
    json_object_set_new(object, "layers", layers);
    for (uint32_t i = 0; i < sparsity->layer_count; i++) {
        json_array_append_new(layers, json_layer(&sparsity->layers[i]));
    }
    return object;
}

static void print_layer(const char *name, const pi2_layer_sparsity *layer) {
    (void)printf("%-6s %9.1f %% %9.1f %% %9.1f %% %9.1f %% %9.1f %% %9.1f %%\n", name, 100.0 * layer->zeros,
                 100.0 * layer->rounded_zeros, 100.0 * layer->zero_tiles, 100.0 * layer->zero_blocks,
                 100.0 * layer->hot, 100.0 * layer->repeat);
}

void pi2_cli_print_sparsity(const pi2_sparsity *sparsity) {
    char name[16];
    (void)printf("%u tokens\n\n%-6s %11s %11s %11s %11s %11s %11s\n", sparsity->token_count, "layer", "zeros",
                 "rounded", "tiles", "blocks", "hot", "repeat");
    for (uint32_t i = 0; i < sparsity->layer_count; i++) {
        (void)snprintf(name, sizeof name, "%u", i);
        print_layer(name, &sparsity->layers[i]);
    }
    print_layer("mean", &sparsity->mean);
    (void)printf("\nthe hottest");
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) (void)printf(" %5.0f %%", 100.0 * rank_shares[i]);
    (void)printf("\ngive       ");
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) (void)printf(" %5.1f %%", 100.0 * sparsity->mean.by_rank[i]);
    (void)printf("\n\nzeros: activations that are exactly zero; rounded: that are zero in 8 bits, as Down reads them; "
                 "tiles,\nblocks: of 16 and 32 neurons that are zero wholly; hot: neurons that give 80 %% of the "
                 "activations; repeat:\nof a token's active neurons, those that the token before had active too\n");
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
    if (!settings->json) pi2_cli_print_sparsity(sparsity);
    const int code = settings->json ? pi2_cli_print_json(pi2_cli_sparsity_json(sparsity), JSON_INDENT(2))
                                    : pi2_cli_finish_stdout();
    pi2_sparsity_free(sparsity);
    return code;
}

int pi2_cli_inspect_sparsity(const pi2_cli_sparsity_settings *settings) {
    char *text = NULL;
    size_t length = 0;
    int code = PI2_EXIT_OK;
    if (settings->text_path) {
        const size_t most = (size_t)settings->tokens * TEXT_BYTES_PER_TOKEN;
        code = pi2_cli_read_file_start(settings->text_path, most, &text, &length);
        if (code != PI2_EXIT_OK) return code;
    }
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&options);
    options.model_path = settings->model;
    options.memory_bytes = settings->memory;
    options.context_tokens = settings->tokens;
    options.ffn_activation = settings->ffn_activation;
    options.callbacks = pi2_cli_callbacks();
    const pi2_status status = pi2_engine_open(&options, &engine);
    code = status == PI2_OK ? measure(engine, settings, text, length) : pi2_cli_failed(status);
    pi2_engine_close(engine);
    free(text);
    return code;
}
