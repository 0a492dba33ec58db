/*
 * Goal:   a predictor that names every neuron gives the bits of the dense run, for every weight type and activation,
 *         gated or not; one that leaves some out gives another text, and always the same one: with the least memory
 *         and enough, on one thread and several, by every read method and instruction set, in batches of any size,
 *         guessed ahead or not, from a prompt at once or token by token; nothing is approximate that was not asked for;
 *         what cannot be is refused in a line that says why.
 * Method: tiny random models in the bundle layout; each variation's logits against those of the plain GGUF in memory,
 *         or of the first variation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "planner/memory_plan.h"
#include "powerinfer2/identity.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/neuron_predictor.h"
#include "predictor/predictor_file.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { PLENTY = 400000000, LEAST_STEP = 500000, STEPS = 100, CONTEXT = 64, PROMPT = 13, DECODED = 5 };
enum { IS_SLOW = PI2_UNDER_ASAN || PI2_UNDER_TSAN || PI2_UNDER_EMULATOR };

static char *model_path, *cluster_path, *own_predictor;

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    model_path = test_folder_path("tiny.gguf");
    cluster_path = test_folder_path("tiny.pi2");
    own_predictor = test_folder_path("tiny.low-bit.predictor");
    return 0;
}

typedef struct variation {
    const char *sparsity, *predictor, *cpu, *read_method;
    uint64_t more_bytes; /* than the process holds */
    uint32_t threads, batch, draft, logits;
    bool plain;          /* from the GGUF, all neurons */
    bool prompts;        /* the predictor serves them, too */
} variation;

static pi2_status try_open(const variation *v, pi2_engine **engine_out) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = v->plain ? model_path : cluster_path;
    options.thread_count = v->threads;
    options.batch_tokens = v->batch;
    options.draft_tokens = v->draft;
    options.logits_tokens = v->logits ? v->logits : 1;
    options.context_tokens = CONTEXT;
    options.read_method = v->read_method ? v->read_method : "auto";
    options.sparsity = v->plain ? "off" : v->sparsity;
    options.predictor = v->predictor;
    options.predicts_prompts = v->prompts;
    pi2_session_run_cpu(v->cpu);
    return pi2_small_budget_open(&options, v->more_bytes, engine_out);
}

