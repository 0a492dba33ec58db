/*
 * Goal:   a device that is lost at any moment, by failing, by half a result or by hanging, also while its speed is
 *         measured, is told of once and costs no text; of two the other one goes on.
 * Method: as test_engine_devices.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/engine.h"
#include "support/device_engine.h"
#include "support/tiny_model.h"

enum { LOSSES = DEVICE_TESTS_ARE_SLOW ? 4 : 17 }; /* of each of three models: 51 */

/* A device that hangs while its speed is measured is lost before the run; what it was asked to multiply stays. */
static void test_lost_while_it_is_measured(void **state) {
    (void)state;
    for (uint64_t at = 1; at <= 9; at += 4) {
        const device_variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4, .share = -1,
                              .orders = { .devices = 1, .ends_at = at, .ending = MOCK_HANGS } };
        pi2_engine *engine = device_engine_open(&v);
        device_engine_compare(engine, &v, (size_t)at);
        assert_int_equal(mock_device_counts.works, at);
        assert_int_equal(device_lines_with("device 'mock:0' is lost: it does not answer"), 1);
        device_engine_close(engine);
        assert_int_equal(mock_device_counts.too_late, 1);
    }
}

/* A device that ends at a random piece of work; the text is the same, before, at and after that. */
static void test_losses(void **state) {
    (void)state;
    uint64_t random = 23;
    uint32_t lost = 0, hung = 0;
    for (int i = 0; i < DEVICE_MODELS * LOSSES; i++) {
        device_variation v = { .model = (device_model)(i % DEVICE_MODELS), .devices = "mock",
                               .threads = 1 + (uint32_t)i / DEVICE_MODELS % 2, .batch = i % 4 ? 4 : 64,
                               .orders = { .devices = 1 } };
        v.orders.ending = (mock_ending)(i / DEVICE_MODELS % 3);
        v.orders.ends_at = 1 + pi2_tiny_random(&random) % 60;
        v.share = 0.25 * (double)(i / DEVICE_MODELS % 5);
        pi2_engine *engine = device_engine_open(&v);
        for (int turn = 0; turn < 2; turn++) device_engine_compare(engine, &v, (size_t)i);
        const bool is_lost = mock_device_counts.works >= v.orders.ends_at;
        pi2_engine_counters counters;
        pi2_engine_count(engine, &counters);
        assert_int_equal(counters.device_calls, mock_device_counts.works - is_lost);
        assert_int_equal(device_lines_with("device 'mock:0' is lost: "), is_lost);
        assert_int_equal(device_lines_with("the processor goes on, with the same text"), is_lost);
        device_engine_close(engine);
        assert_int_equal(mock_device_counts.too_late, is_lost && v.orders.ending == MOCK_HANGS);
        lost += is_lost;
        hung += is_lost && v.orders.ending == MOCK_HANGS;
    }
    print_message("%u of %d devices were lost, %u of them hung\n", lost, DEVICE_MODELS * LOSSES, hung);
    assert_true(lost > DEVICE_MODELS * LOSSES / 2 && hung > 0);
}

/* Of two devices the other one goes on. */
static void test_one_of_two_is_lost(void **state) {
    (void)state;
    const device_variation v = { .model = DENSE, .devices = "mock:0,mock:1", .threads = 1, .batch = 16,
                          .orders = { .devices = 2, .ends_at = 9, .ending = MOCK_FAILS_LATE } };
    pi2_engine *engine = device_engine_open(&v);
    for (int turn = 0; turn < 4; turn++) device_engine_compare(engine, &v, 0);
    const uint32_t first = device_lines_with("device 'mock:0' is lost");
    const uint32_t second = device_lines_with("device 'mock:1' is lost");
    assert_true(first <= 1 && second <= 1 && first + second >= 1);
    assert_int_equal(device_lines_with("is lost"), first + second);
    device_engine_close(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_while_it_is_measured),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_one_of_two_is_lost),
    };
    return cmocka_run_group_tests(tests, device_tests_begin, device_tests_end);
}
