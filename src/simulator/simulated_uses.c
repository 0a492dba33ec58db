/* simulated_uses.c: see simulated_uses.h. */
#include "simulator/simulated_uses.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "neuron_cache/neuron_store.h"
#include "planner/run_prediction_neurons.h"
#include "planner/trace_replay.h"

enum { MOST_TOKENS = 1 << 20 /* of a trace */ };

/* ---- recorded ---- */

static pi2_status refuse(const char *path, const char *what) {
    return pi2_fail(PI2_ERR_INVALID, "%s: %s: it is of another model or another file of its weights; record it again",
                    path, what);
}

static pi2_status check_shape(const pi2_simulated_uses *uses, const char *path) {
    const pi2_trace_header *header = &uses->trace.header;
    char text[160];
    if (uses->banks) {
        const uint32_t units = pi2_neuron_store_layer_keys(uses->banks);
        if (header->used_count == 0 && header->layer_count == uses->layers && header->expert_count == units) {
            return PI2_OK;
        }
        (void)snprintf(text, sizeof text, "a trace of single neurons of %u layers with up to %u units was expected, "
                       "this one is of %u with %u%s", uses->layers, units, header->layer_count, header->expert_count,
                       header->used_count ? " experts" : "");
        return refuse(path, text);
    }
    if (header->used_count == uses->used && header->layer_count == uses->layers &&
        header->expert_count == uses->experts) return PI2_OK;
    (void)snprintf(text, sizeof text, "a trace of %u layers with %u of %u experts was expected, this one is of %u with "
                   "%u of %u", uses->layers, uses->used, uses->experts, header->layer_count, header->used_count,
                   header->expert_count);
    return refuse(path, text);
}

/* A unit's number must be one of its bank's: banks may be smaller than the largest. Counts passes and their tokens. */
static pi2_status check_demands(pi2_simulated_uses *uses, const char *path) {
    const pi2_trace *trace = &uses->trace;
    uint64_t tokens = 0;
    for (uint32_t d = 0; d < trace->demand_count; d++) {
        const uint32_t begin = trace->demands[d].begin, end = trace->demands[d + 1].begin;
        const uint32_t layer = trace->keys[begin] / trace->header.expert_count;
        const uint32_t last = trace->keys[end - 1] % trace->header.expert_count;
        if (uses->banks && last >= uses->banks->banks[layer].unit_count) {
            char text[96];
            (void)snprintf(text, sizeof text, "use %u is of unit %u of layer %u, which has %u", end - 1, last, layer,
                           uses->banks->banks[layer].unit_count);
            return refuse(path, text);
        }
        if (!pi2_trace_begins_pass(trace, d)) continue;
        uses->pass_count++;
        tokens += trace->demands[d].pass_tokens;
    }
    if (uses->pass_count == 0) return pi2_fail(PI2_ERR_FORMAT, "%s: the trace has no passes; record it again", path);
    if (trace->token_count > MOST_TOKENS) {
        return pi2_fail(PI2_ERR_INVALID, "%s: the trace has %llu tokens, and at most %d are simulated", path,
                        (unsigned long long)trace->token_count, MOST_TOKENS);
    }
    if (tokens > trace->token_count) { /* what looks like more passes than the trace names */
        return pi2_fail(PI2_ERR_FORMAT, "%s: the layers of a pass do not ascend; record it again", path);
    }
    uses->prompt_tokens = (uint32_t)(trace->token_count - tokens);
    return PI2_OK;
}

static pi2_status open_trace(pi2_simulated_uses *uses, const char *path) {
    PI2_TRY(pi2_trace_read(path, &uses->trace));
    uses->is_recorded = true;
    uses->pass_count = 0;
    PI2_TRY(check_shape(uses, path));
    PI2_TRY(check_demands(uses, path));
    (void)snprintf(uses->grounds, sizeof uses->grounds, "recorded in %.200s (%u passes)", path, uses->pass_count);
    return PI2_OK;
}

/* A layer's demand of a pass stands once, and layers ascend. */
static void next_recorded(pi2_simulated_uses *uses) {
    const pi2_trace *trace = &uses->trace;
    const uint32_t experts = trace->header.expert_count;
    uint32_t layer = 0, count = 0;
    uses->tokens = trace->demands[uses->demand].pass_tokens;
    uses->begin = uses->demand;
    do {
        const uint32_t begin = trace->demands[uses->demand].begin, end = trace->demands[uses->demand + 1].begin;
        const uint32_t own = trace->keys[begin] / experts;
        while (layer <= own) uses->drawn_first[layer++] = count;
        for (uint32_t i = begin; i < end && count < uses->most; i++) uses->drawn[count++] = trace->keys[i] % experts;
        uses->demand++;
    } while (uses->demand < trace->demand_count && !pi2_trace_begins_pass(trace, uses->demand));
    while (layer <= uses->layers) uses->drawn_first[layer++] = count;
}

const uint8_t *pi2_simulated_uses_near(const pi2_simulated_uses *uses, uint32_t bank, uint32_t *count_out) {
    const pi2_trace *trace = &uses->trace;
    if (!uses->is_recorded || !trace->near_of) return NULL;
    for (uint32_t d = uses->begin; d < trace->demand_count; d++) {
        if (d > uses->begin && pi2_trace_begins_pass(trace, d)) return NULL;
        if (trace->keys[trace->demands[d].begin] / trace->header.expert_count != bank) continue;
        *count_out = trace->near_of[d].count;
        return trace->near_of[d].count ? trace->near + trace->near_of[d].begin : NULL;
    }
    return NULL;
}

