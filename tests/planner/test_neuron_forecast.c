/*
 * Goal:   the share of its units that a token finds in memory is forecast as the store's rules then find it: where
 *         tokens are drawn independently `heat` comes within 7 points, and `mix`, which waits for what repeats, 11,
 *         where it does and where it does not.
 * Method: cases that can be told by hand; the rule played with drawn tokens, of several kinds of models.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "planner/neuron_forecast.h"
#include "neuron_cache/neuron_store.h"

enum { LAYERS = 4, LAYER_UNITS = 500, UNITS = LAYERS * LAYER_UNITS, TOKENS = 400, FIRST_COUNTED = 150 };

static void test_by_hand(void **state) {
    (void)state;
    pi2_neuron_rates rates = {0};
    assert_true(pi2_neuron_rates_hits(&rates, 10) == 1); /* nothing is used: nothing is missed */
    pi2_neuron_rates_add(&rates, 0.125, 1000);
    assert_true(fabs(pi2_neuron_rates_used(&rates) - 125) < 1e-9);
    /* Where any unit is as likely as any other, no cache finds more than its share. */
    for (int slots = 200; slots < 1000; slots += 100) {
        assert_true(fabs(pi2_neuron_rates_hits(&rates, slots) - slots / 1000.0) < 0.005);
    }
    assert_true(pi2_neuron_rates_hits(&rates, 1000) == 1);
    assert_true(fabs(pi2_neuron_rates_hits(&rates, 100) - 0.1) < 0.005);
    /* Units that are never used take no slots. */
    pi2_neuron_rates_add(&rates, 0, 5000);
    assert_true(pi2_neuron_rates_hits(&rates, 1000) == 1);
    assert_true(fabs(pi2_neuron_rates_hits(&rates, 500) - 0.5) < 0.01);
    /* Units of every token stay beside rare ones. */
    memset(&rates, 0, sizeof rates);
    pi2_neuron_rates_add(&rates, 1, 100);
    pi2_neuron_rates_add(&rates, 0.01, 10000);
    const double hits = pi2_neuron_rates_hits(&rates, 1100);
    assert_true(hits > 0.5 + 0.5 * 0.09 && hits < 0.5 + 0.5 * 0.11);
}

/* ---- the rule, played ---- */

typedef struct rule_run {
    double probability[UNITS], heat[UNITS]; /* of all units, in a slot or not, as it is in this token */
    int slot_of[UNITS], last[UNITS];        /* the token that used it last */
    int unit[UNITS], epoch[UNITS]; /* of slots */
    int slots, hand, now;
    bool mixes;
    double holds;                  /* the chance that a unit does what it did for the token before */
    bool was_used[UNITS];
    uint64_t random;
    double used, hits, again;      /* again: uses of what the token before used, too */
} rule_run;

static double draw(rule_run *run) {
    run->random = run->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(run->random >> 33) / 2147483648.0;
}

/* By the rule `heat` how often a unit was used; by `mix` how lately too. */
static double worth_of(const rule_run *run, int unit, int layer) {
    const int token = run->now / LAYERS, missed = token - run->last[unit] - (unit / LAYER_UNITS > layer);
    return 0.6 * run->heat[unit] / PI2_NEURON_FADE_SHARE + (run->mixes ? 0.2 * pow(0.5, missed) : 0);
}

/* An empty slot, or the least worth of the next ones that this layer does not use. */
static int free_slot(rule_run *run, int layer) {
    int victim = -1, seen = 0;
    double least = 0;
    for (int turn = 0; turn < run->slots && seen < PI2_NEURON_VICTIMS; turn++) {
        const int slot = run->hand;
        run->hand = run->hand + 1 == run->slots ? 0 : run->hand + 1;
        if (run->unit[slot] < 0) return slot;
        if (run->epoch[slot] == run->now) continue;
        seen++;
        const double worth = worth_of(run, run->unit[slot], layer);
        if (victim >= 0 && worth >= least) continue;
        least = worth;
        victim = slot;
    }
    run->slot_of[run->unit[victim]] = -1;
    return victim;
}

