/* expert_cache.c: slots for experts, and the reads that fill them. */
#include "neuron_cache/expert_states.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/pages.h"
#include "file_formats/cluster_file.h"

size_t pi2_expert_cache_list_bytes(const pi2_extent_layout *layout, const pi2_cache_policy *policy) {
    const size_t keys = pi2_expert_cache_keys(layout);
    return sizeof(struct pi2_expert_cache) + pi2_region_bytes(MAX_READS) +
           pi2_expert_cache_extents(layout) * sizeof(cached_extent) +
           keys * (sizeof(cached_expert) + sizeof(uint32_t) + sizeof(uint8_t *) + 1) +
           pi2_cache_book_bytes(policy, (uint32_t)keys, (uint32_t)keys, (uint32_t)keys) +
           pi2_hot_experts_bytes((uint32_t)keys);
}

/* ---- lists ---- */

/* Notes where each expert's extents are; those that all fit get their place. */
static void list_experts(pi2_expert_cache *cache) {
    const pi2_extent_layout *layout = cache->options.layout;
    uint8_t *place = cache->options.memory;
    uint32_t key = 0, own = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        const pi2_group *group = &layout->groups[g];
        if (group->kind != PI2_GROUP_EXPERT) continue;
        cached_expert *expert = &cache->experts[key++];
        *expert = (cached_expert){ .first = group->first_extent, .first_own = own,
                                   .count = cache->options.gates_only ? group->gate_extents : group->extent_count };
        if (cache->all_fit) expert->memory = place;
        if (cache->options.loaded) expert->state = EXPERT_PRESENT;
        uint32_t offset = 0;
        for (uint32_t e = 0; e < expert->count; e++, own++) {
            cache->extents[own].offset = offset;
            atomic_init(&cache->extents[own].part.state, cache->options.loaded ? PI2_PART_READY : PI2_PART_ABSENT);
            offset += pi2_extent_read_bytes(&layout->extents[group->first_extent + e]);
        }
        place += cache->options.loaded ? offset : cache->slot_bytes;
    }
}

static pi2_status allocate(pi2_expert_cache *cache) {
    const pi2_expert_cache_options *options = &cache->options;
    const pi2_extent_layout *layout = options->layout;
    const uint64_t slot = options->gates_only ? pi2_expert_cache_gate_slot_bytes(layout)
                                              : pi2_expert_cache_slot_bytes(layout);
    const uint64_t all = options->gates_only ? pi2_expert_cache_all_gate_bytes(layout)
                                             : pi2_expert_cache_all_bytes(layout);
    cache->key_count = pi2_expert_cache_keys(options->layout);
    cache->slot_bytes = (size_t)slot;
    cache->all_fit = options->bytes >= all;
    cache->slot_count = cache->all_fit ? cache->key_count : slot ? (uint32_t)(options->bytes / slot) : 0;
    if (cache->slot_count == 0 || slot > UINT32_MAX) {
        return pi2_fail(PI2_ERR_INVALID, "an expert cache of %llu bytes cannot hold an expert of %llu bytes",
                        (unsigned long long)options->bytes, (unsigned long long)slot);
    }
    assert(!options->loaded || cache->all_fit);
    cache->experts = calloc(cache->key_count, sizeof *cache->experts);
    cache->extents = calloc(pi2_expert_cache_extents(options->layout), sizeof *cache->extents);
    cache->queue = calloc(cache->key_count, sizeof *cache->queue);
    cache->free_slots = calloc(cache->slot_count, sizeof *cache->free_slots);
    cache->slots = calloc(cache->slot_count, 1);
    void *book = malloc(pi2_cache_book_bytes(options->policy, cache->key_count, cache->slot_count,
                                             options->layer_keys));
    if (book) {
        cache->book = pi2_cache_book_init(book, options->policy, cache->key_count, cache->slot_count,
                                          options->layer_keys);
    }
    if (!cache->experts || !cache->extents || !cache->queue || !cache->free_slots || !cache->slots ||
        !cache->book) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the expert cache's lists");
    }
    PI2_TRY(pi2_expert_cache_start_hot(cache));
    list_experts(cache);
    if (cache->all_fit) return PI2_OK;
    for (uint32_t i = 0; i < cache->slot_count; i++) { /* the first slot is taken first */
        cache->free_slots[cache->slot_count - 1 - i] = (uint8_t *)options->memory + slot * i;
    }
    cache->free_count = cache->slot_count;
    return PI2_OK;
}

