/*
 * Goal:   the shares that pi2_routing_read() tells are those of the recorded tokens.
 * Method: traces with known sets: shifting by one expert a token, the same for ever, and damaged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "neuron_cache/cache_trace.h"
#include "powerinfer2/routing.h"
#include "support/temporary_files.h"

enum { LAYERS = 3, EXPERTS = 70, USED = 4, TOKENS = 60 };

/** A prompt of 9 tokens at once, then tokens whose experts begin `step` further each time in layer
 *  0 and always at 66 in the others. */
static void write_trace(const char *path, uint32_t step, uint32_t tokens) {
    const pi2_trace_header header = { LAYERS, EXPERTS, USED, 4096 };
    pi2_trace_writer *writer = NULL;
    assert_int_equal(pi2_trace_writer_open(path, NULL, &header, &writer), PI2_OK);
    for (uint32_t token = 0; token <= tokens; token++) {
        pi2_trace_writer_pass(writer, token == 0 ? 9 : 1);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            const uint32_t first = layer == 0 ? token * step % (EXPERTS - USED) : EXPERTS - USED;
            uint32_t keys[USED];
            for (uint32_t k = 0; k < USED; k++) keys[k] = layer * EXPERTS + first + k;
            pi2_trace_writer_demand(writer, keys, USED);
        }
    }
    assert_int_equal(pi2_trace_writer_close(writer), PI2_OK);
}

static void near(double value, double wanted) {
    if (value < wanted - 1e-9 || value > wanted + 1e-9) fail_msg("%g, not %g", value, wanted);
}

static void shares_are_counted(void **state) {
    (void)state;
    char *path = test_path(test_folder, "trace");
    pi2_routing *routing = NULL;
    write_trace(path, 1, TOKENS);
    assert_int_equal(pi2_routing_read(path, 0, &routing), PI2_OK);
    assert_int_equal(routing->layer_count, LAYERS);
    assert_int_equal(routing->expert_count, EXPERTS);
    assert_int_equal(routing->used_count, USED);
    assert_int_equal(routing->token_count, TOKENS); /* not the prompt */
    near(routing->layers[0].repeat, 0.75);
    near(routing->layers[0].skew, 0.0);
    for (uint32_t layer = 1; layer < LAYERS; layer++) {
        near(routing->layers[layer].repeat, 1.0);
        near(routing->layers[layer].skew, 1.0);
        near(routing->layers[layer].top_quarter, 1.0);
    }
    near(routing->mean.repeat, (0.75 + 2.0) / 3.0);
    pi2_routing_free(routing);
    assert_int_equal(pi2_routing_read(path, 20, &routing), PI2_OK);
    assert_int_equal(routing->token_count, TOKENS - 20);
    pi2_routing_free(routing);
    free(path);
}

static void too_little_and_damaged_traces_are_refused(void **state) {
    (void)state;
    char *path = test_path(test_folder, "short");
    pi2_routing *routing = NULL;
    write_trace(path, 1, 7);
    assert_int_equal(pi2_routing_read(path, 0, &routing), PI2_ERR_INVALID);
    assert_null(routing);
    write_trace(path, 1, TOKENS);
    assert_int_equal(pi2_routing_read(path, TOKENS - 7, &routing), PI2_ERR_INVALID);
    assert_int_equal(pi2_routing_read(path, UINT32_MAX, &routing), PI2_ERR_INVALID);
    test_file_write(path, "no trace at all", 15);
    assert_int_equal(pi2_routing_read(path, 0, &routing), PI2_ERR_FORMAT);
    char *missing = test_path(test_folder, "missing");
    assert_int_equal(pi2_routing_read(missing, 0, &routing), PI2_ERR_IO);
    free(missing);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_counted),
        cmocka_unit_test(too_little_and_damaged_traces_are_refused),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
