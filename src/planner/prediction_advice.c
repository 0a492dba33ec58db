/* prediction_advice.c: what would help: the prediction made again with one thing changed. */
#include <stdio.h>
#include <string.h>

#include "planner/prediction.h"
#include "powerinfer2/sizes.h"

typedef struct advising {
    const pi2_machine_profile *profile;
    uint32_t prompt, position;
    double before;
    pi2_advice *advice;
    size_t count;
} advising;

static void try_change(advising *a, const pi2_workload *w, const pi2_what_if *what_if, const char *what) {
    pi2_prediction with;
    pi2_predict(w, a->profile, what_if, a->prompt, a->position, &with);
    const double speed = with.decode.tokens_per_second;
    if (a->before <= 0 || speed < 1.05 * a->before || a->count == PI2_ADVICE_MOST) return;
    size_t place = a->count++;
    for (; place > 0 && a->advice[place - 1].tokens_per_second < speed; place--) {
        a->advice[place] = a->advice[place - 1];
    }
    a->advice[place] = (pi2_advice){.tokens_per_second = speed, .factor = speed / a->before};
    (void)snprintf(a->advice[place].what, sizeof a->advice[place].what, "%s", what);
}

static void replay(pi2_workload *w) {
    if (w->replay) w->replay(w->replay_user, w);
}

/** Bytes that memory lacks for all weights; for all neurons where those are read one by one. */
static uint64_t missing_bytes(const pi2_workload *w) {
    const uint64_t experts = (uint64_t)w->experts.count * pi2_prediction_expert_layers(w);
    const pi2_workload_neurons *n = &w->neurons;
    const uint64_t gates = n->gate_bytes ? (experts - n->gate_slots) * n->gate_bytes : 0;
    if (n->units) return (n->units - n->slots) * n->unit_bytes + gates;
    return w->read_bytes + (experts - w->experts.slots) * w->experts.expert_bytes;
}

/** Spends more memory: first on what every token uses, then on experts; on Gates of experts and on neurons before what
 *  only prompts use. */
static void add_memory(pi2_workload *w, uint64_t bytes) {
    pi2_workload_neurons *n = &w->neurons;
    if (n->gate_bytes) {
        const uint64_t slots = bytes / n->gate_bytes;
        const uint64_t missing = w->experts.count * pi2_prediction_expert_layers(w) - n->gate_slots;
        const uint64_t more = slots < missing ? slots : missing;
        n->gate_slots += (uint32_t)more;
        w->budget_bytes += more * n->gate_bytes;
        bytes -= more * n->gate_bytes;
    }
    if (n->units) {
        const uint64_t slots = bytes / n->unit_bytes, more = slots < n->units - n->slots ? slots : n->units - n->slots;
        n->slots += more;
        w->budget_bytes += more * n->unit_bytes;
        bytes -= more * n->unit_bytes;
        replay(w);
    }
    const uint64_t dense = bytes < w->read_bytes ? bytes : w->read_bytes;
    w->read_bytes -= dense;
    w->resident_bytes += dense;
    w->budget_bytes += bytes;
    bytes -= dense;
    const uint32_t all = w->experts.count * pi2_prediction_expert_layers(w);
    if (all == 0) return;
    const uint64_t more = bytes / w->experts.expert_bytes;
    w->experts.slots = more < all - w->experts.slots ? w->experts.slots + (uint32_t)more : all;
    replay(w);
}

static void try_memory(advising *a, const pi2_workload *w) {
    const uint64_t missing = missing_bytes(w);
    char what[64], size[PI2_SIZE_TEXT_BYTES];
    pi2_workload changed = *w;
    if (missing > w->budget_bytes) {
        add_memory(&changed, w->budget_bytes);
        (void)snprintf(what, sizeof what, "twice the memory (%s)", pi2_format_size(changed.budget_bytes, size));
        try_change(a, &changed, &pi2_as_it_is, what);
        changed = *w;
    }
    if (missing == 0) return;
    add_memory(&changed, missing);
    if (!w->neurons.units) changed.embedding_streams = false;
    (void)snprintf(what, sizeof what, "memory for all %s (%s)", w->neurons.units ? "neurons" : "weights",
                   pi2_format_size(changed.budget_bytes, size));
    try_change(a, &changed, &pi2_as_it_is, what);
}