static void play_layer(rule_run *run, int layer, int is_counted) {
    int missed[LAYER_UNITS], missed_count = 0;
    for (int unit = layer * LAYER_UNITS; unit < (layer + 1) * LAYER_UNITS; unit++) {
        const bool was_used = run->was_used[unit], is_held = run->holds > 0 && draw(run) < run->holds;
        run->heat[unit] *= 1.0 - 1.0 / PI2_NEURON_FADE_SHARE;
        run->was_used[unit] = is_held ? was_used : draw(run) < run->probability[unit];
        if (!run->was_used[unit]) continue;
        const int slot = run->slot_of[unit];
        run->used += is_counted;
        run->again += is_counted && was_used;
        run->heat[unit] += 1;
        run->last[unit] = run->now / LAYERS;
        if (slot < 0) {
            missed[missed_count++] = unit;
            continue;
        }
        run->hits += is_counted;
        run->epoch[slot] = run->now;
    }
    for (int i = 0; i < missed_count; i++) {
        const int slot = free_slot(run, layer);
        run->unit[slot] = missed[i];
        run->slot_of[missed[i]] = slot;
        run->epoch[slot] = run->now;
    }
    run->now++;
}

/** How likely a token uses unit number `place` of a layer. */
typedef double model_kind(double place);
static double even(double place) { return 0.1 + 0 * place; }
static double steep(double place) { return 0.5 * exp(-5 * place); }
static double two_kinds(double place) { return place < 0.3 ? 0.25 : 0.03; }
static double always_some(double place) { return fmin(1, 0.03 / (place + 0.03)); }

static void compare(model_kind *kind, int percent, bool mixes, double holds) {
    rule_run *run = calloc(1, sizeof *run);
    pi2_neuron_rates *rates = calloc(1, sizeof *rates);
    assert_true(run && rates);
    run->slots = UNITS / 100 * percent;
    run->random = 7;
    run->mixes = mixes;
    run->holds = holds;
    for (int unit = 0; unit < UNITS; unit++) {
        run->probability[unit] = kind((unit % LAYER_UNITS + 0.5) / LAYER_UNITS);
        run->slot_of[unit] = run->unit[unit] = run->epoch[unit] = -1;
        pi2_neuron_rates_add(rates, run->probability[unit], 1);
    }
    for (int token = 0; token < TOKENS; token++) {
        for (int layer = 0; layer < LAYERS; layer++) play_layer(run, layer, token >= FIRST_COUNTED);
    }
    const double unaware = pi2_neuron_rates_hits(rates, run->slots);
    if (holds > 0) rates->repeats = run->again / run->used;
    const double found = run->hits / run->used, forecast = pi2_neuron_rates_hits(rates, run->slots);
    assert_true(forecast >= unaware && (holds > 0 || forecast <= unaware));
    if (fabs(found - forecast) > (mixes ? 0.11 : 0.07)) {
        fail_msg("%d %% of the slots%s: %.3f, forecast %.3f", percent, mixes ? ", mix" : "", found, forecast);
    }
    free(rates);
    free(run);
}

static void test_as_the_rule(void **state) {
    (void)state;
    model_kind *const kinds[] = {even, steep, two_kinds, always_some};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (int percent = 30; percent < 100; percent += 10) {
            compare(kinds[k], percent, false, 0);
            compare(kinds[k], percent, true, 0);
            compare(kinds[k], percent, true, 0.3);
            compare(kinds[k], percent, true, 0.6);
        }
    }
}

static void add_experts(pi2_model_shape *shape, uint32_t count) {
    shape->expert_count = count;
    shape->layer_count = 1;
    pi2_layer_add(&shape->layers[0], PI2_BLOCK_ffn_experts);
}

