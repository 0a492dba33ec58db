/* Goal:   what leaves tokens out (top-n-sigma, typical, XTC), the dynamic temperature and logit biases mean what they
 *         mean in llama.cpp, and leave the logits as they were.
 * Method: distributions of a few tokens worked out by hand or in doubles; many random ones against plain
 *         re-implementations with a full sort. */
#include "engine/sampler.h"
#include "engine/sampler_filters.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CONTEXT = 64, MOST = 200 };

static uint64_t candidates[MOST];

static pi2_sampling plain(void) {
    pi2_sampling params;
    pi2_sampling_init(&params);
    params.temperature = 1.0f;
    params.top_k = 0;
    params.top_p = 1.0f;
    params.min_p = 0.0f;
    params.seed = 3;
    return params;
}

/* How often each token is drawn; the logits stay. */
static void frequencies(const pi2_sampling *params, const float *logits, uint32_t count, unsigned draws,
                        unsigned *hits) {
    pi2_sampler *sampler = NULL;
    assert_int_equal(pi2_sampler_create(params, count, CONTEXT, candidates, &sampler), PI2_OK);
    memset(hits, 0, count * sizeof *hits);
    float copy[MOST];
    for (unsigned i = 0; i < draws; i++) {
        memcpy(copy, logits, count * sizeof *copy);
        int32_t token = -1;
        assert_int_equal(pi2_sampler_sample(sampler, copy, &token), PI2_OK);
        assert_memory_equal(copy, logits, count * sizeof *copy);
        assert_in_range(token, 0, count - 1);
        hits[token]++;
    }
    pi2_sampler_free(sampler);
}

/* |observed - expected| within five standard deviations of a binomial. */
static void assert_frequency(unsigned hits, double probability, unsigned draws) {
    const double deviation = sqrt(draws * probability * (1.0 - probability));
    assert_true(fabs((double)hits - probability * draws) <= 5.0 * deviation + 1.0);
}

static void logits_of(const double *chances, uint32_t count, float *logits) {
    for (uint32_t i = 0; i < count; i++) logits[i] = (float)log(chances[i]);
}

static void test_biases(void **state) {
    (void)state;
    const double chances[4] = {0.4, 0.3, 0.2, 0.1};
    float logits[4];
    logits_of(chances, 4, logits);
    const pi2_logit_bias biases[] = {{0, -INFINITY}, {3, 1.0f}, {3, (float)log(3.0) - 1.0f}, {7, 9.0f}, {-1, 9.0f}};
    pi2_sampling params = plain();
    params.logit_biases = biases;
    params.logit_bias_count = sizeof biases / sizeof biases[0];
    unsigned hits[4];
    frequencies(&params, logits, 4, 20000, hits); /* 0, 0.3, 0.2, 0.3 */
    assert_int_equal(hits[0], 0);
    assert_frequency(hits[1], 0.375, 20000);
    assert_frequency(hits[3], 0.375, 20000);
    params.temperature = 0.0f; /* greedy too, and before penalties */
    frequencies(&params, (float[]){5, 1, 2, 1.5f}, 4, 1, hits);
    assert_int_equal(hits[3], 1);
    params.logit_bias_count = 1;
    frequencies(&params, (float[]){5, -INFINITY, NAN, -9}, 4, 1, hits);
    assert_int_equal(hits[3], 1);
}

