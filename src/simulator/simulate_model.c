/* simulate_model.c: see powerinfer2/simulate_model.h. */
#include "powerinfer2/simulate_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/run_source.h"
#include "planner/run_prediction.h"
#include "simulator/described_machine.h"
#include "simulator/simulated_pass.h"

void pi2_model_simulation_init(pi2_model_simulation *simulation) {
    *simulation = (pi2_model_simulation){ .prompt_tokens = 16, .tokens = 128, .seed = 1 };
}

typedef struct model_run {
    const pi2_model_simulation *asked;
    pi2_planned_run plan;
    pi2_machine_profile profile;
    pi2_workload workload;
    pi2_simulated_disk disk;
    pi2_simulated_stores stores;
    pi2_simulated_uses uses;
    pi2_simulated_walk walk;
    double *seconds;              /* of each pass that counts */
} model_run;

/* ---- what is simulated ---- */

static pi2_status check_asked(const pi2_model_simulation *asked) {
    if (asked->tokens == 0 || asked->tokens > PI2_SIMULATED_TOKENS_MOST) {
        return pi2_fail(PI2_ERR_INVALID, "simulate: %u tokens: use 1 to %d", asked->tokens, PI2_SIMULATED_TOKENS_MOST);
    }
    if (asked->prompt_tokens > PI2_SIMULATED_TOKENS_MOST) {
        return pi2_fail(PI2_ERR_INVALID, "simulate: a prompt of %u tokens: at most %d", asked->prompt_tokens,
                        PI2_SIMULATED_TOKENS_MOST);
    }
    return PI2_OK;
}

static pi2_status check_plan(const pi2_planned_run *run) {
    const char *path = run->source.model_path;
    if (pi2_model_has_experts(&run->source.model->shape) && run->plan.memory.neuron_bytes) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: its tokens compute single neurons of experts, which is not "
                        "simulated: with --sparsity off whole experts are", path);
    }
    if (run->plan.foretells && !run->plan.approximates) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a predictor that reads ahead is not simulated: leave "
                        "--predictor away", path);
    }
    return PI2_OK;
}

/* Drawing looks at every unit, or chooses every expert, for each token. */
static pi2_status check_draws(const model_run *r) {
    if (r->uses.is_recorded) return PI2_OK;
    const double tokens = (double)r->asked->tokens + r->asked->prompt_tokens;
    const double each = r->uses.most + (double)r->uses.layers * r->uses.used;
    if (tokens * each <= PI2_SIMULATION_DRAWS_MOST / 10) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "simulate: %.0f tokens draw %g uses, and at most %g are drawn: simulate fewer",
                    tokens, tokens * each, PI2_SIMULATION_DRAWS_MOST / 10);
}

/* A layout without a file gets the places that a cluster file would give it. */
static void place_extents(pi2_extent_layout *layout) {
    uint64_t at = PI2_EXTENT_ALIGNMENT;
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        layout->extents[e].file_offset = at;
        at += pi2_extent_read_bytes(&layout->extents[e]);
    }
}

/* Whatever disk the profile was measured on first, the model lies on it. */
static pi2_status adopt_disk(const pi2_planned_run *run, pi2_machine_profile *profile) {
    pi2_machine_disk disk;
    PI2_TRY(pi2_profile_place(run->source.weights_path, &disk));
    if (pi2_profile_find_disk(profile, &disk) != PI2_PROFILE_NO_DISK || profile->disk_count == 0) return PI2_OK;
    profile->disks[0].device = disk.device;
    return PI2_OK;
}

static pi2_status find_machine(model_run *r) {
    const pi2_simulated_device *device = r->asked->device;
    if (device) return pi2_described_machine(device, &r->profile);
    r->profile = *r->asked->profile;
    return PI2_OK;
}

static uint32_t threads_of(const model_run *r, uint32_t asked) {
    if (r->asked->device) return r->asked->device->threads;
    const uint32_t cores = r->profile.identity.cores, wanted = asked ? asked : cores;
    return wanted == 0 ? 1 : wanted > PI2_THREADS_MOST ? PI2_THREADS_MOST : wanted;
}

