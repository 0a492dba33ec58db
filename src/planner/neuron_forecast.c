/* neuron_forecast.c: the store's steady state, class by class of equally frequent units, by the rule `heat` and with
 * tokens that are independent. By `mix` it finds less of such, and more where tokens repeat what the one before used.
 */
#include "planner/neuron_forecast.h"

#include "pipeline/pass_choice.h"

#include <math.h>
#include <stddef.h>

#include "neuron_cache/neuron_store.h"

enum { STEPS = 60 };

/* Rare units differ by factors, so classes are narrow there. */
static size_t class_of(double probability) {
    const double at = sqrt(probability) * PI2_NEURON_RATES;
    return at >= PI2_NEURON_RATES ? PI2_NEURON_RATES - 1 : at > 0 ? (size_t)at : 0;
}

void pi2_neuron_rates_add(pi2_neuron_rates *rates, double probability, double units) {
    const size_t class = class_of(probability);
    rates->units[class] += units;
    rates->sums[class] += units * probability;
}

double pi2_neuron_rates_used(const pi2_neuron_rates *rates) {
    double used = 0;
    for (size_t i = 0; i < PI2_NEURON_RATES; i++) used += rates->sums[i];
    return used;
}

/*
 * The chance that a unit's heat is above a limit, which is given as a probability of use. Heat is the sum of past uses,
 * each faded by f a pass; divided by its mean for a unit that every pass uses, 1 / (1 - f), it estimates the unit's
 * probability p with the variance p (1 - p) (1 - f) / (1 + f).
 */
static double chance_above(double p, double limit) {
    const double fade = 1.0 - 1.0 / PI2_NEURON_FADE_SHARE;
    const double deviation = sqrt(fmax(p * (1 - p), 1e-12) * (1 - fade) / (1 + fade));
    return 0.5 * erfc((limit - p) / (deviation * sqrt(2.0)));
}

/* Units whose heat is above the limit, and of the units that a token uses, those among them. */
static double units_above(const pi2_neuron_rates *rates, double limit, double *used_out) {
    double units = 0;
    *used_out = 0;
    for (size_t i = 0; i < PI2_NEURON_RATES; i++) {
        if (rates->units[i] <= 0) continue;
        const double chance = chance_above(rates->sums[i] / rates->units[i], limit);
        units += rates->units[i] * chance;
        *used_out += rates->sums[i] * chance;
    }
    return units;
}

static double units_ever_used(const pi2_neuron_rates *rates) {
    double units = 0;
    for (size_t i = 0; i < PI2_NEURON_RATES; i++) units += rates->sums[i] > 0 ? rates->units[i] : 0;
    return units;
}

/* Of independent tokens. */
static double hits_of_hottest(const pi2_neuron_rates *rates, double slots) {
    const double used = pi2_neuron_rates_used(rates);
    double low = -1, high = 2, hits;
    if (used <= 0 || units_ever_used(rates) <= slots) return 1;
    for (int i = 0; i < STEPS; i++) {
        const double middle = 0.5 * (low + high);
        if (units_above(rates, middle, &hits) > slots) low = middle;
        else high = middle;
    }
    (void)units_above(rates, high, &hits);
    return fmin(1, hits / used);
}

/* Of what a token uses, the share that repeats though independent tokens would not have it so. */
static double held_over(const pi2_neuron_rates *rates) {
    double by_chance = 0;
    for (size_t i = 0; i < PI2_NEURON_RATES; i++) {
        if (rates->units[i] > 0) by_chance += rates->sums[i] * rates->sums[i] / rates->units[i];
    }
    by_chance /= pi2_neuron_rates_used(rates);
    return by_chance < 1 ? fmax(0, (rates->repeats - by_chance) / (1 - by_chance)) : 0;
}

double pi2_neuron_rates_hits(const pi2_neuron_rates *rates, double slots) {
    const double used = pi2_neuron_rates_used(rates);
    const double hits = hits_of_hottest(rates, slots);
    if (hits >= 1 || rates->repeats <= 0) return hits;
    const double held = held_over(rates), left = slots - held * used;
    if (left <= 0) return hits; /* not even what the last token used stays */
    return fmax(hits, held + (1 - held) * hits_of_hottest(rates, left));
}

/* ---- what nobody has counted ---- */

/* Where Up is cut off below zero too, four fifths of those that Gate lets through. */
static const double UP_PASSES = 0.8;

/* Above the cutoffs, on the average of the layers that have one. */
static double share_above_cutoffs(const pi2_model_shape *shape) {
    double above = 0;
    uint32_t layers = 0;
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        if (!pi2_layer_cuts_gate(shape, i)) continue;
        above += erfc((double)shape->gate_deviations[i] / sqrt(2)) / 2;
        layers++;
    }
    return layers ? above / layers : 1;
}

double pi2_neuron_assumed_share(const pi2_model_shape *shape, double *gate_out) {
    if (shape->activation == PI2_FFN_gelu_topk) return *gate_out = share_above_cutoffs(shape);
    const bool cuts_up = shape->activation == PI2_FFN_drelu;
    const double gives = !pi2_model_has_experts(shape) ? 0.1 : cuts_up ? 0.12 : 0.4;
    *gate_out = cuts_up ? gives / UP_PASSES : gives;
    return gives;
}

double pi2_neuron_assumed_hits(double held, double fires) {
    const double skew = 4; /* (2 / 3) to the fourth is a fifth */
    if (held >= 1) return 1;
    return 1 - pow(1 - held, fires * skew < 1 ? skew : 1 / fires);
}

double pi2_neuron_assumed_rate(double place, double fires, double visits, uint32_t neurons) {
    enum { PARTS = 64 };
    const double part = floor(place * PARTS);
    const double hits = pi2_neuron_assumed_hits((part + 1) / PARTS, fires) -
                        pi2_neuron_assumed_hits(part / PARTS, fires);
    const double one = fmin(1, PARTS * hits * fires);
    return visits * (1 - pow(1 - one, neurons));
}

void pi2_neuron_rates_assume(pi2_neuron_rates *rates, double fires, double visits, double units, uint32_t neurons) {
    enum { PARTS = 64 };
    for (int part = 0; part < PARTS; part++) {
        const double rate = pi2_neuron_assumed_rate((part + 0.5) / PARTS, fires, visits, neurons);
        pi2_neuron_rates_add(rates, rate, units / PARTS);
    }
}

bool pi2_neuron_layout_pays(const pi2_model_shape *shape) {
    if (!pi2_model_has_experts(shape) || !pi2_model_shape_fires(shape)) return pi2_model_shape_fires(shape);
    /* With a half of the experts in memory, or a third of the neurons, at 4.5 bits a weight. */
    const double neurons = pi2_ffn_length(shape), bits = 4.5;
    const double bytes = 3 * neurons * shape->embedding_length * bits / 8;
    double fires;
    (void)pi2_neuron_assumed_share(shape, &fires);
    return pi2_small_reads_pay(neurons * fires * (1 - pi2_neuron_assumed_hits(1.0 / 3, fires)), 0, bytes / 2);
}
