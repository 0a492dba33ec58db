/* expert_cache_hot.c: the hot experts' slots: filled at the start, kept, given up last, taken again. */
#include <assert.h>
#include <stdlib.h>

#include "base/fail.h"
#include "neuron_cache/expert_states.h"

pi2_status pi2_expert_cache_start_hot(pi2_expert_cache *cache) {
    const pi2_expert_cache_options *options = &cache->options;
    if (cache->all_fit || options->hot_count == 0) return PI2_OK;
    if (options->hot_count > pi2_hot_experts_most(cache->slot_count)) {
        return pi2_fail(PI2_ERR_INVALID, "%u hot experts leave too little of %u slots to the others",
                        options->hot_count, cache->slot_count);
    }
    void *memory = malloc(pi2_hot_experts_bytes(cache->key_count));
    if (!memory) return pi2_fail(PI2_ERR_MEMORY, "no memory for the expert cache's lists");
    cache->hot = pi2_hot_experts_init(memory, cache->key_count, cache->slot_count, options->hot_keys,
                                      options->hot_count);
    pi2_cache_book_resize(cache->book, pi2_expert_cache_cold_slots(cache));
    return PI2_OK;
}

void pi2_expert_cache_take_hot_slot(pi2_expert_cache *cache, uint32_t key) {
    assert(cache->free_count >= pi2_hot_experts_wanted(cache->hot));
    pi2_hot_experts_hold(cache->hot, key);
    cache->experts[key].memory = cache->free_slots[--cache->free_count];
}

void pi2_expert_cache_lose_hot(pi2_expert_cache *cache, uint32_t key) { pi2_hot_experts_lose(cache->hot, key); }

/* One that was fetched ahead before it became hot is not touched until it is demanded or gone. */
void pi2_expert_cache_pump_hot(pi2_expert_cache *cache) {
    if (!cache->hot || is_on_demand(cache)) return;
    for (; cache->hot_at < cache->key_count; cache->hot_at++) {
        const uint32_t key = cache->hot_at;
        cached_expert *expert = &cache->experts[key];
        if (!pi2_expert_cache_is_hot(cache, key)) continue;
        if (expert->state == EXPERT_ABSENT) {
            pi2_expert_cache_take_hot_slot(cache, key);
            change_expert(expert, FROM(EXPERT_ABSENT), EXPERT_LOADING);
            expert->left = expert->count;
        }
        if (expert->state != EXPERT_LOADING || expert->pinned) continue;
        for (uint32_t next = 0; next < expert->count;) {
            if (cache->reads_hot == MAX_READS_HOT || !pi2_expert_cache_add_read(cache, key, &next)) return;
        }
    }
}

/* ---- changing places ---- */

static bool may_move(const void *user, uint32_t key) {
    const pi2_expert_cache *cache = user;
    const cached_expert *expert = &cache->experts[key];
    return expert->state == EXPERT_PRESENT && !expert->pinned && !expert->ahead;
}

void pi2_expert_cache_review_hot(pi2_expert_cache *cache) {
    if (!cache->hot) return;
    pi2_region_lock(cache->region);
    pi2_hot_experts_begin_pass(cache->hot, cache->book, may_move, cache);
    pi2_region_unlock(cache->region);
}

/* ---- memory that is short ---- */

bool pi2_expert_cache_set_hot_aside(pi2_expert_cache *cache, uint32_t open_slots, uint32_t least_slots) {
    if (!cache->hot) return true;
    const uint32_t least = least_slots > 1 ? least_slots : 1;
    while (pi2_hot_experts_count(cache->hot) + least > open_slots && pi2_hot_experts_count(cache->hot) > 0) {
        bool held = false;
        const uint32_t key = pi2_hot_experts_set_aside(cache->hot, may_move, cache, &held);
        if (key == UINT32_MAX) return false;
        pi2_cache_book_resize(cache->book, pi2_expert_cache_cold_slots(cache));
        if (held) pi2_cache_book_admit(cache->book, key);
    }
    return true;
}

void pi2_expert_cache_follow_slots(pi2_expert_cache *cache) {
    if (cache->hot) pi2_hot_experts_set_slots(cache->hot, cache->slot_count - cache->given_count);
    pi2_cache_book_resize(cache->book, pi2_expert_cache_cold_slots(cache));
}

/* Not what the policy holds a slot for and may not give up now. */
static bool may_return(const void *user, uint32_t key) {
    const pi2_expert_cache *cache = user;
    return cache->experts[key].state == EXPERT_ABSENT || may_move(user, key);
}

void pi2_expert_cache_bring_hot_back(pi2_expert_cache *cache, uint32_t slots) {
    if (!cache->hot) return;
    for (uint32_t i = 0; i < slots; i++) {
        const uint32_t key = pi2_hot_experts_bring_back(cache->hot, may_return, cache);
        if (key == UINT32_MAX) break;
        if (cache->experts[key].state == EXPERT_ABSENT) continue;
        pi2_cache_book_forget(cache->book, key);
        pi2_hot_experts_hold(cache->hot, key);
    }
    cache->hot_at = 0;
}

void pi2_expert_cache_count_hot(const pi2_expert_cache *cache, pi2_expert_cache_counters *counters) {
    if (!cache->hot) return;
    const pi2_hot_counters hot = pi2_hot_experts_counters(cache->hot);
    counters->hot = pi2_hot_experts_count(cache->hot);
    counters->promotions = hot.promotions;
    counters->demotions = hot.demotions;
}
