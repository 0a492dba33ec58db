/*
 * Goal:   of a row of logits the likeliest tokens are kept, whatever the vocabulary's size, with how unlikely each is;
 *         a token finds its own row alone, and nothing where logits were no numbers. Chances go towards what was right,
 *         for the classes that said so.
 * Method: drawn logits against a list that is sorted whole.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/draft_chances.h"
#include "engine/next_learnt.h"
#include "engine/next_table_file.h"

enum { MOST = 5000, TOKENS = 1 << 22 };

static pi2_next_learnt learnt;
static float logits[MOST];
static uint32_t seed = 1;

static float drawn(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / (float)(1 << 24) * 20.0f - 10.0f;
}

static int larger_first(const void *a, const void *b) {
    const float first = logits[*(const uint32_t *)a], second = logits[*(const uint32_t *)b];
    return (first < second) - (first > second);
}

static void check_row(int32_t token, uint32_t count) {
    static uint32_t order[MOST];
    double sum = 0;
    const uint32_t *entries = pi2_next_find(&learnt, token);
    assert_non_null(entries);
    for (uint32_t i = 0; i < count; i++) order[i] = i;
    qsort(order, count, sizeof *order, larger_first);
    const uint32_t kept = count < PI2_LEARNT_WIDTH ? count : PI2_LEARNT_WIDTH;
    for (uint32_t i = 0; i < kept; i++) sum += exp((double)logits[order[i]] - (double)logits[order[0]]);
    for (uint32_t i = 0; i < PI2_LEARNT_WIDTH; i++) {
        const double below = i < kept ? (double)logits[order[0]] - (double)logits[order[i]] + log(sum) : 0;
        const double steps = below * PI2_NEXT_STEPS / log(2);
        if (i >= kept || steps >= UINT32_MAX >> PI2_NEXT_ID_BITS) {
            assert_int_equal(entries[i], PI2_NO_NEXT);
            return;
        }
        assert_int_equal(pi2_next_id(entries[i]), order[i]);
        assert_true(fabs(pi2_next_unlikeliness(entries[i]) - steps) <= 1);
    }
}

static void the_likeliest_are_kept(void **state) {
    (void)state;
    static const uint32_t counts[] = { 1, 5, 63, 64, 65, 700, 1024, MOST };
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (int32_t turn = 0; turn < 20; turn++) {
            for (uint32_t i = 0; i < counts[c]; i++) logits[i] = drawn();
            /* All of the largest in one block, or in the last one. */
            for (uint32_t i = 0; turn % 4 == 1 && i < 20 && i < counts[c]; i++) logits[i] += 15.0f;
            for (uint32_t i = 0; turn % 4 == 2 && i < 20 && i < counts[c]; i++) logits[counts[c] - 1 - i] += 15.0f;
            pi2_next_learn(&learnt, turn, logits, counts[c]);
            check_row(turn, counts[c]);
        }
    }
}

static void what_is_no_number_is_no_guess(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 300; i++) logits[i] = drawn();
    logits[17] = logits[200] = NAN;
    logits[18] = -INFINITY;
    pi2_next_learn(&learnt, 3, logits, 300);
    const uint32_t *entries = pi2_next_find(&learnt, 3);
    for (uint32_t i = 0; i < PI2_LEARNT_WIDTH; i++) {
        const uint32_t id = pi2_next_id(entries[i]);
        if (entries[i] != PI2_NO_NEXT) assert_true(id < 300 && id != 17 && id != 200 && id != 18);
    }
    logits[40] = INFINITY;
    pi2_next_learn(&learnt, 3, logits, 300);
    for (uint32_t i = 0; i < PI2_LEARNT_WIDTH; i++) assert_int_equal(pi2_next_find(&learnt, 3)[i], PI2_NO_NEXT);
    for (uint32_t i = 0; i < 300; i++) logits[i] = NAN;
    pi2_next_learn(&learnt, 3, logits, 300);
    for (uint32_t i = 0; i < PI2_LEARNT_WIDTH; i++) assert_int_equal(pi2_next_find(&learnt, 3)[i], PI2_NO_NEXT);
}

