/*
 * Goal:   a forecast of hits agrees with what is known: shares of even routing, a trace's own
 *         repetition, all or nothing in memory; traces that do not fit are refused by name.
 * Method: even routing against its formula; made-up traces in which a token's experts are known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "planner/routing_forecast.h"
#include "support/temporary_files.h"

enum { LAYERS = 6, EXPERTS = 32, USED = 4 };

/* A trace whose tokens use `sets` sets of experts in turn, after a prompt of 3. */
static char *make_trace(uint32_t tokens, uint32_t sets, uint32_t layers) {
    char *path = test_path(test_folder, "made.trace");
    const pi2_trace_header header = {layers, EXPERTS, USED, 1000};
    pi2_trace_writer *writer = NULL;
    assert_int_equal(pi2_trace_writer_open(path, NULL, &header, &writer), PI2_OK);
    for (uint32_t pass = 0; pass <= tokens; pass++) {
        pi2_trace_writer_pass(writer, pass == 0 ? 3 : 1);
        for (uint32_t layer = 0; layer < layers; layer++) {
            uint32_t keys[USED];
            for (uint32_t i = 0; i < USED; i++) keys[i] = layer * EXPERTS + pass % sets * USED + i;
            pi2_trace_writer_demand(writer, keys, USED);
        }
    }
    assert_int_equal(pi2_trace_writer_close(writer), PI2_OK);
    return path;
}

static pi2_forecast_hits play(const char *trace, const char *policy, uint32_t slots, uint32_t prompt,
                              uint32_t answer) {
    pi2_routing_forecast *forecast = NULL;
    if (pi2_routing_forecast_open(LAYERS, EXPERTS, USED, trace, &forecast) != PI2_OK) fail_msg("%s", pi2_error_text());
    const pi2_forecast_run run = {.policy = pi2_cache_policy_find(policy), .slots = slots, .prompt_tokens = prompt,
                                  .batch_tokens = 64, .answer_tokens = answer};
    pi2_forecast_hits hits;
    assert_int_equal(pi2_routing_forecast_run(forecast, &run, &hits), PI2_OK);
    pi2_routing_forecast_close(forecast);
    return hits;
}

static void test_even(void **state) {
    (void)state;
    for (uint32_t slots = 48; slots < LAYERS * EXPERTS; slots += 48) {
        const pi2_forecast_hits hits = play(NULL, "auto", slots, 64, 0);
        const double share = (double)slots / (LAYERS * EXPERTS);
        if (hits.answer < share - 0.08 || hits.answer > share + 0.08) {
            fail_msg("%u slots of %d: hit rate %.3f", slots, LAYERS * EXPERTS, hits.answer);
        }
        assert_true(hits.cold == 0); /* one batch uses each expert once */
    }
    const pi2_forecast_hits all = play(NULL, "lru", LAYERS * EXPERTS, 256, 0);
    assert_true(all.prompt == 1 && all.answer == 1);
    assert_true(all.cold > 0.7 && all.cold < 1); /* four batches, the first reads all */
    /* In an empty cache the first tokens find little. */
    const pi2_forecast_hits first = play(NULL, "lru", LAYERS * EXPERTS, 0, 8);
    assert_true(first.answer > 0.2 && first.answer < 0.6);
}

static void test_distinct(void **state) {
    (void)state;
    pi2_routing_forecast *forecast = NULL;
    assert_int_equal(pi2_routing_forecast_open(LAYERS, EXPERTS, USED, NULL, &forecast), PI2_OK);
    assert_true(pi2_routing_forecast_distinct(forecast, 1) == USED);
    assert_true(pi2_routing_forecast_distinct(forecast, 2) > 7.4 && pi2_routing_forecast_distinct(forecast, 2) < 7.6);
    assert_true(pi2_routing_forecast_distinct(forecast, 512) > EXPERTS - 0.01);
    assert_int_equal(pi2_routing_forecast_tokens(forecast), 0);
    pi2_routing_forecast_close(forecast);
}

static void test_trace(void **state) {
    (void)state;
    char *path = make_trace(40, 2, LAYERS);
    const pi2_forecast_hits hits = play(path, "lru", LAYERS * USED * 2, 16, 0);
    assert_true(hits.answer == 1); /* two sets in turn, both fit */
    assert_true(play(path, "lru", LAYERS * USED, 16, 0).answer == 0); /* always the other set */
    pi2_routing_forecast *forecast = NULL;
    assert_int_equal(pi2_routing_forecast_open(LAYERS, EXPERTS, USED, path, &forecast), PI2_OK);
    assert_int_equal(pi2_routing_forecast_tokens(forecast), 40);
    assert_true(pi2_routing_forecast_distinct(forecast, 1) == USED);
    assert_true(pi2_routing_forecast_distinct(forecast, 300) == 2 * USED);
    pi2_routing_forecast_close(forecast);
    free(path);
}

static void expect_refused(const char *path, const char *what) {
    pi2_routing_forecast *forecast = NULL;
    assert_int_not_equal(pi2_routing_forecast_open(LAYERS, EXPERTS, USED, path, &forecast), PI2_OK);
    assert_null(forecast);
    if (!strstr(pi2_error_text(), what)) fail_msg("no '%s' in: %s", what, pi2_error_text());
}

static void test_refused(void **state) {
    (void)state;
    char *path = make_trace(40, 2, LAYERS + 1);
    expect_refused(path, "another model");
    free(path);
    path = make_trace(7, 2, LAYERS);
    expect_refused(path, "7 tokens");
    test_file_write(path, (const uint8_t *)"PI2", 3);
    expect_refused(path, "no trace");
    free(path);
    expect_refused("/nonexistent/made.trace", "made.trace");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_even), cmocka_unit_test(test_distinct),
                                       cmocka_unit_test(test_trace), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
