/*
 * Goal:   devices beside the processor change no bit: of dense models, experts and single neurons, in memory and
 *         streamed, with one device and several, whatever their share, slow ones, ones that compute some types only;
 *         what they keep copies of follows their part, and memory.
 * Method: tiny models of mixed types with a device that is a thread of the test and checks what it is asked
 *         (support/device_engine.h), against the processor alone on one thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pages.h"
#include "engine/engine_internal.h"
#include "engine/memory_relief.h"
#include "pipeline/forward_internal.h"
#include "support/device_engine.h"

static void test_same_bits(void **state) {
    (void)state;
    static const device_variation variations[] = {
        { .model = DENSE, .devices = "mock", .threads = 2, .batch = 64, .orders = { .devices = 1 },
          .share = -1 },
        { .model = DENSE, .devices = "mock:1,mock:0", .threads = 1, .batch = 3, .orders = { .devices = 2 },
          .share = 0.37 },
        { .model = DENSE, .devices = "mock", .threads = 2, .batch = 4, .streams = true,
          .orders = { .devices = 1, .leaves_q6_k = true } },
        { .model = DENSE, .devices = "mock", .threads = 1, .batch = 16,
          .orders = { .devices = 1, .slow_us = 200, .leaves_q6_k = true } },
        { .model = EXPERTS, .devices = "mock", .threads = 1, .batch = 5, .orders = { .devices = 1 } },
        { .model = EXPERTS, .devices = "mock:0,mock:1", .threads = 2, .batch = 64, .streams = true,
          .orders = { .devices = 2, .slow_us = 50 } },
        { .model = NEURONS, .devices = "mock", .threads = 2, .batch = 16, .orders = { .devices = 1 } },
        { .model = NEURONS, .devices = "mock:1", .threads = 1, .batch = 1, .orders = { .devices = 2 }, .share = 0.5 },
    };
    for (size_t i = 0; i < sizeof variations / sizeof variations[0]; i++) {
        pi2_engine *engine = device_engine_open(&variations[i]);
        const pi2_engine_report *report = pi2_engine_get_report(engine);
        const bool two = strchr(variations[i].devices, ',') != NULL;
        assert_int_equal(report->device_count, two ? 2 : 1);
        assert_int_equal(report->thread_count, variations[i].threads);
        if (variations[i].streams && !DEVICE_TESTS_ARE_SLOW && report->resident_bytes >= report->weight_bytes) {
            fail_msg("variation %zu does not stream", i);
        }
        assert_non_null(strstr(report->devices, "a thread of a test"));
        for (int turn = 0; turn < 2; turn++) device_engine_compare(engine, &variations[i], i);
        pi2_engine_counters counters;
        pi2_engine_count(engine, &counters);
        assert_int_equal(counters.device_calls, mock_device_counts.works);
        assert_true(counters.device_calls > 0 && counters.device_bytes > 0 && counters.device_ns > 0);
        assert_int_equal(device_lines_with("is lost"), 0);
        device_engine_close(engine);
    }
}

/* Hot neurons are the device's: any part of a layer, in memory, and with too little memory for the other neurons. A
 * device that is slow loses chunks to the threads, one that is alone with a thread takes theirs. */
static void test_hot_neurons(void **state) {
    (void)state;
    static const double shares[] = { 0, 0.13, 0.5, 0.77, 1, -1 };
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        for (int streams = 0; streams < 2; streams++) {
            const device_variation v = { .model = NEURONS, .devices = i % 2 ? "mock" : "mock:0,mock:1",
                                         .streams = streams, .spare_steps = 8, .threads = 1 + (uint32_t)i % 2,
                                         .batch = 16, .share = shares[i],
                                         .orders = { .devices = 2, .slow_us = i == 2 ? 300 : 0 } };
            pi2_engine *engine = device_engine_open(&v);
            for (int turn = 0; turn < 3; turn++) device_engine_compare(engine, &v, i);
            pi2_engine_counters counters;
            pi2_engine_count(engine, &counters);
            if (shares[i] == 0) assert_int_equal(counters.hot_neurons, 0);
            if (shares[i] >= 0.5 && !(streams && DEVICE_TESTS_ARE_SLOW)) assert_true(counters.hot_neurons > 0);
            if (streams && !DEVICE_TESTS_ARE_SLOW) assert_true(counters.bytes_read > 0);
            /* All of them in each pass of one token. */
            if (shares[i] == 1 && !streams) {
                assert_int_equal(counters.hot_neurons, 3 * DEVICE_DECODED * DEVICE_HOT_LAYERS * DEVICE_HOT_NEURONS);
                assert_int_equal(counters.neuron_uses, 0);
            }
            print_message("share %g%s: %llu hot neurons, %llu single ones\n", shares[i], streams ? ", streamed" : "",
                          (unsigned long long)counters.hot_neurons, (unsigned long long)counters.neuron_uses);
            device_engine_close(engine);
        }
    }
}

/* Copies are of a device's own part: what it takes besides, because it is done, passes by. Attention (F16 is a type of
 * its alone) has such a part where nothing streams, also of a file that leaves room for streaming. */
