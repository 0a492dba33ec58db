/* simulated_neurons.c: see simulated_neurons.h. */
#include "simulator/simulated_neurons.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "neuron_cache/cache_policy.h"
#include "neuron_cache/unit_heat.h"
#include "planner/neuron_forecast.h"
#include "synthetic/random_blocks.h"

/* Of a neuron, in 2^32ths: that it fires after it did, after it did not, and that it is predicted where it does not. */
typedef struct chances {
    uint32_t again, anew, in_vain;
} chances;

struct pi2_simulated_neurons {
    const pi2_simulated_model *model;
    uint32_t batch, hot, slots, present_count;
    bool keeps;
    pi2_random random;
    uint64_t factor;        /* of this pass's `anew`, in 65536ths */
    chances *chances;       /* [batch][neurons]: of a neuron that so many sequences may make fire */
    uint8_t *fired;         /* of every neuron, in the last pass that used its expert */
    uint8_t *present;
    uint32_t *used_by;      /* the layer ("epoch") that used it last: it may not leave meanwhile */
    uint32_t epoch;
    uint8_t *chosen, *asked; /* experts: by how many sequences; [sequence][used]: which */
    uint32_t *missed;       /* keys, to be admitted once the layer is booked */
    const pi2_cache_policy *policy;
    void *state;
};

static uint32_t per_2_32(double chance) { return chance >= 1 ? UINT32_MAX : (uint32_t)(chance * 4294967296.0); }

/** How often the neuron of a rank fires for one token. */
static double rate_of(const pi2_simulated_model *model, uint32_t rank) {
    const double from = (double)rank / model->neurons, to = (rank + 1.0) / model->neurons;
    const double hits = model->skew > 0 ? pow(1 - from, model->skew) - pow(1 - to, model->skew)
                                        : pi2_neuron_assumed_hits(to, model->active) -
                                              pi2_neuron_assumed_hits(from, model->active);
    return fmin(1, hits * model->neurons * model->active);
}

static void set_chances(pi2_simulated_neurons *neurons) {
    const pi2_simulated_model *model = neurons->model;
    for (uint32_t sequences = 1; sequences <= neurons->batch; sequences++) {
        for (uint32_t i = 0; i < model->neurons; i++) {
            const double one = 1 - pow(1 - rate_of(model, i), sequences);
            chances *of = &neurons->chances[(size_t)(sequences - 1) * model->neurons + i];
            of->again = per_2_32(one + model->repeat * (1 - one));
            of->anew = per_2_32(one * (1 - model->repeat));
            of->in_vain = per_2_32(one < 1 ? one * (1 / model->precision - 1) / (1 - one) : 0);
        }
    }
}

/** The slots begin with the neurons that fire most, of every layer and expert alike. */
static void fill(pi2_simulated_neurons *neurons) {
    const pi2_simulated_model *model = neurons->model;
    const uint32_t groups = model->layers * model->experts;
    for (uint32_t rank = neurons->hot; rank < model->neurons; rank++) {
        for (uint32_t group = 0; group < groups; group++) {
            if (neurons->present_count == neurons->slots) return;
            const uint32_t key = group * model->neurons + rank;
            neurons->policy->admit(neurons->state, key);
            neurons->present[key] = 1;
            neurons->present_count++;
        }
    }
}

pi2_status pi2_simulated_neurons_create(const pi2_simulated_model *model, const pi2_simulation *simulation,
                                        double hot_share, uint32_t slots, pi2_simulated_neurons **neurons_out) {
    const char *name = simulation->policy ? simulation->policy : "mix";
    const pi2_cache_policy *policy = pi2_cache_policy_find(name);
    if (!policy || !pi2_unit_rule_find(policy->name)) {
        return pi2_fail(PI2_ERR_INVALID, "simulate: '%s' is no policy for single neurons: 'mix', 'heat' and 'lru' are",
                        name);
    }
    const uint32_t keys = model->layers * model->experts * model->neurons;
    pi2_simulated_neurons *neurons = calloc(1, sizeof *neurons);
    if (!neurons) return pi2_fail(PI2_ERR_MEMORY, "simulate: no memory for %u neurons", keys);
    *neurons_out = neurons;
    neurons->model = model;
    neurons->batch = simulation->batch;
    neurons->hot = (uint32_t)(hot_share * model->neurons + 0.5);
    neurons->slots = slots < keys ? slots : keys;
    neurons->keeps = neurons->slots > 0;
    neurons->random.state = simulation->seed;
    neurons->policy = policy;
    neurons->chances = malloc((size_t)simulation->batch * model->neurons * sizeof *neurons->chances);
    neurons->fired = calloc(2, keys);
    neurons->used_by = calloc(keys, sizeof *neurons->used_by);
    neurons->chosen = calloc(1, model->experts + (size_t)simulation->batch * model->experts_used);
    neurons->missed = malloc((size_t)model->neurons * model->experts * sizeof *neurons->missed);
    neurons->state = neurons->keeps ? malloc(policy->bytes(keys, neurons->slots)) : NULL;
    if (!neurons->chances || !neurons->fired || !neurons->used_by || !neurons->chosen || !neurons->missed ||
        (neurons->keeps && !neurons->state)) {
        pi2_simulated_neurons_free(neurons);
        *neurons_out = NULL;
        return pi2_fail(PI2_ERR_MEMORY, "simulate: no memory for %u neurons", keys);
    }
    neurons->present = neurons->fired + keys;
    neurons->asked = neurons->chosen + model->experts;
    for (uint32_t i = 0; i < simulation->batch * model->experts_used; i++) {
        neurons->asked[i] = (uint8_t)(i % model->experts_used);
    }
    set_chances(neurons);
    if (neurons->keeps) {
        policy->init(neurons->state, keys, neurons->slots);
        fill(neurons);
    }
    return PI2_OK;
}

