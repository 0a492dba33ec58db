/*
 * Goal:   steps of recurrent blocks compute what their definitions say, with the same bits in every instruction set; a
 *         convolution gives the same bits token by token as in one batch, and by ranges of channels.
 * Method: doubles as an independent reference; random inputs, heads of lengths that fill vectors and that do not.
 */
#include "float_test.h"

#include "base/cpu_features.h"
#include "kernels/recurrent/recurrent.h"
#include "kernels/vector/soft_cap.h"
#include "kernels/vector/vector.h"

enum { TOKENS = 9, CHANNELS = 37, TAPS = 4, KEYS = 24, VALUES = 21 };

/* Of the CPU, as PI2_CPU has it. */
static const pi2_recurrent_kernels *kernels(void) { return pi2_recurrent_select(pi2_cpu_features()); }

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
    kernels()->scale_to_length(out, x, KEYS, 0.5f, 1e-6f);
    for (size_t i = 0; i < KEYS; i++) squares += (double)out[i] * (double)out[i];
    assert_near(sqrt(squares), 0.5, 1e-6, 0.0);
    memset(x, 0, sizeof x);
    x[3] = 1e-3f; /* its square is epsilon, which is added to the sum: half of both is left */
    kernels()->scale_to_length(out, x, KEYS, 0.5f, 1e-6f);
    assert_near((double)out[3], 0.5 / sqrt(2.0), 1e-6, 0.0);
    memset(x, 0, sizeof x);
    kernels()->scale_to_length(out, x, KEYS, 0.5f, 1e-6f);
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
    kernels()->convolve(&convolution, once, CHANNELS, TOKENS, 0, CHANNELS, history[0]);
    for (size_t t = 0; t < TOKENS; t++) {
        kernels()->convolve(&convolution, pieces + t * CHANNELS, CHANNELS, 1, 0, 20, history[1]);
        kernels()->convolve(&convolution, pieces + t * CHANNELS, CHANNELS, 1, 20, CHANNELS, history[1]);
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
    kernels()->delta_step(delta, KEYS, VALUES, query, key, value, 0.9f, 0.7f, out[0]);
    kernels()->scan_step(scan, KEYS, VALUES, key, query, value, 0.9f, out[1]);
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

enum { MOST = 160, ROWS = 5 };

typedef struct step_operands {
    float state[MOST * MOST], key[MOST], query[MOST], value[MOST], out[MOST];
} step_operands;

static void check_bits(const char *name, const char *what, size_t keys, size_t values, const step_operands *want,
                       const step_operands *got) {
    if (memcmp(want->state, got->state, keys * values * sizeof(float)) == 0 &&
        memcmp(want->out, got->out, values * sizeof(float)) == 0) return;
    fail_msg("%s: %s of %zu keys and %zu values differs from the scalar one", name, what, keys, values);
}

/* Deltas, scans and lengths of one shape. */
static void compare_steps(const pi2_recurrent_kernels *set, float_rng *rng, size_t keys, size_t values) {
    static step_operands first, want, got;
    const pi2_recurrent_kernels *scalar = pi2_recurrent_select(PI2_CPU_NONE);
    float_rng_fill(rng, first.state, MOST * MOST, -1.0f, 1.0f);
    float_rng_fill(rng, first.key, MOST, -0.3f, 0.3f);
    float_rng_fill(rng, first.query, MOST, -0.3f, 0.3f);
    float_rng_fill(rng, first.value, MOST, -1.0f, 1.0f);
    want = got = first;
    scalar->delta_step(want.state, keys, values, want.query, want.key, want.value, 0.9f, 0.7f, want.out);
    set->delta_step(got.state, keys, values, got.query, got.key, got.value, 0.9f, 0.7f, got.out);
    check_bits(set->name, "a delta step", keys, values, &want, &got);
    scalar->scan_step(want.state, keys, values, want.key, want.query, want.value, 0.8f, want.out);
    set->scan_step(got.state, keys, values, got.key, got.query, got.value, 0.8f, got.out);
    check_bits(set->name, "a scan step", keys, values, &want, &got);
    scalar->scale_to_length(want.out, want.value, values, 0.5f, 1e-6f);
    set->scale_to_length(got.out, got.value, values, 0.5f, 1e-6f);
    check_bits(set->name, "a length", keys, values, &want, &got);
    assert_memory_equal(want.state + keys * values, first.state + keys * values, sizeof want.state - keys * values * 4);
    assert_memory_equal(got.state + keys * values, first.state + keys * values, sizeof got.state - keys * values * 4);
}

static void compare_convolutions(const pi2_recurrent_kernels *set, float_rng *rng, size_t taps, bool bias, bool silu) {
    float weights[CHANNELS * PI2_CONVOLUTION_MOST], biases[CHANNELS], x[2][ROWS * CHANNELS];
    float history[2][PI2_CONVOLUTION_MOST * CHANNELS];
    float_rng_fill(rng, weights, CHANNELS * taps, -1.0f, 1.0f);
    float_rng_fill(rng, biases, CHANNELS, -1.0f, 1.0f);
    float_rng_fill(rng, x[0], ROWS * CHANNELS, -3.0f, 3.0f);
    float_rng_fill(rng, history[0], PI2_CONVOLUTION_MOST * CHANNELS, -1.0f, 1.0f);
    memcpy(x[1], x[0], sizeof x[1]);
    memcpy(history[1], history[0], sizeof history[1]);
    const pi2_convolution convolution = { weights, bias ? biases : NULL, taps, CHANNELS, silu };
    pi2_recurrent_select(PI2_CPU_NONE)->convolve(&convolution, x[0], CHANNELS, ROWS, 1, CHANNELS - 1, history[0]);
    set->convolve(&convolution, x[1], CHANNELS, ROWS, 1, CHANNELS - 1, history[1]);
    assert_memory_equal(x[0], x[1], sizeof x[0]);
    assert_memory_equal(history[0], history[1], sizeof history[0]);
}

static void test_bits_of_every_instruction_set(void **state) {
    (void)state;
    static const size_t shapes[][2] = { { 128, 128 }, { 24, 21 }, { 1, 1 },  { 17, 32 },
                                        { 64, 80 },   { 160, 159 }, { 5, 16 } };
    float_rng rng = { 6 };
    for (size_t i = 0; i < pi2_recurrent_kernel_set_count; i++) {
        const pi2_recurrent_kernels *set = pi2_recurrent_kernel_sets[i];
        if (set->cpu_required & ~pi2_cpu_features()) {
            print_message("skipped: %s (this CPU lacks it, or PI2_CPU hides it)\n", set->name);
            continue;
        }
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            compare_steps(set, &rng, shapes[s][0], shapes[s][1]);
        }
        for (size_t taps = 2; taps <= PI2_CONVOLUTION_MOST; taps += taps == 4 ? 12 : 1) {
            compare_convolutions(set, &rng, taps, taps != 3, taps != 4);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_functions), cmocka_unit_test(test_length),
                                        cmocka_unit_test(test_convolution), cmocka_unit_test(test_steps),
                                        cmocka_unit_test(test_bits_of_every_instruction_set) };
    return cmocka_run_group_tests_name("recurrent steps", tests, NULL, NULL);
}
