/*
 * neuron_store.h: where a pass finds single neurons: the store's region of bundles, for cold clusters (PowerInfer-2,
 * sections 4.2, 4.3).
 *
 * A bank (clusters/neuron_bank.h) cuts a layer's neurons into units of equal size. Memory for units is cut into slots;
 * units of one size share a pool. A unit is in one slot or in none; its states are some of a part's (store/part.h):
 *
 *   ABSENT -> READING     it was wanted: it got a slot, its read is queued              (lock held)
 *   READING -> CHECKING   its read ended; whoever tells of that takes the checksum
 *   CHECKING -> READY     it matched; it may be used
 *   ABSENT -> ARRIVED     a pass of all neurons shall write it                   (before it)
 *   ARRIVED -> READY      it has, and the unit matched its checksum
 *   ARRIVED -> ABSENT     it has not                                             (after it)
 *   READY -> ABSENT       it leaves for another unit: never within the layer that used it  (lock held)
 *   READING, CHECKING -> ABSENT   its read failed, or its checksum: the pass ends with that
 *
 * A unit may also be foretold for the next layer: it is read behind what is certain, and stays until that layer ends.
 *
 * A hit takes no lock: a slot's word holds the unit, the layer ("epoch") that used it last and its state, and a thread
 * that uses a unit writes its epoch there by compare-and-swap, as whoever evicts it must. Which unit leaves is told by
 * a rule (unit_heat.h): of the next so many slots whose unit this layer did not use, the one that was used least lately
 * and often.
 *
 * Threads: everything but create, free and fill may be called by any compute thread.
 */
#ifndef PI2_NEURON_CACHE_NEURON_STORE_H
#define PI2_NEURON_CACHE_NEURON_STORE_H

#include "base/team.h"
#include "clusters/neuron_bank.h"
#include "neuron_cache/unit_heat.h"
#include "store/store.h"

typedef struct pi2_neuron_store pi2_neuron_store;

typedef struct pi2_neuron_store_options {
    const pi2_neuron_banks *banks; /* outlive the store */
    const char *path;              /* the cluster file, for messages; copied by nobody: outlives the store */
    pi2_store *store;              /* outlives this */
    void *memory;                  /* heads, then slots; page aligned */
    uint64_t memory_bytes;         /* at least pi2_neuron_store_least_bytes() */
    void *shared;                  /* page aligned, of shared_bytes: memory that serves others, and holds units between
                                      pi2_neuron_store_open_shared() and _close_shared(); NULL: there is none */
    uint64_t shared_bytes;
    const pi2_unit_rule *rule;     /* which unit leaves; NULL: the default */
    bool keeps_nothing;            /* for ablations: every unit leaves when a pass begins */
    const uint32_t *places;        /* of a store that is described: where each neuron of every bank lies; outlives the
                                      store. NULL: pi2_neuron_store_head() has nothing, and Gates are not told */
    uint32_t gap_units;            /* as many as lie between two wanted units at most, for one read to bring both */
    /** Told of what every layer used: keys (bank * pi2_neuron_store_layer_keys() + unit) ascending; NULL and the pass's
     *  tokens when a pass begins. For layers of one bank each. NULL: nobody is told. One thread. */
    void (*on_use)(void *user, const uint32_t *keys, uint32_t count);
    /** Told just before on_use is: how near each of the layer's units is to firing (unit_near.h), where the rule asks
     *  for it. NULL: nobody is told. */
    void (*on_near)(void *user, const uint8_t *near, uint32_t count);
    void *on_use_user; /* of both */
} pi2_neuron_store_options;

/** Memory with which every unit that a layer may use, of banks->at_once banks, has a slot: less could not serve a token
 *  that needs them all. */
