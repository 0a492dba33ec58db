/*
 * Goal:   a second look forgets Ctrl-C, which ended an answer, and no signal that asks the whole program to end.
 * Method: signals that the process sends itself.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/signals.h"

static void test_what_is_forgotten(void **state) {
    (void)state;
    pi2_cli_catch_signals();
    assert_false(pi2_cli_interrupted());
    assert_int_equal(raise(SIGINT), 0);
    assert_true(pi2_cli_interrupted());
    pi2_cli_catch_signals();
    assert_false(pi2_cli_interrupted());
    assert_int_equal(raise(SIGHUP), 0);
    assert_true(pi2_cli_interrupted());
    pi2_cli_catch_signals();
    assert_true(pi2_cli_interrupted());
}

/* A reader that has gone is a write that fails. */
static void test_closed_pipe(void **state) {
    (void)state;
    int pipes[2];
    pi2_cli_catch_signals();
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(close(pipes[0]), 0);
    assert_int_equal(write(pipes[1], "x", 1), -1);
    assert_int_equal(close(pipes[1]), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_closed_pipe), cmocka_unit_test(test_what_is_forgotten) };
    return cmocka_run_group_tests_name("signals", tests, NULL, NULL);
}
