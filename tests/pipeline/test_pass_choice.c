/*
 * Goal:   few tokens go by neuron, several do where that is faster: a prompt whose neurons are not in memory streams,
 *         guesses beside a token do not; what passes find is learnt.
 * Method: the sizes of a 7B whose neurons are zero in nine of ten cases, at three budgets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pipeline/pass_choice.h"

enum { UNITS = 458752, UNIT_BYTES = 4096 };

static void test_a_short_prompt_streams(void **state) {
    (void)state;
    pi2_pass_choice choice = { .units = UNITS, .slots = 130000, .unit_bytes = UNIT_BYTES,
                               .streamed_bytes = 2113929216 };
    assert_true(pi2_pass_goes_by_neuron(&choice, 1));
    assert_false(pi2_pass_goes_by_neuron(&choice, 7)); /* 180,000 small reads against 2 GB */
    pi2_pass_choice_note(&choice, UNITS / 9, UNITS / 15);
    assert_true(pi2_pass_goes_by_neuron(&choice, 2));
    assert_false(pi2_pass_goes_by_neuron(&choice, 7));
    choice.slots = 420000; /* nearly all are there */
    pi2_pass_choice_note(&choice, UNITS / 9, UNITS / 9 - 500);
    choice.missed = 0.01;
    assert_true(pi2_pass_goes_by_neuron(&choice, 7));
}

static void test_in_memory_computing_decides(void **state) {
    (void)state;
    pi2_pass_choice choice = { .units = UNITS, .slots = UNITS, .unit_bytes = UNIT_BYTES };
    pi2_pass_choice_note(&choice, UNITS / 10, UNITS / 10);
    assert_true(pi2_pass_goes_by_neuron(&choice, 4));
    choice.used = 0.5; /* half of them fire for each token */
    assert_true(pi2_pass_goes_by_neuron(&choice, 1));
    assert_false(pi2_pass_goes_by_neuron(&choice, 4));
}

static void test_what_is_found_is_learnt(void **state) {
    (void)state;
    pi2_pass_choice choice = { .units = 1000, .slots = 100, .unit_bytes = UNIT_BYTES };
    pi2_pass_choice_note(&choice, 0, 0); /* a pass that failed at once */
    assert_true(choice.used == 0);
    pi2_pass_choice_note(&choice, 100, 75);
    assert_float_equal(choice.used, 0.1, 1e-9);
    assert_float_equal(choice.missed, 0.25, 1e-9);
    pi2_pass_choice_note(&choice, 500, 500);
    assert_float_equal(choice.used, 0.2, 1e-9);
    assert_float_equal(choice.missed, 0.1875, 1e-9);
    for (int i = 0; i < 60; i++) pi2_pass_choice_note(&choice, 300, 0);
    assert_float_equal(choice.used, 0.3, 1e-6);
    assert_float_equal(choice.missed, 1, 1e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_short_prompt_streams),
        cmocka_unit_test(test_in_memory_computing_decides),
        cmocka_unit_test(test_what_is_found_is_learnt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
