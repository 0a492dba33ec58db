/*
 * Goal:   the engine computes the model: its logits are those of a float reference that shares
 *         nothing with the pipeline, up to the rounding of activations to 8 bits.
 * Method: tiny random models of every weight type and of every option of the architecture; the
 *         error is measured against the spread of the reference's logits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/reference_check.h"

/* Every type of the list, each with the error that its activations' rounding explains. */
static void test_every_type(void **state) {
    (void)state;
    size_t count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t i = 0; i < count; i++) {
        pi2_tiny_model_options options;
        pi2_tiny_model_options_init(&options);
        pi2_tiny_model_set_types(&options, formats[i]->type);
        /* The cache keeps 11 bits. */
        const double most = formats[i]->activation == PI2_ACTIVATION_F32 ? 0.003 : 0.08;
        pi2_check_against_reference(&options, PI2_CACHE_F16, most, 0);
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
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.08, 0);
    options.down_type = PI2_F32;
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.08, 0);
    options.query_type = PI2_IQ2_XXS;
    options.key_type = PI2_MXFP4;
    options.value_type = PI2_IQ4_XS;
    options.attention_output_type = PI2_NVFP4;
    options.gate_type = PI2_IQ3_S;
    options.up_type = PI2_TQ1_0;
    options.down_type = PI2_Q5_K;
    options.embedding_type = PI2_Q3_K;
    options.head_type = PI2_IQ4_NL;
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.08, 0);
}

static void test_cache_q8_0(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    pi2_tiny_model_set_types(&options, PI2_F32);
    pi2_check_against_reference(&options, PI2_CACHE_Q8_0, 0.03, 0);
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
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.003, 0);
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
        pi2_check_against_reference(&options, PI2_CACHE_F16, 0.003, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type), cmocka_unit_test(test_mixed_types), cmocka_unit_test(test_cache_q8_0),
        cmocka_unit_test(test_biases_and_head_dimension), cmocka_unit_test(test_rope_scalings),
    };
    return cmocka_run_group_tests_name("engine against a float reference", tests, NULL, NULL);
}
