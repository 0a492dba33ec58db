/* neuron_store_memory.c: slots of single neurons that are given back and return, or that serve others by turns. */
#include "base/pages.h"
#include "neuron_cache/neuron_store_internal.h"

/* ---- giving memory back, and taking it again ---- */

void pi2_neuron_store_empty_slot(pi2_neuron_store *store, uint32_t number) {
    neuron_slot *slot = &store->slots[number];
    const slot_word word = atomic_load(&slot->word);
    if (word_state(word) != PI2_PART_READY) return;
    atomic_store(&store->units[word_unit(word)].heat_left, atomic_load(&slot->heat));
    atomic_store(&store->units[word_unit(word)].slot, NO_SLOT);
    atomic_store(&slot->word, (slot_word)PI2_PART_ABSENT);
}

/* Slots of a pool that make whole steps of memory, so that a huge page leaves as one. */
static uint32_t slots_of_bytes(const slot_pool *pool, uint64_t bytes) {
    const uint64_t step = PI2_HUGE_PAGE_BYTES;
    return (uint32_t)(((bytes + step - 1) / step * step + pool->unit_bytes - 1) / pool->unit_bytes);
}

/* Units that a layer may need at once have slots that serve nobody else. */
static uint32_t least_slots(const slot_pool *pool) { return pool->shared_count + pool->largest_layer; }

static uint64_t close_slots(pi2_neuron_store *store, slot_pool *pool, uint64_t bytes) {
    const uint32_t before = pool->open_count, wanted = slots_of_bytes(pool, bytes);
    const uint32_t left = before > wanted ? before - wanted : 0;
    const uint32_t least = left > least_slots(pool) ? left : least_slots(pool);
    while (pool->open_count > least) pi2_neuron_store_empty_slot(store, pool->first_slot + --pool->open_count);
    if (pool->hand >= pool->open_count) pool->hand = pool->first_open;
    const uint64_t given = (uint64_t)(before - pool->open_count) * pool->unit_bytes;
    (void)pi2_pages_discard(slot_memory(store, pool, pool->first_slot + pool->open_count), (size_t)given);
    return given;
}

static bool has_spare(const pi2_neuron_store *store) {
    for (uint32_t p = 0; p < store->pool_count; p++) {
        if (store->pools[p].open_count > least_slots(&store->pools[p])) return true;
    }
    return false;
}

/* Between passes, in steps of 2 MB: slots behind the units that a layer may need at once. */
static uint64_t give_back(void *self, uint32_t position, uint64_t bytes, bool *later) {
    pi2_neuron_store *store = self;
    *later = position != UINT32_MAX && has_spare(store);
    if (position != UINT32_MAX) return 0;
    (void)pi2_region_collect(store->region);
    if (pi2_region_under_way(store->region)) return 0; /* a read may write into any slot */
    uint64_t given = 0;
    for (uint32_t p = 0; p < store->pool_count && given < bytes; p++) {
        given += close_slots(store, &store->pools[p], bytes - given);
    }
    return given;
}

static uint64_t take_again(void *self, uint32_t position, uint64_t bytes) {
    pi2_neuron_store *store = self;
    uint64_t taken = 0;
    for (uint32_t p = position == UINT32_MAX ? store->pool_count : 0; p-- > 0 && taken < bytes;) {
        slot_pool *pool = &store->pools[p];
        const uint32_t closed = pool->slot_count - pool->open_count, wanted = slots_of_bytes(pool, bytes - taken);
        const uint32_t opened = closed < wanted ? closed : wanted;
        pool->open_count += opened;
        taken += (uint64_t)opened * pool->unit_bytes;
    }
    return taken;
}

static uint64_t away(void *self) {
    const pi2_neuron_store *store = self;
    uint64_t bytes = 0;
    for (uint32_t p = 0; p < store->pool_count; p++) {
        const slot_pool *pool = &store->pools[p];
        bytes += (uint64_t)(pool->slot_count - pool->open_count) * pool->unit_bytes;
    }
    return bytes;
}

static uint64_t slot_bytes(const pi2_neuron_store *store) {
    uint64_t bytes = 0;
    for (uint32_t p = 0; p < store->pool_count; p++) {
        bytes += own_bytes(&store->pools[p]);
    }
    return bytes;
}

static uint64_t unread(void *self) {
    pi2_neuron_store *store = self;
    if (store->is_filled) return 0;
    const uint64_t bytes = slot_bytes(store) - away(store), kept = atomic_load(&store->kept_bytes);
    return bytes > kept ? bytes - kept : 0;
}

void pi2_neuron_store_offer_memory(pi2_neuron_store *store) {
    pi2_region_set_memory(store->region, &(pi2_region_memory){
        .planned_bytes = slot_bytes(store), .away = away, .unread = unread, .give_back = give_back,
        .take_again = take_again });
}

/* ---- memory that serves others by turns ---- */

void pi2_neuron_store_open_shared(pi2_neuron_store *store) {
    if (store->pool_count == 0 || store->pools[0].first_open == 0) return;
    store->pools[0].first_open = 0;
}

void pi2_neuron_store_await_reads(pi2_neuron_store *store) {
    for (unsigned turn = 0; pi2_region_under_way(store->region); turn++) {
        if (!pi2_region_collect(store->region)) pi2_store_pause(turn);
    }
}

void pi2_neuron_store_close_shared(pi2_neuron_store *store) {
    slot_pool *pool = &store->pools[0];
    if (pi2_neuron_store_shared_slots(store) == 0) return;
    pi2_neuron_store_await_reads(store);
    for (uint32_t i = 0; i < pool->shared_count; i++) pi2_neuron_store_empty_slot(store, pool->first_slot + i);
    pool->first_open = pool->shared_count;
    if (pool->hand < pool->first_open) pool->hand = pool->first_open;
}

uint32_t pi2_neuron_store_shared_slots(const pi2_neuron_store *store) {
    return store->pools[0].shared_count - store->pools[0].first_open;
}
