/* neuron_order.c: hot neurons first. */
#include "clusters/neuron_order.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"

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

/** keys: room for `count`. Sorted, the most frequent neuron comes first, of equal ones the lower number. */
static void order_by_count(const uint32_t *fired, uint32_t count, uint64_t *keys, uint32_t *order) {
    uint64_t total = 0, hot_firings = 0;
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = (uint64_t)(UINT32_MAX - fired[i]) << 32 | i;
        total += fired[i];
    }
    qsort(keys, count, sizeof *keys, compare_keys);
    uint32_t hot = 0;
    for (; hot < count && 5 * hot_firings < 4 * total; hot++) {
        order[hot] = (uint32_t)keys[hot];
        hot_firings += fired[order[hot]];
    }
    /* What is cold goes by its number again. */
    for (uint32_t i = hot; i < count; i++) keys[i] &= UINT32_MAX;
    qsort(keys + hot, count - hot, sizeof *keys, compare_keys);
    for (uint32_t i = hot; i < count; i++) order[i] = (uint32_t)keys[i];
}

pi2_status pi2_neuron_order_make(const pi2_neuron_statistics *statistics, const pi2_neuron_bank *bank,
                                 uint32_t *order) {
    const uint32_t count = bank->neuron_count;
    const pi2_statistics_entry *entry =
        statistics ? pi2_neuron_statistics_find(statistics, bank->layer, bank->expert) : NULL;
    const uint32_t *given = entry ? pi2_neuron_statistics_column(statistics, PI2_STATISTICS_ORDER, entry) : NULL;
    const uint32_t *fired = entry ? pi2_neuron_statistics_column(statistics, PI2_STATISTICS_FIRED, entry) : NULL;
    if (given) {
        memcpy(order, given, count * sizeof *order);
    } else if (fired) {
        uint64_t *keys = malloc(count * sizeof *keys);
        if (!keys) return pi2_fail(PI2_ERR_MEMORY, "no memory to order %" PRIu32 " neurons", count);
        order_by_count(fired, count, keys, order);
        free(keys);
    } else {
        for (uint32_t i = 0; i < count; i++) order[i] = i;
    }
    return PI2_OK;
}