/* ---- slots and reads, under the lock ---- */

static cached_extent *extent_of(const pi2_expert_cache *cache, const cached_expert *expert, uint32_t index) {
    assert(index < expert->count);
    return &cache->extents[expert->first_own + index];
}

static int state_of(const pi2_expert_cache *cache, const cached_expert *expert, uint32_t index) {
    return pi2_part_state(&extent_of(cache, expert, index)->part);
}

static bool may_leave(const void *user, uint32_t key) {
    const pi2_expert_cache *cache = user;
    const cached_expert *expert = &cache->experts[key];
    return expert->state == EXPERT_PRESENT && !expert->pinned && !expert->ahead && !pi2_expert_cache_is_hot(cache, key);
}

static bool may_leave_early(const void *user, uint32_t key) {
    const pi2_expert_cache *cache = user;
    return may_leave(cache, key) && !cache->experts[key].foreseen;
}

/* Takes an expert's slot away. from, extents_from: the states that it and its extents may be in. */
static uint8_t *drop(pi2_expert_cache *cache, uint32_t key, unsigned from, unsigned extents_from) {
    cached_expert *expert = &cache->experts[key];
    uint8_t *memory = expert->memory;
    change_expert(expert, from, EXPERT_ABSENT);
    for (uint32_t i = 0; i < expert->count; i++) {
        pi2_part_change(&extent_of(cache, expert, i)->part, extents_from, PI2_PART_ABSENT);
    }
    if (!cache->all_fit) expert->memory = NULL;
    return memory;
}

/* One that is wholly there leaves. */
static uint8_t *drop_present(pi2_expert_cache *cache, uint32_t key) {
    assert(!cache->experts[key].pinned);
    return drop(cache, key, FROM(EXPERT_PRESENT), FROM(PI2_PART_ARRIVED) | FROM(PI2_PART_READY));
}

/* Experts that may be fetched ahead at once. */
static uint32_t ahead_most(const pi2_expert_cache *cache) {
    if (!pi2_store_options_of(cache->options.store)->reader || is_on_demand(cache)) return 0;
    const uint32_t share = (cache->slot_count - cache->given_count) / AHEAD_SHARE;
    return share < AHEAD_MOST ? share : AHEAD_MOST;
}

static void unlist_ahead(pi2_expert_cache *cache, uint32_t key) {
    cached_expert *expert = &cache->experts[key];
    assert(expert->ahead && cache->ahead_count > 0);
    uint32_t at = 0;
    while (cache->ahead_keys[at] != key) at++;
    cache->ahead_count--;
    for (; at < cache->ahead_count; at++) cache->ahead_keys[at] = cache->ahead_keys[at + 1];
    expert->ahead = expert->given_up = false;
}

/* An expert is no longer one that was fetched ahead. kept: it is demanded; else it is gone. */
static void end_ahead(pi2_expert_cache *cache, uint32_t key, bool kept) {
    const cached_expert *expert = &cache->experts[key];
    unlist_ahead(cache, key);
    *(kept ? &cache->counters.ahead_kept : &cache->counters.ahead_wasted) += 1;
    *(kept ? &cache->counters.ahead_kept_bytes : &cache->counters.ahead_wasted_bytes) += expert->ahead_bytes;
    pi2_timeline *trace = pi2_store_options_of(cache->options.store)->trace;
    if (!trace || expert->ahead_bytes == 0) return;
    pi2_timeline_ahead(trace, cache->options.layout->extents[expert->first].file_offset,
                       expert->ahead_bytes, kept, expert->ahead_ns, pi2_clock_ns());
}