uint64_t pi2_neuron_store_least_bytes(const pi2_neuron_banks *banks);
/** Memory that holds every unit. */
uint64_t pi2_neuron_store_all_bytes(const pi2_neuron_banks *banks);
/** Of both, the heads. */
uint64_t pi2_neuron_store_head_bytes(const pi2_neuron_banks *banks);
/** Units of the largest bank. */
uint32_t pi2_neuron_store_layer_keys(const pi2_neuron_banks *banks);
/** Memory of the store's own lists; of the one more that on_use takes, apart. */
size_t pi2_neuron_store_list_bytes(const pi2_neuron_banks *banks, uint64_t memory_bytes);
size_t pi2_neuron_store_use_list_bytes(const pi2_neuron_banks *banks);

/**
 * Reads and checks the heads; of a store that is_described none, and pi2_neuron_store_head() has the places alone.
 * Errors  MEMORY, INVALID (too little memory: with the least), IO, FORMAT (a head's checksum, an order that is none)
 */
pi2_status pi2_neuron_store_create(const pi2_neuron_store_options *options, pi2_neuron_store **store_out);
/** Waits for reads in flight. NULL is fine. */
void pi2_neuron_store_free(pi2_neuron_store *store);

/** What a bank's head holds, in memory as long as the store lives. */
typedef struct pi2_neuron_head {
    const uint32_t *place_of;    /* [neuron_count]: where a neuron's bundle lies */
    const uint8_t *gate_scales;  /* [neuron_count][gate_scale_bytes] */
    const uint8_t *up_scales;    /* [neuron_count][up_scale_bytes] */
    const uint8_t *down_scales;  /* [blocks of neurons][down_scale_bytes] */
} pi2_neuron_head;
const pi2_neuron_head *pi2_neuron_store_head(const pi2_neuron_store *store, uint32_t bank);

/** Slots in shared memory are used from now on, by what is wanted. One thread, while no other is in the store, as the
 *  next two. */
void pi2_neuron_store_open_shared(pi2_neuron_store *store);
/** What they hold is forgotten: the memory serves others from now on. */
void pi2_neuron_store_close_shared(pi2_neuron_store *store);
/** Slots in shared memory, where they are in use; else 0. */
uint32_t pi2_neuron_store_shared_slots(const pi2_neuron_store *store);

/** Whether many slots are empty since the store was made: it was not filled, and no pass of all neurons left nearly as
 *  many units as it was to. */
bool pi2_neuron_store_wants_filling(const pi2_neuron_store *store);
/**
 * Fills empty slots in long reads, every bank's share with its first places. Between passes; the team's threads share
 * the work. team NULL: this one does all. Errors as pi2_neuron_store_take(); what was filled by then stays.
 */
pi2_status pi2_neuron_store_fill(pi2_neuron_store *store, pi2_team *team);

/**
 * A pass of all neurons begins, which may leave units here that pass by, without another read: of banks for which
 * may_keep[bank] is not 0 as many as a filling would bring. Those of several neurons have their slots from now on, as a
 * filling has them. False: there are none. One thread, between passes; after pi2_neuron_store_begin_pass().
 */
bool pi2_neuron_store_begin_keeping(pi2_neuron_store *store, const uint8_t *may_keep);
/** Neurons [begin, end) pass by, and what the pass tells of them (warm, Gates) is told: of units of one neuron those
 *  that are worth most get a slot, by the bank's share of it. Any thread; one for each neuron, once a pass. */
void pi2_neuron_store_choose_kept(pi2_neuron_store *store, uint32_t bank, uint32_t begin, uint32_t end);
/** Where such a pass shall write a neuron's bundle; NULL: nowhere. Any thread; one for each neuron. */
uint8_t *pi2_neuron_store_place(pi2_neuron_store *store, uint32_t bank, uint32_t neuron);
/** It is written, padding included. When all of a unit are, the unit is there, if it matches its checksum. */
void pi2_neuron_store_keep(pi2_neuron_store *store, uint32_t bank, uint32_t neuron);
/** Of a store that is_described: all of them are. One thread, between passes. */
void pi2_neuron_store_keep_chosen(pi2_neuron_store *store);
/** The pass has ended: units that were not written whole have no slot any more. One thread, between passes. */
void pi2_neuron_store_end_keeping(pi2_neuron_store *store);

