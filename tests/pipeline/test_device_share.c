/*
 * Goal:   a share of a pass follows what the passes of its kind showed, and no other kind's; a fixed one stays; it
 *         never leaves 0 .. 1.
 * Method: made up work.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/device_share.h"

/* A pass in which devices could have computed the part `right` of everything, and threads the rest. */
static void run_pass(pi2_device_share *share, uint32_t tokens, bool by_neuron, double right) {
    pi2_device_share_begin(share, tokens, by_neuron, true);
    const double own = pi2_device_share_now(share, PI2_SHARE_FFN), all = 1e6;
    pi2_device_share_did(share, PI2_SHARE_FFN, true, true, (uint64_t)((own < right ? own : right) * all));
    pi2_device_share_did(share, PI2_SHARE_FFN, false, false, (uint64_t)((1 - (own > right ? own : right)) * all));
    if (own < right) pi2_device_share_did(share, PI2_SHARE_FFN, false, true, (uint64_t)((right - own) * all));
    if (own > right) pi2_device_share_did(share, PI2_SHARE_FFN, true, false, (uint64_t)((own - right) * all));
    pi2_device_share_end(share);
}

static void expect_share(double got, double wanted) { assert_true(got > wanted - 0.005 && got < wanted + 0.005); }

static void test_sizes(void **state) {
    (void)state;
    static const uint32_t tokens[] = { 1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 100000 };
    static const uint32_t sizes[] = { 0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7 };
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        assert_int_equal(pi2_share_size(tokens[i]), sizes[i]);
    }
}

static void test_follows(void **state) {
    (void)state;
    pi2_device_share share;
    const pi2_device_first_shares first = { .of = { 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.7f } };
    pi2_device_share_init(&share, &first);
    for (int i = 0; i < 12; i++) {
        run_pass(&share, 1, false, 0.2);
        run_pass(&share, 1, true, 0.9);
        run_pass(&share, 8, false, 1.0);
        run_pass(&share, 3, false, 0.0);
    }
    expect_share(pi2_device_share_of(&share, 1, false, PI2_SHARE_FFN), 0.2);
    expect_share(pi2_device_share_of(&share, 1, true, PI2_SHARE_FFN), 0.9);
    expect_share(pi2_device_share_of(&share, 8, false, PI2_SHARE_FFN), 1.0);
    expect_share(pi2_device_share_of(&share, 4, false, PI2_SHARE_FFN), 0.0);
    /* What was not shown is as it was. */
    expect_share(pi2_device_share_of(&share, 2, false, PI2_SHARE_FFN), 0.5);
    expect_share(pi2_device_share_of(&share, 512, false, PI2_SHARE_FFN), 0.7);
    expect_share(pi2_device_share_of(&share, 1, false, PI2_SHARE_HEAD), 0.5);
    run_pass(&share, 3, false, 0.6); /* from nothing, too */
    expect_share(pi2_device_share_of(&share, 4, false, PI2_SHARE_FFN), 0.3);
}

static void test_fixed(void **state) {
    (void)state;
    pi2_device_share share;
    const pi2_device_first_shares first = { .of = { 0.25f }, .are_fixed = true };
    pi2_device_share_init(&share, &first);
    for (int i = 0; i < 4; i++) run_pass(&share, 1, false, 0.9);
    expect_share(pi2_device_share_of(&share, 1, false, PI2_SHARE_FFN), 0.25);
}

/* Work that is nobody's, since its weights stream, says nothing of the share. */
static void test_of_none(void **state) {
    (void)state;
    pi2_device_share share;
    const pi2_device_first_shares first = { .of = { 0.25f } };
    pi2_device_share_init(&share, &first);
    pi2_device_share_begin(&share, 1, false, true);
    expect_share(pi2_device_share_now(&share, PI2_SHARE_NONE), 0);
    pi2_device_share_did(&share, PI2_SHARE_NONE, false, true, 1000);
    pi2_device_share_end(&share);
    for (int kind = 0; kind < PI2_SHARE_KINDS; kind++) {
        expect_share(pi2_device_share_of(&share, 1, false, (pi2_share_kind)kind), 0.25);
    }
}

static void test_without_devices(void **state) {
    (void)state;
    pi2_device_share share;
    const pi2_device_first_shares first = { .of = { 0.25f } };
    pi2_device_share_init(&share, &first);
    pi2_device_share_begin(&share, 1, false, false);
    expect_share(pi2_device_share_now(&share, PI2_SHARE_FFN), 0);
    pi2_device_share_did(&share, PI2_SHARE_FFN, false, true, 1000);
    pi2_device_share_end(&share);
    expect_share(pi2_device_share_of(&share, 1, false, PI2_SHARE_FFN), 0.25);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes), cmocka_unit_test(test_follows), cmocka_unit_test(test_fixed),
        cmocka_unit_test(test_of_none),   cmocka_unit_test(test_without_devices),
    };
    return cmocka_run_group_tests_name("device shares", tests, NULL, NULL);
}
