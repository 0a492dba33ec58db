/*
 * synthetic_neurons.c: neurons that fire as often, and as often again, as was asked (docs/synthetic.md).
 *
 * A neuron's gate is z less its threshold. z is a sum of the slow and the fast signals and of the rest of the residual
 * stream, with deviation 1, so the neuron fires with the probability of a normal number above the threshold. How
 * thresholds spread makes some neurons hot; the slow part makes the same ones fire for the next token. All that is
 * looked for follows from integrals over the normal distribution, which are summed up here in steps.
 *
 * The norm before the FFN divides threshold and signals alike, so that whether a neuron fires does not depend on how
 * large the residual stream has grown.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "synthetic/synthetic_internal.h"

enum { STEPS = 241, BISECTIONS = 40 };

static const double HALF_WIDTH = 6.0;       /* of the normal distribution, in deviations */
static const double HOT_ACTIVATIONS = 0.8;  /* what the hot share is a share for */
static const float REST_SHARE = 0.1f;
/* Of the neurons whose gate fires, those whose up is above zero too: published for dReLU. */
static const double CO_ACTIVATION = 0.8;
static const double DEFAULT_HOT = 0.3, DEFAULT_REPEAT = 0.5;
/* Up reads signals too, since the size of what is left of the stream is an estimate. */
static const float UP_FAST_SHARE = 0.6f;

static double above(double threshold) { return 0.5 * erfc(threshold * 0.70710678118654752); }

static double density(double x) { return 0.39894228040143268 * exp(-0.5 * x * x); }

/** Step number i of the standard normal distribution: its place and its share. */
static double place_of(int i) { return HALF_WIDTH * (2.0 * i / (STEPS - 1) - 1.0); }
static double share_of(int i) { return density(place_of(i)) * 2.0 * HALF_WIDTH / (STEPS - 1); }

/** Mean of the thresholds with which the share `active` fires: the spread makes more fire, so it is higher. */
static double mean_threshold(double active, double spread) {
    double low = -HALF_WIDTH, high = HALF_WIDTH;
    for (int i = 0; i < BISECTIONS; i++) {
        const double middle = 0.5 * (low + high);
        if (above(middle) > active) low = middle;
        else high = middle;
    }
    return high * sqrt(1.0 + spread * spread);
}

/** Share of neurons, those that fire most, that give HOT_ACTIVATIONS of the activations. */
static double hot_share(double active, double spread) {
    const double mean = mean_threshold(active, spread);
    double given = 0.0, share = 0.0;
    for (int i = 0; i < STEPS; i++) {
        const double gives = share_of(i) * above(mean + spread * place_of(i));
        if (given + gives >= HOT_ACTIVATIONS * active) {
            return share + share_of(i) * (HOT_ACTIVATIONS * active - given) / gives;
        }
        given += gives;
        share += share_of(i);
    }
    return share;
}

/** Of the neurons that fire, those that fire for another token too whose z has this correlation. */
static double repeat_share(double active, double spread, double correlation) {
    const double mean = mean_threshold(active, spread), both = sqrt(correlation), own = sqrt(1.0 - correlation);
    double sum = 0.0;
    for (int i = 0; i < STEPS; i += 4) {
        const double threshold = mean + spread * place_of(i);
        double twice = 0.0;
        for (int k = 0; k < STEPS; k += 4) {
            const double fires = above((threshold - both * place_of(k)) / own);
            twice += 4.0 * share_of(k) * fires * fires;
        }
        sum += 4.0 * share_of(i) * twice;
    }
    return sum / active;
}

static double find_spread(double active, double hot) {
    double low = 0.0, high = 8.0;
    for (int i = 0; i < BISECTIONS; i++) {
        const double middle = 0.5 * (low + high);
        if (hot_share(active, middle) > hot) low = middle;
        else high = middle;
    }
    return high;
}

/** Mean square of max(z - threshold, 0). */
static double mean_square(double threshold) {
    return (1.0 + threshold * threshold) * above(threshold) - threshold * density(threshold);
}

/** Root mean square of a neuron's activation, which Down must make up for. */
static double product_of(pi2_ffn_activation activation, double mean, double spread, double up_threshold) {
    double sum = 0.0;
    for (int i = 0; i < STEPS; i++) {
        const double threshold = mean + spread * place_of(i);
        double square = mean_square(threshold);
        if (activation == PI2_FFN_relu_squared) {
            const double t = threshold, t2 = t * t; /* fourth moment of what is above the threshold */
            square = (t2 * t2 + 6.0 * t2 + 3.0) * above(t) - (t2 * t + 5.0 * t) * density(t);
        }
        sum += share_of(i) * square;
    }
    return sqrt(sum * (activation == PI2_FFN_drelu ? mean_square(up_threshold) : 1.0));
}

/* ---- the plan --------------------------------------------------------------------------- */

