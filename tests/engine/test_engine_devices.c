/*
 * Goal:   devices beside the processor change no bit: of dense models, experts and single neurons, in memory and
 *         streamed, with one device and several, whatever their share, slow ones, ones that compute some types only; a
 *         device that is lost at any moment, by failing, by half a result or by hanging, is told of once and costs no
 *         text; one that cannot be used is left out, and names that mean nothing are refused; one of other bits makes a
 *         run approximate, whose states no exact run takes.
 * Method: tiny models of mixed types with a device that is a thread of the test and checks what it is asked
 *         (support/mock_device.h), against the processor alone on one thread.
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
#include "powerinfer2/device.h"
#include "powerinfer2/identity.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/prompt_cache.h"
#include "support/emulator.h"
#include "support/mock_device.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { IS_SLOW = PI2_UNDER_TSAN || PI2_UNDER_ASAN || PI2_UNDER_EMULATOR };
enum { STEP = 500000, PROMPT = 11, DECODED = 3, LOSSES = IS_SLOW ? 4 : 17 }; /* of each of three models: 51 */
enum { HOT_LAYERS = 3, HOT_NEURONS = 2080 }; /* some clusters a layer */
enum { RUNS_MOST = 200 };
enum { LINES = 32, LINE_BYTES = 256 };

typedef enum model_kind { DENSE, EXPERTS, NEURONS, MODELS } model_kind;

static char *model_paths[MODELS], *cluster_paths[MODELS];
static pi2_session_run wanted[MODELS];
static char lines[LINES][LINE_BYTES];
static uint32_t line_count;

static void keep_line(void *user, const char *line) {
    (void)user;
    if (line_count < LINES) (void)snprintf(lines[line_count++], LINE_BYTES, "%s", line);
}

static uint32_t lines_with(const char *text) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < line_count; i++) count += strstr(lines[i], text) != NULL;
    return count;
}

typedef struct variation {
    model_kind model;
    const char *devices;
    bool streams; /* with the least memory that it takes, */
    uint32_t spare_steps; /* and so much more */
    uint32_t threads, batch;
    bool any_precision;
    mock_orders orders;
    double share; /* of the devices; negative: measured */
    bool may_be_left_out;
} variation;

static pi2_status try_open(const variation *v, uint64_t more_bytes, pi2_engine **engine_out) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_paths[v->model];
    options.cluster_path = cluster_paths[v->model];
    options.thread_count = v->threads;
    options.batch_tokens = v->batch;
    options.context_tokens = 64;
    /* Engines are opened hundreds of times, which AddressSanitizer keeps the memory of for a while. */
    options.memory_bytes = UINT64_C(8) * PI2_TEST_PLENTY_BYTES;
    options.devices = v->devices;
    options.device_always = !v->may_be_left_out;
    options.device_share = v->share;
    options.callbacks.log = keep_line;
    options.identifies_weights = true;
    options.device_any_precision = v->any_precision;
    if (v->model == NEURONS) options.sparsity = "always";
    line_count = 0;
    mock_device_orders = v->orders;
    memset(&mock_device_counts, 0, sizeof mock_device_counts);
    pi2_session_run_cpu(v->devices ? NULL : "scalar");
    return more_bytes ? pi2_small_budget_open(&options, more_bytes, engine_out) : pi2_engine_open(&options, engine_out);
}

