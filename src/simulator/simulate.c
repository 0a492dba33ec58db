/* simulate.c: passes one after the other, and what they come to. See powerinfer2/simulate.h. */
#include "powerinfer2/simulate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "simulator/described_machine.h"
#include "simulator/simulated_layer.h"
#include "simulator/simulated_neurons.h"

enum {
    MOST_THREADS = 64, MOST_BATCH = 64, MOST_LAYERS = 1024, MOST_EXPERTS = 256, MOST_TOKENS = 100000,
    MOST_NEURONS = 1 << 24, /* of the whole model: what is drawn takes some bytes for each */
    MOST_OF_LAYER = 1 << 21, /* what is under way takes some hundred bytes for each */
    HOT_STEPS = 20, TRIAL_TOKENS = 12, TRIAL_WARM_TOKENS = 4
};

void pi2_simulation_init(pi2_simulation *simulation) {
    *simulation = (pi2_simulation){.ffn_in_memory = 1, .hot_share = -1, .batch = 1, .tokens = 256, .warm_tokens = 64,
                                   .position = 256, .seed = 1};
}

/* ---- what is asked ---- */

typedef struct limit {
    const char *name;
    double value, least, most;
} limit;

/** Refuses the first value that lies outside; NaN lies outside everywhere. */
static pi2_status check_limits(const limit *limits, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (limits[i].value >= limits[i].least && limits[i].value <= limits[i].most) continue;
        return pi2_fail(PI2_ERR_INVALID, "simulate: '%s' is %g, it must be from %g to %g", limits[i].name,
                        limits[i].value, limits[i].least, limits[i].most);
    }
    return PI2_OK;
}

static const double none = 0, some = 1e-12, any = 1e18;

pi2_status pi2_simulated_device_check(const pi2_simulated_device *d) {
    const limit limits[] = {
        {"threads", d->threads, 1, MOST_THREADS}, {"cpu_bytes_per_second", d->cpu_bytes_per_second, some, any},
        {"accelerator_bytes_per_second", d->accelerator_bytes_per_second, none, any},
        {"both_bytes_per_second", d->both_bytes_per_second, none, any},
        {"cpu_operations_per_second", d->cpu_operations_per_second, none, any},
        {"accelerator_operations_per_second", d->accelerator_operations_per_second, none, any},
        {"sparse_efficiency", d->sparse_efficiency, some, 1},
        {"accelerator_start_seconds", d->accelerator_start_seconds, none, any},
        {"layer_seconds", d->layer_seconds, none, any}, {"reads", d->read_count, 1, PI2_SIMULATED_READS},
        {"read_latency_seconds", d->read_latency_seconds, none, any},
        {"sequential_bytes_per_second", d->sequential_bytes_per_second, some, any},
        {"base_watts", d->base_watts, none, any}, {"thread_watts", d->thread_watts, none, any},
        {"accelerator_watts", d->accelerator_watts, none, any}, {"disk_watts", d->disk_watts, none, any},
        {"memory_bytes", d->memory_bytes, none, any}};
    PI2_TRY(check_limits(limits, sizeof limits / sizeof limits[0]));
    double bytes = 0;
    for (uint32_t i = 0; i < d->read_count; i++) {
        const limit read[] = {{"bytes of a read", d->reads[i].bytes, bytes + 1, any},
                              {"per_second of a read", d->reads[i].per_second, some, any}};
        PI2_TRY(check_limits(read, 2));
        bytes = d->reads[i].bytes;
    }
    return PI2_OK;
}

static pi2_status check_model(const pi2_simulated_model *m) {
    const limit limits[] = {
        {"layers", m->layers, 1, MOST_LAYERS}, {"experts", m->experts, 1, MOST_EXPERTS},
        {"experts_used", m->experts_used, 1, m->experts}, {"neurons", m->neurons, 1, MOST_NEURONS},
        {"neurons of all layers", (double)m->layers * m->experts * m->neurons, 1, MOST_NEURONS},
        {"neurons of a layer", (double)m->experts * m->neurons, 1, MOST_OF_LAYER},
        {"attention_bytes", m->attention_bytes, none, any}, {"head_bytes", m->head_bytes, none, any},
        {"predictor_bytes", m->predictor_bytes, none, any}, {"fixed_bytes", m->fixed_bytes, none, any},
        {"gate_row_bytes", m->gate_row_bytes, none, any}, {"rest_row_bytes", m->rest_row_bytes, some, any},
        {"weights_per_byte", m->weights_per_byte, some, any}, {"gate_read_bytes", m->gate_read_bytes, none, any},
        {"rest_read_bytes", m->rest_read_bytes, none, any}, {"cached_bytes", m->cached_bytes, some, any},
        {"cache_bytes_per_position", m->cache_bytes_per_position, none, any}, {"active", m->active, 1e-6, 1},
        {"precision", m->precision, 1e-3, 1}, {"skew", m->skew, none, 1e3}, {"repeat", m->repeat, none, 0.999},
        {"spread", m->spread, none, 3},
        {"gate_read_bytes and rest_read_bytes together", m->gate_read_bytes + m->rest_read_bytes, some, any}};
    return check_limits(limits, sizeof limits / sizeof limits[0]);
}

