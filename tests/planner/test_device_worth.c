/*
 * Goal:   a device's share of a stage is the one with which both sides are done at once; what calls take, and what a
 *         device takes of the threads' speed, is reckoned with; one whose call takes longer than the stage has no share
 *         and does not pay; no figure is no number.
 * Method: made up speeds.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "planner/device_worth.h"

static void expect(const pi2_device_rates *rates, double bytes, double share, double gain) {
    const pi2_device_worth_of_stage worth = pi2_device_worth_in(rates, bytes);
    if (fabs(worth.share - share) > 0.005 || fabs(worth.gain - gain) > 0.005) {
        fail_msg("share %g, gain %g; wanted %g, %g", worth.share, worth.gain, share, gain);
    }
}

static void test_both_at_once(void **state) {
    (void)state;
    /* A stage of 100 KB: 10 us of the threads. */
    expect(&(pi2_device_rates){ .alone = 10e9, .beside = 10e9, .device = 10e9 }, 1e5, 0.5, 2);
    expect(&(pi2_device_rates){ .alone = 10e9, .beside = 10e9, .device = 30e9 }, 1e5, 0.75, 4);
    /* The same processors twice. */
    expect(&(pi2_device_rates){ .alone = 10e9, .beside = 5e9, .device = 5e9 }, 1e5, 0.5, 1);
    expect(&(pi2_device_rates){ .alone = 10e9, .beside = 5e9, .device = 2e9 }, 1e5, 2.0 / 7, 0.7);
    expect(&(pi2_device_rates){ .alone = 10e9, .beside = 10e9, .device = 0 }, 1e5, 0, 1);
    expect(&(pi2_device_rates){ .alone = 0, .beside = 0, .device = 1e9 }, 1e5, 0, 1);
}

static void test_calls(void **state) {
    (void)state;
    /* 4 of 10 us are the call's: (10 - 4) / (10 + 10). */
    expect(&(pi2_device_rates){ .alone = 10e9, .beside = 10e9, .device = 10e9, .call_seconds = 4e-6 }, 1e5, 0.3,
           10 / 7.0);
    /* A call that takes as long as the stage, and one that takes three times as long. */
    expect(&(pi2_device_rates){ .alone = 10e9, .beside = 10e9, .device = 10e9, .call_seconds = 10e-6 }, 1e5, 0, 1);
    expect(&(pi2_device_rates){ .alone = 10e9, .beside = 10e9, .device = 10e9, .call_seconds = 30e-6 }, 1e5, 0,
           1 / 3.0);
    /* A large stage takes four calls: (1000 - 400) / 2000 of 10 MB. */
    expect(&(pi2_device_rates){ .alone = 10e9, .beside = 10e9, .device = 10e9, .call_seconds = 1e-4 }, 1e7, 0.3,
           10 / 7.0);
}

/* The faster anything is, the more it is worth. */
static void test_more_is_more(void **state) {
    (void)state;
    double last = 0;
    for (double device = 1e8; device < 1e12; device *= 1.7) {
        const pi2_device_rates rates = { .alone = 2e10, .beside = 1.5e10, .device = device, .call_seconds = 2e-5 };
        const pi2_device_worth_of_stage worth = pi2_device_worth_in(&rates, 3e6);
        assert_true(worth.share >= 0 && worth.share <= 1 && isfinite(worth.gain));
        assert_true(worth.gain >= last - 1e-9);
        last = worth.gain;
    }
    assert_true(last > 1.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_at_once), cmocka_unit_test(test_calls), cmocka_unit_test(test_more_is_more),
    };
    return cmocka_run_group_tests_name("what devices are worth", tests, NULL, NULL);
}
