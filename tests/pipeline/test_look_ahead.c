/*
 * Goal:   looking ahead is switched by what was measured: off where it costs, on where it pays, again and
 *         again; and by nobody where it was asked for or refused.
 * Method: passes of made-up lengths.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/look_ahead.h"

enum { CYCLE = 2 * PI2_LOOK_AHEAD_TRIAL + PI2_LOOK_AHEAD_HOLD };

/* Plays tokens that take so long with and without; returns how many looked ahead. */
static uint32_t play(pi2_look_ahead *state, uint32_t tokens, uint64_t with_ns, uint64_t without_ns) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < tokens; i++) {
        const bool with = pi2_look_ahead_wanted(state, 1);
        count += with;
        /* every tenth token meets a busy disk */
        pi2_look_ahead_note(state, 1, (with ? with_ns : without_ns) * (i % 10 == 3 ? 7 : 1));
    }
    return count;
}

static void test_auto(void **state) {
    (void)state;
    pi2_look_ahead ahead = { .mode = PI2_LOOK_AHEAD_AUTO };
    assert_true(pi2_look_ahead_wanted(&ahead, 1) && pi2_look_ahead_wanted(&ahead, 100));
    assert_int_equal(play(&ahead, PI2_LOOK_AHEAD_WARM_UP, 10, 20), PI2_LOOK_AHEAD_WARM_UP);
    assert_int_equal(play(&ahead, 2 * PI2_LOOK_AHEAD_TRIAL, 90000, 100000), PI2_LOOK_AHEAD_TRIAL);
    assert_int_equal(play(&ahead, PI2_LOOK_AHEAD_HOLD, 90000, 100000), PI2_LOOK_AHEAD_HOLD);
    /* what it costs shows in the next trial, and what it brings in the one after */
    assert_int_equal(play(&ahead, CYCLE, 110000, 100000), PI2_LOOK_AHEAD_TRIAL);
    assert_false(pi2_look_ahead_wanted(&ahead, 100));
    assert_int_equal(play(&ahead, CYCLE, 90000, 100000), PI2_LOOK_AHEAD_TRIAL + PI2_LOOK_AHEAD_HOLD);
    /* a hundredth is noise: what is, stays */
    assert_int_equal(play(&ahead, CYCLE, 101000, 100000), PI2_LOOK_AHEAD_TRIAL + PI2_LOOK_AHEAD_HOLD);
    assert_int_equal(play(&ahead, CYCLE, 150000, 100000), PI2_LOOK_AHEAD_TRIAL);
    assert_int_equal(play(&ahead, CYCLE, 99000, 100000), PI2_LOOK_AHEAD_TRIAL);
}

/* A prompt's passes are no part of a trial. */
static void test_prompts(void **state) {
    (void)state;
    pi2_look_ahead ahead = { .mode = PI2_LOOK_AHEAD_AUTO };
    for (uint32_t i = 0; i < PI2_LOOK_AHEAD_WARM_UP + 2 * PI2_LOOK_AHEAD_TRIAL; i++) {
        (void)play(&ahead, 1, 110000, 100000);
        assert_true(pi2_look_ahead_wanted(&ahead, 512) == !ahead.is_off);
        pi2_look_ahead_note(&ahead, 512, 1);
    }
    assert_true(ahead.is_off);
}

static void test_asked_for(void **state) {
    (void)state;
    pi2_look_ahead on = { .mode = PI2_LOOK_AHEAD_ON }, off = { .mode = PI2_LOOK_AHEAD_OFF };
    assert_int_equal(play(&on, 3 * CYCLE, 200, 100), 3 * CYCLE);
    assert_int_equal(play(&off, 3 * CYCLE, 100, 200), 0);
    assert_true(pi2_look_ahead_wanted(&on, 64) && !pi2_look_ahead_wanted(&off, 64));
}

/* Passes that miss nothing neither look ahead nor count as trials, until one misses something. */
static void test_nothing_missing(void **state) {
    (void)state;
    pi2_look_ahead ahead = { .mode = PI2_LOOK_AHEAD_AUTO }, on = { .mode = PI2_LOOK_AHEAD_ON };
    (void)play(&ahead, PI2_LOOK_AHEAD_WARM_UP + 3, 90000, 100000);
    const uint32_t token = ahead.token;
    pi2_look_ahead_note_missing(&ahead, false);
    pi2_look_ahead_note_missing(&on, false);
    assert_int_equal(play(&ahead, CYCLE, 90000, 100000), 0);
    assert_false(pi2_look_ahead_wanted(&ahead, 100));
    assert_true(pi2_look_ahead_wanted(&on, 1));
    assert_int_equal(ahead.token, token);
    pi2_look_ahead_note_missing(&ahead, true);
    assert_int_equal(play(&ahead, 2 * PI2_LOOK_AHEAD_TRIAL - 3 + PI2_LOOK_AHEAD_HOLD, 90000, 100000),
                     PI2_LOOK_AHEAD_TRIAL - 1 + PI2_LOOK_AHEAD_HOLD);
}

/* A token's first choice weighs more than two tokens' last ones; what nobody chose is not named. */
static void test_votes_are_weighted(void **state) {
    (void)state;
    enum { SCORES = 6, STRIDE = 8 };
    float logits[3][STRIDE] = {
        { 0.1f, 9, 2, 0, 3, 0, 99, 99 },  /* 1, 4, 2 */
        { 8, 1, 2, 0, 0.5f, 0, 99, 99 },  /* 0, 2, 1 */
        { 0.1f, 0, 2, 0, 3, 8, 99, 99 },  /* 5, 4, 2 */
    };
    uint32_t votes[SCORES], named[SCORES];
    const pi2_look_ahead_votes all = { .logits = logits[0], .stride = STRIDE, .token_count = 3, .score_count = SCORES,
                                       .used_count = 3, .votes = votes };
    static const uint32_t want[] = { 1, 2, 4, 0, 5 }; /* 4, 4, 4, 3 and 3 votes */
    assert_int_equal(pi2_look_ahead_name(&all, named), 5);
    assert_memory_equal(named, want, sizeof want);
    float one[STRIDE] = { 0, 5, 7, 6, 1, 2, 99, 99 };
    const pi2_look_ahead_votes single = { .logits = one, .stride = STRIDE, .token_count = 1, .score_count = SCORES,
                                          .used_count = 3, .votes = votes };
    static const uint32_t order[] = { 2, 3, 1 }; /* by likelihood, not by number */
    assert_int_equal(pi2_look_ahead_name(&single, named), 3);
    assert_memory_equal(named, order, sizeof order);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_votes_are_weighted), cmocka_unit_test(test_auto), cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_asked_for), cmocka_unit_test(test_nothing_missing),
    };
    return cmocka_run_group_tests_name("when to look ahead", tests, NULL, NULL);
}