static void test_biases_are_copied_and_bounded(void **state) {
    (void)state;
    pi2_logit_bias *many = calloc(PI2_LOGIT_BIASES_MOST + 1, sizeof *many);
    assert_non_null(many);
    pi2_sampling params = plain();
    params.temperature = 0.0f;
    params.logit_biases = many;
    params.logit_bias_count = PI2_LOGIT_BIASES_MOST;
    many[PI2_LOGIT_BIASES_MOST - 1] = (pi2_logit_bias){1, 2.0f};
    pi2_sampler *sampler = NULL;
    assert_int_equal(pi2_sampler_create(&params, 2, CONTEXT, candidates, &sampler), PI2_OK);
    const size_t with_biases = pi2_sampler_bytes(&params, CONTEXT);
    params.logit_bias_count = 0;
    assert_int_equal(with_biases - pi2_sampler_bytes(&params, CONTEXT),
                     PI2_LOGIT_BIASES_MOST * (sizeof(pi2_logit_bias) + sizeof(float)));
    memset(many, 0, PI2_LOGIT_BIASES_MOST * sizeof *many);
    float logits[2] = {1, 0};
    int32_t token = -1;
    assert_int_equal(pi2_sampler_sample(sampler, logits, &token), PI2_OK);
    assert_int_equal(token, 1);
    assert_true(logits[0] == 1 && logits[1] == 0);
    assert_ptr_not_equal(pi2_sampler_params(sampler)->logit_biases, many); /* those of a fork, too, are a copy */
    pi2_sampler_free(sampler);
    params.logit_bias_count = PI2_LOGIT_BIASES_MOST + 1;
    assert_int_equal(pi2_sampling_check(&params), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "1024"));
    params.logit_bias_count = 1;
    const float wrong[] = {NAN, INFINITY};
    for (size_t i = 0; i < 2; i++) {
        many[0] = (pi2_logit_bias){17, wrong[i]};
        assert_int_equal(pi2_sampling_check(&params), PI2_ERR_INVALID);
        assert_non_null(strstr(pi2_error_text(), "token 17"));
    }
    params.logit_biases = NULL;
    assert_int_equal(pi2_sampling_check(&params), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "logit_biases is NULL"));
    free(many);
}

static void test_top_n_sigma(void **state) {
    (void)state;
    /* mean 2, deviation 2: within one of them of the best, 6, lies 4 and above. */
    const float logits[6] = {6, 1, 1, 1, 1, 2};
    const double mean = 2, deviation = sqrt((16 + 4 * 1 + 0) / 6.0);
    assert_true(fabs((double)pi2_filter_sigma_floor(logits, 6, 6, 1) - (6 - deviation)) < 1e-5);
    const double sigmas = (6 - mean) / deviation; /* just the two */
    pi2_sampling params = plain();
    params.top_n_sigma = (float)sigmas + 0.01f;
    unsigned hits[6];
    frequencies(&params, logits, 6, 20000, hits);
    assert_int_equal(hits[1] + hits[2] + hits[3] + hits[4], 0);
    assert_frequency(hits[5], 1 / (1 + exp(4)), 20000);
    params.top_n_sigma = 1e-9f; /* the best alone */
    frequencies(&params, logits, 6, 200, hits);
    assert_int_equal(hits[0], 200);
    params.top_n_sigma = -1.0f;
    params.temperature = 100.0f;
    frequencies(&params, logits, 6, 600, hits);
    assert_true(hits[1] && hits[5]);
    params.top_n_sigma = 1.0f; /* what is no number has no part in it */
    frequencies(&params, (float[]){6, NAN, -INFINITY, 1, 1, 1}, 6, 200, hits);
    assert_int_equal(hits[0], 200);
}

static void test_typical_leaves_out_what_is_too_likely(void **state) {
    (void)state;
    /* Entropy 1.2799 nats; surprises 0.6931, 1.6094, 1.6094, 2.3026: distances 0.587, 0.3295, 0.3295, 1.02. */
    const double chances[4] = {0.5, 0.2, 0.2, 0.1};
    float logits[4];
    logits_of(chances, 4, logits);
    logits[2] -= 0.0001f; /* not to hang on rounding */
    pi2_sampling params = plain();
    unsigned hits[4];
    params.typical_p = 0.3f; /* 0.2 is not more, 0.4 is */
    frequencies(&params, logits, 4, 10000, hits);
    assert_int_equal(hits[0] + hits[3], 0);
    assert_frequency(hits[1], 0.5, 10000);
    params.typical_p = 0.5f;
    frequencies(&params, logits, 4, 10000, hits);
    assert_int_equal(hits[3], 0);
    assert_frequency(hits[0], 0.5 / 0.9, 10000);
    params.temperature = 0.01f; /* the likeliest of those that stay */
    params.typical_p = 0.1f;
    frequencies(&params, logits, 4, 100, hits);
    assert_int_equal(hits[1], 100);
    params.typical_p = 0.0f; /* one always stays */
    frequencies(&params, logits, 4, 100, hits);
    assert_int_equal(hits[1], 100);
}

