/*
 * Goal:   weights that leave memory and return, at any moment, change nothing of the text: dense and with
 *         experts, planned wholly in memory or streaming, both read methods, one to three threads, prompts
 *         and single tokens. The floor and the plan are never passed, the memory really goes back to the
 *         system and comes again, and what a plain GGUF cannot do is said.
 * Method: a simulated demand asks for random amounts at every layer and between passes; logits are
 *         compared, bit for bit, with the undisturbed run. What decides is tested on its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory_limit.h"
#include "engine/engine_internal.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { PROMPT = 37, DECODED = 10, PLENTY = PI2_TEST_PLENTY_BYTES };

static char *model_path, *cluster_path;

/* The demand that is simulated: at each question another share of the plan, or one that holds for a while. */
typedef struct demand {
    uint64_t random, asked, planned;
    unsigned hold;          /* questions until the share changes */
    unsigned left;
    uint64_t share;         /* of 64 */
} demand;

static uint64_t wanted(void *user, uint64_t planned_bytes) {
    demand *own = user;
    own->planned = planned_bytes;
    own->asked++;
    if (own->left-- == 0) {
        own->left = own->hold;
        own->share = pi2_tiny_random(&own->random) % 81;
        own->share = own->share < 8 ? 0 : own->share > 72 ? 64 : own->share - 8;
    }
    return planned_bytes / 64 * own->share + (own->share == 64 ? planned_bytes % 64 : 0);
}

typedef struct variation {
    const char *read_method;
    uint64_t extra_bytes;   /* over the floor; 0: all in memory */
    uint32_t threads, batch;
    unsigned hold;          /* 0: no demand */
    uint64_t seed;
    bool with_gguf;         /* no cluster file is there */
} variation;

typedef struct outcome {
    float *logits;
    size_t count;
    int32_t tokens[DECODED];
    pi2_engine_counters counters;
} outcome;

static pi2_status open_engine(const variation *v, uint64_t memory_bytes, pi2_engine **engine) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.cluster_path = v->with_gguf ? "/nowhere/at all.pi2" : cluster_path;
    options.memory_bytes = memory_bytes;
    options.thread_count = v->threads;
    options.batch_tokens = v->batch;
    options.context_tokens = 96;
    if (v->read_method) options.read_method = v->read_method;
    return pi2_engine_open(&options, engine);
}

static uint64_t resident_now(void) {
    uint64_t peak = 0, current = 0;
    assert_true(pi2_process_memory(&peak, &current));
    return current;
}

/* The least budget that opens, to 1 MB, and `extra_bytes` more; under an emulator beside what it holds by then. */
static pi2_engine *open_variation(const variation *v) {
    pi2_engine *engine = NULL;
    for (uint64_t bytes = v->extra_bytes ? 8000000 : PLENTY; bytes <= PLENTY; bytes += 500000) {
        const uint64_t held = PI2_UNDER_EMULATOR && v->extra_bytes ? resident_now() : 0;
        const pi2_status status = open_engine(v, held + bytes, &engine);
        if (status != PI2_OK && status != PI2_ERR_MEMORY) break;
        if (status != PI2_OK) continue;
        if (v->extra_bytes == 0) return engine;
        pi2_engine_close(engine);
        if (open_engine(v, (held ? resident_now() : 0) + bytes + v->extra_bytes, &engine) == PI2_OK) return engine;
    }
    fail_msg("%s", pi2_error_text());
    return NULL;
}

