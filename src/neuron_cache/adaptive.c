/*
 * adaptive.c: does what the best of the other policies would do.
 *
 * Every use is played against each of the others in a shadow cache of as many slots, which holds keys
 * and no data. Whose shadow missed least of late leads. The cache follows the leader: out goes a key
 * that the leader's shadow does not hold, the longest unused first. So a change of the leader costs no
 * reads of its own, and on steady use the cache soon holds what the leader's would.
 */
#include <string.h>

#include "neuron_cache/cache_policy.h"
#include "neuron_cache/key_list.h"

#define CACHE_POLICY(name) extern const pi2_cache_policy pi2_cache_policy_##name;
#include "neuron_cache/cache_policies.inc"
#undef CACHE_POLICY

enum { SHADOWS = 6, MEMORY_USES = 8, ALIGNMENT = 16 };

static const pi2_cache_policy *const candidates[SHADOWS] = {
    &pi2_cache_policy_blend, &pi2_cache_policy_lrfu, &pi2_cache_policy_keep, &pi2_cache_policy_s3_fifo,
    &pi2_cache_policy_lru, &pi2_cache_policy_lfu };

typedef struct shadow {
    void *state;
    uint8_t *present;
    uint32_t count;
    double misses;        /* weighted by age */
} shadow;

typedef struct adaptive_state {
    pi2_key_links links;
    pi2_key_list list;    /* the keys that are present, by last use */
    uint8_t *present;     /* of each key */
    shadow shadows[SHADOWS];
    uint32_t slot_count, leader;
    double fading;        /* of misses, with every use */
} adaptive_state;

static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static size_t adaptive_bytes(uint32_t key_count, uint32_t slot_count) {
    size_t bytes = aligned(sizeof(adaptive_state)) + aligned((size_t)key_count * 2 * sizeof(uint32_t)) +
                   aligned(key_count);
    for (int i = 0; i < SHADOWS; i++) {
        bytes += aligned(candidates[i]->bytes(key_count, slot_count)) + aligned(key_count);
    }
    return bytes;
}

static void adaptive_init(void *state, uint32_t key_count, uint32_t slot_count) {
    adaptive_state *own = state;
    uint8_t *at = (uint8_t *)state + aligned(sizeof *own);
    memset(own, 0, sizeof *own);
    own->links.next = (uint32_t *)(void *)at;
    own->links.prev = own->links.next + key_count;
    at += aligned((size_t)key_count * 2 * sizeof(uint32_t));
    own->present = at;
    memset(own->present, 0, key_count);
    at += aligned(key_count);
    pi2_key_list_init(&own->list);
    own->slot_count = slot_count;
    own->fading = 1.0 - 1.0 / (MEMORY_USES * (key_count ? (double)key_count : 1.0));
    for (int i = 0; i < SHADOWS; i++) {
        own->shadows[i].state = at;
        at += aligned(candidates[i]->bytes(key_count, slot_count));
        own->shadows[i].present = at;
        at += aligned(key_count);
        memset(own->shadows[i].present, 0, key_count);
        candidates[i]->init(own->shadows[i].state, key_count, slot_count);
    }
}

static bool anyone(const void *user, uint32_t key) {
    (void)user;
    (void)key;
    return true;
}

/* The shadow's policy lets one go. */
static void evict_from(shadow *s, const pi2_cache_policy *policy) {
    s->present[policy->evict(s->state, anyone, NULL)] = 0;
    s->count--;
}

/* Plays one use in every shadow, and looks who leads. */
static void play(adaptive_state *own, uint32_t key) {
    for (int i = 0; i < SHADOWS; i++) {
        shadow *s = &own->shadows[i];
        s->misses *= own->fading;
        if (s->present[key]) {
            candidates[i]->hit(s->state, key);
            continue;
        }
        s->misses += 1;
        if (s->count == own->slot_count) evict_from(s, candidates[i]);
        candidates[i]->admit(s->state, key);
        s->present[key] = 1;
        s->count++;
    }
    for (uint32_t i = 0; i < SHADOWS; i++) { /* by a little, lest two that are alike take turns */
        if (own->shadows[i].misses < 0.98 * own->shadows[own->leader].misses) own->leader = i;
    }
}

static void adaptive_forget(void *state, uint32_t key) {
    adaptive_state *own = state;
    pi2_key_list_remove(&own->list, &own->links, key);
    own->present[key] = 0;
}

static void adaptive_admit(void *state, uint32_t key) {
    adaptive_state *own = state;
    own->present[key] = 1;
    pi2_key_list_push(&own->list, &own->links, key);
    play(own, key);
}

static void adaptive_hit(void *state, uint32_t key) {
    adaptive_forget(state, key);
    adaptive_admit(state, key);
}

/* Shadows of another size than the cache would tell whose misses are fewest in a cache that is not there. */
static void adaptive_resize(void *state, uint32_t slot_count) {
    adaptive_state *own = state;
    own->slot_count = slot_count;
    for (int i = 0; i < SHADOWS; i++) {
        shadow *s = &own->shadows[i];
        while (s->count > slot_count) evict_from(s, candidates[i]);
        candidates[i]->resize(s->state, slot_count);
    }
}

/* Of the leader's keys only those that are here can leave here. */
typedef struct here_and_may {
    const adaptive_state *own;
    pi2_cache_may_evict *may;
    const void *user;
} here_and_may;

static bool is_here_and_may(const void *user, uint32_t key) {
    const here_and_may *both = user;
    return both->own->present[key] && both->may(both->user, key);
}

static uint32_t adaptive_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    adaptive_state *own = state;
    shadow *leader = &own->shadows[own->leader];
    for (uint32_t key = own->list.last; key != UINT32_MAX; key = own->links.prev[key]) {
        if (leader->present[key] || !may(user, key)) continue;
        adaptive_forget(state, key);
        return key;
    }
    /* What may leave is in the shadow too: the leader says which one goes, from both. */
    const here_and_may both = { own, may, user };
    const uint32_t key = candidates[own->leader]->evict(leader->state, is_here_and_may, &both);
    if (key == UINT32_MAX) return UINT32_MAX;
    leader->present[key] = 0;
    leader->count--;
    adaptive_forget(state, key);
    return key;
}

const pi2_cache_policy pi2_cache_policy_adaptive = {
    .name = "adaptive", .description = "whichever of the others would have missed least of late",
    .bytes = adaptive_bytes, .init = adaptive_init, .hit = adaptive_hit, .admit = adaptive_admit,
    .evict = adaptive_evict, .forget = adaptive_forget, .resize = adaptive_resize, .looks_at_all = true,
};
