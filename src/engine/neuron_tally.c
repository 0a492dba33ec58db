/*
 * neuron_tally.c: what belongs to one neuron is touched by one thread at a time (neuron_counter.h), so counts of
 * neurons need no lock; sums of an entry are shared by threads and added to once a call.
 */
#include "engine/neuron_tally.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/engine_internal.h"
#include "pipeline/neuron_counter.h"
#include "statistics/neuron_samples.h"

enum { BLOCK = PI2_STATISTICS_BLOCK, TILE = PI2_STATISTICS_TILE };

/* Numbers that a chunk's are added to one by one, and behind them those of 64 bits. */
enum { FIRED, ZEROS, IN_RUNS, COUNTS = IN_RUNS + PI2_STATISTICS_BATCHES, MAGNITUDE = COUNTS, SAMPLED = MAGNITUDE + 2,
       COLUMNS = SAMPLED + PI2_STATISTICS_SAMPLED_COLUMNS };
static const uint32_t columns[COLUMNS] = {
    PI2_STATISTICS_FIRED, PI2_STATISTICS_ZEROS, PI2_STATISTICS_IN_2, PI2_STATISTICS_IN_4, PI2_STATISTICS_IN_8,
    PI2_STATISTICS_IN_32, PI2_STATISTICS_MAGNITUDE, PI2_STATISTICS_MAGNITUDE_HIGH, PI2_STATISTICS_SAMPLED,
    PI2_STATISTICS_SAMPLED + 1, PI2_STATISTICS_SAMPLED + 2, PI2_STATISTICS_SAMPLED + 3, PI2_STATISTICS_SAMPLED + 4,
    PI2_STATISTICS_SAMPLED + 5, PI2_STATISTICS_SAMPLED + 6, PI2_STATISTICS_SAMPLED + 7 };

/** One layer's or expert's counts, by all threads. */
typedef struct entry_counts {
    _Atomic uint64_t tokens, sums[PI2_STATISTICS_SUMS];
} entry_counts;

struct pi2_neuron_tally {
    pi2_engine *engine;
    pi2_neuron_counter counter; /* what the pipeline calls while a chunk is counted */
    size_t chunk_tokens;
    uint32_t experts, stride;   /* of a layer, 1 when dense; neurons of an expert in blocks, rounded up */
    size_t entry_count;
    uint32_t *counts[COUNTS];   /* each [entries][stride] */
    uint64_t *magnitudes;       /* the same */
    uint32_t *sampled;          /* the same: bit k: whether the neuron fired in the chunk's sample k */
    pi2_neuron_sample samples[PI2_CHUNK_SAMPLES]; /* of the chunk, by position */
    uint32_t sample_count;
    uint32_t *fired_last;       /* the same: 1 + the position at which the neuron fired last */
    uint32_t *seen_last;        /* [entries][stride / 32]: 1 + the position at which the block was computed last */
    entry_counts *entries;
    uint32_t run_ends[PI2_STATISTICS_BATCHES]; /* of the chunk: where its complete runs end */
};

static uint32_t stride_of(const pi2_model_shape *shape) {
    return (pi2_ffn_length(shape) + BLOCK - 1) / BLOCK * BLOCK;
}

uint64_t pi2_neuron_tally_bytes(const pi2_model_shape *shape) {
    const uint64_t in_layer = (uint64_t)pi2_layer_ffns(shape) * stride_of(shape);
    const uint64_t entries = (uint64_t)shape->layer_count * pi2_layer_ffns(shape);
    const uint64_t counted = in_layer * shape->layer_count;
    const uint64_t statistics =
        counted * COLUMNS * 4 + entries * (sizeof(pi2_statistics_entry) + 8 * PI2_STATISTICS_SUMS);
    const uint64_t tally = counted * ((COUNTS + 2) * 4 + 8) + counted / BLOCK * 4 + entries * sizeof(entry_counts);
    return tally + statistics + in_layer * 8; /* and one layer's numbers in order, to tell of them */
}

/* ---- counting --------------------------------------------------------------------------- */

/** A neuron fired at a position (from 0); before: 1 + the position at which it fired last, 0: never. */
static void count_runs(pi2_neuron_tally *tally, uint64_t *sums, size_t neuron, uint32_t position, uint32_t before) {
    for (int i = 0; i < PI2_STATISTICS_BATCHES; i++) {
        const uint32_t run = pi2_statistics_batches[i];
        const bool is_first = before == 0 || (before - 1) / run != position / run;
        const bool counts = position < tally->run_ends[i] && is_first;
        sums[PI2_SUM_IN_2 + i] += counts;
        tally->counts[IN_RUNS + i][neuron] += counts;
    }
}