/* What llama-quantize would take one step further down, and its bits for a weight. */
static const struct { const char *from, *to; double bits; } smaller_types[] = {
    {"F32", "F16", 16},   {"F16", "Q8_0", 8.5}, {"BF16", "Q8_0", 8.5}, {"Q8_0", "Q6_K", 6.5625},
    {"Q6_K", "Q5_0", 5.5}, {"Q5_1", "Q5_0", 5.5}, {"Q5_0", "Q4_0", 4.5}, {"Q4_1", "Q4_0", 4.5}};

/** Each matrix in the next smaller type; the memory stays and holds more of them. The step of the
 *  type with the most bytes is named; false when there is none. */
static bool shrink(pi2_workload *w, char *what, size_t capacity) {
    uint64_t most = 0, dense_saved = 0, experts_before = 0, experts_after = 0;
    for (uint32_t i = 0; i < w->part_count; i++) {
        pi2_workload_weights *part = &w->parts[i];
        uint64_t bytes = part->bytes;
        for (size_t t = 0; t < sizeof smaller_types / sizeof smaller_types[0]; t++) {
            if (part->is_table || strcmp(part->type, smaller_types[t].from) != 0) continue;
            bytes = (uint64_t)((double)part->weights * smaller_types[t].bits / 8);
            if (part->bytes > most) {
                most = part->bytes;
                (void)snprintf(what, capacity, "smaller weights (%s to %s)", part->type, smaller_types[t].to);
            }
            part->type = smaller_types[t].to;
            break;
        }
        if (bytes > part->bytes) bytes = part->bytes;
        if (part->role == PI2_ROLE_EXPERT) {
            experts_before += part->bytes;
            experts_after += bytes;
        } else {
            dense_saved += part->bytes - bytes;
        }
        part->bytes = bytes;
    }
    const double share = experts_before ? (double)experts_after / (double)experts_before : 1;
    const uint64_t room = w->experts.slots * w->experts.expert_bytes;
    w->experts.expert_bytes = (uint64_t)((double)w->experts.expert_bytes * share);
    if (w->experts.expert_bytes) w->experts.slots = (uint32_t)(room / w->experts.expert_bytes);
    const uint32_t all = w->experts.count * pi2_prediction_expert_layers(w);
    if (w->experts.slots > all) w->experts.slots = all;
    w->resident_bytes -= dense_saved < w->resident_bytes ? dense_saved : w->resident_bytes;
    add_memory(w, dense_saved);
    w->budget_bytes -= dense_saved;
    return most > 0;
}

size_t pi2_predict_advice(const pi2_workload *w, const pi2_machine_profile *profile, uint32_t prompt,
                          uint32_t position, pi2_advice advice[PI2_ADVICE_MOST]) {
    pi2_prediction now;
    pi2_predict(w, profile, &pi2_as_it_is, prompt, position, &now);
    advising a = {profile, prompt, position, now.decode.tokens_per_second, advice, 0};
    try_memory(&a, w);
    pi2_what_if twice = pi2_as_it_is;
    twice.disk = 2;
    try_change(&a, w, &twice, "a disk twice as fast");
    twice = pi2_as_it_is;
    twice.memory = 2;
    try_change(&a, w, &twice, "memory of twice the bandwidth");
    twice = pi2_as_it_is;
    twice.compute = 2;
    try_change(&a, w, &twice, "processors twice as fast");
    char what[64];
    pi2_workload changed = *w;
    changed.threads = w->cores < PI2_THREADS_MOST ? w->cores : PI2_THREADS_MOST;
    (void)snprintf(what, sizeof what, w->cores <= PI2_THREADS_MOST ? "a thread on every processor (%u)"
                                                                       : "%u threads, the most there are",
                   changed.threads);
    if (w->threads < changed.threads) try_change(&a, &changed, &pi2_as_it_is, what);
    changed = *w;
    if (!w->neurons.units && shrink(&changed, what, sizeof what)) try_change(&a, &changed, &pi2_as_it_is, what);
    return a.count;
}
