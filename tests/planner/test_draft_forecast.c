/*
 * Goal:   a draft pays where its memory is little beside what passes read anyway, not where all is in memory, nor where
 *         it takes as much as it saves, nor where guesses that cost nothing give about as much.
 * Method: sizes of known cases, in MB.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "planner/draft_forecast.h"

static pi2_draft_forecast forecast(uint64_t missing, uint64_t missing_with, uint64_t draft, double free_tokens) {
    const pi2_draft_forecast_request request = { .pass_bytes = 630, .missing_bytes = missing,
                                                 .missing_with_bytes = missing_with, .draft_bytes = draft, .most = 8,
                                                 .free_tokens = free_tokens };
    return pi2_forecast_draft(&request);
}

/* A layer of 34 and of 64 MB beside a model of 668 MB within half of it. */
static void test_small_layers_pay(void **state) {
    (void)state;
    const pi2_draft_forecast small = forecast(350, 393, 34, 1.5), large = forecast(350, 422, 64, 1.5);
    assert_true(small.length > 1 && large.length > 1);
    assert_true(small.tokens / small.time > large.tokens / large.time);
    assert_true(large.tokens / large.time > 1.5);
    assert_true(forecast(350, 393, 34, 1).length > 1);
}

static void test_what_does_not_pay(void **state) {
    (void)state;
    assert_int_equal(forecast(350, 620, 270, 1.5).length, 0); /* a model of nearly half the size */
    assert_int_equal(forecast(0, 0, 300, 1).length, 0); /* nothing is read */
    assert_int_equal(forecast(20, 300, 280, 1).length, 0);
    /* One that pays a little, unless others guess as well for nothing. */
    const pi2_draft_forecast alone = forecast(200, 300, 100, 1);
    assert_true(alone.length > 0 && alone.tokens / alone.time > 1.05);
    assert_int_equal(forecast(200, 300, 100, alone.tokens / alone.time + 0.01).length, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_layers_pay), cmocka_unit_test(test_what_does_not_pay),
    };
    return cmocka_run_group_tests_name("draft forecast", tests, NULL, NULL);
}
