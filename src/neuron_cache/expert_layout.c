/* expert_layout.c: the experts of a layout: how many, and how large. */
#include "neuron_cache/expert_cache.h"

static uint64_t group_read_bytes(const pi2_extent_layout *layout, const pi2_group *group, bool gates_only) {
    const uint32_t count = gates_only ? group->gate_extents : group->extent_count;
    uint64_t bytes = 0;
    for (uint32_t e = 0; e < count; e++) {
        bytes += pi2_extent_read_bytes(&layout->extents[group->first_extent + e]);
    }
    return bytes;
}

uint32_t pi2_expert_cache_keys(const pi2_extent_layout *layout) {
    uint32_t keys = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) keys += layout->groups[g].kind == PI2_GROUP_EXPERT;
    return keys;
}

static uint64_t slot_bytes(const pi2_extent_layout *layout, bool gates_only) {
    uint64_t most = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind != PI2_GROUP_EXPERT) continue;
        const uint64_t bytes = group_read_bytes(layout, &layout->groups[g], gates_only);
        if (bytes > most) most = bytes;
    }
    return most;
}

static uint64_t all_bytes(const pi2_extent_layout *layout, bool gates_only) {
    uint64_t bytes = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind != PI2_GROUP_EXPERT) continue;
        bytes += group_read_bytes(layout, &layout->groups[g], gates_only);
    }
    return bytes;
}

uint64_t pi2_expert_cache_slot_bytes(const pi2_extent_layout *layout) { return slot_bytes(layout, false); }
uint64_t pi2_expert_cache_all_bytes(const pi2_extent_layout *layout) { return all_bytes(layout, false); }
uint64_t pi2_expert_cache_gate_slot_bytes(const pi2_extent_layout *layout) { return slot_bytes(layout, true); }
uint64_t pi2_expert_cache_all_gate_bytes(const pi2_extent_layout *layout) { return all_bytes(layout, true); }

uint32_t pi2_expert_cache_extents(const pi2_extent_layout *layout) {
    uint32_t extents = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind == PI2_GROUP_EXPERT) extents += layout->groups[g].extent_count;
    }
    return extents;
}
