/*
 * expert_cache.h: where a pass finds its experts: the store's region of slots.
 *
 * The unit is the expert: its run of extents, which lie one after the other in the file. A slot
 * holds the largest expert. A layer demands the experts that its router chose: those that are
 * present are pinned, the others are queued in file order; each gets a slot as soon as one is free
 * or its holder may leave (the policy chooses among what is not pinned), and its reads are
 * submitted at once, neighbouring extents merged. Extents are usable one by one as they arrive.
 * When an expert's work is done it is released: still present, but it may leave. Demands for one
 * expert join: it is read once. Nothing is allocated after creation.
 *
 * Looking ahead: a pass may name experts that the next demand will probably want. Those that are
 * absent are asked for with reads of low priority, once everything demanded has its slot and its
 * reads; what is already there of them leaves last. The policy does not know an expert that was
 * fetched ahead until it is demanded; one that is not is the first to leave, and what of it has not
 * begun to be read is not read.
 *
 * Hot experts (hot_experts.h) are read from the creation on, in file order, with reads of low priority and into slots
 * that are kept free for them. Once there they do not leave, but for others that are used more and where memory is
 * short; the policy does not know them.
 *
 * States of an expert, changed with the lock held. Each of these lists stands once more in expert_states.h, as a
 * table that every change is asserted against:
 *
 *   ABSENT  -> QUEUED    demanded; no slot yet
 *   QUEUED  -> LOADING   it has a slot; its extents are being asked for. Pinned.
 *   ABSENT  -> LOADING   fetched ahead. Not pinned until it is demanded; then it is like the others
 *   ABSENT  -> LOADING   it is hot, and nothing certain waits. Not pinned until it is demanded
 *   LOADING -> ABSENT    fetched ahead in vain: not demanded and not wholly read, or a read failed
 *   LOADING -> PRESENT   its last extent arrived
 *   PRESENT -> ABSENT    it was evicted. Only when it is neither pinned nor hot.
 *   any     -> ABSENT    the store was reset: whatever is not wholly there and checked
 *
 * The states of an extent of an expert that has a slot are those of a part (store/part.h). It is ABSENT again when its
 * expert leaves or was fetched ahead in vain, when a read ahead that had not begun was taken back, or failed, and when
 * the store is reset, unless its expert is wholly there and checked.
 *
 * States of a slot, changed with the lock held:
 *
 *   UNTOUCHED, TOUCHED -> TOUCHED  a read into it was submitted, or its memory was taken ahead of one
 *   UNTOUCHED, TOUCHED -> CLOSED   it was given back to the system
 *   CLOSED -> UNTOUCHED    it was taken again
 *
 * Where all experts fit, each has a place of its own, none ever leaves, and the policy is not asked;
 * until memory is given back: then the places become slots. What is given back is first the slots that
 * nothing was read into yet, then the last ones in memory; what was in them moves to those that the
 * policy empties.
 */
#ifndef PI2_NEURON_CACHE_EXPERT_CACHE_H
#define PI2_NEURON_CACHE_EXPERT_CACHE_H

#include "neuron_cache/hot_experts.h"
#include "clusters/extent_layout.h"
#include "store/store.h"

typedef struct pi2_expert_cache pi2_expert_cache;

/** Experts of a layout: the key of an expert is its number among the layout's EXPERT groups. */
uint32_t pi2_expert_cache_keys(const pi2_extent_layout *layout);
/** Extents of all experts. */
uint32_t pi2_expert_cache_extents(const pi2_extent_layout *layout);
/** Bytes that the largest expert's slot takes, and that all of them take side by side. */
uint64_t pi2_expert_cache_slot_bytes(const pi2_extent_layout *layout);
uint64_t pi2_expert_cache_all_bytes(const pi2_extent_layout *layout);
/** The same of a cache that holds only experts' Gates (options.gates_only); 0 where they do not lie apart. */
uint64_t pi2_expert_cache_gate_slot_bytes(const pi2_extent_layout *layout);
uint64_t pi2_expert_cache_all_gate_bytes(const pi2_extent_layout *layout);
/** Memory of the cache's own lists, whether it holds whole experts or less. */
size_t pi2_expert_cache_list_bytes(const pi2_extent_layout *layout, const pi2_cache_policy *policy);

