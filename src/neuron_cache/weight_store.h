/*
 * weight_store.h: where a pass finds its weights: the store's region of fixed places and a ring.
 *
 * A dense pass touches every extent once, in one fixed order: the sequence. Some extents are
 * resident, at addresses of their own. The others stream through a ring: they are asked for in
 * sequence order as far ahead as the ring has room, across matrices, layers and tokens, and the
 * room is taken back when their last tile has been used. So the bytes read per token are the bytes
 * that are not resident, and reading never waits for computing while the ring has room.
 *
 * An extent's states are those of a part (store/part.h). Of a streamed one READY -> ABSENT is when all its tiles were
 * used, and its room is free; pi2_weight_store_reset() makes all ABSENT but residents that are READY.
 *
 * Under memory pressure runs of resident extents ("units") begin to stream, and return later:
 *
 *   resident READY, ABSENT -> streamed ABSENT   used up in this pass, or between passes (pump lock held)
 *   resident FAILED -> streamed ABSENT   it could not be read again by hand         (pump lock held)
 *   streamed ABSENT -> resident ABSENT   at any time; the next read brings it home (pump lock held)
 *
 * Invariant: the extents between ABSENTs of the ring are consecutive in the sequence, and the ring
 * takes room back in the order in which it gave it.
 */
#ifndef PI2_NEURON_CACHE_WEIGHT_STORE_H
#define PI2_NEURON_CACHE_WEIGHT_STORE_H

#include "clusters/extent_layout.h"
#include "store/store.h"

typedef struct pi2_weight_store pi2_weight_store;

typedef struct pi2_weight_store_options {
    const pi2_extent_layout *layout;
    const char *path;             /* the cluster file, for messages */
    const uint32_t *sequence;     /* extents in the order of a full pass; copied */
    uint32_t sequence_count;
    uint32_t head_begin;          /* position from which on the sequence is the head */
    uint32_t pass_end;            /* where the head ends; resident extents that follow are loaded by hand */
    uint8_t *resident;            /* [extent_count]: 1 where the extent stays; kept up to date */
    bool huge_pages;              /* of resident_memory: it is given back in larger units */
    void *resident_memory;        /* page aligned; extents in sequence order, each at read_bytes */
    bool resident_loaded;         /* memory is filled already (a plain GGUF) */
    void *ring; size_t ring_bytes; /* page aligned; NULL: nothing ever streams */
    bool ring_planned;            /* false: its memory is not in the plan, and touched only when need be */
    bool may_give_back;           /* needs a ring, and a store that reads */
    pi2_store *store;             /* outlives this */
    const uint8_t *by_neuron;     /* [extent_count]: 1 where a pass that computes single neurons does without the
                                     extent; NULL: there are no such passes. Copied by nobody: outlives the store */
    const uint8_t *leaves_last;   /* [extent_count]: 1: under pressure after all others; NULL: all alike. The same */
} pi2_weight_store_options;

/** Errors  MEMORY, INVALID (a streamed extent that is larger than the ring) */
pi2_status pi2_weight_store_create(const pi2_weight_store_options *options, pi2_weight_store **store_out);
/** Waits for reads in flight. NULL is fine. */
void pi2_weight_store_free(pi2_weight_store *store);

/** What a pass will touch. */
typedef struct pi2_weight_store_pass {
    bool with_head;   /* it goes on to the head */
    bool by_neuron;   /* it does without the extents of options.by_neuron */
    bool is_last;     /* the next pass is probably of the other kind: nothing is read ahead for it */
} pi2_weight_store_pass;

/**
 * A pass begins. Reads start (or are under way since the last pass). Where it is of another kind than the
 * one before, what was read ahead is dropped. Threads: one, between passes.
 */
void pi2_weight_store_begin_pass(pi2_weight_store *store, const pi2_weight_store_pass *pass);

/**
 * True: no extent streams in the pass by neuron that has just begun, and none will until the next pass begins: the
 * ring's memory may serve others until then. Residents that should leave meanwhile wait for a pass without it: the
 * next one. Threads: one, between passes.
 */
bool pi2_weight_store_lend_ring(pi2_weight_store *store);

/** Whether a pass of all neurons with its head would stream anything now. Threads: one, between passes. */
bool pi2_weight_store_streams(const pi2_weight_store *store);

/** Bytes that a pass of all neurons would stream now and one by neuron does without. Threads: one, between passes. */
uint64_t pi2_weight_store_spared_bytes(const pi2_weight_store *store);

/**
 * The memory of an extent, waiting for it if need be. The pass must come to extents in sequence
 * order, give or take what the ring holds. Threads: any compute thread.
 * Errors  IO (file and offset), FORMAT (checksum: extent and offset named)
 */
pi2_status pi2_weight_store_extent(pi2_weight_store *store, uint32_t extent, const uint8_t **memory_out);

/** `tiles` tiles of the extent have been used for the last time in this pass. */
void pi2_weight_store_used(pi2_weight_store *store, uint32_t extent, uint32_t tiles);

/** Reads a resident extent now. Before the first pass. Errors as pi2_weight_store_extent(). */
pi2_status pi2_weight_store_load(pi2_weight_store *store, uint32_t extent);

/** Memory of an extent that is in memory and stays there, else NULL. Never waits. */
const uint8_t *pi2_weight_store_peek(const pi2_weight_store *store, uint32_t extent);

/** After a failed or cancelled pass: waits for reads in flight, empties the ring. */
void pi2_weight_store_reset(pi2_weight_store *store);

/** Changes whenever an extent's residency does. */
uint32_t pi2_weight_store_generation(const pi2_weight_store *store);

/** Memory of the store's own lists for so many extents. */
size_t pi2_weight_store_list_bytes(uint32_t extent_count);

#endif