/** A pass over so many tokens begins, by neuron or not: heat fades as over so many passes. One thread, while no other
 *  is in the store. */
void pi2_neuron_store_begin_pass(pi2_neuron_store *store, uint32_t tokens, uint32_t passes);
/** A pass that computes all neurons would have used this unit for one of its last tokens: it is as hot as if it had.
 *  Any thread; while such a pass runs. */
void pi2_neuron_store_warm(pi2_neuron_store *store, uint32_t bank, uint32_t unit);
/** Gate of neurons [first, first + count) of a bank, for a token: where the rule goes by it (unit_near.h). Of banks
 *  that every pass tells; of others it would be old. Any thread; one at a time for each neuron. */
void pi2_neuron_store_tell_gates(pi2_neuron_store *store, uint32_t bank, uint32_t first, uint32_t count,
                                 const float *gates);

/** How near the first so many units of a bank are to firing, as on_near was told in another run. One thread, while no
 *  other is in the store. */
void pi2_neuron_store_set_near(pi2_neuron_store *store, uint32_t bank, const uint8_t *near, uint32_t count);

/** A layer begins: what earlier ones used may leave, and on_use is told of the last one's. One thread, while no other
 *  is in the store. */
void pi2_neuron_store_begin_layer(pi2_neuron_store *store);

/** The memory of a unit that is there, which then stays until the layer ends; else NULL. Never waits. */
const uint8_t *pi2_neuron_store_hit(pi2_neuron_store *store, uint32_t bank, uint32_t unit);

/** Whether a unit is there or on its way just now. Any thread; the next moment it may have left. */
bool pi2_neuron_store_has(const pi2_neuron_store *store, uint32_t bank, uint32_t unit);

/** Of units that pi2_neuron_store_hit() will be asked for, asks the processor's caches for the words that it looks
 *  into: they lie far apart, and one after the other each would be waited for. */
void pi2_neuron_store_expect(const pi2_neuron_store *store, uint32_t bank, const uint32_t *units, uint32_t count);

/** Asks for units that are not there, in this order, with one wake-up of the I/O thread; neighbours that ascend share a
 *  read. What finds no slot or no place in the queue just now is left out: pi2_neuron_store_take() asks again. */
void pi2_neuron_store_want(pi2_neuron_store *store, uint32_t bank, const uint32_t *units, uint32_t count);

/** Reads units of the next layer that it will probably want, ascending, after all that was asked for; until it ends
 *  they stay. What finds no room now, or would leave this layer too few slots, is left out. */
void pi2_neuron_store_foretell(pi2_neuron_store *store, uint32_t bank, const uint32_t *units, uint32_t count);

/** Units that were foretold and have arrived are there from now on, without anybody having taken them. Never waits. */
void pi2_neuron_store_collect(pi2_neuron_store *store);

/**
 * The memory of a unit, which is read if need be and waited for; it stays until the layer ends.
 * Errors  IO (file, byte offset), FORMAT (checksum: layer, unit, byte offset)
 */
pi2_status pi2_neuron_store_take(pi2_neuron_store *store, uint32_t bank, uint32_t unit, const uint8_t **memory_out);

/** Books what a layer found: units that it used, and those of them that were there. */
void pi2_neuron_store_note(pi2_neuron_store *store, uint32_t bank, uint32_t uses, uint32_t hits);

typedef struct pi2_neuron_store_counters {
    uint64_t uses, hits;        /* of units */
    uint64_t evictions;
    uint64_t kept;              /* that passes of all neurons left, without another read */
    uint64_t foretold, foretold_used; /* units that were read because they were foretold; of those, that were used */
    uint32_t slots, units;
} pi2_neuron_store_counters;
void pi2_neuron_store_count(const pi2_neuron_store *store, pi2_neuron_store_counters *counters_out);

#endif
