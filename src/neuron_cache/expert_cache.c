/* expert_cache.c: slots for experts, and the reads that fill them. */
#include "neuron_cache/expert_cache.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/pages.h"

enum { EXPERT_ABSENT, EXPERT_QUEUED, EXPERT_LOADING, EXPERT_PRESENT };
enum { EXTENT_WAITING, EXTENT_READING, EXTENT_ARRIVED, EXTENT_READY, EXTENT_FAILED };
enum { MAX_READS = 64, MERGED_READ_BYTES = 1024 * 1024 };

typedef struct cached_expert {
    uint8_t *memory;        /* its slot; where all fit: its own place, always */
    uint32_t first;         /* its first extent, in the layout */
    uint32_t first_own;     /* the same in `extents` */
    uint32_t count;
    uint32_t left;          /* LOADING: extents that have not arrived */
    uint8_t state;
    bool pinned;
} cached_expert;

typedef struct cached_extent {
    _Atomic uint8_t state;
    bool verified;
    uint32_t offset;        /* in the slot */
} cached_extent;

/* A read of consecutive extents of one expert. */
typedef struct cache_read {
    pi2_read_request request;
    uint64_t number;        /* in order of submission */
    uint32_t key, index, count;
    uint32_t waiters;       /* threads that would tell of a stall in its name: it is not used again as long */
    bool active;
} cache_read;

struct pi2_expert_cache {
    pi2_expert_cache_options options;
    pthread_mutex_t lock;
    cached_expert *experts;
    cached_extent *extents;
    void *policy_state;
    uint8_t **free_slots;
    uint32_t key_count, slot_count, free_count;
    uint32_t given_count;   /* the last slots in memory, given back to the system */
    _Atomic bool all_fit;   /* until memory is given back */

    uint32_t *queue;        /* demanded, without a slot: [queue_at, queue_count) */
    uint32_t queue_at, queue_count;
    uint32_t issuing, issued; /* the expert whose reads are being asked for (or UINT32_MAX), extents done */

    cache_read reads[MAX_READS];
    _Atomic uint32_t active_reads;
    uint64_t read_number;
    pi2_expert_cache_counters counters;
    _Atomic uint64_t stall_ns;
};

/* ---- the layout's experts ---- */

static uint64_t group_read_bytes(const pi2_extent_layout *layout, const pi2_group *group) {
    uint64_t bytes = 0;
    for (uint32_t e = 0; e < group->extent_count; e++) {
        bytes += pi2_extent_read_bytes(&layout->extents[group->first_extent + e]);
    }
    return bytes;
}

uint32_t pi2_expert_cache_keys(const pi2_extent_layout *layout) {
    uint32_t keys = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) keys += layout->groups[g].kind == PI2_GROUP_EXPERT;
    return keys;
}

uint64_t pi2_expert_cache_slot_bytes(const pi2_extent_layout *layout) {
    uint64_t most = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind != PI2_GROUP_EXPERT) continue;
        const uint64_t bytes = group_read_bytes(layout, &layout->groups[g]);
        if (bytes > most) most = bytes;
    }
    return most;
}

uint64_t pi2_expert_cache_all_bytes(const pi2_extent_layout *layout) {
    uint64_t bytes = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind == PI2_GROUP_EXPERT) bytes += group_read_bytes(layout, &layout->groups[g]);
    }
    return bytes;
}

static uint32_t count_extents(const pi2_extent_layout *layout) {
    uint32_t extents = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind == PI2_GROUP_EXPERT) extents += layout->groups[g].extent_count;
    }
    return extents;
}

size_t pi2_expert_cache_list_bytes(const pi2_extent_layout *layout, const pi2_cache_policy *policy) {
    const size_t keys = pi2_expert_cache_keys(layout);
    return sizeof(struct pi2_expert_cache) + count_extents(layout) * sizeof(cached_extent) +
           keys * (sizeof(cached_expert) + sizeof(uint32_t) + sizeof(uint8_t *)) +
           policy->bytes((uint32_t)keys, (uint32_t)keys);
}

/* ---- creation ---- */

