/*
 * Goal:   a mixture of experts gives the same bits whatever the cache's size and policy, the budget,
 *         batch, threads, instruction set, read method and the order in which reads end; a damaged
 *         expert is found and named, and the engine can go on once it is mended; the peak of memory
 *         stays the plan's; its uses are recorded, and a record that cannot be written is told.
 * Method: tiny models of each family with experts; every variation against one thread, portable code,
 *         all in memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory_limit.h"
#include "engine/memory_relief.h"
#include "file_formats/cluster_file.h"
#include "powerinfer2/model_file.h"
#include "neuron_cache/cache_policy.h"
#include "neuron_cache/cache_trace.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum {
    /* Where computing is slow, and the process grows by as much as a small model's experts, whatever its budget. */
    IS_SLOW = PI2_UNDER_TSAN || PI2_UNDER_EMULATOR,
    PROMPT = IS_SLOW ? 19 : 37, DECODED = IS_SLOW ? 3 : 6,
    EXPERTS = 12, USED = 3, LAYERS = IS_SLOW ? 3 : 5, DAMAGED_LAYER = LAYERS - 2,
    WIDTH = IS_SLOW ? 256 : 512, FEED_FORWARD = IS_SLOW ? 512 : 768,
    PLENTY = PI2_TEST_PLENTY_BYTES, STEP = 1000000, MOST_FLOOR = 100000000, MOST_MORE = 100000000
};

typedef struct variation {
    const char *cpu, *read_method, *policy, *look_ahead; /* the last: NULL is on */
    uint64_t extra_bytes; /* over the floor, for experts of 768 x 512; 0: all in memory */
    uint32_t threads, batch;
    bool read_on_demand;
} variation;

static char *model_path, *cluster_path, *trace_path;
static uint64_t floor_bytes; /* least that the engine takes beside what this process holds, found once for each model */
static const char *record_trace, *routing_trace;
static double hot_share = -1;
static bool pressure;

static pi2_status open_variation(const variation *v, uint64_t memory_bytes, pi2_engine **engine) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.cluster_path = cluster_path;
    options.memory_bytes = memory_bytes;
    options.thread_count = v->threads;
    options.batch_tokens = v->batch;
    options.context_tokens = 64;
    options.record_trace = record_trace;
    options.read_on_demand = v->read_on_demand;
    options.routing_trace = routing_trace;
    options.hot_share = hot_share;
    if (v->policy) options.cache_policy = v->policy;
    options.look_ahead = v->look_ahead ? v->look_ahead : "on";
    options.read_method = v->read_method ? v->read_method : "auto";
    pi2_session_run_cpu(v->cpu);
    return pi2_engine_open(&options, engine);
}

/* Memory comes and goes with every layer. */
static uint64_t wanted_bytes(void *user, uint64_t planned_bytes) {
    uint32_t *turn = user;
    return planned_bytes / 16 * (4 + ++*turn * 7 % 13);
}

static uint64_t held_now(void) {
    uint64_t peak = 0, current = 0;
    assert_true(pi2_process_memory(&peak, &current));
    return current;
}

/* With a little more where this process grows while it opens, by a sanitizer's notes or what qemu translates. */
static pi2_engine *open_least(const variation *v) {
    pi2_engine *engine = NULL;
    const uint64_t extra = floor_bytes + v->extra_bytes * WIDTH * FEED_FORWARD / (512 * 768);
    for (uint64_t more = 0; more < MOST_MORE; more += STEP) {
        const pi2_status status = open_variation(v, v->extra_bytes ? held_now() + extra + more : PLENTY, &engine);
        if (status == PI2_OK) return engine;
        if (status != PI2_ERR_MEMORY) break;
    }
    fail_msg("%s", pi2_error_text());
    return NULL;
}

