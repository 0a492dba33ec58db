/* expert_cache_internal.h: what the parts of the cache of experts share. */
#ifndef PI2_NEURON_CACHE_EXPERT_CACHE_INTERNAL_H
#define PI2_NEURON_CACHE_EXPERT_CACHE_INTERNAL_H

#include <stdatomic.h>

#include "neuron_cache/expert_cache.h"
#include "store/region.h"

enum { EXPERT_ABSENT, EXPERT_QUEUED, EXPERT_LOADING, EXPERT_PRESENT };
enum { SLOT_UNTOUCHED, SLOT_TOUCHED, SLOT_CLOSED }; /* the first and the last take no memory */
enum { MAX_READS = 64 };
enum { MAX_READS_AHEAD = 24, MAX_READS_HOT = 16, AHEAD_MOST = 64, AHEAD_SHARE = 4 }; /* of the slots, a quarter */

typedef struct cached_expert {
    uint8_t *memory;        /* its slot; where all fit: its own place, always */
    uint32_t first;         /* its first extent, in the layout */
    uint32_t first_own;     /* the same in `extents` */
    uint32_t count;
    uint32_t left;          /* LOADING: extents that have not arrived */
    uint32_t ahead_bytes;   /* asked for ahead */
    uint64_t ahead_ns;      /* since when; for a trace */
    uint8_t state;
    uint8_t reads;          /* in flight or queued in the reader */
    bool pinned;
    bool ahead;             /* fetched ahead and not demanded since: not known to the policy, in ahead_keys */
    bool given_up;          /* LOADING for nobody: leaves as soon as no read of it is in flight */
    bool foreseen;          /* named by the last look ahead */
} cached_expert;

typedef struct cached_extent {
    pi2_part part;
    uint32_t offset;        /* in the slot */
} cached_extent;

/* What a read began as, in its tag: of an expert that nobody had demanded; of a hot one likewise. */
enum { READ_IS_AHEAD = 1, READ_IS_HOT = 2 };

struct pi2_expert_cache {
    pi2_expert_cache_options options;
    cached_expert *experts;
    cached_extent *extents;
    pi2_cache_book *book;
    pi2_hot_experts *hot;   /* NULL: there are none */
    uint32_t hot_at;        /* hot experts before it are seen to: present, or on their way */
    uint32_t reads_hot;     /* active ones that began as a hot expert's */
    size_t slot_bytes;
    uint8_t **free_slots;
    uint32_t key_count, slot_count, free_count;
    uint32_t populating;    /* the slot whose memory is being taken from the system; those before are */
    size_t populated;       /* bytes of it, taken or being taken */
    _Atomic bool ends_populating; /* nothing is left, the system cannot, or memory was short once */
    uint32_t given_count;   /* slots that are closed: given back to the system */
    uint8_t *slots;         /* state of each */
    _Atomic bool all_fit;   /* until memory is given back */

    uint32_t *queue;        /* demanded, without a slot: [queue_at, queue_count) */
    uint32_t queue_at, queue_count;
    uint32_t issuing, issued; /* the expert whose reads are being asked for (or UINT32_MAX), extents done */

    uint32_t foreseen[AHEAD_MOST], foreseen_at, foreseen_count; /* those before foreseen_at are seen to */
    uint32_t ahead_keys[AHEAD_MOST], ahead_count; /* experts fetched ahead, the oldest first */
    uint32_t reads_ahead;     /* active ones that began ahead */
    uint32_t whole_count;     /* where all fit: experts that are PRESENT */

    pi2_region *region;       /* of reads of an expert's consecutive extents: key, first, count */
    pi2_expert_cache_counters counters;
};

static inline bool is_on_demand(const pi2_expert_cache *cache) {
    return pi2_store_options_of(cache->options.store)->on_demand_only;
}

static inline uint8_t *slot_at(const pi2_expert_cache *cache, uint32_t index) {
    return (uint8_t *)cache->options.memory + cache->slot_bytes * index;
}

static inline uint32_t slot_of(const pi2_expert_cache *cache, const uint8_t *memory) {
    return (uint32_t)((size_t)(memory - (uint8_t *)cache->options.memory) / cache->slot_bytes);
}

/** A free slot, else one that an expert leaves; NULL: none may now. certain: for a demand. Under the lock. */
uint8_t *pi2_expert_cache_find_slot(pi2_expert_cache *cache, bool certain);
/**
 * Adds a read of an expert's next extents, from *next on, that nobody has asked for, as many as are neighbours; *next
 * is the extent after them, or the count when none is left. False: all reads are under way. Under the lock.
 */
bool pi2_expert_cache_add_read(pi2_expert_cache *cache, uint32_t key, uint32_t *next);
/** Gives slots to who waits for them, and asks for reads. Under the lock. */
void pi2_expert_cache_pump(pi2_expert_cache *cache);

/** Tells the store how the slots' memory leaves and returns (expert_cache_memory.c). */
void pi2_expert_cache_tell_memory(pi2_expert_cache *cache);

/* expert_cache_hot.c; all but the first under the lock */

/** Makes the hot set, where there is one and not all experts fit; the policy has the other slots. */
pi2_status pi2_expert_cache_start_hot(pi2_expert_cache *cache);

static inline bool pi2_expert_cache_is_hot(const pi2_expert_cache *cache, uint32_t key) {
    return cache->hot && pi2_hot_experts_is_hot(cache->hot, key);
}
/** Open slots that are not hot experts': the policy's. */
static inline uint32_t pi2_expert_cache_cold_slots(const pi2_expert_cache *cache) {
    return cache->slot_count - cache->given_count - (cache->hot ? pi2_hot_experts_count(cache->hot) : 0);
}
/** Free slots that hot experts wait for. */
static inline uint32_t pi2_expert_cache_hot_wanted(const pi2_expert_cache *cache) {
    return cache->hot ? pi2_hot_experts_wanted(cache->hot) : 0;
}
/** Gives a hot expert that has no slot one of those that are kept free for it. */
void pi2_expert_cache_take_hot_slot(pi2_expert_cache *cache, uint32_t key);
/** A hot expert's slot is taken away: it will be read again. */
void pi2_expert_cache_lose_hot(pi2_expert_cache *cache, uint32_t key);
/** Asks for hot experts that were not read yet, with reads of low priority. */
void pi2_expert_cache_pump_hot(pi2_expert_cache *cache);
/** Between passes: experts change places. Takes the lock. */
void pi2_expert_cache_review_hot(pi2_expert_cache *cache);
/** So many slots are there, or will be: hot experts leave until least_slots are left for the others. False: not now. */
bool pi2_expert_cache_set_hot_aside(pi2_expert_cache *cache, uint32_t open_slots, uint32_t least_slots);
/** Slots were given back or taken again: policy and hot experts are told. */
void pi2_expert_cache_follow_slots(pi2_expert_cache *cache);
void pi2_expert_cache_bring_hot_back(pi2_expert_cache *cache, uint32_t slots);
void pi2_expert_cache_count_hot(const pi2_expert_cache *cache, pi2_expert_cache_counters *counters);

#endif
