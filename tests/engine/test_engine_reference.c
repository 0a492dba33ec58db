/*
 * Goal:   the engine computes the model: its logits are those of a float reference that shares
 *         nothing with the pipeline, up to the rounding of activations to 8 bits.
 * Method: tiny random models of every weight type and of every option of the architecture; the
 *         error is measured against the spread of the reference's logits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "powerinfer2/session.h"
#include "support/float_reference.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { TOKENS = 24 };

/* Root mean square of the difference over the root mean square of the reference around its mean. */
static double relative_error(const double *want, const float *got, size_t count) {
    double mean = 0, spread = 0, error = 0;
    for (size_t i = 0; i < count; i++) mean += want[i] / (double)count;
    for (size_t i = 0; i < count; i++) {
        spread += (want[i] - mean) * (want[i] - mean);
        error += (want[i] - (double)got[i]) * (want[i] - (double)got[i]);
    }
    return sqrt(error / spread);
}

static void check_model(const pi2_tiny_model_options *options, pi2_cache_type cache_type, double most) {
    char *folder = test_folder_make();
    char *path = test_path(folder, "tiny.gguf");
    assert_int_equal(pi2_tiny_model_write(options, path), 0);
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * 37 + 11) % 256;
    double *want = NULL;
    size_t vocabulary = 0;
    assert_int_equal(pi2_float_reference(path, tokens, TOKENS, &want, &vocabulary), 0);

    pi2_engine_options engine_options;
    pi2_engine_options_init(&engine_options);
    engine_options.model_path = path;
    engine_options.memory_bytes = 400000000;
    engine_options.logits_tokens = TOKENS;
    engine_options.cache_type = cache_type;
    pi2_engine *engine = NULL;
    pi2_session *session = NULL;
    if (pi2_engine_open(&engine_options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    if (pi2_session_append(session, tokens, TOKENS, PI2_LOGITS_ALL) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (size_t t = 0; t < TOKENS; t++) {
        const double error = relative_error(want + t * vocabulary, pi2_session_logits(session, t), vocabulary);
        if (!(error <= most)) fail_msg("token %zu: relative error %g is over %g", t, error, most);
    }
    pi2_session_free(session);
    pi2_engine_close(engine);
    free(want);
    free(path);
    test_folder_remove(folder);
}

static void test_unquantised_types(void **state) {
    (void)state;
    static const pi2_weight_type types[] = { PI2_F32, PI2_F16, PI2_BF16 };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        pi2_tiny_model_options options;
        pi2_tiny_model_options_init(&options);
        pi2_tiny_model_set_types(&options, types[i]);
        check_model(&options, PI2_CACHE_F16, 0.003); /* the cache keeps 11 bits */
    }
}

static void test_quantised_types(void **state) {
    (void)state;
    static const pi2_weight_type types[] = { PI2_Q8_0, PI2_Q4_0, PI2_Q4_1, PI2_Q5_0, PI2_Q5_1, PI2_Q4_K, PI2_Q6_K };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        pi2_tiny_model_options options;
        pi2_tiny_model_options_init(&options);
        pi2_tiny_model_set_types(&options, types[i]);
        check_model(&options, PI2_CACHE_F16, 0.05);
    }
}

static void test_mixed_types(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.query_type = PI2_Q4_K;
    options.key_type = PI2_F16;
    options.value_type = PI2_Q6_K;
    options.gate_type = PI2_Q5_1;
    options.up_type = PI2_BF16;
    options.down_type = PI2_Q6_K;
    options.tied_head = false;
    options.head_type = PI2_Q6_K;
    options.embedding_type = PI2_Q4_K;
    check_model(&options, PI2_CACHE_F16, 0.05);
    options.down_type = PI2_F32;
    check_model(&options, PI2_CACHE_F16, 0.05);
}

static void test_cache_q8_0(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    pi2_tiny_model_set_types(&options, PI2_F32);
    check_model(&options, PI2_CACHE_Q8_0, 0.03);
}

static void test_biases_and_head_dimension(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    pi2_tiny_model_set_types(&options, PI2_F32);
    options.attention_biases = options.feed_forward_biases = true;
    options.head_dimension = 32;
    options.rope_dimension_count = 16;
    options.feed_forward_length = 608; /* no multiple of a chunk */
    check_model(&options, PI2_CACHE_F16, 0.003);
}

static void test_rope_scalings(void **state) {
    (void)state;
    static const char *const scalings[] = { "linear", "yarn", "llama3" };
    for (size_t i = 0; i < sizeof scalings / sizeof scalings[0]; i++) {
        pi2_tiny_model_options options;
        pi2_tiny_model_options_init(&options);
        pi2_tiny_model_set_types(&options, PI2_F32);
        options.rope_scaling = scalings[i];
        options.rope_base = 500;
        check_model(&options, PI2_CACHE_F16, 0.003);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unquantised_types), cmocka_unit_test(test_quantised_types),
        cmocka_unit_test(test_mixed_types), cmocka_unit_test(test_cache_q8_0),
        cmocka_unit_test(test_biases_and_head_dimension), cmocka_unit_test(test_rope_scalings),
    };
    return cmocka_run_group_tests_name("engine against a float reference", tests, NULL, NULL);
}
