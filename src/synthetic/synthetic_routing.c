/*
 * synthetic_routing.c: routers whose choices repeat as often as was asked (docs/synthetic.md).
 *
 * A router's logits are a sum of four independent parts: static (from the constant), slow (from
 * the mean of the last tokens), fast (from the token itself) and rest (from what layers have
 * added). Two tokens' logits are then jointly normal, and how many of the largest k of E they
 * share depends on their correlation alone: the static share for tokens far apart, and a part of
 * the slow share more for neighbours. So both shares follow by inverting one function, which is
 * found by drawing pairs.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "synthetic/synthetic_internal.h"

enum { DRAWS = 131072, LEAST_PAIRS = 64, BISECTIONS = 12, KERNEL_LENGTH = 512 };

static const float REST_SHARE = 0.1f;     /* what looking ahead by a layer cannot know for certain */
static const float LOGIT_DEVIATION = 1.5f;
static const float RECENCY_LOGIT = 14.0f; /* of a token with itself: e^14 outweighs far tokens */
/* Rotations per token of the pairs that attend: together they peak over about ten tokens. */
static const double FASTEST_TURN = 0.1, SLOWEST_TURN = 0.0025;

/* ---- shares of a correlation ------------------------------------------------------------ */

/** Marks the `used` largest of `count` logits with `mark`; returns how many had `other`. */
static uint32_t mark_largest(const float *logits, uint8_t *marks, uint32_t count, uint32_t used,
                             uint8_t mark, uint8_t other) {
    uint32_t shared = 0;
    for (uint32_t k = 0; k < used; k++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t e = 0; e < count; e++) {
            if (!(marks[e] & mark) && (best == UINT32_MAX || logits[e] > logits[best])) best = e;
        }
        shared += (marks[best] & other) != 0;
        marks[best] = (uint8_t)(marks[best] | mark);
    }
    return shared;
}

/** Share of `used` experts in common for logits of this correlation. scratch: 2 * count floats. */
static double common_share(uint32_t count, uint32_t used, float correlation, float *scratch,
                           uint8_t *marks) {
    const uint32_t pairs = DRAWS / count > LEAST_PAIRS ? DRAWS / count : LEAST_PAIRS;
    const float common = sqrtf(correlation), own = sqrtf(1.0f - correlation);
    pi2_random random = pi2_random_named(1, "pairs"); /* the same draws for every correlation */
    uint64_t shared = 0;
    for (uint32_t pair = 0; pair < pairs; pair++) {
        for (uint32_t e = 0; e < count; e++) {
            const float both = common * pi2_random_normal(&random);
            scratch[e] = both + own * pi2_random_normal(&random);
            scratch[count + e] = both + own * pi2_random_normal(&random);
        }
        memset(marks, 0, count);
        (void)mark_largest(scratch, marks, count, used, 1, 2);
        shared += mark_largest(scratch + count, marks, count, used, 2, 1);
    }
    return (double)shared / ((double)pairs * used);
}

static float find_correlation(uint32_t count, uint32_t used, double share, float *scratch,
                              uint8_t *marks) {
    if (share <= (double)used / count) return 0.0f;
    float low = 0.0f, high = 1.0f;
    for (int i = 0; i < BISECTIONS; i++) {
        const float middle = 0.5f * (low + high);
        if (common_share(count, used, middle, scratch, marks) < share) low = middle;
        else high = middle;
    }
    return high;
}

/* ---- attention to the last tokens ------------------------------------------------------- */

/* The first layers of a family that has windows have them, with a rotation of their own. */
static uint32_t rotated_dimensions(const pi2_synthetic_shape *shape) {
    return shape->local_head_dimension ? shape->local_head_dimension : pi2_synthetic_rotated(shape);
}

static double turn_of_pair(const pi2_synthetic_shape *shape, uint32_t pair) {
    const float base = shape->local_head_dimension ? shape->local_rope_base : shape->rope_base;
    return pow((double)base, -2.0 * pair / rotated_dimensions(shape));
}

/** Pairs that turn neither too fast nor too slowly; the last pair where there is none. */
static bool is_recency_pair(const pi2_synthetic_shape *shape, uint32_t pair) {
    const double turn = turn_of_pair(shape, pair);
    if (pair == rotated_dimensions(shape) / 2 - 1 && turn > FASTEST_TURN) return true;
    return turn <= FASTEST_TURN && turn >= SLOWEST_TURN;
}