/* The slot of the expert that was fetched ahead first and was not demanded; NULL: there is none. */
static uint8_t *drop_ahead(pi2_expert_cache *cache, bool foreseen_too) {
    for (uint32_t i = 0; i < cache->ahead_count; i++) {
        const uint32_t key = cache->ahead_keys[i];
        const cached_expert *expert = &cache->experts[key];
        if (expert->state != EXPERT_PRESENT || (expert->foreseen && !foreseen_too)) continue;
        end_ahead(cache, key, false);
        cache->counters.evictions++;
        return drop_present(cache, key);
    }
    return NULL;
}

/* The slot of an expert that only passed through, or that the policy gives up; NULL: none may leave. */
static uint8_t *evict(pi2_expert_cache *cache, pi2_cache_may_evict *may) {
    const uint32_t victim = pi2_cache_book_evict(cache->book, may, cache);
    if (victim == UINT32_MAX) return NULL;
    assert(may(cache, victim));
    cache->counters.evictions++;
    if (cache->hot) pi2_hot_experts_evicted(cache->hot, victim);
    return drop_present(cache, victim);
}

/* A slot: a free one that no hot expert waits for, else what was fetched ahead in vain leaves, else what the policy
 * says, of that last what the next demand will probably want. NULL: none is to be had now. */
uint8_t *pi2_expert_cache_find_slot(pi2_expert_cache *cache, bool certain) {
    if (cache->free_count > pi2_expert_cache_hot_wanted(cache)) return cache->free_slots[--cache->free_count];
    uint8_t *slot = drop_ahead(cache, false);
    if (!slot) slot = evict(cache, may_leave_early);
    if (!slot && certain) slot = drop_ahead(cache, true);
    if (!slot && certain) slot = evict(cache, may_leave);
    return slot;
}

/* Gives a queued expert a slot; false: none is to be had now. One that was being fetched ahead has one. */
static bool give_slot(pi2_expert_cache *cache, uint32_t key) {
    cached_expert *expert = &cache->experts[key];
    assert(expert->pinned);
    if (expert->state == EXPERT_LOADING) return true;
    if (pi2_expert_cache_is_hot(cache, key)) {
        pi2_expert_cache_take_hot_slot(cache, key);
    } else if (!cache->all_fit) {
        uint8_t *slot = pi2_expert_cache_find_slot(cache, true);
        if (!slot) return false;
        expert->memory = slot;
        pi2_cache_book_admit(cache->book, key);
        if (cache->hot) pi2_hot_experts_missed(cache->hot, key);
    }
    change_expert(expert, FROM(EXPERT_QUEUED), EXPERT_LOADING);
    expert->left = expert->count;
    return true;
}

