/* Goal:   the sampler keeps llama.cpp's meaning of every parameter, is deterministic, and does
 *         not fail on logits that are no numbers.
 * Method: small vocabularies with probabilities worked out by hand; a plain re-implementation
 *         with a full sort as the reference of what is kept; fixed seeds for the frequencies. */
#include "engine/sampler.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CONTEXT = 256 };

static pi2_sampling defaults(void) {
    pi2_sampling params;
    memset(&params, 0xff, sizeof params);
    pi2_sampling_init(&params);
    return params;
}

/* Everything off, temperature 1: a plain draw from the softmax. */
static pi2_sampling plain(uint32_t seed) {
    pi2_sampling params = defaults();
    params.temperature = 1.0f;
    params.top_k = 0;
    params.top_p = 1.0f;
    params.min_p = 0.0f;
    params.seed = seed;
    return params;
}

/* Of all samplers here: they take turns. */
enum { CANDIDATES = 1024 };
static uint64_t candidates[CANDIDATES];

static pi2_sampler *create(const pi2_sampling *params, uint32_t vocabulary_size) {
    pi2_sampler *sampler = NULL;
    assert_true(pi2_sampler_candidate_bytes(vocabulary_size) <= sizeof candidates);
    assert_int_equal(pi2_sampler_create(params, vocabulary_size, CONTEXT, candidates, &sampler), PI2_OK);
    assert_non_null(sampler);
    return sampler;
}

static int32_t sample(pi2_sampler *sampler, const float *logits, size_t count) {
    float copy[512];
    assert_true(count <= 512);
    memcpy(copy, logits, count * sizeof copy[0]);
    int32_t token = -1;
    assert_int_equal(pi2_sampler_sample(sampler, copy, &token), PI2_OK);
    assert_in_range(token, 0, count - 1);
    return token;
}

static void frequencies(const pi2_sampling *params, const float *logits, size_t count,
                        unsigned draws, unsigned *hits) {
    pi2_sampler *sampler = create(params, (uint32_t)count);
    memset(hits, 0, count * sizeof hits[0]);
    for (unsigned i = 0; i < draws; i++) hits[sample(sampler, logits, count)]++;
    pi2_sampler_free(sampler);
}

/* |observed - expected| within five standard deviations of a binomial. */
static void assert_frequency(unsigned hits, double probability, unsigned draws) {
    const double expected = probability * draws;
    const double deviation = sqrt(draws * probability * (1.0 - probability));
    assert_true(fabs((double)hits - expected) <= 5.0 * deviation + 1.0);
}

static void test_defaults(void **state) {
    (void)state;
    const pi2_sampling params = defaults();
    assert_true(params.temperature == 0.8f && params.top_k == 40 && params.top_p == 0.95f);
    assert_true(params.min_p == 0.05f && params.repeat_penalty == 1.0f);
    assert_true(params.repeat_last_n == 64 && params.presence_penalty == 0.0f);
    assert_true(params.frequency_penalty == 0.0f && params.seed == UINT32_MAX);
    assert_int_equal(pi2_sampling_check(&params), PI2_OK);
}

static void test_invalid_params_are_named(void **state) {
    (void)state;
    const struct {
        const char *name;
        size_t offset;
        float value;
    } cases[] = {
        {"temperature", offsetof(pi2_sampling, temperature), NAN},
        {"temperature", offsetof(pi2_sampling, temperature), INFINITY},
        {"top_p", offsetof(pi2_sampling, top_p), -0.1f},
        {"top_p", offsetof(pi2_sampling, top_p), 1.5f},
        {"top_p", offsetof(pi2_sampling, top_p), NAN},
        {"min_p", offsetof(pi2_sampling, min_p), -1.0f},
        {"min_p", offsetof(pi2_sampling, min_p), NAN},
        {"repeat_penalty", offsetof(pi2_sampling, repeat_penalty), 0.0f},
        {"repeat_penalty", offsetof(pi2_sampling, repeat_penalty), -2.0f},
        {"repeat_penalty", offsetof(pi2_sampling, repeat_penalty), NAN},
        {"presence_penalty", offsetof(pi2_sampling, presence_penalty), NAN},
        {"frequency_penalty", offsetof(pi2_sampling, frequency_penalty), INFINITY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pi2_sampling params = plain(1);
        memcpy((char *)&params + cases[i].offset, &cases[i].value, sizeof(float));
        pi2_sampler *sampler = (pi2_sampler *)&params;
        assert_int_equal(pi2_sampler_create(&params, 8, CONTEXT, candidates, &sampler), PI2_ERR_INVALID);
        assert_null(sampler);
        assert_non_null(strstr(pi2_error_text(), cases[i].name));
        assert_int_equal(pi2_sampler_bytes(&params, CONTEXT), 0);
    }
    pi2_sampling params = plain(1);
    params.repeat_last_n = -2;
    assert_int_equal(pi2_sampling_check(&params), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "repeat_last_n"));
    params = plain(1);
    pi2_sampler *sampler = NULL;
    assert_int_equal(pi2_sampler_create(&params, 0, CONTEXT, candidates, &sampler), PI2_ERR_INVALID);
}

