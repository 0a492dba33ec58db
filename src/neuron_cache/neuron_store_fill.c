/*
 * neuron_store_fill.c: empty slots of a new store of single neurons, filled in long reads, or with what a pass of all
 * neurons has at hand.
 *
 * How many units come is decided beforehand, by one thread: of each bank so many, into the empty slots from a certain
 * one on. A filling brings those from the bank's first place on; of what passes by, the neurons of a chunk have their
 * Gates by then, and those are kept that are worth most by the store's rule. Of a filling threads take bank by bank.
 * Each reads runs of units side by side, some megabytes at a time, and checks them while the others read.
 */
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/pages.h"
#include "neuron_cache/neuron_store_internal.h"

enum {
    FILL_MEMBERS = 4,           /* threads at most: they share the windows */
    FILL_RUNS = 64,             /* of units, that are read at once */
    FILL_BYTES = 4 * 1024 * 1024,
    MOST_CHOSEN = 256,          /* neurons that are compared with each other when they pass by */
    NEARLY = 64                 /* a prompt that kept all but one of so many units has filled the store */
};

/* ---- what comes ---- */

static bool is_empty(const pi2_neuron_store *store, uint32_t slot) {
    return word_state(atomic_load(&store->slots[slot].word)) == PI2_PART_ABSENT;
}

/* Whether a filling may bring a unit: it is in no slot. */
static bool is_due(const store_bank *bank, uint32_t unit) { return atomic_load(&bank->units[unit].slot) == NO_SLOT; }

static uint32_t due_units(const pi2_neuron_store *store, uint32_t b) {
    const uint32_t units = store->options.banks->banks[b].unit_count;
    uint32_t count = 0;
    for (uint32_t u = 0; u < units; u++) count += is_due(&store->banks[b], u);
    return count;
}

/* Every bank's part of a pool's empty slots, by the units that are due. */
static void plan_pool(pi2_neuron_store *store, uint32_t p) {
    const slot_pool *pool = &store->pools[p];
    const uint32_t end = pool->first_slot + pool->open_count;
    uint64_t empty = 0, due = 0, passed = 0, given = 0;
    uint32_t slot = pool->first_slot + pool->first_open;
    for (uint32_t i = slot; i < end; i++) empty += is_empty(store, i);
    for (uint32_t b = 0; b < store->options.banks->count; b++) {
        store_bank *own = &store->banks[b];
        if (own->pool == p) due += own->fill_count = due_units(store, b);
    }
    for (uint32_t b = 0; b < store->options.banks->count; b++) {
        store_bank *own = &store->banks[b];
        if (own->pool != p) continue;
        passed += own->fill_count;
        const uint64_t until = due <= empty ? passed : passed * empty / due;
        own->fill_slot = slot;
        own->fill_count = (uint32_t)(until - given);
        given = until;
        for (uint32_t left = own->fill_count; left > 0 && slot < end; slot++) left -= is_empty(store, slot);
        own->fill_end = slot;
    }
}

/* ---- bringing it ---- */

/* Units side by side in the file, for slots side by side in memory. */
typedef struct unit_run {
    uint32_t unit, slot, count;
    uint8_t *memory;        /* of its first slot */
    const uint8_t *window;  /* of fine units: where the pages around them are read */
} unit_run;

/* A thread's way through a bank. */
typedef struct fill_walk {
    pi2_neuron_store *store;
    const pi2_neuron_bank *bank;
    store_bank *own;
    uint32_t number, unit, slot, left;
    uint8_t *window;        /* the thread's part of the windows; NULL: there are none */
    size_t window_bytes;
    unit_run runs[FILL_RUNS];
    pi2_store_range ranges[FILL_RUNS];
    uint32_t run_count;
} fill_walk;

