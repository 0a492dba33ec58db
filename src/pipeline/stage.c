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
        atomic_store_explicit(&list->stages[i].next, 0, memory_order_relaxed);
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

void pi2_stage_work(pi2_stage_list *list, uint32_t index, uint32_t chunk_count, pi2_stage_chunk *chunk,
                    pi2_stage_tail *tail, void *argument, unsigned member) {
    if (!has_stage(list, index)) return;
    pi2_stage *stage = &list->stages[index];
    if (chunk_count == 0) { /* nothing to claim: member 0 stands in for the last finisher */
        if (member == 0) end_stage(list, stage, tail, argument, member);
    } else {
        for (;;) {
            const uint32_t claimed = atomic_fetch_add_explicit(&stage->next, 1, memory_order_relaxed);
            if (claimed >= chunk_count) break;
            chunk(argument, member, claimed);
            if (atomic_fetch_add_explicit(&stage->done, 1, memory_order_acq_rel) + 1 == chunk_count) {
                end_stage(list, stage, tail, argument, member);
            }
        }
    }
}

void pi2_stage_wait(pi2_stage_list *list, uint32_t index) {
    if (!has_stage(list, index)) return;
    (void)pi2_wait_for_change(list->sleepers, &list->stages[index].open_next, 0, list->spin_us, 0);
}

void pi2_stage_run(pi2_stage_list *list, uint32_t index, uint32_t chunk_count, pi2_stage_chunk *chunk,
                   pi2_stage_tail *tail, void *argument, unsigned member) {
    pi2_stage_work(list, index, chunk_count, chunk, tail, argument, member);
    pi2_stage_wait(list, index);
}
