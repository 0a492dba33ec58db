/*
 * Goal:   which devices a run takes: the first that can be opened and is not the processor itself, those that pay; one
 *         that cannot be used is left out, and names that mean nothing are refused; one of other bits makes a run
 *         approximate, whose states no exact run takes. When sequences come and end, the very next pass has the share
 *         of such passes.
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

#include "engine/engine_internal.h"
#include "pipeline/forward_internal.h"
#include "powerinfer2/device.h"
#include "powerinfer2/identity.h"
#include "powerinfer2/prompt_cache.h"
#include "support/device_engine.h"
#include "support/temporary_files.h"

/* Of two devices the one is slow that takes longer for a call than the threads for a pass: it is closed before the run,
 * with a line, unless it shall be used all the same or have a share. */
static void test_what_does_not_pay_is_left_out(void **state) {
    (void)state;
    device_variation v = { .model = DENSE, .devices = "mock:1,mock:0", .threads = 1, .batch = 16, .share = -1,
                           .orders = { .devices = 2, .slow_us = DEVICE_TESTS_ARE_SLOW ? 400000 : 20000 },
                           .may_be_left_out = true };
    static const struct { bool always; double share; } used[] = { { false, 0.5 }, { true, -1 } };
    pi2_engine *engine = device_engine_open(&v);
    assert_int_equal(device_lines_with("device 'mock:1' does not pay: with it matrices are "), 1);
    assert_int_equal(device_lines_with("device 'mock:0' does not pay: "), 1);
    assert_int_equal(pi2_engine_get_report(engine)->device_count, 0);
    assert_null(pi2_engine_get_report(engine)->devices);
    assert_int_equal(pi2_engine_get_report(engine)->thread_count, 1);
    assert_int_equal(mock_device_counts.closed, 2);
    const uint64_t works = mock_device_counts.works;
    assert_true(works > 0);
    device_engine_compare(engine, &v, 0);
    assert_int_equal(mock_device_counts.works, works);
    device_engine_close(engine);
    for (size_t i = 0; i < 2; i++) {
        v.devices = "mock";
        v.may_be_left_out = !used[i].always;
        v.share = used[i].share;
        engine = device_engine_open(&v);
        assert_int_equal(device_lines_with("does not pay"), 0);
        assert_int_equal(pi2_engine_get_report(engine)->device_count, 1);
        device_engine_close(engine);
    }
}

static uint32_t lines_of_broken(void) {
    return device_lines_with("device 'mock:0' is broken; the processor computes alone");
}

static void test_left_out(void **state) {
    (void)state;
    device_variation v = { .model = DENSE, .devices = "mock", .threads = 2, .batch = 16,
                    .orders = { .devices = 2, .refused = "it has other bits" } };
    pi2_engine *engine = device_engine_open(&v);
    assert_int_equal(pi2_engine_get_report(engine)->device_count, 0);
    assert_null(pi2_engine_get_report(engine)->devices);
    assert_int_equal(device_lines_with("device 'mock:0': it has other bits; the processor computes alone"), 1);
    device_engine_compare(engine, &v, 0);
    device_engine_close(engine);
    v.orders = (mock_orders){ .devices = 1 };
    v.devices = "mock:7";
    engine = device_engine_open(&v);
    assert_int_equal(device_lines_with("there is no device mock:7; the processor computes alone"), 1);
    device_engine_close(engine);
    v.orders = (mock_orders){ .devices = 2, .first_is_broken = true };
    v.devices = "mock"; /* the next one is taken */
    engine = device_engine_open(&v);
    assert_int_equal(pi2_engine_get_report(engine)->device_count, 1);
    assert_int_equal(lines_of_broken(), 0);
    device_engine_close(engine);
    v.orders.devices = 1;
    engine = device_engine_open(&v);
    assert_int_equal(pi2_engine_get_report(engine)->device_count, 0);
    assert_int_equal(lines_of_broken(), 1);
    device_engine_close(engine);
    v.orders = (mock_orders){ .devices = 4, .processors = 2 }; /* whose driver is the first in the list */
    engine = device_engine_open(&v);
    assert_non_null(strstr(pi2_engine_get_report(engine)->devices, "mock:2"));
    device_engine_close(engine);
    v.orders.processors = 4; /* there is nothing else */
    engine = device_engine_open(&v);
    assert_non_null(strstr(pi2_engine_get_report(engine)->devices, "mock:0"));
    device_engine_close(engine);
    v.orders = (mock_orders){ .devices = 1 };
    static const char *const nobody[] = { NULL, "none", "" };
    for (size_t i = 0; i < sizeof nobody / sizeof nobody[0]; i++) {
        v.devices = nobody[i];
        engine = device_engine_open(&v);
        assert_int_equal(mock_device_counts.opened, 0);
        device_engine_close(engine);
    }
}