/* The next run, of at most so many units; false: the bank has all that it gets. */
static bool next_run(fill_walk *walk, uint64_t most, unit_run *run) {
    const slot_pool *pool = &walk->store->pools[walk->own->pool];
    const uint32_t first_own = pool->first_slot + pool->shared_count, end = pool->first_slot + pool->open_count;
    const uint32_t units = walk->bank->unit_count;
    while (walk->left && walk->unit < units && !is_due(walk->own, walk->unit)) walk->unit++;
    while (walk->slot < end && !is_empty(walk->store, walk->slot)) walk->slot++;
    *run = (unit_run){ .unit = walk->unit, .slot = walk->slot };
    while (walk->left && run->count < most && walk->unit < units && walk->slot < end &&
           is_due(walk->own, walk->unit) && is_empty(walk->store, walk->slot) &&
           (run->count == 0 || walk->slot != first_own)) {
        run->count++;
        walk->unit++;
        walk->slot++;
        walk->left--;
    }
    if (run->count) run->memory = slot_memory(walk->store, pool, run->slot);
    return run->count > 0;
}

/* What is read of a run: its units into their slots, of fine ones the pages around them into the window. */
static pi2_store_range range_of(const fill_walk *walk, const unit_run *run, size_t window_at) {
    const pi2_neuron_bank *bank = walk->bank;
    const uint64_t begin = read_begin(walk->store, bank, run->unit);
    const uint64_t end = read_end(walk->store, bank, run->unit + run->count - 1);
    return (pi2_store_range){ .offset = begin, .bytes = end - begin, .number = run->unit,
                              .memory = run->window ? walk->window + window_at : run->memory };
}

/* Collects runs until they are worth a turn of reading. */
static void collect_runs(fill_walk *walk) {
    const uint64_t unit_bytes = walk->bank->unit_bytes;
    const bool is_fine = uses_windows(walk->store, walk->bank);
    const bool is_described = pi2_store_options_of(walk->store->options.store)->is_described;
    const uint64_t room = is_fine ? walk->window_bytes : FILL_BYTES;
    uint64_t used = 0;
    walk->run_count = 0;
    while (walk->run_count < FILL_RUNS && used + unit_bytes + 2 * PI2_READ_ALIGNMENT <= room) {
        unit_run *run = &walk->runs[walk->run_count];
        if (!next_run(walk, (room - used - 2 * PI2_READ_ALIGNMENT) / unit_bytes, run)) return;
        if (is_fine) run->window = walk->window + used;
        /* Else the I/O thread takes it from the system. */
        else if (!is_described) (void)pi2_pages_populate(run->memory, (size_t)(run->count * unit_bytes));
        walk->ranges[walk->run_count] = range_of(walk, run, (size_t)used);
        used += walk->ranges[walk->run_count++].bytes;
    }
}

/* A run that was read: its units are there from now on. */
static pi2_status take_run(fill_walk *walk, const unit_run *run) {
    pi2_neuron_store *store = walk->store;
    store_bank *own = walk->own;
    const uint64_t unit_bytes = walk->bank->unit_bytes;
    const uint64_t skipped = offset_of(walk->bank, run->unit) - read_begin(store, walk->bank, run->unit);
    const bool is_described = pi2_store_options_of(store->options.store)->is_described;
    if (run->window && !is_described) memcpy(run->memory, run->window + skipped, (size_t)(run->count * unit_bytes));
    for (uint32_t i = 0; i < run->count; i++) {
        const uint32_t unit = run->unit + i;
        PI2_TRY(pi2_neuron_store_check(store, walk->number, unit, run->memory + i * unit_bytes));
        /* What no prompt used is colder than what was used once. */
        const uint32_t warm = heat_now(store, &own->units[unit].heat_left);
        set_heat(store, &store->slots[run->slot + i].heat, warm > PI2_HEAT_OF_USE / 2 ? warm : PI2_HEAT_OF_USE / 2);
        atomic_store(&store->slots[run->slot + i].word, word_of(own->first_unit + unit, 0, PI2_PART_READY));
        atomic_store(&own->units[unit].slot, run->slot + i);
    }
    return PI2_OK;
}

