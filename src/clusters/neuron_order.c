/* neuron_order.c: hot neurons first, then cold ones beside those that they fire with. */
#include "clusters/neuron_order.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "statistics/neuron_samples.h"

/* With fewer samples a cold neuron fires in one or none, and its company is chance. */
enum { LEAST_SAMPLES = 64, MOST_IN_CHAIN = 16384 };

pi2_status pi2_neuron_order_check(const pi2_neuron_statistics *statistics, const char *name, uint64_t model_hash,
                                  const pi2_neuron_banks *banks) {
    if (statistics->model_hash != model_hash) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: these are statistics of another model: make them from this one", name);
    }
    for (uint32_t i = 0; i < banks->count; i++) {
        const pi2_neuron_bank *bank = &banks->banks[i];
        const pi2_statistics_entry *entry = pi2_neuron_statistics_find(statistics, bank->layer, bank->expert);
        if (entry && entry->neuron_count != bank->neuron_count) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: statistics of %" PRIu32 " neurons in layer %" PRIu32
                            ", and the model has %" PRIu32 " there: make them from this model", name,
                            entry->neuron_count, bank->layer, bank->neuron_count);
        }
    }
    return PI2_OK;
}

static int compare_keys(const void *a, const void *b) {
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/** keys: room for `count`. Sorted, the most frequent neuron comes first, of equal ones the lower number. Returns how
 *  many are hot. */
static uint32_t order_by_count(const uint32_t *fired, uint32_t count, uint64_t *keys, uint32_t *order) {
    uint64_t total = 0, hot_firings = 0;
    uint32_t hot = 0;
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = (uint64_t)(UINT32_MAX - fired[i]) << 32 | i;
        total += fired[i];
    }
    qsort(keys, count, sizeof *keys, compare_keys);
    for (uint32_t i = 0; i < count; i++) order[i] = (uint32_t)keys[i];
    while (hot < count && 5 * hot_firings < 4 * total) hot_firings += fired[order[hot++]];
    return hot;
}

/* ---- cold neurons that fire together ---- */

enum { SET_WORDS = PI2_STATISTICS_SAMPLES / 64 };

/** A cold neuron and the samples in which it fired. */
typedef struct cold_neuron {
    uint64_t set[SET_WORDS];
    uint32_t size, fired, neuron;
} cold_neuron;

static unsigned count_bits(uint64_t bits) {
    bits -= bits >> 1 & UINT64_C(0x5555555555555555);
    bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
    bits = (bits + (bits >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (unsigned)(bits * UINT64_C(0x0101010101010101) >> 56);
}

static uint32_t count_common(const cold_neuron *a, const cold_neuron *b) {
    uint32_t common = 0;
    for (int w = 0; w < SET_WORDS; w++) common += count_bits(a->set[w] & b->set[w]);
    return common;
}

static uint32_t distance(uint32_t a, uint32_t b) { return a > b ? a - b : b - a; }

/** The neuron of `rest` that shares the largest part of its samples and those of `last`; of equal ones that which fires
 *  about as often, then the lower number: so the order does not depend on where they lie. */
static uint32_t find_next(const cold_neuron *last, const cold_neuron *rest, uint32_t count) {
    uint32_t best = 0, best_common = 0, best_all = 1;
    for (uint32_t i = 0; i < count; i++) {
        const cold_neuron *it = &rest[i], *there = &rest[best];
        const uint32_t common = count_common(last, it), all = last->size + it->size - common;
        const uint64_t share = (uint64_t)common * best_all, best_share = (uint64_t)best_common * all;
        if (i > 0 && share < best_share) continue;
        const uint32_t far = distance(last->fired, it->fired), best_far = distance(last->fired, there->fired);
        const bool is_nearer = far < best_far || (far == best_far && it->neuron < there->neuron);
        if (i > 0 && share == best_share && !is_nearer) continue;
        best = i;
        best_common = common;
        best_all = all ? all : 1;
    }
    return best;
}

static void exchange(cold_neuron *a, cold_neuron *b) {
    const cold_neuron kept = *a;
    *a = *b;
    *b = kept;
}

/** A chain from the first one on, whose every next link is the neuron that fires most together with the last. */
static void chain(cold_neuron *cold, uint32_t count, uint32_t *order) {
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0) exchange(&cold[i], &cold[i + find_next(&cold[i - 1], cold + i, count - i)]);
        order[i] = cold[i].neuron;
    }
}

