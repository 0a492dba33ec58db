/* sparsity.c: what counts of neurons say of each layer. */
#include "powerinfer2/sparsity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/neuron_tally.h"

static const double HOT_ACTIVATIONS = 0.8;

/** One layer's entries: its FFN, or all its experts. */
typedef struct layer_range {
    const pi2_neuron_statistics *statistics;
    uint32_t begin, end;
    uint64_t neurons;       /* of all entries */
} layer_range;

static int compare_descending(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static double share(uint64_t part, uint64_t whole) { return whole ? (double)part / (double)whole : 0.0; }

/** What the neurons with the largest of `numbers`, which are sorted here, give of their sum, by rank; and the share of
 *  neurons that give four fifths. Sums of 64 bits could wrap round in a file that was made up: doubles cannot. */
static void share_by_rank(uint64_t *numbers, size_t count, double by_rank[PI2_SPARSITY_RANKS], double *hot_out) {
    static const double shares[PI2_SPARSITY_RANKS] = PI2_SPARSITY_RANK_SHARES;
    double total = 0.0, given = 0.0;
    size_t rank = 0;
    qsort(numbers, count, sizeof *numbers, compare_descending);
    for (size_t i = 0; i < count; i++) total += (double)numbers[i];
    for (size_t i = 0; i < count && total > 0.0; i++) {
        const bool was_hot = given >= HOT_ACTIVATIONS * total;
        given += (double)numbers[i];
        if (!was_hot) *hot_out = (double)(i + 1) / (double)count;
        for (; rank < PI2_SPARSITY_RANKS && (double)(i + 1) >= shares[rank] * (double)count; rank++) {
            by_rank[rank] = given / total;
        }
    }
}

/** Shares by rank. numbers: room for the layer's neurons. Returns the sum of all firings. */
static uint64_t fill_ranks(const layer_range *layer, uint64_t *numbers, pi2_layer_sparsity *out) {
    const pi2_statistics_entry *first = &layer->statistics->entries[layer->begin];
    const size_t count = (size_t)layer->neurons;
    const uint32_t *fired = pi2_neuron_statistics_column(layer->statistics, PI2_STATISTICS_FIRED, first);
    uint64_t firings = 0;
    double ignored = 0.0;
    for (size_t i = 0; i < count; i++) {
        numbers[i] = pi2_neuron_statistics_magnitude(layer->statistics, first, (uint32_t)i);
    }
    share_by_rank(numbers, count, out->magnitude_by_rank, &ignored);
    for (size_t i = 0; i < count; i++) firings += numbers[i] = fired[i];
    share_by_rank(numbers, count, out->by_rank, &out->hot);
    return firings;
}

static void fill_layer(const layer_range *layer, uint64_t *room, pi2_layer_sparsity *out) {
    const pi2_neuron_statistics *statistics = layer->statistics;
    uint64_t computed = 0, tiles = 0, blocks = 0, zeros = 0, sums[PI2_STATISTICS_SUMS] = { 0 };
    for (uint32_t e = layer->begin; e < layer->end; e++) {
        const pi2_statistics_entry *entry = &statistics->entries[e];
        const uint32_t *zero = pi2_neuron_statistics_column(statistics, PI2_STATISTICS_ZEROS, entry);
        const uint64_t *of_entry = pi2_neuron_statistics_sums(statistics, entry);
        computed += entry->token_count * entry->neuron_count;
        tiles += entry->token_count * ((entry->neuron_count - 1) / PI2_STATISTICS_TILE + 1);
        blocks += entry->token_count * ((entry->neuron_count - 1) / PI2_STATISTICS_BLOCK + 1);
        for (uint32_t i = 0; i < entry->neuron_count; i++) zeros += zero[i];
        for (int i = 0; i < PI2_STATISTICS_SUMS; i++) sums[i] += of_entry[i];
    }
    const uint64_t fired = fill_ranks(layer, room, out);
    out->zeros = share(zeros, computed);
    out->rounded_zeros = share(computed - fired, computed);
    out->zero_tiles = share(sums[PI2_SUM_ZERO_TILES], tiles);
    out->zero_blocks = share(sums[PI2_SUM_ZERO_BLOCKS], blocks);
    out->repeat = share(sums[PI2_SUM_AGAIN], sums[PI2_SUM_AGAIN_POSSIBLE]);
    out->in_batch[0] = share(fired, statistics->token_count * layer->neurons);
    for (unsigned i = 0; i < PI2_STATISTICS_BATCHES; i++) {
        const uint64_t runs = pi2_neuron_statistics_runs(statistics, i);
        out->in_batch[1 + i] = runs ? (double)sums[PI2_SUM_IN_2 + i] / (double)runs / (double)layer->neurons : NAN;
    }
}

static void add_to_mean(pi2_layer_sparsity *mean, const pi2_layer_sparsity *layer, uint32_t layers) {
    mean->zeros += layer->zeros / layers;
    mean->rounded_zeros += layer->rounded_zeros / layers;
    mean->zero_tiles += layer->zero_tiles / layers;
    mean->zero_blocks += layer->zero_blocks / layers;
    mean->hot += layer->hot / layers;
    mean->repeat += layer->repeat / layers;
    for (int i = 0; i < PI2_SPARSITY_BATCHES; i++) mean->in_batch[i] += layer->in_batch[i] / layers;
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) {
        mean->by_rank[i] += layer->by_rank[i] / layers;
        mean->magnitude_by_rank[i] += layer->magnitude_by_rank[i] / layers;
    }
}