static pi2_status fill_bank(pi2_neuron_store *store, uint32_t number, unsigned member) {
    fill_walk walk = { .store = store, .bank = &store->options.banks->banks[number], .own = &store->banks[number],
                       .number = number };
    walk.slot = walk.own->fill_slot;
    walk.left = walk.own->fill_count;
    if (store->windows) {
        const size_t all = (size_t)store->most_reads * store->window_bytes;
        walk.window_bytes = all / FILL_MEMBERS / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
        walk.window = store->windows + member * walk.window_bytes;
    }
    for (;;) {
        collect_runs(&walk);
        if (walk.run_count == 0) return PI2_OK;
        PI2_TRY(pi2_store_read(store->options.store, walk.ranges, walk.run_count, NULL, NULL, 1));
        for (uint32_t r = 0; r < walk.run_count; r++) PI2_TRY(take_run(&walk, &walk.runs[r]));
    }
}

static void fill_member(void *argument, unsigned member, unsigned member_count) {
    pi2_neuron_store *store = argument;
    pi2_timeline *trace = pi2_store_options_of(store->options.store)->trace;
    const uint64_t begin_ns = pi2_clock_ns();
    const uint32_t banks = store->options.banks->count;
    (void)member_count;
    if (member >= FILL_MEMBERS) return;
    for (;;) {
        const uint32_t number = atomic_fetch_add(&store->fill_next, 1);
        if (number >= banks || pi2_store_failure(store->options.store) != PI2_OK) break;
        const pi2_status status = fill_bank(store, number, member);
        if (status != PI2_OK) (void)pi2_store_fail(store->options.store, status);
    }
    if (!trace) return;
    pi2_timeline_set_member(member);
    pi2_timeline_stage(trace, "fill neurons", PI2_TIMELINE_NO_LAYER, false, begin_ns, pi2_clock_ns());
}

pi2_status pi2_neuron_store_fill(pi2_neuron_store *store, pi2_team *team) {
    store->wants_filling = false;
    if (!store->options.keeps_nothing) {
        if (store->windows) pi2_neuron_store_await_reads(store);
        for (uint32_t p = 0; p < store->pool_count; p++) plan_pool(store, p);
        atomic_store(&store->fill_next, 0);
        if (team) pi2_team_run(team, fill_member, store);
        else fill_member(store, 0, 1);
    }
    store->is_filled = true;
    return pi2_store_failure(store->options.store);
}

bool pi2_neuron_store_wants_filling(const pi2_neuron_store *store) { return store->wants_filling; }

/* ---- kept of a pass of all neurons ---- */

static uint32_t neurons_of_unit(const pi2_neuron_bank *bank, uint32_t unit) {
    const uint32_t left = bank->neuron_count - unit * bank->unit_neurons;
    return left < bank->unit_neurons ? left : bank->unit_neurons;
}

/* The bank's next empty slot gets a unit, which is absent. It is ARRIVED, and its ticket counts the bundles that are
 * missing. False: there is none. Any thread, one for each unit. */
static bool reserve(pi2_neuron_store *store, uint32_t b, uint32_t unit) {
    store_bank *own = &store->banks[b];
    uint32_t slot;
    do {
        slot = atomic_fetch_add(&own->keep_slot, 1);
        if (slot >= own->fill_end) {
            atomic_store(&own->keep_slot, own->fill_end);
            return false;
        }
    } while (!is_empty(store, slot));
    const uint32_t warm = heat_now(store, &own->units[unit].heat_left);
    set_heat(store, &store->slots[slot].heat, warm > PI2_HEAT_OF_USE / 2 ? warm : PI2_HEAT_OF_USE / 2);
    atomic_store(&store->slots[slot].ticket, neurons_of_unit(&store->options.banks->banks[b], unit));
    atomic_store(&store->slots[slot].word, word_of(own->first_unit + unit, 0, PI2_PART_ARRIVED));
    atomic_store(&own->units[unit].slot, slot);
    return true;
}