static pi2_status make_plan(model_run *r, const pi2_engine_options *options) {
    pi2_engine_options own = *options;
    own.machine = &r->profile;
    own.thread_count = threads_of(r, options->thread_count);
    own.allow_prepare = false;
    PI2_TRY(pi2_planned_run_make(&own, &r->plan));
    PI2_TRY(check_plan(&r->plan));
    if (!r->plan.source.model->has_file) place_extents(r->plan.source.model->layout);
    PI2_TRY(adopt_disk(&r->plan, &r->profile));
    const uint32_t prompt = r->asked->prompt_tokens;
    const pi2_prediction_request request = { .prompt_tokens = prompt ? prompt : 1, .position = prompt };
    PI2_TRY(pi2_run_workload(&r->plan, &r->profile, &request, &r->workload));
    /* This machine may have fewer processors than the one that is simulated. */
    r->workload.threads = own.thread_count;
    r->workload.cores = r->profile.identity.cores;
    return PI2_OK;
}

static pi2_status open_run(model_run *r, const pi2_engine_options *options) {
    const pi2_model_simulation *asked = r->asked;
    PI2_TRY(find_machine(r));
    PI2_TRY(make_plan(r, options));
    const pi2_neuron_banks *banks = r->plan.plan.memory.neuron_bytes ? r->plan.plan.banks : NULL;
    PI2_TRY(pi2_simulated_uses_open(&r->plan, banks, asked->trace, asked->statistics, asked->seed, &r->uses));
    PI2_TRY(check_draws(r));
    const uint32_t depth = banks ? PI2_SMALL_READ_DEPTH : PI2_READ_DEPTH;
    PI2_TRY(pi2_simulated_disk_make(r->plan.source.model->layout, banks, &r->workload, &r->profile, depth, &r->disk));
    const bool streams_alone = !pi2_model_has_experts(&r->plan.source.model->shape);
    r->disk.most_bytes = streams_alone ? pi2_ring_bytes_in_flight(r->plan.plan.memory.ring_bytes) : 0;
    PI2_TRY(pi2_simulated_stores_open(&r->plan, &r->disk, &r->stores));
    r->walk = (pi2_simulated_walk){ .run = &r->plan, .profile = &r->profile, .workload = &r->workload,
                                    .disk = &r->disk, .stores = &r->stores, .uses = &r->uses,
                                    .layer_seconds = asked->device ? asked->device->layer_seconds : 0,
                                    .neuron_efficiency = asked->device ? asked->device->sparse_efficiency : 1 };
    PI2_TRY(pi2_simulated_walk_begin(&r->walk));
    r->seconds = malloc(asked->tokens * sizeof *r->seconds);
    return r->seconds ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for %u passes", asked->tokens);
}

static void close_run(model_run *r) {
    free(r->seconds);
    pi2_simulated_walk_end(&r->walk);
    pi2_simulated_stores_close(&r->stores);
    pi2_simulated_disk_free(&r->disk);
    pi2_simulated_uses_close(&r->uses);
    pi2_planned_run_close(&r->plan);
    free(r);
}

/* ---- passes ---- */

/* Weights leave room that the key-value cache has lent them, for so many positions. */
static void return_loan(model_run *r, uint32_t positions) {
    const uint64_t wanted = pi2_run_plan_loan_due(&r->plan, positions), before = pi2_store_away_bytes(r->stores.store);
    if (wanted == 0) return;
    (void)pi2_store_give_back(r->stores.store, UINT32_MAX, wanted);
    r->plan.plan.loan_returned_bytes += pi2_store_away_bytes(r->stores.store) - before;
}

/* As engine/memory_relief.c has it: a pass ahead, and, where that was not foreseen, with an emptied ring. */
static pi2_status walk_pass(model_run *r, uint32_t tokens, uint32_t position, bool has_uses) {
    if (r->plan.plan.memory.loan_bytes) {
        return_loan(r, position + 2 * tokens);
        if (pi2_run_plan_loan_due(&r->plan, position + tokens)) {
            pi2_weight_store_reset(r->stores.weights);
            return_loan(r, position + tokens);
        }
    }
    return pi2_simulated_walk_pass(&r->walk, tokens, position, has_uses);
}

