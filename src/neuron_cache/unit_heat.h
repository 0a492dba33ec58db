/*
 * unit_heat.h: how often and how lately a unit was used, in one word, and which unit leaves: of those that a hand comes
 * to next, the one that is worth least by a rule. The store of neurons and the policies `mix` and `heat`, by which it
 * is replayed, share this.
 *
 * A word has the heat in its upper half, as it was in the pass of its lower half (modulo 2^16), which is the last that
 * used the unit: so nothing is aged. A use adds one amount, and of all of it 1 - 1 / PI2_NEURON_FADE_SHARE is left
 * after a pass.
 *
 * Where every pass computes all of Gate, each unit also has a byte: how near its neurons are to firing (unit_near.h). A
 * rule may go by that too.
 *
 * A layer has one turn in a pass. So a unit of a layer that is still to come has missed a chance less than its last use
 * tells; without that the layers that come next look oldest, and leave just before they are wanted.
 *
 * Threads: words may be read and written by any, as atomics of whoever keeps them; begin_pass and a hand by one.
 */
#ifndef PI2_NEURON_CACHE_UNIT_HEAT_H
#define PI2_NEURON_CACHE_UNIT_HEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a unit's heat 1 - 1 / so many are left after a pass; of so many slots whose units a layer does not use one
 * leaves. */
enum { PI2_NEURON_FADE_SHARE = 32, PI2_NEURON_VICTIMS = 24 };
enum {
    PI2_HEAT_OF_USE = 1024, /* so a unit that every pass uses comes to half of what 16 bits hold */
    PI2_HEAT_STEPS = 256    /* passes after which nothing is left of it */
};
#define PI2_HEAT_NO_SLOT UINT32_MAX

typedef struct pi2_unit_heat {
    uint32_t pass;
    uint16_t fades[PI2_HEAT_STEPS]; /* what is left of heat after so many passes, in 65536ths */
} pi2_unit_heat;

void pi2_unit_heat_init(pi2_unit_heat *heat);

/** The word of so much heat in this pass. */
static inline uint32_t pi2_unit_heat_word(const pi2_unit_heat *heat, uint32_t amount) {
    const uint32_t most = 0xffff;
    return (amount < most ? amount : most) << 16 | (heat->pass & most);
}

/** A word's heat in this pass. A unit that nobody used for 2^16 passes may look as it did then: it is read again. */
static inline uint32_t pi2_unit_heat_now(const pi2_unit_heat *heat, uint32_t word) {
    const uint32_t passes = (heat->pass - word) & 0xffffu;
    if (passes == 0) return word >> 16;
    return passes < PI2_HEAT_STEPS ? (word >> 16) * heat->fades[passes] >> 16 : 0;
}

/** The word of a unit after one more use in this pass. */
static inline uint32_t pi2_unit_heat_used(const pi2_unit_heat *heat, uint32_t word) {
    return pi2_unit_heat_word(heat, pi2_unit_heat_now(heat, word) + PI2_HEAT_OF_USE);
}

typedef struct pi2_unit_rule {
    const char *name, *description; /* half a line, for messages */
    /** What a unit is worth in this pass; what is worth least leaves. to_come: its layer has not had its turn yet. */
    uint32_t (*worth)(const pi2_unit_heat *heat, uint32_t word, bool to_come);
    uint32_t near_step; /* and so much more for each step that it is nearer to firing; 0: nobody asks how near */
} pi2_unit_rule;

/** The first is the default ("auto"), chosen on recorded traces (docs/sparsity.md). */
extern const pi2_unit_rule pi2_unit_rules[];
extern const size_t pi2_unit_rule_count;
/** By name; NULL: unknown. */
const pi2_unit_rule *pi2_unit_rule_find(const char *name);

typedef enum pi2_slot_sight { PI2_SLOT_EMPTY, PI2_SLOT_STAYS, PI2_SLOT_MAY_LEAVE } pi2_slot_sight;
/** What is in a slot, and what it is worth where it may leave. */
typedef pi2_slot_sight pi2_slot_look(const void *user, uint32_t slot, uint32_t *worth_out);

/** Goes round the slots first .. end - 1; next is one of them. */
typedef struct pi2_victim_hand {
    uint32_t next, first, end;
} pi2_victim_hand;

/** An empty slot, or the least worth of the next PI2_NEURON_VICTIMS that may leave; PI2_HEAT_NO_SLOT: there is none. */
uint32_t pi2_victim_hand_find(pi2_victim_hand *hand, pi2_slot_look *look, const void *user);

#endif
