/* expert_cache_memory.c: the memory of the slots: taken ahead of the reads, given back, taken again. */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/pages.h"
#include "neuron_cache/expert_states.h"

enum { POPULATE_BYTES = 2 * 1024 * 1024 };
enum { FROM_UNCLOSED = FROM(SLOT_UNTOUCHED) | FROM(SLOT_TOUCHED) };

/* The next part of a slot that nothing was read into; slots are used in this order. Under the lock. */
static size_t take_unpopulated(pi2_expert_cache *cache, uint32_t *slot, size_t *offset) {
    while (cache->populating < cache->slot_count &&
           (cache->slots[cache->populating] != SLOT_UNTOUCHED || cache->populated == cache->slot_bytes)) {
        cache->populating++;
        cache->populated = 0;
    }
    if (cache->populating == cache->slot_count) return 0;
    const size_t left = cache->slot_bytes - cache->populated;
    const size_t bytes = left < POPULATE_BYTES ? left : POPULATE_BYTES;
    *slot = cache->populating;
    *offset = cache->populated;
    cache->populated += bytes;
    return bytes;
}

bool pi2_expert_cache_populate(pi2_expert_cache *cache) {
    if (cache->options.loaded || cache->all_fit) return false;
    if (atomic_load_explicit(&cache->ends_populating, memory_order_relaxed)) return false;
    const uint64_t begin = pi2_clock_ns();
    uint32_t slot = 0;
    size_t offset = 0;
    pi2_region_lock(cache->region);
    const size_t bytes = take_unpopulated(cache, &slot, &offset);
    pi2_region_unlock(cache->region);
    if (bytes == 0 || !pi2_pages_populate(slot_at(cache, slot) + offset, bytes)) {
        atomic_store_explicit(&cache->ends_populating, true, memory_order_relaxed);
        return false;
    }
    pi2_region_lock(cache->region);
    /* Given back meanwhile: then its memory goes too. */
    if (cache->slots[slot] == SLOT_CLOSED) (void)pi2_pages_discard(slot_at(cache, slot) + offset, bytes);
    else if (offset + bytes == cache->slot_bytes) change_slot(cache, slot, FROM_UNCLOSED, SLOT_TOUCHED);
    pi2_region_unlock(cache->region);
    pi2_store_stalled(cache->options.store, PI2_NO_NUMBER, begin, 1);
    return true;
}

/* ---- giving it back, and taking it again ---- */

/* Where all experts fitted, their places become slots: the policy learns who is there. */
static void begin_slots(pi2_expert_cache *cache) {
    cache->all_fit = false;
    for (uint32_t key = 0; key < cache->key_count; key++) {
        cached_expert *expert = &cache->experts[key];
        if (expert->state == EXPERT_LOADING || expert->state == EXPERT_PRESENT) {
            if (!expert->ahead) pi2_cache_book_admit(cache->book, key);
        } else {
            cache->free_slots[cache->free_count++] = expert->memory;
            expert->memory = NULL;
        }
    }
}

/* Nobody reads what is in it, and no read writes it. */
static bool may_move(const cached_expert *expert) {
    return expert->memory && expert->state == EXPERT_PRESENT && !expert->pinned;
}

/* The last slot that is not in use, passing over those that are: one that waits for its read must not keep all before
 * it in memory. NULL: all are. */
static uint8_t *last_idle(const pi2_expert_cache *cache) {
    uint8_t *last = NULL;
    for (uint32_t i = 0; i < cache->free_count; i++) {
        if (!last || cache->free_slots[i] > last) last = cache->free_slots[i];
    }
    for (uint32_t key = 0; key < cache->key_count; key++) {
        const cached_expert *expert = &cache->experts[key];
        if (may_move(expert) && (!last || expert->memory > last)) last = expert->memory;
    }
    return last;
}

/* Empties an idle slot, whose content moves to `to`. */
static void move_slot(pi2_expert_cache *cache, uint8_t *from, uint8_t *to) {
    for (uint32_t i = 0; i < cache->free_count; i++) {
        if (cache->free_slots[i] != from) continue;
        cache->free_slots[i] = to;
        return;
    }
    uint32_t key = 0;
    while (cache->experts[key].memory != from) key++;
    assert(may_move(&cache->experts[key]));
    if (!pi2_store_options_of(cache->options.store)->is_described) memcpy(to, from, cache->slot_bytes);
    change_slot(cache, slot_of(cache, to), FROM_UNCLOSED, SLOT_TOUCHED);
    cache->experts[key].memory = to;
}