static pi2_engine *open_variation(const variation *v) {
    pi2_engine *engine = NULL;
    uint32_t spare = v->spare_steps;
    pi2_status status = try_open(v, v->streams ? STEP : 0, &engine);
    for (uint64_t more = 2 * STEP; v->streams && more < 100 * STEP; more += STEP) {
        const bool is_open = status == PI2_OK;
        /* Single neurons need more than streams do. */
        const bool is_enough = v->model != NEURONS || (is_open && pi2_engine_get_report(engine)->neuron_bytes > 0);
        if (is_open && is_enough && spare-- == 0) break;
        if (!is_open && status != PI2_ERR_MEMORY) break;
        pi2_engine_close(engine);
        status = try_open(v, more, &engine);
    }
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static void check_device(void) {
    const char *broken = atomic_load(&mock_device_counts.broken);
    if (broken) fail_msg("the device was asked for what it must not be: %s", broken);
}

/* Runs the variation's text in an open engine and compares it with the processor's. */
static void run_and_compare(pi2_engine *engine, const variation *v, size_t number) {
    pi2_session_run got;
    pi2_session_run_make(engine, PROMPT, DECODED, &got);
    pi2_session_run_compare(&wanted[v->model], &got, number);
    pi2_session_run_free(&got);
    check_device();
}

static void close_engine(pi2_engine *engine) {
    pi2_engine_close(engine);
    assert_int_equal(mock_device_counts.opened, mock_device_counts.closed);
}

static void write_model(const pi2_tiny_model_options *options, model_kind model, pi2_layout_kind layout) {
    assert_int_equal(pi2_tiny_model_write_apart(options, model_paths[model]), 0);
    const pi2_prepare_options prepare = { .model_path = model_paths[model], .output_path = cluster_paths[model],
                                          .layout = layout, .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static void write_models(void) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 6;
    options.feed_forward_length = 2048;
    options.gate_type = PI2_Q4_K;
    options.up_type = PI2_Q5_0;
    options.down_type = PI2_Q6_K;
    options.key_type = PI2_F16;
    write_model(&options, DENSE, PI2_LAYOUT_DENSE);
    pi2_tiny_model_options_init(&options);
    options.layer_count = 3;
    options.architecture = "qwen3moe";
    options.head_norms = true;
    options.expert_count = 8;
    options.expert_used_count = 2;
    options.down_type = PI2_Q6_K;
    write_model(&options, EXPERTS, PI2_LAYOUT_DENSE);
    pi2_tiny_model_options_init(&options);
    options.layer_count = HOT_LAYERS;
    options.feed_forward_length = HOT_NEURONS;
    options.up_type = PI2_F32; /* so that a cluster is no whole layer */
    options.ffn_activation = "relu";
    write_model(&options, NEURONS, PI2_LAYOUT_NEURON);
}

static int set_up(void **state) {
    if (test_folder_begin(state) != 0) return -1;
    for (int i = 0; i < MODELS; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "devices_%d.gguf", i);
        model_paths[i] = test_folder_path(name);
        (void)snprintf(name, sizeof name, "devices_%d.pi2", i);
        cluster_paths[i] = test_folder_path(name);
    }
    pi2_backend_add_kind(&mock_device_kind);
    write_models();
    for (int i = 0; i < MODELS; i++) {
        const variation plain = { .model = (model_kind)i, .threads = 1, .batch = 64 };
        pi2_engine *engine = open_variation(&plain);
        pi2_session_run_make(engine, PROMPT, DECODED, &wanted[i]);
        pi2_engine_close(engine);
    }
    return 0;
}

static int tear_down(void **state) {
    pi2_backend_add_kind(NULL);
    for (int i = 0; i < MODELS; i++) pi2_session_run_free(&wanted[i]);
    return test_folder_end(state);
}

static void test_same_bits(void **state) {
    (void)state;
    static const variation variations[] = {
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
        pi2_engine *engine = open_variation(&variations[i]);
        const pi2_engine_report *report = pi2_engine_get_report(engine);
        const bool two = strchr(variations[i].devices, ',') != NULL;
        assert_int_equal(report->device_count, two ? 2 : 1);
        assert_int_equal(report->thread_count, variations[i].threads);
        if (variations[i].streams && !IS_SLOW && report->resident_bytes >= report->weight_bytes) {
            fail_msg("variation %zu does not stream", i);
        }
        assert_non_null(strstr(report->devices, "a thread of a test"));
        for (int turn = 0; turn < 2; turn++) run_and_compare(engine, &variations[i], i);
        pi2_engine_counters counters;
        pi2_engine_count(engine, &counters);
        assert_int_equal(counters.device_calls, mock_device_counts.works);
        assert_true(counters.device_calls > 0 && counters.device_bytes > 0 && counters.device_ns > 0);
        assert_int_equal(lines_with("is lost"), 0);
        close_engine(engine);
    }
}

/* Hot neurons are the device's: any part of a layer, in memory, and with too little memory for the other neurons. A
 * device that is slow loses chunks to the threads, one that is alone with a thread takes theirs. */
static void test_hot_neurons(void **state) {
    (void)state;
    static const double shares[] = { 0, 0.13, 0.5, 0.77, 1, -1 };
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        for (int streams = 0; streams < 2; streams++) {
            const variation v = { .model = NEURONS, .devices = i % 2 ? "mock" : "mock:0,mock:1", .streams = streams,
                                  .spare_steps = 8, .threads = 1 + (uint32_t)i % 2, .batch = 16, .share = shares[i],
                                  .orders = { .devices = 2, .slow_us = i == 2 ? 300 : 0 } };
            pi2_engine *engine = open_variation(&v);
            for (int turn = 0; turn < 3; turn++) run_and_compare(engine, &v, i);
            pi2_engine_counters counters;
            pi2_engine_count(engine, &counters);
            if (shares[i] == 0) assert_int_equal(counters.hot_neurons, 0);
            if (shares[i] >= 0.5) assert_true(counters.hot_neurons > 0);
            if (streams && !IS_SLOW) assert_true(counters.bytes_read > 0);
            /* All of them in each pass of one token. */
            if (shares[i] == 1 && !streams) {
                assert_int_equal(counters.hot_neurons, 3 * DECODED * HOT_LAYERS * HOT_NEURONS);
                assert_int_equal(counters.neuron_uses, 0);
            }
            print_message("share %g%s: %llu hot neurons, %llu single ones\n", shares[i], streams ? ", streamed" : "",
                          (unsigned long long)counters.hot_neurons, (unsigned long long)counters.neuron_uses);
            close_engine(engine);
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
        const variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4, .orders = { .devices = 1 },
                              .share = shares[i] };
        pi2_engine *engine = open_variation(&v);
        /* Who is done before the other is the scheduler's business. */
        bool is_seen = false;
        for (int turn = 0; turn < RUNS_MOST && (turn < 4 || !is_seen); turn++) {
            run_and_compare(engine, &v, (size_t)i);
            is_seen = i == 0 ? mock_device_counts.kept_types & of_attention : mock_device_counts.passing > 0;
        }
        assert_true(is_seen);
        assert_int_equal(mock_device_counts.kept > 0, i < 2);
        assert_int_equal(mock_device_counts.passing > 0, i > 0);
        close_engine(engine);
    }
}