static pi2_engine *open_variation(const variation *v) {
    pi2_engine *engine;
    if (try_open(v, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_engine_is_exact(engine), v->plain || strcmp(v->sparsity, "exact") == 0);
    return engine;
}

static pi2_session_run run_of(const variation *v, pi2_engine_counters *counters_out) {
    pi2_session_run run;
    pi2_engine *engine = open_variation(v);
    pi2_session_run_make(engine, PROMPT, DECODED, &run);
    pi2_engine_count(engine, counters_out);
    pi2_engine_close(engine);
    return run;
}

static pi2_session_run dense_run(void) {
    pi2_engine_counters counters;
    const variation plain = { .cpu = "scalar", .more_bytes = PLENTY, .threads = 1, .batch = 64, .plain = true };
    return run_of(&plain, &counters);
}

static void write_model(const pi2_tiny_model_options *options, pi2_layout_kind layout) {
    (void)remove(cluster_path);
    (void)remove(own_predictor);
    assert_int_equal(pi2_tiny_model_write_apart(options, model_path), 0);
    const pi2_prepare_options prepare = { .model_path = model_path, .output_path = cluster_path, .layout = layout,
                                          .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static pi2_tiny_model_options model_of(const char *activation) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 3;
    options.feed_forward_length = 1280; /* not a whole number of segments */
    options.ffn_activation = activation;
    return options;
}

static bool is_enough(uint64_t more_bytes, void *sparsity) {
    const variation v = { .sparsity = sparsity, .more_bytes = more_bytes, .threads = 1, .batch = 16 };
    pi2_engine *engine;
    if (try_open(&v, &engine) != PI2_OK) return false;
    pi2_engine_close(engine);
    return true;
}

/* The least that is enough for a predictor's neurons beside what the process holds. */
static uint64_t least_budget(const char *sparsity) {
    if (IS_SLOW) return PLENTY; /* their own memory moves budgets about */
    const uint64_t least = pi2_small_budget_least(LEAST_STEP, STEPS, is_enough, (void *)(uintptr_t)sparsity);
    if (least == 0) fail_msg("no budget is enough: %s", pi2_error_text());
    return least + LEAST_STEP;
}

static bool are_equal(const pi2_session_run *a, const pi2_session_run *b) {
    return memcmp(a->logits, b->logits, a->logit_count * sizeof(float)) == 0;
}

/* Every type once, every activation, gated and not. */
static void one_that_names_all_gives_the_dense_bits(void **state) {
    (void)state;
    static const struct { const char *activation; pi2_weight_type gate, up, down; bool ungated, biases; } models[] = {
        { "silu", PI2_Q4_0, PI2_Q4_1, PI2_Q4_K, false, false },
        { "gelu", PI2_Q6_K, PI2_Q5_1, PI2_Q8_0, false, true },
        { "relu", PI2_F16, PI2_Q4_0, PI2_F32, false, true },
        { "drelu", PI2_Q4_K, PI2_F32, PI2_Q5_0, false, false },
        { "relu_squared", PI2_Q5_0, PI2_Q4_0, PI2_BF16, true, true },
        { "gelu", PI2_Q8_0, PI2_BF16, PI2_Q4_0, true, false },
    };
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        if (IS_SLOW && m % 2) continue;
        pi2_engine_counters counters;
        pi2_tiny_model_options options = model_of(models[m].activation);
        options.gate_type = models[m].gate;
        options.up_type = models[m].ungated ? models[m].gate : models[m].up;
        options.down_type = models[m].down;
        options.ungated = models[m].ungated;
        options.feed_forward_biases = models[m].biases;
        write_model(&options, PI2_LAYOUT_BUNDLE);
        pi2_session_run want = dense_run();
        const variation all = { .sparsity = "0", .more_bytes = PLENTY, .threads = 2, .batch = 16 };
        pi2_session_run got = run_of(&all, &counters);
        pi2_session_run_compare(&want, &got, m);
        assert_int_equal(counters.neurons_predicted, (uint64_t)DECODED * 3 * options.feed_forward_length);
        assert_int_equal(counters.neurons_kept > 0, m == 0); /* three types of 4 bits: its prompt leaves bundles */
        assert_true(counters.neurons_predicted_used <= counters.neurons_predicted && counters.neurons_predicted_used);
        pi2_session_run_free(&got);
        const variation exact = { .sparsity = "exact", .more_bytes = PLENTY, .threads = 2, .batch = 16 };
        got = run_of(&exact, &counters); /* the same file without a predictor */
        pi2_session_run_compare(&want, &got, 100 + m);
        assert_int_equal(counters.neurons_predicted, 0);
        pi2_session_run_free(&got);
        pi2_session_run_free(&want);
    }
}

/* A share of a model with SiLU, and the neurons that are foretold to fire of one with ReLU. */
static void check_variations(const char *sparsity, const char *predictor, size_t count, size_t first_number) {
    const uint64_t least = least_budget(sparsity);
    const variation variations[] = {
        { .more_bytes = PLENTY, .threads = 1, .batch = 16, .cpu = "scalar" },
        { .more_bytes = least, .threads = 1, .batch = 16, .read_method = "pread" },
        { .more_bytes = least, .threads = 4, .batch = 1 },
        { .more_bytes = least + 700000, .threads = 2, .batch = 7, .cpu = "avx2" },
        { .more_bytes = least, .threads = 2, .batch = 16, .draft = 15 },
        { .more_bytes = PLENTY, .threads = 3, .batch = 5, .draft = 3 },
    };
    pi2_engine_counters counters;
    pi2_session_run dense = dense_run(), want = { .logits = NULL };
    for (size_t i = 0; i < sizeof variations / sizeof variations[0] && i < count; i++) {
        variation v = variations[i];
        v.sparsity = sparsity;
        v.predictor = predictor;
        pi2_session_run got = run_of(&v, &counters);
        if (i == 0) {
            want = got;
            assert_false(are_equal(&dense, &want));
            /* The prompt is exact, and so is what it leads to. */
            assert_memory_equal(dense.logits, want.logits, dense.logit_count / DECODED * sizeof(float));
            continue;
        }
        pi2_session_run_compare(&want, &got, first_number + i);
        assert_true(counters.neurons_predicted > 0 && counters.neuron_uses > 0);
        if (v.more_bytes == least && !IS_SLOW && v.draft == 0) assert_true(counters.neuron_hits < counters.neuron_uses);
        pi2_session_run_free(&got);
    }
    pi2_session_run_free(&want);
    pi2_session_run_free(&dense);
}

/* Makes one of the main directions: the same on one thread and several. */
static void make_svd(const char *path) {
    uint8_t *files[2];
    size_t bytes[2];
    for (uint32_t threads = 1; threads <= 2; threads++) {
        pi2_engine_options engine;
        pi2_predictor_svd svd;
        pi2_engine_options_init(&engine);
        engine.model_path = cluster_path;
        engine.thread_count = threads;
        pi2_predictor_svd_init(&svd);
        svd.output_path = path;
        if (pi2_predictor_make_svd(&engine, NULL, &svd) != PI2_OK) fail_msg("%s", pi2_error_text());
        files[threads - 1] = test_file_read(path, &bytes[threads - 1]);
    }
    assert_true(bytes[0] == bytes[1] && memcmp(files[0], files[1], bytes[0]) == 0);
    free(files[0]);
    free(files[1]);
}

static void every_budget_thread_method_and_batch_gives_one_text(void **state) {
    (void)state;
    const char *svd = test_folder_path("svd.predictor");
    pi2_tiny_model_options options = model_of("silu");
    options.layer_count = 8; /* more neurons than the stream buffer's memory holds */
    options.feed_forward_length = 2816;
    write_model(&options, PI2_LAYOUT_BUNDLE);
    check_variations("0.5", NULL, SIZE_MAX, 0);
    make_svd(svd);
    check_variations("0.5", svd, 3, 200);
    options.ffn_activation = "drelu";
    options.feed_forward_biases = true;
    write_model(&options, PI2_LAYOUT_BUNDLE);
    check_variations("auto", NULL, SIZE_MAX, 100);
    make_svd(svd);
    check_variations("auto", svd, 3, 300);
}

/* ---- experts ---- */

/* Segments that are not whole. */
static pi2_tiny_model_options expert_model(const char *architecture, const char *activation) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.architecture = architecture;
    options.ffn_activation = activation;
    options.layer_count = 3;
    options.embedding_length = 512;
    options.head_dimension = 64;
    options.feed_forward_length = options.expert_feed_forward_length = 1280;
    options.expert_count = 5;
    options.expert_used_count = 2;
    if (strcmp(architecture, "smallthinker") == 0) options.expert_gating = 2;
    if (strcmp(architecture, "qwen3moe") == 0) options.head_norms = true;
    return options;
}

