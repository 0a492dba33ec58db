/*
 * Goal:   shapes of families that are more than a llama have as many weights as the models are said to have, and their
 *         files load, run, and stream with the same bits.
 * Method: the plan's tensors are counted against figures that others published (billions, as llama.cpp prints them);
 *         narrow ones with the first layers of the pattern run in memory and with at most half of their weights there.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "synthetic/synthetic_internal.h"

enum { PROMPT = 5, DECODED = 4, WIDTH = 512, MORE_BYTES = 15000000 };

/* layers: to run; 0: made of the same as another. */
static const struct { const char *name; double billions; uint32_t layers; } known[] = {
    { "qwen3.5-27b", 26.90, 4 },   { "qwen3.6-35b-a3b", 34.66, 4 }, { "gpt-oss-20b", 20.91, 4 },
    { "gpt-oss-120b", 116.83, 0 }, { "lfm2-8b-a1b", 8.34, 6 },      { "nemotron3-nano-30b-a3b", 31.58, 12 },
    { "glm-4.7-flash", 29.94, 5 },  { "gemma4-e4b", 7.52, 8 },       { "gemma4-26b-a4b", 25.23, 6 },
    { "qwen3-coder-next", 79.67, 4 },
};
enum { KNOWN = sizeof known / sizeof known[0] };

static void weights_are_as_many_as_published(void **state) {
    (void)state;
    for (size_t i = 0; i < KNOWN; i++) {
        pi2_synthetic_options options;
        pi2_synthetic_plan plan;
        uint64_t count = 0;
        pi2_synthetic_options_init(&options);
        assert_int_equal(pi2_synthetic_shape_find(known[i].name, &options.shape), PI2_OK);
        if (pi2_synthetic_plan_make(&options, &plan) != PI2_OK) fail_msg("%s: %s", known[i].name, pi2_error_text());
        for (uint32_t t = 0; t < plan.tensor_count; t++) {
            const uint64_t *dimensions = plan.tensors[t].dimensions;
            count += dimensions[0] * dimensions[1] * dimensions[2];
        }
        pi2_synthetic_plan_free(&plan);
        const double billions = (double)count / 1e9;
        if (fabs(billions - known[i].billions) > 0.006) {
            fail_msg("%s: %.3f billion weights, not %.2f", known[i].name, billions, known[i].billions);
        }
    }
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Narrow in every way that leaves the family's parts. */
static void narrow(pi2_synthetic_shape *shape, uint32_t layers) {
    shape->layer_count = layers;
    shape->embedding_length = WIDTH;
    shape->feed_forward_length = 4096;
    shape->vocabulary_size = 1024;
    shape->head_count = 4;
    shape->head_count_kv = 2;
    shape->expert_count = least(shape->expert_count, 16);
    shape->expert_used_count = least(shape->expert_used_count, 4);
    if (shape->expert_count) shape->expert_feed_forward_length = 512;
    if (shape->shared_length) shape->shared_length = 512;
    shape->mix_value_heads = least(shape->mix_value_heads, 8);
    shape->mix_key_heads = least(shape->mix_key_heads, 4);
    shape->keyed_layers = least(shape->keyed_layers, 6);
    shape->full_head_count_kv = least(shape->full_head_count_kv, 1);
    shape->expert_skew = shape->expert_repeat = 0.0;
}

/* A sanitizer's own memory, and an emulator's, grows by more than what a narrow model has. */
static const bool is_exact = !PI2_UNDER_ASAN && !PI2_UNDER_TSAN && !PI2_UNDER_EMULATOR;

static pi2_engine *open_model(const char *path, bool streams) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = streams ? 0 : PI2_TEST_PLENTY_BYTES;
    options.context_tokens = 64;
    options.thread_count = streams ? 2 : 1;
    options.batch_tokens = streams ? 4 : 16;
    const pi2_status status = streams ? pi2_small_budget_open(&options, is_exact ? MORE_BYTES : 4 * MORE_BYTES, &engine)
                                      : pi2_engine_open(&options, &engine);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static void check_bits(const char *name, const char *path) {
    pi2_session_run want, got;
    pi2_engine *engine = open_model(path, false);
    pi2_session_run_make(engine, PROMPT, DECODED, &want);
    pi2_engine_close(engine);
    for (size_t i = 0; i < want.logit_count; i++) {
        if (!isfinite(want.logits[i])) fail_msg("%s: logit %zu is %g", name, i, (double)want.logits[i]);
    }
    engine = open_model(path, true);
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    if (is_exact && report->resident_bytes * 2 > report->weight_bytes) {
        fail_msg("%s: %llu of %llu bytes are resident", name, (unsigned long long)report->resident_bytes,
                 (unsigned long long)report->weight_bytes);
    }
    pi2_session_run_make(engine, PROMPT, DECODED, &got);
    pi2_engine_close(engine);
    pi2_session_run_compare(&want, &got, 0);
    pi2_session_run_free(&want);
    pi2_session_run_free(&got);
}

static void narrow_ones_run_and_stream(void **state) {
    (void)state;
    for (size_t i = 0; i < KNOWN; i++) {
        if (!known[i].layers) continue;
        char *folder = test_folder_make(), *path = test_path(folder, "shape.gguf");
        pi2_synthetic_options options;
        pi2_synthetic_options_init(&options);
        assert_int_equal(pi2_synthetic_shape_find(known[i].name, &options.shape), PI2_OK);
        narrow(&options.shape, known[i].layers);
        options.type = "q8_0";
        options.output_path = path;
        if (pi2_synthetic_write(&options, NULL) != PI2_OK) fail_msg("%s: %s", known[i].name, pi2_error_text());
        check_bits(known[i].name, path);
        free(path);
        test_folder_remove(folder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_as_many_as_published),
        cmocka_unit_test(narrow_ones_run_and_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
