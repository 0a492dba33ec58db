/* neuron_store.c: slots of units, found without a lock, filled by reads, emptied by a rule. */
#include "neuron_cache/neuron_store_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/pages.h"

enum {
    MOST_READS = PI2_REGION_READS_MOST, WANTED_AT_ONCE = 64, EPOCH_BITS = 28,
    FINE_READS = MOST_READS / 2,        /* of fine units, which each take a window */
    IS_FORETOLD = 1 /* a read's tag */
};

/* ---- sizes ---- */

uint64_t pi2_neuron_store_head_bytes(const pi2_neuron_banks *banks) {
    uint64_t bytes = 0;
    for (uint32_t b = 0; b < banks->count; b++) bytes += page_up(banks->banks[b].head_bytes);
    return bytes;
}

/* Bytes of a window: the pages of the largest fine unit, wherever it begins, and mostly of a neighbour; 0: there is
 * none. */
static uint32_t window_bytes_of(const pi2_neuron_banks *banks) {
    uint64_t most = 0;
    for (uint32_t b = 0; b < banks->count; b++) {
        const uint64_t bytes = page_up(banks->banks[b].unit_bytes) + PI2_READ_ALIGNMENT;
        if (pi2_neuron_bank_is_fine(&banks->banks[b]) && bytes > most) most = bytes;
    }
    return (uint32_t)most;
}

/* The pool with most to hold comes first: its slots are in the shared memory. */
static void order_pools(slot_pool *pools, uint32_t count) {
    for (uint32_t p = 1; p < count; p++) {
        if (pools[p].units * pools[p].unit_bytes <= pools[0].units * pools[0].unit_bytes) continue;
        const slot_pool larger = pools[p];
        pools[p] = pools[0];
        pools[0] = larger;
    }
}

/* The pools that the banks need; false when they have more sizes than there are pools. */
static bool find_pools(const pi2_neuron_banks *banks, slot_pool pools[MOST_POOLS], uint32_t *count_out) {
    *count_out = 0;
    for (uint32_t b = 0; b < banks->count; b++) {
        const pi2_neuron_bank *bank = &banks->banks[b];
        uint32_t p = 0;
        while (p < *count_out && pools[p].unit_bytes != bank->unit_bytes) p++;
        if (p == MOST_POOLS) return false;
        if (p == *count_out) pools[(*count_out)++] = (slot_pool){ .unit_bytes = bank->unit_bytes };
        pools[p].units += bank->unit_count;
        const uint64_t layer = (uint64_t)bank->unit_count * (banks->at_once ? banks->at_once : 1);
        if (layer > pools[p].largest_layer) pools[p].largest_layer = layer < UINT32_MAX ? (uint32_t)layer : UINT32_MAX;
    }
    for (uint32_t p = 0; p < *count_out; p++) {
        if (pools[p].largest_layer > pools[p].units) pools[p].largest_layer = (uint32_t)pools[p].units;
    }
    order_pools(pools, *count_out);
    return true;
}

uint64_t pi2_neuron_store_least_bytes(const pi2_neuron_banks *banks) {
    slot_pool pools[MOST_POOLS];
    uint32_t count;
    if (!find_pools(banks, pools, &count)) return UINT64_MAX;
    uint64_t bytes = pi2_neuron_store_head_bytes(banks);
    for (uint32_t p = 0; p < count; p++) bytes += (uint64_t)pools[p].largest_layer * pools[p].unit_bytes;
    return bytes;
}

uint64_t pi2_neuron_store_all_bytes(const pi2_neuron_banks *banks) {
    uint64_t bytes = pi2_neuron_store_head_bytes(banks);
    for (uint32_t b = 0; b < banks->count; b++) {
        bytes += (uint64_t)banks->banks[b].unit_count * banks->banks[b].unit_bytes;
    }
    return bytes;
}

/* Slots in shared memory, as many as the pool's other slots leave units for. */
static void add_shared(slot_pool *pool, uint64_t shared_bytes) {
    const uint64_t fit = shared_bytes / pool->unit_bytes, left = pool->units - pool->slot_count;
    pool->shared_count = (uint32_t)(fit < left ? fit : left);
    pool->first_open = pool->hand = pool->shared_count;
    pool->slot_count += pool->shared_count;
    pool->open_count = pool->slot_count;
}

/* Shares the room for slots between the pools: what each must have, then the rest by their units' bytes. */
static uint32_t share_slots(slot_pool *pools, uint32_t count, uint64_t room, uint64_t shared_bytes) {
    uint64_t must = 0, rest = 0;
    for (uint32_t p = 0; p < count; p++) {
        must += (uint64_t)pools[p].largest_layer * pools[p].unit_bytes;
        rest += (pools[p].units - pools[p].largest_layer) * pools[p].unit_bytes;
    }
    const double part = rest == 0 || room - must >= rest ? 1.0 : (double)(room - must) / (double)rest;
    uint32_t slots = 0;
    for (uint32_t p = 0; p < count; p++) {
        const uint64_t more = (uint64_t)((double)(pools[p].units - pools[p].largest_layer) * part);
        pools[p].first_slot = slots;
        pools[p].slot_count = pools[p].open_count = pools[p].largest_layer + (uint32_t)more;
        if (p == 0) add_shared(&pools[p], shared_bytes);
        slots += pools[p].slot_count;
    }
    return slots;
}

