/* heat.c: how often a key was used, uses fading from pass to pass, of the next few only. */
#include "neuron_cache/unit_slots.h"

static uint32_t heat_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    return unit_slots_evict(state, "heat", may, user);
}

const pi2_cache_policy pi2_cache_policy_heat = {
    .name = "heat", .description = "the least used of the next few, uses fading",
    .bytes = unit_slots_bytes, .init = unit_slots_init, .hit = unit_slots_hit, .admit = unit_slots_admit,
    .evict = heat_evict, .forget = unit_slots_forget, .resize = pi2_cache_policy_any_size,
    .begin_pass = unit_slots_begin_pass, .begin_layer = unit_slots_begin_layer,
};