/* Of equal logits the lower id is first; what is no number hides nothing, wherever in the row it stands. */
static void the_likeliest_are_listed(void **state) {
    (void)state;
    float values[PI2_LEARNT_WIDTH];
    uint32_t ids[PI2_LEARNT_WIDTH];
    for (uint32_t i = 0; i < 2000; i++) logits[i] = i % 64 == 0 ? NAN : 0.0f;
    logits[1999] = logits[130] = 2.0f;
    logits[1] = 1.0f;
    assert_int_equal(pi2_next_likeliest(logits, 2000, values, ids), PI2_LEARNT_WIDTH);
    static const uint32_t wanted[] = { 130, 1999, 1, 2, 3 };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        assert_int_equal(ids[i], wanted[i]);
        assert_true(values[i] == logits[wanted[i]]);
    }
}

static void a_token_finds_its_own_row(void **state) {
    (void)state;
    memset(&learnt, 0, sizeof learnt);
    assert_null(pi2_next_find(&learnt, 0));
    for (uint32_t i = 0; i < 100; i++) logits[i] = drawn();
    pi2_next_learn(&learnt, 0, logits, 100);
    assert_non_null(pi2_next_find(&learnt, 0));
    int32_t other;
    size_t found = 0;
    for (other = 1; other < TOKENS && found == 0; other++) {
        assert_null(pi2_next_find(&learnt, other));
        pi2_next_learn(&learnt, other, logits, 100);
        if (!pi2_next_find(&learnt, 0)) found++;
    }
    assert_int_equal(found, 1); /* the later one is kept */
    assert_non_null(pi2_next_find(&learnt, other - 1));
}

static void chances_go_where_the_text_goes(void **state) {
    (void)state;
    pi2_draft_chances chances;
    pi2_draft_chances_begin(&chances);
    const pi2_draft_classes right = { .of = { 5, 1, 0, 2 } }, wrong = { .of = { 1, 7, 3, 0 } },
                            mixed = { .of = { 5, 7, 0, 0 } };
    const float begin[] = { pi2_draft_chance(&chances, &right), pi2_draft_chance(&chances, &wrong),
                            pi2_draft_chance(&chances, &mixed) };
    for (int i = 0; i < 200; i++) {
        pi2_draft_chances_learn(&chances, &right, true);
        pi2_draft_chances_learn(&chances, &wrong, false);
    }
    assert_true(pi2_draft_chance(&chances, &right) > begin[0] && pi2_draft_chance(&chances, &right) > 0.9f);
    assert_true(pi2_draft_chance(&chances, &wrong) < begin[1] && pi2_draft_chance(&chances, &wrong) < 0.1f);
    const float between = pi2_draft_chance(&chances, &mixed);
    assert_true(between < pi2_draft_chance(&chances, &right) && between > pi2_draft_chance(&chances, &wrong));
    for (uint32_t unlikeliness = 0; unlikeliness < 256; unlikeliness++) {
        const uint8_t class = pi2_draft_chance_class(unlikeliness);
        assert_true(class >= 1 && class < PI2_DRAFT_UNKNOWN);
        if (unlikeliness > 0) assert_true(class >= pi2_draft_chance_class(unlikeliness - 1));
    }
    assert_int_equal(pi2_draft_chance_class(PI2_NEXT_STEPS), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_likeliest_are_kept), cmocka_unit_test(what_is_no_number_is_no_guess),
        cmocka_unit_test(the_likeliest_are_listed), cmocka_unit_test(a_token_finds_its_own_row),
        cmocka_unit_test(chances_go_where_the_text_goes),
    };
    return cmocka_run_group_tests_name("what logits named lately", tests, NULL, NULL);
}