/* The prompt, of which all neurons are computed, in the plan's batches. */
static pi2_status walk_prompt(model_run *r, uint32_t tokens, uint32_t *position) {
    const uint32_t batch = r->plan.plan.memory.shape.batch_tokens;
    const bool draws = r->stores.experts && !r->uses.is_recorded;
    for (uint32_t done = 0; done < tokens;) {
        const uint32_t now = tokens - done < batch ? tokens - done : batch;
        if (draws) pi2_simulated_uses_next(&r->uses, now);
        PI2_TRY(walk_pass(r, now, *position, draws));
        done += now;
        *position += now;
    }
    return PI2_OK;
}

/*
 * What of single neurons finds a place is left in memory as a prompt streams past: where it was recorded, those that
 * were nearest to firing as the first token found them; else those that lie first. That costs nothing.
 */
static pi2_status fill_neurons(model_run *r) {
    if (!r->stores.neurons || !pi2_neuron_store_wants_filling(r->stores.neurons)) return PI2_OK;
    const pi2_neuron_banks *banks = r->plan.plan.banks;
    uint8_t *may_keep = calloc(banks->count + (size_t)1, 1);
    if (!may_keep) return pi2_fail(PI2_ERR_MEMORY, "no memory to simulate a prompt");
    for (uint32_t b = 0; b < banks->count; b++) {
        uint32_t count;
        const uint8_t *near = pi2_simulated_uses_near(&r->uses, b, &count);
        if (near) pi2_neuron_store_set_near(r->stores.neurons, b, near, count);
        may_keep[b] = near != NULL;
    }
    if (pi2_neuron_store_begin_keeping(r->stores.neurons, may_keep)) {
        for (uint32_t b = 0; b < banks->count; b++) {
            pi2_neuron_store_choose_kept(r->stores.neurons, b, 0, banks->banks[b].neuron_count);
        }
        pi2_neuron_store_keep_chosen(r->stores.neurons);
        pi2_neuron_store_end_keeping(r->stores.neurons);
    }
    free(may_keep);
    PI2_TRY(pi2_neuron_store_fill(r->stores.neurons, NULL));
    pi2_simulated_disk_forgive(&r->disk);
    return PI2_OK;
}

/** What was counted until now. */
typedef struct counts {
    double now, waiting, computing, busy;
    uint64_t bytes, reads, uses, hits;
} counts;

static counts count(const model_run *r) {
    counts c = { r->disk.now, r->walk.waiting, r->walk.computing, r->disk.busy, r->disk.bytes, r->disk.reads, 0, 0 };
    if (r->stores.neurons) {
        pi2_neuron_store_counters neurons;
        pi2_neuron_store_count(r->stores.neurons, &neurons);
        c.uses = neurons.uses;
        c.hits = neurons.hits;
    } else if (r->stores.experts) {
        pi2_expert_cache_counters experts;
        pi2_expert_cache_count(r->stores.experts, &experts);
        c.uses = experts.touches;
        c.hits = experts.hits;
    }
    return c;
}