/* counters_out may be NULL. */
static void run_variation(const variation *v, pi2_session_run *run, pi2_engine_counters *counters_out) {
    pi2_engine *engine = open_least(v);
    const uint32_t slots = pi2_engine_get_report(engine)->expert_slots;
    /* ThreadSanitizer's notes and what qemu holds change by more than the small model's experts: there all may fit. */
    if (v->extra_bytes) assert_true(IS_SLOW || slots < EXPERTS * LAYERS);
    else assert_int_equal(slots, EXPERTS * LAYERS);
    uint32_t turn = 0;
    if (pressure) pi2_engine_simulate_pressure(engine, wanted_bytes, &turn);
    pi2_session_run_make(engine, PROMPT, DECODED, run);
    pi2_engine_counters counters;
    pi2_engine_count(engine, &counters);
    assert_true(counters.expert_uses >= (uint64_t)DECODED * LAYERS * USED);
    assert_true(counters.expert_hits <= counters.expert_uses);
    if (counters_out) *counters_out = counters;
    pi2_engine_close(engine);
}

static bool experts_apart; /* in the models that are made */

/* The model is made in a child: this process's memory counts against the engine's budget. */
static void make_model(const char *architecture, pi2_weight_type down) {
    (void)remove(cluster_path);
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.architecture = architecture;
    options.layer_count = LAYERS;
    options.embedding_length = WIDTH;
    options.head_count = WIDTH / 64;
    options.feed_forward_length = options.expert_feed_forward_length = FEED_FORWARD;
    options.expert_count = EXPERTS;
    options.expert_used_count = USED;
    options.experts_apart = experts_apart;
    options.head_norms = strcmp(architecture, "qwen3moe") == 0;
    if (strcmp(architecture, "smallthinker") == 0) {
        options.expert_gating = 2;
        options.window = 16;
    }
    options.down_type = down;
    assert_int_equal(pi2_tiny_model_write_apart(&options, model_path), 0);
    /* The floor, to 1 MB. */
    const variation plain = { .threads = 2, .batch = 32 };
    pi2_engine *engine = NULL;
    floor_bytes = 0;
    while (open_variation(&plain, held_now() + floor_bytes, &engine) != PI2_OK) {
        floor_bytes += STEP;
        if (floor_bytes > MOST_FLOOR) fail_msg("%s", pi2_error_text());
    }
    pi2_engine_close(engine);
}

static void check_variations(const variation *variations, size_t count) {
    const variation plain = { .cpu = "scalar", .threads = 1, .batch = 64 };
    pi2_session_run want, got;
    run_variation(&plain, &want, NULL);
    for (size_t i = 0; i < count; i++) {
        run_variation(&variations[i], &got, NULL);
        pi2_session_run_compare(&want, &got, i);
        pi2_session_run_free(&got);
    }
    pi2_session_run_free(&want);
}

static void test_in_memory(void **state) {
    (void)state;
    static const variation variations[] = {
        { .cpu = "avx2", .threads = 1, .batch = 64 }, { .threads = 1, .batch = 1 }, { .threads = 2, .batch = 1 },
        { .threads = 2, .batch = 2 }, { .threads = 2, .batch = 7 }, { .threads = 4, .batch = 16 }, { .threads = 2 },
    };
    static const char *const names[] = { "llama", "qwen3moe", "smallthinker" };
    static const pi2_weight_type downs[] = { PI2_Q4_K, PI2_Q4_0, PI2_F32 };
    for (size_t i = 0; i < 3; i++) {
        make_model(names[i], downs[i]);
        check_variations(variations + i * 2, i == 2 ? 3 : 2);
    }
}

/* A file that has its experts one by one has the bits of one that has them stacked, in memory and streamed. */
static void test_experts_apart(void **state) {
    (void)state;
    const variation plain = { .cpu = "scalar", .threads = 1, .batch = 64 };
    static const variation variations[] = {
        { .threads = 1, .batch = 64 }, { .threads = 2, .batch = 7, .extra_bytes = 1000000 } };
    pi2_session_run want, got;
    make_model("llama", PI2_Q6_K);
    run_variation(&plain, &want, NULL);
    experts_apart = true;
    make_model("llama", PI2_Q6_K);
    experts_apart = false;
    for (size_t i = 0; i < sizeof variations / sizeof variations[0]; i++) {
        run_variation(&variations[i], &got, NULL);
        pi2_session_run_compare(&want, &got, i);
        pi2_session_run_free(&got);
    }
    pi2_session_run_free(&want);
}