/* Notes where each expert's extents are; those that all fit get their place. */
static void list_experts(pi2_expert_cache *cache) {
    const pi2_extent_layout *layout = cache->options.layout;
    uint8_t *place = cache->options.memory;
    uint32_t key = 0, own = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        const pi2_group *group = &layout->groups[g];
        if (group->kind != PI2_GROUP_EXPERT) continue;
        cached_expert *expert = &cache->experts[key++];
        *expert = (cached_expert){ .first = group->first_extent, .first_own = own, .count = group->extent_count };
        if (cache->all_fit) expert->memory = place;
        if (cache->options.loaded) expert->state = EXPERT_PRESENT;
        uint32_t offset = 0;
        for (uint32_t e = 0; e < group->extent_count; e++, own++) {
            cache->extents[own].offset = offset;
            atomic_init(&cache->extents[own].state, cache->options.loaded ? EXTENT_READY : EXTENT_WAITING);
            offset += pi2_extent_read_bytes(&layout->extents[group->first_extent + e]);
        }
        place += cache->options.loaded ? offset : pi2_expert_cache_slot_bytes(layout);
    }
}

static pi2_status allocate(pi2_expert_cache *cache) {
    const pi2_expert_cache_options *options = &cache->options;
    const uint64_t slot = pi2_expert_cache_slot_bytes(options->layout);
    cache->key_count = pi2_expert_cache_keys(options->layout);
    cache->all_fit = options->bytes >= pi2_expert_cache_all_bytes(options->layout);
    cache->slot_count = cache->all_fit ? cache->key_count : slot ? (uint32_t)(options->bytes / slot) : 0;
    if (cache->slot_count == 0 || slot > UINT32_MAX) {
        return pi2_fail(PI2_ERR_INVALID, "an expert cache of %llu bytes cannot hold an expert of %llu bytes",
                        (unsigned long long)options->bytes, (unsigned long long)slot);
    }
    assert(!options->loaded || cache->all_fit);
    cache->experts = calloc(cache->key_count, sizeof *cache->experts);
    cache->extents = calloc(count_extents(options->layout), sizeof *cache->extents);
    cache->queue = calloc(cache->key_count, sizeof *cache->queue);
    cache->free_slots = calloc(cache->slot_count, sizeof *cache->free_slots);
    cache->policy_state = malloc(options->policy->bytes(cache->key_count, cache->slot_count));
    if (!cache->experts || !cache->extents || !cache->queue || !cache->free_slots || !cache->policy_state) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the expert cache's lists");
    }
    options->policy->init(cache->policy_state, cache->key_count, cache->slot_count);
    list_experts(cache);
    if (cache->all_fit) return PI2_OK;
    for (uint32_t i = 0; i < cache->slot_count; i++) { /* the first slot is taken first */
        cache->free_slots[cache->slot_count - 1 - i] = (uint8_t *)options->memory + slot * i;
    }
    cache->free_count = cache->slot_count;
    return PI2_OK;
}

static void free_lists(pi2_expert_cache *cache) {
    free(cache->experts);
    free(cache->extents);
    free(cache->queue);
    free(cache->free_slots);
    free(cache->policy_state);
    (void)pthread_mutex_destroy(&cache->lock);
    free(cache);
}

pi2_status pi2_expert_cache_create(const pi2_expert_cache_options *options, pi2_expert_cache **cache_out) {
    *cache_out = NULL;
    pi2_expert_cache *cache = calloc(1, sizeof *cache);
    if (!cache || pthread_mutex_init(&cache->lock, NULL) != 0) {
        free(cache);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the expert cache");
    }
    cache->options = *options;
    cache->issuing = UINT32_MAX;
    const pi2_status status = allocate(cache);
    if (status != PI2_OK) {
        free_lists(cache);
        return status;
    }
    *cache_out = cache;
    return PI2_OK;
}

void pi2_expert_cache_free(pi2_expert_cache *cache) {
    if (!cache) return;
    pi2_expert_cache_reset(cache);
    free_lists(cache);
}

/* ---- slots and reads, under the lock ---- */

static cached_extent *extent_of(const pi2_expert_cache *cache, const cached_expert *expert, uint32_t index) {
    assert(index < expert->count);
    return &cache->extents[expert->first_own + index];
}