/* Of a mixture a predictor names neurons of the experts that were chosen: all of them, and the bits are the dense ones;
 * of other FFNs nothing is asked. */
static void one_that_names_all_of_experts_gives_the_dense_bits(void **state) {
    (void)state;
    static const struct { const char *architecture, *activation; } models[] = { { "qwen3moe", "silu" },
                                                                               { "smallthinker", NULL } };
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        pi2_engine_counters counters;
        pi2_tiny_model_options options = expert_model(models[m].architecture, models[m].activation);
        write_model(&options, PI2_LAYOUT_BUNDLE);
        pi2_session_run want = dense_run();
        const variation all = { .sparsity = "0", .more_bytes = PLENTY, .threads = 2, .batch = 16 };
        const variation little = { .sparsity = "0", .more_bytes = least_budget("0"), .threads = 3, .batch = 16 };
        for (int i = 0; i < 2; i++) {
            pi2_session_run got = run_of(i ? &little : &all, &counters);
            pi2_session_run_compare(&want, &got, 10 * m + (size_t)i);
            assert_int_equal(counters.neurons_predicted, (uint64_t)DECODED * 3 * 2 * 1280);
            assert_true(counters.neurons_predicted_used > 0);
            assert_true(counters.neurons_predicted_used <= counters.neurons_predicted);
            pi2_session_run_free(&got);
        }
        pi2_session_run_free(&want);
    }
}