static void test_greedy_takes_the_lowest_of_equals(void **state) {
    (void)state;
    const float temperatures[] = {0.0f, -1.0f};
    for (size_t i = 0; i < 2; i++) {
        pi2_sampling params = plain(7);
        params.temperature = temperatures[i];
        pi2_sampler *sampler = create(&params, 5);
        assert_int_equal(sample(sampler, (float[]){1, 3, 2, 3, 3}, 5), 1);
        assert_int_equal(sample(sampler, (float[]){-5, -5, -5, -5, -5}, 5), 0);
        assert_int_equal(sample(sampler, (float[]){NAN, -9, NAN, -8, -INFINITY}, 5), 3);
        assert_int_equal(sample(sampler, (float[]){0, INFINITY, 1, INFINITY, NAN}, 5), 1);
        pi2_sampler_free(sampler);
    }
}

static void test_top_k_one_keeps_the_lowest_of_equals(void **state) {
    (void)state;
    pi2_sampling params = plain(7);
    params.top_k = 1;
    pi2_sampler *sampler = create(&params, 5);
    for (int i = 0; i < 50; i++)
        assert_int_equal(sample(sampler, (float[]){1, 3, 2, 3, 3}, 5), 1);
    pi2_sampler_free(sampler);
}

static void test_plain_draw_follows_the_softmax(void **state) {
    (void)state;
    const double probabilities[5] = {0.5, 0.25, 0.125, 0.1, 0.025};
    float logits[5];
    for (int i = 0; i < 5; i++) logits[i] = (float)log(probabilities[i]) + 3.0f;
    unsigned hits[5];
    const pi2_sampling params = plain(12345);
    frequencies(&params, logits, 5, 20000, hits);
    for (int i = 0; i < 5; i++) assert_frequency(hits[i], probabilities[i], 20000);
}

static void test_temperature_sharpens_and_flattens(void **state) {
    (void)state;
    const float logits[3] = {0.0f, 1.0f, 2.0f};
    const float temperatures[] = {0.5f, 2.0f};
    for (int t = 0; t < 2; t++) {
        pi2_sampling params = plain(99);
        params.temperature = temperatures[t];
        double weights[3], total = 0.0;
        for (int i = 0; i < 3; i++) total += weights[i] = exp((double)logits[i] / temperatures[t]);
        unsigned hits[3];
        frequencies(&params, logits, 3, 20000, hits);
        for (int i = 0; i < 3; i++) assert_frequency(hits[i], weights[i] / total, 20000);
    }
}

static void test_top_k_keeps_k_and_renormalises(void **state) {
    (void)state;
    const float logits[6] = {0.0f, 2.0f, 1.0f, 2.0f, -1.0f, 1.0f};
    pi2_sampling params = plain(4);
    params.top_k = 3; /* 1 and 3, then the lower id of the two at 1.0 */
    unsigned hits[6];
    frequencies(&params, logits, 6, 20000, hits);
    const double total = 2.0 * exp(2.0) + exp(1.0);
    assert_frequency(hits[1], exp(2.0) / total, 20000);
    assert_frequency(hits[3], exp(2.0) / total, 20000);
    assert_frequency(hits[2], exp(1.0) / total, 20000);
    assert_int_equal(hits[0] + hits[4] + hits[5], 0);
    params.top_k = 100; /* more than there are: all */
    frequencies(&params, logits, 6, 5000, hits);
    for (int i = 0; i < 6; i++) assert_true(hits[i] > 0);
}