static bool may_leave(const void *user, uint32_t key) {
    const pi2_expert_cache *cache = user;
    const cached_expert *expert = &cache->experts[key];
    return expert->state == EXPERT_PRESENT && !expert->pinned;
}

static void set_extents(pi2_expert_cache *cache, const cached_expert *expert, uint8_t state) {
    for (uint32_t i = 0; i < expert->count; i++) {
        atomic_store_explicit(&extent_of(cache, expert, i)->state, state, memory_order_relaxed);
    }
}

/* Takes an expert's slot away. */
static uint8_t *drop(pi2_expert_cache *cache, uint32_t key) {
    cached_expert *expert = &cache->experts[key];
    uint8_t *memory = expert->memory;
    expert->state = EXPERT_ABSENT;
    set_extents(cache, expert, EXTENT_WAITING);
    if (!cache->all_fit) expert->memory = NULL;
    return memory;
}

/* Gives a queued expert a slot; false: none is to be had now. */
static bool give_slot(pi2_expert_cache *cache, uint32_t key) {
    cached_expert *expert = &cache->experts[key];
    assert(expert->state == EXPERT_QUEUED && expert->pinned);
    if (!cache->all_fit) {
        if (cache->free_count > 0) {
            expert->memory = cache->free_slots[--cache->free_count];
        } else {
            const uint32_t victim = cache->options.policy->evict(cache->policy_state, may_leave, cache);
            if (victim == UINT32_MAX) return false;
            assert(may_leave(cache, victim));
            expert->memory = drop(cache, victim);
            cache->counters.evictions++;
        }
        cache->options.policy->admit(cache->policy_state, key);
    }
    expert->state = EXPERT_LOADING;
    expert->left = expert->count;
    return true;
}

static cache_read *unused_read(pi2_expert_cache *cache) {
    for (uint32_t i = 0; i < MAX_READS; i++) {
        if (!cache->reads[i].active && cache->reads[i].waiters == 0) return &cache->reads[i];
    }
    return NULL;
}

/* A read of the issuing expert's next extents: as many as are neighbours in the file, up to a size. */
static void fill_read(pi2_expert_cache *cache, cache_read *read) {
    cached_expert *expert = &cache->experts[cache->issuing];
    const pi2_extent *places = cache->options.layout->extents + expert->first;
    const uint32_t first = cache->issued;
    read->key = cache->issuing;
    read->index = first;
    read->count = 0;
    read->active = true;
    read->number = cache->read_number++;
    read->request.offset = places[first].file_offset;
    read->request.destination = expert->memory + extent_of(cache, expert, first)->offset;
    read->request.bytes = 0;
    read->request.priority = PI2_READ_CERTAIN;
    atomic_store_explicit(&read->request.state, PI2_READ_IDLE, memory_order_relaxed);
    for (uint32_t i = first; i < expert->count; i++) {
        const uint32_t bytes = pi2_extent_read_bytes(&places[i]);
        if (i > first && (places[i].file_offset != read->request.offset + read->request.bytes ||
                          read->request.bytes + bytes > MERGED_READ_BYTES)) break;
        read->request.bytes += bytes;
        read->count++;
        atomic_store_explicit(&extent_of(cache, expert, i)->state, EXTENT_READING, memory_order_relaxed);
    }
    cache->issued += read->count;
    atomic_fetch_add_explicit(&cache->active_reads, 1, memory_order_relaxed);
}

/* Asks for all that has a slot and a free request. */
static void pump(pi2_expert_cache *cache) {
    pi2_read_request *batch[MAX_READS];
    size_t batch_count = 0;
    for (;;) {
        if (cache->issuing == UINT32_MAX) {
            if (cache->queue_at == cache->queue_count || !give_slot(cache, cache->queue[cache->queue_at])) break;
            cache->issuing = cache->queue[cache->queue_at++];
            cache->issued = 0;
        }
        cache_read *read = unused_read(cache);
        if (!read) break;
        fill_read(cache, read);
        batch[batch_count++] = &read->request;
        if (cache->issued == cache->experts[cache->issuing].count) cache->issuing = UINT32_MAX;
    }
    if (batch_count) pi2_reader_submit_many(cache->options.reader, batch, batch_count);
}

