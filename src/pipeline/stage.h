/*
 * stage.h: how compute threads share one operation after another without a barrier each.
 *
 * Every thread walks the same list of stages. In a stage the threads claim chunks, in ascending
 * order, until none is left; whoever finishes the last chunk runs the stage's tail (a small serial
 * step, such as a norm) and opens the next stage. A thread therefore waits only where a result is
 * really missing, a slow thread takes fewer chunks, and no sum depends on who took what.
 *
 * The first chunks of a stage may be some members' own (those of devices, pipeline/device_share.h). They are two
 * queues: owners claim their own in ascending order, the others what follows, each then what is left of the other's
 * from its end. So nobody waits for longer than a chunk takes, however badly the work was parted.
 */
#ifndef PI2_PIPELINE_STAGE_H
#define PI2_PIPELINE_STAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sleepers.h"

typedef struct pi2_stage {
    /* Chunks claimed of what is owned, and of the rest: from the front, and in the upper half from the end. */
    _Alignas(64) _Atomic uint64_t owned, others;
    _Atomic uint32_t done;              /* chunks finished */
    _Alignas(64) _Atomic int open_next; /* 1: this stage is over, the next may begin */
} pi2_stage;

/** The stages of one pass; shared by its threads. */
typedef struct pi2_stage_list {
    pi2_stage *stages;
    uint32_t capacity;
    _Atomic bool is_overrun;   /* a stage behind the end was asked for: it did nothing, and the pass is void */
    pi2_sleepers *sleepers;
    unsigned spin_us;
} pi2_stage_list;

/** Closes every stage again, and forgets an overrun. Between passes, one thread. */
void pi2_stage_list_reset(pi2_stage_list *list);

/** Chunks of a stage: the first `own` of `count` are the owners'. */
typedef struct pi2_stage_parts {
    uint32_t count, own;
    bool is_owner;              /* the member that calls */
} pi2_stage_parts;

/** One chunk of a stage's work: 0 <= chunk < parts.count. */
typedef void pi2_stage_chunk(void *argument, unsigned member, uint32_t chunk);
/** The serial end of a stage. */
typedef void pi2_stage_tail(void *argument, unsigned member);

/**
 * Runs stage number `index` of the list together with the other threads: returns when every chunk
 * and the tail (NULL: none) are done. Each thread calls it for each index in ascending order, with
 * the same arguments but is_owner. parts.count may be 0. An index behind the capacity does nothing but set is_overrun.
 */
void pi2_stage_run(pi2_stage_list *list, uint32_t index, pi2_stage_parts parts, pi2_stage_chunk *chunk,
                   pi2_stage_tail *tail, void *argument, unsigned member);

/**
 * The same in two parts: pi2_stage_work() returns when no chunk is left to be claimed, though other
 * threads may still compute theirs; pi2_stage_wait() returns when all of them and the tail are done.
 * Between the two a thread works in later stages that do not need this one's results.
 */
void pi2_stage_work(pi2_stage_list *list, uint32_t index, pi2_stage_parts parts, pi2_stage_chunk *chunk,
                    pi2_stage_tail *tail, void *argument, unsigned member);
void pi2_stage_wait(pi2_stage_list *list, uint32_t index);

#endif
