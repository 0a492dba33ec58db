/*
 * lfu.c: the one that was used least often leaves, uses counting less the older they are: for experts whose
 * popularity lasts.
 */
#include "neuron_cache/lfu_scores.h"

static void lfu_init(void *state, uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    lfu_start(state, key_count, 4); /* uses for each key: some tens of tokens */
}

const pi2_cache_policy pi2_cache_policy_lfu = {
    .name = "lfu", .description = "least frequently used, over some tens of tokens", .bytes = lfu_bytes,
    .init = lfu_init,
    .hit = lfu_hit, .admit = lfu_admit, .evict = lfu_evict, .forget = lfu_forget,
    .resize = pi2_cache_policy_any_size,
};