/* A read ended well. */
static void note_arrival(pi2_expert_cache *cache, cache_read *read) {
    cached_expert *expert = &cache->experts[read->key];
    for (uint32_t i = 0; i < read->count; i++) {
        atomic_store_explicit(&extent_of(cache, expert, read->index + i)->state, EXTENT_ARRIVED,
                              memory_order_release);
    }
    assert(expert->state == EXPERT_LOADING && expert->left >= read->count);
    expert->left -= read->count;
    if (expert->left == 0) expert->state = EXPERT_PRESENT;
}

static void end_read(pi2_expert_cache *cache, cache_read *read) {
    read->active = false;
    atomic_fetch_sub(&cache->active_reads, 1);
}

/* ---- what a pass calls ---- */

void pi2_expert_cache_begin_pass(pi2_expert_cache *cache, uint32_t token_count) {
    if (cache->options.on_demand) cache->options.on_demand(cache->options.on_demand_user, NULL, token_count);
}

void pi2_expert_cache_demand(pi2_expert_cache *cache, const uint32_t *keys, uint32_t count) {
    (void)pthread_mutex_lock(&cache->lock);
    assert(cache->queue_at == cache->queue_count && cache->issuing == UINT32_MAX);
    cache->queue_at = cache->queue_count = 0;
    for (uint32_t i = 0; i < count; i++) { /* first what is there: it may not leave for what is not */
        assert(keys[i] < cache->key_count && (i == 0 || keys[i] > keys[i - 1]));
        cached_expert *expert = &cache->experts[keys[i]];
        assert(!expert->pinned);
        expert->pinned = true;
        cache->counters.touches++;
        const pi2_extent *places = cache->options.layout->extents + expert->first;
        for (uint32_t e = 0; e < expert->count; e++) cache->counters.needed_bytes += places[e].bytes;
        if (expert->state == EXPERT_PRESENT) {
            cache->counters.hits++;
            if (!cache->all_fit) cache->options.policy->hit(cache->policy_state, keys[i]);
            continue;
        }
        assert(expert->state == EXPERT_ABSENT);
        expert->state = EXPERT_QUEUED;
        cache->queue[cache->queue_count++] = keys[i];
    }
    pump(cache);
    (void)pthread_mutex_unlock(&cache->lock);
    if (cache->options.on_demand) cache->options.on_demand(cache->options.on_demand_user, keys, count);
}

bool pi2_expert_cache_arrived(const pi2_expert_cache *cache, uint32_t key, uint32_t index) {
    const int state = atomic_load_explicit(&extent_of(cache, &cache->experts[key], index)->state,
                                           memory_order_acquire);
    return state == EXTENT_ARRIVED || state == EXTENT_READY;
}

pi2_status pi2_expert_cache_open(pi2_expert_cache *cache, uint32_t key, uint32_t index, const uint8_t **memory_out) {
    const cached_expert *expert = &cache->experts[key];
    cached_extent *extent = extent_of(cache, expert, index);
    const int state = atomic_load_explicit(&extent->state, memory_order_acquire);
    *memory_out = expert->memory + extent->offset;
    if (state == EXTENT_READY) return PI2_OK;
    assert(state == EXTENT_ARRIVED || state == EXTENT_FAILED);
    const pi2_extent *place = &cache->options.layout->extents[expert->first + index];
    if (!extent->verified && place->checksum != 0 && XXH3_64bits(*memory_out, place->bytes) != place->checksum) {
        atomic_store(&extent->state, EXTENT_FAILED);
        return pi2_fail(PI2_ERR_FORMAT, "%s: extent %u (tensor '%s', %u bytes at offset %llu) does not match its "
                        "checksum: the file or the disk is damaged; delete it and prepare the model again",
                        cache->options.path, expert->first + index,
                        cache->options.layout->tensors[cache->options.layout->pieces[place->first_piece].tensor].name,
                        place->bytes, (unsigned long long)place->file_offset);
    }
    extent->verified = true;
    atomic_store_explicit(&extent->state, EXTENT_READY, memory_order_release);
    return PI2_OK;
}

