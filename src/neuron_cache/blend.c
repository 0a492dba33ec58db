/*
 * blend.c: how likely a key is in the next pass, from how often it was used lately and for long.
 *
 * A layer is visited once a pass, so time counts passes, not uses: of two experts that the last token used,
 * none is older because its layer came first, and one whose layer has not come yet in this pass missed no
 * chance. A key's score mixes two shares of passes that used it, one weighted over about a pass (experts repeat
 * from token to token), one over some tens (some are used more than others). The lowest leaves.
 *
 * Passes are told apart by the keys, which ascend within one: a long way back begins the next.
 */
#include <string.h>

#include "neuron_cache/cache_policy.h"

/* Half-lives in passes, and the share of the long one in the score: the best on recorded traces, flat around. */
static const double recent_half_life = 1, frequent_half_life = 40, frequent_share = 0.3;
static const double too_large = 1e200;

/* Uses weighted by age. Every use adds an amount that grows from pass to pass, so nothing has to be aged. */
typedef struct weighted_uses {
    double *sums;          /* of every key */
    double amount, growth;
} weighted_uses;

typedef struct blend_state {
    weighted_uses recent, frequent;
    uint32_t *present, *place; /* the keys that are present, in any order; where each is in it */
    uint32_t present_count, key_count, position;
} blend_state;

static size_t blend_bytes(uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    return sizeof(blend_state) + (size_t)key_count * 2 * (sizeof(double) + sizeof(uint32_t));
}

static void start(weighted_uses *uses, double *sums, double half_life) {
    *uses = (weighted_uses){ .sums = sums, .amount = 1, .growth = 1 };
    /* 2^(1 / half_life), by its series: no library function, whose last bit differs between systems */
    double term = 1;
    for (int i = 1; i < 30; i++) {
        term *= 0.69314718055994531 / half_life / i;
        uses->growth += term;
    }
}

static void blend_init(void *state, uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    blend_state *own = state;
    double *sums = (double *)(own + 1);
    memset(sums, 0, (size_t)key_count * 2 * sizeof *sums);
    start(&own->recent, sums, recent_half_life);
    start(&own->frequent, sums + key_count, frequent_half_life);
    own->present = (uint32_t *)(sums + (size_t)2 * key_count);
    own->place = own->present + key_count;
    own->present_count = own->position = 0;
    own->key_count = key_count;
}

static void next_pass(weighted_uses *uses, uint32_t key_count) {
    uses->amount *= uses->growth;
    if (uses->amount < too_large) return;
    for (uint32_t key = 0; key < key_count; key++) uses->sums[key] /= uses->amount;
    uses->amount = 1;
}

static void blend_hit(void *state, uint32_t key) {
    blend_state *own = state;
    if (own->position > key && own->position - key > own->key_count / 2) {
        next_pass(&own->recent, own->key_count);
        next_pass(&own->frequent, own->key_count);
    }
    own->position = key;
    own->recent.sums[key] += own->recent.amount;
    own->frequent.sums[key] += own->frequent.amount;
}

static void blend_admit(void *state, uint32_t key) {
    blend_state *own = state;
    blend_hit(state, key);
    own->place[key] = own->present_count;
    own->present[own->present_count++] = key;
}

static void blend_forget(void *state, uint32_t key) {
    blend_state *own = state;
    const uint32_t last = own->present[--own->present_count];
    own->present[own->place[key]] = last;
    own->place[last] = own->place[key];
}

/* What a sum is worth now, so that a key of every pass has 1. */
static double unit(const weighted_uses *uses) { return (1 - 1 / uses->growth) / uses->amount; }

static uint32_t blend_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    blend_state *own = state;
    const double recent = unit(&own->recent) * (1 - frequent_share), frequent = unit(&own->frequent) * frequent_share;
    uint32_t worst = UINT32_MAX;
    double least = 0;
    for (uint32_t i = 0; i < own->present_count; i++) {
        const uint32_t key = own->present[i];
        const bool to_come = key > own->position; /* in this pass: a pass less has gone by without it */
        const double score = own->recent.sums[key] * recent * (to_come ? own->recent.growth : 1) +
                             own->frequent.sums[key] * frequent * (to_come ? own->frequent.growth : 1);
        if ((worst == UINT32_MAX || score < least) && may(user, key)) {
            worst = key;
            least = score;
        }
    }
    if (worst != UINT32_MAX) blend_forget(state, worst);
    return worst;
}

const pi2_cache_policy pi2_cache_policy_blend = {
    .name = "blend", .description = "uses of the last tokens and of the last tens, mixed",
    .bytes = blend_bytes, .init = blend_init, .hit = blend_hit,
    .admit = blend_admit, .evict = blend_evict, .forget = blend_forget,
    .resize = pi2_cache_policy_any_size, .looks_at_all = true,
};