static int compare_doubles(const void *a, const void *b) {
    const double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double percentile(const double *sorted, uint32_t count_of, double share) {
    const uint32_t rank = (uint32_t)ceil(share * count_of);
    return sorted[rank ? rank - 1 : 0];
}

static void sum_up(model_run *r, const counts *before, uint32_t passes, uint32_t tokens, pi2_model_simulated *out) {
    const counts after = count(r);
    const double seconds = after.now - before->now;
    qsort(r->seconds, passes, sizeof *r->seconds, compare_doubles);
    out->tokens = tokens;
    out->tokens_per_second = tokens / seconds;
    out->mean_seconds = seconds / passes;
    out->p50_seconds = percentile(r->seconds, passes, 0.5);
    out->p90_seconds = percentile(r->seconds, passes, 0.9);
    out->p99_seconds = percentile(r->seconds, passes, 0.99);
    out->exposed_share = (after.waiting - before->waiting) / seconds;
    out->disk_share = fmin(1, (after.busy - before->busy) / seconds);
    out->bytes_per_token = (double)(after.bytes - before->bytes) / tokens;
    out->reads_per_token = (double)(after.reads - before->reads) / tokens;
    const uint64_t uses = after.uses - before->uses, hits = after.hits - before->hits;
    out->hit_share = uses ? (double)hits / (double)uses : 1;
    const pi2_simulated_device *d = r->asked->device;
    if (!d) return;
    out->joules_per_token = (d->base_watts * seconds + d->disk_watts * (after.busy - before->busy) +
                             d->thread_watts * d->threads * (after.computing - before->computing)) / tokens;
}

/* A trace's batches before its first single token are its prompt. */
static pi2_status walk_recorded_prompt(model_run *r, uint32_t *passes, uint32_t *position) {
    for (; *passes < r->uses.pass_count; (*passes)++) {
        const pi2_trace *trace = &r->uses.trace;
        if (trace->demands[r->uses.demand].pass_tokens == 1) return PI2_OK;
        pi2_simulated_uses_next(&r->uses, 0);
        PI2_TRY(walk_pass(r, r->uses.tokens, *position, true));
        *position += r->uses.tokens;
    }
    return PI2_OK;
}

static pi2_status walk_all(model_run *r, pi2_model_simulated *out) {
    const pi2_model_simulation *asked = r->asked;
    const bool chooses = r->stores.experts || r->stores.neurons;
    uint32_t passes = 0, position = 0, counted = 0, tokens = 0;
    counts before = count(r);
    PI2_TRY(walk_prompt(r, r->uses.is_recorded ? r->uses.prompt_tokens : asked->prompt_tokens, &position));
    if (position) PI2_TRY(fill_neurons(r));
    if (r->uses.is_recorded) PI2_TRY(walk_recorded_prompt(r, &passes, &position));
    out->prompt_tokens = position;
    out->prompt_seconds = position ? r->disk.now - before.now : 0;
    for (uint32_t i = 0; i < asked->tokens && (!r->uses.is_recorded || passes < r->uses.pass_count); i++, passes++) {
        if (chooses) pi2_simulated_uses_next(&r->uses, 1);
        const uint32_t own = r->uses.is_recorded ? r->uses.tokens : 1;
        if (i == asked->skipped_tokens) before = count(r);
        const double begin = r->disk.now;
        PI2_TRY(walk_pass(r, own, position, chooses));
        position += own;
        if (i < asked->skipped_tokens) continue;
        r->seconds[counted++] = r->disk.now - begin;
        tokens += own;
    }
    if (counted == 0) {
        return pi2_fail(PI2_ERR_INVALID, "simulate: no token counts: %u are skipped, and there are no more",
                        asked->skipped_tokens);
    }
    if (!(r->disk.now > before.now)) {
        return pi2_fail(PI2_ERR_INVALID, "simulate: the machine's profile has no speed of what this model computes: "
                        "measure it again with 'powerinfer2 machine --force'");
    }
    sum_up(r, &before, counted, tokens, out);
    return PI2_OK;
}

pi2_status pi2_simulate_model(const pi2_engine_options *options, const pi2_model_simulation *simulation,
                              pi2_model_simulated *out) {
    memset(out, 0, sizeof *out);
    PI2_TRY(check_asked(simulation));
    model_run *r = calloc(1, sizeof *r);
    if (!r) return pi2_fail(PI2_ERR_MEMORY, "no memory for a simulation");
    r->asked = simulation;
    pi2_status status = open_run(r, options);
    if (status == PI2_OK) status = walk_all(r, out);
    if (status == PI2_OK) {
        out->threads = r->workload.threads;
        out->budget_bytes = r->plan.report.budget_bytes;
        out->resident_bytes = r->plan.report.resident_bytes;
        (void)snprintf(out->uses, sizeof out->uses, "%s", r->uses.grounds);
        (void)snprintf(out->model, sizeof out->model, "%s", r->plan.report.model_name);
    }
    close_run(r);
    return status;
}
