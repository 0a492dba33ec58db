/*
 * lfu_scores.h: scores for policies by frequency: the key with the lowest score leaves.
 *
 * Every use adds an amount to its key's score, and the amount grows by a constant factor from use
 * to use: so scores need no aging pass, they are uses weighted by age. Keys keep their score while
 * they are absent: one that returns often is known when it comes again, and a scan of keys that
 * are used once pushes nothing out that is used twice. The half-life is given in uses for each key
 * that exists. The keys that are present are a heap, the lowest score on top.
 */
#ifndef PI2_NEURON_CACHE_LFU_SCORES_H
#define PI2_NEURON_CACHE_LFU_SCORES_H

#include <string.h>

#include "neuron_cache/cache_policy.h"

typedef struct lfu_state {
    double amount, growth;
    double *scores;        /* of every key */
    uint32_t *present;     /* the keys that are present: entry i's score is no higher than those of 2 i + 1, 2 i + 2 */
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

static inline void lfu_put(lfu_state *lfu, uint32_t at, uint32_t key) {
    lfu->present[at] = key;
    lfu->place[key] = at;
}

/* A key that is to be at `at` goes up or down to where it belongs among the first `count`. */
static inline void lfu_settle(lfu_state *lfu, uint32_t at, uint32_t key, uint32_t count) {
    const double score = lfu->scores[key];
    for (; at > 0 && lfu->scores[lfu->present[(at - 1) / 2]] > score; at = (at - 1) / 2) {
        lfu_put(lfu, at, lfu->present[(at - 1) / 2]);
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && lfu->scores[lfu->present[child + 1]] < lfu->scores[lfu->present[child]]) child++;
        if (lfu->scores[lfu->present[child]] >= score) break;
        lfu_put(lfu, at, lfu->present[child]);
        at = child;
    }
    lfu_put(lfu, at, key);
}

static inline void lfu_count(lfu_state *lfu, uint32_t key) {
    lfu->amount *= lfu->growth;
    lfu->scores[key] += lfu->amount;
    if (lfu->amount < 1e200) return;
    for (uint32_t i = 0; i < lfu->key_count; i++) lfu->scores[i] *= 1e-200;
    lfu->amount *= 1e-200;
}

static inline void lfu_hit(void *state, uint32_t key) {
    lfu_state *lfu = state;
    lfu_count(lfu, key);
    lfu_settle(lfu, lfu->place[key], key, lfu->present_count);
}

static inline void lfu_admit(void *state, uint32_t key) {
    lfu_state *lfu = state;
    lfu_count(lfu, key);
    lfu->present_count++;
    lfu_settle(lfu, lfu->present_count - 1, key, lfu->present_count);
}

static inline void lfu_forget(void *state, uint32_t key) {
    lfu_state *lfu = state;
    const uint32_t last = lfu->present[--lfu->present_count];
    if (last != key) lfu_settle(lfu, lfu->place[key], last, lfu->present_count);
}

/* The entry after all that lie below `at`; 0: there is none. */
static inline uint32_t lfu_beside(uint32_t at) {
    while (at > 0 && at % 2 == 0) at = (at - 1) / 2;
    return at > 0 ? at + 1 : 0;
}

/* Looks below those that may not leave, as far as something lower may be there. */
static inline uint32_t lfu_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    lfu_state *lfu = state;
    uint32_t worst = UINT32_MAX, at = 0;
    if (lfu->present_count == 0) return worst;
    do {
        const bool is_there = at < lfu->present_count;
        const uint32_t key = is_there ? lfu->present[at] : UINT32_MAX;
        const bool is_lower = is_there && (worst == UINT32_MAX || lfu->scores[key] < lfu->scores[worst]);
        const bool leaves = is_lower && may(user, key);
        if (leaves) worst = key;
        at = is_lower && !leaves ? 2 * at + 1 : lfu_beside(at);
    } while (at != 0);
    if (worst != UINT32_MAX) lfu_forget(state, worst);
    return worst;
}

#endif