/* Slots, then units, then how near neurons are, on pages of their own. */
static size_t random_list_bytes(const pi2_neuron_banks *banks, uint64_t slots, uint64_t units) {
    return (size_t)page_up(slots * sizeof(neuron_slot) +
                           units * (sizeof(neuron_unit) + pi2_neuron_store_near_stride(banks)) + 1);
}

size_t pi2_neuron_store_list_bytes(const pi2_neuron_banks *banks, uint64_t memory_bytes) {
    slot_pool pools[MOST_POOLS];
    uint32_t count;
    if (memory_bytes < pi2_neuron_store_least_bytes(banks) || !find_pools(banks, pools, &count)) return 0;
    const uint64_t slots = share_slots(pools, count, memory_bytes - pi2_neuron_store_head_bytes(banks), 0);
    uint64_t units = 0;
    for (uint32_t p = 0; p < count; p++) units += pools[p].units;
    return (size_t)(sizeof(pi2_neuron_store) + banks->count * sizeof(store_bank) +
                    random_list_bytes(banks, slots, units) + pi2_region_bytes(MOST_READS) +
                    (uint64_t)FINE_READS * window_bytes_of(banks));
}

uint32_t pi2_neuron_store_layer_keys(const pi2_neuron_banks *banks) {
    uint32_t most = 0;
    for (uint32_t b = 0; b < banks->count; b++) {
        if (banks->banks[b].unit_count > most) most = banks->banks[b].unit_count;
    }
    return most;
}

size_t pi2_neuron_store_use_list_bytes(const pi2_neuron_banks *banks) {
    return (size_t)pi2_neuron_store_layer_keys(banks) * (sizeof(uint32_t) + 1);
}

/* ---- lists and heads ---- */

enum { MEMORY_STEPS = 3 };
static int memory_step(const pi2_neuron_store *store, uint32_t unit_bytes) {
    return unit_bytes % PI2_READ_ALIGNMENT == 0 ? 0 : unit_bytes % store->sector_bytes == 0 ? 1 : 2;
}

static pi2_status place_pools(pi2_neuron_store *store) {
    const pi2_neuron_store_options *options = &store->options;
    const uint64_t least = pi2_neuron_store_least_bytes(options->banks);
    if (!find_pools(options->banks, store->pools, &store->pool_count)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: its neurons have more than %d sizes", options->path, MOST_POOLS);
    }
    if (options->memory_bytes < least) {
        return pi2_fail(PI2_ERR_INVALID, "%llu bytes for neurons are too few: they need %llu at least",
                        (unsigned long long)options->memory_bytes, (unsigned long long)least);
    }
    const uint64_t heads = pi2_neuron_store_head_bytes(options->banks);
    store->slot_count = share_slots(store->pools, store->pool_count, options->memory_bytes - heads,
                                    options->shared ? options->shared_bytes : 0);
    uint8_t *at = (uint8_t *)options->memory + heads;
    /* Units of whole pages first, then of whole sectors, whose memory begins with one. */
    for (int step = 0; step < MEMORY_STEPS; step++) {
        for (uint32_t p = 0; p < store->pool_count; p++) {
            if (memory_step(store, store->pools[p].unit_bytes) != step) continue;
            store->pools[p].memory = at;
            at += own_bytes(&store->pools[p]);
        }
    }
    return PI2_OK;
}

static bool any_windows(const pi2_neuron_store *store) {
    bool any = false;
    for (uint32_t b = 0; b < store->options.banks->count; b++) {
        any |= uses_windows(store, &store->options.banks->banks[b]);
    }
    return any;
}

static pi2_status make_windows(pi2_neuron_store *store) {
    void *memory = NULL;
    store->window_bytes = any_windows(store) ? window_bytes_of(store->options.banks) : 0;
    if (store->window_bytes == 0) return PI2_OK;
    if (posix_memalign(&memory, PI2_READ_ALIGNMENT, (size_t)store->most_reads * store->window_bytes) != 0) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the windows of %u reads of neurons", store->most_reads);
    }
    store->windows = memory;
    return PI2_OK;
}

