/* trial.c: scores of all samples, as a run would compute them; then what they name beside what is wanted. */
#include "predictor/trial.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cpu_features.h"
#include "base/fail.h"

typedef struct scorer {
    const pi2_predictor_trial *trial;
    pi2_predictor_query query;
    float *scores;               /* [count][neurons] */
    _Atomic uint32_t failed;
} scorer;

static void score_samples(void *argument, unsigned member, unsigned members) {
    scorer *of = argument;
    const pi2_predictor_trial *trial = of->trial;
    const pi2_predictor *predictor = trial->predictor;
    const uint32_t width = predictor->width, neurons = predictor->neuron_count;
    const uint32_t rows = predictor->kind->code_rows(trial->layer);
    int16_t *values = malloc(width * sizeof *values), *coded = malloc((rows + 1) * sizeof *coded);
    float *code = malloc((rows + 1) * sizeof *code);
    if (!values || !coded || !code) atomic_store(&of->failed, 1);
    for (uint32_t i = member; i < trial->count && !atomic_load(&of->failed); i += members) {
        pi2_predictor_vector from = pi2_predictor_quantize(trial->input(trial->user, i), width, values);
        if (rows) {
            predictor->kind->code(&of->query, &from, 0, rows, code);
            from = pi2_predictor_quantize(code, rows, coded);
        }
        predictor->kind->scores(&of->query, &from, 0, neurons, of->scores + (size_t)i * neurons);
    }
    free(values);
    free(coded);
    free(code);
}

static pi2_status score(const pi2_predictor_trial *trial, float **scores_out) {
    scorer of = { .trial = trial, .query = { .predictor = trial->predictor, .layer = trial->layer,
                                             .kernel = pi2_small_select(pi2_cpu_features()),
                                             .vector = pi2_vector_select(pi2_cpu_features()),
                                             .gate_bias = trial->gate_bias, .up_bias = trial->up_bias,
                                             .score = trial->score } };
    of.scores = malloc((size_t)trial->count * trial->predictor->neuron_count * sizeof *of.scores);
    if (of.scores) pi2_team_run(trial->team, score_samples, &of);
    if (of.scores && !atomic_load(&of.failed)) {
        *scores_out = of.scores;
        return PI2_OK;
    }
    free(of.scores);
    return pi2_fail(PI2_ERR_MEMORY, "no memory to measure a predictor");
}

static int compare_floats(const void *a, const void *b) {
    const float left = *(const float *)a, right = *(const float *)b;
    return left < right ? -1 : left > right;
}

/* The highest threshold that enough of what fires is above. */
static pi2_status find_threshold(const pi2_predictor_trial *trial, const float *scores, double recall,
                                 float *threshold_out) {
    const uint32_t neurons = trial->predictor->neuron_count;
    size_t count = 0;
    float *firing = malloc((size_t)trial->count * neurons * sizeof *firing);
    if (!firing) return pi2_fail(PI2_ERR_MEMORY, "no memory for the scores of what fires");
    for (uint32_t i = 0; i < trial->count; i++) {
        for (uint32_t n = 0; n < neurons; n++) {
            if (trial->wants(trial->user, i, n)) firing[count++] = scores[(size_t)i * neurons + n];
        }
    }
    qsort(firing, count, sizeof *firing, compare_floats);
    size_t at = (size_t)((1.0 - recall) * (double)count);
    if (count && at >= count) at = count - 1; /* a recall that is next to nothing */
    *threshold_out = count ? nextafterf(firing[at], -INFINITY) : 0.0f;
    free(firing);
    return PI2_OK;
}

/* scores: 0 for what is not named. */
static void rate(const pi2_predictor_trial *trial, const float *scores, pi2_predictor_rating *rating) {
    const uint32_t neurons = trial->predictor->neuron_count;
    uint64_t wanted = 0, named = 0, both = 0;
    for (uint32_t i = 0; i < trial->count; i++) {
        for (uint32_t n = 0; n < neurons; n++) {
            const bool is_wanted = trial->wants(trial->user, i, n);
            const bool is_named = scores[(size_t)i * neurons + n] != 0.0f;
            wanted += is_wanted;
            named += is_named;
            both += is_wanted && is_named;
        }
    }
    const double all = (double)trial->count * neurons;
    rating->recall = wanted ? (double)both / (double)wanted : 1;
    rating->precision = named ? (double)both / (double)named : 1;
    rating->density = (double)wanted / all;
    rating->named = (double)named / all;
}

pi2_status pi2_predictor_try_firing(const pi2_predictor_trial *trial, double recall,
                                    pi2_predictor_rating *rating_out) {
    const uint32_t neurons = trial->predictor->neuron_count;
    float *scores = NULL;
    *rating_out = (pi2_predictor_rating){ .threshold = 0 };
    PI2_TRY(score(trial, &scores));
    const pi2_status status = find_threshold(trial, scores, recall, &rating_out->threshold);
    for (uint32_t i = 0; i < trial->count; i++) {
        pi2_predictor_choose_firing(scores + (size_t)i * neurons, neurons, rating_out->threshold);
    }
    if (status == PI2_OK) rate(trial, scores, rating_out);
    free(scores);
    return status;
}

pi2_status pi2_predictor_try_worth(const pi2_predictor_trial *trial, uint32_t kept, pi2_predictor_rating *rating_out) {
    const uint32_t neurons = trial->predictor->neuron_count;
    float *scores = NULL;
    *rating_out = (pi2_predictor_rating){ .threshold = 0 };
    PI2_TRY(score(trial, &scores));
    for (uint32_t i = 0; i < trial->count; i++) {
        pi2_predictor_choose_largest(scores + (size_t)i * neurons, neurons, kept);
    }
    rate(trial, scores, rating_out);
    free(scores);
    return PI2_OK;
}
