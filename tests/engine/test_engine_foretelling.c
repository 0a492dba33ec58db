/*
 * Goal:   a predictor that only foretells what the next layer will read changes no bit: in exact runs, on every budget,
 *         thread count, read method and batch, guessed ahead or not; it is of use, and counted; where nothing is
 *         missing it is not asked; where it could be of no use it is refused in a line that says why.
 * Method: tiny random models in the bundle layout; logits against those of the plain GGUF, dense, in memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/model_file.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { PLENTY = 400000000, LEAST_STEP = 500000, STEPS = 100, CONTEXT = 64, PROMPT = 13, DECODED = 6 };
enum { IS_SLOW = PI2_UNDER_ASAN || PI2_UNDER_TSAN || PI2_UNDER_EMULATOR };

static char *model_path, *cluster_path;

typedef struct variation {
    const char *look_ahead, *read_method, *predictor; /* NULL: low-bit */
    uint64_t more_bytes; /* than the process holds */
    uint32_t threads, batch, draft;
} variation;

static pi2_engine_options options_of(const variation *v) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = v->look_ahead ? cluster_path : model_path;
    options.sparsity = v->look_ahead ? "always" : "off";
    options.predictor = v->predictor ? v->predictor : v->look_ahead ? "low-bit" : NULL;
    options.look_ahead = v->look_ahead ? v->look_ahead : "auto";
    options.read_method = v->read_method ? v->read_method : "auto";
    options.thread_count = v->threads;
    options.batch_tokens = v->batch;
    options.draft_tokens = v->draft;
    options.context_tokens = CONTEXT;
    return options;
}