static void experts_on_every_budget_thread_method_and_batch(void **state) {
    (void)state;
    const char *svd = test_folder_path("svd.predictor");
    pi2_tiny_model_options options = expert_model("qwen3moe", "silu");
    options.expert_count = 12; /* more neurons than memory of prompts holds */
    options.down_type = PI2_Q4_K;
    write_model(&options, PI2_LAYOUT_BUNDLE);
    check_variations("0.5", NULL, SIZE_MAX, 0);
    make_svd(svd);
    check_variations("0.5", svd, 3, 200);
    options = expert_model("smallthinker", NULL);
    options.expert_count = 12;
    write_model(&options, PI2_LAYOUT_BUNDLE);
    check_variations("auto", NULL, SIZE_MAX, 100);
    make_svd(svd);
    check_variations("auto", svd, 3, 300);
}

/* Logits of a text whose tokens come in calls of so many. */
static float *logits_of(const variation *v, size_t step, size_t *count_out) {
    pi2_engine *engine = open_variation(v);
    pi2_session *session;
    const size_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
    int32_t tokens[PROMPT];
    float *logits = malloc(PROMPT * vocabulary * sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    for (size_t i = 0; i < PROMPT; i++) tokens[i] = (int32_t)((i * 29 + 7) % 256);
    for (size_t at = 0; at < PROMPT; at += step) {
        const size_t count = PROMPT - at < step ? PROMPT - at : step;
        if (pi2_session_append(session, tokens + at, count, PI2_LOGITS_ALL) != PI2_OK) fail_msg("%s", pi2_error_text());
        for (size_t i = 0; i < count; i++) {
            memcpy(logits + (at + i) * vocabulary, pi2_session_logits(session, i), vocabulary * sizeof *logits);
        }
    }
    pi2_session_free(session);
    pi2_engine_close(engine);
    *count_out = vocabulary;
    return logits;
}

/* A whole text at once, in parts, and token by token: the first four are exact, all others are not. More than
 * PI2_NEURON_TOKENS at once compute all neurons, and take those that are not named for 0. */
static void check_prompts(const char *sparsity) {
    static const size_t steps[] = { 1, 3, 5, PROMPT };
    size_t vocabulary;
    const variation dense = { .plain = true, .more_bytes = PLENTY, .threads = 1, .batch = 16, .logits = 16 };
    float *exact = logits_of(&dense, PROMPT, &vocabulary), *first = NULL;
    assert_true(PROMPT - PI2_EXACT_POSITIONS > PI2_NEURON_TOKENS);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        const variation v = { .sparsity = sparsity, .more_bytes = PLENTY, .threads = 2, .batch = 16, .logits = 16,
                              .prompts = true };
        float *got = logits_of(&v, steps[i], &vocabulary);
        const size_t all = PROMPT * vocabulary * sizeof(float), row = vocabulary * sizeof(float);
        assert_memory_equal(got, exact, PI2_EXACT_POSITIONS * row);
        for (size_t t = PI2_EXACT_POSITIONS; t < PROMPT; t++) {
            assert_int_not_equal(memcmp(got + t * vocabulary, exact + t * vocabulary, row), 0);
        }
        if (first) {
            assert_memory_equal(first, got, all);
            free(got);
        } else {
            first = got;
        }
    }
    free(first);
    free(exact);
}

static void prompts_are_approximate_where_that_is_asked_for(void **state) {
    (void)state;
    pi2_tiny_model_options options = model_of("silu");
    write_model(&options, PI2_LAYOUT_BUNDLE);
    check_prompts("0.4");
    options = model_of("drelu");
    options.feed_forward_biases = true;
    options.down_type = PI2_F32;
    write_model(&options, PI2_LAYOUT_BUNDLE);
    check_prompts("auto");
}

