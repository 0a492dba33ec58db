/* golden_logits.c: see golden_logits.h. */
#include "support/golden_logits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CLEAR_TENTHS = 1 };
static const double least_deviation = 3.0;

static size_t rows_of(const pi2_golden_logits *g) { return g->tokens - 1 - g->first; }

static void read_all(FILE *file, void *out, size_t bytes) { assert_int_equal(fread(out, 1, bytes, file), bytes); }

void pi2_golden_logits_read(const char *folder, const char *name, pi2_golden_logits *g) {
    char path[512], magic[8];
    uint32_t numbers[3];
    (void)snprintf(path, sizeof path, "%s/%s.kld", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s is missing", path);
    read_all(file, magic, sizeof magic);
    assert_memory_equal(magic, "_logits_", sizeof magic);
    read_all(file, numbers, sizeof numbers); /* of a chunk; vocabulary; chunks */
    g->tokens = numbers[0];
    g->vocabulary = numbers[1];
    g->first = g->tokens / 2;
    assert_int_equal(numbers[2], 1);
    const size_t rows = rows_of(g), row_halves = (g->vocabulary + 1) / 2 * 2 + 4;
    uint16_t *halves = malloc(row_halves * sizeof *halves);
    g->ids = malloc(g->tokens * sizeof *g->ids);
    g->logarithms = malloc(rows * g->vocabulary * sizeof *g->logarithms);
    assert_true(halves && g->ids && g->logarithms);
    read_all(file, g->ids, g->tokens * sizeof *g->ids);
    for (size_t r = 0; r < rows; r++) {
        float scale_and_least[2];
        read_all(file, halves, row_halves * sizeof *halves);
        memcpy(scale_and_least, halves, sizeof scale_and_least);
        for (size_t v = 0; v < g->vocabulary; v++) {
            const double logarithm = (double)scale_and_least[0] * halves[4 + v] + (double)scale_and_least[1];
            g->logarithms[r * g->vocabulary + v] = halves[4 + v] ? logarithm : -INFINITY;
        }
    }
    assert_int_equal(fclose(file), 0);
    free(halves);
}

/* ln of the sum of e to the logarithms that were kept: those far below the largest are none in the file. */
static double log_of_sum(const double *want, const float *logits, size_t count) {
    double most = -INFINITY, sum = 0;
    for (size_t v = 0; v < count; v++) {
        const double x = logits ? (double)logits[v] : want[v];
        if (!isinf(want[v])) most = fmax(most, x);
    }
    for (size_t v = 0; v < count; v++) {
        const double x = logits ? (double)logits[v] : want[v];
        if (!isinf(want[v])) sum += exp(x - most);
    }
    return most + log(sum);
}

/* Sum of p (log p - log q) for the reference's probabilities p and those of logits, of the tokens that were kept. */
static double divergence_of(const double *want, const float *logits, size_t count) {
    const double own_sum = log_of_sum(want, logits, count), sum = log_of_sum(want, NULL, count);
    double divergence = 0;
    for (size_t v = 0; v < count; v++) {
        if (isinf(want[v])) continue;
        divergence += exp(want[v] - sum) * (want[v] - sum - (double)logits[v] + own_sum);
    }
    return divergence;
}

static double deviation_of(const float *logits, size_t count) {
    double mean = 0, squares = 0;
    for (size_t v = 0; v < count; v++) mean += (double)logits[v] / (double)count;
    for (size_t v = 0; v < count; v++) {
        squares += ((double)logits[v] - mean) * ((double)logits[v] - mean) / (double)count;
    }
    return sqrt(squares);
}

/* The file's likeliest token, where that differs from the second by more than a tenth; else the vocabulary's size. */
static size_t clear_first(const double *want, size_t count) {
    size_t first = 0;
    double second = -INFINITY;
    for (size_t v = 1; v < count; v++) {
        if (want[v] > want[first]) first = v;
    }
    for (size_t v = 0; v < count; v++) second = v != first && want[v] > second ? want[v] : second;
    return want[first] - second > CLEAR_TENTHS / 10.0 ? first : count;
}

static size_t first_of(const float *logits, size_t count) {
    size_t first = 0;
    for (size_t v = 1; v < count; v++) {
        if (logits[v] > logits[first]) first = v;
    }
    return first;
}

void pi2_golden_logits_free(pi2_golden_logits *golden) {
    free(golden->ids);
    free(golden->logarithms);
}

float *pi2_golden_logits_of_engine(const pi2_golden_logits *g, const char *name, const pi2_engine_options *options) {
    pi2_engine_options own = *options;
    pi2_engine *engine = NULL;
    pi2_session *session = NULL;
    float *logits = malloc(rows_of(g) * g->vocabulary * sizeof *logits);
    assert_non_null(logits);
    own.logits_tokens = g->tokens;
    if (pi2_engine_open(&own, &engine) != PI2_OK) fail_msg("%s: %s", name, pi2_error_text());
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    if (pi2_session_append(session, g->ids, g->tokens, PI2_LOGITS_ALL) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (size_t r = 0; r < rows_of(g); r++) {
        memcpy(logits + r * g->vocabulary, pi2_session_logits(session, g->first + r), g->vocabulary * sizeof *logits);
    }
    pi2_session_free(session);
    pi2_engine_close(engine);
    return logits;
}

double pi2_golden_logits_mean(const pi2_golden_logits *g, const float *logits) {
    double mean = 0;
    for (size_t r = 0; r < rows_of(g); r++) {
        const size_t at = r * g->vocabulary;
        mean += divergence_of(g->logarithms + at, logits + at, g->vocabulary) / (double)rows_of(g);
    }
    return mean;
}

double pi2_golden_logits_mean_from(const pi2_golden_logits *g, const double *exact, const float *logits) {
    double *want = malloc(g->vocabulary * sizeof *want), mean = 0;
    assert_non_null(want);
    for (size_t r = 0; r < rows_of(g); r++) {
        const size_t at = r * g->vocabulary;
        for (size_t v = 0; v < g->vocabulary; v++) want[v] = isinf(g->logarithms[at + v]) ? -INFINITY : exact[at + v];
        mean += divergence_of(want, logits + at, g->vocabulary) / (double)rows_of(g);
    }
    free(want);
    return mean;
}

double pi2_golden_logits_deviation(const pi2_golden_logits *g, const float *logits) {
    double least = INFINITY;
    for (size_t r = 0; r < rows_of(g); r++) {
        least = fmin(least, deviation_of(logits + r * g->vocabulary, g->vocabulary));
    }
    return least;
}

void pi2_golden_logits_count(const pi2_golden_logits *g, const float *logits, size_t *clear, size_t *other) {
    *clear = *other = 0;
    for (size_t r = 0; r < rows_of(g); r++) {
        const size_t first = clear_first(g->logarithms + r * g->vocabulary, g->vocabulary);
        if (first == g->vocabulary) continue;
        ++*clear;
        *other += first_of(logits + r * g->vocabulary, g->vocabulary) != first;
    }
}

double pi2_golden_logits_divergence(const pi2_golden_logits *g, const char *name, const pi2_engine_options *options,
                                    bool checks_first, double *least_out) {
    float *logits = pi2_golden_logits_of_engine(g, name, options);
    const double mean = pi2_golden_logits_mean(g, logits);
    *least_out = pi2_golden_logits_deviation(g, logits);
    for (size_t r = 0; r < rows_of(g); r++) {
        const float *row = logits + r * g->vocabulary;
        const size_t first = clear_first(g->logarithms + r * g->vocabulary, g->vocabulary);
        const size_t own = first_of(row, g->vocabulary);
        if (!checks_first || first == g->vocabulary || first == own) continue;
        fail_msg("%s, position %zu: token %zu is the likeliest, not %zu", name, g->first + r, own, first);
    }
    free(logits);
    return mean;
}

void pi2_golden_logits_check(const pi2_golden_logits *golden, const char *name, const pi2_engine_options *options,
                             double most) {
    double least;
    const bool only_tells = getenv("PI2_SHOW_DIVERGENCE") != NULL;
    const double mean = pi2_golden_logits_divergence(golden, name, options, !only_tells, &least);
    print_message("%-26s divergence %.2e, logits deviate by %.1f at least\n", name, mean, least);
    if (only_tells) return;
    if (!(mean <= most)) fail_msg("%s: divergence %g is over %g", name, mean, most);
    if (!(least >= least_deviation)) fail_msg("%s: logits deviate by %g only", name, least);
}