static void test_what_is_assumed(void **state) {
    (void)state;
    pi2_model_shape shape = {.activation = PI2_FFN_relu};
    double gate, hits = 0;
    assert_true(pi2_neuron_assumed_share(&shape, &gate) == 0.1 && gate == 0.1);
    add_experts(&shape, 64);
    assert_true(pi2_neuron_assumed_share(&shape, &gate) == 0.4 && gate == 0.4);
    shape.activation = PI2_FFN_drelu; /* Gate lets more through than give something */
    assert_true(pi2_neuron_assumed_share(&shape, &gate) == 0.12 && gate > 0.12 && gate < 0.2);
    shape = (pi2_model_shape){ .activation = PI2_FFN_gelu_topk, .layer_count = 3,
                               .gate_deviations = { 1.6448536f, -INFINITY, 0.0f } };
    assert_true(fabs(pi2_neuron_assumed_share(&shape, &gate) - (0.05 + 0.5) / 2) < 1e-6);
    assert_true(fabs(gate - (0.05 + 0.5) / 2) < 1e-6 && pi2_neuron_layout_pays(&shape));
    shape.gate_deviations[0] = shape.gate_deviations[2] = -INFINITY; /* plain gelu everywhere */
    assert_false(pi2_neuron_layout_pays(&shape));
    for (int i = 1; i <= 20; i++) {
        const double more = pi2_neuron_assumed_hits(i / 20.0, 0.1);
        assert_true(more > hits && more <= 1);
        hits = more;
    }
    assert_true(pi2_neuron_assumed_hits(0, 0.1) == 0 && hits == 1);
    assert_true(fabs(pi2_neuron_assumed_hits(1.0 / 3, 0.1) - 0.8) < 0.005);
    assert_true(fabs(pi2_neuron_assumed_hits(0.5, 0.1) - 0.94) < 0.005);
    assert_true(fabs(pi2_neuron_assumed_hits(0.25, 1) - 0.25) < 1e-12); /* all fire always */
    /* The same as units: they are used as often, and what fires is shared out so. */
    static const double fires[] = { 0.1, 0.125, 0.4, 0.9 };
    for (size_t i = 0; i < sizeof fires / sizeof fires[0]; i++) {
        pi2_neuron_rates rates = { 0 };
        pi2_neuron_rates_assume(&rates, fires[i], 1, 64000, 1);
        assert_true(fabs(pi2_neuron_rates_used(&rates) - 64000 * fires[i]) < 64);
        /* A store that takes rates for heat mistakes some units for others: a little less. */
        const double found = pi2_neuron_rates_hits(&rates, 64000 / 3.0);
        assert_in_range((uint64_t)(1000 * (pi2_neuron_assumed_hits(1.0 / 3, fires[i]) - found)), 0, 60);
    }
}

static void test_which_files_hold_single_neurons(void **state) {
    (void)state;
    pi2_model_shape shape = {.embedding_length = 4096, .activation = PI2_FFN_silu};
    assert_false(pi2_neuron_layout_pays(&shape));
    shape.activation = PI2_FFN_relu;
    assert_true(pi2_neuron_layout_pays(&shape));
    add_experts(&shape, 8); /* TurboSparse-Mixtral */
    shape.activation = PI2_FFN_drelu;
    shape.expert_feed_forward_length = 14336;
    assert_true(pi2_neuron_layout_pays(&shape));
    shape.activation = PI2_FFN_silu;
    assert_false(pi2_neuron_layout_pays(&shape));
    shape = (pi2_model_shape){.embedding_length = 2560, .activation = PI2_FFN_relu, .expert_feed_forward_length = 768};
    add_experts(&shape, 64); /* SmallThinker */
    assert_false(pi2_neuron_layout_pays(&shape));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_by_hand), cmocka_unit_test(test_as_the_rule),
                                       cmocka_unit_test(test_what_is_assumed),
                                       cmocka_unit_test(test_which_files_hold_single_neurons)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
