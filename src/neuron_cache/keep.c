/*
 * keep.c: what came last leaves first, so what is there stays there: a static partition. The right
 * thing when every expert is as likely as any other, where recency and frequency say nothing.
 */
#include "neuron_cache/cache_policy.h"
#include "neuron_cache/key_list.h"

typedef struct keep_state {
    pi2_key_links links;
    pi2_key_list list; /* by arrival */
} keep_state;

static size_t keep_bytes(uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    return sizeof(keep_state) + (size_t)key_count * 2 * sizeof(uint32_t);
}

static void keep_init(void *state, uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    keep_state *keep = state;
    keep->links.next = (uint32_t *)(keep + 1);
    keep->links.prev = keep->links.next + key_count;
    pi2_key_list_init(&keep->list);
}

static void keep_hit(void *state, uint32_t key) {
    (void)state;
    (void)key;
}

static void keep_admit(void *state, uint32_t key) {
    keep_state *keep = state;
    pi2_key_list_push(&keep->list, &keep->links, key);
}

static void keep_forget(void *state, uint32_t key) {
    keep_state *keep = state;
    pi2_key_list_remove(&keep->list, &keep->links, key);
}

static uint32_t keep_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    keep_state *keep = state;
    for (uint32_t key = keep->list.first; key != UINT32_MAX; key = keep->links.next[key]) {
        if (!may(user, key)) continue;
        keep_forget(state, key);
        return key;
    }
    return UINT32_MAX;
}

const pi2_cache_policy pi2_cache_policy_keep = {
    .name = "keep", .description = "what came first stays: a static partition", .bytes = keep_bytes,
    .init = keep_init, .hit = keep_hit, .admit = keep_admit, .evict = keep_evict, .forget = keep_forget,
    .resize = pi2_cache_policy_any_size,
};
