/* neuron_store_internal.h: slots, pools and banks of the store of neurons; for its own files. */
#ifndef PI2_NEURON_CACHE_NEURON_STORE_INTERNAL_H
#define PI2_NEURON_CACHE_NEURON_STORE_INTERNAL_H

#include "neuron_cache/neuron_store.h"
#include "store/region.h"

enum { MOST_POOLS = 8, MOST_LEAVING = 64 };
#define NO_SLOT UINT32_MAX
#define NO_BANK UINT32_MAX

/* A slot's word: the unit's number in the store plus 1, the epoch of its last use, its state (PI2_PART_...). */
typedef uint64_t slot_word;

/* Epochs of layers are even. A unit that was foretold for a layer has the odd one before it. */
enum { EPOCHS_OF_A_LAYER = 2 };

static inline slot_word word_of(uint32_t unit_number, uint32_t epoch, unsigned state) {
    return (uint64_t)(unit_number + 1) << 32 | (uint64_t)epoch << 4 | state;
}
static inline uint32_t word_unit(slot_word word) { return (uint32_t)(word >> 32) - 1; }
static inline uint32_t word_epoch(slot_word word) { return (uint32_t)word >> 4; }
static inline unsigned word_state(slot_word word) { return (unsigned)word & 15u; }

/* Whether a unit stays while the layer of this epoch runs: it uses it, or may, or the next layer may. */
static inline bool word_stays(slot_word word, uint32_t epoch) {
    return word_epoch(word) + 1 >= epoch && word_epoch(word) <= epoch + 1;
}

typedef struct neuron_slot {
    _Atomic slot_word word;
    _Atomic uint32_t ticket; /* of the read that brings it; ARRIVED: bundles that are missing */
    _Atomic uint32_t heat;   /* of unit_heat.h */
} neuron_slot;

/** Where a unit is. Whoever looks for one, brings it or lets it go touches one line of one page. */
typedef struct neuron_unit {
    _Atomic uint32_t slot;      /* NO_SLOT: none */
    _Atomic uint32_t heat_left; /* while it is in no slot, as in a slot */
} neuron_unit;

/** A unit that gave its slot to another, and whose neuron_unit does not say so yet. */
typedef struct leaving_unit {
    uint32_t number, heat;
} leaving_unit;

/** Slots of one size. Those that are in use follow each other: from first_open on, shared ones are not while their
 *  memory serves others; behind open_count the memory was given back. */
typedef struct slot_pool {
    uint32_t unit_bytes;
    uint32_t first_slot, slot_count, hand;
    uint32_t shared_count;   /* its first so many are in shared memory */
    uint32_t first_open, open_count;
    uint64_t units;          /* of the banks that share it */
    uint32_t largest_layer;  /* units that a layer uses at most: of so many of its largest bank */
    uint8_t *memory;
} slot_pool;

typedef struct store_bank {
    pi2_neuron_head head;
    const uint32_t *checksums;
    uint32_t first_unit;     /* its units' numbers in the store begin here */
    uint32_t layer_end;      /* and those of the next layer's first bank here */
    uint32_t pool;
    neuron_unit *units;      /* [unit_count] */
    float near_per_step;     /* steps in a Gate of 1 (unit_near.h), by the last pass that told some; 0: none did */
    _Atomic double near_squares;  /* of this pass's Gates, summed; and how many were told */
    _Atomic uint64_t near_count;
    uint32_t fill_slot, fill_count; /* how many units a filling brings, into slots from this one on */
    uint32_t fill_end;              /* and before this one */
    _Atomic uint32_t keep_slot;     /* of those, the next that a pass of all neurons looks at */
} store_bank;

struct pi2_neuron_store {
    pi2_neuron_store_options options;
    store_bank *banks;
    slot_pool pools[MOST_POOLS];
    uint32_t pool_count;
    void *lists;              /* slots and units, looked into at random: on huge pages where there are any */
    size_t lists_bytes;
    neuron_slot *slots;
    neuron_unit *units;       /* [unit_count] */
    uint32_t slot_count, unit_count;
    _Atomic uint8_t *near;    /* [unit_count][near_stride]: of each neuron by its place, as unit_near.h has it; NULL:
                                 the rule does not ask */
    uint32_t near_stride;     /* neurons of the largest unit */
    uint8_t *near_told;       /* [layer keys]: for on_near */
    leaving_unit leaving[MOST_LEAVING]; /* lock */
    uint32_t leaving_count;
    uint8_t *windows;         /* [most_reads][window_bytes]: where whole pages around fine units are read; NULL */
    uint32_t window_bytes, most_reads;
    uint32_t sector_bytes;    /* what reads are multiples of */
    pi2_region *region;       /* of reads of units: key is the bank, first the unit */
    _Atomic uint32_t epoch;
    pi2_unit_heat heat;
    uint32_t *used;           /* [layer keys]: for on_use; NULL: nobody is told */
    uint32_t layer_keys;
    _Atomic uint32_t used_bank; /* of the layer under way; NO_BANK: none was asked */
    bool is_filled;           /* its memory was taken from the system */
    bool wants_filling;       /* many slots are empty, and never were otherwise */
    bool is_keeping;          /* some slots are ARRIVED */
    uint64_t kept_before, kept_planned; /* units before this keeping, and how many it shall leave */
    _Atomic uint64_t kept, kept_bytes; /* units, and their bytes since the store was made */
    _Atomic uint32_t fill_next; /* the next bank that a thread fills */
    bool foretells_next;      /* reads for the next layer were asked for; lock */
    _Atomic bool has_likely;  /* such reads are this layer's now: they have to be made certain */
    uint32_t foretold_slots;  /* of this layer's; lock */
    _Atomic uint32_t likely_reads; /* under way */
    _Atomic uint64_t foretold, foretold_used;
    _Atomic uint64_t uses, hits;
    uint64_t evictions;       /* lock */
};