static pi2_status make_lists(pi2_neuron_store *store) {
    const pi2_neuron_banks *banks = store->options.banks;
    uint64_t units = 0;
    for (uint32_t p = 0; p < store->pool_count; p++) units += store->pools[p].units;
    if (units >= UINT32_MAX) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: %llu units of neurons are too many", store->options.path,
                        (unsigned long long)units);
    }
    store->unit_count = (uint32_t)units;
    store->lists_bytes = random_list_bytes(banks, store->slot_count, units);
    PI2_TRY(pi2_pages_reserve(store->lists_bytes, true, "lists of neurons", &store->lists));
    store->slots = store->lists;
    store->units = (neuron_unit *)(store->slots + store->slot_count);
    store->near_stride = pi2_neuron_store_near_stride(banks);
    if (store->options.rule->near_step) store->near = (_Atomic uint8_t *)(store->units + units);
    store->banks = calloc(banks->count ? banks->count : 1, sizeof *store->banks);
    store->layer_keys = pi2_neuron_store_layer_keys(banks);
    const size_t keys = store->layer_keys ? store->layer_keys : 1;
    if (store->options.on_use) store->used = calloc(keys, sizeof *store->used);
    if (store->options.on_near) store->near_told = calloc(keys, 1);
    if (!store->banks || (store->options.on_use && !store->used) || (store->options.on_near && !store->near_told)) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the lists of %llu units of neurons", (unsigned long long)units);
    }
    PI2_TRY(make_windows(store));
    for (uint64_t u = 0; u < units; u++) atomic_init(&store->units[u].slot, NO_SLOT);
    uint32_t first_unit = 0;
    for (uint32_t b = 0; b < banks->count; b++) {
        store_bank *own = &store->banks[b];
        own->first_unit = first_unit;
        own->units = store->units + first_unit;
        while (store->pools[own->pool].unit_bytes != banks->banks[b].unit_bytes) own->pool++;
        first_unit += banks->banks[b].unit_count;
    }
    for (uint32_t b = banks->count; b-- > 0;) {
        store_bank *own = &store->banks[b];
        own->layer_end = first_unit;
        if (b + 1 == banks->count) continue;
        const bool goes_on = banks->banks[b + 1].layer == banks->banks[b].layer;
        own->layer_end = goes_on ? own[1].layer_end : own[1].first_unit;
    }
    return PI2_OK;
}

static pi2_status read_range(pi2_neuron_store *store, uint64_t offset, void *memory, uint64_t bytes) {
    const pi2_store_range range = { .offset = offset, .bytes = bytes, .memory = memory };
    return bytes ? pi2_store_read(store->options.store, &range, 1, NULL, NULL, 0) : PI2_OK;
}

/* Turns the order (neuron of each place), which is checked, into the place of each neuron, where it stands. */
static void invert_order(const pi2_neuron_bank *bank, uint32_t *order, uint32_t *scratch) {
    for (uint32_t place = 0; place < bank->neuron_count; place++) scratch[order[place]] = place;
    memcpy(order, scratch, bank->neuron_count * sizeof *order);
}

static pi2_status load_head(pi2_neuron_store *store, uint32_t b, uint8_t *memory, uint32_t *scratch) {
    const pi2_neuron_bank *bank = &store->options.banks->banks[b];
    PI2_TRY(read_range(store, bank->head_offset, memory, page_up(bank->head_bytes)));
    PI2_TRY(pi2_neuron_bank_check_head(bank, store->options.path, memory));
    store_bank *own = &store->banks[b];
    own->checksums = (const uint32_t *)(const void *)(memory + bank->checksums_at);
    own->head.place_of = (const uint32_t *)(const void *)(memory + bank->order_at);
    own->head.gate_scales = memory + bank->gate_scales_at;
    own->head.up_scales = memory + bank->up_scales_at;
    own->head.down_scales = memory + bank->down_scales_at;
    invert_order(bank, (uint32_t *)(void *)(memory + bank->order_at), scratch);
    return PI2_OK;
}

static pi2_status load_heads(pi2_neuron_store *store) {
    uint32_t most = 1;
    const pi2_neuron_banks *banks = store->options.banks;
    for (uint32_t b = 0; b < banks->count; b++) {
        if (banks->banks[b].neuron_count > most) most = banks->banks[b].neuron_count;
    }
    uint32_t *scratch = malloc(most * sizeof *scratch);
    if (!scratch) return pi2_fail(PI2_ERR_MEMORY, "no memory for the order of %u neurons", most);
    pi2_status status = PI2_OK;
    uint8_t *at = store->options.memory;
    for (uint32_t b = 0; b < banks->count && status == PI2_OK; b++) {
        status = load_head(store, b, at, scratch);
        at += page_up(banks->banks[b].head_bytes);
    }
    free(scratch);
    return status;
}

const pi2_neuron_head *pi2_neuron_store_head(const pi2_neuron_store *store, uint32_t bank) {
    return &store->banks[bank].head;
}

/* ---- slots ---- */

/* Marks a ready unit as used in this epoch, so that it cannot leave. False: it is not, or no longer, there. */
static bool pin(pi2_neuron_store *store, neuron_slot *slot, uint32_t unit_number, uint32_t epoch) {
    slot_word word = atomic_load_explicit(&slot->word, memory_order_acquire);
    for (;;) {
        if (word_unit(word) != unit_number || word_state(word) != PI2_PART_READY) return false;
        if (word_epoch(word) == epoch) return true;
        if (atomic_compare_exchange_weak_explicit(&slot->word, &word, word_of(unit_number, epoch, PI2_PART_READY),
                                                  memory_order_acq_rel, memory_order_acquire)) break;
    }
    if (word_epoch(word) + 1 == epoch) (void)atomic_fetch_add_explicit(&store->foretold_used, 1, memory_order_relaxed);
    set_heat(store, &slot->heat, heat_now(store, &slot->heat) + PI2_HEAT_OF_USE);
    return true;
}

