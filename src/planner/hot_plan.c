/* hot_plan.c: counts uses, sorts experts, and tries shares of the slots. */
#include "planner/hot_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "planner/trace_replay.h"

enum { LEAST_PASSES = 32, MOST_PASSES = 512, RUN_PASSES = 64 };
static const double least_gain = 0.02;

const double pi2_hot_shares[PI2_HOT_SHARES] = { 0, 0.125, 0.25, 0.5, 0.75 };

typedef struct expert_uses {
    uint32_t key, uses;
} expert_uses;

static int by_uses(const void *left, const void *right) {
    const expert_uses *a = left, *b = right;
    if (a->uses != b->uses) return a->uses < b->uses ? 1 : -1;
    return a->key < b->key ? -1 : a->key > b->key;
}

static int by_key(const void *left, const void *right) {
    const uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

/* Every expert by its uses in the demands before `end`, the most used first; a batch's uses tell less. */
static void sort_experts(const pi2_trace *trace, uint32_t end, expert_uses *experts, uint32_t key_count) {
    for (uint32_t key = 0; key < key_count; key++) experts[key] = (expert_uses){ key, 0 };
    for (uint32_t d = 0; d < end; d++) {
        if (trace->demands[d].pass_tokens >= PI2_BATCH_LEAST) continue;
        for (uint32_t i = trace->demands[d].begin; i < trace->demands[d + 1].begin; i++) {
            experts[trace->keys[i]].uses++;
        }
    }
    qsort(experts, key_count, sizeof *experts, by_uses);
}

/* The most used ones that were used at all, as many as the share of the slots. */
static uint32_t choose(const expert_uses *experts, uint32_t key_count, uint32_t slot_count, double share,
                       uint32_t *keys) {
    const uint32_t most = pi2_hot_experts_most(slot_count);
    uint32_t wanted = (uint32_t)(share * slot_count + 0.5), count = 0;
    if (wanted > most) wanted = most;
    while (count < wanted && count < key_count && experts[count].uses > 0) {
        keys[count] = experts[count].key;
        count++;
    }
    qsort(keys, count, sizeof *keys, by_key);
    return count;
}

/* The demand that a pass begins with; the end: there is none. */
static uint32_t pass_begin(const pi2_trace *trace, uint32_t pass) {
    for (uint32_t d = 0; d < trace->demand_count; d++) {
        if (pi2_trace_begins_pass(trace, d) && pass-- == 0) return d;
    }
    return trace->demand_count;
}

static uint32_t count_passes(const pi2_trace *trace) {
    uint32_t passes = 0;
    for (uint32_t d = 0; d < trace->demand_count; d++) passes += pi2_trace_begins_pass(trace, d);
    return passes < MOST_PASSES ? passes : MOST_PASSES;
}

/* Runs of so many passes each, from `first` on: each begins as a run does, with an empty cache and reads of the hot. */
static pi2_status play_runs(const pi2_trace *trace, const pi2_cache_policy *policy, uint32_t slot_count, uint32_t first,
                            uint32_t end, uint32_t run_passes, uint32_t hot_count, pi2_hot_plan *plan,
                            double *reads_out) {
    uint64_t reads = 0, uses = 0;
    for (uint32_t pass = first; pass + run_passes <= end; pass += run_passes) {
        pi2_trace run = *trace;
        pi2_replay_result result;
        const uint32_t begin = pass_begin(trace, pass);
        run.demands += begin;
        run.demand_count = pass_begin(trace, pass + run_passes) - begin;
        PI2_TRY(pi2_trace_replay_hot(&run, policy, slot_count, plan->keys, hot_count, 0, &result));
        reads += result.uses - result.hits + hot_count;
        uses += result.uses;
    }
    *reads_out = uses ? (double)reads / (double)uses : 0;
    return PI2_OK;
}

static pi2_status try_shares(const pi2_trace *trace, const pi2_cache_policy *policy, uint32_t slot_count,
                             expert_uses *experts, uint32_t key_count, pi2_hot_plan *plan) {
    const uint32_t passes = count_passes(trace), half = passes / 2;
    const uint32_t run_passes = half < RUN_PASSES ? half : RUN_PASSES;
    plan->share = 0;
    if (half < LEAST_PASSES) return PI2_OK;
    plan->passes = half / run_passes * run_passes;
    sort_experts(trace, pass_begin(trace, passes - half), experts, key_count);
    double best = 0;
    for (int i = 0; i < PI2_HOT_SHARES; i++) {
        const uint32_t count = choose(experts, key_count, slot_count, pi2_hot_shares[i], plan->keys);
        PI2_TRY(play_runs(trace, policy, slot_count, passes - half, passes, run_passes, count, plan, &plan->reads[i]));
        if (i == 0) best = plan->reads[0] * (1 - least_gain);
        if (i == 0 || plan->reads[i] >= best) continue;
        best = plan->reads[i];
        plan->share = pi2_hot_shares[i];
    }
    return PI2_OK;
}

pi2_status pi2_hot_plan_make(const pi2_trace *trace, const pi2_cache_policy *policy, uint32_t slot_count, double share,
                             pi2_hot_plan *plan) {
    const uint32_t key_count = trace->header.layer_count * trace->header.expert_count;
    *plan = (pi2_hot_plan){ .share = share, .keys = malloc(key_count * sizeof *plan->keys) };
    expert_uses *experts = malloc(key_count * sizeof *experts);
    pi2_status status = PI2_OK;
    if (!plan->keys || !experts) status = pi2_fail(PI2_ERR_MEMORY, "no memory to choose among %u experts", key_count);
    else if (share < 0) status = try_shares(trace, policy, slot_count, experts, key_count, plan);
    if (status == PI2_OK) {
        sort_experts(trace, trace->demand_count, experts, key_count);
        plan->count = choose(experts, key_count, slot_count, plan->share, plan->keys);
    }
    free(experts);
    if (status != PI2_OK) pi2_hot_plan_free(plan);
    return status;
}

pi2_status pi2_hot_plan_choose(const pi2_trace *trace, uint32_t passes, uint32_t slot_count, double share,
                               pi2_hot_plan *plan) {
    pi2_trace first = *trace;
    uint32_t pass = 0, end = 0;
    for (; end < trace->demand_count; end++) {
        pass += pi2_trace_begins_pass(trace, end);
        if (pass > passes) break;
    }
    first.demand_count = end;
    return pi2_hot_plan_make(&first, NULL, slot_count, share, plan);
}

void pi2_hot_plan_free(pi2_hot_plan *plan) {
    free(plan->keys);
    memset(plan, 0, sizeof *plan);
}