static void test_top_p_keeps_the_fewest_that_reach_it(void **state) {
    (void)state;
    float logits[4];
    const double probabilities[4] = {0.1, 0.5, 0.15, 0.25};
    for (int i = 0; i < 4; i++) logits[i] = (float)log(probabilities[i]);
    pi2_sampling params = plain(8);
    unsigned hits[4];
    params.top_p = 0.6f; /* 0.5 is not enough, 0.75 is */
    frequencies(&params, logits, 4, 10000, hits);
    assert_int_equal(hits[0] + hits[2], 0);
    assert_frequency(hits[1], 0.5 / 0.75, 10000);
    params.top_p = 0.4f;
    frequencies(&params, logits, 4, 500, hits);
    assert_int_equal(hits[1], 500);
    params.top_p = 0.0f; /* at least one is always kept */
    frequencies(&params, logits, 4, 500, hits);
    assert_int_equal(hits[1], 500);
    params.top_p = 0.8f; /* counted after top_k: 0.5 / 0.75 is not enough, both are */
    params.top_k = 2;
    frequencies(&params, logits, 4, 10000, hits);
    assert_frequency(hits[3], 0.25 / 0.75, 10000);
    params.top_p = 0.6f; /* 0.5 / 0.75 = 0.667 is */
    frequencies(&params, logits, 4, 500, hits);
    assert_int_equal(hits[1], 500);
}

static void test_min_p_is_relative_to_the_best(void **state) {
    (void)state;
    float logits[4];
    const double probabilities[4] = {0.1, 0.5, 0.15, 0.25};
    for (int i = 0; i < 4; i++) logits[i] = (float)log(probabilities[i]);
    pi2_sampling params = plain(8);
    unsigned hits[4];
    params.min_p = 0.28f; /* at least 0.14 */
    frequencies(&params, logits, 4, 10000, hits);
    assert_int_equal(hits[0], 0);
    assert_frequency(hits[2], 0.15 / 0.9, 10000);
    params.min_p = 1.0f;
    frequencies(&params, logits, 4, 500, hits);
    assert_int_equal(hits[1], 500);
    /* The temperature comes after: it changes the odds, not what is kept. */
    params.min_p = 0.28f;
    params.temperature = 100.0f;
    frequencies(&params, logits, 4, 10000, hits);
    assert_int_equal(hits[0], 0);
    assert_frequency(hits[2], 1.0 / 3.0, 10000);
}

/* Which of two tokens greedy takes shows the penalised logit of token 0: it wins while that is
 * at least `threshold`, token 1's logit. The logits must come back unchanged. */
static bool first_wins(pi2_sampler *sampler, float first, float threshold) {
    float logits[2] = {first, threshold};
    int32_t token = -1;
    assert_int_equal(pi2_sampler_sample(sampler, logits, &token), PI2_OK);
    assert_true(logits[0] == first && logits[1] == threshold);
    return token == 0;
}

static void assert_penalised(pi2_sampler *sampler, float first, float want) {
    assert_true(first_wins(sampler, first, want));
    assert_false(first_wins(sampler, first, nextafterf(want, INFINITY)));
}

static pi2_sampling greedy(void) {
    pi2_sampling params = plain(1);
    params.temperature = 0.0f; /* penalties still apply */
    return params;
}

static void test_repeat_penalty(void **state) {
    (void)state;
    pi2_sampling params = greedy();
    params.repeat_penalty = 2.0f;
    params.repeat_last_n = 3;
    pi2_sampler *sampler = create(&params, 2);
    assert_penalised(sampler, 4.0f, 4.0f);
    pi2_sampler_accept(sampler, 0);
    pi2_sampler_accept(sampler, -1); /* no tokens: ignored */
    pi2_sampler_accept(sampler, 2);
    assert_penalised(sampler, 4.0f, 2.0f);
    assert_penalised(sampler, -1.0f, -2.0f);
    pi2_sampler_accept(sampler, 0);
    assert_penalised(sampler, 4.0f, 2.0f); /* once, however often */
    pi2_sampler_reset(sampler);
    assert_penalised(sampler, 4.0f, 4.0f);
    pi2_sampler_free(sampler);
}

