/* estimates.c: normal distributions, of which a few points are asked. */
#include "predictor/estimates.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* A mean in deviations; an exact copy leaves no doubt. */
static float certainty(float mean, float deviation) {
    if (deviation > 0) return mean / deviation;
    return mean > 0 ? FLT_MAX : mean <= 0 ? -FLT_MAX : NAN;
}

void pi2_estimates_score_firing(const pi2_predictor_query *query, const pi2_estimates *gate, const pi2_estimates *up,
                                uint32_t count, float *scores) {
    for (uint32_t i = 0; i < count; i++) scores[i] = certainty(gate->mean[i], gate->deviation[i]);
    if (query->predictor->activation_number != PI2_FFN_drelu || !up) return;
    for (uint32_t i = 0; i < count; i++) {
        const float of_up = certainty(up->mean[i], up->deviation[i]);
        if (!(scores[i] <= of_up)) scores[i] = isnan(scores[i]) ? scores[i] : of_up;
    }
}

/* The expectation of activation(x)^2, x normal: three points, exact for polynomials up to the fifth degree. */
static void expect_squares(const pi2_predictor_query *query, uint32_t activation, const pi2_estimates *of,
                           uint32_t count, float *squares) {
    static const float places[3] = { 0.0f, 1.7320508f, -1.7320508f }, weights[3] = { 4.0f, 1.0f, 1.0f };
    float point[PI2_ESTIMATES_MOST], ones[PI2_ESTIMATES_MOST];
    memset(squares, 0, count * sizeof *squares);
    for (uint32_t i = 0; i < count; i++) ones[i] = 1.0f;
    for (int p = 0; p < 3; p++) {
        for (uint32_t i = 0; i < count; i++) point[i] = of->mean[i] + places[p] * of->deviation[i];
        query->vector->activate[activation](point, point, ones, count);
        for (uint32_t i = 0; i < count; i++) squares[i] = squares[i] + weights[p] * (point[i] * point[i]);
    }
    for (uint32_t i = 0; i < count; i++) squares[i] = squares[i] / 6.0f;
}

void pi2_estimates_score_worth(const pi2_predictor_query *query, const pi2_estimates *gate, const pi2_estimates *up,
                               const float *worths, uint32_t count, float *scores) {
    const uint32_t activation = query->predictor->activation_number;
    const bool both = activation == PI2_FFN_drelu;
    float of_gate[PI2_ESTIMATES_MOST], of_up[PI2_ESTIMATES_MOST];
    expect_squares(query, both ? PI2_FFN_relu : activation, gate, count, of_gate);
    for (uint32_t i = 0; i < count; i++) {
        of_up[i] = up ? up->mean[i] * up->mean[i] + up->deviation[i] * up->deviation[i] : 1.0f;
    }
    if (both && up) expect_squares(query, PI2_FFN_relu, up, count, of_up);
    for (uint32_t i = 0; i < count; i++) scores[i] = of_gate[i] * of_up[i] * (worths[i] * worths[i]);
}