/** Share of active gates in a layer: of drelu more than of active neurons, whose up must be active too. */
static double active_gates(const pi2_synthetic_plan *plan, uint32_t layer) {
    const pi2_synthetic_shape *shape = &plan->shape;
    const double position = shape->layer_count > 1 ? (double)layer / (shape->layer_count - 1) : 0.0;
    const double zeros = shape->ffn_zeros + (shape->ffn_zeros_last - shape->ffn_zeros) * position;
    return (1.0 - zeros) / (plan->neurons.activation == PI2_FFN_drelu ? CO_ACTIVATION : 1.0);
}

static double up_threshold(void) { return mean_threshold(CO_ACTIVATION, 0.0); }

static pi2_status plan_layer(pi2_synthetic_plan *plan, uint32_t layer) {
    pi2_neuron_plan *neurons = &plan->neurons;
    const double active = active_gates(plan, layer), hot = plan->shape.neuron_hot;
    const double spread = find_spread(active, hot);
    if (!(active < 1.0) || fabs(hot_share(active, spread) - hot) > 0.01) {
        return pi2_fail(PI2_ERR_INVALID, "--neuron-hot %g is impossible with %.3g of the gates above zero: between "
                        "%.3g and %.3g can be had", hot, active, hot_share(fmin(active, 0.999), 8.0),
                        hot_share(fmin(active, 0.999), 0.0));
    }
    const double mean = mean_threshold(active, spread);
    neurons->means[layer] = (float)mean;
    neurons->deviations[layer] = (float)spread;
    neurons->products[layer] = (float)product_of(neurons->activation, mean, spread, up_threshold());
    return PI2_OK;
}

/** The share of the slow signals follows from the repetition in the middle of the model. */
static pi2_status plan_repeat(pi2_synthetic_plan *plan, float next) {
    pi2_neuron_plan *neurons = &plan->neurons;
    const uint32_t layer = plan->shape.layer_count / 2;
    const double active = active_gates(plan, layer), spread = (double)neurons->deviations[layer];
    /* Of drelu's neurons, up must fire again too, which is by chance. */
    const double again = neurons->activation == PI2_FFN_drelu ? CO_ACTIVATION : 1.0;
    const double wanted = plan->shape.neuron_repeat / again, most = (double)((1.0f - REST_SHARE) * next);
    double low = 0.0, high = most;
    if (wanted > repeat_share(active, spread, most) || wanted < repeat_share(active, spread, 0.0) - 0.01) {
        return pi2_fail(PI2_ERR_INVALID, "--neuron-repeat %g is impossible beside --neuron-hot %g: between %.2f and "
                        "%.2f can be had", plan->shape.neuron_repeat, plan->shape.neuron_hot,
                        again * repeat_share(active, spread, 0.0), again * repeat_share(active, spread, most));
    }
    for (int i = 0; i < BISECTIONS; i++) {
        const double middle = 0.5 * (low + high);
        if (repeat_share(active, spread, middle) < wanted) low = middle;
        else high = middle;
    }
    neurons->rest_share = REST_SHARE;
    neurons->slow_share = (float)high / next;
    neurons->fast_share = 1.0f - REST_SHARE - neurons->slow_share;
    return PI2_OK;
}

pi2_status pi2_synthetic_plan_neurons(pi2_synthetic_plan *plan, float next) {
    pi2_synthetic_shape *shape = &plan->shape;
    pi2_neuron_plan *neurons = &plan->neurons;
    const char *name = shape->ffn_activation ? shape->ffn_activation : "relu"; /* smallthinker's own */
    if (shape->ffn_zeros == 0.0) return PI2_OK;
    neurons->is_planted = true;
    (void)pi2_ffn_activation_find(name, strlen(name), &neurons->activation);
    if (shape->ffn_zeros_last == 0.0) shape->ffn_zeros_last = shape->ffn_zeros;
    if (shape->neuron_hot == 0.0) shape->neuron_hot = DEFAULT_HOT;
    if (shape->neuron_repeat == 0.0) shape->neuron_repeat = DEFAULT_REPEAT;
    neurons->means = calloc(shape->layer_count, 3 * sizeof *neurons->means);
    if (!neurons->means) return pi2_fail(PI2_ERR_MEMORY, "no memory for %u layers", shape->layer_count);
    neurons->deviations = neurons->means + shape->layer_count;
    neurons->products = neurons->deviations + shape->layer_count;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        if (layer > 0 && shape->ffn_zeros == shape->ffn_zeros_last) { /* as the first one */
            neurons->means[layer] = neurons->means[0];
            neurons->deviations[layer] = neurons->deviations[0];
            neurons->products[layer] = neurons->products[0];
        } else {
            PI2_TRY(plan_layer(plan, layer));
        }
    }
    return plan_repeat(plan, next);
}