static void test_window_forgets_the_oldest(void **state) {
    (void)state;
    pi2_sampling params = greedy();
    params.presence_penalty = 1.0f;
    params.repeat_last_n = 3;
    pi2_sampler *sampler = create(&params, 6);
    float logits[6] = {9, 8.5f, 0, 0, 0, 0};
    int32_t token;
    const int32_t want[] = {1, 1, 1, 0};
    pi2_sampler_accept(sampler, 0);
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(pi2_sampler_sample(sampler, logits, &token), PI2_OK);
        assert_int_equal(token, want[i]);
        pi2_sampler_accept(sampler, 2 + i);
    }
    pi2_sampler_free(sampler);
}

static void test_presence_and_frequency(void **state) {
    (void)state;
    pi2_sampling params = greedy();
    params.presence_penalty = 0.5f;
    params.frequency_penalty = 0.25f;
    params.repeat_last_n = -1;
    pi2_sampler *sampler = create(&params, 2);
    for (int i = 1; i <= 4; i++) {
        pi2_sampler_accept(sampler, 0);
        assert_penalised(sampler, 1.0f, 0.5f - 0.25f * (float)i);
    }
    pi2_sampler_free(sampler);
}

/* The incremental counts of the window against a count from nothing, over many tokens. */
static void test_window_counts_against_recount(void **state) {
    (void)state;
    enum { WINDOW = 17, VOCABULARY = 12, TOKENS = 400 };
    pi2_sampling params = greedy();
    params.frequency_penalty = 1.0f;
    params.repeat_last_n = WINDOW;
    pi2_sampler *sampler = create(&params, VOCABULARY);
    int32_t history[TOKENS];
    uint32_t random = 1;
    for (int i = 0; i < TOKENS; i++) {
        random = random * 1664525u + 1013904223u;
        history[i] = (int32_t)((random >> 16) % VOCABULARY);
        pi2_sampler_accept(sampler, history[i]);
        const float logits[VOCABULARY] = {0};
        int counts[VOCABULARY] = {0}, want = 0;
        for (int j = i; j >= 0 && j > i - WINDOW; j--) counts[history[j]]++;
        for (int t = 1; t < VOCABULARY; t++) want = counts[t] < counts[want] ? t : want;
        assert_int_equal(sample(sampler, logits, VOCABULARY), want);
        for (int t = 0; t < VOCABULARY; t++) {
            float raised[VOCABULARY];
            for (int other = 0; other < VOCABULARY; other++) raised[other] = -1000.0f;
            raised[t] = (float)counts[t];
            raised[(t + 1) % VOCABULARY] = (float)counts[(t + 1) % VOCABULARY] - 0.5f;
            assert_int_equal(sample(sampler, raised, VOCABULARY), t);
        }
    }
    pi2_sampler_free(sampler);
}

static void test_window_off(void **state) {
    (void)state;
    pi2_sampling params = greedy();
    params.repeat_penalty = 3.0f;
    params.repeat_last_n = 0;
    pi2_sampler *sampler = create(&params, 2);
    pi2_sampler_accept(sampler, 0);
    assert_penalised(sampler, 5.0f, 5.0f);
    pi2_sampler_free(sampler);
}

static void test_same_seed_same_tokens(void **state) {
    (void)state;
    float logits[300];
    for (int i = 0; i < 300; i++) logits[i] = (float)((i * 7919) % 300) / 60.0f;
    pi2_sampling params = defaults();
    params.temperature = 1.5f;
    params.seed = 42;
    pi2_sampler *one = create(&params, 300), *two = create(&params, 300);
    params.seed = 43;
    pi2_sampler *other = create(&params, 300);
    int32_t first[64];
    int different = 0;
    for (int i = 0; i < 64; i++) {
        first[i] = sample(one, logits, 300);
        assert_int_equal(sample(two, logits, 300), first[i]);
        different += sample(other, logits, 300) != first[i];
    }
    assert_true(different > 10);
    pi2_sampler_reset(one); /* the numbers start again */
    for (int i = 0; i < 64; i++) assert_int_equal(sample(one, logits, 300), first[i]);
    assert_int_equal(pi2_sampler_seed(one), 42);
    pi2_sampler_free(one);
    pi2_sampler_free(two);
    pi2_sampler_free(other);
}

static void test_random_seed_is_reported_and_replays(void **state) {
    (void)state;
    pi2_sampling params = plain(PI2_SAMPLER_RANDOM_SEED);
    float logits[64] = {0};
    pi2_sampler *sampler = create(&params, 64), *second = create(&params, 64);
    const uint32_t seed = pi2_sampler_seed(sampler);
    assert_true(seed != PI2_SAMPLER_RANDOM_SEED);
    params.seed = seed;
    pi2_sampler *replay = create(&params, 64);
    for (int i = 0; i < 32; i++)
        assert_int_equal(sample(sampler, logits, 64), sample(replay, logits, 64));
    pi2_sampler_free(sampler);
    pi2_sampler_free(second);
    pi2_sampler_free(replay);
}

