/*
 * kv_pages.h: which pages of a key-value cache belong to which sequence. A page is a tile of 16 positions, in every
 * layer's and head's memory the same one; sequences that begin alike hold the same pages. Bookkeeping alone: the
 * cache's memory is not touched here. Nothing is allocated after the creation. Threads: one at a time.
 */
#ifndef PI2_PIPELINE_KV_PAGES_H
#define PI2_PIPELINE_KV_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/status.h"

typedef struct pi2_kv_pages pi2_kv_pages;

/** page_count: of the cache. tile_most: tiles of one sequence at most. Errors  MEMORY */
pi2_status pi2_kv_pages_create(uint32_t page_count, uint32_t sequences, uint32_t tile_most, pi2_kv_pages **pages_out);
void pi2_kv_pages_free(pi2_kv_pages *pages);
/** Memory of a sequence's list, of so many positions. */
uint64_t pi2_kv_pages_sequence_bytes(uint32_t positions);

/** [tiles of the sequence]: the page of each, as attention reads it. */
const uint32_t *pi2_kv_pages_of(const pi2_kv_pages *pages, uint32_t sequence);

/**
 * Pages that writing the positions from `first` up to `end` takes: for tiles that the sequence does not have, and for
 * those that it shares, since another sequence still reads them.
 */
uint32_t pi2_kv_pages_wanted(const pi2_kv_pages *pages, uint32_t sequence, uint32_t first, uint32_t end);
/** Pages that belong to no sequence. */
uint32_t pi2_kv_pages_unused(const pi2_kv_pages *pages);
/** Whether there are as many as that takes beside *taken_io, which grows by them: for several sequences, one after the
 *  other. Errors  CONTEXT (the cache, what is left, what is wanted) */
pi2_status pi2_kv_pages_check(const pi2_kv_pages *pages, uint32_t sequence, uint32_t first, uint32_t end,
                              uint32_t *taken_io);
/**
 * Makes these positions the sequence's own to write; those before `first`, up to which it has tiles, stay what they
 * are. Pages are taken one behind another where that is possible, from the cache's beginning on. What tiles that were
 * shared must still get of the page before tells pi2_kv_pages_next_copy().
 * Errors  as pi2_kv_pages_check(): nothing has changed
 */
pi2_status pi2_kv_pages_hold(pi2_kv_pages *pages, uint32_t sequence, uint32_t first, uint32_t end);
/** The next page to copy into one of the sequence's; false: there is none. All must be copied before anything else. */
bool pi2_kv_pages_next_copy(pi2_kv_pages *pages, uint32_t sequence, uint32_t *from_out, uint32_t *to_out);
/** Gives back tiles of which no position is below `position`. */
void pi2_kv_pages_trim(pi2_kv_pages *pages, uint32_t sequence, uint32_t position);
/** Sequence `to`, which has no tiles, gets those of the first `positions` positions of `from`. */
void pi2_kv_pages_share(pi2_kv_pages *pages, uint32_t from, uint32_t to, uint32_t positions);
/**
 * Sequence `to`, which has no tiles, gets those of the first `first` positions of `from`, which has as many, and makes
 * the positions from there to `end` its own to write: for a while, so its pages are taken from the cache's beginning
 * on, wherever one is unused. Copies are left as by pi2_kv_pages_hold(); those of `from` come before them.
 * Errors  as pi2_kv_pages_check(): nothing has changed
 */
pi2_status pi2_kv_pages_branch(pi2_kv_pages *pages, uint32_t from, uint32_t to, uint32_t first, uint32_t end);
/** Pages that it takes. */
uint32_t pi2_kv_pages_branch_wants(uint32_t first, uint32_t end);
/** Two sequences, neither of which has copies to be made, change places. */
void pi2_kv_pages_swap(pi2_kv_pages *pages, uint32_t a, uint32_t b);
/** Pages from the cache's beginning on that may have been written to so far. */
uint32_t pi2_kv_pages_touched(const pi2_kv_pages *pages);

#endif
