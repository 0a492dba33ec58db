/*
 * Goal:   passes are tried with and without devices in equal numbers; the faster way is kept, and tried again later.
 * Method: made up times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/device_trial.h"

/* Passes that take so long with and without; returns how many of them had devices. */
static unsigned run(pi2_device_trial *trial, unsigned passes, uint64_t with_ns, uint64_t without_ns) {
    unsigned with = 0;
    for (unsigned i = 0; i < passes; i++) {
        const bool has = pi2_device_trial_wanted(trial);
        with += has;
        (void)pi2_device_trial_note(trial, (has ? with_ns : without_ns) + i % 3);
    }
    return with;
}

static void test_slower(void **state) {
    (void)state;
    pi2_device_trial trial = { .pass = 0 };
    assert_true(pi2_device_trial_wanted(&trial));
    assert_int_equal(run(&trial, 2 * PI2_DEVICE_TRIAL, 2000, 1000), PI2_DEVICE_TRIAL);
    assert_true(trial.is_off);
    assert_in_range(trial.medians[1], 2000, 2002);
    assert_int_equal(run(&trial, PI2_DEVICE_HOLD, 2000, 1000), 0);
    /* By the next trial the device has become the faster one. */
    assert_int_equal(run(&trial, 2 * PI2_DEVICE_TRIAL, 1000, 2000), PI2_DEVICE_TRIAL);
    assert_false(trial.is_off);
    assert_int_equal(run(&trial, PI2_DEVICE_HOLD, 1000, 2000), PI2_DEVICE_HOLD);
}

static void test_equal(void **state) {
    (void)state;
    pi2_device_trial trial = { .pass = 0 };
    (void)run(&trial, 2 * PI2_DEVICE_TRIAL, 1000, 995);
    assert_false(trial.is_off); /* noise does not decide */
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_slower), cmocka_unit_test(test_equal) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
