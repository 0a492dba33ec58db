/* lru.c: the one that was not used for the longest time leaves. Below one token's demand it hits nothing. */
#include "neuron_cache/cache_policy.h"
#include "neuron_cache/key_list.h"

typedef struct lru_state {
    pi2_key_links links;
    pi2_key_list list; /* by last use */
} lru_state;

static size_t lru_bytes(uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    return sizeof(lru_state) + (size_t)key_count * 2 * sizeof(uint32_t);
}

static void lru_init(void *state, uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    lru_state *lru = state;
    lru->links.next = (uint32_t *)(lru + 1);
    lru->links.prev = lru->links.next + key_count;
    pi2_key_list_init(&lru->list);
}

static void lru_admit(void *state, uint32_t key) {
    lru_state *lru = state;
    pi2_key_list_push(&lru->list, &lru->links, key);
}

static void lru_forget(void *state, uint32_t key) {
    lru_state *lru = state;
    pi2_key_list_remove(&lru->list, &lru->links, key);
}

static void lru_hit(void *state, uint32_t key) {
    lru_forget(state, key);
    lru_admit(state, key);
}

static uint32_t lru_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    lru_state *lru = state;
    for (uint32_t key = lru->list.last; key != UINT32_MAX; key = lru->links.prev[key]) {
        if (!may(user, key)) continue;
        lru_forget(state, key);
        return key;
    }
    return UINT32_MAX;
}

const pi2_cache_policy pi2_cache_policy_lru = {
    .name = "lru", .description = "least recently used", .bytes = lru_bytes, .init = lru_init, .hit = lru_hit,
    .admit = lru_admit, .evict = lru_evict, .forget = lru_forget,
    .resize = pi2_cache_policy_any_size,
};
