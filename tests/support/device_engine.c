#include "support/device_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/model_file.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { STEP = 500000, STEPS_MOST = 100, LINES = 32, LINE_BYTES = 256 };

static char *model_paths[DEVICE_MODELS], *cluster_paths[DEVICE_MODELS];
static pi2_session_run wanted[DEVICE_MODELS];
static char lines[LINES][LINE_BYTES];
static uint32_t line_count;

static void keep_line(void *user, const char *line) {
    (void)user;
    if (line_count < LINES) (void)snprintf(lines[line_count++], LINE_BYTES, "%s", line);
}

uint32_t device_lines_with(const char *text) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < line_count; i++) count += strstr(lines[i], text) != NULL;
    return count;
}

const char *device_model_path(device_model model) { return model_paths[model]; }

pi2_status device_engine_try(const device_variation *v, uint64_t more_bytes, pi2_engine **engine_out) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_paths[v->model];
    options.cluster_path = cluster_paths[v->model];
    options.thread_count = v->threads;
    options.batch_tokens = v->batch;
    if (v->sequences) options.sequences = v->sequences;
    options.context_tokens = 64;
    /* Engines are opened hundreds of times, which AddressSanitizer keeps the memory of for a while. */
    options.memory_bytes = UINT64_C(8) * PI2_TEST_PLENTY_BYTES;
    options.devices = v->devices;
    options.device_always = !v->may_be_left_out;
    options.device_share = v->share;
    options.callbacks.log = keep_line;
    options.callbacks.cancelled = v->cancelled;
    options.callbacks.user = v->user;
    options.identifies_weights = true;
    options.device_any_precision = v->any_precision;
    if (v->model == NEURONS) options.sparsity = "always";
    line_count = 0;
    mock_device_orders = v->orders;
    memset(&mock_device_counts, 0, sizeof mock_device_counts);
    pi2_session_run_cpu(v->devices ? NULL : "scalar");
    return more_bytes ? pi2_small_budget_open(&options, more_bytes, engine_out) : pi2_engine_open(&options, engine_out);
}

/* Whether so many steps beyond the least budget are enough: single neurons need more than streams do. What is opened is
 * the caller's. */
static bool is_enough(const device_variation *v, uint32_t steps, pi2_engine **engine_out) {
    const pi2_status status = device_engine_try(v, (uint64_t)steps * STEP, engine_out);
    if (status != PI2_OK && status != PI2_ERR_MEMORY) fail_msg("%s", pi2_error_text());
    return status == PI2_OK && (v->model != NEURONS || pi2_engine_get_report(*engine_out)->neuron_bytes > 0);
}

/* The fewest steps, found with a share that need not be measured each time. */
static uint32_t fewest_steps(const device_variation *v) {
    device_variation quick = *v;
    uint32_t low = 0, high = STEPS_MOST; /* not enough; enough, as far as is known */
    if (v->share < 0) quick.share = 0;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        pi2_engine *engine = NULL;
        if (is_enough(&quick, middle, &engine)) high = middle;
        else low = middle;
        pi2_engine_close(engine);
    }
    return high;
}

pi2_engine *device_engine_open(const device_variation *v) {
    pi2_engine *engine = NULL;
    if (!v->streams) {
        if (device_engine_try(v, 0, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
        return engine;
    }
    uint32_t steps = fewest_steps(v) + v->spare_steps;
    while (!is_enough(v, steps, &engine) && steps < STEPS_MOST) {
        pi2_engine_close(engine);
        steps++;
    }
    if (!engine) fail_msg("%s", pi2_error_text());
    return engine;
}

static void check_device(void) {
    const char *broken = atomic_load(&mock_device_counts.broken);
    if (broken) fail_msg("the device was asked for what it must not be: %s", broken);
}

/* Runs the variation's text in an open engine and compares it with the processor's. */
void device_engine_compare(pi2_engine *engine, const device_variation *v, size_t number) {
    pi2_session_run got;
    pi2_session_run_make(engine, DEVICE_PROMPT, DEVICE_DECODED, &got);
    pi2_session_run_compare(&wanted[v->model], &got, number);
    pi2_session_run_free(&got);
    check_device();
}

void device_engine_close(pi2_engine *engine) {
    pi2_engine_close(engine);
    assert_int_equal(mock_device_counts.opened, mock_device_counts.closed);
}

static void write_model(const pi2_tiny_model_options *options, device_model model, pi2_layout_kind layout) {
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
    options.layer_count = DEVICE_HOT_LAYERS;
    options.feed_forward_length = DEVICE_HOT_NEURONS;
    options.up_type = PI2_F32; /* so that a cluster is no whole layer */
    options.ffn_activation = "relu";
    write_model(&options, NEURONS, PI2_LAYOUT_NEURON);
}

int device_tests_begin(void **state) {
    if (test_folder_begin(state) != 0) return -1;
    for (int i = 0; i < DEVICE_MODELS; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "devices_%d.gguf", i);
        model_paths[i] = test_folder_path(name);
        (void)snprintf(name, sizeof name, "devices_%d.pi2", i);
        cluster_paths[i] = test_folder_path(name);
    }
    pi2_backend_add_kind(&mock_device_kind);
    write_models();
    for (int i = 0; i < DEVICE_MODELS; i++) {
        const device_variation plain = { .model = (device_model)i, .threads = 1, .batch = 64 };
        pi2_engine *engine = device_engine_open(&plain);
        pi2_session_run_make(engine, DEVICE_PROMPT, DEVICE_DECODED, &wanted[i]);
        pi2_engine_close(engine);
    }
    return 0;
}

int device_tests_end(void **state) {
    pi2_backend_add_kind(NULL);
    for (int i = 0; i < DEVICE_MODELS; i++) pi2_session_run_free(&wanted[i]);
    return test_folder_end(state);
}
