/*
 * store.h: the one way from a file into memory.
 *
 * The store owns the reader. Whoever has memory for weights is a *region* of it (region.h): fixed places and a ring
 * (neuron_cache/weight_store.h), slots of experts (expert_cache.h), bundles of neurons (neuron_store.h). A region says
 * which memory a unit gets, who leaves and in which order units are wanted. What all regions do alike is here: reads
 * and the merging of neighbours, arrival, checks, waiting, the first failure, reset, counters. What is read
 * now by the thread that wants it, and kept nowhere, is read with pi2_store_read(); outside of passes, where there is
 * no store, by weight_file.h. Nobody else reads weights from a file (tests/layers/layers.txt).
 */
#ifndef PI2_STORE_STORE_H
#define PI2_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/timeline.h"
#include "powerinfer2/status.h"
#include "storage/read_sizes.h"

struct pi2_reader;

typedef struct pi2_store pi2_store;

typedef struct pi2_store_options {
    struct pi2_reader *reader; /* the store's from now on; NULL: everything is in memory, nothing is ever asked for */
    unsigned spin_us;          /* how long a thread that waits spins before it sleeps */
    bool is_described;         /* the reader is one of described_reader.h: no memory is touched, nothing is checked */
    bool on_demand_only;       /* for ablations: regions ask for nothing before a thread waits for it */
    pi2_timeline *trace;       /* gets a span of every stall; may be NULL */
} pi2_store_options;

/** Errors  MEMORY: then the reader is still the caller's */
pi2_status pi2_store_create(const pi2_store_options *options, pi2_store **store_out);
/** Closes the reader. Its regions are gone by now. NULL is fine. */
void pi2_store_free(pi2_store *store);

const pi2_store_options *pi2_store_options_of(const pi2_store *store);
/** What reads must be multiples of: 512 to PI2_READ_ALIGNMENT. */
uint32_t pi2_store_sector_bytes(const pi2_store *store);

/** After a failed or cancelled pass: every region is reset, the failure forgotten. No other thread is in the store. */
void pi2_store_reset(pi2_store *store);

/* ---- the first failure ---- */

/** Keeps a failure and this thread's text of it, unless there is one already. Returns the status. Threads: any. */
pi2_status pi2_store_fail(pi2_store *store, pi2_status status);
/** The first failure since the last reset, with its text for this thread; PI2_OK: there is none. Threads: any. */
pi2_status pi2_store_failure(pi2_store *store);

/* ---- waiting ---- */

/** A thread with nothing to wait for looks again soon: spins, yields, then sleeps for 50 us, by how often it has. */
void pi2_store_pause(unsigned turn);

enum { PI2_NO_NUMBER = -1 };
/**
 * Books time since begin_ns in which `threads` threads waited. number: of what, for the trace; PI2_NO_NUMBER: it is not
 * told there. Threads: any.
 */
void pi2_store_stalled(pi2_store *store, int64_t number, uint64_t begin_ns, unsigned threads);

/* ---- reading now ---- */

typedef struct pi2_store_range {
    uint64_t offset, bytes;  /* in the file; multiples of pi2_store_sector_bytes() */
    void *memory;            /* aligned to it */
    uint32_t number;         /* for the trace */
} pi2_store_range;

/**
 * Reads ranges while the caller waits, in reads of 1 MB at most, several at a time. arrived(user, i), where it is not
 * NULL, is called on this thread when range i is there, in their order; after a failure it is not called any more.
 * On return no read is under way. Nothing is kept of a failure.
 * threads: how many wait, for the counters; 0: none that count.
 * Errors  IO (file and byte offset); arrived()'s. Threads: any.
 */
pi2_status pi2_store_read(pi2_store *store, const pi2_store_range *ranges, uint32_t count,
                          pi2_status (*arrived)(void *user, uint32_t i), void *user, unsigned threads);

/* ---- memory that others need: one thread at a time, a pass may run ---- */

typedef struct pi2_store_bounds {
    uint64_t planned_bytes, least_bytes; /* that can leave; of those, what must stay */
    uint64_t piece_bytes;                /* that move as one, at most */
} pi2_store_bounds;
pi2_store_bounds pi2_store_find_bounds(const pi2_store *store);
/** Planned bytes that are away; that take no memory yet, and will. */
uint64_t pi2_store_away_bytes(const pi2_store *store);
uint64_t pi2_store_unread_bytes(const pi2_store *store);
/**
 * Gives about `bytes` back to the system. position: the running pass is done with every position of its order before
 * it; UINT32_MAX: no pass runs. Regions that were made last give first: a token needs few of their units, all of the
 * others'. Returns what was given: less when no more can leave for now.
 */
uint64_t pi2_store_give_back(pi2_store *store, uint32_t position, uint64_t bytes);
/** Takes about `bytes` of it again, at least one piece; in the opposite order. Returns how much. */
uint64_t pi2_store_take_again(pi2_store *store, uint32_t position, uint64_t bytes);

/* ---- counters ---- */

typedef struct pi2_store_counters {
    uint64_t needed_bytes;      /* bytes of weights that passes used */
    uint64_t stall_ns, stalls;  /* compute threads' waiting, summed over threads */
    uint64_t bytes_read, reads; /* that ended well */
    uint64_t bytes_dropped;     /* of those, bytes that lay between wanted ones and got no memory */
} pi2_store_counters;
void pi2_store_count(const pi2_store *store, pi2_store_counters *counters_out);
/** Threads: any. */
void pi2_store_needs(pi2_store *store, uint64_t bytes);

#endif