/* What stays in memory is brought to a device once; what leaves under pressure and comes again is brought anew. */
static uint64_t comes_and_goes(void *user, uint64_t planned_bytes) {
    uint32_t *turn = user;
    return planned_bytes / 16 * (4 + ++*turn * 7 % 13);
}

static void test_copies_follow_memory(void **state) {
    (void)state;
    const variation v = { .model = DENSE, .devices = "mock", .threads = 2, .batch = 4, .orders = { .devices = 1 },
                          .share = 0.5 };
    pi2_engine *engine = open_variation(&v);
    /* How much the device gets to claim is the scheduler's: on a busy machine little. */
    bool is_used_again = false;
    for (int i = 0; i < RUNS_MOST && !is_used_again; i++) {
        run_and_compare(engine, &v, 0);
        is_used_again = mock_device_counts.kept > 0 && mock_device_counts.used_again > mock_device_counts.kept;
    }
    assert_true(is_used_again);
    uint32_t turn = 0;
    pi2_engine_simulate_pressure(engine, comes_and_goes, &turn);
    pi2_engine_counters counters = { .give_backs = 0 };
    for (int i = 0; i < RUNS_MOST && !(counters.give_backs > 0 && mock_device_counts.forgotten > 0); i++) {
        run_and_compare(engine, &v, 1);
        pi2_engine_count(engine, &counters);
    }
    assert_true(turn > 0);
    assert_true(counters.give_backs > 0 && mock_device_counts.forgotten > 0);
    close_engine(engine);
}