bool pi2_expert_cache_add_read(pi2_expert_cache *cache, uint32_t key, uint32_t *next) {
    cached_expert *expert = &cache->experts[key];
    const pi2_extent *places = cache->options.layout->extents + expert->first;
    while (*next < expert->count && state_of(cache, expert, *next) != PI2_PART_ABSENT) ++*next;
    if (*next == expert->count) return true;
    pi2_bring *bring = pi2_region_unused(cache->region);
    if (!bring) return false;
    *bring = (pi2_bring){
        .offset = places[*next].file_offset, .bytes = pi2_extent_read_bytes(&places[*next]),
        .memory = expert->memory + extent_of(cache, expert, *next)->offset, .likely = !expert->pinned,
        .key = key, .first = *next, .count = 1, .number = expert->first + *next, .ticket = bring->ticket,
        .tag = expert->ahead ? READ_IS_AHEAD : expert->pinned ? 0 : READ_IS_HOT };
    for (++*next; *next < expert->count && state_of(cache, expert, *next) == PI2_PART_ABSENT; ++*next) {
        if (!pi2_bring_join(bring, places[*next].file_offset, pi2_extent_read_bytes(&places[*next]),
                            expert->memory + extent_of(cache, expert, *next)->offset)) break;
    }
    for (uint32_t i = bring->first; i < *next; i++) pi2_bring_part(bring, &extent_of(cache, expert, i)->part);
    change_slot(cache, slot_of(cache, expert->memory), FROM(SLOT_UNTOUCHED) | FROM(SLOT_TOUCHED), SLOT_TOUCHED);
    expert->reads++;
    cache->reads_hot += bring->tag == READ_IS_HOT;
    if (bring->tag == READ_IS_AHEAD) {
        cache->reads_ahead++;
        expert->ahead_bytes += bring->bytes;
        cache->counters.ahead_bytes += bring->bytes;
    }
    pi2_region_add(cache->region, bring);
    return true;
}

/* Gives an absent expert that the next demand will probably want a slot. False: none is to be had. */
static bool begin_ahead(pi2_expert_cache *cache, uint32_t key) {
    cached_expert *expert = &cache->experts[key];
    const bool full = cache->ahead_count >= ahead_most(cache);
    if (cache->all_fit) { /* no slot is needed: the oldest is only forgotten */
        const uint32_t oldest = full ? cache->ahead_keys[0] : UINT32_MAX;
        if (full && cache->experts[oldest].state != EXPERT_PRESENT) return false;
        if (full) unlist_ahead(cache, oldest);
    } else {
        uint8_t *slot = full ? drop_ahead(cache, false) : pi2_expert_cache_find_slot(cache, false);
        if (!slot) return false;
        expert->memory = slot;
    }
    change_expert(expert, FROM(EXPERT_ABSENT), EXPERT_LOADING);
    expert->left = expert->count;
    expert->ahead = true;
    expert->ahead_bytes = 0;
    if (pi2_store_options_of(cache->options.store)->trace) expert->ahead_ns = pi2_clock_ns();
    cache->ahead_keys[cache->ahead_count++] = key;
    cache->counters.ahead++;
    return true;
}

/* Asks for what the next demand will probably want, as far as it may. */
static void pump_ahead(pi2_expert_cache *cache) {
    for (; cache->foreseen_at < cache->foreseen_count; cache->foreseen_at++) {
        const uint32_t key = cache->foreseen[cache->foreseen_at];
        cached_expert *expert = &cache->experts[key];
        if (pi2_expert_cache_is_hot(cache, key)) continue; /* it is on its way as one */
        if (expert->state == EXPERT_ABSENT && !begin_ahead(cache, key)) break;
        if (!expert->ahead || expert->given_up || expert->state != EXPERT_LOADING) continue;
        for (uint32_t next = 0; next < expert->count;) {
            if (cache->reads_ahead == MAX_READS_AHEAD || !pi2_expert_cache_add_read(cache, key, &next)) return;
        }
    }
}

/* Asks for all that has a slot and an unused read: what is demanded, at most so many experts that nothing was asked
 * of, then what will probably be. */
static void ask(pi2_expert_cache *cache, uint32_t most_experts) {
    bool full = false;
    for (;;) {
        if (cache->issuing == UINT32_MAX) {
            if (most_experts-- == 0) break;
            if (cache->queue_at == cache->queue_count || !give_slot(cache, cache->queue[cache->queue_at])) break;
            cache->issuing = cache->queue[cache->queue_at++];
            cache->issued = 0;
        }
        full = !pi2_expert_cache_add_read(cache, cache->issuing, &cache->issued);
        if (full) break;
        if (cache->issued == cache->experts[cache->issuing].count) cache->issuing = UINT32_MAX;
    }
    if (!full && cache->queue_at == cache->queue_count) {
        pump_ahead(cache);
        pi2_expert_cache_pump_hot(cache);
    }
}