/* Units of several neurons, which pass by one after another, get their slots beforehand, by their places. */
static void reserve_all(pi2_neuron_store *store, uint32_t b) {
    const pi2_neuron_bank *bank = &store->options.banks->banks[b];
    uint32_t left = store->banks[b].fill_count;
    for (uint32_t unit = 0; left > 0 && unit < bank->unit_count; unit++) {
        if (!is_due(&store->banks[b], unit)) continue;
        if (!reserve(store, b, unit)) return;
        left--;
    }
}

bool pi2_neuron_store_begin_keeping(pi2_neuron_store *store, const uint8_t *may_keep) {
    if (!store->wants_filling) return false;
    store->kept_before = atomic_load(&store->kept);
    store->kept_planned = 0;
    for (uint32_t p = 0; p < store->pool_count; p++) plan_pool(store, p);
    for (uint32_t b = 0; b < store->options.banks->count; b++) {
        store_bank *own = &store->banks[b];
        store->kept_planned += own->fill_count;
        atomic_store(&own->keep_slot, own->fill_slot);
        if (!may_keep[b] || own->fill_count == 0) {
            atomic_store(&own->keep_slot, own->fill_end);
            continue;
        }
        store->is_keeping = true;
        if (store->options.banks->banks[b].unit_neurons > 1) reserve_all(store, b);
    }
    return store->is_keeping;
}

/* A neuron that passes by, and what its unit is worth. */
typedef struct passing_unit {
    uint32_t unit, worth;
} passing_unit;

/* As the rule would have it in a slot. */
static uint32_t worth_of(const pi2_neuron_store *store, const store_bank *own, uint32_t unit) {
    const pi2_unit_rule *rule = store->options.rule;
    const uint32_t word = atomic_load_explicit(&own->units[unit].heat_left, memory_order_relaxed);
    uint32_t worth = rule->worth(&store->heat, word, false);
    if (rule->near_step) worth += rule->near_step * pi2_neuron_store_near_of(store, own->first_unit + unit);
    return worth;
}

/* The unit of a neuron. Where no head was read neurons lie in some order that is not the model's: those of a chunk come
 * from everywhere. */
static uint32_t unit_of(const pi2_neuron_bank *bank, const store_bank *own, uint32_t neuron) {
    if (own->head.place_of) return own->head.place_of[neuron];
    const uint32_t whole = bank->neuron_count / MOST_CHOSEN * MOST_CHOSEN;
    return neuron < whole ? neuron % MOST_CHOSEN * (whole / MOST_CHOSEN) + neuron / MOST_CHOSEN : neuron;
}

void pi2_neuron_store_choose_kept(pi2_neuron_store *store, uint32_t b, uint32_t begin, uint32_t end) {
    const pi2_neuron_bank *bank = &store->options.banks->banks[b];
    store_bank *own = &store->banks[b];
    passing_unit best[MOST_CHOSEN];
    uint32_t count = 0;
    if (!store->is_keeping || bank->unit_neurons > 1) return;
    for (uint32_t from = begin; from < end; from += MOST_CHOSEN, count = 0) {
        const uint32_t to = end - from < MOST_CHOSEN ? end : from + MOST_CHOSEN;
        const uint64_t all = own->fill_count;
        const uint32_t most = (uint32_t)(all * to / bank->neuron_count - all * from / bank->neuron_count);
        for (uint32_t n = from; n < to && most > 0; n++) {
            const uint32_t unit = unit_of(bank, own, n);
            if (!is_due(own, unit)) continue;
            const passing_unit one = { unit, worth_of(store, own, unit) };
            if (count == most && best[count - 1].worth >= one.worth) continue;
            uint32_t at = count < most ? count++ : count - 1;
            for (; at > 0 && best[at - 1].worth < one.worth; at--) best[at] = best[at - 1];
            best[at] = one;
        }
        for (uint32_t i = 0; i < count && reserve(store, b, best[i].unit); i++) {}
    }
}

