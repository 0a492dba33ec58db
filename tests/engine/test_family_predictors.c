/*
 * Goal:   a predictor leaves neurons out of every family whose layers can be computed by neuron, and where it names all
 *         of them the bits are the model's own; every other family is refused in a line that says why.
 * Method: a small model of each family in the bundle layout, with nothing left out, against the GGUF in memory; then a
 *         half left out, which must give another text.
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
#include "support/family_model.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/temporary_files.h"

enum { PROMPT = 9, DECODED = 3, STEP = PI2_UNDER_ASAN || PI2_UNDER_TSAN ? 3 : 1 };

static char *model_path, *cluster_path, *predictor_path;

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    model_path = test_folder_path("family.gguf");
    cluster_path = test_folder_path("family.pi2");
    predictor_path = test_folder_path("family.low-bit.predictor");
    return 0;
}

static pi2_status run_it(const char *path, const char *sparsity, pi2_session_run *run, uint64_t *named_out) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_counters counters;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.sparsity = sparsity;
    options.thread_count = 2;
    options.context_tokens = 64;
    options.batch_tokens = 16;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    const pi2_status status = pi2_engine_open(&options, &engine);
    if (status != PI2_OK) return status;
    pi2_session_run_make(engine, PROMPT, DECODED, run);
    pi2_engine_count(engine, &counters);
    *named_out = counters.neurons_predicted;
    pi2_engine_close(engine);
    return PI2_OK;
}

/* Whether it can be; then the bits are compared. */
static bool check_family(const char *family) {
    pi2_session_run want, got;
    uint64_t named;
    (void)remove(cluster_path);
    (void)remove(predictor_path);
    if (pi2_family_model_write_apart(family, PI2_Q8_0, 1, model_path) != 0) fail_msg("cannot write %s", family);
    const pi2_prepare_options prepare = { .model_path = model_path, .output_path = cluster_path,
                                          .layout = PI2_LAYOUT_BUNDLE, .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s: %s", family, pi2_error_text());
    const pi2_status status = run_it(cluster_path, "0", &got, &named);
    if (status != PI2_OK) {
        if (status != PI2_ERR_UNSUPPORTED && status != PI2_ERR_INVALID) fail_msg("%s: %s", family, pi2_error_text());
        print_message("%s\n", pi2_error_text());
        return false;
    }
    assert_true(named > 0);
    uint64_t none;
    if (run_it(model_path, "off", &want, &none) != PI2_OK) fail_msg("%s: %s", family, pi2_error_text());
    if (memcmp(want.logits, got.logits, want.logit_count * sizeof(float)) != 0) fail_msg("%s gives other bits", family);
    pi2_session_run_free(&got);
    if (run_it(cluster_path, "0.5", &got, &named) != PI2_OK) fail_msg("%s: %s", family, pi2_error_text());
    if (memcmp(want.logits, got.logits, want.logit_count * sizeof(float)) == 0) fail_msg("%s: all stays", family);
    pi2_session_run_free(&got);
    pi2_session_run_free(&want);
    return true;
}

static void test_families(void **state) {
    (void)state;
    unsigned families = 0, predicted = 0;
    for (size_t i = 0; pi2_family_name(i); i += STEP, families++) predicted += check_family(pi2_family_name(i));
    assert_true(predicted * 3 > families); /* dense ones are more than a third of them */
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_families, set_up, test_folder_end) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
