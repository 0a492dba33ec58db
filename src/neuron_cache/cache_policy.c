/* cache_policy.c: the list of policies. */
#include "neuron_cache/cache_policy.h"

#include <string.h>

#define CACHE_POLICY(name) extern const pi2_cache_policy pi2_cache_policy_##name;
#include "neuron_cache/cache_policies.inc"
#undef CACHE_POLICY

const pi2_cache_policy *const pi2_cache_policies[] = {
#define CACHE_POLICY(name) &pi2_cache_policy_##name,
#include "neuron_cache/cache_policies.inc"
#undef CACHE_POLICY
};
const size_t pi2_cache_policy_count = sizeof pi2_cache_policies / sizeof pi2_cache_policies[0];

void pi2_cache_policy_any_size(void *state, uint32_t slot_count) {
    (void)state;
    (void)slot_count;
}

const pi2_cache_policy *pi2_cache_policy_find(const char *name) {
    if (strcmp(name, "auto") == 0) return pi2_cache_policies[0];
    for (size_t i = 0; i < pi2_cache_policy_count; i++) {
        if (strcmp(pi2_cache_policies[i]->name, name) == 0) return pi2_cache_policies[i];
    }
    return NULL;
}
