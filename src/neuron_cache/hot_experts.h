/*
 * hot_experts.h: which experts are hot: they stay in memory, and the policy of the others does not know them.
 *
 * A hot set is given at the start (hot_plan.h chooses it). Uses of every expert are counted, weighted by age.
 * Now and then the least used hot expert is compared with the most used one of the others that is present, and
 * with what one more slot would bring the others: uses of experts that left not long ago. So experts change
 * places, and the split moves both ways; a quarter is the least difference that counts.
 *
 *   OTHER  -> WANTED   given at the start
 *   WANTED -> HELD     it has a slot
 *   HELD   -> OTHER    demoted: the policy knows it from then on
 *   OTHER  -> HELD     promoted: the policy forgets it
 *   WANTED, HELD -> AWAY   memory is short: it is like the others meanwhile
 *   AWAY   -> WANTED   memory is there again
 *   HELD   -> WANTED   what was in its slot is lost (a pass or a read failed)
 *
 * The cache and the offline replay make the same calls, so that they agree. Nothing is allocated: one block of
 * bytes. Threads: one at a time.
 */
#ifndef PI2_NEURON_CACHE_HOT_EXPERTS_H
#define PI2_NEURON_CACHE_HOT_EXPERTS_H

#include "neuron_cache/cache_book.h"

typedef struct pi2_hot_experts pi2_hot_experts;

/** Hot experts at most, so that the others have a quarter of the slots, and one at least. */
uint32_t pi2_hot_experts_most(uint32_t slot_count);

size_t pi2_hot_experts_bytes(uint32_t key_count);
/** In `memory`, aligned as malloc() does; count keys, at most as above, are WANTED. */
pi2_hot_experts *pi2_hot_experts_init(void *memory, uint32_t key_count, uint32_t slot_count, const uint32_t *keys,
                                      uint32_t count);

bool pi2_hot_experts_is_hot(const pi2_hot_experts *hot, uint32_t key);  /* WANTED or HELD */
uint32_t pi2_hot_experts_count(const pi2_hot_experts *hot);             /* WANTED and HELD */
uint32_t pi2_hot_experts_wanted(const pi2_hot_experts *hot);

void pi2_hot_experts_hold(pi2_hot_experts *hot, uint32_t key); /* a WANTED one has a slot */
void pi2_hot_experts_lose(pi2_hot_experts *hot, uint32_t key); /* a HELD one has none any more */

/** An expert is used (times: by so many tokens); a demanded one of the others was absent; one of them left. */
void pi2_hot_experts_use(pi2_hot_experts *hot, uint32_t key, uint32_t times);
void pi2_hot_experts_missed(pi2_hot_experts *hot, uint32_t key);
void pi2_hot_experts_evicted(pi2_hot_experts *hot, uint32_t key);

/**
 * A pass begins: now and then experts change places, a bounded number of them. may: whether an expert is
 * present and not in use.
 */
void pi2_hot_experts_begin_pass(pi2_hot_experts *hot, pi2_cache_book *book, pi2_cache_may_evict *may,
                                const void *user);

/** So many slots there are now, for hot experts and the others. */
void pi2_hot_experts_set_slots(pi2_hot_experts *hot, uint32_t slot_count);
/** One hot expert is AWAY: a WANTED one, else the least used for which may() holds. UINT32_MAX: none. *held: it was. */
uint32_t pi2_hot_experts_set_aside(pi2_hot_experts *hot, pi2_cache_may_evict *may, const void *user, bool *held);
/** The most used AWAY expert for which may() holds is WANTED again. UINT32_MAX: none. */
uint32_t pi2_hot_experts_bring_back(pi2_hot_experts *hot, pi2_cache_may_evict *may, const void *user);

typedef struct pi2_hot_counters {
    uint64_t promotions, demotions; /* by uses, not by memory that is short */
} pi2_hot_counters;
pi2_hot_counters pi2_hot_experts_counters(const pi2_hot_experts *hot);

#endif
