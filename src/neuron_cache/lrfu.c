/*
 * lrfu.c: between recency and frequency (Lee et al., 2001): the same scores as lfu with a short memory: for experts
 * that repeat from token to token.
 */
#include "neuron_cache/lfu_scores.h"

static void lrfu_init(void *state, uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    lfu_start(state, key_count, 0.25); /* uses for each key: a few tokens */
}

const pi2_cache_policy pi2_cache_policy_lrfu = {
    .name = "lrfu", .description = "recency and frequency mixed, over a few tokens", .bytes = lfu_bytes,
    .init = lrfu_init,
    .hit = lfu_hit, .admit = lfu_admit, .evict = lfu_evict, .forget = lfu_forget,
    .resize = pi2_cache_policy_any_size,
};