void pi2_expert_cache_pump(pi2_expert_cache *cache) {
    ask(cache, is_on_demand(cache) ? 0 : UINT32_MAX);
}

/* A read has ended, or was taken back; its extents are where it has brought them. */
static void end_read(pi2_expert_cache *cache, const pi2_bring *bring, uint8_t extents_are) {
    cached_expert *expert = &cache->experts[bring->key];
    expert->reads--;
    cache->reads_ahead -= bring->tag == READ_IS_AHEAD;
    cache->reads_hot -= bring->tag == READ_IS_HOT;
    for (uint32_t i = bring->first; i < bring->first + bring->count; i++) {
        pi2_part_change(&extent_of(cache, expert, i)->part, FROM(PI2_PART_READING), extents_are);
    }
}

static void note_arrival(pi2_expert_cache *cache, cached_expert *expert, uint32_t extents) {
    assert(expert->left >= extents);
    expert->left -= extents;
    if (expert->left > 0) return;
    change_expert(expert, FROM(EXPERT_LOADING), EXPERT_PRESENT);
    expert->given_up = false;
    cache->whole_count += cache->all_fit;
}

/* One that was given up leaves once no read can write into its slot any more. */
static void settle(pi2_expert_cache *cache, uint32_t key) {
    cached_expert *expert = &cache->experts[key];
    if (!expert->given_up || expert->reads > 0) return;
    assert(!expert->pinned);
    if (expert->ahead) end_ahead(cache, key, false);
    else pi2_expert_cache_lose_hot(cache, key);
    expert->given_up = false;
    uint8_t *slot = drop(cache, key, FROM(EXPERT_LOADING), FROM(PI2_PART_ABSENT) | FROM(PI2_PART_ARRIVED));
    if (!cache->all_fit) cache->free_slots[cache->free_count++] = slot;
}

/* A read that failed is told only if its expert is demanded; else whoever demands it asks again. Lock held. */
static void note_end(void *self, const pi2_bring *bring, pi2_status status) {
    pi2_expert_cache *cache = self;
    cached_expert *expert = &cache->experts[bring->key];
    if (status == PI2_OK) {
        end_read(cache, bring, PI2_PART_ARRIVED);
        note_arrival(cache, expert, bring->count);
    } else if (expert->pinned) {
        (void)pi2_store_fail(cache->options.store, status);
        end_read(cache, bring, PI2_PART_FAILED);
    } else {
        end_read(cache, bring, PI2_PART_ABSENT);
        expert->given_up = true;
        cache->foreseen_at = cache->foreseen_count; /* a disk in trouble is asked for no more than it must */
        cache->hot_at = cache->key_count;
    }
    settle(cache, bring->key);
}

/* ---- looking ahead ---- */

/* Those of later layers than the one that ends at `layer_end` stay foreseen. */
static void forget_foreseen(pi2_expert_cache *cache, uint32_t layer_end) {
    uint32_t kept = 0, kept_at = 0;
    for (uint32_t i = 0; i < cache->foreseen_count; i++) {
        const uint32_t key = cache->foreseen[i];
        cache->experts[key].foreseen = key >= layer_end;
        if (key < layer_end) continue;
        cache->foreseen[kept++] = key;
        kept_at += i < cache->foreseen_at;
    }
    cache->foreseen_count = kept;
    cache->foreseen_at = kept_at;
}

static bool some_waiting(const pi2_expert_cache *cache, const cached_expert *expert) {
    for (uint32_t i = 0; i < expert->count; i++) {
        if (state_of(cache, expert, i) == PI2_PART_ABSENT) return true;
    }
    return false;
}

/* A demanded expert was fetched ahead, or is being read as a hot one: its reads are certain from now on. True: some of
 * it must be asked for yet. */
