/*
 * lfu.c: the one that was used least often leaves, uses counting less the older they are.
 *
 * Every use adds an amount to its key's score, and the amount grows by a constant factor from use
 * to use: so scores need no aging pass, they are uses weighted by age. Keys keep their score while
 * they are absent: one that returns often is known when it comes again, and a scan of keys that
 * are used once pushes nothing out that is used twice. The half-life is HALF_LIFE uses for each
 * key that exists: some tens of tokens.
 */
#include <string.h>

#include "neuron_cache/cache_policy.h"

enum { HALF_LIFE = 4 };

typedef struct lfu_state {
    double amount, growth;
    double *scores;        /* of every key */
    uint32_t *present;     /* the keys that are present, in any order */
    uint32_t *place;       /* of each key in present */
    uint32_t present_count, key_count;
} lfu_state;

static size_t lfu_bytes(uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    return sizeof(lfu_state) + (size_t)key_count * (sizeof(double) + 2 * sizeof(uint32_t));
}

static void lfu_init(void *state, uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    lfu_state *lfu = state;
    lfu->amount = 1;
    lfu->growth = 1.0 + 0.69314718 / (HALF_LIFE * (key_count ? (double)key_count : 1.0));
    lfu->scores = (double *)(lfu + 1);
    lfu->present = (uint32_t *)(lfu->scores + key_count);
    lfu->place = lfu->present + key_count;
    lfu->present_count = 0;
    lfu->key_count = key_count;
    memset(lfu->scores, 0, key_count * sizeof *lfu->scores);
}

static void lfu_hit(void *state, uint32_t key) {
    lfu_state *lfu = state;
    lfu->amount *= lfu->growth;
    lfu->scores[key] += lfu->amount;
    if (lfu->amount < 1e200) return;
    for (uint32_t i = 0; i < lfu->key_count; i++) lfu->scores[i] *= 1e-200;
    lfu->amount *= 1e-200;
}

static void lfu_admit(void *state, uint32_t key) {
    lfu_state *lfu = state;
    lfu_hit(state, key);
    lfu->place[key] = lfu->present_count;
    lfu->present[lfu->present_count++] = key;
}

static void lfu_forget(void *state, uint32_t key) {
    lfu_state *lfu = state;
    const uint32_t last = lfu->present[--lfu->present_count];
    lfu->present[lfu->place[key]] = last;
    lfu->place[last] = lfu->place[key];
}

static uint32_t lfu_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    lfu_state *lfu = state;
    uint32_t worst = UINT32_MAX;
    for (uint32_t i = 0; i < lfu->present_count; i++) {
        const uint32_t key = lfu->present[i];
        if (worst != UINT32_MAX && lfu->scores[key] >= lfu->scores[worst]) continue;
        if (may(user, key)) worst = key;
    }
    if (worst != UINT32_MAX) lfu_forget(state, worst);
    return worst;
}

const pi2_cache_policy pi2_cache_policy_lfu = {
    .name = "lfu", .description = "least frequently used, uses weighted by age", .bytes = lfu_bytes,
    .init = lfu_init, .hit = lfu_hit, .admit = lfu_admit, .evict = lfu_evict, .forget = lfu_forget,
};
