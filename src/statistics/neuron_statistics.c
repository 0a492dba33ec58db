/* neuron_statistics.c: statistics in memory, and how they are found in it. */
#include "statistics/neuron_statistics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "statistics/neuron_statistics_internal.h"

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

bool pi2_statistics_columns_are_good(const uint32_t *ids, uint32_t count) {
    if (count == 0 || count > PI2_STATISTICS_MOST_COLUMNS) return false;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (ids[i] == ids[k]) return false;
        }
    }
    return true;
}

static pi2_status make(const pi2_statistics_entry *entries, pi2_neuron_statistics *statistics) {
    const uint32_t count = statistics->entry_count;
    statistics->entries = malloc(count * sizeof *entries);
    bool is_there = statistics->entries != NULL;
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

void pi2_neuron_statistics_free(pi2_neuron_statistics *statistics) {
    for (uint32_t c = 0; c < statistics->column_count; c++) free(statistics->columns[c]);
    free(statistics->entries);
    *statistics = (pi2_neuron_statistics){ 0 };
}
