/*
 * cache_policy.h: which expert leaves when another needs its slot; the replay of single neurons asks
 * it too. One file a policy, one line in cache_policies.inc; the cache and the offline replay run the
 * same code.
 *
 * A policy knows keys (experts, 0 .. key_count - 1) and which of them are present. It allocates
 * nothing: its state is one block of bytes() bytes. Threads: one at a time.
 */
#ifndef PI2_NEURON_CACHE_CACHE_POLICY_H
#define PI2_NEURON_CACHE_CACHE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Whether a present key may leave now (it is not in use). */
typedef bool pi2_cache_may_evict(const void *user, uint32_t key);

typedef struct pi2_cache_policy {
    const char *name;
    const char *description; /* half a line, for help texts */
    size_t (*bytes)(uint32_t key_count, uint32_t slot_count);
    void (*init)(void *state, uint32_t key_count, uint32_t slot_count);
    /** A present key is used. */
    void (*hit)(void *state, uint32_t key);
    /** An absent key is used, and present from now on. At most slot_count keys are present. */
    void (*admit)(void *state, uint32_t key);
    /** Chooses a present key that may leave; it is absent from now on. UINT32_MAX: none may. */
    uint32_t (*evict)(void *state, pi2_cache_may_evict *may, const void *user);
    /** A present key is absent from now on (its bytes could not be read). */
    void (*forget)(void *state, uint32_t key);
    /** The cache has so many slots from now on: one or more, at most those of init(). No more keys are present. */
    void (*resize)(void *state, uint32_t slot_count);
    /** A pass begins, or a batch that stands for so many. NULL: the policy asks for none; nor do adaptive's shadows. */
    void (*begin_pass)(void *state, uint32_t passes);
    /** A layer of the pass is demanded: keys from end_key on are of layers that are still to come. NULL: as above. */
    void (*begin_layer)(void *state, uint32_t end_key);
    /** How near the units of the layer that is demanded are to firing (unit_near.h), from this key on. NULL: the
     *  same. */
    void (*tell_near)(void *state, uint32_t first_key, const uint8_t *near, uint32_t count);
    bool looks_at_all; /* evict() looks at every present key: a replay of many keys would take too long */
} pi2_cache_policy;

/** The resize() of a policy that asks for no number of slots. */
void pi2_cache_policy_any_size(void *state, uint32_t slot_count);

extern const pi2_cache_policy *const pi2_cache_policies[];
extern const size_t pi2_cache_policy_count;
/** By name; NULL: unknown. "auto" is the default, chosen on recorded traces (docs/cache.md). */
const pi2_cache_policy *pi2_cache_policy_find(const char *name);

#endif