pi2_status pi2_expert_cache_poll(pi2_expert_cache *cache, int *mark_out) {
    *mark_out = cache->options.reader ? pi2_reader_ended(cache->options.reader) : 0;
    if (atomic_load(&cache->active_reads) == 0) return PI2_OK;
    pi2_status status = PI2_OK;
    bool some = false;
    (void)pthread_mutex_lock(&cache->lock);
    for (uint32_t i = 0; i < MAX_READS && status == PI2_OK; i++) {
        cache_read *read = &cache->reads[i];
        const int state = read->active ? atomic_load_explicit(&read->request.state, memory_order_acquire)
                                       : PI2_READ_IDLE;
        if (state == PI2_READ_DONE) {
            note_arrival(cache, read);
            end_read(cache, read);
            some = true;
        } else if (state == PI2_READ_FAILED) { /* stays active, so that every thread meets it, until the reset */
            status = pi2_reader_wait(cache->options.reader, &read->request, 0);
        }
    }
    if (some && status == PI2_OK) pump(cache);
    (void)pthread_mutex_unlock(&cache->lock);
    return status;
}

void pi2_expert_cache_wait(pi2_expert_cache *cache, int mark) {
    const uint64_t begin = pi2_clock_ns();
    cache_read *oldest = NULL;
    (void)pthread_mutex_lock(&cache->lock);
    for (uint32_t i = 0; i < MAX_READS; i++) {
        cache_read *read = &cache->reads[i];
        if (read->active && (!oldest || read->number < oldest->number)) oldest = read;
    }
    if (oldest) oldest->waiters++;
    const uint32_t extent = oldest ? cache->experts[oldest->key].first + oldest->index : 0;
    (void)pthread_mutex_unlock(&cache->lock);
    if (!oldest) return;
    pi2_reader_wait_next(cache->options.reader, mark, &oldest->request, cache->options.spin_us);
    (void)pthread_mutex_lock(&cache->lock);
    oldest->waiters--;
    (void)pthread_mutex_unlock(&cache->lock);
    const uint64_t end = pi2_clock_ns();
    atomic_fetch_add_explicit(&cache->stall_ns, end - begin, memory_order_relaxed);
    if (cache->options.trace) pi2_timeline_stall(cache->options.trace, extent, begin, end);
}

void pi2_expert_cache_release(pi2_expert_cache *cache, uint32_t key) {
    (void)pthread_mutex_lock(&cache->lock);
    cached_expert *expert = &cache->experts[key];
    assert(expert->pinned && expert->state == EXPERT_PRESENT);
    expert->pinned = false;
    pump(cache);
    (void)pthread_mutex_unlock(&cache->lock);
}

void pi2_expert_cache_reset(pi2_expert_cache *cache) {
    for (uint32_t i = 0; i < MAX_READS; i++) {
        cache_read *read = &cache->reads[i];
        if (!read->active) continue;
        if (pi2_reader_wait(cache->options.reader, &read->request, 0) == PI2_OK) note_arrival(cache, read);
        end_read(cache, read);
    }
    cache->queue_at = cache->queue_count = 0;
    cache->issuing = UINT32_MAX;
    for (uint32_t key = 0; key < cache->key_count; key++) {
        cached_expert *expert = &cache->experts[key];
        bool whole = expert->state == EXPERT_PRESENT;
        for (uint32_t i = 0; whole && i < expert->count; i++) {
            const cached_extent *extent = extent_of(cache, expert, i);
            const int state = atomic_load(&extent->state);
            whole = state == EXTENT_READY || (state == EXTENT_ARRIVED && extent->verified);
        }
        expert->pinned = false;
        if (whole || expert->state == EXPERT_ABSENT) continue;
        const bool had_slot = expert->state != EXPERT_QUEUED;
        uint8_t *memory = drop(cache, key);
        if (!had_slot || cache->all_fit) continue;
        cache->options.policy->forget(cache->policy_state, key);
        cache->free_slots[cache->free_count++] = memory;
    }
}

void pi2_expert_cache_count(const pi2_expert_cache *cache, pi2_expert_cache_counters *counters_out) {
    *counters_out = cache->counters;
    counters_out->stall_ns = atomic_load_explicit(&cache->stall_ns, memory_order_relaxed);
}