static void test_streaming(void **state) {
    (void)state;
    static const variation variations[] = {
        { .threads = 1, .batch = 32, .extra_bytes = 1000000, .read_method = "pread", .policy = "lru" },
        { .threads = 2, .batch = 32, .extra_bytes = 300000, .read_method = "pread", .policy = "keep" },
        { .threads = 2, .batch = 16, .extra_bytes = 6000000, .policy = "lfu", .read_on_demand = true },
        { .threads = 3, .batch = 1, .extra_bytes = 12000000, .policy = "s3_fifo" },
        { .threads = 2, .batch = 16, .extra_bytes = 6000000, .policy = "heat" },
        { .threads = 3, .batch = 5, .extra_bytes = 3000000, .policy = "mix" },
        { .threads = 2, .batch = 5, .extra_bytes = 3000000, .policy = "s3_fifo", .cpu = "avx2" },
        { .threads = 2, .extra_bytes = 9000000, .look_ahead = "auto" },
        { .threads = 2 }, /* the cluster file is there and all of it fits: every expert is read once */
    };
    static const char *const names[] = { "qwen3moe", "llama", "smallthinker" };
    static const pi2_weight_type downs[] = { PI2_Q6_K, PI2_Q4_1, PI2_F16 };
    for (size_t i = 0; i < 3; i++) {
        make_model(names[i], downs[i]);
        check_variations(variations + i * 2, i == 2 ? 3 : 2);
    }
}

/* The neuron layout's file lies where the dense one's would, and serves. */
static void test_neuron_layout(void **state) {
    (void)state;
    static const variation variations[] = {
        { .threads = 2, .batch = 16, .extra_bytes = 1000000, .policy = "lru" }, { .threads = 2 }
    };
    make_model("smallthinker", PI2_Q4_0);
    const pi2_prepare_options options = { .model_path = model_path, .output_path = cluster_path,
                                          .layout = PI2_LAYOUT_NEURON, .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&options, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    check_variations(variations, sizeof variations / sizeof variations[0]);
    pi2_model_file *file = NULL; /* no run made another one */
    assert_int_equal(pi2_model_file_open(cluster_path, &file), PI2_OK);
    assert_int_equal(pi2_model_file_summary(file)->bank_count, LAYERS * EXPERTS);
    pi2_model_file_close(file);
}

/* In a batch an expert is read at most once for each layer, however few slots there are. */
static void test_reads(void **state) {
    (void)state;
    make_model("qwen3moe", PI2_Q4_0);
    const variation small = { .threads = 2, .batch = 64, .extra_bytes = 3000000, .policy = "lru" };
    pi2_session_run got;
    pi2_engine_counters counters;
    run_variation(&small, &got, &counters);
    pi2_session_run_free(&got);
    assert_true(counters.expert_uses <= EXPERTS * LAYERS + (uint64_t)DECODED * USED * LAYERS);
    const variation whole = { .threads = 2 };
    run_variation(&whole, &got, &counters);
    pi2_session_run_free(&got);
    assert_true(counters.expert_uses - counters.expert_hits <= EXPERTS * LAYERS);
}

/* What looking ahead did adds up, it does something, and off means off. The bits are compared above. */
static void test_look_ahead_counts(void **state) {
    (void)state;
    if (IS_SLOW) {
        print_message("not here: the process's own memory changes by more than these budgets\n");
        skip();
    }
    static const char *const names[] = { "qwen3moe", "smallthinker" };
    for (size_t i = 0; i < 2; i++) {
        make_model(names[i], PI2_Q4_0);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            const variation on = { .threads = threads, .batch = 16, .extra_bytes = 6000000, .policy = "lru",
                                   .read_method = threads == 2 ? "pread" : "auto" };
            variation off = on;
            if (i == 0) off.look_ahead = "off";
            else off.read_on_demand = true;
            pi2_session_run with, without;
            pi2_engine_counters with_counters, without_counters;
            run_variation(&on, &with, &with_counters);
            run_variation(&off, &without, &without_counters);
            pi2_session_run_free(&with);
            pi2_session_run_free(&without);
            const pi2_engine_counters *c = &with_counters;
            assert_true(c->experts_foretold > 0 && c->experts_foretold_used <= c->experts_foretold);
            assert_true(c->prefetched > 0 && c->prefetches_kept > 0);
            assert_true(c->prefetches_kept + c->prefetches_wasted <= c->prefetched);
            assert_true(c->prefetch_kept_bytes + c->prefetch_wasted_bytes <= c->prefetched_bytes);
            assert_true(c->expert_hits + c->prefetches_kept <= c->expert_uses);
            assert_true(c->prefetched_bytes <= c->bytes_read);
            assert_int_equal(without_counters.prefetched, 0);
            assert_int_equal(without_counters.experts_foretold, 0);
            assert_int_equal(without_counters.expert_uses, c->expert_uses);
        }
    }
}