const uint8_t *pi2_neuron_store_hit(pi2_neuron_store *store, uint32_t b, uint32_t unit) {
    const store_bank *bank = &store->banks[b];
    const uint32_t slot = atomic_load_explicit(&bank->units[unit].slot, memory_order_acquire);
    if (slot == NO_SLOT) return NULL;
    const uint32_t epoch = atomic_load_explicit(&store->epoch, memory_order_relaxed);
    if (!pin(store, &store->slots[slot], bank->first_unit + unit, epoch)) return NULL;
    return slot_memory(store, &store->pools[bank->pool], slot);
}

void pi2_neuron_store_expect(const pi2_neuron_store *store, uint32_t b, const uint32_t *units, uint32_t count) {
    const store_bank *bank = &store->banks[b];
    for (uint32_t i = 0; i < count; i++) __builtin_prefetch((const void *)&bank->units[units[i]].slot);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t slot = atomic_load_explicit(&bank->units[units[i]].slot, memory_order_relaxed);
        if (slot != NO_SLOT) __builtin_prefetch((const void *)&store->slots[slot], 1);
    }
}

/* A layer looks for room among a pool's slots. */
typedef struct slot_search {
    const pi2_neuron_store *store;
    const slot_pool *pool;
    uint32_t epoch, layer_end;
} slot_search;

/* How near a slot's unit is lies anywhere, so it is asked for some looks before. */
static void expect_near(const slot_search *search, uint32_t index) {
    enum { LOOKS_AHEAD = 8 };
    const pi2_neuron_store *store = search->store;
    if (!store->near || index + LOOKS_AHEAD >= search->pool->open_count) return;
    const neuron_slot *slot = &store->slots[search->pool->first_slot + index + LOOKS_AHEAD];
    const slot_word word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    if (word_state(word) != PI2_PART_READY) return;
    __builtin_prefetch((const void *)&store->near[(size_t)word_unit(word) * store->near_stride]);
}

static pi2_slot_sight look_at(const void *user, uint32_t index, uint32_t *worth_out) {
    const slot_search *search = user;
    expect_near(search, index);
    const neuron_slot *slot = &search->store->slots[search->pool->first_slot + index];
    const slot_word word = atomic_load_explicit(&slot->word, memory_order_acquire);
    if (word_state(word) == PI2_PART_ABSENT) return PI2_SLOT_EMPTY;
    if (word_state(word) != PI2_PART_READY || word_stays(word, search->epoch)) return PI2_SLOT_STAYS;
    const pi2_unit_rule *rule = search->store->options.rule;
    const uint32_t heat = atomic_load_explicit(&slot->heat, memory_order_relaxed);
    *worth_out = rule->worth(&search->store->heat, heat, word_unit(word) >= search->layer_end);
    if (rule->near_step) *worth_out += rule->near_step * pi2_neuron_store_near_of(search->store, word_unit(word));
    return PI2_SLOT_MAY_LEAVE;
}

/* An empty slot, or the least worth of the next few whose units this layer does not use; NO_SLOT: it uses all. */
static uint32_t find_victim(const pi2_neuron_store *store, slot_pool *pool, uint32_t layer_end) {
    const slot_search search = { store, pool, atomic_load_explicit(&store->epoch, memory_order_relaxed), layer_end };
    pi2_victim_hand hand = { pool->hand, pool->first_open, pool->open_count };
    const uint32_t index = pi2_victim_hand_find(&hand, look_at, &search);
    pool->hand = hand.next;
    return index == PI2_HEAT_NO_SLOT ? NO_SLOT : pool->first_slot + index;
}

/* Says of units that left that they are in no slot. They lie anywhere: one after the other each would be waited for,
 * and where pages are those of a virtual machine, for a microsecond. So they are asked for when they leave, and written
 * together. Lock held. */
static void settle(pi2_neuron_store *store) {
    for (uint32_t i = 0; i < store->leaving_count; i++) {
        neuron_unit *unit = &store->units[store->leaving[i].number];
        atomic_store_explicit(&unit->slot, NO_SLOT, memory_order_release);
        atomic_store_explicit(&unit->heat_left, store->leaving[i].heat, memory_order_relaxed);
    }
    store->leaving_count = 0;
}

/* A unit has lost its slot. Until that is settled whoever looks for it finds another unit there. Lock held. */
static void let_go(pi2_neuron_store *store, uint32_t number, uint32_t heat) {
    if (store->leaving_count == MOST_LEAVING) settle(store);
    __builtin_prefetch((const void *)&store->units[number], 1);
    store->leaving[store->leaving_count++] = (leaving_unit){ number, heat };
}

static void unlock(pi2_neuron_store *store) {
    settle(store);
    pi2_region_unlock(store->region);
}

