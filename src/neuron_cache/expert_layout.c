/* expert_layout.c: the experts of a layout: how many, and how large. */
#include "neuron_cache/expert_cache.h"

static uint64_t group_read_bytes(const pi2_extent_layout *layout, const pi2_group *group) {
    uint64_t bytes = 0;
    for (uint32_t e = 0; e < group->extent_count; e++) {
        bytes += pi2_extent_read_bytes(&layout->extents[group->first_extent + e]);
    }
    return bytes;
}

uint32_t pi2_expert_cache_keys(const pi2_extent_layout *layout) {
    uint32_t keys = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) keys += layout->groups[g].kind == PI2_GROUP_EXPERT;
    return keys;
}

uint64_t pi2_expert_cache_slot_bytes(const pi2_extent_layout *layout) {
    uint64_t most = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind != PI2_GROUP_EXPERT) continue;
        const uint64_t bytes = group_read_bytes(layout, &layout->groups[g]);
        if (bytes > most) most = bytes;
    }
    return most;
}

uint64_t pi2_expert_cache_all_bytes(const pi2_extent_layout *layout) {
    uint64_t bytes = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind == PI2_GROUP_EXPERT) bytes += group_read_bytes(layout, &layout->groups[g]);
    }
    return bytes;
}

uint32_t pi2_expert_cache_extents(const pi2_extent_layout *layout) {
    uint32_t extents = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind == PI2_GROUP_EXPERT) extents += layout->groups[g].extent_count;
    }
    return extents;
}
