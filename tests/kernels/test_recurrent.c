/*
 * Goal:   steps of recurrent blocks compute what their definitions say; a convolution gives the same bits token by
 *         token as in one batch, and by ranges of channels.
 * Method: doubles as an independent reference; random inputs.
 */
#include "float_test.h"

#include "kernels/recurrent/recurrent.h"
#include "kernels/vector/soft_cap.h"
#include "kernels/vector/vector.h"

enum { TOKENS = 9, CHANNELS = 37, TAPS = 4, KEYS = 24, VALUES = 21 };

static void test_functions(void **state) {
    (void)state;
    for (float x = -60.0f; x <= 60.0f; x += 0.37f) {
        assert_near((double)pi2_softplus(x), log1p(exp((double)x)), 3e-7, 1e-7);
        assert_near((double)pi2_softplus_decay(x, -0.3f), exp((double)-0.3f * log1p(exp((double)x))), 1e-6, 1e-9);
        float capped = x;
        pi2_soft_cap(&capped, 1, 5.0f);
        assert_near((double)capped, 5.0 * tanh((double)x / 5.0), 1e-6, 1e-6);
    }
    for (double x = 0x1p-1070; x < 0x1p+1000; x *= 3.7) assert_near(pi2_log(x), log(x), 1e-15, 1e-16);
    float far[2] = { 1e30f, -1e30f };
    pi2_soft_cap(far, 2, 3.0f);
    assert_true(far[0] == 3.0f && far[1] == -3.0f);
}

static void test_length(void **state) {
    (void)state;
    float_rng rng = { 3 };
    float x[KEYS], out[KEYS];
    double squares = 0;
    float_rng_fill(&rng, x, KEYS, -2.0f, 2.0f);
    pi2_scale_to_length(out, x, KEYS, 0.5f, 1e-6f);
    for (size_t i = 0; i < KEYS; i++) squares += (double)out[i] * (double)out[i];
    assert_near(sqrt(squares), 0.5, 1e-6, 0.0);
    memset(x, 0, sizeof x);
    x[3] = 1e-3f; /* its square is epsilon, which is added to the sum: half of both is left */
    pi2_scale_to_length(out, x, KEYS, 0.5f, 1e-6f);
    assert_near((double)out[3], 0.5 / sqrt(2.0), 1e-6, 0.0);
    memset(x, 0, sizeof x);
    pi2_scale_to_length(out, x, KEYS, 0.5f, 1e-6f);
    for (size_t i = 0; i < KEYS; i++) assert_true(out[i] == 0.0f);
}

/* At once, and token by token in two ranges of channels. */
static void test_convolution(void **state) {
    (void)state;
    float_rng rng = { 4 };
    float weights[CHANNELS * TAPS], bias[CHANNELS], x[TOKENS * CHANNELS], once[TOKENS * CHANNELS];
    float pieces[TOKENS * CHANNELS], before[(TAPS - 1) * CHANNELS], history[2][(TAPS - 1) * CHANNELS];
    float_rng_fill(&rng, weights, CHANNELS * TAPS, -1.0f, 1.0f);
    float_rng_fill(&rng, bias, CHANNELS, -1.0f, 1.0f);
    float_rng_fill(&rng, x, TOKENS * CHANNELS, -1.0f, 1.0f);
    float_rng_fill(&rng, before, (TAPS - 1) * CHANNELS, -1.0f, 1.0f);
    const pi2_convolution convolution = { weights, bias, TAPS, CHANNELS, true };
    for (int i = 0; i < 2; i++) memcpy(history[i], before, sizeof before);
    memcpy(once, x, sizeof x);
    memcpy(pieces, x, sizeof x);
    pi2_causal_convolution(&convolution, once, CHANNELS, TOKENS, 0, CHANNELS, history[0]);
    for (size_t t = 0; t < TOKENS; t++) {
        pi2_causal_convolution(&convolution, pieces + t * CHANNELS, CHANNELS, 1, 0, 20, history[1]);
        pi2_causal_convolution(&convolution, pieces + t * CHANNELS, CHANNELS, 1, 20, CHANNELS, history[1]);
    }
    assert_memory_equal(once, pieces, sizeof once);
    assert_memory_equal(history[0], history[1], sizeof before);
    assert_memory_equal(history[0], x + (TOKENS - TAPS + 1) * CHANNELS, sizeof before);
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t c = 0; c < CHANNELS; c++) {
            double sum = (double)bias[c];
            for (size_t k = 0; k < TAPS; k++) {
                const size_t row = t + k;
                const float value = row < TAPS - 1 ? before[row * CHANNELS + c] : x[(row - TAPS + 1) * CHANNELS + c];
                sum += (double)weights[c * TAPS + k] * (double)value;
            }
            assert_near((double)once[t * CHANNELS + c], sum / (1 + exp(-sum)), 2e-6, 1e-6);
        }
    }
}

static void test_steps(void **state) {
    (void)state;
    float_rng rng = { 5 };
    float delta[KEYS * VALUES], scan[KEYS * VALUES], key[KEYS], query[KEYS], value[VALUES], out[2][VALUES];
    float_rng_fill(&rng, delta, KEYS * VALUES, -1.0f, 1.0f);
    float_rng_fill(&rng, key, KEYS, -0.3f, 0.3f);
    float_rng_fill(&rng, query, KEYS, -0.3f, 0.3f);
    float_rng_fill(&rng, value, VALUES, -1.0f, 1.0f);
    float before[KEYS * VALUES];
    memcpy(before, delta, sizeof before);
    memcpy(scan, delta, sizeof before);
    pi2_delta_step(delta, KEYS, VALUES, query, key, value, 0.9f, 0.7f, out[0]);
    pi2_scan_step(scan, KEYS, VALUES, key, query, value, 0.9f, out[1]);
    for (size_t j = 0; j < VALUES; j++) {
        double known = 0, want[2] = { 0, 0 };
        for (size_t i = 0; i < KEYS; i++) known += 0.9 * (double)before[i * VALUES + j] * (double)key[i];
        for (size_t i = 0; i < KEYS; i++) {
            const double kept = 0.9 * (double)before[i * VALUES + j];
            const double changed = kept + (double)key[i] * ((double)value[j] - known) * 0.7;
            const double taken = kept + (double)key[i] * (double)value[j];
            assert_near((double)delta[i * VALUES + j], changed, 1e-6, 1e-6);
            assert_near((double)scan[i * VALUES + j], taken, 1e-6, 1e-6);
            want[0] += changed * (double)query[i];
            want[1] += taken * (double)query[i];
        }
        for (int i = 0; i < 2; i++) assert_near((double)out[i][j], want[i], 1e-6, 1e-6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_functions), cmocka_unit_test(test_length),
                                        cmocka_unit_test(test_convolution), cmocka_unit_test(test_steps) };
    return cmocka_run_group_tests_name("recurrent steps", tests, NULL, NULL);
}