static pi2_session_run run_of(const variation *v, pi2_engine_counters *counters_out) {
    const pi2_engine_options options = options_of(v);
    pi2_session_run run;
    pi2_engine *engine;
    if (pi2_small_budget_open(&options, v->more_bytes, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(pi2_engine_is_exact(engine));
    pi2_session_run_make(engine, PROMPT, DECODED, &run);
    pi2_engine_count(engine, counters_out);
    pi2_engine_close(engine);
    return run;
}

static void write_model(const char *activation, uint32_t layers, pi2_layout_kind layout) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = layers;
    options.feed_forward_length = 1280;
    options.ffn_activation = activation;
    (void)remove(cluster_path);
    assert_int_equal(pi2_tiny_model_write_apart(&options, model_path), 0);
    const pi2_prepare_options prepare = { .model_path = model_path, .output_path = cluster_path,
                                          .layout = layout, .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
}

/* The least that is enough for single neurons beside what the process holds. */
static uint64_t least_budget_of(const char *predictor) {
    if (IS_SLOW) return PLENTY; /* their own memory moves budgets about */
    for (uint64_t more = LEAST_STEP; more < STEPS * LEAST_STEP; more += LEAST_STEP) {
        const variation v = { .look_ahead = "on", .more_bytes = more, .threads = 1, .batch = 16,
                              .predictor = predictor };
        const pi2_engine_options options = options_of(&v);
        pi2_engine *engine;
        if (pi2_small_budget_open(&options, more, &engine) != PI2_OK) continue;
        const bool by_neuron = pi2_engine_get_report(engine)->neuron_bytes > 0;
        pi2_engine_close(engine);
        if (by_neuron) return more + LEAST_STEP;
    }
    fail_msg("no budget is enough: %s", pi2_error_text());
    return 0;
}

static void what_is_foretold_changes_no_bit(void **state) {
    (void)state;
    static const char *const activations[] = { "relu", "drelu" };
    for (size_t a = 0; a < 2; a++) {
        write_model(activations[a], 12, PI2_LAYOUT_BUNDLE);
        const uint64_t least = least_budget_of("low-bit");
        const variation dense = { .more_bytes = PLENTY, .threads = 1, .batch = 64 };
        const variation variations[] = {
            { .look_ahead = "on", .more_bytes = least, .threads = 2, .batch = 16 },
            { .look_ahead = "on", .more_bytes = least, .threads = 1, .batch = 4, .read_method = "pread" },
            { .look_ahead = "on", .more_bytes = least + 8 * LEAST_STEP, .threads = 4, .batch = 1 },
            { .look_ahead = "auto", .more_bytes = least + 4 * LEAST_STEP, .threads = 3, .batch = 16, .draft = 3 },
            { .look_ahead = "on", .more_bytes = PLENTY, .threads = 2, .batch = 7 },
            { .look_ahead = "off", .more_bytes = least, .threads = 2, .batch = 16 },
        };
        pi2_engine_counters counters;
        pi2_session_run want = run_of(&dense, &counters);
        uint64_t used = 0; /* where there are slots to spare, and not for all */
        for (size_t i = 0; i < sizeof variations / sizeof variations[0]; i++) {
            const variation *v = &variations[i];
            pi2_session_run got = run_of(v, &counters);
            pi2_session_run_compare(&want, &got, 10 * a + i);
            pi2_session_run_free(&got);
            assert_true(counters.neuron_uses > 0 && counters.neurons_foretold_used <= counters.neurons_foretold);
            if (strcmp(v->look_ahead, "off") == 0) assert_int_equal(counters.neurons_foretold, 0);
            used += counters.neurons_foretold_used;
            if (strcmp(v->look_ahead, "on") == 0) assert_true(counters.predict_ns > 0);
        }
        assert_true(used > 0 || IS_SLOW);
        pi2_session_run_free(&want);
    }
}

/* Gate itself, of files of both layouts; in that of bundles not all neurons have a slot. */
static void gate_foretells_without_a_predictor(void **state) {
    (void)state;
    static const char *const activations[] = { "relu", "drelu" };
    for (size_t a = 0; a < 2; a++) {
        write_model(activations[a], 12, a ? PI2_LAYOUT_BUNDLE : PI2_LAYOUT_NEURON);
        const uint64_t least = least_budget_of("gate");
        const variation dense = { .more_bytes = PLENTY, .threads = 1, .batch = 64 };
        const variation variations[] = {
            { .look_ahead = "on", .more_bytes = least, .threads = 2, .batch = 16, .predictor = "gate" },
            { .look_ahead = "on", .more_bytes = least + 4 * LEAST_STEP, .threads = 1, .batch = 1, .draft = 3,
              .predictor = "gate", .read_method = "pread" },
            { .look_ahead = "on", .more_bytes = least + 8 * LEAST_STEP, .threads = 4, .batch = 1, .predictor = "gate" },
            { .look_ahead = "auto", .more_bytes = least + LEAST_STEP, .threads = 3, .batch = 7, .predictor = "gate" },
        };
        pi2_engine_counters counters;
        pi2_session_run want = run_of(&dense, &counters);
        uint64_t used = 0;
        for (size_t i = 0; i < sizeof variations / sizeof variations[0]; i++) {
            pi2_session_run got = run_of(&variations[i], &counters);
            pi2_session_run_compare(&want, &got, 10 * a + i);
            pi2_session_run_free(&got);
            assert_true(counters.neuron_uses > 0 && counters.neurons_foretold_used <= counters.neurons_foretold);
            if (strcmp(variations[i].look_ahead, "on") == 0) assert_true(counters.predict_ns > 0);
            used += counters.neurons_foretold_used;
        }
        assert_true(a == 0 || used > 0 || IS_SLOW);
        pi2_session_run_free(&want);
    }
}

/* Where memory holds all neurons, auto asks no predictor from the second pass on: there is nothing to read ahead. */
static void nothing_is_foretold_where_nothing_is_missing(void **state) {
    (void)state;
    write_model("relu", 4, PI2_LAYOUT_BUNDLE);
    const pi2_engine_options options = options_of(&(variation){ .look_ahead = "auto", .threads = 2, .batch = 1 });
    pi2_engine *engine;
    pi2_engine_counters once, twice;
    pi2_session_run first, second;
    if (pi2_small_budget_open(&options, PLENTY, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_session_run_make(engine, PROMPT, DECODED, &first);
    pi2_engine_count(engine, &once);
    pi2_session_run_make(engine, PROMPT, DECODED, &second);
    pi2_engine_count(engine, &twice);
    pi2_session_run_compare(&first, &second, 0);
    assert_true(once.predict_ns > 0 && once.neuron_uses > 0 && once.neuron_uses == once.neuron_hits);
    assert_true(once.predict_ns == twice.predict_ns);
    pi2_session_run_free(&first);
    pi2_session_run_free(&second);
    pi2_engine_close(engine);
}

static void expect_refusal(const char *sparsity, const char *text) {
    const variation v = { .look_ahead = "on", .threads = 1 };
    pi2_engine_options options = options_of(&v);
    options.sparsity = sparsity;
    options.memory_bytes = PLENTY;
    pi2_engine *engine;
    assert_int_equal(pi2_engine_open(&options, &engine), PI2_ERR_INVALID);
    if (!strstr(pi2_error_text(), text)) fail_msg("%s", pi2_error_text());
}

static void what_foretells_nothing_is_refused(void **state) {
    (void)state;
    write_model("silu", 2, PI2_LAYOUT_BUNDLE);
    expect_refusal("exact", "has no zeros");
    expect_refusal("off", "no predictor is used");
    write_model("relu", 2, PI2_LAYOUT_NEURON);
    expect_refusal("exact", "the bundle layout");
    pi2_engine *engine;
    pi2_engine_options options = options_of(&(variation){ .look_ahead = "on", .predictor = "gate", .threads = 1 });
    options.sparsity = "auto";
    assert_int_equal(pi2_engine_open(&options, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "cannot foretell"));
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("tiny.gguf");
    cluster_path = test_folder_path("tiny.pi2");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_foretold_changes_no_bit), cmocka_unit_test(gate_foretells_without_a_predictor),
        cmocka_unit_test(nothing_is_foretold_where_nothing_is_missing),
        cmocka_unit_test(what_foretells_nothing_is_refused),
    };
    return cmocka_run_group_tests_name("engine that foretells", tests, set_up, test_folder_end);
}
