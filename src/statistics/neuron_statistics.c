/* neuron_statistics.c: statistics in memory, and how they are found in it. */
#include "statistics/neuron_statistics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "statistics/neuron_statistics_internal.h"

const uint32_t pi2_statistics_batches[PI2_STATISTICS_BATCHES] = { 2, 4, 8, 32 };

bool pi2_statistics_entries_are_good(const pi2_statistics_entry *entries, uint32_t count, uint64_t *neuron_total_out) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        const pi2_statistics_entry *entry = &entries[i], *before = &entries[i ? i - 1 : 0];
        const bool is_in_order = i == 0 || before->layer < entry->layer ||
                                 (before->layer == entry->layer && before->expert < entry->expert);
        if (!is_in_order || entry->neuron_count == 0 || entry->neuron_count > PI2_STATISTICS_MOST_NEURONS) return false;
        total += entry->neuron_count;
    }
    *neuron_total_out = total;
    return count > 0 && count <= PI2_STATISTICS_MOST_ENTRIES && total <= INT32_MAX;
}

static bool has_column(const uint32_t *ids, uint32_t count, uint32_t id) {
    for (uint32_t i = 0; i < count; i++) {
        if (ids[i] == id) return true;
    }
    return false;
}

bool pi2_statistics_columns_are_good(const uint32_t *ids, uint32_t count) {
    if (count == 0 || count > PI2_STATISTICS_MOST_COLUMNS) return false;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (ids[i] == ids[k]) return false;
        }
    }
    for (uint32_t w = 1; w < PI2_STATISTICS_SAMPLED_COLUMNS; w++) {
        if (has_column(ids, count, PI2_STATISTICS_SAMPLED) != has_column(ids, count, PI2_STATISTICS_SAMPLED + w)) {
            return false;
        }
    }
    return has_column(ids, count, PI2_STATISTICS_MAGNITUDE) == has_column(ids, count, PI2_STATISTICS_MAGNITUDE_HIGH);
}

bool pi2_statistics_sums_are_good(const pi2_statistics_entry *entry, const uint64_t *sums) {
    const uint64_t tokens = entry->token_count, neurons = entry->neuron_count;
    for (int i = 0; i < PI2_STATISTICS_SUMS; i++) {
        if (sums[i] > tokens * neurons) return false;
    }
    return sums[PI2_SUM_ZERO_TILES] <= tokens * ((neurons - 1) / PI2_STATISTICS_TILE + 1) &&
           sums[PI2_SUM_ZERO_BLOCKS] <= tokens * ((neurons - 1) / PI2_STATISTICS_BLOCK + 1) &&
           sums[PI2_SUM_AGAIN] <= sums[PI2_SUM_AGAIN_POSSIBLE];
}

static bool is_before(const pi2_statistics_text *a, const pi2_statistics_text *b) {
    return a->hash < b->hash || (a->hash == b->hash && a->bytes < b->bytes);
}

bool pi2_statistics_samples_are_good(const pi2_neuron_statistics *statistics) {
    const uint32_t count = statistics->sample_count, *ids = statistics->column_ids;
    if (count > 0 && !has_column(ids, statistics->column_count, PI2_STATISTICS_SAMPLED)) return false;
    for (uint32_t i = 1; i < count; i++) {
        if (statistics->samples[i - 1] >= statistics->samples[i]) return false;
    }
    return count <= PI2_STATISTICS_SAMPLES && count <= statistics->token_count;
}

uint64_t pi2_statistics_all_parts(uint32_t part_count) {
    return part_count == PI2_STATISTICS_MOST_PARTS ? UINT64_MAX : (UINT64_C(1) << part_count) - 1;
}

/** Tokens of a text's parts, up to its end, in chunks of so many. */
static uint64_t tokens_of_parts(const pi2_statistics_text *text, uint32_t chunk) {
    const uint64_t chunks = text->end / chunk, rest = text->end % chunk;
    uint64_t tokens = 0;
    for (uint32_t part = 0; part < text->part_count; part++) {
        if (!(text->parts >> part & 1)) continue;
        tokens += (chunks / text->part_count + (chunks % text->part_count > part)) * chunk;
        if (chunks % text->part_count == part) tokens += rest;
    }
    return tokens;
}

static bool text_is_good(const pi2_statistics_text *text, uint32_t chunk) {
    if (text->end > PI2_STATISTICS_MOST_TOKENS || text->part_count < 1 ||
        text->part_count > PI2_STATISTICS_MOST_PARTS) return false;
    const uint64_t all = pi2_statistics_all_parts(text->part_count);
    if (text->parts == 0 || (text->parts & ~all) || (text->parts == all) != (text->part_count == 1)) return false;
    return text->token_count == tokens_of_parts(text, chunk);
}

bool pi2_statistics_texts_are_good(const pi2_neuron_statistics *statistics) {
    uint64_t tokens = 0;
    if (statistics->text_count > 0 && statistics->chunk_tokens == 0) return false;
    for (uint32_t i = 0; i < statistics->text_count; i++) {
        const pi2_statistics_text *text = &statistics->texts[i];
        if (i > 0 && !is_before(text - 1, text)) return false;
        if (!text_is_good(text, statistics->chunk_tokens)) return false;
        tokens += text->token_count;
    }
    return statistics->text_count == 0 || tokens == statistics->token_count;
}

