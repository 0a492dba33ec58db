/*
 * heat.c: the rule of the store of neurons (unit_heat.h): of the next few slots that a hand comes to, the coldest key
 * leaves. Heat counts uses, which fade from pass to pass; a key keeps it while it is absent. It looks at a dozen slots
 * however many there are.
 */
#include <string.h>

#include "neuron_cache/cache_policy.h"
#include "neuron_cache/unit_heat.h"

#define NO_KEY UINT32_MAX

typedef struct heat_state {
    pi2_unit_heat heat;
    pi2_victim_hand hand;
    uint32_t *words;       /* of every key */
    uint32_t *slot_of;     /* of every key that is present */
    uint32_t *key_of;      /* of every slot; NO_KEY: it is empty */
    uint32_t *empty;       /* slots: what became empty last is filled first */
    uint32_t empty_count;
} heat_state;

static size_t heat_bytes(uint32_t key_count, uint32_t slot_count) {
    return sizeof(heat_state) + ((size_t)key_count + slot_count) * 2 * sizeof(uint32_t);
}

static void heat_init(void *state, uint32_t key_count, uint32_t slot_count) {
    heat_state *own = state;
    pi2_unit_heat_init(&own->heat);
    own->hand = (pi2_victim_hand){ 0, 0, slot_count };
    own->words = (uint32_t *)(own + 1);
    own->slot_of = own->words + key_count;
    own->key_of = own->slot_of + key_count;
    own->empty = own->key_of + slot_count;
    own->empty_count = slot_count;
    memset(own->words, 0, key_count * sizeof *own->words);
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        own->key_of[slot] = NO_KEY;
        own->empty[slot] = slot_count - 1 - slot;
    }
}

static void heat_hit(void *state, uint32_t key) {
    heat_state *own = state;
    own->words[key] = pi2_unit_heat_used(&own->heat, own->words[key]);
}

static void heat_admit(void *state, uint32_t key) {
    heat_state *own = state;
    heat_hit(state, key);
    own->slot_of[key] = own->empty[--own->empty_count];
    own->key_of[own->slot_of[key]] = key;
}

static void heat_forget(void *state, uint32_t key) {
    heat_state *own = state;
    own->key_of[own->slot_of[key]] = NO_KEY;
    own->empty[own->empty_count++] = own->slot_of[key];
}

typedef struct key_search {
    const heat_state *own;
    pi2_cache_may_evict *may;
    const void *user;
} key_search;

static pi2_slot_sight look_at(const void *user, uint32_t slot, uint32_t *heat_out) {
    const key_search *search = user;
    const uint32_t key = search->own->key_of[slot];
    if (key == NO_KEY || !search->may(search->user, key)) return PI2_SLOT_STAYS;
    *heat_out = pi2_unit_heat_now(&search->own->heat, search->own->words[key]);
    return PI2_SLOT_MAY_LEAVE;
}

static uint32_t heat_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    heat_state *own = state;
    const key_search search = { own, may, user };
    const uint32_t slot = pi2_victim_hand_find(&own->hand, look_at, &search);
    if (slot == PI2_HEAT_NO_SLOT) return UINT32_MAX;
    const uint32_t key = own->key_of[slot];
    heat_forget(state, key);
    return key;
}

static void heat_begin_pass(void *state, uint32_t passes) {
    heat_state *own = state;
    own->heat.pass += passes;
}

const pi2_cache_policy pi2_cache_policy_heat = {
    .name = "heat", .description = "the coldest of the next few, uses fading from pass to pass", .bytes = heat_bytes,
    .init = heat_init, .hit = heat_hit, .admit = heat_admit, .evict = heat_evict, .forget = heat_forget,
    .resize = pi2_cache_policy_any_size, .begin_pass = heat_begin_pass,
};
