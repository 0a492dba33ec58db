/* reference_check.c: opens a tiny model in the engine and beside it in doubles. */
#include "support/reference_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "neuron_cache/cache_trace.h"
#include "powerinfer2/session.h"
#include "support/emulator.h"
#include "support/float_reference.h"
#include "support/temporary_files.h"

enum { TOKENS = 24 };

static double square(double x) { return x * x; }

/*
 * How much a logit differs from token to token, root mean square: what all tokens have in common, which in a
 * random model may be most of it, says little of what was computed.
 */
static double spread_of(const double *logits, size_t vocabulary) {
    double squares = 0;
    for (size_t v = 0; v < vocabulary; v++) {
        double mean = 0;
        for (size_t t = 0; t < TOKENS; t++) mean += logits[t * vocabulary + v] / TOKENS;
        for (size_t t = 0; t < TOKENS; t++) squares += square(logits[t * vocabulary + v] - mean);
    }
    return sqrt(squares / (TOKENS * (double)vocabulary));
}

static double error_of(const double *want, const float *got, size_t count) {
    double squares = 0;
    for (size_t i = 0; i < count; i++) squares += square(want[i] - (double)got[i]);
    return sqrt(squares / (double)count);
}

static pi2_engine *open_engine(const char *path, pi2_cache_type cache_type, const char *trace) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.logits_tokens = TOKENS;
    options.cache_type = cache_type;
    options.record_trace = trace;
    pi2_engine *engine = NULL;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

/* The experts of each token and layer, told by a trace of a run that takes one token at a time; malloc'd. */
static uint32_t *record_choice(const char *path, const char *trace_path, pi2_cache_type cache_type,
                               const int32_t *tokens) {
    pi2_engine *engine = open_engine(path, cache_type, trace_path);
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    for (int t = 0; t < TOKENS; t++) {
        if (pi2_session_append(session, &tokens[t], 1, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
    pi2_session_free(session);
    pi2_engine_close(engine);
    pi2_trace trace;
    if (pi2_trace_read(trace_path, &trace) != PI2_OK) fail_msg("%s", pi2_error_text());
    const uint32_t experts = trace.header.expert_count;
    assert_int_equal(trace.token_count, TOKENS);
    assert_int_equal(trace.demand_count, TOKENS * trace.header.layer_count);
    assert_int_equal(trace.key_count, trace.demand_count * trace.header.used_count);
    uint32_t *chosen = malloc(trace.key_count * sizeof *chosen);
    assert_non_null(chosen);
    for (uint32_t i = 0; i < trace.key_count; i++) {
        assert_int_equal(trace.keys[i] / experts, i / trace.header.used_count % trace.header.layer_count);
        chosen[i] = trace.keys[i] % experts;
    }
    pi2_trace_free(&trace);
    return chosen;
}

static void check_logits(const char *path, pi2_cache_type cache_type, const int32_t *tokens,
                         pi2_expert_choice *choice, double most) {
    double *want = NULL, largest = 0;
    size_t vocabulary = 0;
    assert_int_equal(pi2_float_reference(path, tokens, TOKENS, choice, &want, &vocabulary), 0);
    const double spread = spread_of(want, vocabulary);
    pi2_engine *engine = open_engine(path, cache_type, NULL);
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    if (pi2_session_append(session, tokens, TOKENS, PI2_LOGITS_ALL) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (size_t t = 0; t < TOKENS; t++) {
        const double error = error_of(want + t * vocabulary, pi2_session_logits(session, t), vocabulary) / spread;
        if (!(error <= most)) fail_msg("token %zu: relative error %g is over %g", t, error, most);
        if (error > largest) largest = error;
    }
    print_message("largest error %.4f, allowed are %.4f\n", largest, most);
    pi2_session_free(session);
    pi2_engine_close(engine);
    free(want);
}

static void fill_tokens(int32_t tokens[TOKENS]) {
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * 37 + 11) % 256;
}

void pi2_check_file_against_reference(const char *path, pi2_cache_type cache_type, double most) {
    int32_t tokens[TOKENS];
    fill_tokens(tokens);
    check_logits(path, cache_type, tokens, NULL, most);
}

void pi2_check_against_reference(const pi2_tiny_model_options *options, pi2_cache_type cache_type, double most,
                                 double most_gap) {
    char *folder = test_folder_make();
    char *path = test_path(folder, "tiny.gguf"), *trace_path = test_path(folder, "tiny.trace");
    assert_int_equal(pi2_tiny_model_write(options, path), 0);
    int32_t tokens[TOKENS];
    fill_tokens(tokens);
    if (options->expert_count) {
        uint32_t *chosen = record_choice(path, trace_path, cache_type, tokens);
        pi2_expert_choice choice = { .experts = chosen };
        check_logits(path, cache_type, tokens, &choice, most);
        if (!(choice.largest_gap <= most_gap)) {
            fail_msg("an expert was chosen that lies %g under the best, over %g", choice.largest_gap, most_gap);
        }
        free(chosen);
    } else {
        check_logits(path, cache_type, tokens, NULL, most);
    }
    free(path);
    free(trace_path);
    test_folder_remove(folder);
}
