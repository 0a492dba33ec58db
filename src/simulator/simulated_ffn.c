/* simulated_ffn.c: FFNs of which a pass uses a part: single neurons, or experts. */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "pipeline/pass_choice.h"
#include "simulator/simulated_pass_internal.h"

/* ---- single neurons, as pipeline/forward_neurons.c has them ---- */

/* Neurons lie in the file in another order than Gate has them in: a part of Gate names units from everywhere. */
static uint32_t part_of(uint32_t unit) { return (unit * 2654435761u >> 16) % PI2_SIMULATED_GATE_PARTS; }

/* The pass's units of a bank by the part of Gate that names them, ascending within each. */
static void sort_by_part(pi2_simulated_walk *walk, const uint32_t *units, uint32_t count) {
    uint32_t *first = walk->late_first;
    memset(first, 0, (PI2_SIMULATED_GATE_PARTS + 1) * sizeof *first);
    for (uint32_t i = 0; i < count; i++) first[part_of(units[i]) + 1]++;
    for (uint32_t part = 0; part < PI2_SIMULATED_GATE_PARTS; part++) first[part + 1] += first[part];
    for (uint32_t i = 0; i < count; i++) walk->late[first[part_of(units[i])]++] = units[i];
    for (uint32_t part = PI2_SIMULATED_GATE_PARTS; part > 0; part--) first[part] = first[part - 1];
    first[0] = 0;
}

/* Asks for the late units from `asked` on, as many together as a thread gathers, in the file's order. */
static void ask(pi2_simulated_walk *walk, uint32_t bank, uint32_t asked, uint32_t late_count) {
    uint32_t units[PI2_WANTED_TOGETHER];
    while (asked < late_count) {
        uint32_t count = 0;
        for (; count < PI2_WANTED_TOGETHER && asked < late_count; count++) {
            const uint32_t unit = walk->late[asked++];
            uint32_t at = count;
            for (; at > 0 && units[at - 1] > unit; at--) units[at] = units[at - 1];
            units[at] = unit;
        }
        pi2_neuron_store_want(walk->stores->neurons, bank, units, count);
    }
}

/*
 * Gate, part by part: threads gather what is not there, and ask when each has enough of it. Late units stay in the
 * list's front part, in the order in which they were found late; late_first[part] becomes where a part's begin. Returns
 * how many are there.
 */
static uint32_t gate(pi2_simulated_walk *walk, uint32_t bank) {
    pi2_neuron_store *neurons = walk->stores->neurons;
    const uint32_t together = PI2_WANTED_TOGETHER * walk->workload->threads;
    uint32_t here = 0, late_count = 0, asked = 0, begin = 0;
    for (uint32_t part = 0; part < PI2_SIMULATED_GATE_PARTS; part++) {
        const uint32_t end = walk->late_first[part + 1], late_before = late_count;
        pi2_simulated_work(walk, walk->gate_seconds / PI2_SIMULATED_GATE_PARTS + (end - begin) * walk->find_seconds);
        if (end > begin) pi2_neuron_store_collect(neurons);
        for (uint32_t i = begin; i < end; i++) {
            if (!pi2_neuron_store_hit(neurons, bank, walk->late[i])) walk->late[late_count++] = walk->late[i];
        }
        here += end - begin - (late_count - late_before);
        begin = end;
        walk->late_first[part + 1] = late_count;
        if (late_count - asked < together) continue;
        ask(walk, bank, asked, late_count);
        asked = late_count;
    }
    ask(walk, bank, asked, late_count);
    pi2_neuron_store_note(neurons, bank, here + late_count, here);
    return here;
}

/* Parts that a layer is computed in, as pipeline/forward_neurons.c has it. */
static uint32_t parts_of(const pi2_simulated_walk *walk, uint32_t bank, uint32_t late_count) {
    const uint32_t neurons = walk->uses->banks->banks[bank].neuron_count;
    const uint32_t segments = (neurons + PI2_NEURON_SEGMENT - 1) / PI2_NEURON_SEGMENT;
    const uint32_t each = (segments + PI2_NEURON_PARTS - 1) / PI2_NEURON_PARTS;
    return late_count ? (segments + each - 1) / each : 1;
}

/* The late units of some parts of Gate: those that found no read are asked for again, then each is waited for. */
static pi2_status late_units(pi2_simulated_walk *walk, uint32_t bank, uint32_t begin, uint32_t end) {
    pi2_neuron_store *neurons = walk->stores->neurons;
    const uint32_t first_unit = walk->disk->first_unit[bank];
    const uint8_t *memory;
    for (uint32_t i = begin; i < end; i++) {
        if (pi2_neuron_store_has(neurons, bank, walk->late[i])) continue;
        pi2_neuron_store_want(neurons, bank, &walk->late[i], 1);
    }
    for (uint32_t i = begin; i < end; i++) {
        PI2_TRY(pi2_neuron_store_take(neurons, bank, walk->late[i], &memory));
        pi2_simulated_wait(walk, walk->disk->unit_there[first_unit + walk->late[i]]);
        pi2_simulated_work(walk, walk->bring_seconds + walk->neuron_seconds);
    }
    return PI2_OK;
}

