/*
 * Goal:   a batch that wants every expert of every layer leaves each layer its share of the cache, those that
 *         its last tokens used most; the same batch again finds that share; single tokens make known what
 *         only passed through. How near a neuron is to firing is a byte, far where its Gate is no number.
 * Method: books under every policy, driven as the cache drives them; Gates of every kind.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "neuron_cache/cache_book.h"
#include "neuron_cache/unit_near.h"

enum { LAYERS = 6, EXPERTS = 16, KEYS = LAYERS * EXPERTS, SLOTS = 64, SHARE = (SLOTS - EXPERTS) / LAYERS };

typedef struct fixture {
    pi2_cache_book *book;
    uint8_t present[KEYS];
    uint32_t present_count, hits, layer_in_use, slots;
} fixture;

static fixture make(const pi2_cache_policy *policy) {
    fixture f = { .book = malloc(pi2_cache_book_bytes(policy, KEYS, SLOTS, EXPERTS)), .slots = SLOTS };
    assert_non_null(f.book);
    f.book = pi2_cache_book_init(f.book, policy, KEYS, SLOTS, EXPERTS);
    return f;
}

static bool of_another_layer(const void *user, uint32_t key) {
    return key / EXPERTS != ((const fixture *)user)->layer_in_use;
}

static bool anyone(const void *user, uint32_t key) {
    (void)user;
    (void)key;
    return true;
}

static void leave(fixture *f) {
    uint32_t victim = pi2_cache_book_evict(f->book, of_another_layer, f);
    if (victim == UINT32_MAX) victim = pi2_cache_book_evict(f->book, anyone, f);
    if (victim >= KEYS || !f->present[victim]) {
        fail();
        return;
    }
    f->present[victim] = 0;
    f->present_count--;
}

/* Demands keys of one layer, as many as there are bits of `chosen`; uses NULL: one token. */
static void demand(fixture *f, uint32_t layer, uint32_t chosen, const pi2_batch_use *uses) {
    uint32_t keys[EXPERTS], count = 0;
    pi2_batch_use used[EXPERTS];
    for (uint32_t e = 0; e < EXPERTS; e++) {
        if (!(chosen >> e & 1)) continue;
        if (uses) used[count] = uses[e];
        keys[count++] = layer * EXPERTS + e;
    }
    f->layer_in_use = layer;
    pi2_cache_book_demand(f->book, keys, uses ? used : NULL, count);
    uint8_t was_present[KEYS];
    memcpy(was_present, f->present, sizeof was_present);
    for (uint32_t i = 0; i < count; i++) {
        if (!was_present[keys[i]]) continue;
        pi2_cache_book_hit(f->book, keys[i]);
        f->hits++;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (was_present[keys[i]]) continue;
        if (f->present_count == f->slots) leave(f);
        pi2_cache_book_admit(f->book, keys[i]);
        f->present[keys[i]] = 1;
        f->present_count++;
    }
}

/* Every expert of every layer; expert e is worth (e + layer) % EXPERTS + 1. */
static void play_batch(fixture *f) {
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        pi2_batch_use uses[EXPERTS];
        for (uint32_t e = 0; e < EXPERTS; e++) {
            uses[e] = (pi2_batch_use){ (float)((e + layer) % EXPERTS + 1), 1 + e % 3 };
        }
        demand(f, layer, (1u << EXPERTS) - 1, uses);
    }
}

static void expect_shares(const fixture *f, uint32_t share, const char *name) {
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (uint32_t e = 0; e < EXPERTS; e++) {
            const bool best = (e + layer) % EXPERTS >= EXPERTS - share;
            if (best && !f->present[layer * EXPERTS + e]) fail_msg("%s: layer %u lost expert %u", name, layer, e);
        }
    }
}

static void test_shares(void **state) {
    (void)state;
    for (size_t p = 0; p < pi2_cache_policy_count; p++) {
        fixture f = make(pi2_cache_policies[p]);
        play_batch(&f);
        assert_int_equal(f.hits, 0);
        expect_shares(&f, SHARE, pi2_cache_policies[p]->name);
        play_batch(&f);
        assert_true(f.hits >= LAYERS * SHARE && f.hits <= SLOTS);
        expect_shares(&f, SHARE, pi2_cache_policies[p]->name);
        free(f.book);
    }
}

