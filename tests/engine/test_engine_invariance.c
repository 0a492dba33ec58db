/*
 * Goal:   the logits are the same bits whatever the budget, batch, threads, instruction set, read
 *         method, residency and layout; and a session refuses what it must.
 * Method: one tiny model; every variation against one thread, portable code, all in memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/model_file.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum { PROMPT = PI2_UNDER_TSAN ? 17 : 41, DECODED = PI2_UNDER_TSAN ? 2 : 4 };

typedef struct variation {
    const char *cpu, *read_method;
    uint64_t memory_bytes;
    uint64_t more_bytes;      /* instead: than the process holds */
    uint32_t threads, batch;
    bool on_demand;
    bool neuron_layout;
    bool streams; /* expected */
} variation;

static char *model_path, *neuron_path;

static pi2_engine *open_variation(const variation *v) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.memory_bytes = v->memory_bytes;
    options.thread_count = v->threads;
    options.batch_tokens = v->batch;
    options.context_tokens = 128;
    options.read_method = v->read_method ? v->read_method : "auto";
    options.read_on_demand = v->on_demand;
    options.cluster_path = v->neuron_layout ? neuron_path : NULL;
    pi2_session_run_cpu(v->cpu);
    pi2_engine *engine = NULL;
    const pi2_status status = v->memory_bytes ? pi2_engine_open(&options, &engine)
                                              : pi2_small_budget_open(&options, v->more_bytes, &engine);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    assert_int_equal(v->streams, report->resident_bytes < report->weight_bytes);
    if (v->streams && v->read_method && strcmp(v->read_method, "auto") != 0) {
        assert_string_equal(report->read_method, v->read_method);
    }
    return engine;
}

static void run_variation(const variation *v, pi2_session_run *run) {
    pi2_engine *engine = open_variation(v);
    pi2_session_run_make(engine, PROMPT, DECODED, run);
    pi2_engine_close(engine);
}

static void check_variations(const variation *variations, size_t count) {
    const variation plain = { .cpu = "scalar", .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 1, .batch = 128 };
    pi2_session_run want, got;
    run_variation(&plain, &want);
    for (size_t i = 0; i < count; i++) {
        if (PI2_UNDER_TSAN && variations[i].threads == 1 && !variations[i].streams) continue; /* nothing races */
        run_variation(&variations[i], &got);
        pi2_session_run_compare(&want, &got, i);
        pi2_session_run_free(&got);
    }
    pi2_session_run_free(&want);
}

static void test_cpu_threads_and_batches(void **state) {
    (void)state;
    static const variation variations[] = {
        { .cpu = "avx2", .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 1, .batch = 128 },
        { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 1, .batch = 1 },
        { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 2, .batch = 1 },
        { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 2, .batch = 2 },
        { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 2, .batch = 7 },
        { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 2, .batch = 16 },
        { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 2 },
    };
    check_variations(variations, sizeof variations / sizeof variations[0]);
}

static void test_streaming(void **state) {
    (void)state;
    static const variation variations[] = {
        { .more_bytes = 12000000, .threads = 1, .batch = 32, .read_method = "pread", .streams = true },
        { .more_bytes = 12000000, .threads = 2, .batch = 16, .read_method = "pread", .streams = true },
        { .more_bytes = 12000000, .threads = 2, .batch = 16, .on_demand = true, .streams = true },
        { .more_bytes = 11000000, .threads = 2, .read_method = "auto", .streams = true },
        { .more_bytes = 14000000, .threads = 2, .batch = 1, .read_method = "auto", .streams = true },
        { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 2 }, /* the cluster file is there now and fits */
    };
    check_variations(variations, sizeof variations / sizeof variations[0]);
}

/** A file of the neuron layout serves a run that uses every neuron. */
static void test_neuron_layout(void **state) {
    (void)state;
    static const variation variations[] = {
        { .more_bytes = 12000000, .threads = 2, .batch = 16, .read_method = "pread", .neuron_layout = true,
          .streams = true },
        { .more_bytes = 14000000, .threads = 2, .batch = 1, .neuron_layout = true, .streams = true },
        { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 2, .neuron_layout = true },
    };
    const pi2_prepare_options options = { .model_path = model_path, .output_path = neuron_path,
                                          .layout = PI2_LAYOUT_NEURON, .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&options, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    check_variations(variations, sizeof variations / sizeof variations[0]);
}

/* Every type that is read by whole blocks, in two mixtures. */
static const pi2_weight_type mixtures[2][9] = {
    { PI2_Q2_K, PI2_Q3_K, PI2_Q5_K, PI2_IQ4_NL, PI2_MXFP4, PI2_IQ4_XS, PI2_IQ3_S, PI2_Q5_K, PI2_Q3_K },
    { PI2_IQ3_XXS, PI2_IQ2_XS, PI2_IQ2_S, PI2_TQ1_0, PI2_IQ2_XXS, PI2_NVFP4, PI2_TQ2_0, PI2_IQ4_XS, PI2_Q2_K } };

static void write_mixture(const pi2_weight_type types[9]) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 6;
    options.embedding_length = 512;
    options.feed_forward_length = 3072;
    options.head_count = 8;
    options.tied_head = false;
    pi2_weight_type *const roles[9] = { &options.query_type, &options.key_type, &options.value_type,
                                        &options.attention_output_type, &options.gate_type, &options.up_type,
                                        &options.down_type, &options.embedding_type, &options.head_type };
    for (int i = 0; i < 9; i++) *roles[i] = types[i];
    assert_int_equal(pi2_tiny_model_write_apart(&options, model_path), 0);
}

