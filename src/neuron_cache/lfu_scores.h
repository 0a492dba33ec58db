/*
 * lfu_scores.h: scores for policies by frequency: the key with the lowest score leaves.
 *
 * Every use adds an amount to its key's score, and the amount grows by a constant factor from use
 * to use: so scores need no aging pass, they are uses weighted by age. Keys keep their score while
 * they are absent: one that returns often is known when it comes again, and a scan of keys that
 * are used once pushes nothing out that is used twice. The half-life is given in uses for each key
 * that exists.
 */
#ifndef PI2_NEURON_CACHE_LFU_SCORES_H
#define PI2_NEURON_CACHE_LFU_SCORES_H

#include <string.h>

#include "neuron_cache/cache_policy.h"

typedef struct lfu_state {
    double amount, growth;
    double *scores;        /* of every key */
    uint32_t *present;     /* the keys that are present, in any order */
    uint32_t *place;       /* of each key in present */
    uint32_t present_count, key_count;
} lfu_state;

static inline size_t lfu_bytes(uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    return sizeof(lfu_state) + (size_t)key_count * (sizeof(double) + 2 * sizeof(uint32_t));
}

static inline void lfu_start(void *state, uint32_t key_count, double half_life) {
    lfu_state *lfu = state;
    lfu->amount = 1;
    lfu->growth = 1.0 + 0.69314718 / (half_life * (key_count ? (double)key_count : 1.0));
    lfu->scores = (double *)(lfu + 1);
    lfu->present = (uint32_t *)(lfu->scores + key_count);
    lfu->place = lfu->present + key_count;
    lfu->present_count = 0;
    lfu->key_count = key_count;
    memset(lfu->scores, 0, key_count * sizeof *lfu->scores);
}

static inline void lfu_hit(void *state, uint32_t key) {
    lfu_state *lfu = state;
    lfu->amount *= lfu->growth;
    lfu->scores[key] += lfu->amount;
    if (lfu->amount < 1e200) return;
    for (uint32_t i = 0; i < lfu->key_count; i++) lfu->scores[i] *= 1e-200;
    lfu->amount *= 1e-200;
}

static inline void lfu_admit(void *state, uint32_t key) {
    lfu_state *lfu = state;
    lfu_hit(state, key);
    lfu->place[key] = lfu->present_count;
    lfu->present[lfu->present_count++] = key;
}

static inline void lfu_forget(void *state, uint32_t key) {
    lfu_state *lfu = state;
    const uint32_t last = lfu->present[--lfu->present_count];
    lfu->present[lfu->place[key]] = last;
    lfu->place[last] = lfu->place[key];
}

static inline uint32_t lfu_evict(void *state, pi2_cache_may_evict *may, const void *user) {
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

#endif