static pi2_status check_simulation(const pi2_simulation *s) {
    const limit limits[] = {
        {"memory_bytes", s->memory_bytes, none, any}, {"ffn_in_memory", s->ffn_in_memory, none, 1},
        {"hot_share", s->hot_share, -1, 1}, {"batch", s->batch, 1, MOST_BATCH}, {"tokens", s->tokens, 1, MOST_TOKENS},
        {"warm_tokens", s->warm_tokens, 0, MOST_TOKENS}, {"prompt_tokens", s->prompt_tokens, 0, 1e9},
        {"position", s->position, 0, 1e9}, {"cluster", s->cluster, 0, 1 << 20}};
    return check_limits(limits, sizeof limits / sizeof limits[0]);
}

static bool tries_shares(const pi2_simulated_device *device, const pi2_simulation *s) {
    return pi2_simulated_has_accelerator(device, s) && s->hot_share < 0;
}

/* What a run draws, and keeps to draw from, grows with both of its descriptions. Each choice of an expert looks at the
 * others. */
double pi2_simulation_draws(const pi2_simulated_device *device, const pi2_simulated_model *m, const pi2_simulation *s) {
    const double passes = (double)s->tokens + s->warm_tokens +
                          (tries_shares(device, s) ? (HOT_STEPS + 1) * (TRIAL_TOKENS + TRIAL_WARM_TOKENS) : 0);
    const double choices = (double)s->batch * m->experts_used * m->experts;
    return passes * m->layers * ((double)m->experts * m->neurons + choices);
}

static pi2_status check_size(const pi2_simulated_device *device, const pi2_simulated_model *m,
                             const pi2_simulation *s) {
    const limit limits[] = {
        {"batch times neurons", (double)s->batch * m->neurons, 1, MOST_NEURONS},
        {"neurons drawn in all passes", pi2_simulation_draws(device, m, s), 1, PI2_SIMULATION_DRAWS_MOST}};
    return check_limits(limits, sizeof limits / sizeof limits[0]);
}

/** Neurons that memory holds, of all layers. */
static pi2_status count_slots(const pi2_simulated_model *model, const pi2_simulation *simulation, double *slots_out) {
    const double all = (double)model->layers * model->experts * model->neurons;
    double slots = simulation->ffn_in_memory * all;
    if (simulation->memory_bytes > 0) {
        slots = (simulation->memory_bytes - model->fixed_bytes) / model->cached_bytes;
        if (slots < 0) {
            return pi2_fail(PI2_ERR_INVALID, "simulate: memory of %.0f bytes does not hold the %.0f that stay whatever "
                            "is cached", simulation->memory_bytes, model->fixed_bytes);
        }
    }
    *slots_out = simulation->without_cache ? 0 : fmin(floor(slots + 0.5), all);
    return PI2_OK;
}

/* ---- a run ---- */

typedef struct run {
    const pi2_simulated_device *device;
    const pi2_simulated_model *model;
    pi2_simulation simulation;
    double hot_share, slots;
    pi2_simulated_neurons *neurons;
    pi2_simulated_layer *layer;
    double *seconds, *misses; /* of each pass that counts */
} run;

static void free_run(run *of) {
    pi2_simulated_neurons_free(of->neurons);
    free(of->layer);
    free(of->seconds);
}