static void test_logits_that_are_no_numbers(void **state) {
    (void)state;
    const float temperatures[] = {0.0f, 1.0f, 1e-38f, 1e38f};
    for (size_t t = 0; t < 4; t++) {
        for (int32_t top_k = 0; top_k < 4; top_k++) {
            pi2_sampling params = defaults();
            params.temperature = temperatures[t];
            params.top_k = top_k;
            params.seed = 3;
            pi2_sampler *sampler = create(&params, 4);
            int32_t token = 0;
            float dead[4] = {-INFINITY, NAN, -INFINITY, NAN};
            assert_int_equal(pi2_sampler_sample(sampler, dead, &token), PI2_ERR_FORMAT);
            assert_non_null(strstr(pi2_error_text(), "logits"));
            for (int i = 0; i < 20; i++) {
                assert_int_equal(sample(sampler, (float[]){NAN, -INFINITY, -1e30f, NAN}, 4), 2);
                assert_int_equal(sample(sampler, (float[]){NAN, INFINITY, 1.0f, -INFINITY}, 4), 1);
                assert_int_equal(sample(sampler, (float[]){-FLT_MAX, 0, FLT_MAX, NAN}, 4), 2);
            }
            pi2_sampler_free(sampler);
        }
    }
}

static void test_vocabulary_of_one(void **state) {
    (void)state;
    pi2_sampling params = defaults();
    params.seed = 0;
    pi2_sampler *sampler = create(&params, 1);
    assert_int_equal(sample(sampler, (float[]){-3.0f}, 1), 0);
    pi2_sampler_free(sampler);
}

typedef struct ranked {
    float logit;
    int token;
} ranked;

static int by_rank(const void *left, const void *right) {
    const ranked *a = left, *b = right;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->token < b->token ? -1 : 1;
}

/* What the filters keep, against a full sort: every token drawn must be one of those kept, and
 * with a temperature so high that all are equally likely, every one kept is drawn. */
static void test_kept_set_against_full_sort(void **state) {
    (void)state;
    enum { VOCABULARY = 200 };
    uint32_t random = 9;
    for (int round = 0; round < 24; round++) {
        float logits[VOCABULARY];
        ranked order[VOCABULARY];
        for (int i = 0; i < VOCABULARY; i++) {
            random = random * 1664525u + 1013904223u;
            logits[i] = (float)((random >> 20) % 64) / 8.0f; /* many equal logits */
            order[i] = (ranked){logits[i], i};
        }
        qsort(order, VOCABULARY, sizeof order[0], by_rank);
        pi2_sampling params = plain((uint32_t)round);
        params.temperature = 1e6f;
        params.top_k = (int32_t[]){0, 5, 12, 199}[round % 4];
        params.top_p = (float[]){1.0f, 0.3f, 0.7f}[round % 3];
        params.min_p = (float[]){0.0f, 0.2f}[round % 2];
        int kept = params.top_k > 0 ? params.top_k : VOCABULARY;
        double total = 0.0, sum = 0.0;
        for (int i = 0; i < kept; i++) total += exp((double)(order[i].logit - order[0].logit));
        for (int i = 0; params.top_p < 1.0f && i < kept; i++) {
            sum += exp((double)(order[i].logit - order[0].logit));
            if (sum >= (double)params.top_p * total) kept = i + 1;
        }
        while (exp((double)(order[kept - 1].logit - order[0].logit)) < (double)params.min_p) kept--;
        bool allowed[VOCABULARY] = {false};
        for (int i = 0; i < kept; i++) allowed[order[i].token] = true;
        unsigned hits[VOCABULARY];
        frequencies(&params, logits, VOCABULARY, (unsigned)kept * 20u + 50u, hits);
        for (int i = 0; i < VOCABULARY; i++) assert_true((hits[i] > 0) == allowed[i]);
    }
}