void pi2_synthetic_free_neurons(pi2_synthetic_plan *plan) {
    free(plan->neurons.means);
    plan->neurons.means = NULL;
}

/* ---- rows ------------------------------------------------------------------------------- */

static uint32_t rest_columns(const pi2_synthetic_plan *plan) {
    return plan->shape.embedding_length - plan->signals.end_column;
}

float pi2_synthetic_rest_deviation(const pi2_synthetic_plan *plan, bool is_up) {
    const float share = is_up ? 1.0f - UP_FAST_SHARE : plan->neurons.rest_share;
    return sqrtf(share / (float)(rest_columns(plan) + 1));
}

/** Variance of uniform integers in -most .. most. */
static float variance_of(int most) { return (float)most * (float)(most + 1) / 3.0f; }

/**
 * Integers of this deviation, which may be far below 1: of two neighbouring ranges now the one, now the other. Returns
 * the sum of their squares.
 */
static float draw(pi2_random *random, float deviation, int limit, int8_t *values, uint32_t count) {
    const float variance = deviation * deviation;
    int most = 0;
    while (most + 1 < limit && variance_of(most + 1) <= variance) most++;
    const float wider = (variance - variance_of(most)) / (variance_of(most + 1) - variance_of(most));
    float squares = 0.0f;
    for (uint32_t i = 0; i < count; i++) {
        values[i] = pi2_random_integer(random, pi2_random_uniform(random, 0.0f, 1.0f) < wider ? most + 1 : most);
        squares += (float)values[i] * (float)values[i];
    }
    return squares;
}

/** Spreads a whole number over the columns of the constant. */
static void spread_constant(int8_t *values, int total, int limit) {
    const int columns = PI2_SIGNAL_FAST, most = columns * limit;
    total = total > most ? most : total < -most ? -most : total;
    for (int i = 0; i < columns; i++) values[i] = (int8_t)(total * (i + 1) / columns - total * i / columns);
}

/** How far a neuron's threshold lies from the mean, in deviations: drawn, or lower the earlier it comes. */
static float place_of_threshold(const pi2_synthetic_plan *plan, double rank, pi2_random *random) {
    const float drawn = pi2_random_normal(random);
    double low = -HALF_WIDTH, high = HALF_WIDTH;
    if (!plan->shape.hot_first) return drawn;
    for (int i = 0; i < BISECTIONS; i++) {
        const double middle = 0.5 * (low + high);
        if (above(-middle) < rank) low = middle;
        else high = middle;
    }
    return (float)high;
}

float pi2_synthetic_neuron_row(const pi2_synthetic_plan *plan, uint32_t layer, double rank, bool is_up, int limit,
                               pi2_random *random, int8_t *values) {
    const pi2_signal_plan *signals = &plan->signals;
    const pi2_neuron_plan *neurons = &plan->neurons;
    const float added = pi2_synthetic_attention_gain(plan, layer);
    const float residual = sqrtf(pi2_synthetic_residual_variance(plan, layer) + added * added);
    const bool has_slow = layer >= signals->recency_layer && !is_up;
    const float slow_share = has_slow ? neurons->slow_share : 0.0f;
    const float rest_share = is_up ? 1.0f - UP_FAST_SHARE : neurons->rest_share;
    const float fast_share = 1.0f - rest_share - slow_share;
    const float count = (float)signals->signals;
    const float fast = residual * sqrtf(fast_share / count);
    const float slow = residual * sqrtf(slow_share / count) / signals->slow_deviation;
    const float rest = pi2_synthetic_rest_deviation(plan, is_up);
    const float threshold = is_up ? (float)up_threshold()
                                  : neurons->means[layer] +
                                        neurons->deviations[layer] * place_of_threshold(plan, rank, random);
    const float largest = fmaxf(fmaxf(fast, slow), rest);
    const float step = largest / sqrtf((float)limit * ((float)limit + 1.0f) / 3.0f);
    memset(values, 0, signals->span_columns);
    /* The row's own deviation, of what was drawn: then its threshold fits. */
    int8_t *fast_values = values + PI2_SIGNAL_FAST, *slow_values = fast_values + signals->signals;
    const float fast_squares = draw(random, fast / step, limit, fast_values, signals->signals);
    const float slow_squares = draw(random, slow / step, limit, slow_values, signals->signals);
    const float rest_squares = draw(random, rest / step, limit, values + signals->end_column,
                                    signals->span_columns - signals->end_column);
    const float outside = rest * rest * (float)(plan->shape.embedding_length - signals->span_columns);
    const float variance = step * step * (fast_squares + slow_squares * signals->slow_deviation *
                                          signals->slow_deviation + rest_squares * residual * residual) +
                           outside * residual * residual;
    spread_constant(values, (int)rintf(-threshold * sqrtf(variance) / (step * signals->constant_value)), limit);
    return step;
}
