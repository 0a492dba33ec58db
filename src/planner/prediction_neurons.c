/* prediction_neurons.c: a pass that reads and computes the neurons that fire alone (pipeline/forward_neurons.c). */
#include <math.h>

#include "pipeline/pass_choice.h"
#include "planner/prediction_internal.h"
#include "store/store.h"

#define divide pi2_prediction_divide

/** What a pass does with its neurons, in all layers together. */
typedef struct neuron_work {
    double gate, up, down; /* seconds of computing */
    double missed;         /* units that are read */
} neuron_work;

bool pi2_predict_goes_by_neuron(const pi2_workload_neurons *n, uint64_t streamed_bytes, uint32_t tokens) {
    if (n->units == 0 || tokens > n->pass_tokens) return false;
    const uint64_t visited = tokens * n->token_expert_bytes, most = n->most_expert_bytes;
    const pi2_pass_choice choice = { .units = n->units, .slots = n->slots, .unit_bytes = n->unit_bytes,
                                     .streamed_bytes = streamed_bytes + (visited < most ? visited : most),
                                     .used = divide(n->used_units, (double)n->units), .missed = 1 - n->hits };
    return n->is_always || pi2_pass_goes_by_neuron(&choice, tokens);
}

/** Units that some token of the pass uses: those of one token are taken to be as likely as any others. */
static double used_units(const pi2_workload_neurons *n, uint32_t tokens) {
    const double all = (double)n->units, share = divide(n->used_units, all);
    return tokens == 1 ? n->used_units : all * (1 - pow(1 - fmin(share, 1), tokens));
}

double pi2_predict_neuron_misses(const pi2_workload *w, uint32_t tokens) {
    return used_units(&w->neurons, tokens) * (1 - w->neurons.hits);
}

static neuron_work find_work(const pi2_prediction_setting *s, const pi2_pass *pass, double *spread) {
    const pi2_workload_neurons *n = &s->w->neurons;
    const double tokens = pass->tokens; /* each token's neurons are its own */
    neuron_work work = { .missed = pi2_predict_neuron_misses(s->w, pass->tokens) };
    double of_gate = 0; /* all rows of Gate, each by itself */
    if (s->w->experts.count) { /* all of their weights have one role, and a token uses some */
        const double used = divide(s->w->experts.used, s->w->experts.count);
        work.gate = n->gate_part * pi2_prediction_matrices(s, pass, PI2_ROLE_EXPERT, spread);
        work.up = used * pi2_prediction_rows(s, PI2_ROLE_EXPERT, spread);
        of_gate = n->gate_part * work.up;
        work.up *= n->up_part;
        work.down = used * n->down_part * pi2_prediction_columns(s, PI2_ROLE_EXPERT, n->gives, spread);
    } else {
        work.gate = pi2_prediction_matrices(s, pass, PI2_ROLE_GATE, spread);
        work.up = pi2_prediction_rows(s, PI2_ROLE_UP, spread);
        of_gate = pi2_prediction_rows(s, PI2_ROLE_GATE, spread);
        work.down = pi2_prediction_columns(s, PI2_ROLE_DOWN, n->gives, spread);
    }
    if (n->is_named) work.gate = tokens * (pi2_prediction_predictor(s, spread) + n->fires * of_gate);
    work.up *= tokens * n->fires;
    work.down *= tokens * n->gives;
    /* Of experts nobody is told of Gates: they would be old. */
    const double told = s->w->experts.count || n->is_named ? 0 : (double)n->layers * s->w->feed_forward;
    work.gate += pi2_prediction_store(s, "tell", tokens * told, spread) +
                 pi2_prediction_store(s, "find", used_units(n, pass->tokens), spread);
    work.up += pi2_prediction_bringing(s, work.missed, spread);
    return work;
}

/** Seconds until the Gates that a layer misses are there. */
static double read_gates(const pi2_prediction_setting *s, uint32_t tokens, double *spread) {
    const pi2_workload_neurons *n = &s->w->neurons;
    if (n->gate_bytes == 0 || n->gate_hits >= 1) return 0;
    const double bytes = pi2_predict_distinct(s->w, tokens) * (1 - n->gate_hits) * (double)n->gate_bytes;
    const uint32_t most = s->w->experts.read_block, block = n->gate_bytes < most ? (uint32_t)n->gate_bytes : most;
    return divide(bytes, pi2_prediction_disk(s, block, divide(bytes, block), spread));
}

double pi2_predict_neuron_fill(const pi2_prediction_setting *s) {
    const double bytes = (double)s->w->neurons.slots * s->w->neurons.unit_bytes;
    return divide(bytes, pi2_prediction_disk(s, s->w->read_block, PI2_READ_DEPTH, NULL));
}

/*
 * A layer's reads are asked for while its Gate is computed, and arrive under Gate and Up; those that the last Gate rows
 * ask for take the time of one read after them. Down waits for all.
 */
pi2_pass_time pi2_predict_neuron_pass(const pi2_prediction_setting *s, const pi2_pass *pass) {
    const pi2_workload_neurons *n = &s->w->neurons;
    double compute_spread = 0, read_spread = 0;
    const neuron_work work = find_work(s, pass, &compute_spread);
    const double layers = n->layers, missed = work.missed / layers, bytes = missed * n->read_bytes;
    const double read = divide(bytes, pi2_prediction_disk(s, n->read_bytes, missed, &read_spread));
    const double last = fmin(missed, 1) * divide(n->read_bytes, pi2_prediction_disk(s, n->read_bytes, 1, NULL));
    const double gate = work.gate / layers;
    const double busy = gate + work.up / layers + pi2_prediction_lost(s, bytes, n->read_bytes, missed);
    const double gates = read_gates(s, pass->tokens, &read_spread); /* before anybody knows who fires */
    const double layer = fmax(busy, gates + fmax(read, gate + last));
    const double others = pi2_prediction_matrices(s, pass, PI2_ROLE_PLAIN, &compute_spread) +
                          pi2_prediction_between(s, pass) + pi2_prediction_stages(s, n->stages_per_pass) + work.down;
    pi2_pass_time time = { .read = layers * (gates + read), .compute = others + layers * busy,
                           .seconds = others + layers * layer };
    time.exposed = time.seconds - time.compute;
    const double share = time.seconds > 0 ? time.exposed / time.seconds : 0;
    time.spread = share * read_spread + (1 - share) * compute_spread;
    if (!pass->cold) return time;
    const double loaded = (double)s->w->resident_bytes;
    time.seconds += divide(loaded, pi2_prediction_disk(s, s->w->read_block, PI2_READ_DEPTH, NULL)) +
                    pi2_predict_neuron_fill(s);
    return time;
}