static void test_bytes_counts_what_is_used(void **state) {
    (void)state;
    pi2_sampling params = defaults();
    const size_t small = pi2_sampler_bytes(&params, 4096);
    assert_true(small > 0 && small < 4096); /* no window */
    params.top_k = 0;
    assert_int_equal(pi2_sampler_bytes(&params, 4096), small); /* candidates are the caller's */
    params.repeat_penalty = 1.1f;
    assert_int_equal(pi2_sampler_bytes(&params, 4096) - small, 64 * 16);
    params.repeat_last_n = -1;
    assert_int_equal(pi2_sampler_bytes(&params, 4096) - small, 4096 * 16);
    assert_int_equal(pi2_sampler_candidate_bytes(50000), 50000 * 8);
}

/* PCG32 from its definition, bit by bit where the sampler shifts: XSH RR 64/32 over one fixed stream. */
static uint32_t pcg_next(uint64_t *generator) {
    const uint64_t increment = UINT64_C(1442695040888963407), old = *generator;
    *generator = old * UINT64_C(6364136223846793005) + increment;
    uint32_t word = (uint32_t)((old ^ old >> 18) >> 27);
    for (uint32_t turns = (uint32_t)(old >> 59); turns > 0; turns--) word = word >> 1 | (word & 1u) << 31;
    return word;
}

/* What a token of weight 1 waits for, computed another way. */
static double wait_of(uint64_t number, uint64_t token) {
    uint64_t mixed = number + token * UINT64_C(0x9E3779B97F4A7C15);
    mixed ^= mixed >> 30;
    mixed *= UINT64_C(0xBF58476D1CE4E5B9);
    mixed ^= mixed >> 27;
    mixed *= UINT64_C(0x94D049BB133111EB);
    mixed ^= mixed >> 31;
    return -log(((double)(mixed >> 12) + 0.5) / 4503599627370496.0);
}

/* A seed means the same text in every version: its draws are the generator's, in order, and known before. */
static void test_draws_are_the_generators(void **state) {
    (void)state;
    enum { TOKENS_IN_ALL = 1000, DRAWS = 200 };
    static float logits[TOKENS_IN_ALL];
    for (int i = 0; i < TOKENS_IN_ALL; i++) logits[i] = (float)(i % 7) / 3;
    pi2_sampling params;
    pi2_sampling_init(&params);
    params.temperature = 1.0f;
    params.top_k = 0;
    params.top_p = 1.0f;
    params.min_p = 0.0f;
    params.repeat_penalty = 1.0f;
    params.seed = 42;
    pi2_sampler *sampler = NULL;
    assert_int_equal(pi2_sampler_create(&params, TOKENS_IN_ALL, 64, candidates, &sampler), PI2_OK);
    uint64_t generator = 0;
    (void)pcg_next(&generator);
    generator += 42;
    (void)pcg_next(&generator);
    pi2_draws foretold = { .count = 0 };
    for (uint32_t i = 0; i < DRAWS; i++) {
        const uint64_t high = pcg_next(&generator), number = high << 32 | pcg_next(&generator);
        if (i % PI2_DRAWS_MOST == 0) pi2_sampler_foretell(sampler, &foretold);
        assert_int_equal(foretold.count, PI2_DRAWS_MOST);
        assert_true(foretold.numbers[i % PI2_DRAWS_MOST] == number);
        int32_t token = -1, first = 0;
        double least = INFINITY;
        for (int32_t t = 0; t < TOKENS_IN_ALL; t++) {
            const double wait = wait_of(number, (uint64_t)t) / exp((double)logits[t]);
            if (wait >= least) continue;
            least = wait;
            first = t;
        }
        assert_int_equal(pi2_sampler_sample(sampler, logits, &token), PI2_OK);
        assert_int_equal(token, first);
    }
    pi2_sampler_free(sampler);
}

