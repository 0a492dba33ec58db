/*
 * neuron_statistics.h: how often the neurons of a model fire, counted over text: a file, and the same in memory.
 * docs/statistics_format.md is the file.
 *
 *   entry   an FFN, or one expert, whose neurons were counted
 *   sum     one number (u64) of an entry: tiles without a firing neuron, firings that repeat, ...
 *   column  one number (u32) of each neuron of every entry: how often it fires, the order in which to store it, ...
 *           Columns that a program does not know are kept, and mean nothing to it.
 *   text    what was counted, and how far: counting can go on there
 *   sample  a token of which every neuron has a bit: whether it fired there (neuron_samples.h)
 */
#ifndef PI2_STATISTICS_NEURON_STATISTICS_H
#define PI2_STATISTICS_NEURON_STATISTICS_H

#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

enum { PI2_STATISTICS_MOST_COLUMNS = 32, PI2_STATISTICS_ACTIVATION_BYTES = 16, PI2_STATISTICS_TILE = 16,
       PI2_STATISTICS_BLOCK = 32 };

/** What columns mean. A number that was given out stays. */
enum {
    PI2_STATISTICS_FIRED = 1, /* tokens in which the neuron's activation was not zero: at most the entry's tokens */
    PI2_STATISTICS_ORDER = 2, /* order[place] = neuron: the order in which a file shall hold the entry's neurons */
    PI2_STATISTICS_ZEROS = 3, /* tokens in which its activation was exactly zero before it was rounded to 8 bits: at
                                 most those in which it did not fire */
    PI2_STATISTICS_MAGNITUDE = 4,      /* sum of |activation| in units of 1/65536, each rounded to the nearest and at */
    PI2_STATISTICS_MAGNITUDE_HIGH = 5, /* most 2^31 of them: the low and the high 32 bits. Both are there, or neither */
    PI2_STATISTICS_IN_2 = 6,  /* runs of 2 tokens in which it fired at least once; of 4, 8, 32: as in the sums below */
    PI2_STATISTICS_IN_4 = 7,
    PI2_STATISTICS_IN_8 = 8,
    PI2_STATISTICS_IN_32 = 9,
    PI2_STATISTICS_SAMPLED = 16 /* to 23: bit b of column 16 + w: whether it fired in sample 32 w + b. All are there, or
                                   none */
};
enum { PI2_STATISTICS_SAMPLES = 256, PI2_STATISTICS_SAMPLED_COLUMNS = PI2_STATISTICS_SAMPLES / 32 };
#define PI2_STATISTICS_MAGNITUDE_UNITS 65536.0       /* of an activation of 1 */
#define PI2_STATISTICS_MOST_MAGNITUDE 2147483648u    /* of one token */

/** The sums of an entry. */
typedef enum pi2_statistics_sum {
    PI2_SUM_ZERO_TILES,       /* tiles of 16 neurons of a token, none of which fires */
    PI2_SUM_ZERO_BLOCKS,      /* blocks of 32 */
    PI2_SUM_AGAIN_POSSIBLE,   /* firings where the token before was computed by the same FFN or expert too */
    PI2_SUM_AGAIN,            /* of those, firings of a neuron that fired in the token before too */
    PI2_SUM_IN_2,             /* neurons that fire in at least one of 2 tokens, over all runs of 2 tokens of a chunk */
    PI2_SUM_IN_4, PI2_SUM_IN_8, PI2_SUM_IN_32,
    PI2_STATISTICS_SUMS
} pi2_statistics_sum;

enum { PI2_STATISTICS_BATCHES = PI2_STATISTICS_SUMS - PI2_SUM_IN_2 };
/** Tokens of the runs that PI2_SUM_IN_2 and those after it count over. */
extern const uint32_t pi2_statistics_batches[PI2_STATISTICS_BATCHES];

enum { PI2_STATISTICS_MOST_PARTS = 64 };