/** order: cold neurons, the most frequent first; in steps of MOST_IN_CHAIN, since a chain takes the square of them. */
static void order_by_company(const pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry,
                             const uint32_t *fired, cold_neuron *cold, uint32_t *order, uint32_t count) {
    for (uint32_t begin = 0; begin < count; begin += MOST_IN_CHAIN) {
        const uint32_t left = count - begin, step = left < MOST_IN_CHAIN ? left : MOST_IN_CHAIN;
        for (uint32_t i = 0; i < step; i++) {
            uint32_t words[PI2_STATISTICS_SAMPLED_COLUMNS];
            cold_neuron *it = &cold[i];
            *it = (cold_neuron){ .neuron = order[begin + i], .fired = fired[order[begin + i]] };
            pi2_neuron_samples_get(statistics, entry, it->neuron, words);
            for (int w = 0; w < SET_WORDS; w++) {
                it->set[w] = (uint64_t)words[2 * w + 1] << 32 | words[2 * w];
                it->size += count_bits(it->set[w]);
            }
        }
        chain(cold, step, order + begin);
    }
}

static pi2_status order_counted(const pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry,
                                const uint32_t *fired, bool with_chains, uint32_t *order) {
    const uint32_t count = entry->neuron_count;
    uint64_t *keys = malloc(count * sizeof *keys);
    if (!keys) return pi2_fail(PI2_ERR_MEMORY, "no memory to order %" PRIu32 " neurons", count);
    const uint32_t hot = order_by_count(fired, count, keys, order), cold_count = count - hot;
    free(keys);
    if (!with_chains || statistics->sample_count < LEAST_SAMPLES) return PI2_OK;
    const uint32_t at_once = cold_count < MOST_IN_CHAIN ? cold_count : MOST_IN_CHAIN;
    cold_neuron *cold = malloc((at_once + (size_t)1) * sizeof *cold);
    if (!cold) return pi2_fail(PI2_ERR_MEMORY, "no memory to order %" PRIu32 " neurons", count);
    order_by_company(statistics, entry, fired, cold, order + hot, cold_count);
    free(cold);
    return PI2_OK;
}

static pi2_status make_order(const pi2_neuron_statistics *statistics, const pi2_neuron_bank *bank, bool with_chains,
                             uint32_t *order) {
    const uint32_t count = bank->neuron_count;
    const pi2_statistics_entry *entry =
        statistics ? pi2_neuron_statistics_find(statistics, bank->layer, bank->expert) : NULL;
    const uint32_t *given = entry ? pi2_neuron_statistics_column(statistics, PI2_STATISTICS_ORDER, entry) : NULL;
    const uint32_t *fired = entry ? pi2_neuron_statistics_column(statistics, PI2_STATISTICS_FIRED, entry) : NULL;
    if (fired && !given) return order_counted(statistics, entry, fired, with_chains, order);
    for (uint32_t i = 0; i < count; i++) order[i] = given ? given[i] : i;
    return PI2_OK;
}

pi2_status pi2_neuron_order_make(const pi2_neuron_statistics *statistics, const pi2_neuron_bank *bank,
                                 uint32_t *order) {
    return make_order(statistics, bank, true, order);
}

pi2_status pi2_neuron_order_estimate(const pi2_neuron_statistics *statistics, const pi2_neuron_bank *bank,
                                     uint32_t *order) {
    return make_order(statistics, bank, false, order);
}
