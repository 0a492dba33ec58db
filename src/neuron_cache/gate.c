/* gate.c: of the next few, how near to firing a key was, where that is told, how often and how lately it was used. */
#include "neuron_cache/unit_slots.h"

static uint32_t gate_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    return unit_slots_evict(state, "gate", may, user);
}

const pi2_cache_policy pi2_cache_policy_gate = {
    .name = "gate", .description = "of the next few, how near to firing; of experts as mix",
    .bytes = unit_slots_bytes, .init = unit_slots_init, .hit = unit_slots_hit, .admit = unit_slots_admit,
    .evict = gate_evict, .forget = unit_slots_forget, .resize = pi2_cache_policy_any_size,
    .begin_pass = unit_slots_begin_pass, .begin_layer = unit_slots_begin_layer, .tell_near = unit_slots_tell_near,
};
