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

/* Slots that a dense pass would empty are read again: it must be faster by that too. */
static void test_what_leaves_counts(void **state) {
    (void)state;
    pi2_pass_choice choice = { .units = UNITS, .slots = 130000, .unit_bytes = UNIT_BYTES,
                               .streamed_bytes = 2113929216 };
    choice.used = 0.11;
    choice.missed = 0.6;
    assert_false(pi2_pass_goes_by_neuron(&choice, 4)); /* 103,000 small reads against 2 GB */
    choice.emptied = 120000; /* 0.5 GB in long reads */
    assert_true(pi2_pass_goes_by_neuron(&choice, 4));
    assert_false(pi2_pass_goes_by_neuron(&choice, 8));
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

/* Of one expert: what is missing of the neurons that fire, of its Gate, and of it whole. */
static void test_large_experts_pay_by_neuron(void **state) {
    (void)state;
    /* TurboSparse-Mixtral's, 99 MB; 15 % of 14336 fire. Half of both in memory: 430 small reads against 50 MB. */
    assert_true(pi2_small_reads_pay(14336 * 0.15 * 0.2, 0, 0.5 * 99e6));
    /* SmallThinker's, 3.3 MB; 40 % of 768 fire. 120 small reads against 1.3 MB. */
    assert_false(pi2_small_reads_pay(768 * 0.4 * 0.4, 0, 0.4 * 3.3e6));
    assert_false(pi2_small_reads_pay(0, 1e6, 1.2e6)); /* not clearly */
    assert_true(pi2_small_reads_pay(0, 1e6, 1.6e6));
    assert_false(pi2_small_reads_pay(1, 0, 0)); /* whole experts are all there */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_short_prompt_streams),
        cmocka_unit_test(test_what_leaves_counts),
        cmocka_unit_test(test_in_memory_computing_decides),
        cmocka_unit_test(test_what_is_found_is_learnt),
        cmocka_unit_test(test_large_experts_pay_by_neuron),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