/** |activation| in whole units: whatever is added in whatever order then gives the same sum. What is no number is the
 *  most. */
static uint32_t units_of(float activation) {
    const double units = fabs((double)activation) * PI2_STATISTICS_MAGNITUDE_UNITS + 0.5;
    return units < (double)PI2_STATISTICS_MOST_MAGNITUDE ? (uint32_t)units : PI2_STATISTICS_MOST_MAGNITUDE;
}

/** The bit of the sample at a position; 0: the token is none. */
static uint32_t sample_bit(const pi2_neuron_tally *tally, uint32_t position) {
    for (uint32_t k = 0; k < tally->sample_count; k++) {
        if (tally->samples[k].position == position) return UINT32_C(1) << k;
    }
    return 0;
}

/** One block of 32 neurons, or what is left. bit: the token's among the samples */
static void count_block(pi2_neuron_tally *tally, uint64_t *sums, size_t first, const pi2_neuron_values *values,
                        uint32_t at, uint32_t count, uint32_t bit) {
    uint32_t *fired = tally->counts[FIRED] + first, *zeros = tally->counts[ZEROS] + first;
    uint32_t *fired_last = tally->fired_last + first, *seen = &tally->seen_last[first / BLOCK];
    const uint32_t now = values->position + 1;
    const bool follows = *seen + 1 == now && values->position > 0;
    uint32_t active = 0;
    for (uint32_t tile = 0; tile < count; tile += TILE) {
        uint32_t active_here = 0;
        for (uint32_t i = tile; i < tile + TILE && i < count; i++) {
            const bool is_zero = values->activations[at + i] == 0.0f;
            const bool is_rounded = values->rounded ? values->rounded[at + i] == 0 : is_zero;
            zeros[i] += is_zero;
            if (!is_zero) tally->magnitudes[first + i] += units_of(values->activations[at + i]);
            if (is_rounded) continue;
            active_here++;
            fired[i]++;
            tally->sampled[first + i] |= bit;
            sums[PI2_SUM_AGAIN_POSSIBLE] += follows;
            sums[PI2_SUM_AGAIN] += follows && fired_last[i] + 1 == now;
            count_runs(tally, sums, first + i, values->position, fired_last[i]);
            fired_last[i] = now;
        }
        sums[PI2_SUM_ZERO_TILES] += active_here == 0;
        active += active_here;
    }
    sums[PI2_SUM_ZERO_BLOCKS] += active == 0;
    *seen = now;
}

static void count(void *user, unsigned member, const pi2_neuron_values *values) {
    pi2_neuron_tally *tally = user;
    const uint32_t expert = values->expert == UINT32_MAX ? 0 : values->expert;
    const size_t entry = (size_t)values->layer * tally->experts + expert;
    uint64_t sums[PI2_STATISTICS_SUMS] = { 0 };
    const uint32_t bit = sample_bit(tally, values->position);
    (void)member;
    for (uint32_t i = 0; i < values->count; i += BLOCK) {
        const uint32_t left = values->count - i;
        const size_t first = entry * tally->stride + values->begin + i;
        count_block(tally, sums, first, values, i, left < BLOCK ? left : BLOCK, bit);
    }
    entry_counts *counts = &tally->entries[entry];
    if (values->begin == 0) atomic_fetch_add_explicit(&counts->tokens, 1, memory_order_relaxed);
    for (int i = 0; i < PI2_STATISTICS_SUMS; i++) {
        if (sums[i]) atomic_fetch_add_explicit(&counts->sums[i], sums[i], memory_order_relaxed);
    }
}

/* ---- a chunk ---------------------------------------------------------------------------- */

