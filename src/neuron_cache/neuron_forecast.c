/* neuron_forecast.c: the clock's steady state, class by class of equally frequent units. */
#include "neuron_cache/neuron_forecast.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "neuron_cache/neuron_store.h"

enum { STEPS = 60 };
static const double SHORTEST_TURN = 1e-6, LONGEST_TURN = 1e12; /* of the hand, in tokens */

static_assert(PI2_NEURON_STORE_MOST_USES == 3, "fate_of() is solved for three uses");

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

/** How often a unit is used in one turn of the hand: not, once, twice, more often. */
typedef struct turn_uses {
    double none, one, two, more;
} turn_uses;

/** Each of so many tokens, a whole number, uses it with probability p. */
static turn_uses uses_in(double p, double tokens) {
    if (p >= 1) return (turn_uses){ tokens < 1, tokens >= 1 && tokens < 2, tokens >= 2 && tokens < 3, tokens >= 3 };
    const double none = exp(tokens * log1p(-p)), odds = p / (1 - p);
    const double one = none * tokens * odds, two = one * (tokens - 1) / 2 * odds;
    return (turn_uses){ none, one, two, fmax(0, 1 - none - one - two) };
}

/** What becomes of a unit: of the time, the share in memory; of its uses, the share that finds it there. */
typedef struct unit_fate {
    double in_memory, hits;
} unit_fate;

/*
 * A token asks for its units in the order of the layers, so one that it uses is used again after a whole number of
 * tokens at the earliest. When the hand comes round more than once in a token, a unit has left by then, however often
 * it is used. Else it comes round once in `turn` tokens, which are now one fewer and now one more.
 *
 * A unit comes with no uses left. At each turn the hand takes one of at most three, or the unit where there are none.
 * The turns that it stays with 0, 1 and 2 uses left:
 *   stay0 = 1 + one stay0 + two stay1 + more stay2
 *   stay1 = 1 + none stay0 + one stay1 + (two + more) stay2
 *   stay2 = 1 + none stay1 + (one + two + more) stay2
 * After it has left it comes back with its next use.
 */
static unit_fate fate_of(double p, double turn) {
    if (p <= 0) return (unit_fate){ 0, 0 };
    if (turn < 1) return (unit_fate){ p * turn, 0 };
    const double whole = floor(turn), part = turn - whole;
    const turn_uses few = uses_in(p, whole), many = uses_in(p, whole + 1);
    const double none = (1 - part) * few.none + part * many.none, one = (1 - part) * few.one + part * many.one;
    const double more = (1 - part) * few.more + part * many.more, several = fmax(0, 1 - none - one);
    if (!(none > 1e-100)) return (unit_fate){ 1, 1 };
    const double turns = (1 + several * (1 + several / none) / none + more / none) / none, uses = p * turns * turn;
    return (unit_fate){ fmin(1, turns * turn * p / (uses + 1)), uses / (uses + 1) };
}

static unit_fate fate_of_all(const pi2_neuron_rates *rates, double turn) {
    unit_fate sum = { 0, 0 };
    for (size_t i = 0; i < PI2_NEURON_RATES; i++) {
        if (rates->units[i] <= 0) continue;
        const unit_fate fate = fate_of(rates->sums[i] / rates->units[i], turn);
        sum.in_memory += rates->units[i] * fate.in_memory;
        sum.hits += rates->sums[i] * fate.hits;
    }
    return sum;
}

double pi2_neuron_rates_hits(const pi2_neuron_rates *rates, double slots) {
    const double used = pi2_neuron_rates_used(rates);
    double low = SHORTEST_TURN, high = LONGEST_TURN;
    if (used <= 0) return 1;
    const unit_fate most = fate_of_all(rates, high);
    if (most.in_memory <= slots) return fmin(1, most.hits / used); /* all that is ever used */
    for (int i = 0; i < STEPS; i++) {
        const double middle = sqrt(low * high);
        if (fate_of_all(rates, middle).in_memory > slots) high = middle;
        else low = middle;
    }
    /* Where one turn more keeps many units, some of them are kept. */
    const unit_fate below = fate_of_all(rates, low), above = fate_of_all(rates, high);
    const double wider = above.in_memory - below.in_memory;
    const double share = wider > 1e-9 ? fmax(0, fmin(1, (slots - below.in_memory) / wider)) : 0;
    return fmin(1, (below.hits + share * (above.hits - below.hits)) / used);
}
