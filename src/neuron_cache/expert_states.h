/*
 * expert_states.h: the changes of state that expert_cache.h lists, as one table for each machine, and the only
 * functions that make them. A caller names the states that it may come from; that they are the table's, and that
 * one of them is the state, is asserted.
 */
#ifndef PI2_NEURON_CACHE_EXPERT_STATES_H
#define PI2_NEURON_CACHE_EXPERT_STATES_H

#include <assert.h>

#include "neuron_cache/expert_cache_internal.h"

/* Lock held. */
static inline void change_expert(cached_expert *expert, unsigned from, uint8_t to) {
    static const uint8_t table[] = { /* what may become it */
        [EXPERT_ABSENT] = FROM_ANY,
        [EXPERT_QUEUED] = FROM(EXPERT_ABSENT),
        [EXPERT_LOADING] = FROM(EXPERT_QUEUED) | FROM(EXPERT_ABSENT),
        [EXPERT_PRESENT] = FROM(EXPERT_LOADING),
    };
    assert((from & ~(unsigned)table[to]) == 0 && (from >> expert->state & 1u));
    (void)table, (void)from;
    expert->state = to;
}

/* Lock held. */
static inline void change_slot(pi2_expert_cache *cache, uint32_t slot, unsigned from, uint8_t to) {
    static const uint8_t table[] = {
        [SLOT_UNTOUCHED] = FROM(SLOT_CLOSED),
        [SLOT_TOUCHED] = FROM(SLOT_UNTOUCHED) | FROM(SLOT_TOUCHED),
        [SLOT_CLOSED] = FROM(SLOT_UNTOUCHED) | FROM(SLOT_TOUCHED),
    };
    assert((from & ~(unsigned)table[to]) == 0 && (from >> cache->slots[slot] & 1u));
    (void)table, (void)from;
    cache->slots[slot] = to;
}

#endif