static void prompts_through_experts_are_approximate_too(void **state) {
    (void)state;
    pi2_tiny_model_options options = expert_model("qwen3moe", "silu");
    write_model(&options, PI2_LAYOUT_BUNDLE);
    check_prompts("0.4");
    options = expert_model("smallthinker", NULL);
    write_model(&options, PI2_LAYOUT_BUNDLE);
    check_prompts("auto");
}

/* More is left out, and less is read and used. */
static void what_is_left_out_is_a_share_of_each_layer(void **state) {
    (void)state;
    static const struct { const char *share; uint32_t kept; } shares[] = { { "0.25", 960 }, { "0.75", 320 },
                                                                          { "0.999999", 1 } };
    pi2_tiny_model_options options = model_of("gelu");
    write_model(&options, PI2_LAYOUT_BUNDLE);
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        pi2_engine_counters counters;
        const variation v = { .sparsity = shares[i].share, .more_bytes = PLENTY, .threads = 2, .batch = 16 };
        pi2_session_run got = run_of(&v, &counters);
        assert_int_equal(counters.neurons_predicted, (uint64_t)DECODED * 3 * shares[i].kept);
        pi2_session_run_free(&got);
    }
}

/* ---- balance ---- */

static pi2_status balance(const char *const *texts, uint64_t tokens, const char *sparsity, bool for_measuring,
                          pi2_predictor_layer_balance *layers_out) {
    const variation v = { .sparsity = sparsity, .more_bytes = PLENTY, .threads = 2, .batch = 16, .logits = 16,
                          .prompts = for_measuring };
    pi2_engine *engine = open_variation(&v);
    pi2_predictor_balancing *balancing;
    const pi2_predictor_texts all = { .paths = texts, .tokens = tokens };
    const pi2_status status = pi2_predictor_balance(engine, &all, &balancing);
    assert_true((status == PI2_OK) == (balancing != NULL));
    if (balancing) {
        assert_int_equal(balancing->layer_count, 3);
        assert_string_equal(balancing->path, own_predictor);
        memcpy(layers_out, balancing->layers, 3 * sizeof *layers_out);
    }
    pi2_predictor_balancing_free(balancing);
    pi2_engine_close(engine);
    return status;
}

static void arithmetic_of(char text[120]) {
    const variation v = { .sparsity = "0.3", .more_bytes = PLENTY, .threads = 1, .batch = 16 };
    pi2_engine *engine = open_variation(&v);
    (void)snprintf(text, 120, "%s", pi2_engine_arithmetic(engine));
    pi2_engine_close(engine);
}

/* More of a layer left out loses more; what is balanced leaves out as many neurons, of each layer another share; it is
 * another mode, and one text on any memory and threads. */
static void shares_go_where_they_cost_least(void **state) {
    (void)state;
    enum { NEURONS = 2816 };
    char before[120], after[120];
    char *text = test_folder_path("text"), *tiny = test_folder_path("tiny-text");
    const char *const texts[] = { text, NULL }, *const too_short[] = { tiny, NULL };
    pi2_predictor_layer_balance layers[3];
    pi2_engine_counters counters;
    pi2_tiny_model_options options = model_of("silu");
    options.feed_forward_length = NEURONS;
    write_model(&options, PI2_LAYOUT_BUNDLE);
    test_file_write(text, "the hand and the other one are in line, and so is all that follows, or does not", 79);
    test_file_write(tiny, "the", 3);
    arithmetic_of(before);
    assert_int_equal(balance(too_short, 0, "0.3", true, layers), PI2_ERR_INVALID);
    assert_int_equal(balance(texts, 0, "0.3", false, layers), PI2_ERR_INVALID);
    arithmetic_of(after);
    assert_string_equal(before, after);
    if (balance(texts, 0, "0.3", true, layers)) fail_msg("%s", pi2_error_text());
    double sum = 0, least = 1, most = 0;
    for (int l = 0; l < 3; l++) {
        assert_true(layers[l].lost[0] > 0 && layers[l].lost[0] < layers[l].lost[2]);
        sum += layers[l].left_out;
        if (layers[l].left_out < least) least = layers[l].left_out;
        if (layers[l].left_out > most) most = layers[l].left_out;
    }
    assert_true(sum > 0.9 - 1e-9 && sum < 0.9 + 1e-9 && least < most);
    arithmetic_of(after);
    assert_string_not_equal(before, after);
    uint64_t kept = 0;
    for (int l = 0; l < 3; l++) kept += NEURONS - (uint32_t)(layers[l].left_out * NEURONS);
    const variation enough = { .sparsity = "0.3", .more_bytes = PLENTY, .threads = 1, .batch = 16, .cpu = "scalar" };
    const variation other = { .sparsity = "0.3", .more_bytes = least_budget("0.3"), .threads = 3, .batch = 7 };
    pi2_session_run want = run_of(&enough, &counters);
    assert_int_equal(counters.neurons_predicted, DECODED * kept);
    pi2_session_run got = run_of(&other, &counters);
    pi2_session_run_compare(&want, &got, 0);
    pi2_session_run_free(&want);
    pi2_session_run_free(&got);
}