/* A slot that is free, or whose unit leaves for it; NO_SLOT: all are in use. Lock held. */
static uint32_t give_slot(pi2_neuron_store *store, slot_pool *pool, uint32_t layer_end) {
    for (;;) {
        const uint32_t number = find_victim(store, pool, layer_end);
        if (number == NO_SLOT) return NO_SLOT;
        neuron_slot *slot = &store->slots[number];
        slot_word word = atomic_load_explicit(&slot->word, memory_order_acquire);
        if (word_state(word) == PI2_PART_ABSENT) return number;
        /* Used just now: another is looked for. It cannot be used as often as there are slots. */
        const uint32_t epoch = atomic_load_explicit(&store->epoch, memory_order_relaxed);
        if (word_stays(word, epoch)) continue;
        if (!atomic_compare_exchange_strong(&slot->word, &word, (slot_word)PI2_PART_ABSENT)) continue;
        let_go(store, word_unit(word), atomic_load_explicit(&slot->heat, memory_order_relaxed));
        store->evictions++;
        return number;
    }
}

/* ---- reading ---- */

static const pi2_neuron_bank *read_bank(const pi2_neuron_store *store, const pi2_bring *bring) {
    return &store->options.banks->banks[bring->key];
}

/* Of fine units the next one, where the window has room for its pages. */
static bool reaches_fine(const pi2_neuron_store *store, const pi2_bring *bring, uint32_t unit) {
    return unit == bring->first + bring->count &&
           pages_end(read_bank(store, bring), unit) - bring->offset <= store->window_bytes;
}

/* Whether a read may bring a unit too: one that lies behind its last, with so few between them that they are cheaper to
 * read than another read is to begin; and the read stays small. */
static bool reaches(const pi2_neuron_store *store, const pi2_bring *bring, uint32_t unit) {
    if (uses_windows(store, read_bank(store, bring))) return reaches_fine(store, bring, unit);
    const uint32_t next = bring->first + bring->count;
    if (unit < next || unit - next > store->options.gap_units) return false;
    const uint32_t count = unit + 1 - bring->first;
    return count <= PI2_READ_PIECES && (uint64_t)bring->bytes / bring->count * count <= PI2_SMALL_READ_BYTES;
}

/* The read that a unit comes with: `bring` if it reaches it, else another, `bring` being added. NULL: there is none.
 * Lock held. */
static pi2_bring *read_for(pi2_neuron_store *store, pi2_bring *bring, uint32_t unit) {
    if (bring && reaches(store, bring, unit)) return bring;
    if (bring) pi2_region_add(store->region, bring);
    return pi2_region_unused(store->region);
}

/* Widens a read by a unit: into its slot, or of fine ones into the read's window, from where it is copied. */
static void widen(const pi2_neuron_store *store, pi2_bring *bring, uint32_t b, uint32_t unit, uint8_t *memory) {
    const pi2_neuron_bank *bank = &store->options.banks->banks[b];
    const bool is_fine = uses_windows(store, bank);
    if (bring->count == 0) {
        bring->offset = read_begin(store, bank, unit);
        bring->bytes = (uint32_t)(read_end(store, bank, unit) - bring->offset);
        bring->memory = is_fine ? store->windows + (size_t)pi2_bring_index(bring) * store->window_bytes : memory;
        bring->key = b;
        bring->first = bring->number = unit;
        bring->count = 1;
    } else if (is_fine) {
        bring->bytes = (uint32_t)(pages_end(bank, unit) - bring->offset);
        bring->count++;
    }
    for (uint32_t u = bring->first + bring->count; u <= unit; u++) {
        (void)pi2_bring_scatter(bring, offset_of(bank, u), bank->unit_bytes, u == unit ? memory : NULL);
    }
}

/* A unit that is in no slot gets one, and `bring` brings it; false: there is no slot for it now. Lock held. */
static bool bring_unit(pi2_neuron_store *store, uint32_t b, uint32_t unit, bool likely, pi2_bring *bring) {
    store_bank *own = &store->banks[b];
    slot_pool *pool = &store->pools[own->pool];
    /* What is foretold for this layer and for the next leaves this one the slots that it may need. */
    const uint32_t usable = pool->open_count - pool->first_open;
    if (likely && 2 * (store->foretold_slots + (uint64_t)1) + pool->largest_layer > usable) return false;
    /* What is foretold is the next layer's: that one is still to come. */
    const uint32_t number = give_slot(store, pool, likely ? own->first_unit : own->layer_end);
    if (number == NO_SLOT) return false;
    store->foretold_slots += likely;
    neuron_slot *slot = &store->slots[number];
    widen(store, bring, b, unit, slot_memory(store, pool, number));
    atomic_store(&slot->ticket, bring->ticket);
    const _Atomic uint32_t *left = &own->units[unit].heat_left;
    /* What is foretold was not used now: where it never is, it leaves as if it had not come. */
    if (likely) atomic_store_explicit(&slot->heat, atomic_load(left), memory_order_relaxed);
    else set_heat(store, &slot->heat, heat_now(store, left) + PI2_HEAT_OF_USE);
    const uint32_t epoch = atomic_load_explicit(&store->epoch, memory_order_relaxed) + likely;
    atomic_store(&slot->word, word_of(own->first_unit + unit, epoch, PI2_PART_READING));
    atomic_store_explicit(&own->units[unit].slot, number, memory_order_release);
    return true;
}

/* Reads of what was foretold for the layer that now runs go before what is foretold for the next. Lock held. */
static void raise_likely(pi2_neuron_store *store) {
    if (!atomic_exchange(&store->has_likely, false)) return;
    for (pi2_bring *bring = NULL; (bring = pi2_region_next(store->region, bring));) {
        if (bring->likely) pi2_region_raise(store->region, bring);
    }
}

