/* gate_cutoff.c: mean and deviation of a token's Gates, in doubles and 16 lanes as every sum (docs/arithmetic.md). */
#include "kernels/vector/gate_cutoff.h"

#include <math.h>

#include "kernels/vector/vector.h"

enum { LANES = 16, TERMS = 400, HALVINGS = 64 };

/* Lane i takes lane i + 8, then i + 4, i + 2, i + 1. */
static double sum_of_lanes(double lanes[LANES]) {
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) lanes[i] += lanes[i + width];
    }
    return lanes[0];
}

static double mean_of(const float *x, size_t count) {
    double lanes[LANES] = {0.0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t j = 0; j < LANES; j++) lanes[j] += (double)x[i + j];
    }
    for (size_t j = 0; i + j < count; j++) lanes[j] += (double)x[i + j];
    return sum_of_lanes(lanes) / (double)count;
}

static double variance_of(const float *x, size_t count, double mean) {
    double lanes[LANES] = {0.0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t j = 0; j < LANES; j++) lanes[j] += ((double)x[i + j] - mean) * ((double)x[i + j] - mean);
    }
    for (size_t j = 0; i + j < count; j++) lanes[j] += ((double)x[i + j] - mean) * ((double)x[i + j] - mean);
    return sum_of_lanes(lanes) / (double)count;
}

void pi2_gate_cut(float *gate, size_t count, float deviations) {
    const double mean = mean_of(gate, count);
    const float cutoff = (float)(mean + (double)deviations * sqrt(variance_of(gate, count, mean)));
    for (size_t i = 0; i < count; i++) gate[i] = gate[i] - cutoff > 0.0f ? gate[i] - cutoff : 0.0f;
}

/* Share of a normal distribution below x >= 0: 1/2 + density(x) * (x + x^3 / 3 + x^5 / (3 * 5) + ...). */
static double share_below(double x) {
    const double e = 2.718281828459045, inverse_root = 0.3989422804014327; /* 1 / sqrt(2 pi) */
    double term = x, sum = 0.0;
    for (int k = 1; k < TERMS; k++) {
        sum += term;
        term *= x * x / (2 * k + 1);
    }
    return 0.5 + inverse_root * pi2_pow(e, -x * x / 2) * sum;
}

float pi2_gate_deviations(float sparsity) {
    const double share = sparsity < 0.5f ? 1.0 - (double)sparsity : (double)sparsity;
    double low = 0.0, high = 12.0; /* beyond every float below 1, and every one above 0 from which 1 differs */
    for (int i = 0; i < HALVINGS; i++) {
        const double middle = (low + high) / 2;
        if (share_below(middle) < share) low = middle;
        else high = middle;
    }
    return (float)(sparsity < 0.5f ? -low : low);
}
