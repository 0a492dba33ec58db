/*
 * Goal:   the divergence of small distributions is what the definition gives, equal ones have none, and means, errors
 *         and percentiles are those of the values.
 * Method: the definition in double beside it, on distributions that are made up.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/divergence.h"
#include "powerinfer2/scoring.h"

enum { VOCABULARY = 37, TOKENS = 101 };

static void assert_near(double got, double want, double within) {
    if (!(fabs(got - want) <= within)) fail_msg("%.9g is not within %.3g of %.9g", got, within, want);
}

static void make_logits(uint32_t seed, float spread, float logits[VOCABULARY]) {
    uint32_t state = seed * 2654435761u + 12345u;
    for (int i = 0; i < VOCABULARY; i++) {
        state = state * 1664525u + 1013904223u;
        logits[i] = spread * ((float)(state >> 8) / (float)(1 << 24) - 0.5f);
    }
}

/** log of the probabilities, in double. */
static void softmax_log(const float logits[VOCABULARY], double log_out[VOCABULARY]) {
    double sum = 0;
    for (int i = 0; i < VOCABULARY; i++) sum += exp((double)logits[i]);
    for (int i = 0; i < VOCABULARY; i++) log_out[i] = (double)logits[i] - log(sum);
}

static void test_surprise_is_the_negative_logarithm(void **state) {
    (void)state;
    float logits[VOCABULARY], logs[VOCABULARY];
    double want[VOCABULARY];
    make_logits(3, 8, logits);
    softmax_log(logits, want);
    pi2_log_probabilities(logits, VOCABULARY, logs);
    for (int32_t i = 0; i < VOCABULARY; i++) {
        assert_near(pi2_surprise(logits, VOCABULARY, i), -want[i], 1e-5);
        assert_near((double)logs[i], want[i], 1e-5);
    }
    logits[5] = NAN;
    assert_true(!isfinite(pi2_surprise(logits, VOCABULARY, 0)));
    logits[5] = INFINITY;
    assert_true(!isfinite(pi2_surprise(logits, VOCABULARY, 0)));
}

static void test_figures_follow_the_definition(void **state) {
    (void)state;
    pi2_divergence *divergence = NULL;
    pi2_divergence_summary summary;
    double sum = 0, squares = 0, model_sum = 0, reference_sum = 0, change_sum = 0;
    double smallest = INFINITY, largest = 0;
    int same = 0;
    assert_int_equal(pi2_divergence_create(VOCABULARY, TOKENS, &divergence), PI2_OK);
    assert_int_equal(pi2_divergence_summarize(divergence, &summary), PI2_ERR_INVALID);
    for (int t = 0; t < TOKENS; t++) {
        float model[VOCABULARY], reference[VOCABULARY], noise[VOCABULARY];
        double p[VOCABULARY], q[VOCABULARY], kl = 0;
        int top_p = 0, top_q = 0;
        const int32_t token = t % VOCABULARY;
        make_logits((uint32_t)t, 6, reference);
        make_logits((uint32_t)t + 1000, 1, noise);
        for (int i = 0; i < VOCABULARY; i++) model[i] = reference[i] + noise[i];
        softmax_log(reference, p);
        softmax_log(model, q);
        for (int i = 0; i < VOCABULARY; i++) {
            kl += exp(p[i]) * (p[i] - q[i]);
            if (p[i] > p[top_p]) top_p = i;
            if (q[i] > q[top_q]) top_q = i;
        }
        sum += kl;
        squares += kl * kl;
        model_sum -= q[token];
        reference_sum -= p[token];
        change_sum += exp(q[token]) - exp(p[token]);
        same += top_p == top_q;
        smallest = kl < smallest ? kl : smallest;
        largest = kl > largest ? kl : largest;
        pi2_log_probabilities(reference, VOCABULARY, pi2_divergence_reference(divergence));
        assert_int_equal(pi2_divergence_add(divergence, model, token), PI2_OK);
    }
    assert_int_equal(pi2_divergence_summarize(divergence, &summary), PI2_OK);
    const double mean = sum / TOKENS;
    assert_int_equal(summary.tokens, TOKENS);
    assert_near(summary.divergence.value, mean, 1e-6);
    assert_near(summary.divergence.error, sqrt((squares / TOKENS - mean * mean) / (TOKENS - 1)), 1e-6);
    assert_true(same > 0 && same < TOKENS); /* or the share could not be wrong */
    assert_near(summary.same_top.value, (double)same / TOKENS, 1e-12);
    assert_near(summary.perplexity.value, exp(model_sum / TOKENS), 1e-3);
    assert_near(summary.reference_perplexity.value, exp(reference_sum / TOKENS), 1e-3);
    assert_near(summary.perplexity_ratio.value, exp((model_sum - reference_sum) / TOKENS), 1e-5);
    assert_true(summary.perplexity_ratio.error < summary.perplexity.error / summary.perplexity.value);
    assert_true(summary.correlation > 0.5 && summary.correlation < 1);
    assert_near(summary.change.value, change_sum / TOKENS, 1e-6);
    assert_near(summary.divergences[0], smallest, 1e-5);
    assert_near(summary.divergences[PI2_PERCENTILES - 1], largest, 1e-5);
    for (size_t i = 1; i < PI2_PERCENTILES; i++) {
        assert_true(pi2_percentile(i) > pi2_percentile(i - 1));
        assert_true(summary.divergences[i] >= summary.divergences[i - 1]);
        assert_true(summary.changes[i] >= summary.changes[i - 1]);
    }
    float logits[VOCABULARY] = { 0 };
    assert_int_equal(pi2_divergence_add(divergence, logits, 0), PI2_ERR_INVALID); /* there is no more room */
    pi2_divergence_free(divergence);
}

