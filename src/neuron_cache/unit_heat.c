/* unit_heat.c: what is left of heat, the rules, and the hand that looks for what is worth least. */
#include "neuron_cache/unit_heat.h"

#include <string.h>

#include "neuron_cache/unit_near.h"

/* Of `mix`: a unit that every pass uses has 6 x 32768 by its heat, and one that this pass uses 65536 for that, and half
 * as much after each pass. bench/EXPERIMENTS.md has what other weights found. */
enum { MIX_OF_HEAT = 6, MIX_OF_LAST = 65536, MIX_PASSES = 17 };

/* Of `gate`: all that `mix` can give is worth as much as a Gate that is larger by the layer's mean size of one. */
enum { GATE_STEP = (MIX_OF_HEAT * 32768 + MIX_OF_LAST) / PI2_NEAR_STEPS };

void pi2_unit_heat_init(pi2_unit_heat *heat) {
    double left = 1.0;
    *heat = (pi2_unit_heat){ 0 };
    for (uint32_t i = 1; i < PI2_HEAT_STEPS; i++) {
        left *= (double)(PI2_NEURON_FADE_SHARE - 1) / PI2_NEURON_FADE_SHARE;
        heat->fades[i] = (uint16_t)(left * 65535.0);
    }
}

static uint32_t passes_since(const pi2_unit_heat *heat, uint32_t word, bool to_come) {
    const uint32_t passes = (heat->pass - word) & 0xffffu;
    return to_come && passes ? passes - 1 : passes;
}

static uint32_t mix_worth(const pi2_unit_heat *heat, uint32_t word, bool to_come) {
    const uint32_t passes = passes_since(heat, word, to_come);
    return MIX_OF_HEAT * pi2_unit_heat_now(heat, word) + (passes < MIX_PASSES ? (uint32_t)MIX_OF_LAST >> passes : 0);
}

static uint32_t heat_worth(const pi2_unit_heat *heat, uint32_t word, bool to_come) {
    (void)to_come;
    return pi2_unit_heat_now(heat, word);
}

static uint32_t lru_worth(const pi2_unit_heat *heat, uint32_t word, bool to_come) {
    return UINT32_MAX - 1 - passes_since(heat, word, to_come);
}

const pi2_unit_rule pi2_unit_rules[] = {
    { "gate", "who was farthest from firing, and used least", mix_worth, GATE_STEP },
    { "mix", "who was used least, lately and often mixed", mix_worth, 0 },
    { "heat", "who was used least often, uses fading", heat_worth, 0 },
    { "lru", "who was not used for the longest time", lru_worth, 0 } };
const size_t pi2_unit_rule_count = sizeof pi2_unit_rules / sizeof pi2_unit_rules[0];

const pi2_unit_rule *pi2_unit_rule_find(const char *name) {
    if (strcmp(name, "auto") == 0) return &pi2_unit_rules[0];
    for (size_t i = 0; i < pi2_unit_rule_count; i++) {
        if (strcmp(pi2_unit_rules[i].name, name) == 0) return &pi2_unit_rules[i];
    }
    return NULL;
}

static uint32_t next_slot(pi2_victim_hand *hand) {
    const uint32_t slot = hand->next;
    hand->next = slot + 1 >= hand->end ? hand->first : slot + 1;
    return slot;
}

uint32_t pi2_victim_hand_find(pi2_victim_hand *hand, pi2_slot_look *look, const void *user) {
    uint32_t victim = PI2_HEAT_NO_SLOT, least = UINT32_MAX, seen = 0;
    for (uint32_t turn = 0; turn < hand->end - hand->first && seen < PI2_NEURON_VICTIMS; turn++) {
        const uint32_t slot = next_slot(hand);
        uint32_t worth = 0;
        const pi2_slot_sight sight = look(user, slot, &worth);
        if (sight == PI2_SLOT_EMPTY) return slot;
        if (sight == PI2_SLOT_STAYS) continue;
        if (worth < least) {
            least = worth;
            victim = slot;
        }
        seen++;
    }
    return victim;
}