/* What devices take where they own nothing, or as much as memory has, moves no share. */
static void test_shares_do_not_drift(void **state) {
    (void)state;
    static const model_kind models[] = { DENSE, NEURONS };
    for (int i = 0; i < 2; i++) {
        const bool by_neuron = models[i] == NEURONS;
        const variation v = { .model = models[i], .devices = "mock", .streams = true, .spare_steps = by_neuron ? 4 : 0,
                              .threads = 1, .batch = 16, .orders = { .devices = 1 }, .share = -1 };
        pi2_engine *engine = open_variation(&v);
        const float high = 0.9f;
        for (int turn = 0; turn < 8; turn++) {
            float (*shares)[PI2_SHARE_KINDS] = engine->forward->share.shares[by_neuron];
            for (int kind = 0; kind < PI2_SHARE_KINDS; kind++) shares[0][kind] = high;
            run_and_compare(engine, &v, (size_t)i);
            assert_true(shares[0][PI2_SHARE_FFN] <= high);
            if (!by_neuron) assert_true(shares[0][PI2_SHARE_ATTENTION] == high && shares[0][PI2_SHARE_HEAD] == high);
        }
        close_engine(engine);
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
    const variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4, .share = -1,
                          .orders = { .devices = 1, .looks_at_pages = true } };
    pi2_engine *engine = open_variation(&v);
    assert_true(mock_device_counts.works > 0);
    assert_int_equal(mock_device_counts.in_no_page, 0);
    close_engine(engine);
}

/* A device that hangs while its speed is measured is lost before the run; what it was asked to multiply stays. */
static void test_lost_while_it_is_measured(void **state) {
    (void)state;
    for (uint64_t at = 1; at <= 9; at += 4) {
        const variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4, .share = -1,
                              .orders = { .devices = 1, .ends_at = at, .ending = MOCK_HANGS } };
        pi2_engine *engine = open_variation(&v);
        run_and_compare(engine, &v, (size_t)at);
        assert_int_equal(mock_device_counts.works, at);
        assert_int_equal(lines_with("device 'mock:0' is lost: it does not answer"), 1);
        close_engine(engine);
        assert_int_equal(mock_device_counts.too_late, 1);
    }
}

/* A device that ends at a random piece of work; the text is the same, before, at and after that. */
static void test_losses(void **state) {
    (void)state;
    uint64_t random = 23;
    uint32_t lost = 0, hung = 0;
    for (int i = 0; i < MODELS * LOSSES; i++) {
        variation v = { .model = (model_kind)(i % MODELS), .devices = "mock", .threads = 1 + (uint32_t)i / MODELS % 2,
                        .batch = i % 4 ? 4 : 64, .orders = { .devices = 1 } };
        v.orders.ending = (mock_ending)(i / MODELS % 3);
        v.orders.ends_at = 1 + pi2_tiny_random(&random) % 60;
        v.share = 0.25 * (double)(i / MODELS % 5);
        pi2_engine *engine = open_variation(&v);
        for (int turn = 0; turn < 2; turn++) run_and_compare(engine, &v, (size_t)i);
        const bool is_lost = mock_device_counts.works >= v.orders.ends_at;
        pi2_engine_counters counters;
        pi2_engine_count(engine, &counters);
        assert_int_equal(counters.device_calls, mock_device_counts.works - is_lost);
        assert_int_equal(lines_with("device 'mock:0' is lost: "), is_lost);
        assert_int_equal(lines_with("the processor goes on, with the same text"), is_lost);
        close_engine(engine);
        assert_int_equal(mock_device_counts.too_late, is_lost && v.orders.ending == MOCK_HANGS);
        lost += is_lost;
        hung += is_lost && v.orders.ending == MOCK_HANGS;
    }
    print_message("%u of %d devices were lost, %u of them hung\n", lost, MODELS * LOSSES, hung);
    assert_true(lost > MODELS * LOSSES / 2 && hung > 0);
}