static void test_equal_logits_have_no_divergence(void **state) {
    (void)state;
    pi2_divergence *divergence = NULL;
    pi2_divergence_summary summary;
    assert_int_equal(pi2_divergence_create(VOCABULARY, TOKENS, &divergence), PI2_OK);
    for (int t = 0; t < TOKENS; t++) {
        float logits[VOCABULARY];
        make_logits((uint32_t)t, 20, logits);
        pi2_log_probabilities(logits, VOCABULARY, pi2_divergence_reference(divergence));
        assert_int_equal(pi2_divergence_add(divergence, logits, t % VOCABULARY), PI2_OK);
    }
    assert_int_equal(pi2_divergence_summarize(divergence, &summary), PI2_OK);
    assert_true(summary.divergence.value == 0 && summary.divergence.error == 0);
    assert_true(summary.same_top.value == 1 && summary.perplexity_ratio.value == 1);
    assert_true(summary.perplexity_ratio.error < 1e-7 && summary.change_rms.value == 0);
    assert_true(summary.divergences[0] == 0 && summary.divergences[PI2_PERCENTILES - 1] == 0);
    pi2_divergence_free(divergence);
}

static void test_what_is_no_number_is_refused(void **state) {
    (void)state;
    pi2_divergence *divergence = NULL;
    pi2_divergence_summary summary;
    float logits[VOCABULARY];
    assert_int_equal(pi2_divergence_create(VOCABULARY, TOKENS, &divergence), PI2_OK);
    make_logits(1, 6, logits);
    pi2_log_probabilities(logits, VOCABULARY, pi2_divergence_reference(divergence));
    logits[7] = -INFINITY; /* what the reference expects is excluded */
    assert_int_equal(pi2_divergence_add(divergence, logits, 0), PI2_ERR_FORMAT);
    logits[7] = NAN;
    assert_int_equal(pi2_divergence_add(divergence, logits, 0), PI2_ERR_FORMAT);
    assert_int_equal(pi2_divergence_summarize(divergence, &summary), PI2_ERR_INVALID); /* neither was added */
    pi2_divergence_free(divergence);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_surprise_is_the_negative_logarithm),
        cmocka_unit_test(test_figures_follow_the_definition),
        cmocka_unit_test(test_equal_logits_have_no_divergence),
        cmocka_unit_test(test_what_is_no_number_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