/* Both runs of a device that is asked for with any precision; the first one's bits are the processor's. */
static void test_other_bits(void **state) {
    (void)state;
    device_variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4, .any_precision = true,
                    .orders = { .devices = 1 } };
    char exact_path[256], other_path[256];
    (void)snprintf(exact_path, sizeof exact_path, "%s.exact", device_model_path(DENSE));
    (void)snprintf(other_path, sizeof other_path, "%s.other", device_model_path(DENSE));
    for (int turn = 0; turn < 2; turn++) {
        const bool differs = turn == 1;
        v.orders.has_other_bits = differs;
        pi2_engine *engine = device_engine_open(&v);
        assert_int_equal(pi2_engine_is_exact(engine), !differs);
        assert_int_equal(pi2_engine_get_report(engine)->devices_differ, differs);
        const char *arithmetic = pi2_engine_arithmetic(engine);
        if (!differs) assert_string_equal(arithmetic, "exact");
        else assert_ptr_equal(strstr(arithmetic, "device a thread of a test "), arithmetic);
        pi2_prompt_cache *cache = NULL;
        const pi2_status kept = pi2_prompt_cache_open(engine, test_folder_path("prompts"), 1 << 30, &cache);
        assert_int_equal(kept, differs ? PI2_ERR_INVALID : PI2_OK);
        if (differs) assert_non_null(strstr(pi2_error_text(), "keeps what exact runs compute"));
        pi2_prompt_cache_close(cache);
        if (!differs) device_engine_compare(engine, &v, 0);
        pi2_session *session = NULL;
        const int32_t tokens[] = { 5, 6, 7, 8 };
        assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
        assert_int_equal(pi2_session_append(session, tokens, 4, PI2_LOGITS_LAST), PI2_OK);
        assert_int_equal(pi2_session_save(session, differs ? other_path : exact_path, NULL, 0), PI2_OK);
        assert_int_equal(pi2_session_load(session, exact_path, NULL, NULL), differs ? PI2_ERR_UNSUPPORTED : PI2_OK);
        if (differs) assert_int_equal(pi2_session_load(session, other_path, NULL, NULL), PI2_OK);
        pi2_session_free(session);
        device_engine_close(engine);
    }
    v.any_precision = false;
    pi2_engine *engine = device_engine_open(&v);
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    assert_int_equal(pi2_session_load(session, other_path, NULL, NULL), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "computed with another arithmetic (device a thread of a test "));
    pi2_session_free(session);
    device_engine_compare(engine, &v, 0);
    device_engine_close(engine);
}

/* The name of an arithmetic follows from the device and its driver, and fits where files keep it. */
static void test_arithmetic_names(void **state) {
    (void)state;
    static const char *const drivers[] = { "Chip, driver 1", "Chip, driver 2",
        "A chip whose name is so long that nobody would ever read all of it, driver 1", "\x01\xff, driver 1" };
    char names[4][128];
    for (size_t i = 0; i < 4; i++) {
        device_variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4, .any_precision = true,
                        .orders = { .devices = 1, .has_other_bits = true, .description = drivers[i] } };
        pi2_engine *engine = device_engine_open(&v);
        (void)snprintf(names[i], sizeof names[i], "%s", pi2_engine_arithmetic(engine));
        assert_true(strlen(names[i]) < 120);
        for (size_t k = 0; k < i; k++) assert_string_not_equal(names[k], names[i]);
        device_engine_close(engine);
    }
    assert_memory_equal(names[0], "device Chip ", 12);
    assert_memory_equal(names[2], "device A chip whose name is so long that nobody ", 48);
    assert_memory_equal(names[3], "device ?? ", 10);
}