void pi2_neuron_store_keep_chosen(pi2_neuron_store *store) {
    for (uint32_t i = 0; i < store->slot_count; i++) {
        const slot_word word = atomic_load(&store->slots[i].word);
        if (word_state(word) != PI2_PART_ARRIVED) continue;
        atomic_store(&store->slots[i].word, word_of(word_unit(word), 0, PI2_PART_READY));
        store->kept++;
    }
}

/* The slot that waits for a unit; NULL: none does. */
static neuron_slot *waiting_slot(pi2_neuron_store *store, uint32_t b, uint32_t unit) {
    const uint32_t slot = atomic_load_explicit(&store->banks[b].units[unit].slot, memory_order_relaxed);
    if (!store->is_keeping || slot == NO_SLOT) return NULL;
    const slot_word word = atomic_load_explicit(&store->slots[slot].word, memory_order_relaxed);
    return word_state(word) == PI2_PART_ARRIVED ? &store->slots[slot] : NULL;
}

static uint8_t *memory_of(const pi2_neuron_store *store, uint32_t b, const neuron_slot *slot) {
    return slot_memory(store, &store->pools[store->banks[b].pool], (uint32_t)(slot - store->slots));
}

uint8_t *pi2_neuron_store_place(pi2_neuron_store *store, uint32_t b, uint32_t neuron) {
    const pi2_neuron_bank *bank = &store->options.banks->banks[b];
    const uint32_t place = store->banks[b].head.place_of[neuron];
    const neuron_slot *slot = waiting_slot(store, b, place / bank->unit_neurons);
    return slot ? memory_of(store, b, slot) + (size_t)(place % bank->unit_neurons) * bank->bundle_bytes : NULL;
}

/* One that does not match would be of other weights than the tiles are: it is read when it fires, and told of then. */
void pi2_neuron_store_keep(pi2_neuron_store *store, uint32_t b, uint32_t neuron) {
    const pi2_neuron_bank *bank = &store->options.banks->banks[b];
    const uint32_t unit = store->banks[b].head.place_of[neuron] / bank->unit_neurons;
    neuron_slot *slot = waiting_slot(store, b, unit);
    if (!slot || atomic_fetch_sub(&slot->ticket, 1) != 1) return;
    uint8_t *memory = memory_of(store, b, slot);
    const size_t used = (size_t)neurons_of_unit(bank, unit) * bank->bundle_bytes;
    memset(memory + used, 0, bank->unit_bytes - used);
    if (pi2_neuron_unit_checksum(bank, memory) != store->banks[b].checksums[unit]) return;
    atomic_store(&slot->word, word_of(store->banks[b].first_unit + unit, 0, PI2_PART_READY));
    (void)atomic_fetch_add_explicit(&store->kept, 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&store->kept_bytes, bank->unit_bytes, memory_order_relaxed);
}

void pi2_neuron_store_end_keeping(pi2_neuron_store *store) {
    if (!store->is_keeping) return;
    store->is_keeping = false;
    const uint64_t kept = atomic_load(&store->kept) - store->kept_before;
    /* The few others lie between those that are there: each would be a small read, and most would not be used. */
    if (kept + kept / NEARLY >= store->kept_planned) {
        store->is_filled = true;
        store->wants_filling = false;
    }
    for (uint32_t i = 0; i < store->slot_count; i++) {
        neuron_slot *slot = &store->slots[i];
        const slot_word word = atomic_load(&slot->word);
        if (word_state(word) != PI2_PART_ARRIVED) continue;
        atomic_store(&store->units[word_unit(word)].heat_left, atomic_load(&slot->heat));
        atomic_store(&store->units[word_unit(word)].slot, NO_SLOT);
        atomic_store(&slot->word, (slot_word)PI2_PART_ABSENT);
    }
}