/* The last idle slot leaves, not the one that the policy empties: what is given back is one stretch, good for huge
 * pages. */
static bool give_one(pi2_expert_cache *cache) {
    uint32_t at = cache->free_count > pi2_expert_cache_hot_wanted(cache) ? 0 : cache->free_count;
    while (at < cache->free_count && cache->slots[slot_of(cache, cache->free_slots[at])] != SLOT_UNTOUCHED) at++;
    if (at < cache->free_count) { /* it takes no memory yet, but for a part that was populated, and has to stay so */
        const uint32_t index = slot_of(cache, cache->free_slots[at]);
        if (index == cache->populating) (void)pi2_pages_discard(cache->free_slots[at], cache->slot_bytes);
        change_slot(cache, index, FROM(SLOT_UNTOUCHED), SLOT_CLOSED);
        cache->free_slots[at] = cache->free_slots[--cache->free_count];
        cache->given_count++;
        return true;
    }
    uint8_t *last = last_idle(cache);
    uint8_t *empty = last ? pi2_expert_cache_find_slot(cache, true) : NULL;
    if (!empty) return false;
    if (empty != last) move_slot(cache, last, empty);
    cache->given_count++;
    (void)pi2_pages_discard(last, cache->slot_bytes);
    change_slot(cache, slot_of(cache, last), FROM_UNCLOSED, SLOT_CLOSED);
    return true;
}

/* But for slots that are in use, whatever the pass has come to. */
static uint64_t give_back(void *self, uint32_t position, uint64_t bytes, bool *later) {
    pi2_expert_cache *cache = self;
    const uint32_t least_slots = cache->options.least_slots;
    uint64_t given = 0;
    (void)position, (void)later;
    if (cache->options.loaded || bytes == 0) return 0;
    /* Where memory was short once, it is taken as reads need it: what grows at once is killed. */
    atomic_store_explicit(&cache->ends_populating, true, memory_order_relaxed);
    pi2_region_lock(cache->region);
    if (cache->all_fit && cache->slot_count > least_slots) begin_slots(cache);
    for (; given < bytes; given += cache->slot_bytes) {
        const uint32_t open = cache->slot_count - cache->given_count;
        if (open <= least_slots || !pi2_expert_cache_set_hot_aside(cache, open - 1, least_slots)) break;
        if (!give_one(cache)) break;
    }
    if (given > 0) pi2_expert_cache_follow_slots(cache);
    pi2_region_unlock(cache->region);
    return given;
}

static uint64_t take_again(void *self, uint32_t position, uint64_t bytes) {
    pi2_expert_cache *cache = self;
    uint64_t taken = 0;
    (void)position;
    pi2_region_lock(cache->region);
    for (uint32_t i = 0; i < cache->slot_count && (taken == 0 || taken + cache->slot_bytes <= bytes); i++) {
        if (cache->slots[i] != SLOT_CLOSED) continue;
        change_slot(cache, i, FROM(SLOT_CLOSED), SLOT_UNTOUCHED);
        cache->free_slots[cache->free_count++] = slot_at(cache, i);
        cache->given_count--;
        taken += cache->slot_bytes;
    }
    pi2_expert_cache_bring_hot_back(cache, (uint32_t)(taken / cache->slot_bytes));
    if (taken > 0) pi2_expert_cache_follow_slots(cache);
    pi2_expert_cache_pump(cache);
    pi2_region_unlock(cache->region);
    return taken;
}

/* Of slots that nothing was read into yet. */
static uint64_t unread(void *self) {
    pi2_expert_cache *cache = self;
    uint32_t slots = 0;
    pi2_region_lock(cache->region);
    for (uint32_t i = 0; i < cache->slot_count; i++) slots += cache->slots[i] == SLOT_UNTOUCHED;
    pi2_region_unlock(cache->region);
    return cache->options.loaded ? 0 : slots * (uint64_t)cache->slot_bytes;
}

static uint64_t away(void *self) {
    const pi2_expert_cache *cache = self;
    return cache->given_count * (uint64_t)cache->slot_bytes;
}

void pi2_expert_cache_tell_memory(pi2_expert_cache *cache) {
    const uint64_t slot = cache->slot_bytes;
    if (cache->options.least_slots == 0) return;
    pi2_region_set_memory(cache->region, &(pi2_region_memory){
        .planned_bytes = slot * cache->slot_count, .least_bytes = slot * cache->options.least_slots,
        .piece_bytes = slot, .away = away, .unread = unread, .give_back = give_back, .take_again = take_again });
}