bool pi2_synthetic_recency_row(const pi2_synthetic_plan *plan, uint32_t index) {
    const pi2_synthetic_shape *shape = &plan->shape;
    const uint32_t half = rotated_dimensions(shape) / 2;
    if (index >= 2 * half) return false;
    if (plan->family->pairs_neighbours) return index % 2 == 0 && is_recency_pair(shape, index / 2);
    return index < half && is_recency_pair(shape, index);
}

/** Sum of squares of the attention weights, and how alike they are one token later. */
static void measure_kernel(const pi2_synthetic_shape *shape, uint32_t pairs, float *squares_out,
                           float *next_out) {
    double weights[KERNEL_LENGTH + 1], sum = 0.0, squares = 0.0, products = 0.0;
    for (uint32_t distance = 0; distance < KERNEL_LENGTH; distance++) {
        double logit = 0.0;
        for (uint32_t pair = 0; pair < rotated_dimensions(shape) / 2; pair++) {
            if (is_recency_pair(shape, pair)) logit += cos(distance * turn_of_pair(shape, pair));
        }
        weights[distance] = exp((double)RECENCY_LOGIT * (logit / pairs - 1.0));
        sum += weights[distance];
    }
    weights[KERNEL_LENGTH] = 0.0;
    for (uint32_t distance = 0; distance < KERNEL_LENGTH; distance++) {
        squares += weights[distance] * weights[distance];
        products += weights[distance] * weights[distance + 1];
    }
    *squares_out = (float)(squares / (sum * sum));
    *next_out = (float)(products / squares);
}

/** The first layer whose attention rotates; smallthinker's first does not, nor does any of a family of one block. */
static uint32_t find_recency_layer(const pi2_synthetic_shape *shape) {
    const uint32_t first = strcmp(shape->architecture, "smallthinker") == 0 && shape->layer_count > 1;
    for (uint32_t layer = first; layer < shape->layer_count; layer++) {
        if (!strchr("AW", pi2_synthetic_layer_kind(shape, layer))) continue;
        return pi2_synthetic_family_find(shape->architecture)->one_block ? UINT32_MAX : layer;
    }
    return UINT32_MAX;
}

static void plan_recency(pi2_synthetic_plan *plan, float *next_out) {
    const pi2_synthetic_shape *shape = &plan->shape;
    pi2_signal_plan *signals = &plan->signals;
    const float head = (float)shape->head_dimension;
    uint32_t pairs = 0;
    float squares;
    for (uint32_t pair = 0; pair < rotated_dimensions(shape) / 2; pair++) {
        pairs += is_recency_pair(shape, pair);
    }
    measure_kernel(shape, pairs, &squares, next_out);
    signals->recency_layer = find_recency_layer(shape);
    if (signals->recency_layer == UINT32_MAX) return;
    const float rms = sqrtf(pi2_synthetic_residual_variance(plan, signals->recency_layer));
    signals->recency_weight = sqrtf(RECENCY_LOGIT * sqrtf(head) / (float)pairs) * rms /
                              signals->constant_value;
    signals->recency_norm = sqrtf(RECENCY_LOGIT / sqrtf(head));
    signals->slow_deviation = pi2_synthetic_attention_gain(plan, signals->recency_layer) /
                              pi2_synthetic_attention_average(plan) * sqrtf(squares);
    if (plan->family->is_gemma) { /* scores are not scaled, and what attention gives is normed */
        signals->recency_norm = sqrtf(RECENCY_LOGIT / (float)shape->local_head_dimension);
        signals->slow_deviation = pi2_synthetic_attention_gain(plan, signals->recency_layer);
    }
    if (plan->family->gated_queries) signals->slow_deviation *= 0.5f; /* its gates are zeros: halves */
}

/* ---- the plan --------------------------------------------------------------------------- */