static void run_engine(pi2_engine *engine, outcome *result) {
    pi2_session *session = NULL;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 0;
    assert_int_equal(pi2_session_create(engine, &sampling, &session), PI2_OK);
    const size_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
    result->count = vocabulary * DECODED;
    result->logits = malloc(result->count * sizeof(float));
    assert_non_null(result->logits);
    int32_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = (i * 29 + 7) % 256;
    if (pi2_session_append(session, prompt, PROMPT, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (size_t i = 0; i < DECODED; i++) {
        memcpy(result->logits + i * vocabulary, pi2_session_logits(session, 0), vocabulary * sizeof(float));
        assert_int_equal(pi2_session_sample(session, &result->tokens[i]), PI2_OK);
        if (pi2_session_append(session, &result->tokens[i], 1, PI2_LOGITS_LAST) != PI2_OK) {
            fail_msg("%s", pi2_error_text());
        }
    }
    pi2_session_free(session);
    pi2_engine_count(engine, &result->counters);
}

static void run_variation(const variation *v, outcome *result) {
    pi2_engine *engine = open_variation(v);
    demand own = { .random = v->seed, .hold = v->hold - 1 };
    if (v->hold) pi2_engine_simulate_pressure(engine, wanted, &own);
    run_engine(engine, result);
    if (v->hold) {
        assert_true(own.asked > DECODED);
        assert_true(result->counters.bytes_away <= own.planned);
    } else {
        assert_int_equal(result->counters.give_backs, 0);
    }
    pi2_engine_close(engine);
}

static void check(const variation *variations, size_t count) {
    const variation plain = { .threads = 1, .batch = 64 };
    outcome want, got;
    run_variation(&plain, &want);
    for (size_t i = 0; i < count; i++) {
        run_variation(&variations[i], &got);
        if (memcmp(got.logits, want.logits, want.count * sizeof(float)) != 0) fail_msg("variation %zu: other bits", i);
        assert_memory_equal(got.tokens, want.tokens, sizeof want.tokens);
        assert_true(got.counters.give_backs > 2);
        assert_true(got.counters.bytes_taken_again > 0);
        assert_true(got.counters.bytes_taken_again <= got.counters.bytes_given_back + PLENTY / 40);
        free(got.logits);
    }
    free(want.logits);
}

/* In a child: this process's memory counts against the engine's budget. Makes the cluster file too. */
static void make_model(uint32_t experts, pi2_weight_type down, bool is_sparse) {
    (void)remove(cluster_path);
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 4;
    options.embedding_length = 512;
    options.head_count = 8;
    options.feed_forward_length = experts ? 768 : 3072;
    if (is_sparse) options.ffn_activation = "relu";
    options.tied_head = experts == 0;
    options.vocabulary_size = experts ? 0 : 2048;
    options.down_type = down;
    if (experts) {
        options.architecture = "qwen3moe";
        options.expert_feed_forward_length = 768;
        options.expert_count = experts;
        options.expert_used_count = 3;
        options.head_norms = true;
    }
    assert_int_equal(pi2_tiny_model_write_apart(&options, model_path), 0);
    const variation small = { .threads = 1, .batch = 16, .extra_bytes = 1 };
    pi2_engine_close(open_variation(&small));
}

static void test_dense(void **state) {
    (void)state;
    make_model(0, PI2_Q4_K, false);
    static const variation variations[] = {
        { .threads = 1, .batch = 64, .hold = 1, .seed = 1, .read_method = "pread" },
        { .threads = 2, .batch = 16, .hold = 1, .seed = 2 },
        { .threads = 1, .batch = 16, .hold = 3, .seed = 4, .extra_bytes = 3000000 },
        { .threads = 2, .batch = 16, .hold = 1, .seed = 5, .extra_bytes = 5000000, .read_method = "pread" },
        { .threads = 3, .batch = 5, .hold = 13, .seed = 6 },
    };
    check(variations, sizeof variations / sizeof variations[0]);
}

static void test_experts(void **state) {
    (void)state;
    make_model(12, PI2_Q6_K, false);
    static const variation variations[] = {
        { .threads = 1, .batch = 64, .hold = 1, .seed = 11, .read_method = "pread" },
        { .threads = 2, .batch = 16, .hold = 1, .seed = 12 },
        { .threads = 2, .batch = 8, .hold = 9, .seed = 13, .extra_bytes = 9000000, .read_method = "pread" },
        { .threads = 3, .batch = 7, .hold = 30, .seed = 15 },
    };
    check(variations, sizeof variations / sizeof variations[0]);
}

/* Slots of single neurons leave and return between passes; a prompt is dense in between. */
static void test_neurons(void **state) {
    (void)state;
    make_model(0, PI2_Q4_0, true);
    static const variation variations[] = {
        { .threads = 1, .batch = 64, .hold = 1, .seed = 21, .read_method = "pread" },
        { .threads = 2, .batch = 16, .hold = 1, .seed = 22 },
        { .threads = 2, .batch = 16, .hold = 2, .seed = 23, .extra_bytes = 4000000 },
        { .threads = 3, .batch = 7, .hold = 5, .seed = 24 },
    };
    check(variations, sizeof variations / sizeof variations[0]);
}

/* ---- the memory itself ---- */

static uint64_t constant(void *user, uint64_t planned_bytes) {
    (void)planned_bytes;
    return *(uint64_t *)user;
}

/* The shadow memory of ThreadSanitizer stays when what it shadows goes, and an emulator keeps what it has mapped. */
static const bool is_honest_memory = !PI2_UNDER_TSAN && !PI2_UNDER_EMULATOR;

static void append(pi2_session *session, int count) {
    for (int i = 0; i < count; i++) {
        const int32_t token = 65 + i;
        if (pi2_session_append(session, &token, 1, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
}

static void check_memory(uint32_t experts, bool is_sparse) {
    make_model(experts, PI2_Q4_0, is_sparse);
    const variation v = { .threads = 2, .batch = 16 };
    pi2_engine *engine = open_variation(&v);
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    uint64_t want = UINT64_MAX;
    pi2_engine_simulate_pressure(engine, constant, &want);
    int32_t prompt[64];
    for (int i = 0; i < 64; i++) prompt[i] = (i * 29 + 7) % 256;
    if (pi2_session_append(session, prompt, 64, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    append(session, 3);
    pi2_engine_counters counters;
    pi2_engine_count(engine, &counters);
    assert_int_equal(counters.bytes_away, 0);
    const uint64_t whole = resident_now();
    want = 0;
    append(session, 3);
    pi2_engine_count(engine, &counters);
    const uint64_t small = resident_now();
    /* Left are the ring, and the slots of a layer; some experts were never read. */
    print_message("%.1f MB in memory, %.1f MB of weights given back: %.1f MB left\n", (double)whole / 1e6,
                  (double)counters.bytes_away / 1e6, (double)small / 1e6);
    if (!is_honest_memory) print_message("the process's own figures are not judged: they are not this program's\n");
    assert_true(counters.bytes_away > 6000000);
    if (is_sparse) assert_true(pi2_store_away_bytes(engine->store) > engine->memory.weights.bytes);
    if (is_honest_memory) assert_true(small + 6000000 < whole);
    const uint64_t read = counters.bytes_read;
    want = UINT64_MAX;
    append(session, 4);
    pi2_engine_count(engine, &counters);
    assert_int_equal(counters.bytes_away, 0);
    assert_true(counters.bytes_read > read);
    if (is_honest_memory) assert_true(resident_now() > small + 2000000);
    append(session, 4);
    if (experts == 0) { /* all is back: nothing is read any more */
        pi2_engine_counters later;
        pi2_engine_count(engine, &counters);
        append(session, 3);
        pi2_engine_count(engine, &later);
        assert_int_equal(later.bytes_read, counters.bytes_read);
    }
    pi2_session_free(session);
    pi2_engine_close(engine);
}

static void test_memory_dense(void **state) {
    (void)state;
    check_memory(0, false);
}

static void test_memory_experts(void **state) {
    (void)state;
    check_memory(24, false);
}

static void test_memory_neurons(void **state) {
    (void)state;
    check_memory(0, true);
}

static void test_plain_gguf_says_so(void **state) {
    (void)state;
    make_model(0, PI2_Q4_0, false);
    const variation v = { .threads = 1, .batch = 16, .with_gguf = true };
    pi2_engine *engine = open_variation(&v);
    uint64_t none = 0;
    pi2_engine_simulate_pressure(engine, constant, &none);
    outcome got;
    run_engine(engine, &got);
    free(got.logits);
    assert_int_equal(got.counters.give_backs, 0);
    assert_non_null(strstr(pi2_engine_get_report(engine)->relief_description, "prepare"));
    pi2_engine_close(engine);
}

/* ---- deciding ---- */

static void test_decision(void **state) {
    (void)state;
    const uint64_t second = 1000000000;
    pi2_relief_decision d = { .planned_bytes = 1000, .least_bytes = 100, .step_bytes = 60, .passes = 10 };
    const pi2_memory_reading ample = { .spare = 5000 }, some = { .spare = 50 }, short_by_5 = { .missing = 5 },
                             short_by_300 = { .missing = 300 }, stalled = { .urgent = true };
    uint64_t now = 100 * second;
    assert_int_equal(pi2_relief_decide(&d, &ample, now, 1000), 0);     /* all is held */
    assert_int_equal(pi2_relief_decide(&d, &some, now, 1000), 0);
    d.last_level = -5;
    assert_int_equal(pi2_relief_decide(&d, &short_by_5, now, 1000), -60); /* a step at least */
    assert_int_equal(pi2_relief_decide(&d, &short_by_300, now, 940), -595); /* and what others took meanwhile */
    assert_int_equal(pi2_relief_decide(&d, &stalled, now, 345), -60);
    assert_int_equal(pi2_relief_decide(&d, &short_by_300, now, 285), -185); /* never below the floor */
    assert_int_equal(pi2_relief_decide(&d, &short_by_300, now, 100), 0);
    assert_int_equal(pi2_relief_decide(&d, &ample, now + second, 100), 0);   /* not at once */
    assert_int_equal(pi2_relief_decide(&d, &some, now + 4 * second, 100), 0); /* not with too little to spare */
    assert_int_equal(pi2_relief_decide(&d, &ample, now + 4 * second, 100), 60);
    assert_int_equal(pi2_relief_decide(&d, &ample, now + 5 * second, 160), 0); /* not before it has been read */
    d.passes += 2;
    assert_int_equal(pi2_relief_decide(&d, &ample, now + 5 * second, 980), 20); /* never above the plan */
    d.passes += 2;
    assert_int_equal(pi2_relief_decide(&d, &ample, now + 6 * second, 1000), 0);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("relief.gguf");
    cluster_path = test_folder_path("relief.pi2");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decision), cmocka_unit_test(test_dense), cmocka_unit_test(test_experts),
        cmocka_unit_test(test_neurons), cmocka_unit_test(test_memory_neurons),
        cmocka_unit_test(test_memory_dense), cmocka_unit_test(test_memory_experts),
        cmocka_unit_test(test_plain_gguf_says_so),
    };
    return cmocka_run_group_tests_name("memory relief", tests, set_up, test_folder_end);
}