static bool join_ahead(pi2_expert_cache *cache, uint32_t key) {
    cached_expert *expert = &cache->experts[key];
    if (expert->ahead) {
        end_ahead(cache, key, true);
        if (!cache->all_fit) pi2_cache_book_admit(cache->book, key);
    }
    expert->given_up = false;
    pi2_bring *bring = NULL;
    while (expert->reads > 0 && (bring = pi2_region_next(cache->region, bring)) != NULL) {
        if (bring->key == key) pi2_region_raise(cache->region, bring);
    }
    return some_waiting(cache, expert);
}

/* What is being fetched ahead and is not foreseen any more: reads that have not begun do not begin. */
static void give_up_ahead(pi2_expert_cache *cache) {
    pi2_bring *bring = NULL;
    while ((bring = pi2_region_next(cache->region, bring)) != NULL) {
        cached_expert *expert = &cache->experts[bring->key];
        if (!expert->ahead || expert->foreseen || !pi2_region_cancel(cache->region, bring)) continue;
        expert->ahead_bytes -= bring->bytes;
        cache->counters.ahead_bytes -= bring->bytes;
        expert->given_up = true;
        end_read(cache, bring, PI2_PART_ABSENT);
    }
    for (uint32_t i = cache->ahead_count; i-- > 0;) {
        const uint32_t key = cache->ahead_keys[i];
        cached_expert *expert = &cache->experts[key];
        if (expert->state != EXPERT_LOADING || expert->foreseen) continue;
        if (some_waiting(cache, expert)) expert->given_up = true; /* was not asked for in full */
        settle(cache, key);
    }
}

/* ---- what a pass calls ---- */

void pi2_expert_cache_begin_pass(pi2_expert_cache *cache, uint32_t token_count) {
    if (!cache->all_fit) pi2_cache_book_begin_pass(cache->book, token_count);
    pi2_expert_cache_review_hot(cache);
    if (cache->options.on_demand) cache->options.on_demand(cache->options.on_demand_user, NULL, token_count);
}

/* One expert of a demand: true when it has to be read, or the rest of it. */
static bool demand_one(pi2_expert_cache *cache, uint32_t key) {
    cached_expert *expert = &cache->experts[key];
    assert(!expert->pinned);
    expert->pinned = true;
    cache->counters.touches++;
    cache->counters.foreseen_demanded += expert->foreseen;
    const pi2_extent *places = cache->options.layout->extents + expert->first;
    uint64_t bytes = 0;
    for (uint32_t e = 0; e < expert->count; e++) bytes += places[e].bytes;
    pi2_store_needs(cache->options.store, bytes);
    if (expert->ahead || expert->state == EXPERT_LOADING) return join_ahead(cache, key);
    if (expert->state == EXPERT_PRESENT) {
        cache->counters.hits++;
        if (pi2_expert_cache_is_hot(cache, key)) cache->counters.hot_hits++;
        else if (!cache->all_fit) pi2_cache_book_hit(cache->book, key);
        return false;
    }
    change_expert(expert, FROM(EXPERT_ABSENT), EXPERT_QUEUED);
    return true;
}

void pi2_expert_cache_demand(pi2_expert_cache *cache, const uint32_t *keys, const pi2_batch_use *uses,
                             uint32_t count) {
    pi2_region_lock(cache->region);
    assert(cache->queue_at == cache->queue_count && cache->issuing == UINT32_MAX);
    cache->queue_at = cache->queue_count = 0;
    (void)pi2_region_collect(cache->region); /* all of experts that nobody demanded: none is told of failing */
    if (!cache->all_fit) pi2_cache_book_demand(cache->book, keys, uses, count);
    for (uint32_t i = 0; i < count; i++) { /* first what is there: it may not leave for what is not */
        assert(keys[i] < cache->key_count && (i == 0 || keys[i] > keys[i - 1]));
        if (cache->hot) pi2_hot_experts_use(cache->hot, keys[i], uses ? uses[i].times : 1);
        if (demand_one(cache, keys[i])) cache->queue[cache->queue_count++] = keys[i];
    }
    if (count > 0) forget_foreseen(cache, (keys[0] / cache->options.layer_keys + 1) * cache->options.layer_keys);
    if (cache->ahead_count > 0) give_up_ahead(cache);
    pi2_expert_cache_pump(cache);
    pi2_region_unlock(cache->region);
    if (cache->options.on_demand) cache->options.on_demand(cache->options.on_demand_user, keys, count);
}