static void test_xtc_excludes_top_choices(void **state) {
    (void)state;
    const double chances[5] = {0.05, 0.4, 0.15, 0.3, 0.1};
    float logits[5];
    logits_of(chances, 5, logits);
    pi2_sampling params = plain();
    unsigned hits[5];
    params.xtc_probability = 1.0f;
    params.xtc_threshold = 0.12f; /* 0.4, 0.3 leave, 0.15 stays */
    frequencies(&params, logits, 5, 20000, hits);
    assert_int_equal(hits[1] + hits[3], 0);
    assert_frequency(hits[2], 0.5, 20000);
    assert_frequency(hits[4], 0.1 / 0.3, 20000);
    params.temperature = 0.01f; /* the best of the rest, however cold */
    frequencies(&params, logits, 5, 100, hits);
    assert_int_equal(hits[2], 100);
    params.temperature = 1.0f;
    params.xtc_probability = 0.25f;
    frequencies(&params, logits, 5, 20000, hits);
    assert_frequency(hits[1], 0.75 * 0.4, 20000);
    params.xtc_probability = 1.0f;
    params.xtc_threshold = 0.35f; /* one top choice alone stays */
    frequencies(&params, logits, 5, 20000, hits);
    assert_frequency(hits[1], 0.4, 20000);
    params.xtc_threshold = 0.12f; /* after top-k: two are left, both top choices */
    params.top_k = 2;
    frequencies(&params, logits, 5, 100, hits);
    assert_int_equal(hits[3], 100);
    params.top_k = 0; /* after min-p: 0.4, 0.3, 0.15 are left */
    params.min_p = 0.3f;
    frequencies(&params, logits, 5, 100, hits);
    assert_int_equal(hits[2], 100);
    params.min_p = 0.0f;
    params.xtc_threshold = 0.0f; /* all are top choices, but what is forbidden */
    logits[4] = -INFINITY;
    frequencies(&params, logits, 5, 100, hits);
    assert_int_equal(hits[0], 100);
}

/* One that is off draws no number: the same seed gives the same tokens as ever. */
static void test_off_changes_nothing(void **state) {
    (void)state;
    float logits[8];
    for (uint32_t i = 0; i < 8; i++) logits[i] = (float)(i % 3);
    pi2_sampling first = plain(), second = plain();
    second.xtc_probability = 1.0f;
    second.xtc_threshold = 0.51f;
    second.top_n_sigma = 0.0f;
    second.dynamic_exponent = 7.0f;
    unsigned hits[2][8];
    frequencies(&first, logits, 8, 64, hits[0]);
    frequencies(&second, logits, 8, 64, hits[1]);
    assert_memory_equal(hits[0], hits[1], sizeof hits[0]);
}