static void expect_refused(const variation *v, pi2_status status, const char *text) {
    pi2_engine *engine = NULL;
    const pi2_status got = try_open(v, &engine);
    if (got != status) fail_msg("%d, not %d: %s", (int)got, (int)status, pi2_error_text());
    assert_null(engine);
    if (!strstr(pi2_error_text(), text)) fail_msg("'%s' is not in: %s", text, pi2_error_text());
}

static void what_cannot_be_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = { "1", "1.5", "-0.1", "0.5x", "nan", "0.5 ", " 0.5", "inf", "", "50%" };
    pi2_tiny_model_options options = model_of("silu");
    write_model(&options, PI2_LAYOUT_BUNDLE);
    variation v = { .more_bytes = PLENTY, .threads = 1, .batch = 16 };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        v.sparsity = bad[i];
        expect_refused(&v, PI2_ERR_INVALID, "unknown sparsity");
    }
    v.sparsity = "auto";
    expect_refused(&v, PI2_ERR_INVALID, "silu, has no zeros");
    v.predictor = "none";
    expect_refused(&v, PI2_ERR_INVALID, "needs a predictor");
    v.sparsity = "exact";
    v.predictor = "low-bit";
    expect_refused(&v, PI2_ERR_INVALID, "silu, has no zeros");
    v.predictor = cluster_path;
    v.sparsity = "0.5";
    expect_refused(&v, PI2_ERR_FORMAT, "this is no predictor");
}

/* A budget that would do for all neurons in turns, not for single ones: nothing else is computed in their place. */
static void too_little_memory_is_refused(void **state) {
    (void)state;
    if (IS_SLOW) skip(); /* their own memory moves budgets about */
    pi2_tiny_model_options options = model_of("silu");
    options.feed_forward_length = 2816;
    write_model(&options, PI2_LAYOUT_BUNDLE);
    variation v = { .sparsity = "0.5", .threads = 1, .batch = 16, .more_bytes = least_budget("0.5") - 3 * LEAST_STEP };
    expect_refused(&v, PI2_ERR_MEMORY, "for single neurons, without which nothing can be left out");
    v.sparsity = "exact";
    pi2_engine_close(open_variation(&v));
}

static void what_a_model_cannot_is_refused(void **state) {
    (void)state;
    pi2_tiny_model_options options = model_of("silu");
    variation v = { .sparsity = "0.5", .more_bytes = PLENTY, .threads = 1, .batch = 16 };
    write_model(&options, PI2_LAYOUT_NEURON);
    expect_refused(&v, PI2_ERR_INVALID, "needs the bundle layout");
    options.gate_type = PI2_Q2_K; /* read by whole blocks */
    write_model(&options, PI2_LAYOUT_BUNDLE);
    expect_refused(&v, PI2_ERR_UNSUPPORTED, "read by whole blocks");
    options.gate_type = PI2_Q4_0;
    options.ffn_activation = "gelu_topk";
    write_model(&options, PI2_LAYOUT_BUNDLE);
    expect_refused(&v, PI2_ERR_UNSUPPORTED, "gelu_topk");
    options = expert_model("qwen3moe", "relu");
    write_model(&options, PI2_LAYOUT_BUNDLE);
    v.sparsity = "exact";
    v.predictor = "low-bit"; /* whose neurons would be read ahead */
    expect_refused(&v, PI2_ERR_UNSUPPORTED, "mixture of experts");
}