/* Asks for units as far as there are reads and slots; returns how many of the list are dealt with. */
static uint32_t ask_some(pi2_neuron_store *store, uint32_t b, const uint32_t *units, uint32_t count) {
    const store_bank *bank = &store->banks[b];
    pi2_bring *bring = NULL;
    uint32_t done = 0;
    pi2_region_lock(store->region);
    raise_likely(store);
    for (; done < count; done++) {
        if (atomic_load_explicit(&bank->units[units[done]].slot, memory_order_acquire) != NO_SLOT) continue;
        bring = read_for(store, bring, units[done]);
        if (!bring || !bring_unit(store, b, units[done], false, bring)) break;
    }
    if (bring && bring->count > 0) pi2_region_add(store->region, bring);
    unlock(store);
    return done;
}

/* Where there are no more reads, those that have ended are told of, and serve the rest: nobody waits for units while a
 * layer's Gate is computed, so that the list would be full of reads that were done long ago. */
static void ask(pi2_neuron_store *store, uint32_t b, const uint32_t *units, uint32_t count) {
    for (uint32_t done = 0; done < count;) {
        const uint32_t left = count - done, part = left < WANTED_AT_ONCE ? left : WANTED_AT_ONCE;
        const uint32_t dealt = ask_some(store, b, units + done, part);
        done += dealt;
        if (dealt < part && !pi2_region_collect(store->region)) return;
    }
}

void pi2_neuron_store_want(pi2_neuron_store *store, uint32_t b, const uint32_t *units, uint32_t count) {
    if (!pi2_store_options_of(store->options.store)->on_demand_only) ask(store, b, units, count);
}

/* A read that brings what is foretold; NULL: as many are under way as may be, or all. Lock held. */
static pi2_bring *likely_read_for(pi2_neuron_store *store, pi2_bring *bring, uint32_t unit) {
    if (bring && reaches(store, bring, unit)) return bring;
    if (bring) pi2_region_add(store->region, bring);
    /* As many as leave certain ones some that are not under way. */
    if (atomic_load(&store->likely_reads) >= store->most_reads / 2) return NULL;
    pi2_bring *next = pi2_region_unused(store->region);
    if (!next) return NULL;
    next->likely = true;
    next->tag = IS_FORETOLD;
    (void)atomic_fetch_add(&store->likely_reads, 1);
    return next;
}

void pi2_neuron_store_foretell(pi2_neuron_store *store, uint32_t b, const uint32_t *units, uint32_t count) {
    const store_bank *bank = &store->banks[b];
    pi2_bring *bring = NULL;
    uint32_t asked = 0;
    if (count == 0 || pi2_store_options_of(store->options.store)->on_demand_only) return;
    (void)pi2_region_collect(store->region);
    pi2_region_lock(store->region);
    raise_likely(store);
    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load_explicit(&bank->units[units[i]].slot, memory_order_acquire) != NO_SLOT) continue;
        bring = likely_read_for(store, bring, units[i]);
        if (!bring || !bring_unit(store, b, units[i], true, bring)) break;
        asked++;
    }
    if (bring && bring->count > 0) pi2_region_add(store->region, bring);
    else if (bring) (void)atomic_fetch_sub(&store->likely_reads, 1); /* it was not needed */
    if (asked) store->foretells_next = true;
    unlock(store);
    (void)atomic_fetch_add_explicit(&store->foretold, asked, memory_order_relaxed);
}

bool pi2_neuron_store_has(const pi2_neuron_store *store, uint32_t b, uint32_t unit) {
    return atomic_load_explicit(&store->banks[b].units[unit].slot, memory_order_relaxed) != NO_SLOT;
}

void pi2_neuron_store_collect(pi2_neuron_store *store) {
    if (atomic_load_explicit(&store->likely_reads, memory_order_relaxed)) (void)pi2_region_collect(store->region);
}

pi2_status pi2_neuron_store_check(const pi2_neuron_store *store, uint32_t b, uint32_t unit, const void *memory) {
    if (pi2_store_options_of(store->options.store)->is_described) return PI2_OK;
    const pi2_neuron_bank *bank = &store->options.banks->banks[b];
    char owner[PI2_NEURON_OWNER_BYTES];
    if (pi2_neuron_unit_checksum(bank, memory) == store->banks[b].checksums[unit]) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: unit %u of the neurons of %s (%u bytes at offset %llu) does not match its "
                    "checksum: the file or the disk is damaged; delete it and prepare the model again",
                    store->options.path, unit, pi2_neuron_bank_owner(bank, owner), bank->unit_bytes,
                    (unsigned long long)(bank->file_offset + (uint64_t)unit * bank->unit_bytes));
}