void pi2_simulated_neurons_free(pi2_simulated_neurons *neurons) {
    if (!neurons) return;
    free(neurons->chances);
    free(neurons->fired);
    free(neurons->used_by);
    free(neurons->chosen);
    free(neurons->missed);
    free(neurons->state);
    free(neurons);
}

uint32_t pi2_simulated_neurons_hot(const pi2_simulated_neurons *neurons) { return neurons->hot; }

/** Passes differ by a factor that has the mean 1. */
static void draw_factor(pi2_simulated_neurons *neurons) {
    const double spread = neurons->model->spread;
    const double factor = exp(spread * (double)pi2_random_normal(&neurons->random) - spread * spread / 2);
    neurons->factor = (uint64_t)(65536 * fmin(factor, 65535));
}

void pi2_simulated_neurons_begin_pass(pi2_simulated_neurons *neurons) {
    draw_factor(neurons);
    if (neurons->keeps && neurons->policy->begin_pass) neurons->policy->begin_pass(neurons->state, 1);
}

static bool may_leave(const void *user, uint32_t key) {
    const pi2_simulated_neurons *neurons = user;
    return neurons->used_by[key] != neurons->epoch;
}

/** Each sequence draws its experts anew. */
static void choose_experts(pi2_simulated_neurons *neurons) {
    const pi2_simulated_model *model = neurons->model;
    memset(neurons->chosen, 0, model->experts);
    for (uint32_t sequence = 0; sequence < neurons->batch; sequence++) {
        uint8_t *asked = neurons->asked + (size_t)sequence * model->experts_used;
        for (uint32_t i = 0; i < model->experts_used; i++) {
            bool is_new = false;
            while (model->experts_used < model->experts && !is_new) { /* one that the others are not */
                asked[i] = (uint8_t)(pi2_random_next(&neurons->random) % model->experts);
                is_new = true;
                for (uint32_t k = 0; k < i; k++) is_new &= asked[k] != asked[i];
            }
            neurons->chosen[asked[i]]++;
        }
    }
}

/** Books a neuron that is predicted; whether it is there. */
static bool find(pi2_simulated_neurons *neurons, uint32_t key) {
    neurons->used_by[key] = neurons->epoch;
    if (!neurons->present[key]) return false;
    neurons->policy->hit(neurons->state, key);
    return true;
}

/** False: this layer uses all that are there. */
static bool admit(pi2_simulated_neurons *neurons, uint32_t key) {
    if (neurons->present_count == neurons->slots) {
        const uint32_t left = neurons->policy->evict(neurons->state, may_leave, neurons);
        if (left == UINT32_MAX) return false;
        neurons->present[left] = 0;
        neurons->present_count--;
    }
    neurons->policy->admit(neurons->state, key);
    neurons->present[key] = 1;
    neurons->present_count++;
    return true;
}

/** Of one expert, which so many sequences use. Returns the keys missed so far. */
static uint32_t draw_expert(pi2_simulated_neurons *neurons, uint32_t first_key, uint32_t sequences, uint32_t missed,
                            pi2_simulated_work *work) {
    const pi2_simulated_model *model = neurons->model;
    const chances *of = neurons->chances + (size_t)(sequences - 1) * model->neurons;
    const bool reads_all = model->rest_read_bytes <= 0; /* a read of Gate brings the rest */
    for (uint32_t i = neurons->hot; i < model->neurons; i++) {
        const uint32_t key = first_key + i;
        const uint64_t drawn = pi2_random_next(&neurons->random);
        const uint64_t chance = neurons->fired[key] ? of[i].again : of[i].anew * neurons->factor >> 16;
        const bool fires = (uint32_t)drawn < chance;
        neurons->fired[key] = fires;
        if (!fires && (uint32_t)(drawn >> 32) >= of[i].in_vain) continue;
        pi2_simulated_part *part = &work->parts[(uint64_t)i * PI2_SIMULATED_PARTS / model->neurons];
        if (find(neurons, key)) {
            part->hits++;
            part->hit_fires += fires;
        } else {
            part->misses++;
            part->miss_fires += fires;
            if (neurons->keeps && (fires || reads_all)) neurons->missed[missed++] = key;
        }
    }
    return missed;
}

uint32_t pi2_simulated_neurons_draw(pi2_simulated_neurons *neurons, uint32_t layer, pi2_simulated_work *work) {
    const pi2_simulated_model *model = neurons->model;
    uint32_t used = 0, missed = 0;
    memset(work->parts, 0, sizeof work->parts);
    neurons->epoch++;
    choose_experts(neurons);
    const uint32_t layer_keys = model->experts * model->neurons;
    if (neurons->keeps && neurons->policy->begin_layer) {
        neurons->policy->begin_layer(neurons->state, (layer + 1) * layer_keys);
    }
    for (uint32_t expert = 0; expert < model->experts; expert++) {
        if (!neurons->chosen[expert]) continue;
        used++;
        const uint32_t first_key = layer * layer_keys + expert * model->neurons;
        missed = draw_expert(neurons, first_key, neurons->chosen[expert], missed, work);
    }
    /* Where one finds no room the rest of the layer finds none, and each would look at every slot. */
    for (uint32_t i = 0; i < missed && admit(neurons, neurons->missed[i]); i++) {}
    return used;
}