void pi2_neuron_tally_begin(pi2_neuron_tally *tally, const pi2_statistics_text *text, uint64_t begin,
                            size_t token_count) {
    const size_t padded = tally->entry_count * tally->stride;
    for (int c = 0; c < COUNTS; c++) memset(tally->counts[c], 0, padded * sizeof *tally->counts[c]);
    memset(tally->magnitudes, 0, padded * sizeof *tally->magnitudes);
    memset(tally->sampled, 0, padded * sizeof *tally->sampled);
    tally->sample_count = pi2_neuron_samples_of_chunk(text, begin, token_count, tally->samples);
    memset(tally->fired_last, 0, padded * sizeof *tally->fired_last);
    memset(tally->seen_last, 0, padded / BLOCK * sizeof *tally->seen_last);
    for (size_t e = 0; e < tally->entry_count; e++) {
        atomic_store_explicit(&tally->entries[e].tokens, 0, memory_order_relaxed);
        for (int i = 0; i < PI2_STATISTICS_SUMS; i++) {
            atomic_store_explicit(&tally->entries[e].sums[i], 0, memory_order_relaxed);
        }
    }
    for (int i = 0; i < PI2_STATISTICS_BATCHES; i++) {
        tally->run_ends[i] = (uint32_t)token_count / pi2_statistics_batches[i] * pi2_statistics_batches[i];
    }
    tally->chunk_tokens = token_count;
    pi2_forward_set_counter(tally->engine->forward, &tally->counter);
}

static bool has_counted(const pi2_neuron_tally *tally) {
    for (size_t e = 0; e < tally->entry_count; e++) {
        if (atomic_load_explicit(&tally->entries[e].tokens, memory_order_relaxed)) return true;
    }
    return false;
}

static void add_columns(const pi2_neuron_tally *tally, pi2_neuron_statistics *statistics, uint32_t e) {
    const pi2_statistics_entry *entry = &statistics->entries[e];
    for (int c = 0; c < COUNTS; c++) {
        const uint32_t *from = tally->counts[c] + (size_t)e * tally->stride;
        uint32_t *into = statistics->columns[c] + entry->first;
        for (uint32_t i = 0; i < entry->neuron_count; i++) into[i] += from[i];
    }
    const uint64_t *magnitudes = tally->magnitudes + (size_t)e * tally->stride;
    for (uint32_t i = 0; i < entry->neuron_count; i++) {
        if (magnitudes[i]) pi2_neuron_statistics_add_magnitude(statistics, entry, i, magnitudes[i]);
    }
}

/** Takes those of the chunk's samples that belong to all of them, with their bits. */
static void add_samples(const pi2_neuron_tally *tally, pi2_neuron_statistics *statistics) {
    uint64_t numbers[PI2_CHUNK_SAMPLES];
    int16_t places[PI2_CHUNK_SAMPLES];
    for (uint32_t k = 0; k < tally->sample_count; k++) numbers[k] = tally->samples[k].number;
    pi2_neuron_samples_take(statistics, numbers, tally->sample_count, places);
    for (uint32_t e = 0; e < statistics->entry_count; e++) {
        const pi2_statistics_entry *entry = &statistics->entries[e];
        const uint32_t *bits = tally->sampled + (size_t)e * tally->stride;
        for (uint32_t k = 0; k < tally->sample_count; k++) {
            if (places[k] < 0) continue;
            uint32_t *into = statistics->columns[SAMPLED + places[k] / 32] + entry->first;
            const int shift = places[k] % 32;
            for (uint32_t i = 0; i < entry->neuron_count; i++) into[i] |= (bits[i] >> k & 1) << shift;
        }
    }
}

void pi2_neuron_tally_add(pi2_neuron_tally *tally, pi2_neuron_statistics *statistics, pi2_statistics_text *text) {
    pi2_forward_set_counter(tally->engine->forward, NULL);
    if (!has_counted(tally)) return;
    text->token_count += tally->chunk_tokens;
    statistics->token_count += tally->chunk_tokens;
    for (uint32_t e = 0; e < statistics->entry_count; e++) {
        pi2_statistics_entry *entry = &statistics->entries[e];
        entry_counts *counts = &tally->entries[e];
        uint64_t *sums = pi2_neuron_statistics_sums(statistics, entry);
        entry->token_count += atomic_load_explicit(&counts->tokens, memory_order_relaxed);
        for (int i = 0; i < PI2_STATISTICS_SUMS; i++) {
            sums[i] += atomic_load_explicit(&counts->sums[i], memory_order_relaxed);
        }
        add_columns(tally, statistics, e);
    }
    add_samples(tally, statistics);
}

