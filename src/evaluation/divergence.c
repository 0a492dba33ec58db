/* divergence.c: sums over tokens, in double, and two values of each token for the percentiles. */
#include "powerinfer2/divergence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "powerinfer2/scoring.h"

/* What the reference takes for less likely than e^-16 does not count: a file does not tell those apart. */
static const float least_logarithm = -16.0f;

/** Sums of two series and of their products. */
typedef struct pair_sums {
    double model, model_squares, reference, reference_squares, products;
} pair_sums;

struct pi2_divergence {
    uint32_t vocabulary;
    uint64_t capacity, count;
    float *reference, *model;          /* [vocabulary] */
    float *divergences, *changes;      /* [capacity] */
    pair_sums surprises;
    double divergence, divergence_squares, change, change_squares, change_fourths;
    uint64_t same_top;
};

double pi2_percentile(size_t index) {
    static const double shares[PI2_PERCENTILES] = { 0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99,
                                                    0.999, 1 };
    return shares[index];
}

pi2_status pi2_divergence_create(uint32_t vocabulary_size, uint64_t most_tokens, pi2_divergence **divergence_out) {
    *divergence_out = NULL;
    pi2_divergence *divergence = calloc(1, sizeof *divergence);
    const bool fits = most_tokens <= SIZE_MAX / sizeof(float);
    if (divergence) {
        divergence->vocabulary = vocabulary_size;
        divergence->capacity = most_tokens;
        divergence->reference = malloc(vocabulary_size * sizeof(float));
        divergence->model = malloc(vocabulary_size * sizeof(float));
        divergence->divergences = fits ? malloc((size_t)most_tokens * sizeof(float)) : NULL;
        divergence->changes = fits ? malloc((size_t)most_tokens * sizeof(float)) : NULL;
    }
    if (!divergence || !divergence->reference || !divergence->model || !divergence->divergences ||
        !divergence->changes) {
        pi2_divergence_free(divergence);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the divergence of %llu tokens", (unsigned long long)most_tokens);
    }
    /* Touched, so that an engine that is opened later counts it as this process's. */
    memset(divergence->reference, 0, vocabulary_size * sizeof(float));
    memset(divergence->model, 0, vocabulary_size * sizeof(float));
    memset(divergence->divergences, 0, (size_t)most_tokens * sizeof(float));
    memset(divergence->changes, 0, (size_t)most_tokens * sizeof(float));
    *divergence_out = divergence;
    return PI2_OK;
}

void pi2_divergence_free(pi2_divergence *divergence) {
    if (!divergence) return;
    free(divergence->reference);
    free(divergence->model);
    free(divergence->divergences);
    free(divergence->changes);
    free(divergence);
}

float *pi2_divergence_reference(pi2_divergence *divergence) { return divergence->reference; }

static uint32_t likeliest(const float *values, uint32_t count) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        if (values[i] > values[best]) best = i;
    }
    return best;
}

static void add_pair(pair_sums *sums, double model, double reference) {
    sums->model += model;
    sums->model_squares += model * model;
    sums->reference += reference;
    sums->reference_squares += reference * reference;
    sums->products += model * reference;
}

pi2_status pi2_divergence_add(pi2_divergence *divergence, const float *logits, int32_t token) {
    const float *reference = divergence->reference, *model = divergence->model;
    const uint32_t count = divergence->vocabulary;
    if (divergence->count == divergence->capacity) {
        return pi2_fail(PI2_ERR_INVALID, "there are more than %llu tokens", (unsigned long long)divergence->capacity);
    }
    pi2_log_probabilities(logits, count, divergence->model);
    double sum = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        if (reference[i] <= least_logarithm) continue;
        sum += (double)expf(reference[i]) * ((double)reference[i] - (double)model[i]);
    }
    const double change = exp((double)model[token]) - exp((double)reference[token]);
    if (!isfinite(sum) || !isfinite(change) || !isfinite(model[token])) {
        return pi2_fail(PI2_ERR_FORMAT, "the divergence of token %llu is no number: one of the models excludes what "
                        "the other expects, or its file is damaged", (unsigned long long)divergence->count);
    }
    add_pair(&divergence->surprises, -(double)model[token], -(double)reference[token]);
    divergence->divergence += sum;
    divergence->divergence_squares += sum * sum;
    divergence->change += change;
    divergence->change_squares += change * change;
    divergence->change_fourths += change * change * change * change;
    divergence->same_top += likeliest(model, count) == likeliest(reference, count);
    divergence->divergences[divergence->count] = (float)sum;
    divergence->changes[divergence->count] = (float)change;
    divergence->count++;
    return PI2_OK;
}

/* ---- what they come to ---- */

static pi2_estimate mean_of(double sum, double squares, double count) {
    const double mean = sum / count, variance = squares / count - mean * mean;
    return (pi2_estimate){ mean, variance > 0 && count > 1 ? sqrt(variance / (count - 1)) : 0 };
}

/** e to an estimate. */
static pi2_estimate exponential(pi2_estimate exponent) {
    return (pi2_estimate){ exp(exponent.value), exp(exponent.value) * exponent.error };
}

static void summarize_surprises(const pair_sums *sums, double count, pi2_divergence_summary *summary) {
    const pi2_estimate model = mean_of(sums->model, sums->model_squares, count);
    const pi2_estimate reference = mean_of(sums->reference, sums->reference_squares, count);
    const double covariance =
        count > 1 ? (sums->products / count - model.value * reference.value) / (count - 1) : 0;
    const double variance = model.error * model.error + reference.error * reference.error - 2 * covariance;
    const bool varies = model.error > 0 && reference.error > 0;
    summary->perplexity = exponential(model);
    summary->reference_perplexity = exponential(reference);
    summary->perplexity_ratio =
        exponential((pi2_estimate){ model.value - reference.value, variance > 0 ? sqrt(variance) : 0 });
    summary->correlation = varies ? covariance / (model.error * reference.error) : 1;
}

static int compare(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void find_percentiles(float *values, uint64_t count, double percentiles_out[PI2_PERCENTILES]) {
    qsort(values, (size_t)count, sizeof *values, compare);
    for (size_t i = 0; i < PI2_PERCENTILES; i++) {
        const double place = pi2_percentile(i) * (double)(count - 1);
        const uint64_t below = (uint64_t)place, above = below + 1 < count ? below + 1 : below;
        const double part = place - (double)below;
        percentiles_out[i] = (1 - part) * (double)values[below] + part * (double)values[above];
    }
}

pi2_status pi2_divergence_summarize(pi2_divergence *divergence, pi2_divergence_summary *summary_out) {
    const double count = (double)divergence->count;
    memset(summary_out, 0, sizeof *summary_out);
    if (divergence->count == 0) return pi2_fail(PI2_ERR_INVALID, "no token was compared");
    summary_out->tokens = divergence->count;
    summary_out->divergence = mean_of(divergence->divergence, divergence->divergence_squares, count);
    summary_out->same_top = mean_of((double)divergence->same_top, (double)divergence->same_top, count);
    summarize_surprises(&divergence->surprises, count, summary_out);
    summary_out->change = mean_of(divergence->change, divergence->change_squares, count);
    const pi2_estimate squares = mean_of(divergence->change_squares, divergence->change_fourths, count);
    const double rms = sqrt(squares.value);
    summary_out->change_rms = (pi2_estimate){ rms, rms > 0 ? 0.5 / rms * squares.error : 0 };
    find_percentiles(divergence->divergences, divergence->count, summary_out->divergences);
    find_percentiles(divergence->changes, divergence->count, summary_out->changes);
    return PI2_OK;
}