/* Of another model of the same shape, and of the same with one weight changed. */
static void a_predictor_of_other_weights_is_refused(void **state) {
    (void)state;
    size_t bytes;
    pi2_engine_counters counters;
    char *kept = test_folder_path("kept.predictor");
    pi2_tiny_model_options options = model_of("silu");
    variation v = { .sparsity = "0.5", .more_bytes = PLENTY, .threads = 1, .batch = 16 };
    write_model(&options, PI2_LAYOUT_BUNDLE);
    pi2_session_run run = run_of(&v, &counters); /* makes one */
    pi2_session_run_free(&run);
    uint8_t *file = test_file_read(own_predictor, &bytes);
    test_file_write(kept, file, bytes);
    v.predictor = kept;
    run = run_of(&v, &counters);
    pi2_session_run_free(&run);
    file[bytes - 5] ^= 1;
    test_file_write(kept, file, bytes);
    expect_refused(&v, PI2_ERR_FORMAT, "does not match its checksum");
    file[bytes - 5] ^= 1;
    test_file_write(kept, file, bytes);
    options.seed = 2;
    write_model(&options, PI2_LAYOUT_BUNDLE);
    expect_refused(&v, PI2_ERR_INVALID, "made of other weights");
    /* One beside the model that is of another is made again. */
    test_file_write(own_predictor, file, bytes);
    v.predictor = "low-bit";
    run = run_of(&v, &counters);
    pi2_session_run_free(&run);
    free(file);
}

/* Shares of experts are not balanced, and a file that says so is refused before anything is made of it. */
static void losses_of_experts_are_refused(void **state) {
    (void)state;
    char *made = test_folder_path("made.predictor"), *forged = test_folder_path("forged.predictor");
    pi2_predictor predictor;
    pi2_tiny_model_options options = expert_model("qwen3moe", "silu");
    write_model(&options, PI2_LAYOUT_BUNDLE);
    make_svd(made);
    assert_int_equal(pi2_predictor_read(made, &predictor), PI2_OK);
    void *memory = aligned_alloc(PI2_PREDICTOR_ALIGNMENT, pi2_predictor_data_bytes(&predictor));
    assert_non_null(memory);
    assert_int_equal(pi2_predictor_load(made, &predictor, memory), PI2_OK);
    for (int p = 0; p < PI2_PREDICTOR_POINTS; p++) predictor.layers[1].lost[p] = 0.1f * (float)(p + 1);
    assert_int_equal(pi2_predictor_write(forged, NULL, &predictor), PI2_OK);
    variation v = { .sparsity = "0.5", .predictor = made, .more_bytes = PLENTY, .threads = 1, .batch = 16 };
    pi2_engine_close(open_variation(&v));
    v.predictor = forged;
    expect_refused(&v, PI2_ERR_FORMAT, "what their layers lose");
    pi2_predictor_free(&predictor);
    free(memory);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, test_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(one_that_names_all_gives_the_dense_bits),
        TEST(every_budget_thread_method_and_batch_gives_one_text),
        TEST(losses_of_experts_are_refused),
        TEST(one_that_names_all_of_experts_gives_the_dense_bits),
        TEST(experts_on_every_budget_thread_method_and_batch),
        TEST(prompts_are_approximate_where_that_is_asked_for),
        TEST(prompts_through_experts_are_approximate_too),
        TEST(what_is_left_out_is_a_share_of_each_layer),
        TEST(shares_go_where_they_cost_least),
        TEST(what_cannot_be_is_refused),
        TEST(too_little_memory_is_refused),
        TEST(what_a_model_cannot_is_refused),
        TEST(a_predictor_of_other_weights_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