static void test_types_by_whole_blocks(void **state) {
    (void)state;
    static const variation variations[] = {
        { .cpu = "avx2", .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 1, .batch = 128 },
        { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 2, .batch = 7 },
        { .more_bytes = 9000000, .threads = 2, .batch = 7, .read_method = "pread", .streams = true },
        { .more_bytes = 10000000, .threads = 1, .batch = 1, .streams = true },
    };
    char *const plain = model_path;
    model_path = test_folder_path("mixture.gguf");
    for (int i = 0; i < 2; i++) {
        write_mixture(mixtures[i]);
        check_variations(variations, sizeof variations / sizeof variations[0]);
    }
    model_path = plain;
}

static void test_refusals(void **state) {
    (void)state;
    const variation plain = { .memory_bytes = PI2_TEST_PLENTY_BYTES, .threads = 2 };
    pi2_engine *engine = open_variation(&plain);
    pi2_session *session = NULL, *second = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    assert_int_equal(pi2_session_create(engine, NULL, &second), PI2_ERR_INVALID);
    int32_t tokens[200] = { 0 }, token;
    assert_int_equal(pi2_session_sample(session, &token), PI2_ERR_INVALID);
    assert_int_equal(pi2_session_append(session, tokens, 200, PI2_LOGITS_LAST), PI2_ERR_CONTEXT);
    assert_int_equal(pi2_session_position(session), 0);
    assert_int_equal(pi2_session_append(session, tokens, 2, PI2_LOGITS_ALL), PI2_ERR_INVALID);
    tokens[3] = -1;
    assert_int_equal(pi2_session_append(session, tokens, 5, PI2_LOGITS_LAST), PI2_ERR_INVALID);
    tokens[3] = 1 << 24;
    assert_int_equal(pi2_session_append(session, tokens, 5, PI2_LOGITS_LAST), PI2_ERR_INVALID);
    tokens[3] = 0;
    assert_int_equal(pi2_session_append(session, tokens, 5, PI2_LOGITS_NONE), PI2_OK);
    assert_null(pi2_session_logits(session, 0));
    assert_int_equal(pi2_session_truncate(session, 6), PI2_ERR_INVALID);
    assert_int_equal(pi2_session_truncate(session, 2), PI2_OK);
    assert_int_equal(pi2_session_position(session), 2);
    pi2_session_free(session);
    pi2_engine_close(engine);
}

static void test_budget_too_small(void **state) {
    (void)state;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.memory_bytes = 3000000;
    pi2_engine *engine = NULL;
    assert_int_equal(pi2_engine_open(&options, &engine), PI2_ERR_MEMORY);
    assert_null(engine);
    assert_non_null(strstr(pi2_error_text(), "needs at least"));
}

static bool always(void *user) {
    (void)user;
    return true;
}

static void test_cancel(void **state) {
    (void)state;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    pi2_engine *engine = NULL;
    assert_int_equal(unsetenv("PI2_CPU"), 0);
    options.callbacks.cancelled = always;
    const pi2_status status = pi2_engine_open(&options, &engine);
    if (status == PI2_OK) { /* nothing long to load: the first pass must stop */
        pi2_session *session = NULL;
        const int32_t token = 1;
        assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
        assert_int_equal(pi2_session_append(session, &token, 1, PI2_LOGITS_LAST), PI2_ERR_INTERRUPTED);
        assert_int_equal(pi2_session_position(session), 0);
        pi2_session_free(session);
    } else {
        assert_int_equal(status, PI2_ERR_INTERRUPTED);
    }
    pi2_engine_close(engine);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("tiny.gguf");
    neuron_path = test_folder_path("neuron.pi2");
    pi2_tiny_model_options options;
    pi2_streamed_model_options_init(&options);
    options.gate_type = PI2_Q4_1;
    options.down_type = PI2_Q4_K;
    options.tied_head = false;
    return pi2_tiny_model_write_apart(&options, model_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_threads_and_batches), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_budget_too_small), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_streaming), cmocka_unit_test(test_neuron_layout),
        cmocka_unit_test(test_types_by_whole_blocks),
    };
    return cmocka_run_group_tests_name("engine invariance", tests, set_up, test_folder_end);
}
