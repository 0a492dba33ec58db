/* routing_forecast.c: makes a trace of the run to come, and replays it. */
#include "planner/routing_forecast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "planner/trace_replay.h"

enum {
    LEAST_TOKENS = 8, WARM_TOKENS = 64, COUNTED_TOKENS = 128, MOST_TOKENS = 512, MOST_PROMPT = 1024,
    EXPERTS_MOST = 4096, MOST_BATCHES = 16, AGAIN = 4
};

struct pi2_routing_forecast {
    uint32_t layers, experts, used;
    pi2_trace trace;          /* recorded; no demands: even routing */
    uint32_t *first_demand;   /* [token_count]: of tokens that were computed alone */
    uint32_t token_count;
};

/* ---- what a token chooses ---- */

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/** Marks the experts that a token to come chooses in a layer: chosen[experts] of 0 and 1. */
static void choose(const pi2_routing_forecast *f, uint32_t token, uint32_t layer, uint8_t *chosen) {
    if (f->token_count) {
        const uint32_t d = f->first_demand[token % f->token_count] + layer;
        for (uint32_t i = f->trace.demands[d].begin; i < f->trace.demands[d + 1].begin; i++) {
            chosen[f->trace.keys[i] % f->experts] = 1;
        }
        return;
    }
    uint8_t own[EXPERTS_MOST] = {0};
    uint64_t state = mix(((uint64_t)token << 32) + layer);
    for (uint32_t count = 0; count < f->used;) {
        state = mix(state);
        const uint32_t expert = (uint32_t)(state % f->experts);
        if (own[expert]) continue;
        own[expert] = chosen[expert] = 1;
        count++;
    }
}

double pi2_routing_forecast_distinct(const pi2_routing_forecast *f, uint32_t tokens) {
    const double share = (double)f->used / f->experts;
    const double even = f->experts * (1 - pow(1 - share, tokens));
    if (f->token_count == 0) return even;
    uint64_t sum = 0;
    uint32_t batches = 0;
    const uint32_t length = tokens < f->token_count ? tokens : f->token_count;
    for (uint32_t begin = 0; begin + length <= f->token_count && batches < MOST_BATCHES; begin += length) {
        batches++;
        for (uint32_t layer = 0; layer < f->layers; layer++) {
            uint8_t chosen[EXPERTS_MOST] = {0};
            for (uint32_t t = 0; t < length; t++) choose(f, begin + t, layer, chosen);
            for (uint32_t e = 0; e < f->experts; e++) sum += chosen[e];
        }
    }
    return (double)sum / ((double)batches * f->layers);
}

/* ---- a recorded trace ---- */

static uint32_t layer_of(const pi2_routing_forecast *f, uint32_t d) {
    return f->trace.keys[f->trace.demands[d].begin] / f->experts;
}

/** Whether demands d .. d + layers - 1 are one token's, layer by layer. */
static bool is_token(const pi2_routing_forecast *f, uint32_t d) {
    if (d + f->layers > f->trace.demand_count) return false;
    for (uint32_t layer = 0; layer < f->layers; layer++) {
        const pi2_trace_demand *demand = &f->trace.demands[d + layer];
        if (demand->pass_tokens != 1 || layer_of(f, d + layer) != layer) return false;
        if (demand[1].begin - demand->begin != f->used) return false;
    }
    return true;
}

static pi2_status open_trace(pi2_routing_forecast *f, const char *path) {
    PI2_TRY(pi2_trace_read_experts(path, &f->trace));
    const pi2_trace_header *header = &f->trace.header;
    if (header->layer_count != f->layers || header->expert_count != f->experts || header->used_count != f->used) {
        return pi2_fail(PI2_ERR_INVALID, "%s: a trace of another model (%u layers of %u experts, %u used), this one "
                        "has %u of %u, %u used", path, header->layer_count, header->expert_count, header->used_count,
                        f->layers, f->experts, f->used);
    }
    f->first_demand = calloc((size_t)f->trace.demand_count / f->layers + 1, sizeof *f->first_demand);
    if (!f->first_demand) return pi2_fail(PI2_ERR_MEMORY, "no memory for a routing trace");
    for (uint32_t d = 0; d < f->trace.demand_count;) {
        const bool token = is_token(f, d);
        if (token) f->first_demand[f->token_count++] = d;
        d += token ? f->layers : 1;
    }
    if (f->token_count >= LEAST_TOKENS) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s: holds %u tokens that were computed alone, %d are needed: record a longer "
                    "answer", path, f->token_count, (int)LEAST_TOKENS);
}

pi2_status pi2_routing_forecast_open(uint32_t layers, uint32_t experts, uint32_t used, const char *trace_path,
                                     pi2_routing_forecast **forecast_out) {
    *forecast_out = NULL;
    if (layers == 0 || experts == 0 || experts > EXPERTS_MOST || used == 0 || used > experts) {
        return pi2_fail(PI2_ERR_INVALID, "the routing of %u layers of %u experts, %u used, cannot be predicted",
                        layers, experts, used);
    }
    pi2_routing_forecast *f = calloc(1, sizeof *f);
    if (!f) return pi2_fail(PI2_ERR_MEMORY, "no memory for a forecast of routing");
    f->layers = layers;
    f->experts = experts;
    f->used = used;
    const pi2_status status = trace_path ? open_trace(f, trace_path) : PI2_OK;
    if (status != PI2_OK) {
        pi2_routing_forecast_close(f);
        return status;
    }
    *forecast_out = f;
    return PI2_OK;
}

void pi2_routing_forecast_close(pi2_routing_forecast *f) {
    if (!f) return;
    pi2_trace_free(&f->trace);
    free(f->first_demand);
    free(f);
}