pi2_status pi2_simulated_neurons_of(pi2_simulated_walk *walk, const pi2_group *group) {
    const uint8_t *by_neuron = walk->run->plan.by_neuron;
    const uint32_t bank = walk->bank_of[group->layer];
    const uint32_t begin = walk->uses->first[bank], count = walk->uses->first[bank + 1] - begin;
    for (uint32_t e = group->first_extent; e < group->first_extent + group->extent_count; e++) {
        if (by_neuron[e]) continue;
        PI2_TRY(pi2_simulated_await_extent(walk, e)); /* Gate, which stays as a rule */
        pi2_simulated_leave_extent(walk, e);
    }
    uint32_t near_count;
    const uint8_t *near = pi2_simulated_uses_near(walk->uses, bank, &near_count);
    if (near) pi2_neuron_store_set_near(walk->stores->neurons, bank, near, near_count);
    sort_by_part(walk, walk->uses->keys + begin, count);
    const uint32_t here = gate(walk, bank), parts = parts_of(walk, bank, count - here);
    pi2_simulated_work(walk, here * walk->neuron_seconds);
    for (uint32_t part = 0; part < parts; part++) {
        const uint32_t first = part * PI2_SIMULATED_GATE_PARTS / parts;
        const uint32_t last = (part + 1) * PI2_SIMULATED_GATE_PARTS / parts;
        PI2_TRY(late_units(walk, bank, walk->late_first[first], walk->late_first[last]));
        pi2_simulated_work(walk, (double)count / parts * walk->column_seconds);
    }
    pi2_neuron_store_begin_layer(walk->stores->neurons);
    return PI2_OK;
}

/* ---- experts, as pipeline/forward_experts.c has them ---- */

/* When the last extent of an expert was there. */
static double expert_there(const pi2_simulated_walk *walk, const pi2_group *group) {
    double there = 0;
    for (uint32_t e = group->first_extent; e < group->first_extent + group->extent_count; e++) {
        if (walk->disk->extent_there[e] > there) there = walk->disk->extent_there[e];
    }
    return there;
}

static bool has_arrived(const pi2_simulated_walk *walk, uint32_t key, const pi2_group *group) {
    for (uint32_t i = 0; i < group->extent_count; i++) {
        if (!pi2_expert_cache_arrived(walk->stores->experts, key, i)) return false;
    }
    return true;
}

/* Of the demanded experts that are not done yet, the one that is there first; `count`: none has a slot. */
static uint32_t find_first(const pi2_simulated_walk *walk, uint32_t count) {
    const pi2_group *groups = walk->run->source.model->layout->groups;
    uint32_t first = count;
    double least = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t key = walk->expert_keys[i];
        if (key == PI2_NO_RUN || !has_arrived(walk, key, &groups[walk->expert_groups[key]])) continue;
        const double there = expert_there(walk, &groups[walk->expert_groups[key]]);
        if (first != count && there >= least) continue;
        first = i;
        least = there;
    }
    return first;
}

/* Extents are computed as they arrive; `rows` tokens meet each. */
static pi2_status compute_expert(pi2_simulated_walk *walk, uint32_t key, uint32_t rows) {
    const pi2_group *group = &walk->run->source.model->layout->groups[walk->expert_groups[key]];
    const uint8_t *memory;
    for (uint32_t i = 0; i < group->extent_count; i++) {
        PI2_TRY(pi2_expert_cache_open(walk->stores->experts, key, i, &memory));
        pi2_simulated_wait(walk, walk->disk->extent_there[group->first_extent + i]);
        pi2_simulated_work(walk, pi2_simulated_extent_seconds(walk, group->first_extent + i, rows));
    }
    pi2_expert_cache_release(walk->stores->experts, key);
    return PI2_OK;
}

pi2_status pi2_simulated_experts_of(pi2_simulated_walk *walk, uint32_t layer) {
    const pi2_model *model = walk->run->source.model;
    const uint32_t experts = pi2_layer_ffns(&model->shape), first_key = model->layers[layer].first_key;
    const uint32_t number = first_key / experts, begin = walk->uses->first[number];
    const uint32_t count = walk->uses->first[number + 1] - begin;
    if (count == 0) return PI2_OK;
    for (uint32_t i = 0; i < count; i++) walk->expert_keys[i] = first_key + walk->uses->keys[begin + i];
    const uint64_t visits = (uint64_t)walk->tokens * pi2_token_ffns(&model->shape);
    const uint32_t rows = visits > count ? (uint32_t)(visits / count) : 1;
    pi2_expert_cache_demand(walk->stores->experts, walk->expert_keys,
                            walk->tokens >= PI2_BATCH_LEAST ? walk->alike : NULL, count);
    for (uint32_t done = 0; done < count; done++) {
        int mark;
        PI2_TRY(pi2_expert_cache_poll(walk->stores->experts, &mark));
        const uint32_t next = find_first(walk, count);
        if (next == count) {
            return pi2_fail(PI2_ERR_MEMORY, "the cache of experts has too few slots for layer %u's %u: give more "
                            "memory", layer, count);
        }
        PI2_TRY(compute_expert(walk, walk->expert_keys[next], rows));
        walk->expert_keys[next] = PI2_NO_RUN;
    }
    return PI2_OK;
}