static void test_refused_names(void **state) {
    (void)state;
    static const struct { const char *devices, *says; } cases[] = {
        { "cuda:0", "there is no kind of device 'cuda:0' (" },
        { "moc", "there is no kind of device 'moc' (" },
        { "mock:", "device 'mock:': behind the colon must be a device's number" },
        { "mock:-1", "behind the colon must be a device's number" },
        { "mock:1x", "behind the colon must be a device's number" },
        { "mock:99999999999999999999", "behind the colon must be a device's number" },
        { ",", "names have 1 to 63 characters" },
        { "mock:0,,mock:1", "names have 1 to 63 characters" },
        { "mock:0,mock:1,mock:2,mock:3,mock:4", "more than 4 devices" },
        { "mock:0,opencle", "there is no kind of device 'opencle'" },
        { "mock:1,mock:1", "device 'mock:1' is named twice" },
        { "mock,mock:0", "device 'mock:0' is named twice" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const device_variation v = { .devices = cases[i].devices, .threads = 1, .batch = 16,
                                     .orders = { .devices = 5 } };
        pi2_engine *engine = NULL;
        if (device_engine_try(&v, 0, &engine) != PI2_ERR_INVALID) fail_msg("'%s' is taken", cases[i].devices);
        if (!strstr(pi2_error_text(), cases[i].says)) fail_msg("'%s': %s", cases[i].devices, pi2_error_text());
        assert_null(engine);
        assert_int_equal(mock_device_counts.opened, mock_device_counts.closed);
    }
}

static void count_device(void *user, const pi2_device_info *device) {
    uint32_t *count = user;
    if (strncmp(device->name, "mock:", 5) != 0) return;
    ++*count;
    assert_string_equal(device->description, "a thread of a test");
    assert_string_equal(device->refused, "it is busy");
}

static void test_list(void **state) {
    (void)state;
    uint32_t count = 0;
    mock_device_orders = (mock_orders){ .devices = 3, .refused = "it is busy" };
    pi2_device_list(count_device, &count);
    assert_int_equal(count, 3);
}

/* ---- sequences ---- */

enum { SEQUENCES = 4, SHARES_MOST = 256, SEQUENCE_PROMPT = 5 };

/* The share of each look into a pass, by the thread that walks it. */
typedef struct seen_shares {
    pi2_engine *engine;
    float of[SHARES_MOST];
    size_t count;
} seen_shares;

static bool note_share(void *user) {
    seen_shares *seen = user;
    const pi2_device_share *share = seen->engine ? &seen->engine->forward->share : NULL;
    if (share && share->now && seen->count < SHARES_MOST) {
        seen->of[seen->count++] = (float)pi2_device_share_now(share, PI2_SHARE_FFN);
    }
    return false;
}

/* One more token of the first `count` sessions, in one pass; its share is that of passes of so many from its beginning
 * on. */
static void check_step(pi2_session **sessions, size_t count, int32_t token, seen_shares *seen, float share) {
    pi2_session_tokens parts[SEQUENCES];
    for (size_t i = 0; i < count; i++) {
        parts[i] = (pi2_session_tokens){ .session = sessions[i], .tokens = &token, .token_count = 1,
                                         .wants_logits = true };
    }
    seen->count = 0;
    if (pi2_sessions_append(parts, count) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(seen->count > 0);
    for (size_t i = 0; i < seen->count; i++) assert_true(seen->of[i] == share);
}

/* 1, 4, 3, 2 sequences and 4 again: there is no pass between with the share of what was. */
static void test_sequences_come_and_end(void **state) {
    (void)state;
    static const struct { size_t count; float share; } steps[] = { { 1, 0.5f }, { 4, 0.7f }, { 3, 0.7f }, { 2, 0.6f },
                                                                   { 4, 0.7f }, { 1, 0.5f } };
    seen_shares seen = { .engine = NULL };
    device_variation v = { .model = DENSE, .threads = 1, .batch = 16, .sequences = SEQUENCES };
    pi2_session *sessions[2][SEQUENCES];
    pi2_engine *engines[2];
    for (int with = 0; with < 2; with++) {
        v.devices = with ? "mock" : NULL;
        v.orders.devices = (uint32_t)with;
        v.cancelled = with ? note_share : NULL;
        v.user = &seen;
        engines[with] = device_engine_open(&v);
        for (size_t i = 0; i < SEQUENCES; i++) {
            const int32_t prompt[SEQUENCE_PROMPT] = { 1, 20 + (int32_t)i, 30, 40, 50 };
            assert_int_equal(pi2_session_create(engines[with], NULL, &sessions[with][i]), PI2_OK);
            assert_int_equal(pi2_session_append(sessions[with][i], prompt, SEQUENCE_PROMPT, PI2_LOGITS_NONE), PI2_OK);
        }
    }
    pi2_device_share *share = &engines[1]->forward->share;
    share->are_fixed = true; /* what passes show shall not move them */
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        share->shares[0][pi2_share_size((uint32_t)steps[i].count)][PI2_SHARE_FFN] = steps[i].share;
    }
    seen.engine = engines[1];
    const size_t bytes = pi2_engine_get_report(engines[0])->vocabulary_size * sizeof(float);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        check_step(sessions[1], steps[i].count, 60 + (int32_t)i, &seen, steps[i].share);
        for (size_t k = 0; k < steps[i].count; k++) {
            const int32_t token = 60 + (int32_t)i;
            assert_int_equal(pi2_session_append(sessions[0][k], &token, 1, PI2_LOGITS_LAST), PI2_OK);
            assert_memory_equal(pi2_session_logits(sessions[1][k], 0), pi2_session_logits(sessions[0][k], 0), bytes);
        }
    }
    for (int with = 0; with < 2; with++) {
        for (size_t i = 0; i < SEQUENCES; i++) pi2_session_free(sessions[with][i]);
        pi2_engine_close(engines[with]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_does_not_pay_is_left_out),
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_other_bits),
        cmocka_unit_test(test_arithmetic_names),
        cmocka_unit_test(test_refused_names),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_sequences_come_and_end),
    };
    return cmocka_run_group_tests(tests, device_tests_begin, device_tests_end);
}