static pi2_status begin_run(run *of) {
    const double all = (double)of->model->layers * of->model->experts * of->model->neurons;
    const double hot = floor(of->hot_share * of->model->neurons + 0.5) / of->model->neurons * all;
    const double cold = of->slots > hot ? of->slots - hot : 0;
    of->seconds = malloc((size_t)of->simulation.tokens * 2 * sizeof *of->seconds);
    of->layer = pi2_simulated_layer_create(of->device, of->model, &of->simulation);
    if (!of->seconds || !of->layer) return pi2_fail(PI2_ERR_MEMORY, "simulate: no memory for the run");
    of->misses = of->seconds + of->simulation.tokens;
    return pi2_simulated_neurons_create(of->model, &of->simulation, of->hot_share, (uint32_t)cold, &of->neurons);
}

typedef struct counts {
    double hits, misses;
} counts;

static void run_pass(run *of, pi2_simulated_sums *sums, counts *counted) {
    const pi2_simulated_model *model = of->model;
    const double hot_row = model->gate_row_bytes + model->rest_row_bytes;
    pi2_simulated_work work;
    pi2_simulated_neurons_begin_pass(of->neurons);
    for (uint32_t i = 0; i < model->layers; i++) {
        const uint32_t experts = pi2_simulated_neurons_draw(of->neurons, i, &work);
        work.dense_bytes = model->attention_bytes +
                           model->cache_bytes_per_position * of->simulation.position * of->simulation.batch;
        work.predictor_bytes = model->predictor_bytes * experts / model->experts;
        work.hot_bytes = hot_row * pi2_simulated_neurons_hot(of->neurons) * experts;
        for (int k = 0; k < PI2_SIMULATED_PARTS; k++) {
            counted->hits += work.parts[k].hits;
            counted->misses += work.parts[k].misses;
        }
        pi2_simulated_layer_run(of->layer, &work, sums);
    }
    const double head = pi2_simulated_dense_seconds(of->device, model, &of->simulation, model->head_bytes);
    sums->seconds += head;
    sums->thread_seconds += head * of->device->threads;
    if (pi2_simulated_has_accelerator(of->device, &of->simulation)) sums->accelerator_seconds += head;
}