static pi2_status make(const pi2_statistics_entry *entries, pi2_neuron_statistics *statistics) {
    const uint32_t count = statistics->entry_count;
    statistics->entries = malloc(count * sizeof *entries);
    statistics->sums = calloc((size_t)count * PI2_STATISTICS_SUMS, sizeof *statistics->sums);
    bool is_there = statistics->entries && statistics->sums;
    for (uint32_t c = 0; c < statistics->column_count; c++) {
        statistics->columns[c] = calloc((size_t)statistics->neuron_total, sizeof(uint32_t));
        if (!statistics->columns[c]) is_there = false;
    }
    if (!is_there) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the statistics of %" PRIu64 " neurons",
                        statistics->neuron_total);
    }
    memcpy(statistics->entries, entries, count * sizeof *entries);
    uint64_t first = 0;
    for (uint32_t i = 0; i < count; i++) {
        statistics->entries[i].first = first;
        first += statistics->entries[i].neuron_count;
    }
    return PI2_OK;
}

pi2_status pi2_neuron_statistics_make(const pi2_statistics_entry *entries, uint32_t entry_count,
                                      const uint32_t *column_ids, uint32_t column_count,
                                      pi2_neuron_statistics *statistics_out) {
    *statistics_out = (pi2_neuron_statistics){ .entry_count = entry_count, .column_count = column_count };
    uint64_t total = 0;
    if (!pi2_statistics_entries_are_good(entries, entry_count, &total) ||
        !pi2_statistics_columns_are_good(column_ids, column_count)) {
        *statistics_out = (pi2_neuron_statistics){ 0 };
        return pi2_fail(PI2_ERR_INVALID, "statistics of %" PRIu32 " layers or experts and %" PRIu32
                        " columns are impossible", entry_count, column_count);
    }
    statistics_out->neuron_total = total;
    memcpy(statistics_out->column_ids, column_ids, column_count * sizeof *column_ids);
    const pi2_status status = make(entries, statistics_out);
    if (status != PI2_OK) pi2_neuron_statistics_free(statistics_out);
    return status;
}

const pi2_statistics_entry *pi2_neuron_statistics_find(const pi2_neuron_statistics *statistics, uint32_t layer,
                                                       uint32_t expert) {
    uint32_t begin = 0, end = statistics->entry_count;
    while (begin < end) {
        const uint32_t middle = begin + (end - begin) / 2;
        const pi2_statistics_entry *entry = &statistics->entries[middle];
        if (entry->layer == layer && entry->expert == expert) return entry;
        if (entry->layer < layer || (entry->layer == layer && entry->expert < expert)) begin = middle + 1;
        else end = middle;
    }
    return NULL;
}

uint32_t *pi2_neuron_statistics_column(const pi2_neuron_statistics *statistics, uint32_t column_id,
                                       const pi2_statistics_entry *entry) {
    for (uint32_t c = 0; c < statistics->column_count; c++) {
        if (statistics->column_ids[c] == column_id) return statistics->columns[c] + entry->first;
    }
    return NULL;
}

uint64_t *pi2_neuron_statistics_sums(const pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry) {
    return statistics->sums + (size_t)(entry - statistics->entries) * PI2_STATISTICS_SUMS;
}

uint64_t pi2_neuron_statistics_magnitude(const pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry,
                                         uint32_t neuron) {
    const uint32_t *low = pi2_neuron_statistics_column(statistics, PI2_STATISTICS_MAGNITUDE, entry);
    const uint32_t *high = pi2_neuron_statistics_column(statistics, PI2_STATISTICS_MAGNITUDE_HIGH, entry);
    return (uint64_t)high[neuron] << 32 | low[neuron];
}

void pi2_neuron_statistics_add_magnitude(pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry,
                                         uint32_t neuron, uint64_t units) {
    const uint64_t sum = pi2_neuron_statistics_magnitude(statistics, entry, neuron) + units;
    pi2_neuron_statistics_column(statistics, PI2_STATISTICS_MAGNITUDE, entry)[neuron] = (uint32_t)sum;
    pi2_neuron_statistics_column(statistics, PI2_STATISTICS_MAGNITUDE_HIGH, entry)[neuron] = (uint32_t)(sum >> 32);
}

pi2_statistics_text *pi2_neuron_statistics_text(pi2_neuron_statistics *statistics, uint64_t bytes, uint64_t hash) {
    const pi2_statistics_text text = { .bytes = bytes, .hash = hash, .part_count = 1, .parts = 1 };
    const uint32_t count = statistics->text_count;
    uint32_t at = 0;
    while (at < count && is_before(&statistics->texts[at], &text)) at++;
    if (at < count && !is_before(&text, &statistics->texts[at])) return &statistics->texts[at];
    pi2_statistics_text *texts = realloc(statistics->texts, (count + (size_t)1) * sizeof *texts);
    if (!texts) {
        (void)pi2_fail(PI2_ERR_MEMORY, "no memory for the list of texts");
        return NULL;
    }
    memmove(texts + at + 1, texts + at, (count - at) * sizeof *texts);
    texts[at] = text;
    statistics->texts = texts;
    statistics->text_count++;
    return &texts[at];
}

uint64_t pi2_neuron_statistics_runs(const pi2_neuron_statistics *statistics, unsigned batch) {
    const uint64_t run = pi2_statistics_batches[batch], chunk = statistics->chunk_tokens;
    uint64_t count = 0;
    for (uint32_t i = 0; i < statistics->text_count; i++) {
        const uint64_t tokens = statistics->texts[i].token_count;
        count += tokens / chunk * (chunk / run) + tokens % chunk / run;
    }
    return count;
}

void pi2_neuron_statistics_free(pi2_neuron_statistics *statistics) {
    for (uint32_t c = 0; c < statistics->column_count; c++) free(statistics->columns[c]);
    free(statistics->entries);
    free(statistics->sums);
    free(statistics->texts);
    *statistics = (pi2_neuron_statistics){ 0 };
}