static void test_trace(void **state) {
    (void)state;
    make_model("llama", PI2_Q4_0);
    record_trace = trace_path;
    const variation small = { .threads = 2, .batch = 16, .extra_bytes = 3000000, .policy = "lru" };
    pi2_session_run got;
    pi2_engine_counters counters;
    run_variation(&small, &got, &counters);
    pi2_session_run_free(&got);
    record_trace = NULL;
    pi2_trace trace;
    if (pi2_trace_read(trace_path, &trace) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(trace.header.layer_count, LAYERS);
    assert_int_equal(trace.header.expert_count, EXPERTS);
    assert_int_equal(trace.header.used_count, USED);
    assert_int_equal(trace.key_count, counters.expert_uses);
    assert_int_equal(trace.token_count, PROMPT + DECODED);
    const uint32_t passes = (PROMPT + small.batch - 1) / small.batch + DECODED;
    assert_int_equal(trace.pass_count, passes);
    assert_int_equal(trace.demand_count, passes * LAYERS);
    pi2_trace_free(&trace);
}

/* Hot experts change nothing but where weights are found, whatever leaves and returns meanwhile. */
static void test_hot(void **state) {
    (void)state;
    make_model("qwen3moe", PI2_Q4_0);
    record_trace = trace_path;
    const variation small = { .threads = 2, .batch = 16, .extra_bytes = 6000000 };
    pi2_session_run want, got;
    run_variation(&small, &want, NULL);
    record_trace = NULL;
    routing_trace = trace_path;
    for (uint32_t i = 0; i < 6; i++) {
        const variation v = { .threads = 1 + i % 3, .batch = i % 2 ? 16 : 3, .extra_bytes = 6000000,
                              .read_method = i % 2 ? "auto" : "pread", .policy = i % 3 ? "auto" : "lru" };
        pi2_engine_counters counters;
        hot_share = i < 3 ? 0.75 : 0.25;
        pressure = i % 2;
        run_variation(&v, &got, &counters);
        pi2_session_run_compare(&want, &got, i);
        pi2_session_run_free(&got);
        if (!IS_SLOW && !pressure) assert_true(counters.hot_experts > 0 && counters.hot_hits > 0);
        assert_true(counters.hot_hits <= counters.expert_hits);
    }
    pressure = false;
    pi2_session_run_free(&want);
    pi2_engine *engine = NULL;
    hot_share = 0.8;
    assert_int_equal(open_variation(&small, PLENTY, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "0.8"));
    hot_share = -1;
    routing_trace = model_path; /* which is no trace; what was asked for and cannot be is an error */
    assert_int_equal(open_variation(&small, PLENTY, &engine), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "no trace of uses"));
    routing_trace = "/nonexistent/trace";
    assert_int_equal(open_variation(&small, PLENTY, &engine), PI2_ERR_IO);
    routing_trace = NULL;
}

static pi2_status run_some(pi2_engine *engine) {
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    const int32_t tokens[8] = { 1, 2, 3, 4, 90, 91, 92, 93 };
    pi2_status status = pi2_session_append(session, tokens, 8, PI2_LOGITS_LAST);
    if (status != PI2_OK) assert_int_equal(pi2_session_position(session), 0);
    for (int i = 0; status == PI2_OK && i < 3; i++) status = pi2_session_append(session, tokens, 1, PI2_LOGITS_LAST);
    pi2_session_free(session);
    return status;
}