uint32_t pi2_routing_forecast_tokens(const pi2_routing_forecast *f) { return f->token_count; }

/* ---- the run to come ---- */

/** A trace that grows within what make_room() reserved. */
static void add_pass(const pi2_routing_forecast *f, uint32_t first, uint32_t tokens, pi2_trace *made) {
    for (uint32_t layer = 0; layer < f->layers; layer++) {
        pi2_batch_use uses[EXPERTS_MOST] = {{0, 0}};
        for (uint32_t t = 0; t < tokens; t++) {
            uint8_t chosen[EXPERTS_MOST];
            memset(chosen, 0, f->experts);
            choose(f, first + t, layer, chosen);
            const float worth = pi2_batch_worth(tokens - 1 - t);
            for (uint32_t e = 0; e < f->experts; e++) {
                uses[e].worth += chosen[e] ? worth : 0;
                uses[e].times += chosen[e];
            }
        }
        made->demands[made->demand_count++] = (pi2_trace_demand){made->key_count, tokens};
        for (uint32_t e = 0; e < f->experts; e++) {
            if (uses[e].times == 0) continue;
            made->uses[made->key_count] = uses[e];
            made->keys[made->key_count++] = layer * f->experts + e;
        }
    }
    made->demands[made->demand_count] = (pi2_trace_demand){made->key_count, 0};
    made->pass_count++;
}

static void add_prompt(const pi2_routing_forecast *f, const pi2_forecast_run *run, uint32_t prompt, pi2_trace *made) {
    for (uint32_t done = 0; done < prompt;) {
        const uint32_t left = prompt - done, tokens = left < run->batch_tokens ? left : run->batch_tokens;
        add_pass(f, done, tokens, made);
        done += tokens;
    }
}

static pi2_status make_room(const pi2_routing_forecast *f, uint32_t batches, uint32_t tokens, pi2_trace *made) {
    memset(made, 0, sizeof *made);
    made->header = (pi2_trace_header){f->layers, f->experts, f->used, 1};
    const size_t demands = ((size_t)batches + tokens) * f->layers;
    const size_t keys = ((size_t)batches * f->experts + (size_t)tokens * f->used) * f->layers;
    made->demands = calloc(demands + 1, sizeof *made->demands);
    made->keys = calloc(keys + 1, sizeof *made->keys);
    made->uses = calloc(keys + 1, sizeof *made->uses);
    if (made->demands && made->keys && made->uses) return PI2_OK;
    return pi2_fail(PI2_ERR_MEMORY, "no memory for a forecast of routing");
}

static pi2_status play(const pi2_trace *made, const pi2_forecast_run *run, uint32_t first_pass, double *hits_out) {
    pi2_replay_result result;
    const bool has_room = first_pass > 0 && run->hot_count <= pi2_hot_experts_most(run->slots);
    PI2_TRY(pi2_trace_replay_hot(made, run->policy, run->slots, run->hot_keys, has_room ? run->hot_count : 0,
                                 first_pass, &result));
    *hits_out = result.uses ? (double)result.hits / (double)result.uses : 0;
    return PI2_OK;
}

/** The prompt, and once more several times: a policy may need to see what comes again. */
static pi2_status play_prompts(const pi2_routing_forecast *f, const pi2_forecast_run *run, uint32_t prompt,
                               uint32_t batches, pi2_forecast_hits *hits) {
    pi2_trace made;
    pi2_status status = make_room(f, (1 + AGAIN) * batches, 0, &made);
    if (status == PI2_OK) {
        add_prompt(f, run, prompt, &made);
        status = play(&made, run, 0, &hits->cold);
        for (int i = 0; i < AGAIN; i++) add_prompt(f, run, prompt, &made);
        if (status == PI2_OK) status = play(&made, run, batches, &hits->prompt);
    }
    pi2_trace_free(&made);
    return status;
}

static pi2_status play_answer(const pi2_routing_forecast *f, const pi2_forecast_run *run, uint32_t prompt,
                              uint32_t batches, pi2_forecast_hits *hits) {
    uint32_t warm = 0, counted = run->answer_tokens < MOST_TOKENS ? run->answer_tokens : MOST_TOKENS, first = prompt;
    if (run->answer_tokens == 0) {
        warm = WARM_TOKENS;
        counted = COUNTED_TOKENS;
        if (f->token_count) { /* what was recorded is played once: a second time it would be known */
            const uint32_t all = f->token_count < MOST_TOKENS ? f->token_count : MOST_TOKENS;
            warm = all / 2;
            counted = all - warm;
            first = 0;
        }
    }
    pi2_trace made;
    pi2_status status = make_room(f, batches, warm + counted, &made);
    if (status == PI2_OK) {
        add_prompt(f, run, prompt, &made);
        for (uint32_t t = 0; t < warm + counted; t++) add_pass(f, first + t, 1, &made);
        status = play(&made, run, batches + warm, &hits->answer);
    }
    pi2_trace_free(&made);
    return status;
}

pi2_status pi2_routing_forecast_run(const pi2_routing_forecast *f, const pi2_forecast_run *run,
                                    pi2_forecast_hits *hits) {
    const uint32_t prompt = run->prompt_tokens < MOST_PROMPT ? run->prompt_tokens : MOST_PROMPT;
    const uint32_t batches = (prompt + run->batch_tokens - 1) / run->batch_tokens;
    *hits = (pi2_forecast_hits){0, 0, 0};
    PI2_TRY(play_prompts(f, run, prompt, batches, hits));
    return play_answer(f, run, prompt, batches, hits);
}
