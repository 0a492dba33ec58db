/* sparsity_report.c: how many neurons give nothing, as a table by layer or as JSON. */
#include "sparsity_report.h"

#include <math.h>
#include <stdio.h>

#include "output.h"

static const double rank_shares[PI2_SPARSITY_RANKS] = PI2_SPARSITY_RANK_SHARES;
static const int batch_tokens[PI2_SPARSITY_BATCHES] = PI2_SPARSITY_BATCH_TOKENS;

static json_t *json_layer(const pi2_layer_sparsity *layer) {
    json_t *object = json_object(), *ranks = json_array(), *magnitudes = json_array(), *batches = json_array();
    const struct { const char *key; double value; } numbers[] = {
        {"zeros", layer->zeros}, {"rounded_zeros", layer->rounded_zeros}, {"zero_tiles", layer->zero_tiles},
        {"zero_blocks", layer->zero_blocks}, {"hot", layer->hot}, {"repeat", layer->repeat}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        json_object_set_new(object, numbers[i].key, pi2_cli_json_number(numbers[i].value));
    }
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) {
        json_array_append_new(ranks, pi2_cli_json_number(layer->by_rank[i]));
        json_array_append_new(magnitudes, pi2_cli_json_number(layer->magnitude_by_rank[i]));
    }
    for (int i = 0; i < PI2_SPARSITY_BATCHES; i++) {
        json_array_append_new(batches, pi2_cli_json_number(layer->in_batch[i]));
    }
    json_object_set_new(object, "by_rank", ranks);
    json_object_set_new(object, "magnitude_by_rank", magnitudes);
    json_object_set_new(object, "in_batch", batches);
    return object;
}

json_t *pi2_cli_sparsity_json(const pi2_sparsity *sparsity) {
    json_t *object = json_object(), *layers = json_array(), *ranks = json_array(), *batches = json_array();
    json_object_set_new(object, "token_count", json_integer(sparsity->token_count));
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) json_array_append_new(ranks, pi2_cli_json_number(rank_shares[i]));
    for (int i = 0; i < PI2_SPARSITY_BATCHES; i++) json_array_append_new(batches, json_integer(batch_tokens[i]));
    json_object_set_new(object, "ranks", ranks);
    json_object_set_new(object, "batches", batches);
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

static void print_batches(const pi2_layer_sparsity *mean) {
    (void)printf("\n\nof so many tokens in a row, the neurons that fire in at least one:");
    for (int i = 0; i < PI2_SPARSITY_BATCHES; i++) {
        (void)printf("%s%d: ", i ? ", " : "\n", (int)batch_tokens[i]);
        if (isnan(mean->in_batch[i])) (void)printf("-");
        else (void)printf("%.1f %%", 100.0 * mean->in_batch[i]);
    }
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
    (void)printf("\nmagnitude  ");
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) (void)printf(" %5.1f %%", 100.0 * sparsity->mean.magnitude_by_rank[i]);
    print_batches(&sparsity->mean);
    (void)printf("\n\nzeros: activations that are exactly zero; rounded: that are zero in 8 bits, as Down reads them; "
                 "tiles,\nblocks: of 16 and 32 neurons that are zero wholly; hot: neurons that give 80 %% of the "
                 "activations; repeat:\nof a token's active neurons, those that the token before had active too; "
                 "magnitude: of the sum of\n|activation|, what the neurons with most of it give\n");
}

int pi2_cli_report_sparsity(const pi2_sparsity *sparsity, bool json) {
    if (json) return pi2_cli_print_json(pi2_cli_sparsity_json(sparsity), JSON_INDENT(2));
    pi2_cli_print_sparsity(sparsity);
    return pi2_cli_finish_stdout();
}
