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

static pi2_status open_it(const char *path, const char *sparsity, pi2_engine **engine_out) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.sparsity = sparsity;
    options.thread_count = 2;
    options.context_tokens = 64;
    options.batch_tokens = 16;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    return pi2_engine_open(&options, engine_out);
}

static pi2_status run_it(const char *path, const char *sparsity, pi2_session_run *run, uint64_t *named_out) {
    pi2_engine *engine = NULL;
    pi2_engine_counters counters;
    const pi2_status status = open_it(path, sparsity, &engine);
    if (status != PI2_OK) return status;
    pi2_session_run_make(engine, PROMPT, DECODED, run);
    pi2_engine_count(engine, &counters);
    *named_out = counters.neurons_predicted;
    pi2_engine_close(engine);
    return PI2_OK;
}

static void write_family(const char *family) {
    (void)remove(cluster_path);
    (void)remove(predictor_path);
    if (pi2_family_model_write_apart(family, PI2_Q8_0, 1, model_path) != 0) fail_msg("cannot write %s", family);
    const pi2_prepare_options prepare = { .model_path = model_path, .output_path = cluster_path,
                                          .layout = PI2_LAYOUT_BUNDLE, .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s: %s", family, pi2_error_text());
}

/* Whether it can be; then the bits are compared. */
static bool check_family(const char *family) {
    pi2_session_run want, got;
    uint64_t named;
    write_family(family);
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

enum { LONG = 45, BACK = 41 };

/* The logits of one token after BACK others, to which a session came by a prompt of its own or by going back. */
static void logits_after(const char *sparsity, bool goes_back, float *logits, uint32_t count) {
    pi2_engine *engine = NULL;
    pi2_session *session;
    int32_t tokens[LONG];
    for (int i = 0; i < LONG; i++) tokens[i] = 1 + (i * 7) % 40;
    if (open_it(cluster_path, sparsity, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(pi2_engine_get_report(engine)->vocabulary_size >= count);
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    assert_int_equal(pi2_session_append(session, tokens, goes_back ? LONG : BACK, PI2_LOGITS_LAST), PI2_OK);
    if (goes_back) assert_int_equal(pi2_session_truncate(session, BACK), PI2_OK);
    assert_int_equal(pi2_session_append(session, &tokens[BACK], 1, PI2_LOGITS_LAST), PI2_OK);
    memcpy(logits, pi2_session_logits(session, 0), count * sizeof *logits);
    pi2_session_free(session);
    pi2_engine_close(engine);
}

/* A state that cannot be taken back is made again of the tokens before, in passes of a prompt: exactly, as those were
 * computed first, though the token that is appended leaves neurons out. */
static void test_states_are_made_again_exactly(void **state) {
    (void)state;
    enum { COMPARED = 32 };
    static const char *const families[] = { "lfm2", "qwen35" };
    for (size_t i = 0; i < 2; i++) {
        float want[COMPARED], got[COMPARED], exact[COMPARED];
        write_family(families[i]);
        logits_after("0.5", false, want, COMPARED);
        logits_after("0.5", true, got, COMPARED);
        logits_after("exact", false, exact, COMPARED);
        assert_memory_equal(want, got, sizeof want);
        assert_true(memcmp(want, exact, sizeof want) != 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_families, set_up, test_folder_end),
        cmocka_unit_test_setup_teardown(test_states_are_made_again_exactly, set_up, test_folder_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
