/* neuron_statistics_internal.h: the rules that statistics keep, in memory and in a file. */
#ifndef PI2_STATISTICS_NEURON_STATISTICS_INTERNAL_H
#define PI2_STATISTICS_NEURON_STATISTICS_INTERNAL_H

#include <stdbool.h>

#include "statistics/neuron_statistics.h"

enum { PI2_STATISTICS_MOST_NEURONS = 1 << 24, PI2_STATISTICS_MOST_ENTRIES = 1 << 20,
       PI2_STATISTICS_MOST_TEXTS = 1 << 16 };
#define PI2_STATISTICS_MOST_TOKENS UINT32_MAX

/** Entries in ascending order, none empty, not too many neurons; and the sum of their neurons. */
bool pi2_statistics_entries_are_good(const pi2_statistics_entry *entries, uint32_t count, uint64_t *neuron_total_out);

/** Sums that can be of so many tokens and neurons. */
bool pi2_statistics_sums_are_good(const pi2_statistics_entry *entry, const uint64_t *sums);

/** Samples in ascending order, not more than tokens, none without its columns. */
bool pi2_statistics_samples_are_good(const pi2_neuron_statistics *statistics);

/** The bits of all parts of a text. part_count: 1 .. PI2_STATISTICS_MOST_PARTS */
uint64_t pi2_statistics_all_parts(uint32_t part_count);

/** Texts in ascending order, none twice, with parts that are possible, which have the tokens of all; or none. */
bool pi2_statistics_texts_are_good(const pi2_neuron_statistics *statistics);

/** At least one column, none of them twice. */
bool pi2_statistics_columns_are_good(const uint32_t *ids, uint32_t count);

#endif