pi2_status pi2_neuron_tally_chunk(pi2_neuron_tally *tally, pi2_session *session, const int32_t *tokens,
                                  size_t token_count, pi2_neuron_statistics *statistics, pi2_statistics_text *text,
                                  uint64_t begin) {
    if (statistics->token_count + token_count > UINT32_MAX) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "statistics count %u tokens at most, and %llu are counted already",
                        UINT32_MAX, (unsigned long long)statistics->token_count);
    }
    PI2_TRY(pi2_session_truncate(session, 0));
    pi2_neuron_tally_begin(tally, text, begin, token_count);
    const pi2_status status = pi2_session_append(session, tokens, token_count, PI2_LOGITS_NONE);
    if (status == PI2_OK) pi2_neuron_tally_add(tally, statistics, text);
    else pi2_forward_set_counter(tally->engine->forward, NULL);
    return status;
}

/* ---- memory ----------------------------------------------------------------------------- */

pi2_status pi2_neuron_tally_statistics(const pi2_engine *engine, uint32_t chunk_tokens,
                                       pi2_neuron_statistics *statistics_out) {
    const pi2_model_shape *shape = &engine->run.source.model->shape;
    const uint32_t experts = pi2_layer_ffns(shape), count_of_entries = shape->layer_count * experts;
    *statistics_out = (pi2_neuron_statistics){ 0 };
    pi2_statistics_entry *entries = calloc(count_of_entries, sizeof *entries);
    if (!entries) return pi2_fail(PI2_ERR_MEMORY, "no memory for the statistics of %u layers", shape->layer_count);
    for (uint32_t e = 0; e < count_of_entries; e++) {
        const bool is_expert = pi2_layer_has(&shape->layers[e / experts], PI2_BLOCK_ffn_experts);
        entries[e] = (pi2_statistics_entry){ .layer = e / experts, .neuron_count = pi2_ffn_length(shape),
                                             .expert = is_expert ? e % experts : UINT32_MAX };
    }
    const pi2_status status =
        pi2_neuron_statistics_make(entries, count_of_entries, columns, COLUMNS, statistics_out);
    free(entries);
    if (status != PI2_OK) return status;
    const char *activation = pi2_ffn_activation_name(shape->activation);
    memcpy(statistics_out->activation, activation, strlen(activation));
    statistics_out->model_hash = engine->run.source.header_hash;
    statistics_out->chunk_tokens = chunk_tokens;
    return PI2_OK;
}

pi2_status pi2_neuron_tally_create(pi2_engine *engine, pi2_neuron_tally **tally_out) {
    const pi2_model_shape *shape = &engine->run.source.model->shape;
    pi2_neuron_tally *tally = calloc(1, sizeof *tally);
    *tally_out = NULL;
    if (!pi2_model_ffns_are_alike(shape)) {
        free(tally);
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: its layers' FFNs differ: neurons are counted in models whose are "
                        "alike", engine->run.source.model_path);
    }
    if (!tally) return pi2_fail(PI2_ERR_MEMORY, "no memory for counts");
    *tally = (pi2_neuron_tally){ .engine = engine, .counter = { .user = tally, .count = count },
                                 .experts = pi2_layer_ffns(shape), .stride = stride_of(shape),
                                 .entry_count = (size_t)shape->layer_count * pi2_layer_ffns(shape) };
    const size_t padded = tally->entry_count * tally->stride;
    bool is_there = true;
    for (int c = 0; c < COUNTS; c++) {
        tally->counts[c] = calloc(padded, sizeof *tally->counts[c]);
        is_there = is_there && tally->counts[c];
    }
    tally->magnitudes = calloc(padded, sizeof *tally->magnitudes);
    tally->sampled = calloc(padded, sizeof *tally->sampled);
    is_there = is_there && tally->magnitudes && tally->sampled;
    tally->fired_last = calloc(padded, sizeof *tally->fired_last);
    tally->seen_last = calloc(padded / BLOCK, sizeof *tally->seen_last);
    tally->entries = calloc(tally->entry_count, sizeof *tally->entries);
    if (!is_there || !tally->fired_last || !tally->seen_last || !tally->entries) {
        pi2_neuron_tally_free(tally);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the counts of %zu neurons", padded);
    }
    *tally_out = tally;
    return PI2_OK;
}

void pi2_neuron_tally_free(pi2_neuron_tally *tally) {
    if (!tally) return;
    pi2_forward_set_counter(tally->engine->forward, NULL);
    for (int c = 0; c < COUNTS; c++) free(tally->counts[c]);
    free(tally->magnitudes);
    free(tally->sampled);
    free(tally->fired_last);
    free(tally->seen_last);
    free(tally->entries);
    free(tally);
}
