/*
 * neuron_statistics.h: how often the neurons of a model fire, counted over text: a file, and the same in memory.
 * docs/statistics_format.md is the file.
 *
 *   entry   an FFN, or one expert, whose neurons were counted
 *   column  one number (u32) of each neuron of every entry: how often it fires, the order in which to store it, ...
 *           Columns that a program does not know are kept, and mean nothing to it.
 */
#ifndef PI2_STATISTICS_NEURON_STATISTICS_H
#define PI2_STATISTICS_NEURON_STATISTICS_H

#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

enum { PI2_STATISTICS_MOST_COLUMNS = 32 };

/** What columns mean. A number that was given out stays. */
enum {
    PI2_STATISTICS_FIRED = 1, /* tokens in which the neuron's activation was not zero: at most the entry's tokens */
    PI2_STATISTICS_ORDER = 2  /* order[place] = neuron: the order in which a file shall hold the entry's neurons */
};

typedef struct pi2_statistics_entry {
    uint32_t layer, expert;   /* expert: UINT32_MAX in a dense layer */
    uint32_t neuron_count;
    uint64_t token_count;     /* that this FFN or expert computed */
    uint64_t first;           /* where its neurons begin in each column; set by read() and write() */
} pi2_statistics_entry;

typedef struct pi2_neuron_statistics {
    uint64_t model_hash;      /* pi2_source_identity.header_hash of the GGUF model */
    uint64_t token_count;     /* of the text */
    pi2_statistics_entry *entries; uint32_t entry_count; /* in ascending order of layers, then experts */
    uint64_t neuron_total;    /* of all entries */
    uint32_t column_count;
    uint32_t column_ids[PI2_STATISTICS_MOST_COLUMNS];  /* all different */
    uint32_t *columns[PI2_STATISTICS_MOST_COLUMNS];    /* each of shape [neuron_total] */
    uint64_t checksum;        /* of the file that was read or written: names these statistics */
} pi2_neuron_statistics;

/**
 * Makes statistics with room for so many neurons: columns of zeros in the order of column_ids.
 * entries  in  [entry_count], copied; `first` is set in the copy
 * Errors  INVALID (entries that are not in order, that are empty, too many columns), MEMORY
 */
pi2_status pi2_neuron_statistics_make(const pi2_statistics_entry *entries, uint32_t entry_count,
                                      const uint32_t *column_ids, uint32_t column_count,
                                      pi2_neuron_statistics *statistics_out);

/** The entry of a layer and expert; NULL: it was not counted. */
const pi2_statistics_entry *pi2_neuron_statistics_find(const pi2_neuron_statistics *statistics, uint32_t layer,
                                                       uint32_t expert);

/** An entry's numbers of a column, shape [entry's neuron_count]; NULL: there is no such column. */
uint32_t *pi2_neuron_statistics_column(const pi2_neuron_statistics *statistics, uint32_t column_id,
                                       const pi2_statistics_entry *entry);

/**
 * Writes them: the file has its name only once it is whole. Sets the statistics' checksum.
 * Errors  IO (path, reason), INVALID (numbers that read() would refuse; a file of another kind lies there)
 */
pi2_status pi2_neuron_statistics_write(const char *path, pi2_neuron_statistics *statistics);

/**
 * Reads and checks a file: its checksum, sizes, entries in order, counts that are at most the tokens, orders that name
 * every neuron once. Free with pi2_neuron_statistics_free(), also after an error.
 * Errors  IO, FORMAT (path, byte offset), UNSUPPORTED (version, size), MEMORY
 */
pi2_status pi2_neuron_statistics_read(const char *path, pi2_neuron_statistics *statistics_out);
void pi2_neuron_statistics_free(pi2_neuron_statistics *statistics); /* a zeroed one is fine */

#endif