/* ---- drawn ---- */

static uint32_t draw_experts(pi2_simulated_uses *uses, uint32_t count) {
    const uint64_t before = uses->token;
    for (uint32_t token = 0; token < uses->tokens; token++) {
        uses->token++;
        for (uint32_t i = 0; i < uses->used; i++) { /* one that this token has not yet */
            uint32_t expert;
            do expert = (uint32_t)(pi2_random_next(&uses->random) % uses->experts);
            while (uses->chosen_by[expert] == uses->token);
            uses->chosen_by[expert] = uses->token;
        }
    }
    for (uint32_t e = 0; e < uses->experts; e++) {
        if (uses->chosen_by[e] > before) uses->drawn[count++] = e;
    }
    return count;
}

/* A unit is used when one of the pass's tokens uses it. */
static uint32_t draw_units(pi2_simulated_uses *uses, uint32_t bank, uint32_t first_unit, uint32_t count) {
    const uint32_t units = uses->banks->banks[bank].unit_count;
    for (uint32_t u = 0; u < units; u++) {
        const float rate = uses->rates[first_unit + u];
        bool is_used = false;
        for (uint32_t token = 0; token < uses->tokens && !is_used; token++) {
            is_used = pi2_random_uniform(&uses->random, 0, 1) < rate;
        }
        if (is_used) uses->drawn[count++] = u;
    }
    return count;
}

static void next_drawn(pi2_simulated_uses *uses, uint32_t tokens) {
    uint32_t count = 0, first_unit = 0;
    uses->tokens = tokens;
    for (uint32_t layer = 0; layer < uses->layers; layer++) {
        uses->drawn_first[layer] = count;
        if (uses->banks) {
            count = draw_units(uses, layer, first_unit, count);
            first_unit += uses->banks->banks[layer].unit_count;
        } else {
            count = draw_experts(uses, count);
        }
    }
    uses->drawn_first[uses->layers] = count;
}

void pi2_simulated_uses_next(pi2_simulated_uses *uses, uint32_t tokens) {
    if (uses->is_recorded) next_recorded(uses);
    else next_drawn(uses, tokens);
    uses->keys = uses->drawn;
    uses->first = uses->drawn_first;
}

/* ---- opening ---- */

static pi2_status make_lists(pi2_simulated_uses *uses) {
    size_t most = (size_t)uses->layers * uses->experts;
    for (uint32_t b = 0; uses->banks && b < uses->banks->count; b++) most += uses->banks->banks[b].unit_count;
    if (most >= UINT32_MAX) return pi2_fail(PI2_ERR_UNSUPPORTED, "%zu units of neurons are too many", most);
    uses->most = (uint32_t)most;
    uses->drawn = malloc((most + 1) * sizeof *uses->drawn);
    uses->drawn_first = calloc(uses->layers + (size_t)1, sizeof *uses->drawn_first);
    uses->rates = calloc(uses->banks ? most + 1 : 1, sizeof *uses->rates);
    uses->chosen_by = calloc(uses->experts + (size_t)1, sizeof *uses->chosen_by);
    if (uses->drawn && uses->drawn_first && uses->rates && uses->chosen_by) return PI2_OK;
    return pi2_fail(PI2_ERR_MEMORY, "no memory to list what passes use");
}

static pi2_status open_uses(const pi2_planned_run *run, const char *trace, const char *statistics,
                            pi2_simulated_uses *uses) {
    const pi2_model_shape *shape = &run->source.model->shape;
    if (!uses->banks && !pi2_model_has_experts(shape)) {
        if (!trace && !statistics) return PI2_OK;
        return pi2_fail(PI2_ERR_INVALID, "%s: every token uses every weight as this run is planned: neither trace nor "
                        "statistics change that", run->source.model_path);
    }
    uses->layers = uses->banks ? uses->banks->count : pi2_model_expert_layers(shape);
    uses->experts = uses->banks ? 0 : pi2_layer_ffns(shape);
    uses->used = uses->banks ? 0 : pi2_token_ffns(shape);
    PI2_TRY(make_lists(uses));
    if (trace) return open_trace(uses, trace);
    if (uses->banks) {
        return pi2_run_unit_rates(run, statistics, uses->rates, uses->grounds, sizeof uses->grounds);
    }
    (void)snprintf(uses->grounds, sizeof uses->grounds,
                   "assumed: every expert is as likely as any other, for each token anew");
    return PI2_OK;
}

pi2_status pi2_simulated_uses_open(const pi2_planned_run *run, const pi2_neuron_banks *banks, const char *trace,
                                   const char *statistics, uint64_t seed, pi2_simulated_uses *uses) {
    *uses = (pi2_simulated_uses){ .banks = banks, .pass_count = UINT32_MAX,
                                  .random = pi2_random_named(seed, "uses of a simulated run") };
    const pi2_status status = open_uses(run, trace, statistics, uses);
    if (status != PI2_OK) pi2_simulated_uses_close(uses);
    return status;
}

void pi2_simulated_uses_close(pi2_simulated_uses *uses) {
    pi2_trace_free(&uses->trace);
    free(uses->rates);
    free(uses->drawn);
    free(uses->drawn_first);
    free(uses->chosen_by);
    memset(uses, 0, sizeof *uses);
}