typedef struct pi2_expert_cache_options {
    const pi2_extent_layout *layout;
    const char *path;              /* the cluster file, for messages */
    void *memory;                  /* page aligned; unless loaded, slot bytes for every expert where all fit */
    uint64_t bytes;                /* one slot or more; pi2_expert_cache_all_bytes(): all fit */
    bool gates_only;               /* an expert is its first pi2_group.gate_extents extents, and its slot no larger */
    bool loaded;                   /* memory holds all experts side by side already (a plain GGUF) */
    const pi2_cache_policy *policy;
    uint32_t layer_keys;           /* experts of a layer */
    const uint32_t *hot_keys;      /* experts that are hot at first, read at once; not asked where all fit */
    uint32_t hot_count;            /* at most pi2_hot_experts_most() of the slots */
    uint32_t least_slots;          /* kept whoever else needs the memory; 0: all are */
    pi2_store *store;              /* outlives this; on demand: one expert at a time, when a thread waits */
    /** Told of every demand: keys ascending, NULL and the pass's tokens when a pass begins. May be NULL. */
    void (*on_demand)(void *user, const uint32_t *keys, uint32_t count);
    void *on_demand_user;
} pi2_expert_cache_options;

/** Errors  MEMORY, INVALID (less memory than one slot) */
pi2_status pi2_expert_cache_create(const pi2_expert_cache_options *options, pi2_expert_cache **cache_out);
/** Waits for reads in flight. NULL is fine. */
void pi2_expert_cache_free(pi2_expert_cache *cache);

/** A pass over so many tokens begins. Threads: one, between passes. */
void pi2_expert_cache_begin_pass(pi2_expert_cache *cache, uint32_t token_count);

/**
 * Demands count experts of a layer (keys ascending, distinct); everything demanded before was released.
 * uses: for a batch, what its tokens did with each; NULL: fewer tokens than PI2_BATCH_LEAST.
 * Threads: one, while no other uses experts of the demand before.
 */
void pi2_expert_cache_demand(pi2_expert_cache *cache, const uint32_t *keys, const pi2_batch_use *uses,
                             uint32_t count);

/**
 * Names experts that the next demands will probably want: distinct, of other layers than the demand under
 * way, the next layer's first and of each layer the likeliest; forgets those named before. Those beyond a
 * bound are ignored. Only those of the first one's layer count as foreseen.
 * Threads: as pi2_expert_cache_demand().
 */
void pi2_expert_cache_look_ahead(pi2_expert_cache *cache, const uint32_t *keys, uint32_t count);
/** Whether looking ahead can bring anything: some expert may be absent. */
bool pi2_expert_cache_can_look_ahead(const pi2_expert_cache *cache);

/** Whether extent `index` of a demanded expert can be opened without waiting. Never waits. */
bool pi2_expert_cache_arrived(const pi2_expert_cache *cache, uint32_t key, uint32_t index);

/**
 * Memory of an extent that has arrived. The first call for an extent takes its checksum; until it
 * has returned nobody else may open the extent.
 * Errors  FORMAT (checksum: extent and offset named)
 */
pi2_status pi2_expert_cache_open(pi2_expert_cache *cache, uint32_t key, uint32_t index, const uint8_t **memory_out);

/**
 * Notes reads that have ended and asks for more. *mark_out: what pi2_expert_cache_wait() waits after.
 * Errors  IO (file and offset). Threads: any.
 */
pi2_status pi2_expert_cache_poll(pi2_expert_cache *cache, int *mark_out);

/**
 * Sleeps until any read has ended that the poll which gave `mark` did not note; returns at once when
 * none is in flight. So who found nothing to do after the poll sleeps through nothing. On
 * demand it asks for the next expert first, when none is on its way. Threads: any.
 */
void pi2_expert_cache_wait(pi2_expert_cache *cache, int mark);

/**
 * For a thread that has nothing else to do: takes about 2 MB of a slot's memory from the system before
 * a read needs it. A system that hands pages out slowly (a virtual machine whose host backs memory on
 * first touch: 0.5 GB/s) would keep the thread that reads from reading. False: there is none to take,
 * or memory was given back before. Threads: any.
 */
bool pi2_expert_cache_populate(pi2_expert_cache *cache);

/** A demanded expert's work is done. Threads: any. */
void pi2_expert_cache_release(pi2_expert_cache *cache, uint32_t key);

typedef struct pi2_expert_cache_counters {
    uint64_t touches, hits;  /* experts demanded; of those present because they had stayed */
    uint64_t evictions;
    /* Fetched ahead; of those demanded (present or on their way); of those gone without. The rest is there. */
    uint64_t ahead, ahead_kept, ahead_wasted;
    uint64_t ahead_bytes, ahead_kept_bytes, ahead_wasted_bytes; /* read, or asked for and not taken back */
    uint64_t hot, hot_hits;  /* hot experts now; hits of hot ones */
    uint64_t promotions, demotions;
    uint64_t foreseen, foreseen_demanded; /* named for the next layer, present or not; of those demanded next */
} pi2_expert_cache_counters;
void pi2_expert_cache_count(const pi2_expert_cache *cache, pi2_expert_cache_counters *counters_out);

/** Slots, and the keys that exist. */
uint32_t pi2_expert_cache_slots(const pi2_expert_cache *cache);

#endif