/* Where slots are given back the shares shrink with them, and no layer takes another's; they grow again. */
static void test_resize(void **state) {
    (void)state;
    enum { FEWER = 40, FEWER_SHARE = (FEWER - EXPERTS) / LAYERS };
    for (size_t p = 0; p < pi2_cache_policy_count; p++) {
        fixture f = make(pi2_cache_policies[p]);
        f.slots = FEWER;
        pi2_cache_book_resize(f.book, FEWER);
        play_batch(&f);
        expect_shares(&f, FEWER_SHARE, pi2_cache_policies[p]->name);
        play_batch(&f);
        assert_true(f.hits >= LAYERS * FEWER_SHARE && f.hits <= FEWER);
        expect_shares(&f, FEWER_SHARE, pi2_cache_policies[p]->name);
        f.slots = SLOTS;
        pi2_cache_book_resize(f.book, SLOTS);
        for (int round = 0; round < 3; round++) play_batch(&f);
        expect_shares(&f, SHARE, pi2_cache_policies[p]->name);
        free(f.book);
    }
}

/* What passed leaves before what stayed; what single tokens want stays, whether it had passed or not. */
static void test_single_tokens(void **state) {
    (void)state;
    fixture f = make(pi2_cache_policy_find("lru"));
    pi2_batch_use uses[EXPERTS];
    for (uint32_t e = 0; e < EXPERTS; e++) uses[e] = (pi2_batch_use){ (float)(e + 1), 1 };
    for (uint32_t layer = 0; layer < 4; layer++) demand(&f, layer, (1u << EXPERTS) - 1, uses);
    assert_int_equal(f.present_count, SLOTS);
    demand(&f, 1, 1, NULL); /* the layer's least worth, there because there was room */
    assert_int_equal(f.hits, 1);
    for (uint32_t layer = 4; layer < LAYERS; layer++) demand(&f, layer, 0x7fff, NULL); /* 30 of the 31 */
    for (uint32_t layer = 0; layer < 4; layer++) {
        for (uint32_t e = EXPERTS - SHARE; e < EXPERTS; e++) assert_true(f.present[layer * EXPERTS + e]);
    }
    assert_true(f.present[EXPERTS]);
    free(f.book);
}

/* Fewer than a share, or of equal worth: nothing is lost or counted twice. */
static void test_ties(void **state) {
    (void)state;
    fixture f = make(pi2_cache_policy_find("auto"));
    pi2_batch_use uses[EXPERTS];
    for (uint32_t e = 0; e < EXPERTS; e++) uses[e] = (pi2_batch_use){ 1, 300 };
    for (int round = 0; round < 3; round++) {
        for (uint32_t layer = 0; layer < LAYERS; layer++) demand(&f, layer, 0x7, uses);
    }
    assert_int_equal(f.hits, 2 * 3 * LAYERS);
    for (uint32_t layer = 0; layer < LAYERS; layer++) demand(&f, layer, (1u << EXPERTS) - 1, uses);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (uint32_t e = 0; e < SHARE; e++) assert_true(f.present[layer * EXPERTS + e]);
    }
    free(f.book);
}

static void test_worth(void **state) {
    (void)state;
    for (uint32_t after = 0; after < 4000; after++) assert_true(pi2_batch_worth(after) >= pi2_batch_worth(after + 1));
    assert_true(pi2_batch_worth(2000) > 0);
    /* Two tokens ago is worth more than many uses long ago, but not than any number of them. */
    assert_true(pi2_batch_worth(2) > 10 * pi2_batch_worth(40));
    assert_true(pi2_batch_worth(8) < 10 * pi2_batch_worth(40));
}

/* What is no number does not fire, and is as far as can be. */
static void test_bytes_of_gates(void **state) {
    (void)state;
    assert_int_equal(pi2_near_of(0.0f, 4.0f), PI2_NEAR_ZERO);
    assert_int_equal(pi2_near_of(8.0f, 4.0f), PI2_NEAR_ZERO + 32);
    assert_int_equal(pi2_near_of(-8.0f, 4.0f), PI2_NEAR_ZERO - 32);
    assert_int_equal(pi2_near_of(1e30f, 4.0f), 255);
    assert_int_equal(pi2_near_of(-1e30f, 4.0f), 1);
    assert_int_equal(pi2_near_of(INFINITY, 4.0f), 255);
    assert_int_equal(pi2_near_of(-INFINITY, 4.0f), 1);
    assert_int_equal(pi2_near_of(NAN, 4.0f), 1);
    assert_int_equal(pi2_near_after(255, 255), 255);
    assert_int_equal(pi2_near_after(1, PI2_NEAR_ZERO), 64);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_shares), cmocka_unit_test(test_resize),
                                        cmocka_unit_test(test_single_tokens), cmocka_unit_test(test_ties),
                                        cmocka_unit_test(test_worth), cmocka_unit_test(test_bytes_of_gates) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
