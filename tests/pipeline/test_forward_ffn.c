/*
 * Goal:   the next run's Gate and Up are computed before this one's Down only where the stream buffer holds
 *         both runs, however it wraps: otherwise the threads would wait for room that they hold themselves.
 * Method: runs of made-up sizes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/forward_internal.h"

static void test_two_runs_fit(void **state) {
    (void)state;
    static const struct { uint64_t first, second, room, largest; bool fit; } cases[] = {
        { 0, 0, 0, 100, true },         /* both are in memory: nothing streams */
        { 400, 400, 900, 100, true },   { 400, 401, 900, 100, false },
        { 801, 0, 900, 100, false },    { 0, 800, 900, 100, true },
        { 1, 0, 100, 100, false },      /* the margin, where the buffer wraps, takes it all */
        { 1, 0, 50, 100, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pi2_neuron_run runs[3] = { { 0 }, { .streamed_bytes = cases[i].first }, { .streamed_bytes = cases[i].second } };
        pi2_forward forward = { .runs = runs, .largest_extent = cases[i].largest };
        forward.options.stream_bytes = cases[i].room;
        if (pi2_forward_two_runs_fit(&forward, 1) != cases[i].fit) fail_msg("case %zu", i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_two_runs_fit) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
