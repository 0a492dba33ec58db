/* mix.c: how often and how lately a key was used, mixed, of the next few only. */
#include "neuron_cache/unit_slots.h"

static uint32_t mix_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    return unit_slots_evict(state, "mix", may, user);
}

const pi2_cache_policy pi2_cache_policy_mix = {
    .name = "mix", .description = "of the next few, how lately and how often mixed",
    .bytes = unit_slots_bytes, .init = unit_slots_init, .hit = unit_slots_hit, .admit = unit_slots_admit,
    .evict = mix_evict, .forget = unit_slots_forget, .resize = pi2_cache_policy_any_size,
    .begin_pass = unit_slots_begin_pass, .begin_layer = unit_slots_begin_layer,
};