/** The layer whose entries begin at `begin`. */
static layer_range layer_at(const pi2_neuron_statistics *statistics, uint32_t begin) {
    layer_range layer = { .statistics = statistics, .begin = begin, .end = begin };
    while (layer.end < statistics->entry_count &&
           statistics->entries[layer.end].layer == statistics->entries[begin].layer) {
        layer.neurons += statistics->entries[layer.end++].neuron_count;
    }
    return layer;
}

static void fill(const pi2_neuron_statistics *statistics, uint64_t *room, pi2_sparsity *sparsity) {
    layer_range range = { 0 };
    for (uint32_t i = 0; i < sparsity->layer_count; i++) {
        range = layer_at(statistics, range.end);
        fill_layer(&range, room, &sparsity->layers[i]);
        add_to_mean(&sparsity->mean, &sparsity->layers[i], sparsity->layer_count);
    }
}

pi2_status pi2_sparsity_of(const pi2_neuron_statistics *statistics, pi2_sparsity **sparsity_out) {
    uint32_t layers = 0;
    uint64_t most = 0;
    for (layer_range range = layer_at(statistics, 0);; range = layer_at(statistics, range.end)) {
        layers++;
        if (range.neurons > most) most = range.neurons;
        if (range.end == statistics->entry_count) break;
    }
    pi2_sparsity *sparsity = calloc(1, sizeof *sparsity);
    pi2_layer_sparsity *list = calloc(layers, sizeof *list);
    uint64_t *room = malloc((size_t)most * sizeof *room);
    *sparsity_out = NULL;
    if (!sparsity || !list || !room) {
        free(sparsity);
        free(list);
        free(room);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the sparsity of %u layers", layers);
    }
    *sparsity = (pi2_sparsity){ .layer_count = layers, .token_count = (uint32_t)statistics->token_count,
                                .layers = list };
    fill(statistics, room, sparsity);
    free(room);
    *sparsity_out = sparsity;
    return PI2_OK;
}

/* ---- a run ------------------------------------------------------------------------------ */

struct pi2_sparsity_counter {
    pi2_engine *engine;
    pi2_neuron_tally *tally;
    pi2_neuron_statistics statistics;
    pi2_statistics_text *text;
};

static void free_counter(pi2_sparsity_counter *counter) {
    pi2_neuron_tally_free(counter->tally);
    pi2_neuron_statistics_free(&counter->statistics);
    free(counter);
}

pi2_status pi2_sparsity_begin(pi2_engine *engine, size_t text_tokens, pi2_sparsity_counter **counter_out) {
    pi2_sparsity_counter *counter = calloc(1, sizeof *counter);
    *counter_out = NULL;
    if (!counter) return pi2_fail(PI2_ERR_MEMORY, "no memory for counts");
    counter->engine = engine;
    pi2_status status = pi2_neuron_tally_statistics(engine, (uint32_t)text_tokens, &counter->statistics);
    if (status == PI2_OK) {
        counter->text = pi2_neuron_statistics_text(&counter->statistics, 0, 0);
        status = counter->text ? pi2_neuron_tally_create(engine, &counter->tally) : PI2_ERR_MEMORY;
    }
    if (status != PI2_OK) {
        free_counter(counter);
        return status;
    }
    pi2_neuron_tally_begin(counter->tally, counter->text, 0, text_tokens);
    *counter_out = counter;
    return PI2_OK;
}

void pi2_sparsity_new_text(pi2_sparsity_counter *counter) {
    pi2_neuron_tally_add(counter->tally, &counter->statistics, counter->text);
    pi2_neuron_tally_begin(counter->tally, counter->text, counter->statistics.token_count,
                           counter->statistics.chunk_tokens);
}

pi2_status pi2_sparsity_end(pi2_sparsity_counter *counter, pi2_sparsity **sparsity_out) {
    if (sparsity_out) *sparsity_out = NULL;
    if (!counter) return PI2_OK;
    pi2_neuron_tally_add(counter->tally, &counter->statistics, counter->text);
    const pi2_status status = sparsity_out ? pi2_sparsity_of(&counter->statistics, sparsity_out) : PI2_OK;
    free_counter(counter);
    return status;
}

static pi2_status run_tokens(pi2_engine *engine, const int32_t *tokens, size_t token_count) {
    pi2_session *session = NULL;
    PI2_TRY(pi2_session_create(engine, NULL, &session));
    const pi2_status status = pi2_session_append(session, tokens, token_count, PI2_LOGITS_NONE);
    pi2_session_free(session);
    return status;
}

pi2_status pi2_sparsity_measure(pi2_engine *engine, const int32_t *tokens, size_t token_count,
                                pi2_sparsity **sparsity_out) {
    pi2_sparsity_counter *counter = NULL;
    *sparsity_out = NULL;
    PI2_TRY(pi2_sparsity_begin(engine, token_count, &counter));
    const pi2_status status = run_tokens(engine, tokens, token_count);
    if (status == PI2_OK) return pi2_sparsity_end(counter, sparsity_out);
    (void)pi2_sparsity_end(counter, NULL);
    return status;
}

void pi2_sparsity_free(pi2_sparsity *sparsity) {
    if (!sparsity) return;
    free(sparsity->layers);
    free(sparsity);
}