/* A unit whose read has ended becomes ready, or a failure. */
static void note_unit(pi2_neuron_store *store, uint32_t b, uint32_t unit, const void *memory, pi2_status status) {
    store_bank *bank = &store->banks[b];
    neuron_slot *slot = &store->slots[atomic_load(&bank->units[unit].slot)];
    const uint32_t unit_number = bank->first_unit + unit, epoch = word_epoch(atomic_load(&slot->word));
    if (status == PI2_OK) {
        atomic_store(&slot->word, word_of(unit_number, epoch, PI2_PART_CHECKING));
        status = pi2_neuron_store_check(store, b, unit, memory);
    }
    if (status == PI2_OK) {
        atomic_store(&slot->word, word_of(unit_number, epoch, PI2_PART_READY));
        return;
    }
    (void)pi2_store_fail(store->options.store, status);
    atomic_store_explicit(&bank->units[unit].slot, NO_SLOT, memory_order_release);
    atomic_store(&slot->word, (slot_word)PI2_PART_ABSENT);
}

/* A fine unit goes from the read's window into its slot. */
static uint8_t *copy_unit(const pi2_neuron_store *store, const pi2_bring *bring, uint32_t unit) {
    const pi2_neuron_bank *bank = read_bank(store, bring);
    const store_bank *own = &store->banks[bring->key];
    uint8_t *memory = slot_memory(store, &store->pools[own->pool], atomic_load(&own->units[unit].slot));
    if (pi2_store_options_of(store->options.store)->is_described) return memory;
    memcpy(memory, bring->memory + (offset_of(bank, unit) - bring->offset), bank->unit_bytes);
    return memory;
}

static void note_arrival(void *self, const pi2_bring *bring, pi2_status status) {
    pi2_neuron_store *store = self;
    const bool is_fine = uses_windows(store, read_bank(store, bring));
    if (bring->tag == IS_FORETOLD) (void)atomic_fetch_sub(&store->likely_reads, 1);
    for (uint32_t u = bring->first; is_fine && u < bring->first + bring->count; u++) {
        note_unit(store, bring->key, u, copy_unit(store, bring, u), status);
    }
    if (is_fine) return;
    for (uint32_t i = 0; i < bring->count; i++) {
        const void *memory = bring->is_scattered ? bring->pieces[i] : bring->memory;
        if (memory) note_unit(self, bring->key, bring->first + i, memory, status);
    }
}

/* Asks for a unit; where it got no slot or no read, room is made first: whatever has ended is told of, whoever asked
 * for it, since those who take the units may be waiting for room. */
static void ask_again(pi2_neuron_store *store, uint32_t b, uint32_t unit, unsigned turn) {
    ask(store, b, &unit, 1);
    if (atomic_load_explicit(&store->banks[b].units[unit].slot, memory_order_acquire) != NO_SLOT) return;
    const int mark = pi2_region_mark(store->region);
    (void)pi2_region_collect(store->region);
    ask(store, b, &unit, 1);
    if (atomic_load_explicit(&store->banks[b].units[unit].slot, memory_order_acquire) != NO_SLOT) return;
    if (!pi2_region_await_any(store->region, mark, NULL)) pi2_store_pause(turn);
}

static pi2_status await_unit(pi2_neuron_store *store, uint32_t b, uint32_t unit, const uint8_t **memory_out) {
    const store_bank *bank = &store->banks[b];
    for (unsigned turn = 0;; turn++) {
        PI2_TRY(pi2_store_failure(store->options.store));
        *memory_out = pi2_neuron_store_hit(store, b, unit);
        if (*memory_out) return PI2_OK;
        const uint32_t number = atomic_load_explicit(&bank->units[unit].slot, memory_order_acquire);
        if (number == NO_SLOT) {
            ask_again(store, b, unit, turn);
            continue;
        }
        const slot_word word = atomic_load_explicit(&store->slots[number].word, memory_order_acquire);
        if (word_unit(word) != bank->first_unit + unit) { /* it has just left, or come */
            pi2_store_pause(turn);
            continue;
        }
        if (word_state(word) == PI2_PART_READING) {
            pi2_region_await(store->region, atomic_load(&store->slots[number].ticket), turn);
        } else {
            pi2_store_pause(turn);
        }
    }
}

pi2_status pi2_neuron_store_take(pi2_neuron_store *store, uint32_t b, uint32_t unit, const uint8_t **memory_out) {
    *memory_out = pi2_neuron_store_hit(store, b, unit);
    if (*memory_out) return PI2_OK;
    const uint64_t begin = pi2_clock_ns();
    const pi2_status status = await_unit(store, b, unit, memory_out);
    pi2_store_stalled(store->options.store, unit, begin, 1);
    return status;
}

/* ---- passes ---- */

/* For ablations: everything leaves. No thread is in the store, so nothing is in use or on its way. */
static void drop_all(pi2_neuron_store *store) {
    for (uint32_t i = 0; i < store->slot_count; i++) pi2_neuron_store_empty_slot(store, i);
}

/* What a pass that failed used in its last layer is told of by nobody. */
void pi2_neuron_store_begin_pass(pi2_neuron_store *store, uint32_t tokens, uint32_t passes) {
    store->heat.pass += passes;
    pi2_neuron_store_settle_near(store);
    if (store->options.keeps_nothing) drop_all(store);
    atomic_store(&store->used_bank, NO_BANK);
    if (store->used) store->options.on_use(store->options.on_use_user, NULL, tokens);
}