static pi2_status plan_shares(pi2_synthetic_plan *plan, float next, float *scratch, uint8_t *marks) {
    pi2_synthetic_shape *shape = &plan->shape;
    pi2_signal_plan *signals = &plan->signals;
    const double even = (double)shape->expert_used_count / shape->expert_count;
    if (shape->expert_skew == 0.0) shape->expert_skew = even;
    if (shape->expert_repeat == 0.0) shape->expert_repeat = shape->expert_skew;
    const double skew = shape->expert_skew, repeat = shape->expert_repeat;
    if (!(skew >= even - 0.005 && repeat >= skew && repeat <= 1.0)) {
        return pi2_fail(PI2_ERR_INVALID, "--expert-skew %g and --expert-repeat %g are impossible: %u of "
                        "%u experts give at least %g, and neighbours share at least what far tokens do",
                        skew, repeat, shape->expert_used_count, shape->expert_count, even);
    }
    const uint32_t count = shape->expert_count, used = shape->expert_used_count;
    const float far = find_correlation(count, used, skew, scratch, marks);
    const float near = find_correlation(count, used, repeat, scratch, marks);
    if (signals->recency_layer == UINT32_MAX && repeat > skew) {
        return pi2_fail(PI2_ERR_INVALID, "--expert-repeat %g is impossible here: none of the %u layers has attention "
                        "that knows positions", repeat, shape->layer_count);
    }
    signals->static_share = far;
    signals->slow_share = near > far ? (near - far) / next : 0.0f;
    const float left = 1.0f - signals->static_share - signals->slow_share;
    if (left < 0.0f) {
        return pi2_fail(PI2_ERR_INVALID, "--expert-repeat %g is too much beside --expert-skew %g: raise "
                        "the one or lower the other", repeat, skew);
    }
    signals->rest_share = fminf(REST_SHARE, left);
    signals->fast_share = left - signals->rest_share;
    return PI2_OK;
}

pi2_status pi2_synthetic_plan_signals(pi2_synthetic_plan *plan, pi2_weight_type embedding_type) {
    const pi2_synthetic_shape *shape = &plan->shape;
    pi2_signal_plan *signals = &plan->signals;
    if (shape->expert_count == 0 && shape->ffn_zeros == 0.0) return PI2_OK;
    const uint32_t block = pi2_weight_format_find((uint32_t)embedding_type)->block_columns;
    signals->signals = shape->embedding_length >= 256 ? 64 : 32;
    signals->end_column = PI2_SIGNAL_FAST + 2 * signals->signals;
    signals->span_columns = shape->embedding_length >= 256 ? 256 : 128;
    if (signals->span_columns % block != 0) signals->span_columns = shape->embedding_length;
    signals->constant_value = (float)pi2_block_limit(embedding_type) / pi2_block_deviation(embedding_type);
    float next = 1.0f;
    plan_recency(plan, &next);
    PI2_TRY(pi2_synthetic_plan_neurons(plan, next));
    if (shape->expert_count == 0) return PI2_OK;
    float *scratch = calloc(shape->expert_count, 2 * sizeof *scratch);
    uint8_t *marks = calloc(shape->expert_count, 1);
    const pi2_status status = scratch && marks
        ? plan_shares(plan, next, scratch, marks)
        : pi2_fail(PI2_ERR_MEMORY, "no memory for %u experts", shape->expert_count);
    free(marks);
    free(scratch);
    return status;
}

void pi2_synthetic_router_row(const pi2_synthetic_plan *plan, uint32_t layer, pi2_random *random,
                              float *out) {
    const pi2_signal_plan *signals = &plan->signals;
    const uint32_t width = plan->shape.embedding_length, planted = signals->end_column;
    const float added = pi2_synthetic_attention_gain(plan, layer);
    const float residual = sqrtf(pi2_synthetic_residual_variance(plan, layer) + added * added);
    /* smallthinker's router reads the residual stream itself; the others read it normalised. */
    const float input_scale = strcmp(plan->shape.architecture, "smallthinker") == 0 ? 1.0f : residual;
    const float gain = LOGIT_DEVIATION * input_scale;
    const float count = sqrtf((float)signals->signals);
    memset(out, 0, width * sizeof *out);
    out[PI2_SIGNAL_CONSTANT] = gain * sqrtf(signals->static_share) / signals->constant_value *
                               pi2_random_normal(random);
    float *fast = out + PI2_SIGNAL_FAST, *slow = fast + signals->signals;
    for (uint32_t i = 0; i < signals->signals; i++) {
        fast[i] = gain * sqrtf(signals->fast_share) / count * pi2_random_normal(random);
        if (signals->slow_deviation == 0.0f) continue;
        slow[i] = gain * sqrtf(signals->slow_share) / (count * signals->slow_deviation) *
                  pi2_random_normal(random);
    }
    const float rest = gain * sqrtf(signals->rest_share / (float)(width - planted + 1)) / residual;
    for (uint32_t i = planted; i < width; i++) out[i] = rest * pi2_random_normal(random);
}
