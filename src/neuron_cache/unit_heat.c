/* unit_heat.c: what is left of heat, and the hand that looks for what is coldest. */
#include "neuron_cache/unit_heat.h"

void pi2_unit_heat_init(pi2_unit_heat *heat) {
    double left = 1.0;
    *heat = (pi2_unit_heat){ 0 };
    for (uint32_t i = 1; i < PI2_HEAT_STEPS; i++) {
        left *= (double)(PI2_NEURON_FADE_SHARE - 1) / PI2_NEURON_FADE_SHARE;
        heat->fades[i] = (uint16_t)(left * 65535.0);
    }
}

static uint32_t next_slot(pi2_victim_hand *hand) {
    const uint32_t slot = hand->next;
    hand->next = slot + 1 >= hand->end ? hand->first : slot + 1;
    return slot;
}

uint32_t pi2_victim_hand_find(pi2_victim_hand *hand, pi2_slot_look *look, const void *user) {
    uint32_t coldest = PI2_HEAT_NO_SLOT, least = UINT32_MAX, seen = 0;
    for (uint32_t turn = 0; turn < hand->end - hand->first && seen < PI2_NEURON_VICTIMS; turn++) {
        const uint32_t slot = next_slot(hand);
        uint32_t heat = 0;
        const pi2_slot_sight sight = look(user, slot, &heat);
        if (sight == PI2_SLOT_EMPTY) return slot;
        if (sight == PI2_SLOT_STAYS) continue;
        if (heat < least) {
            least = heat;
            coldest = slot;
        }
        seen++;
    }
    return coldest;
}