/* Of two devices the other one goes on. */
static void test_one_of_two_is_lost(void **state) {
    (void)state;
    const variation v = { .model = DENSE, .devices = "mock:0,mock:1", .threads = 1, .batch = 16,
                          .orders = { .devices = 2, .ends_at = 9, .ending = MOCK_FAILS_LATE } };
    pi2_engine *engine = open_variation(&v);
    for (int turn = 0; turn < 4; turn++) run_and_compare(engine, &v, 0);
    const uint32_t first = lines_with("device 'mock:0' is lost"), second = lines_with("device 'mock:1' is lost");
    assert_true(first <= 1 && second <= 1 && first + second >= 1);
    assert_int_equal(lines_with("is lost"), first + second);
    close_engine(engine);
}

/* Of two devices the one is slow that takes longer for a call than the threads for a pass: it is closed before the run,
 * with a line, unless it shall be used all the same or have a share. */
static void test_what_does_not_pay_is_left_out(void **state) {
    (void)state;
    variation v = { .model = DENSE, .devices = "mock:1,mock:0", .threads = 1, .batch = 16, .share = -1,
                    .orders = { .devices = 2, .slow_us = 20000 }, .may_be_left_out = true };
    static const struct { bool always; double share; } used[] = { { false, 0.5 }, { true, -1 } };
    pi2_engine *engine = open_variation(&v);
    assert_int_equal(lines_with("device 'mock:1' does not pay: with it matrices are "), 1);
    assert_int_equal(lines_with("device 'mock:0' does not pay: "), 1);
    assert_int_equal(pi2_engine_get_report(engine)->device_count, 0);
    assert_null(pi2_engine_get_report(engine)->devices);
    assert_int_equal(pi2_engine_get_report(engine)->thread_count, 1);
    assert_int_equal(mock_device_counts.closed, 2);
    const uint64_t works = mock_device_counts.works;
    assert_true(works > 0);
    run_and_compare(engine, &v, 0);
    assert_int_equal(mock_device_counts.works, works);
    close_engine(engine);
    for (size_t i = 0; i < 2; i++) {
        v.devices = "mock";
        v.may_be_left_out = !used[i].always;
        v.share = used[i].share;
        engine = open_variation(&v);
        assert_int_equal(lines_with("does not pay"), 0);
        assert_int_equal(pi2_engine_get_report(engine)->device_count, 1);
        close_engine(engine);
    }
}

static uint32_t lines_of_broken(void) {
    return lines_with("device 'mock:0' is broken; the processor computes alone");
}

static void test_left_out(void **state) {
    (void)state;
    variation v = { .model = DENSE, .devices = "mock", .threads = 2, .batch = 16,
                    .orders = { .devices = 2, .refused = "it has other bits" } };
    pi2_engine *engine = open_variation(&v);
    assert_int_equal(pi2_engine_get_report(engine)->device_count, 0);
    assert_null(pi2_engine_get_report(engine)->devices);
    assert_int_equal(lines_with("device 'mock:0': it has other bits; the processor computes alone"), 1);
    run_and_compare(engine, &v, 0);
    close_engine(engine);
    v.orders = (mock_orders){ .devices = 1 };
    v.devices = "mock:7";
    engine = open_variation(&v);
    assert_int_equal(lines_with("there is no device mock:7; the processor computes alone"), 1);
    close_engine(engine);
    v.orders = (mock_orders){ .devices = 2, .first_is_broken = true };
    v.devices = "mock"; /* the next one is taken */
    engine = open_variation(&v);
    assert_int_equal(pi2_engine_get_report(engine)->device_count, 1);
    assert_int_equal(lines_of_broken(), 0);
    close_engine(engine);
    v.orders.devices = 1;
    engine = open_variation(&v);
    assert_int_equal(pi2_engine_get_report(engine)->device_count, 0);
    assert_int_equal(lines_of_broken(), 1);
    close_engine(engine);
    v.orders = (mock_orders){ .devices = 1 };
    static const char *const nobody[] = { NULL, "none", "" };
    for (size_t i = 0; i < sizeof nobody / sizeof nobody[0]; i++) {
        v.devices = nobody[i];
        engine = open_variation(&v);
        assert_int_equal(mock_device_counts.opened, 0);
        close_engine(engine);
    }
}