/* Of its slots that are not in shared memory. */
static inline uint64_t own_bytes(const slot_pool *pool) {
    return (uint64_t)(pool->slot_count - pool->shared_count) * pool->unit_bytes;
}

static inline uint8_t *slot_memory(const pi2_neuron_store *store, const slot_pool *pool, uint32_t slot) {
    const uint32_t index = slot - pool->first_slot;
    if (index < pool->shared_count) return (uint8_t *)store->options.shared + (uint64_t)index * pool->unit_bytes;
    return pool->memory + (uint64_t)(index - pool->shared_count) * pool->unit_bytes;
}

static inline void set_heat(const pi2_neuron_store *store, _Atomic uint32_t *place, uint32_t heat) {
    atomic_store_explicit(place, pi2_unit_heat_word(&store->heat, heat), memory_order_relaxed);
}

static inline uint32_t heat_now(const pi2_neuron_store *store, const _Atomic uint32_t *place) {
    return pi2_unit_heat_now(&store->heat, atomic_load_explicit(place, memory_order_relaxed));
}

static inline uint64_t page_up(uint64_t bytes) {
    return (bytes + PI2_READ_ALIGNMENT - 1) / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
}

static inline uint64_t offset_of(const pi2_neuron_bank *bank, uint32_t unit) {
    return bank->file_offset + (uint64_t)unit * bank->unit_bytes;
}

/* Where the pages begin and end that hold a unit. */
static inline uint64_t pages_begin(const pi2_neuron_bank *bank, uint32_t unit) {
    return offset_of(bank, unit) / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
}
static inline uint64_t pages_end(const pi2_neuron_bank *bank, uint32_t unit) {
    return page_up(offset_of(bank, unit) + bank->unit_bytes);
}

/** Whether units of a bank are read into windows, and copied from there: fine ones that are no whole sectors. */
static inline bool uses_windows(const pi2_neuron_store *store, const pi2_neuron_bank *bank) {
    return pi2_neuron_bank_is_fine(bank) &&
           (bank->unit_bytes % store->sector_bytes != 0 || bank->file_offset % store->sector_bytes != 0);
}

/* What of the file is read for a unit: itself, or whole pages around it. */
static inline uint64_t read_begin(const pi2_neuron_store *store, const pi2_neuron_bank *bank, uint32_t unit) {
    return uses_windows(store, bank) ? pages_begin(bank, unit) : offset_of(bank, unit);
}
static inline uint64_t read_end(const pi2_neuron_store *store, const pi2_neuron_bank *bank, uint32_t unit) {
    return uses_windows(store, bank) ? pages_end(bank, unit) : offset_of(bank, unit) + bank->unit_bytes;
}

/** Compares a unit with its checksum. Errors FORMAT. Any thread. */
pi2_status pi2_neuron_store_check(const pi2_neuron_store *store, uint32_t bank, uint32_t unit, const void *memory);

/* neuron_store_near.c */

/** Neurons of the largest unit. */
uint32_t pi2_neuron_store_near_stride(const pi2_neuron_banks *banks);
/** How near the nearest of a unit's neurons is to firing. */
uint8_t pi2_neuron_store_near_of(const pi2_neuron_store *store, uint32_t unit_number);
/** What the last pass told is what Gates are measured by from now on. No thread is in the store. */
void pi2_neuron_store_settle_near(pi2_neuron_store *store);
/** Tells on_near of all units of a bank. No thread is in the store. */
void pi2_neuron_store_tell_near(pi2_neuron_store *store, uint32_t bank);

/* neuron_store_memory.c */

/** What is in a slot is forgotten. No thread is in the store. */
void pi2_neuron_store_empty_slot(pi2_neuron_store *store, uint32_t number);
/** Waits for reads under way, for which nobody waits any more, but which may write into any slot, or their windows. No
 *  thread is in the store. */
void pi2_neuron_store_await_reads(pi2_neuron_store *store);
/** Lets the region give slots back and take them again. */
void pi2_neuron_store_offer_memory(pi2_neuron_store *store);

#endif