bool pi2_expert_cache_can_look_ahead(const pi2_expert_cache *cache) {
    if (!pi2_store_options_of(cache->options.store)->reader || is_on_demand(cache)) return false;
    return !cache->all_fit || cache->whole_count < cache->key_count;
}

void pi2_expert_cache_look_ahead(pi2_expert_cache *cache, const uint32_t *keys, uint32_t count) {
    pi2_region_lock(cache->region);
    forget_foreseen(cache, UINT32_MAX);
    const uint32_t bound = ahead_most(cache), most = count < bound ? count : bound;
    for (uint32_t i = 0; i < most; i++) {
        assert(keys[i] < cache->key_count && !cache->experts[keys[i]].foreseen && !cache->experts[keys[i]].pinned);
        cache->experts[keys[i]].foreseen = true;
        cache->foreseen[cache->foreseen_count++] = keys[i];
        cache->counters.foreseen += keys[i] / cache->options.layer_keys == keys[0] / cache->options.layer_keys;
    }
    if (cache->ahead_count > 0) give_up_ahead(cache);
    pi2_expert_cache_pump(cache);
    pi2_region_unlock(cache->region);
}

bool pi2_expert_cache_arrived(const pi2_expert_cache *cache, uint32_t key, uint32_t index) {
    const int state = state_of(cache, &cache->experts[key], index);
    return state == PI2_PART_ARRIVED || state == PI2_PART_CHECKING || state == PI2_PART_READY;
}

static pi2_status check_extent(void *self, uint32_t number, const void *memory) {
    const pi2_expert_cache *cache = self;
    return pi2_cluster_file_check_extent(cache->options.path, cache->options.layout, number, memory);
}

pi2_status pi2_expert_cache_open(pi2_expert_cache *cache, uint32_t key, uint32_t index, const uint8_t **memory_out) {
    const cached_expert *expert = &cache->experts[key];
    cached_extent *extent = extent_of(cache, expert, index);
    *memory_out = expert->memory + extent->offset;
    if (pi2_part_state(&extent->part) == PI2_PART_READY) return PI2_OK;
    PI2_TRY(pi2_region_check(cache->region, &extent->part, expert->first + index, *memory_out));
    if (pi2_part_state(&extent->part) == PI2_PART_READY) return PI2_OK;
    assert(pi2_part_state(&extent->part) == PI2_PART_FAILED);
    return pi2_store_failure(cache->options.store);
}

pi2_status pi2_expert_cache_poll(pi2_expert_cache *cache, int *mark_out) {
    *mark_out = pi2_region_mark(cache->region);
    if (pi2_region_under_way(cache->region) > 0) {
        pi2_region_lock(cache->region);
        if (pi2_region_collect(cache->region) && pi2_store_failure(cache->options.store) == PI2_OK) {
            pi2_expert_cache_pump(cache);
        }
        pi2_region_unlock(cache->region);
    }
    return pi2_store_failure(cache->options.store);
}

void pi2_expert_cache_wait(pi2_expert_cache *cache, int mark) {
    const uint64_t begin = pi2_clock_ns();
    if (is_on_demand(cache)) {
        pi2_region_lock(cache->region);
        if (pi2_region_under_way(cache->region) == 0) ask(cache, 1);
        pi2_region_unlock(cache->region);
    }
    uint32_t extent;
    if (!pi2_region_await_any(cache->region, mark, &extent)) return;
    pi2_store_stalled(cache->options.store, extent, begin, 1);
}