/* Another choice takes a number of its own; where nothing is drawn, or who knows at what temperature, none is told. */
static void test_draws_are_foretold(void **state) {
    (void)state;
    float logits[8] = { 1, 2, 1, 2, 1, 2, 1, 2 };
    pi2_draws draws;
    pi2_sampling params = plain(5);
    params.xtc_probability = 0.5f;
    params.min_p = 0.25f;
    pi2_sampler *sampler = create(&params, 8);
    pi2_sampler_foretell(sampler, &draws);
    assert_true(draws.count == PI2_DRAWS_MOST && draws.temperature == 1.0f && draws.least_share == 0.25f);
    for (uint32_t i = 0; i < 3; i++) (void)sample(sampler, logits, 8);
    pi2_draws later;
    pi2_sampler_foretell(sampler, &later);
    for (uint32_t i = 0; i + 3 < PI2_DRAWS_MOST; i++) assert_true(later.numbers[i] == draws.numbers[i + 3]);
    pi2_sampler_free(sampler);
    const struct { float temperature, range; int32_t top_k; } undrawn[] = { {0, 0, 0}, {1, 0.5f, 0}, {1, 0, 1} };
    for (size_t i = 0; i < sizeof undrawn / sizeof undrawn[0]; i++) {
        params = plain(5);
        params.temperature = undrawn[i].temperature;
        params.dynamic_range = undrawn[i].range;
        params.top_k = undrawn[i].top_k;
        sampler = create(&params, 8);
        pi2_sampler_foretell(sampler, &draws);
        assert_int_equal(draws.count, 0);
        pi2_sampler_free(sampler);
    }
}

/* Tokens 1 and 3, of which a filter's user is told how often it was asked. */
static bool allows_odd(void *user, int32_t token) {
    ++*(unsigned *)user;
    return token % 2 == 1;
}

/* What is left of a distribution when some of it is forbidden; few questions; none allowed. */
static void test_filter(void **state) {
    (void)state;
    enum { DRAWS = 20000 };
    float logits[4] = {logf(0.4f), logf(0.3f), logf(0.2f), logf(0.1f)};
    unsigned asked = 0, hits[4] = {0};
    const pi2_token_filter filter = {allows_odd, &asked};
    pi2_sampling params = plain(11);
    pi2_sampler *sampler = create(&params, 4);
    for (unsigned i = 0; i < DRAWS; i++) {
        int32_t token = -1;
        assert_int_equal(pi2_sampler_sample_allowed(sampler, logits, &filter, &token), PI2_OK);
        hits[token]++;
    }
    assert_int_equal(hits[0] + hits[2], 0);
    assert_frequency(hits[1], 0.75, DRAWS);
    pi2_sampler_free(sampler);

    static float many[1024];
    for (unsigned i = 0; i < 1024; i++) many[i] = -(float)i;
    params.top_k = 2; /* of those allowed: tokens 1 and 3 */
    sampler = create(&params, 1024);
    for (unsigned i = 0; i < 200; i++) {
        int32_t token = -1;
        asked = 0;
        assert_int_equal(pi2_sampler_sample_allowed(sampler, many, &filter, &token), PI2_OK);
        assert_true(token == 1 || token == 3);
        assert_in_range(asked, 1, 16);
    }
    pi2_sampler_free(sampler);
    params.temperature = 0;
    sampler = create(&params, 1024);
    int32_t token = -1;
    assert_int_equal(pi2_sampler_sample_allowed(sampler, many, &filter, &token), PI2_OK);
    assert_int_equal(token, 1);
    for (unsigned i = 1; i < 1024; i += 2) many[i] = -INFINITY;
    assert_int_equal(pi2_sampler_sample_allowed(sampler, many, &filter, &token), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "grammar"));
    pi2_sampler_free(sampler);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws_are_the_generators),
        cmocka_unit_test(test_draws_are_foretold),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_filter),
        cmocka_unit_test(test_invalid_params_are_named),
        cmocka_unit_test(test_greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(test_top_k_one_keeps_the_lowest_of_equals),
        cmocka_unit_test(test_plain_draw_follows_the_softmax),
        cmocka_unit_test(test_temperature_sharpens_and_flattens),
        cmocka_unit_test(test_top_k_keeps_k_and_renormalises),
        cmocka_unit_test(test_top_p_keeps_the_fewest_that_reach_it),
        cmocka_unit_test(test_min_p_is_relative_to_the_best),
        cmocka_unit_test(test_repeat_penalty),
        cmocka_unit_test(test_window_forgets_the_oldest),
        cmocka_unit_test(test_presence_and_frequency),
        cmocka_unit_test(test_window_counts_against_recount),
        cmocka_unit_test(test_window_off),
        cmocka_unit_test(test_same_seed_same_tokens),
        cmocka_unit_test(test_random_seed_is_reported_and_replays),
        cmocka_unit_test(test_logits_that_are_no_numbers),
        cmocka_unit_test(test_vocabulary_of_one),
        cmocka_unit_test(test_kept_set_against_full_sort),
        cmocka_unit_test(test_bytes_counts_what_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
