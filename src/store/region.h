/*
 * region.h: what a region of the store begins reads with, and hears of their end.
 *
 * A region has a lock. Whoever holds it begins reads: takes an unused one, says what it brings, widens it over
 * neighbours, adds it; all that were added are submitted with one wake-up of the I/O thread at the unlock. A read has
 * ended when some thread of the region comes upon it, waiting for it or collecting: `ended` is called once for every
 * read, by that thread, and the read may serve anew from then on. A ticket names a read for good: whoever comes with
 * the ticket of one that has ended is not kept waiting for the next.
 */
#ifndef PI2_STORE_REGION_H
#define PI2_STORE_REGION_H

#include "store/part.h"
#include "store/store.h"

typedef struct pi2_region pi2_region;

enum { PI2_REGION_READS_MOST = 1024, PI2_MERGED_READ_BYTES = 1024 * 1024 };

/** A read: of consecutive bytes of the file into consecutive memory, or of parts of one size, wherever they lie. */
typedef struct pi2_bring {
    uint64_t offset;
    uint32_t bytes;
    bool likely;         /* it is probably needed: certain ones pass it */
    uint8_t *memory;     /* of its first part */
    bool is_scattered;   /* by pi2_bring_scatter(): what follows says where all lie; NULL: it is read and dropped */
    void *pieces[PI2_READ_PIECES];
    uint32_t key, first, count; /* its parts, in the region's own words: whose, from which on, how many */
    uint32_t number;     /* of the first, for the trace */
    uint32_t tag;        /* the region's */
    uint32_t ticket;     /* set by pi2_region_unused() */
} pi2_bring;

typedef struct pi2_region_owner {
    void *self;
    /** Called once when a read has ended; under whichever locks its caller holds. status: why it failed, text set. */
    void (*ended)(void *self, const pi2_bring *bring, pi2_status status);
    /** Compares a part with its checksum; NULL where `ended` does. Errors FORMAT */
    pi2_status (*check)(void *self, uint32_t number, const void *memory);
    /** Empties the region, of which no read is under way; may be NULL. */
    void (*reset)(void *self);
} pi2_region_owner;

/** reads: under way at most, up to PI2_REGION_READS_MOST. Errors MEMORY. Threads: one. */
pi2_status pi2_region_create(pi2_store *store, const pi2_region_owner *owner, uint32_t reads, pi2_region **region_out);
/** Waits for reads under way, which are told of. NULL is fine. Threads: one. */
void pi2_region_free(pi2_region *region);
/** Memory of a region's list. */
size_t pi2_region_bytes(uint32_t reads);

/** How memory of a region leaves while others need it, and returns. The functions are called by one thread at a time;
 *  a pass may run. position: as in pi2_store_give_back(). */
typedef struct pi2_region_memory {
    uint64_t planned_bytes, least_bytes; /* that can leave; of those, what must stay */
    uint64_t piece_bytes;           /* that move as one, at most */
    uint64_t (*away)(void *self);   /* planned bytes that are away */
    uint64_t (*unread)(void *self); /* planned bytes that take no memory yet, and will */
    /** *later: it can give what is missing once the pass has ended, and nobody else is asked until then. */
    uint64_t (*give_back)(void *self, uint32_t position, uint64_t bytes, bool *later);
    uint64_t (*take_again)(void *self, uint32_t position, uint64_t bytes);
} pi2_region_memory;
/** Threads: one, before any pass. */
void pi2_region_set_memory(pi2_region *region, const pi2_region_memory *memory);

/* ---- with the region's lock ---- */

/** For the region's own changes too. */
void pi2_region_lock(pi2_region *region);
/** Submits what was added, in that order. */
void pi2_region_unlock(pi2_region *region);

/** A read that nobody uses, to be filled in; it need not be added. NULL: all are under way, or the region is reset. */
pi2_bring *pi2_region_unused(pi2_region *region);
/** Which of the region's reads it is, below PI2_REGION_READS_MOST and the region's number: it has this one until it has
 *  ended, and no other has it. */
static inline uint32_t pi2_bring_index(const pi2_bring *bring) { return bring->ticket % PI2_REGION_READS_MOST; }
/** Widens a read by what follows in the file, if its place follows in memory and the read stays below 1 MB. */
bool pi2_bring_join(pi2_bring *bring, uint64_t offset, uint32_t bytes, const uint8_t *memory);
/**
 * Widens a read of parts of one size by the next part in the file, wherever it lies; memory NULL: it lies between parts
 * that are wanted, and is read and dropped. False: it does not follow, or the read has PI2_READ_PIECES of them.
 */
bool pi2_bring_scatter(pi2_bring *bring, uint64_t offset, uint32_t bytes, uint8_t *memory);
/** A part of a read that is about to be added is READING from now on. */
static inline void pi2_bring_part(const pi2_bring *bring, pi2_part *part) {
    atomic_store_explicit(&part->ticket, bring->ticket, memory_order_relaxed);
    pi2_part_change(part, FROM(PI2_PART_ABSENT), PI2_PART_READING);
}
void pi2_region_add(pi2_region *region, pi2_bring *bring);
/** Of the reads under way the one behind `bring` (NULL: the first), in no order; NULL: there is none. */
pi2_bring *pi2_region_next(pi2_region *region, pi2_bring *bring);
/** Makes a likely read certain. */
void pi2_region_raise(pi2_region *region, pi2_bring *bring);
/** True: it had not begun, and does not any more; its end is not told. */
bool pi2_region_cancel(pi2_region *region, pi2_bring *bring);

/* ---- any thread ---- */

/** Reads under way. */
uint32_t pi2_region_under_way(const pi2_region *region);
/** Tells of every read that has ended. False: there was none. */
bool pi2_region_collect(pi2_region *region);
/** Waits for a read, and tells of its end if nobody has; returns soon where it has ended, or is not submitted yet. */
void pi2_region_await(pi2_region *region, uint32_t ticket, unsigned turn);
/** What pi2_region_await_any() waits after. */
int pi2_region_mark(const pi2_region *region);
/** Waits until any of the store's reads has ended since `mark` was taken. number_out: of the region's oldest read, in
 *  whose name a stall is told; may be NULL. False, at once: none of the region's is under way, or one has ended. */
bool pi2_region_await_any(pi2_region *region, int mark, uint32_t *number_out);

/**
 * A part that has ARRIVED is checked and READY, or FAILED; one that another thread checks is not waited for. The first
 * failure is kept. Errors  FORMAT
 */
pi2_status pi2_region_check(pi2_region *region, pi2_part *part, uint32_t number, const void *memory);
/** Reads an ABSENT part now, and checks it; nothing is kept of a failure. Errors  IO, FORMAT */
pi2_status pi2_region_load(pi2_region *region, pi2_part *part, const pi2_store_range *range);

/** Waits for reads under way, which are told of, and begins none meanwhile; empties the region, and forgets the store's
 *  failure. No other thread is in the region. */
void pi2_region_reset(pi2_region *region);

#endif