/** A text whose first tokens were counted, or some of the parts in which several processes share its chunks. */
typedef struct pi2_statistics_text {
    uint64_t bytes, hash;     /* of the whole text: XXH3, 64 bits */
    uint64_t token_count;     /* counted */
    uint64_t end;             /* tokens from its beginning of which these are parts: whole chunks, or all */
    uint32_t part_count;      /* chunk c is in part c % part_count; 1: all of them are counted */
    uint64_t parts;           /* bit p: part p is counted */
} pi2_statistics_text;

typedef struct pi2_statistics_entry {
    uint32_t layer, expert;   /* expert: UINT32_MAX in a dense layer */
    uint32_t neuron_count;
    uint64_t token_count;     /* that this FFN or expert computed */
    uint64_t first;           /* where its neurons begin in each column; set by read() and write() */
} pi2_statistics_entry;

typedef struct pi2_neuron_statistics {
    uint64_t model_hash;      /* pi2_source_identity.header_hash of the GGUF model */
    uint64_t token_count;     /* of the texts */
    char activation[PI2_STATISTICS_ACTIVATION_BYTES]; /* of the FFN, as it was computed; "": unknown */
    uint32_t chunk_tokens;    /* texts were computed in chunks of so many tokens, each on its own; 0: unknown */
    pi2_statistics_text *texts; uint32_t text_count; /* by hash, then bytes; none of them: unknown */
    uint64_t samples[PI2_STATISTICS_SAMPLES]; uint32_t sample_count; /* numbers of tokens; ascending in a file */
    pi2_statistics_entry *entries; uint32_t entry_count; /* in ascending order of layers, then experts */
    uint64_t *sums;           /* [entry_count][PI2_STATISTICS_SUMS] */
    uint64_t neuron_total;    /* of all entries */
    uint32_t column_count;
    uint32_t column_ids[PI2_STATISTICS_MOST_COLUMNS];  /* all different */
    uint32_t *columns[PI2_STATISTICS_MOST_COLUMNS];    /* each of shape [neuron_total] */
    uint64_t checksum;        /* of the file that was read or written: names these statistics */
} pi2_neuron_statistics;

/**
 * Makes statistics with room for so many neurons: sums and columns of zeros, these in the order of column_ids.
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

/** An entry's sums, shape [PI2_STATISTICS_SUMS]. */
uint64_t *pi2_neuron_statistics_sums(const pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry);

/** The sum of a neuron's |activation| in units of 1/65536. The statistics have columns of magnitudes. */
uint64_t pi2_neuron_statistics_magnitude(const pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry,
                                         uint32_t neuron);

/** Adds to it. */
void pi2_neuron_statistics_add_magnitude(pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry,
                                         uint32_t neuron, uint64_t units);

/** The text of so many bytes and this hash, put in where it is missing, whole and with nothing counted; valid until
 *  another is put in. NULL: MEMORY. */
pi2_statistics_text *pi2_neuron_statistics_text(pi2_neuron_statistics *statistics, uint64_t bytes, uint64_t hash);

/** Complete runs of pi2_statistics_batches[batch] tokens in the texts. */
uint64_t pi2_neuron_statistics_runs(const pi2_neuron_statistics *statistics, unsigned batch);

/** Whether both are of one model and were counted in one way, so that they can be added.
 *  Errors  FORMAT (different models), INVALID (what differs) */
pi2_status pi2_neuron_statistics_check_same(const pi2_neuron_statistics *a, const char *a_name,
                                            const pi2_neuron_statistics *b, const char *b_name);

/**
 * Adds the counts of `from` to those of `into`, exactly: both are of one model, counted in one way over different
 * texts or different parts of one, and their columns are counts. On an error `into` is as it was.
 * names  in  the files' names, for the message
 * Errors  as above; INVALID (a text that both counted, or parts of one that do not fit together), UNSUPPORTED (too many
 *         tokens or texts), MEMORY
 */
pi2_status pi2_neuron_statistics_add(pi2_neuron_statistics *into, const char *into_name,
                                     const pi2_neuron_statistics *from, const char *from_name);

/** Looks whether they may be written there, ahead of work that takes long. inputs: files that are read, NULL at the
 *  end. Errors  INVALID (an input, a file of another kind, a folder), IO (the folder) */
pi2_status pi2_neuron_statistics_check_place(const char *path, const char *const *inputs);

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