void pi2_expert_cache_release(pi2_expert_cache *cache, uint32_t key) {
    pi2_region_lock(cache->region);
    cached_expert *expert = &cache->experts[key];
    assert(expert->pinned && expert->state == EXPERT_PRESENT);
    expert->pinned = false;
    pi2_expert_cache_pump(cache);
    pi2_region_unlock(cache->region);
}

static void reset(void *self) {
    pi2_expert_cache *cache = self;
    cache->queue_at = cache->queue_count = 0;
    cache->issuing = UINT32_MAX;
    cache->hot_at = 0;
    forget_foreseen(cache, UINT32_MAX);
    for (uint32_t key = 0; key < cache->key_count; key++) {
        cached_expert *expert = &cache->experts[key];
        const bool known = !expert->ahead; /* to the policy */
        bool whole = expert->state == EXPERT_PRESENT && known;
        for (uint32_t i = 0; whole && i < expert->count; i++) {
            const pi2_part *part = &extent_of(cache, expert, i)->part;
            const int state = pi2_part_state(part);
            whole = state == PI2_PART_READY || (state == PI2_PART_ARRIVED && part->verified);
        }
        expert->pinned = expert->given_up = false;
        if (whole || expert->state == EXPERT_ABSENT) continue;
        if (!known) end_ahead(cache, key, false);
        if (expert->state == EXPERT_PRESENT) cache->whole_count -= cache->all_fit;
        const bool had_slot = expert->state != EXPERT_QUEUED;
        uint8_t *memory = drop(cache, key, FROM(EXPERT_QUEUED) | FROM(EXPERT_LOADING) | FROM(EXPERT_PRESENT), FROM_ANY);
        if (!had_slot || cache->all_fit) continue;
        if (pi2_expert_cache_is_hot(cache, key)) pi2_expert_cache_lose_hot(cache, key);
        else if (known) pi2_cache_book_forget(cache->book, key);
        cache->free_slots[cache->free_count++] = memory;
    }
}

void pi2_expert_cache_count(const pi2_expert_cache *cache, pi2_expert_cache_counters *counters_out) {
    *counters_out = cache->counters;
    pi2_expert_cache_count_hot(cache, counters_out);
}

uint32_t pi2_expert_cache_slots(const pi2_expert_cache *cache) { return cache->slot_count; }

/* ---- creation ---- */

pi2_status pi2_expert_cache_create(const pi2_expert_cache_options *options, pi2_expert_cache **cache_out) {
    *cache_out = NULL;
    pi2_expert_cache *cache = calloc(1, sizeof *cache);
    if (!cache) return pi2_fail(PI2_ERR_MEMORY, "no memory for the expert cache");
    cache->options = *options;
    cache->issuing = UINT32_MAX;
    const pi2_region_owner owner = { .self = cache, .ended = note_end, .check = check_extent, .reset = reset };
    pi2_status status = allocate(cache);
    if (status == PI2_OK) status = pi2_region_create(options->store, &owner, MAX_READS, &cache->region);
    if (status != PI2_OK) {
        pi2_expert_cache_free(cache);
        return status;
    }
    pi2_expert_cache_tell_memory(cache);
    pi2_region_lock(cache->region);
    pi2_expert_cache_pump(cache); /* hot experts are read from now on */
    pi2_region_unlock(cache->region);
    *cache_out = cache;
    return PI2_OK;
}

void pi2_expert_cache_free(pi2_expert_cache *cache) {
    if (!cache) return;
    pi2_region_free(cache->region);
    free(cache->experts);
    free(cache->extents);
    free(cache->queue);
    free(cache->free_slots);
    free(cache->slots);
    free(cache->book);
    free(cache->hot);
    free(cache);
}