/* Flips a byte of every expert of one layer. */
static void flip_experts(uint32_t layer) {
    pi2_gguf *gguf = NULL;
    pi2_extent_layout *layout = NULL;
    pi2_source_identity source;
    assert_int_equal(pi2_gguf_open(cluster_path, &gguf), PI2_OK);
    assert_int_equal(pi2_cluster_file_layout(gguf, &layout, &source), PI2_OK);
    FILE *file = fopen(cluster_path, "r+b");
    assert_non_null(file);
    for (uint32_t g = 0; g < layout->group_count; g++) {
        if (layout->groups[g].kind != PI2_GROUP_EXPERT || layout->groups[g].layer != layer) continue;
        const long offset = (long)layout->extents[layout->groups[g].first_extent].file_offset + 1000;
        assert_int_equal(fseek(file, offset, SEEK_SET), 0);
        const int byte = fgetc(file);
        assert_int_equal(fseek(file, offset, SEEK_SET), 0);
        assert_int_not_equal(fputc(byte ^ 4, file), EOF);
    }
    assert_int_equal(fclose(file), 0);
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
}

/* What is computed after the end is in no file; a trace that cannot be written is told. */
static void test_trace_that_ends(void **state) {
    (void)state;
    make_model("llama", PI2_Q4_0);
    const variation plain = { .threads = 2, .batch = 16 };
    const char *const paths[] = { trace_path, "/dev/full" };
    for (size_t i = 0; i < (access(paths[1], W_OK) == 0 ? 2 : 1); i++) {
        record_trace = paths[i];
        pi2_engine *engine = NULL;
        if (open_variation(&plain, PLENTY, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
        pi2_session_run run;
        pi2_session_run_make(engine, PROMPT, DECODED, &run);
        pi2_session_run_free(&run);
        assert_int_equal(pi2_engine_finish_trace(engine), i == 0 ? PI2_OK : PI2_ERR_IO);
        if (i == 1) assert_non_null(strstr(pi2_error_text(), "/dev/full"));
        pi2_session_run_make(engine, PROMPT, DECODED, &run);
        pi2_session_run_free(&run);
        assert_int_equal(pi2_engine_finish_trace(engine), PI2_OK);
        pi2_engine_close(engine);
    }
    record_trace = NULL;
    pi2_trace trace;
    if (pi2_trace_read(trace_path, &trace) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(trace.token_count, PROMPT + DECODED);
    pi2_trace_free(&trace);
}

static void test_damage_is_named(void **state) {
    (void)state;
    make_model("qwen3moe", PI2_Q4_0);
    char tensor[32];
    (void)snprintf(tensor, sizeof tensor, "tensor 'blk.%d.", DAMAGED_LAYER);
    static const variation variations[] = {
        { .threads = 2, .batch = 8, .extra_bytes = 800000, .policy = "lru" },
        { .threads = 2, .batch = 8, .extra_bytes = 4000000, .read_method = "pread" },
        { .threads = 1, .batch = 8, .extra_bytes = 0 },
    };
    for (size_t i = 0; i < sizeof variations / sizeof variations[0]; i++) {
        flip_experts(DAMAGED_LAYER);
        pi2_engine *engine = open_least(&variations[i]);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(run_some(engine), PI2_ERR_FORMAT);
            assert_non_null(strstr(pi2_error_text(), tensor));
            assert_non_null(strstr(pi2_error_text(), "checksum"));
        }
        flip_experts(DAMAGED_LAYER);
        if (run_some(engine) != PI2_OK) fail_msg("%s", pi2_error_text());
        pi2_engine_close(engine);
    }
}

static void test_refusals(void **state) {
    (void)state;
    make_model("llama", PI2_Q4_0);
    pi2_engine *engine = NULL;
    const variation odd = { .threads = 1, .policy = "fifo" };
    assert_int_equal(open_variation(&odd, PLENTY, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "s3_fifo"));
    const variation unknown = { .threads = 1, .look_ahead = "perhaps" };
    assert_int_equal(open_variation(&unknown, PLENTY, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "perhaps"));
    const variation plain = { .threads = 1, .batch = 16 };
    assert_int_equal(open_variation(&plain, 3000000, &engine), PI2_ERR_MEMORY);
    assert_non_null(strstr(pi2_error_text(), "needs at least"));
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("experts.gguf");
    cluster_path = test_folder_path("experts.pi2");
    trace_path = test_folder_path("experts.trace");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_memory), cmocka_unit_test(test_experts_apart), cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_neuron_layout),
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_look_ahead_counts),
        cmocka_unit_test(test_trace), cmocka_unit_test(test_trace_that_ends), cmocka_unit_test(test_hot),
        cmocka_unit_test(test_damage_is_named), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("engine with experts", tests, set_up, test_folder_end);
}