void pi2_neuron_store_warm(pi2_neuron_store *store, uint32_t b, uint32_t unit) {
    const store_bank *bank = &store->banks[b];
    const uint32_t number = atomic_load_explicit(&bank->units[unit].slot, memory_order_relaxed);
    _Atomic uint32_t *place = number == NO_SLOT ? &bank->units[unit].heat_left
                                                : &store->slots[number].heat;
    set_heat(store, place, heat_now(store, place) + PI2_HEAT_OF_USE);
}

/* The units that carry the epoch of the layer that ends. */
static void tell_uses(pi2_neuron_store *store) {
    const uint32_t b = atomic_exchange(&store->used_bank, NO_BANK), epoch = atomic_load(&store->epoch);
    uint32_t count = 0;
    if (b == NO_BANK) return;
    for (uint32_t unit = 0; unit < store->options.banks->banks[b].unit_count; unit++) {
        const uint32_t slot = atomic_load(&store->banks[b].units[unit].slot);
        if (slot == NO_SLOT || word_epoch(atomic_load(&store->slots[slot].word)) != epoch) continue;
        store->used[count++] = b * store->layer_keys + unit;
    }
    if (count == 0) return;
    pi2_neuron_store_tell_near(store, b);
    store->options.on_use(store->options.on_use_user, store->used, count);
}

static void next_epoch(pi2_neuron_store *store) {
    const uint32_t epoch = atomic_load_explicit(&store->epoch, memory_order_relaxed) + EPOCHS_OF_A_LAYER;
    const uint32_t last = (1u << EPOCH_BITS) - 1 - EPOCHS_OF_A_LAYER;
    atomic_store(&store->epoch, epoch > last ? EPOCHS_OF_A_LAYER : epoch);
    store->foretold_slots = 0;
}

void pi2_neuron_store_begin_layer(pi2_neuron_store *store) {
    if (store->used) tell_uses(store);
    next_epoch(store);
    if (store->foretells_next) atomic_store(&store->has_likely, true);
    store->foretells_next = false;
}

/* What a pass that failed foretold is of no layer any more. */
static void forget_foretold(void *self) {
    pi2_neuron_store *store = self;
    next_epoch(store);
    atomic_store(&store->has_likely, false);
    store->foretells_next = false;
}

void pi2_neuron_store_note(pi2_neuron_store *store, uint32_t b, uint32_t uses, uint32_t hits) {
    const uint64_t bytes = (uint64_t)uses * store->options.banks->banks[b].unit_bytes;
    (void)atomic_fetch_add_explicit(&store->uses, uses, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&store->hits, hits, memory_order_relaxed);
    pi2_store_needs(store->options.store, bytes);
    if (store->used) atomic_store_explicit(&store->used_bank, b, memory_order_relaxed);
}

void pi2_neuron_store_count(const pi2_neuron_store *store, pi2_neuron_store_counters *counters_out) {
    *counters_out = (pi2_neuron_store_counters){
        .uses = atomic_load(&store->uses), .hits = atomic_load(&store->hits), .evictions = store->evictions,
        .kept = atomic_load(&store->kept),
        .foretold = atomic_load(&store->foretold), .foretold_used = atomic_load(&store->foretold_used),
        .slots = store->slot_count, .units = store->unit_count };
}

/* ---- creation ---- */

pi2_status pi2_neuron_store_create(const pi2_neuron_store_options *options, pi2_neuron_store **store_out) {
    *store_out = NULL;
    pi2_neuron_store *store = calloc(1, sizeof *store);
    if (!store) return pi2_fail(PI2_ERR_MEMORY, "no memory for the store of neurons");
    store->options = *options;
    atomic_init(&store->epoch, EPOCHS_OF_A_LAYER);
    atomic_init(&store->used_bank, NO_BANK);
    store->wants_filling = !options->keeps_nothing;
    pi2_unit_heat_init(&store->heat);
    if (!store->options.rule) store->options.rule = &pi2_unit_rules[0];
    const pi2_region_owner owner = { .self = store, .ended = note_arrival, .reset = forget_foretold };
    store->sector_bytes = pi2_store_sector_bytes(options->store);
    store->most_reads = any_windows(store) ? FINE_READS : MOST_READS;
    pi2_status status = pi2_region_create(options->store, &owner, store->most_reads, &store->region);
    if (status == PI2_OK) status = place_pools(store);
    if (status == PI2_OK) status = make_lists(store);
    if (status == PI2_OK && !pi2_store_options_of(options->store)->is_described) status = load_heads(store);
    if (status != PI2_OK) {
        pi2_neuron_store_free(store);
        return status;
    }
    for (uint32_t b = 0; options->places && b < options->banks->count; b++) {
        store->banks[b].head.place_of = options->places;
    }
    pi2_neuron_store_offer_memory(store);
    *store_out = store;
    return PI2_OK;
}

void pi2_neuron_store_free(pi2_neuron_store *store) {
    if (!store) return;
    pi2_region_free(store->region);
    free(store->banks);
    pi2_pages_release(store->lists, store->lists_bytes);
    free(store->windows);
    free(store->used);
    free(store->near_told);
    free(store);
}
