/*
 * Goal:   guesses continue the latest of the longest matches; how long they are follows from what
 *         guesses and passes came to; nothing is guessed where that would be slower.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/drafter.h"

enum { CONTEXT = 64, PASS_NS = 1000000 };

static pi2_drafter *make_drafter(uint32_t most, const int32_t *tokens, size_t count) {
    pi2_drafter *drafter = NULL;
    assert_int_equal(pi2_drafter_create(CONTEXT, most, &drafter), PI2_OK);
    pi2_drafter_push(drafter, tokens, count);
    return drafter;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void test_longest_then_latest(void **state) {
    (void)state;
    /* "1 2" stands twice, "9 1 2" once before: the longer match is continued. */
    static const int32_t tokens[] = { 9, 1, 2, 30, 31, 1, 2, 40, 41, 9, 1, 2 };
    pi2_drafter *drafter = make_drafter(1, tokens, COUNT(tokens));
    pi2_drafter_note_pass(drafter, 1, PASS_NS);
    int32_t guess[PI2_DRAFT_MOST];
    assert_int_equal(pi2_drafter_guess(drafter, 8, guess), 1);
    assert_int_equal(guess[0], 30);
    static const int32_t more[] = { 5, 1, 2 }; /* now "1 2" alone: the latest place */
    pi2_drafter_push(drafter, more, COUNT(more));
    assert_int_equal(pi2_drafter_guess(drafter, 8, guess), 1);
    assert_int_equal(guess[0], 5);
    pi2_drafter_free(drafter);
}

static void test_nothing_to_guess(void **state) {
    (void)state;
    static const int32_t tokens[] = { 1, 2, 3, 4, 5 };
    pi2_drafter *drafter = make_drafter(8, tokens, COUNT(tokens));
    int32_t guess[PI2_DRAFT_MOST];
    pi2_drafter_note_pass(drafter, 1, PASS_NS);
    assert_int_equal(pi2_drafter_guess(drafter, 8, guess), 0);
    pi2_drafter_truncate(drafter, 0);
    assert_int_equal(pi2_drafter_guess(drafter, 8, guess), 0);
    static const int32_t pair[] = { 7, 7 };
    pi2_drafter_push(drafter, pair, 1);
    assert_int_equal(pi2_drafter_guess(drafter, 8, guess), 0);
    pi2_drafter_push(drafter, pair, 1);
    assert_int_equal(pi2_drafter_guess(drafter, 0, guess), 0); /* the context is full */
    pi2_drafter_free(drafter);
}

static void test_before_a_pass_was_timed(void **state) {
    (void)state;
    static const int32_t tokens[] = { 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4 };
    pi2_drafter *drafter = make_drafter(8, tokens, COUNT(tokens));
    int32_t guess[PI2_DRAFT_MOST];
    assert_int_equal(pi2_drafter_guess(drafter, 8, guess), 0);
    pi2_drafter_note_pass(drafter, 1, PASS_NS);
    assert_true(pi2_drafter_guess(drafter, 8, guess) > 1);
    assert_int_equal(guess[0], 1);
    assert_int_equal(guess[1], 2);
    pi2_drafter_free(drafter);
}

/* Repeating text; each guess is noted with `right` right tokens at most. Returns the last length. */
static uint32_t guess_often(pi2_drafter *drafter, uint32_t right, uint64_t token_ns) {
    uint32_t count = 0;
    for (int i = 0; i < 500; i++) {
        int32_t guess[PI2_DRAFT_MOST];
        pi2_drafter_note_pass(drafter, 1, PASS_NS);
        count = pi2_drafter_guess(drafter, 8, guess);
        if (count == 0) continue;
        pi2_drafter_note_pass(drafter, 1 + count, PASS_NS + token_ns * count);
        pi2_drafter_note_guess(drafter, count, right < count ? right : count);
    }
    return count;
}

static void test_length_follows_what_was_seen(void **state) {
    (void)state;
    int32_t tokens[40];
    for (int i = 0; i < 40; i++) tokens[i] = i % 10;
    pi2_drafter *right = make_drafter(8, tokens, COUNT(tokens));
    assert_int_equal(guess_often(right, 8, PASS_NS / 100), 8); /* cheap and right: all that is allowed */
    pi2_drafter_free(right);
    pi2_drafter *wrong = make_drafter(8, tokens, COUNT(tokens));
    assert_int_equal(guess_often(wrong, 0, PASS_NS / 2), 0); /* wrong and not free */
    pi2_drafter_free(wrong);
    pi2_drafter *dear = make_drafter(8, tokens, COUNT(tokens));
    assert_int_equal(guess_often(dear, 8, 2 * PASS_NS), 0); /* right, but a token more costs two passes */
    assert_true(guess_often(dear, 8, PASS_NS / 100) > 0);   /* and then it costs less: tried again */
    pi2_drafter_free(dear);
}

static void test_capacity(void **state) {
    (void)state;
    int32_t tokens[CONTEXT + 9] = { 0 };
    for (int i = 0; i < CONTEXT + 9; i++) tokens[i] = i < CONTEXT ? i : 0;
    pi2_drafter *drafter = make_drafter(8, tokens, CONTEXT + 9); /* what does not fit is dropped */
    int32_t guess[PI2_DRAFT_MOST];
    pi2_drafter_note_pass(drafter, 1, PASS_NS);
    assert_int_equal(pi2_drafter_guess(drafter, 8, guess), 0);
    pi2_drafter_free(drafter);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest_then_latest),
        cmocka_unit_test(test_nothing_to_guess),
        cmocka_unit_test(test_before_a_pass_was_timed),
        cmocka_unit_test(test_length_follows_what_was_seen),
        cmocka_unit_test(test_capacity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