/* ---- giving memory back, and taking it again ---- */

static uint8_t *slot_at(const pi2_expert_cache *cache, uint32_t index) {
    return (uint8_t *)cache->options.memory + pi2_expert_cache_slot_bytes(cache->options.layout) * index;
}

/* Where all experts fitted, their places become slots: the policy learns who is there. */
static void begin_slots(pi2_expert_cache *cache) {
    cache->all_fit = false;
    for (uint32_t key = 0; key < cache->key_count; key++) {
        cached_expert *expert = &cache->experts[key];
        if (expert->state == EXPERT_LOADING || expert->state == EXPERT_PRESENT) {
            cache->options.policy->admit(cache->policy_state, key);
        } else {
            cache->free_slots[cache->free_count++] = expert->memory;
            expert->memory = NULL;
        }
    }
}

/* Empties a slot: what is in it moves to `to`. False: it is in use. */
static bool move_slot(pi2_expert_cache *cache, uint8_t *from, uint8_t *to, size_t bytes) {
    for (uint32_t i = 0; i < cache->free_count; i++) {
        if (cache->free_slots[i] != from) continue;
        cache->free_slots[i] = to;
        return true;
    }
    for (uint32_t key = 0; key < cache->key_count; key++) {
        cached_expert *expert = &cache->experts[key];
        if (expert->memory != from) continue;
        if (expert->state != EXPERT_PRESENT || expert->pinned) return false;
        memcpy(to, from, bytes);
        expert->memory = to;
        return true;
    }
    return false;
}

/*
 * The last slot leaves, not the one that the policy empties: so what is given back is one stretch,
 * which huge pages come back from whole.
 */
static bool give_one(pi2_expert_cache *cache, size_t slot_bytes) {
    uint8_t *last = slot_at(cache, cache->slot_count - cache->given_count - 1);
    uint8_t *empty = NULL;
    if (cache->free_count > 0) {
        empty = cache->free_slots[--cache->free_count];
    } else {
        const uint32_t victim = cache->options.policy->evict(cache->policy_state, may_leave, cache);
        if (victim == UINT32_MAX) return false;
        empty = drop(cache, victim);
        cache->counters.evictions++;
    }
    if (empty != last && !move_slot(cache, last, empty, slot_bytes)) {
        cache->free_slots[cache->free_count++] = empty;
        return false;
    }
    cache->given_count++;
    (void)pi2_pages_discard(last, slot_bytes);
    return true;
}

uint64_t pi2_expert_cache_give_back(pi2_expert_cache *cache, uint32_t least_slots, uint64_t bytes) {
    const size_t slot_bytes = (size_t)pi2_expert_cache_slot_bytes(cache->options.layout);
    uint64_t given = 0;
    if (cache->options.loaded || bytes == 0) return 0;
    (void)pthread_mutex_lock(&cache->lock);
    if (cache->all_fit && cache->slot_count > least_slots) begin_slots(cache);
    while (given < bytes && cache->slot_count - cache->given_count > least_slots && give_one(cache, slot_bytes)) {
        given += slot_bytes;
    }
    (void)pthread_mutex_unlock(&cache->lock);
    return given;
}

uint64_t pi2_expert_cache_take_again(pi2_expert_cache *cache, uint64_t bytes) {
    const uint64_t slot_bytes = pi2_expert_cache_slot_bytes(cache->options.layout);
    uint64_t taken = 0;
    (void)pthread_mutex_lock(&cache->lock);
    while (cache->given_count > 0 && (taken == 0 || taken + slot_bytes <= bytes)) {
        cache->given_count--;
        cache->free_slots[cache->free_count++] = slot_at(cache, cache->slot_count - cache->given_count - 1);
        taken += slot_bytes;
    }
    pump(cache);
    (void)pthread_mutex_unlock(&cache->lock);
    return taken;
}

uint64_t pi2_expert_cache_away_bytes(const pi2_expert_cache *cache) {
    return cache->given_count * pi2_expert_cache_slot_bytes(cache->options.layout);
}

uint32_t pi2_expert_cache_slots(const pi2_expert_cache *cache) { return cache->slot_count; }
