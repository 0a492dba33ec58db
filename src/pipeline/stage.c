/* stage.c: claiming chunks and opening the next stage. */
#include "pipeline/stage.h"

/* The list is as long as passes were planned to be. A stage behind its end has no room: it is left out, and told. */
static bool has_stage(pi2_stage_list *list, uint32_t index) {
    if (index < list->capacity) return true;
    atomic_store_explicit(&list->is_overrun, true, memory_order_relaxed);
    return false;
}

void pi2_stage_list_reset(pi2_stage_list *list) {
    atomic_store_explicit(&list->is_overrun, false, memory_order_relaxed);
    for (uint32_t i = 0; i < list->capacity; i++) {
        atomic_store_explicit(&list->stages[i].owned, 0, memory_order_relaxed);
        atomic_store_explicit(&list->stages[i].others, 0, memory_order_relaxed);
        atomic_store_explicit(&list->stages[i].done, 0, memory_order_relaxed);
        atomic_store_explicit(&list->stages[i].open_next, 0, memory_order_relaxed);
    }
}

static void end_stage(pi2_stage_list *list, pi2_stage *stage, pi2_stage_tail *tail, void *argument,
                      unsigned member) {
    if (tail) tail(argument, member);
    atomic_store(&stage->open_next, 1);
    pi2_wake_sleepers(list->sleepers, &stage->open_next);
}

/* Of a queue of chunks [begin, end) one that nobody has: its first or its last; UINT32_MAX: there is none. Claims are
 * counted on when there is none any more, and stay too many. */
static uint32_t claim_of(_Atomic uint64_t *queue, uint32_t begin, uint32_t end, bool from_end) {
    if (begin == end) return UINT32_MAX;
    const uint64_t one = from_end ? UINT64_C(1) << 32 : 1;
    const uint64_t claimed = atomic_fetch_add_explicit(queue, one, memory_order_relaxed);
    const uint64_t front = claimed & UINT32_MAX, back = claimed >> 32;
    if (front + back >= end - begin) return UINT32_MAX;
    return from_end ? end - 1 - (uint32_t)back : begin + (uint32_t)front;
}

/* The member's own queue first, then what is left of the other one, from its end; where nothing is owned there is one
 * queue for all, since weights that stream come in its order. */
static uint32_t claim(pi2_stage *stage, const pi2_stage_parts *parts) {
    for (int stolen = 0; stolen < 2; stolen++) {
        const bool is_owned = parts->is_owner != (stolen == 1);
        const uint32_t chunk = is_owned ? claim_of(&stage->owned, 0, parts->own, stolen)
                                        : claim_of(&stage->others, parts->own, parts->count, stolen && parts->own > 0);
        if (chunk != UINT32_MAX) return chunk;
    }
    return UINT32_MAX;
}

void pi2_stage_work(pi2_stage_list *list, uint32_t index, pi2_stage_parts parts, pi2_stage_chunk *chunk,
                    pi2_stage_tail *tail, void *argument, unsigned member) {
    if (!has_stage(list, index)) return;
    pi2_stage *stage = &list->stages[index];
    if (parts.count == 0) { /* nothing to claim: member 0 stands in for the last finisher */
        if (member == 0) end_stage(list, stage, tail, argument, member);
    } else {
        for (;;) {
            const uint32_t claimed = claim(stage, &parts);
            if (claimed == UINT32_MAX) break;
            chunk(argument, member, claimed);
            if (atomic_fetch_add_explicit(&stage->done, 1, memory_order_acq_rel) + 1 == parts.count) {
                end_stage(list, stage, tail, argument, member);
            }
        }
    }
}

void pi2_stage_wait(pi2_stage_list *list, uint32_t index) {
    if (!has_stage(list, index)) return;
    (void)pi2_wait_for_change(list->sleepers, &list->stages[index].open_next, 0, list->spin_us, 0);
}

void pi2_stage_run(pi2_stage_list *list, uint32_t index, pi2_stage_parts parts, pi2_stage_chunk *chunk,
                   pi2_stage_tail *tail, void *argument, unsigned member) {
    pi2_stage_work(list, index, parts, chunk, tail, argument, member);
    pi2_stage_wait(list, index);
}