static int compare_doubles(const void *a, const void *b) {
    const double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/** The value that so large a share of the sorted ones does not exceed. */
static double percentile(const double *sorted, uint32_t count, double share) {
    const double place = ceil(share * count);
    return sorted[place < 1 ? 0 : (uint32_t)place - 1];
}

static void sum_up(run *of, const pi2_simulated_sums *sums, const counts *all, pi2_simulated_run *out) {
    const pi2_simulated_device *device = of->device;
    const double passes = of->simulation.tokens, neurons = (double)of->model->layers * of->model->experts *
                                                           of->model->neurons;
    qsort(of->seconds, of->simulation.tokens, sizeof *of->seconds, compare_doubles);
    qsort(of->misses, of->simulation.tokens, sizeof *of->misses, compare_doubles);
    out->tokens_per_second = passes * of->simulation.batch / sums->seconds;
    out->mean_seconds = sums->seconds / passes;
    out->p50_seconds = percentile(of->seconds, of->simulation.tokens, 0.5);
    out->p90_seconds = percentile(of->seconds, of->simulation.tokens, 0.9);
    out->p99_seconds = percentile(of->seconds, of->simulation.tokens, 0.99);
    out->p99_miss_share = percentile(of->misses, of->simulation.tokens, 0.99);
    out->exposed_share = sums->exposed_seconds / sums->seconds;
    out->thread_share = sums->thread_seconds / sums->seconds / device->threads;
    out->accelerator_share = sums->accelerator_seconds / sums->seconds;
    out->disk_share = sums->disk_seconds / sums->seconds;
    out->hit_share = all->hits + all->misses > 0 ? all->hits / (all->hits + all->misses) : 1;
    out->bytes_per_pass = sums->bytes / passes;
    out->reads_per_pass = sums->reads / passes;
    out->hot_share = (double)pi2_simulated_neurons_hot(of->neurons) / of->model->neurons;
    out->cached_share = fmin(1, of->slots / neurons);
    out->joules_per_token =
        (device->base_watts * sums->seconds + device->thread_watts * sums->thread_seconds +
         device->accelerator_watts * sums->accelerator_seconds + device->disk_watts * sums->disk_seconds) /
        (passes * of->simulation.batch);
}

/** Runs with a hot share that is given. */
static pi2_status run_all(run *of, pi2_simulated_run *out) {
    pi2_status status = begin_run(of);
    pi2_simulated_sums sums = {0};
    counts all = {0};
    const uint32_t warm = of->simulation.warm_tokens;
    for (uint32_t i = 0; status == PI2_OK && i < warm + of->simulation.tokens; i++) {
        pi2_simulated_sums before = sums;
        counts of_pass = {0};
        run_pass(of, &sums, &of_pass);
        if (i < warm) {
            memset(&sums, 0, sizeof sums);
            continue;
        }
        of->seconds[i - warm] = sums.seconds - before.seconds;
        const double predicted = of_pass.hits + of_pass.misses;
        of->misses[i - warm] = predicted > 0 ? of_pass.misses / predicted : 0;
        all.hits += of_pass.hits;
        all.misses += of_pass.misses;
    }
    if (status == PI2_OK) sum_up(of, &sums, &all, out);
    free_run(of);
    return status;
}

/** Tries shares of neurons that memory can hold. */
static pi2_status choose_hot_share(const run *asked, double *share_out) {
    const double all = (double)asked->model->layers * asked->model->experts * asked->model->neurons;
    double best = 0;
    *share_out = 0;
    for (int step = 0; step <= HOT_STEPS; step++) {
        run trial = *asked;
        pi2_simulated_run result;
        trial.hot_share = (double)step / HOT_STEPS;
        if (trial.hot_share * all > asked->slots) break;
        trial.simulation.tokens = TRIAL_TOKENS;
        trial.simulation.warm_tokens = TRIAL_WARM_TOKENS;
        PI2_TRY(run_all(&trial, &result));
        if (result.tokens_per_second <= best) continue;
        best = result.tokens_per_second;
        *share_out = trial.hot_share;
    }
    return PI2_OK;
}

/** A prompt computes all neurons: layer after layer, of which the next one's missing part is read meanwhile. */
static double prompt_seconds(const run *of) {
    const pi2_simulated_model *model = of->model;
    pi2_simulation prompt = of->simulation;
    if (!prompt.prompt_tokens) return 0;
    const double neurons = (double)model->experts * model->neurons, all = neurons * model->layers;
    prompt.batch = prompt.prompt_tokens;
    const double tokens_experts = fmin(model->experts, (double)model->experts_used * prompt.prompt_tokens);
    const double rows = neurons * (model->gate_row_bytes + model->rest_row_bytes);
    const double bytes = model->attention_bytes + rows * tokens_experts / model->experts;
    /* Where experts share the tokens each has a part of them to compute with. */
    double computing = pi2_simulated_dense_seconds(of->device, model, &prompt, bytes);
    if (model->experts > 1) {
        pi2_simulation part = prompt;
        part.batch = (uint32_t)fmax(1, (double)prompt.batch * model->experts_used / tokens_experts);
        computing = pi2_simulated_dense_seconds(of->device, model, &prompt, model->attention_bytes) +
                    pi2_simulated_dense_seconds(of->device, model, &part, rows * tokens_experts / model->experts);
    }
    const double missing = (1 - fmin(1, of->slots / all)) * neurons *
                           (model->gate_read_bytes + model->rest_read_bytes);
    const double reading = missing / of->device->sequential_bytes_per_second;
    computing += of->device->layer_seconds;
    if (of->simulation.without_pipeline) return model->layers * (reading + computing);
    return reading + (model->layers - 1) * fmax(reading, computing) + computing;
}

pi2_status pi2_simulate(const pi2_simulated_device *device, const pi2_simulated_model *model,
                        const pi2_simulation *simulation, pi2_simulated_run *run_out) {
    run of = {.device = device, .model = model, .simulation = *simulation};
    memset(run_out, 0, sizeof *run_out);
    PI2_TRY(pi2_simulated_device_check(device));
    PI2_TRY(check_model(model));
    PI2_TRY(check_simulation(simulation));
    PI2_TRY(count_slots(model, simulation, &of.slots));
    of.hot_share = pi2_simulated_has_accelerator(device, simulation) ? simulation->hot_share : 0;
    PI2_TRY(check_size(device, model, simulation));
    if (of.hot_share < 0) PI2_TRY(choose_hot_share(&of, &of.hot_share));
    if (of.hot_share * model->layers * model->experts * model->neurons > of.slots + model->layers * model->experts) {
        return pi2_fail(PI2_ERR_INVALID, "simulate: 'hot_share' is %g, and memory holds a share of %g of the neurons",
                        of.hot_share, of.slots / ((double)model->layers * model->experts * model->neurons));
    }
    PI2_TRY(run_all(&of, run_out));
    run_out->prompt_seconds = prompt_seconds(&of);
    return PI2_OK;
}