static void test_copies_of_the_own_part(void **state) {
    (void)state;
    static const double shares[] = { 1, 0.2, 0 };
    const uint64_t of_attention = UINT64_C(1) << PI2_F16;
    for (int i = 0; i < 3; i++) {
        const device_variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4,
                                     .orders = { .devices = 1 }, .share = shares[i] };
        pi2_engine *engine = device_engine_open(&v);
        /* Who is done before the other is the scheduler's business. */
        bool is_seen = false;
        for (int turn = 0; turn < DEVICE_RUNS_MOST && (turn < 4 || !is_seen); turn++) {
            device_engine_compare(engine, &v, (size_t)i);
            is_seen = i == 0 ? mock_device_counts.kept_types & of_attention : mock_device_counts.passing > 0;
        }
        assert_true(is_seen);
        assert_int_equal(mock_device_counts.kept > 0, i < 2);
        assert_int_equal(mock_device_counts.passing > 0, i > 0);
        device_engine_close(engine);
    }
}

/* What stays in memory is brought to a device once; what leaves under pressure and comes again is brought anew. */
static uint64_t comes_and_goes(void *user, uint64_t planned_bytes) {
    uint32_t *turn = user;
    return planned_bytes / 16 * (4 + ++*turn * 7 % 13);
}

static void test_copies_follow_memory(void **state) {
    (void)state;
    const device_variation v = { .model = DENSE, .devices = "mock", .threads = 2, .batch = 4,
                                 .orders = { .devices = 1 }, .share = 0.5 };
    pi2_engine *engine = device_engine_open(&v);
    /* How much the device gets to claim is the scheduler's: on a busy machine little. */
    bool is_used_again = false;
    for (int i = 0; i < DEVICE_RUNS_MOST && !is_used_again; i++) {
        device_engine_compare(engine, &v, 0);
        is_used_again = mock_device_counts.kept > 0 && mock_device_counts.used_again > mock_device_counts.kept;
    }
    assert_true(is_used_again);
    uint32_t turn = 0;
    pi2_engine_simulate_pressure(engine, comes_and_goes, &turn);
    pi2_engine_counters counters = { .give_backs = 0 };
    for (int i = 0; i < DEVICE_RUNS_MOST && !(counters.give_backs > 0 && mock_device_counts.forgotten > 0); i++) {
        device_engine_compare(engine, &v, 1);
        pi2_engine_count(engine, &counters);
    }
    assert_true(turn > 0);
    assert_true(counters.give_backs > 0 && mock_device_counts.forgotten > 0);
    device_engine_close(engine);
}

/* What devices take where they own nothing, or as much as memory has, moves no share. What a sanitizer holds in the
 * process may leave the model more memory than was looked for: where nothing streams, attention has shares. */
static void test_shares_do_not_drift(void **state) {
    (void)state;
    static const device_model models[] = { DENSE, NEURONS };
    for (int i = 0; i < 2; i++) {
        const bool by_neuron = models[i] == NEURONS;
        const device_variation v = { .model = models[i], .devices = "mock", .streams = true,
                                     .spare_steps = by_neuron ? 4 : 0, .threads = 1, .batch = 16,
                                     .orders = { .devices = 1 }, .share = -1 };
        pi2_engine *engine = device_engine_open(&v);
        const pi2_engine_report *report = pi2_engine_get_report(engine);
        const bool streams = report->resident_bytes < report->weight_bytes;
        assert_true(streams || by_neuron || DEVICE_TESTS_ARE_SLOW);
        const float high = 0.9f;
        for (int turn = 0; turn < 8; turn++) {
            float (*shares)[PI2_SHARE_KINDS] = engine->forward->share.shares[by_neuron];
            for (int kind = 0; kind < PI2_SHARE_KINDS; kind++) shares[0][kind] = high;
            device_engine_compare(engine, &v, (size_t)i);
            assert_true(shares[0][PI2_SHARE_FFN] <= high);
            if (by_neuron || !streams) continue;
            assert_true(shares[0][PI2_SHARE_ATTENTION] == high && shares[0][PI2_SHARE_HEAD] == high);
        }
        device_engine_close(engine);
    }
}

/* Weights that speeds are measured with lie in pages of their own, as a model's do, not all in one page of zeros. */
static void test_is_measured_in_memory(void **state) {
    (void)state;
    void *pages = NULL;
    assert_int_equal(pi2_pages_reserve(1, false, "a page", &pages), PI2_OK);
    const bool can_tell = mock_is_no_page(pages);
    memset(pages, 0, 1);
    const bool has_page = !mock_is_no_page(pages);
    pi2_pages_release(pages, 1);
    if (!can_tell || !has_page) skip(); /* the system does not tell */
    const device_variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4, .share = -1,
                          .orders = { .devices = 1, .looks_at_pages = true } };
    pi2_engine *engine = device_engine_open(&v);
    assert_true(mock_device_counts.works > 0);
    assert_int_equal(mock_device_counts.in_no_page, 0);
    device_engine_close(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_hot_neurons),
        cmocka_unit_test(test_copies_of_the_own_part),
        cmocka_unit_test(test_copies_follow_memory),
        cmocka_unit_test(test_shares_do_not_drift),
        cmocka_unit_test(test_is_measured_in_memory),
    };
    return cmocka_run_group_tests(tests, device_tests_begin, device_tests_end);
}