/* Both runs of a device that is asked for with any precision; the first one's bits are the processor's. */
static void test_other_bits(void **state) {
    (void)state;
    variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4, .any_precision = true,
                    .orders = { .devices = 1 } };
    char exact_path[256], other_path[256];
    (void)snprintf(exact_path, sizeof exact_path, "%s.exact", model_paths[DENSE]);
    (void)snprintf(other_path, sizeof other_path, "%s.other", model_paths[DENSE]);
    for (int turn = 0; turn < 2; turn++) {
        const bool differs = turn == 1;
        v.orders.has_other_bits = differs;
        pi2_engine *engine = open_variation(&v);
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
        if (!differs) run_and_compare(engine, &v, 0);
        pi2_session *session = NULL;
        const int32_t tokens[] = { 5, 6, 7, 8 };
        assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
        assert_int_equal(pi2_session_append(session, tokens, 4, PI2_LOGITS_LAST), PI2_OK);
        assert_int_equal(pi2_session_save(session, differs ? other_path : exact_path, NULL, 0), PI2_OK);
        assert_int_equal(pi2_session_load(session, exact_path, NULL, NULL), differs ? PI2_ERR_UNSUPPORTED : PI2_OK);
        if (differs) assert_int_equal(pi2_session_load(session, other_path, NULL, NULL), PI2_OK);
        pi2_session_free(session);
        close_engine(engine);
    }
    v.any_precision = false;
    pi2_engine *engine = open_variation(&v);
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    assert_int_equal(pi2_session_load(session, other_path, NULL, NULL), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "computed with another arithmetic (device a thread of a test "));
    pi2_session_free(session);
    run_and_compare(engine, &v, 0);
    close_engine(engine);
}

/* The name of an arithmetic follows from the device and its driver, and fits where files keep it. */
static void test_arithmetic_names(void **state) {
    (void)state;
    static const char *const drivers[] = { "Chip, driver 1", "Chip, driver 2",
        "A chip whose name is so long that nobody would ever read all of it, driver 1", "\x01\xff, driver 1" };
    char names[4][128];
    for (size_t i = 0; i < 4; i++) {
        variation v = { .model = DENSE, .devices = "mock", .threads = 1, .batch = 4, .any_precision = true,
                        .orders = { .devices = 1, .has_other_bits = true, .description = drivers[i] } };
        pi2_engine *engine = open_variation(&v);
        (void)snprintf(names[i], sizeof names[i], "%s", pi2_engine_arithmetic(engine));
        assert_true(strlen(names[i]) < 120);
        for (size_t k = 0; k < i; k++) assert_string_not_equal(names[k], names[i]);
        close_engine(engine);
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
        const variation v = { .devices = cases[i].devices, .threads = 1, .batch = 16, .orders = { .devices = 5 } };
        pi2_engine *engine = NULL;
        if (try_open(&v, 0, &engine) != PI2_ERR_INVALID) fail_msg("'%s' is taken", cases[i].devices);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),      cmocka_unit_test(test_hot_neurons),
        cmocka_unit_test(test_copies_of_the_own_part),
        cmocka_unit_test(test_copies_follow_memory),
        cmocka_unit_test(test_shares_do_not_drift),
        cmocka_unit_test(test_is_measured_in_memory), cmocka_unit_test(test_lost_while_it_is_measured),
        cmocka_unit_test(test_losses),         cmocka_unit_test(test_one_of_two_is_lost),
        cmocka_unit_test(test_what_does_not_pay_is_left_out),
        cmocka_unit_test(test_left_out),       cmocka_unit_test(test_other_bits),
        cmocka_unit_test(test_arithmetic_names), cmocka_unit_test(test_refused_names),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