static void test_dynamic_temperature(void **state) {
    (void)state;
    const pi2_candidate even[4] = {{1, 0}, {1, 1}, {1, 2}, {1, 3}}, certain[3] = {{200, 0}, {0, 1}, {0, 2}};
    assert_true(fabsf(pi2_dynamic_temperature(even, 4, 0.5f, 1.5f, 3) - 1.5f) < 1e-5f);
    assert_true(fabsf(pi2_dynamic_temperature(certain, 3, 0.5f, 1.5f, 1) - 0.5f) < 1e-5f);
    assert_true(pi2_dynamic_temperature(even, 1, 0.5f, 1.5f, 1) == 1.5f);
    const double chances[3] = {0.7, 0.2, 0.1};
    float logits[3];
    logits_of(chances, 3, logits);
    double entropy = 0;
    for (int i = 0; i < 3; i++) entropy -= chances[i] * log(chances[i]);
    const double want = 0.2 + 1.6 * pow(entropy / log(3.0), 0.5);
    const pi2_candidate some[3] = {{logits[0], 0}, {logits[1], 1}, {logits[2], 2}};
    assert_true(fabs((double)pi2_dynamic_temperature(some, 3, 0.2f, 1.8f, 0.5f) - want) < 1e-4);
    pi2_sampling params = plain(); /* 1.0 +- 0.8 */
    params.dynamic_range = 0.8f;
    params.dynamic_exponent = 0.5f;
    unsigned hits[3];
    frequencies(&params, logits, 3, 20000, hits);
    double total = 0;
    for (int i = 0; i < 3; i++) total += pow(chances[i], 1 / want);
    assert_frequency(hits[0], pow(0.7, 1 / want) / total, 20000);
    params.dynamic_range = 5.0f; /* never below 0: the best alone where all is certain */
    frequencies(&params, (float[]){0, 200, 0}, 3, 100, hits);
    assert_int_equal(hits[1], 100);
}

typedef struct scored {
    double distance;
    pi2_candidate item;
} scored;

static int by_distance(const void *left, const void *right) {
    const scored *a = left, *b = right;
    return a->distance < b->distance ? -1 : a->distance > b->distance;
}

static bool has(const pi2_candidate *items, uint32_t count, int32_t token) {
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].token == token) return true;
    }
    return false;
}

/* Random lists, some with minus infinity, against a full sort; what stays is what llama.cpp's loops would keep. */
static void test_typical_against_full_sort(void **state) {
    (void)state;
    uint32_t random = 5;
    for (int round = 0; round < 200; round++) {
        pi2_candidate items[MOST];
        scored all[MOST];
        const uint32_t count = 1 + (uint32_t)round % MOST;
        double total = 0, entropy = 0;
        for (uint32_t i = 0; i < count; i++) {
            random = random * 1664525u + 1013904223u;
            const bool is_out = i > 0 && random % 13 == 0;
            items[i] = (pi2_candidate){is_out ? -INFINITY : (float)(random >> 16) / 8192.0f, (int32_t)i};
            total += exp((double)items[i].logit);
        }
        for (uint32_t i = 0; i < count; i++) {
            const double chance = exp((double)items[i].logit) / total;
            if (chance > 0) entropy -= chance * log(chance);
        }
        for (uint32_t i = 0; i < count; i++) {
            all[i] = (scored){fabs(log(total) - (double)items[i].logit - entropy), items[i]};
        }
        qsort(all, count, sizeof *all, by_distance);
        const float mass = (float)(1 + round % 9) / 10.0f;
        double sum = 0;
        uint32_t want = 0;
        while (want < count && !(sum > (double)mass)) sum += exp((double)all[want++].item.logit) / total;
        const uint32_t kept = pi2_filter_typical(items, count, mass);
        if (fabs(sum - (double)mass) < 1e-5) continue; /* rounding decides */
        assert_int_equal(kept, want);
        for (uint32_t i = 0; i < kept; i++) {
            const bool is_tie = i + 1 < count && fabs(all[kept - 1].distance - all[i].distance) < 1e-5;
            assert_true(has(items, kept, all[i].item.token) || is_tie);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_biases),
        cmocka_unit_test(test_biases_are_copied_and_bounded),
        cmocka_unit_test(test_top_n_sigma),
        cmocka_unit_test(test_typical_leaves_out_what_is_too_likely),
        cmocka_unit_test(test_xtc_excludes_top_choices),
        cmocka_unit_test(test_off_changes_nothing),
        cmocka_unit_test(test_dynamic_temperature),
        cmocka_unit_test(test_typical_against_full_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
