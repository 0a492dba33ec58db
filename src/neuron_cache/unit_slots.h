/*
 * unit_slots.h: the store of neurons as a policy of keys: of the next few slots that a hand comes to, the key leaves
 * that a rule of unit_heat.h finds worth least. A key keeps its heat while it is absent. It looks at two dozen slots
 * however many there are.
 */
#ifndef PI2_NEURON_CACHE_UNIT_SLOTS_H
#define PI2_NEURON_CACHE_UNIT_SLOTS_H

#include <string.h>

#include "neuron_cache/cache_policy.h"
#include "neuron_cache/unit_heat.h"

#define NO_KEY UINT32_MAX

typedef struct unit_slots {
    pi2_unit_heat heat;
    pi2_victim_hand hand;
    uint32_t *words;       /* of every key */
    uint32_t *slot_of;     /* of every key that is present */
    uint32_t *key_of;      /* of every slot; NO_KEY: it is empty */
    uint32_t *empty;       /* slots: what became empty last is filled first */
    uint32_t empty_count;
    uint8_t *near;         /* of every key, as it was told last (unit_near.h) */
    uint32_t to_come;      /* keys from here on have had no turn in this pass */
} unit_slots;

static inline size_t unit_slots_bytes(uint32_t key_count, uint32_t slot_count) {
    return sizeof(unit_slots) + ((size_t)key_count + slot_count) * 2 * sizeof(uint32_t) + key_count;
}

static inline void unit_slots_init(void *state, uint32_t key_count, uint32_t slot_count) {
    unit_slots *own = state;
    pi2_unit_heat_init(&own->heat);
    own->hand = (pi2_victim_hand){ 0, 0, slot_count };
    own->words = (uint32_t *)(own + 1);
    own->slot_of = own->words + key_count;
    own->key_of = own->slot_of + key_count;
    own->empty = own->key_of + slot_count;
    own->empty_count = slot_count;
    own->to_come = key_count;
    own->near = (uint8_t *)(own->empty + slot_count);
    memset(own->near, 0, key_count);
    memset(own->words, 0, key_count * sizeof *own->words);
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        own->key_of[slot] = NO_KEY;
        own->empty[slot] = slot_count - 1 - slot;
    }
}

static inline void unit_slots_hit(void *state, uint32_t key) {
    unit_slots *own = state;
    own->words[key] = pi2_unit_heat_used(&own->heat, own->words[key]);
}

static inline void unit_slots_admit(void *state, uint32_t key) {
    unit_slots *own = state;
    unit_slots_hit(state, key);
    own->slot_of[key] = own->empty[--own->empty_count];
    own->key_of[own->slot_of[key]] = key;
}

static inline void unit_slots_forget(void *state, uint32_t key) {
    unit_slots *own = state;
    own->key_of[own->slot_of[key]] = NO_KEY;
    own->empty[own->empty_count++] = own->slot_of[key];
}

typedef struct key_search {
    const unit_slots *own;
    const pi2_unit_rule *rule;
    pi2_cache_may_evict *may;
    const void *user;
} key_search;

static inline pi2_slot_sight unit_slots_look_at(const void *user, uint32_t slot, uint32_t *worth_out) {
    const key_search *search = user;
    const uint32_t key = search->own->key_of[slot];
    if (key == NO_KEY || !search->may(search->user, key)) return PI2_SLOT_STAYS;
    *worth_out = search->rule->worth(&search->own->heat, search->own->words[key], key >= search->own->to_come);
    *worth_out += search->rule->near_step * search->own->near[key];
    return PI2_SLOT_MAY_LEAVE;
}

static inline uint32_t unit_slots_evict(void *state, const char *rule, pi2_cache_may_evict *may,
                                        const void *user) {
    unit_slots *own = state;
    const key_search search = { own, pi2_unit_rule_find(rule), may, user };
    const uint32_t slot = pi2_victim_hand_find(&own->hand, unit_slots_look_at, &search);
    if (slot == PI2_HEAT_NO_SLOT) return UINT32_MAX;
    const uint32_t key = own->key_of[slot];
    unit_slots_forget(state, key);
    return key;
}

static inline void unit_slots_begin_pass(void *state, uint32_t passes) {
    unit_slots *own = state;
    own->heat.pass += passes;
}

static inline void unit_slots_begin_layer(void *state, uint32_t end_key) {
    unit_slots *own = state;
    own->to_come = end_key;
}

static inline void unit_slots_tell_near(void *state, uint32_t first_key, const uint8_t *near, uint32_t count) {
    unit_slots *own = state;
    memcpy(own->near + first_key, near, count);
}

#endif
