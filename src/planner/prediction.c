/* prediction.c: the arithmetic of prediction.h. */
#include "planner/prediction_internal.h"

#include <math.h>
#include <string.h>

#include "store/store.h"

enum { BATCH_LEAST = 4, QUERIES_OF_A_BATCH = 24, SMALL_READ = 64 << 10 };

/* What the arithmetic itself may be off by, beside what the measurements vary. */
static const double MODEL_ERROR = 0.08;
/* Share of its measured speed at which a kernel counts as limited by memory. */
static const double MEMORY_BOUND = 0.65;

const pi2_what_if pi2_as_it_is = {1, 1, 1};

#define divide pi2_prediction_divide

typedef pi2_prediction_setting setting;

/* ---- computing ---- */

/** Bytes/s of reading what passes go through. */
static double memory_speed(const setting *s, uint64_t touched_bytes) {
    return pi2_profile_value(s->profile, PI2_MEASURED_MEMORY, "", s->w->threads, touched_bytes, 0, NULL);
}

/** Where passes' memory lies between what a cache holds (0) and what none does (1), by plain reading. */
static double outside_cache(const setting *s) {
    if (s->w->touched_bytes == 0) return 1;
    const double near = memory_speed(s, 0), far = memory_speed(s, UINT64_MAX);
    if (!(far > 0 && far < near)) return 1;
    const double share = (1 / memory_speed(s, s->w->touched_bytes) - 1 / near) / (1 / far - 1 / near);
    return fmin(1, fmax(0, share));
}

static double kernel_speed(const setting *s, const pi2_workload_weights *part, double *spread) {
    double near_spread, far_spread;
    const double near = pi2_profile_value(s->profile, PI2_MEASURED_DECODE, part->type, s->w->threads, 0, part->columns,
                                          &near_spread);
    const double far = pi2_profile_value(s->profile, PI2_MEASURED_DECODE, part->type, s->w->threads, UINT64_MAX,
                                         part->columns, &far_spread);
    const double share = outside_cache(s);
    *spread = fmax(*spread, share * far_spread + (1 - share) * near_spread);
    return near > 0 && far > 0 ? 1 / (share / far + (1 - share) / near) : 0;
}

/** Seconds in which the threads pass once over so many bytes of a matrix, for one token. */
static double one_token(const setting *s, const pi2_workload_weights *part, double bytes, double *spread) {
    const double speed = kernel_speed(s, part, spread);
    const double memory = memory_speed(s, s->w->touched_bytes ? s->w->touched_bytes : UINT64_MAX);
    const bool memory_bound = memory > 0 && speed >= MEMORY_BOUND * memory;
    return divide(bytes, speed) / (memory_bound ? s->what_if->memory : s->what_if->compute);
}

/** Seconds for several tokens, `rows` of which meet each weight; `bytes` of weights pass by. */
static double several_tokens(const setting *s, const pi2_workload_weights *part, double bytes, double rows,
                             double *spread) {
    double own;
    const uint64_t batch = rows < BATCH_LEAST ? BATCH_LEAST : (uint64_t)(rows + 0.5);
    const double speed = pi2_profile_value(s->profile, PI2_MEASURED_BATCH, part->type, batch, s->w->threads,
                                           part->columns, &own);
    const double operations = 2.0 * divide((double)part->weights, (double)part->bytes) * bytes * rows;
    /* Few tokens still wait for the weights to pass by. */
    const double least = one_token(s, part, bytes, spread);
    *spread = fmax(*spread, own);
    return fmax(divide(operations, speed) / s->what_if->compute, least);
}

double pi2_predict_distinct(const pi2_workload *w, uint32_t tokens) {
    uint32_t point = 0;
    while (point + 2 < PI2_DISTINCT_POINTS && tokens >= 2u << point) point++;
    const double low = w->experts.distinct[point], high = w->experts.distinct[point + 1];
    const double share = ((double)tokens - (double)(1u << point)) / (double)(1u << point);
    return low + (share < 1 ? share : 1) * (high - low);
}

/** Of passes between those that were measured, as shares are taken (planner/device_speed.c). */
static double device_gain(const setting *s, uint32_t tokens) {
    const double gain = s->w->device_gains[tokens < 3 ? 0 : tokens < 17 ? 1 : 2];
    return gain > 0 ? gain : 1;
}

double pi2_prediction_matrices(const setting *s, const pi2_pass *pass, pi2_weight_role role, double *spread) {
    const pi2_workload *w = s->w;
    double seconds = 0;
    for (uint32_t i = 0; i < w->part_count; i++) {
        const pi2_workload_weights *part = &w->parts[i];
        if (part->role != role) continue;
        double bytes = (double)part->bytes, rows = pass->tokens;
        if (role == PI2_ROLE_EXPERT) {
            const double distinct = pi2_predict_distinct(w, pass->tokens);
            bytes *= distinct / w->experts.count;
            rows *= divide(w->experts.used, distinct);
        }
        const bool single = pass->tokens == 1 || part->is_head;
        const double one = single ? one_token(s, part, bytes, spread) : several_tokens(s, part, bytes, rows, spread);
        /* Experts have no part of their own that is a device's. */
        seconds += role == PI2_ROLE_EXPERT ? one : one / device_gain(s, single ? 1 : pass->tokens);
    }
    return seconds;
}

/*
 * Of a matrix's neurons one by one. They were measured in memory that no cache holds, and gain by a cache, or by what
 * is thought to be faster, as the whole matrix does.
 */
static double one_by_one(const setting *s, const pi2_workload_weights *part, pi2_measured what, uint64_t share,
                         double *spread) {
    double own, ignored = 0;
    const double speed = pi2_profile_value(s->profile, what, part->type, s->w->threads, share, s->w->width, &own);
    if (speed <= 0) return one_token(s, part, (double)part->bytes, spread);
    const double far = pi2_profile_value(s->profile, PI2_MEASURED_DECODE, part->type, s->w->threads, UINT64_MAX,
                                         part->columns, NULL);
    *spread = fmax(*spread, own);
    return one_token(s, part, (double)part->bytes, &ignored) * far / speed;
}

static double all_one_by_one(const setting *s, pi2_weight_role role, pi2_measured what, uint64_t share,
                             double *spread) {
    double seconds = 0;
    for (uint32_t i = 0; i < s->w->part_count; i++) {
        if (s->w->parts[i].role == role) seconds += one_by_one(s, &s->w->parts[i], what, share, spread);
    }
    return seconds;
}

double pi2_prediction_rows(const setting *s, pi2_weight_role role, double *spread) {
    return all_one_by_one(s, role, PI2_MEASURED_ROWS, 0, spread);
}

double pi2_prediction_columns(const setting *s, pi2_weight_role role, double gives, double *spread) {
    const double share = fmax(1, fmin(PI2_PROFILE_SHARES, gives * PI2_PROFILE_SHARES));
    return all_one_by_one(s, role, PI2_MEASURED_COLUMNS, (uint64_t)(share + 0.5), spread);
}

double pi2_prediction_predictor(const setting *s, double *spread) {
    const pi2_workload_neurons *n = &s->w->neurons;
    double own;
    if (!n->predictor_type) return 0;
    const double speed = pi2_profile_value(s->profile, PI2_MEASURED_PREDICTOR, n->predictor_type, s->w->threads, 0,
                                           n->predictor_columns, &own);
    *spread = fmax(*spread, own);
    return divide((double)n->predictor_bytes, speed) / fmin(s->what_if->compute, s->what_if->memory);
}

double pi2_prediction_store(const setting *s, const char *name, double count, double *spread) {
    double own;
    const double speed = pi2_profile_value(s->profile, PI2_MEASURED_STORE, name, s->w->threads, 0, 0, &own);
    *spread = fmax(*spread, own);
    return divide(count, speed) / s->what_if->compute;
}

double pi2_prediction_bringing(const setting *s, double units, double *spread) {
    return pi2_prediction_store(s, "bring", units, spread) +
           pi2_prediction_store(s, "check", units * s->w->neurons.unit_bytes, spread);
}

/** Positions that a token sees, on average over the layers that attend. */
static double keys_seen(const pi2_workload *w, double keys) {
    const double share = divide(w->window_layers, w->attention_layers);
    return keys * (1 - share) + fmin(keys, w->window) * share;
}

static double attention_seconds(const setting *s, const pi2_pass *pass) {
    const pi2_workload *w = s->w;
    const double keys = keys_seen(w, (double)pass->position + ((double)pass->tokens + 1) / 2);
    const uint64_t queries = pass->tokens > 1 ? QUERIES_OF_A_BATCH
                             : w->key_value_floats ? 2 * (uint64_t)w->query_floats / w->key_value_floats : 1;
    const double speed = pi2_profile_value(s->profile, PI2_MEASURED_ATTENTION, "", queries, 0, 0, NULL);
    const double memory = memory_speed(s, w->touched_bytes ? w->touched_bytes : UINT64_MAX);
    const double operations = 4.0 * (double)w->query_floats * w->layer_count * keys * pass->tokens;
    const double computing = divide(operations, speed * w->threads) / s->what_if->compute;
    const double moving = divide((double)w->cache_bytes_per_position * keys, memory) / s->what_if->memory;
    return fmax(computing, moving);
}

/** Norms, rotations, quantising, choosing experts: by one thread for one token, by all for many. */
static double vector_seconds(const setting *s, const pi2_pass *pass) {
    const pi2_workload *w = s->w;
    const double speed = pi2_profile_value(s->profile, PI2_MEASURED_VECTOR, "", 0, 0, 0, NULL);
    const double used = w->experts.used, looked_at = w->experts.count * used * (used + 1) / 2;
    const double serial = 2.0 * w->width + 2.0 * w->query_floats + w->key_value_floats + used * w->width + looked_at;
    const double threads = pass->tokens > 2 ? w->threads : 1;
    const double floats = w->layer_count * (serial / threads + (double)w->feed_forward / w->threads);
    return divide(floats * pass->tokens, speed) / s->what_if->compute;
}

double pi2_prediction_between(const setting *s, const pi2_pass *pass) {
    return attention_seconds(s, pass) + vector_seconds(s, pass);
}

double pi2_prediction_stages(const setting *s, uint32_t stages) {
    return stages * pi2_profile_value(s->profile, PI2_MEASURED_STAGE, "", s->w->threads, 0, 0, NULL);
}

/** Reads of a size that are in flight at a time, as far as the engine keeps so many. */
static uint64_t depth_of(uint32_t block, double in_flight) {
    const double most = block < PI2_SMALL_READ_BYTES ? PI2_SMALL_READ_DEPTH : PI2_READ_DEPTH;
    return in_flight < 1 ? 1 : (uint64_t)(fmin(in_flight, most) + 0.5);
}

/* The reading thread may have no processor of its own. */
double pi2_prediction_lost(const setting *s, double bytes, uint32_t block, double in_flight) {
    const pi2_workload *w = s->w;
    if (w->threads < w->cores) return 0;
    const double cpu = pi2_profile_value(s->profile, PI2_MEASURED_READ_CPU, w->read_method, block,
                                         depth_of(block, in_flight), w->disk, NULL);
    return bytes * cpu / (w->cores ? w->cores : 1) / s->what_if->compute;
}

/* ---- reading ---- */

double pi2_prediction_disk(const setting *s, uint32_t block, double in_flight, double *spread) {
    const pi2_measured what = block < PI2_SMALL_READ_BYTES ? PI2_MEASURED_SMALL_READ : PI2_MEASURED_DISK;
    double own;
    const double speed = pi2_profile_value(s->profile, what, s->w->read_method, block, depth_of(block, in_flight),
                                           s->w->disk, &own);
    if (spread) *spread = fmax(*spread, own);
    return speed * s->what_if->disk;
}

static double stream_depth(const pi2_workload *w) { return w->read_depth ? w->read_depth : PI2_READ_DEPTH; }

/** Seconds until so many experts, asked for at once, are there. */
static double read_experts(const setting *s, double missed, double *spread) {
    const pi2_workload_experts *e = &s->w->experts;
    const double bytes = missed * (double)e->expert_bytes;
    return divide(bytes, pi2_prediction_disk(s, e->read_block, divide(bytes, e->read_block), spread));
}

/** Rows of the embedding that are read before a pass begins. */
static double read_embedding(const setting *s, uint32_t tokens) {
    if (!s->w->embedding_streams) return 0;
    const double alone = divide(SMALL_READ, pi2_prediction_disk(s, SMALL_READ, 1, NULL));
    return fmax(alone, divide((double)tokens * SMALL_READ, pi2_prediction_disk(s, SMALL_READ, PI2_READ_DEPTH, NULL)));
}

/* ---- a layer of experts ---- */

typedef struct layer_time {
    double read, busy, seconds; /* busy: computing, and what reading takes from it */
} layer_time;

static void add_case(const setting *s, double probability, double missed, double compute, layer_time *sum,
                     double *spread) {
    if (probability <= 0) return;
    const double read = read_experts(s, missed, spread);
    const pi2_workload_experts *e = &s->w->experts;
    const double busy = compute + pi2_prediction_lost(s, missed * (double)e->expert_bytes, e->read_block,
                                                      divide(missed * (double)e->expert_bytes, e->read_block));
    sum->read += probability * read;
    sum->busy += probability * busy;
    sum->seconds += probability * fmax(read, busy);
}

/** One token misses a binomial number of experts; a batch about the mean. */
static layer_time expert_layer(const setting *s, const pi2_pass *pass, double compute, double *spread) {
    const pi2_workload *w = s->w;
    layer_time sum = {0, 0, 0};
    const double miss = 1 - pass->hits, hit = pass->hits;
    if (pass->tokens > 1 || miss < 1e-9 || hit < 1e-9) {
        add_case(s, 1, pi2_predict_distinct(w, pass->tokens) * miss, compute, &sum, spread);
        return sum;
    }
    double probability = pow(hit, w->experts.used);
    for (uint32_t missed = 0; missed <= w->experts.used; missed++) {
        add_case(s, probability, missed, compute, &sum, spread);
        probability *= (double)(w->experts.used - missed) / (missed + 1.0) * miss / hit;
    }
    return sum;
}

/* ---- passes ---- */

/** All matrices but the experts', whose layers are looked at one by one. */
static double all_matrices(const setting *s, const pi2_pass *pass, double *spread) {
    static const pi2_weight_role roles[] = {PI2_ROLE_PLAIN, PI2_ROLE_GATE, PI2_ROLE_UP, PI2_ROLE_DOWN};
    double seconds = 0;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        seconds += pi2_prediction_matrices(s, pass, roles[i], spread);
    }
    return seconds;
}

pi2_pass_time pi2_predict_pass(const pi2_workload *w, const pi2_machine_profile *profile, const pi2_what_if *what_if,
                               const pi2_pass *pass) {
    const setting s = {w, profile, what_if};
    if (pi2_predict_goes_by_neuron(&w->neurons, w->read_bytes, pass->tokens)) {
        pi2_pass_time alone = pi2_predict_neuron_pass(&s, pass);
        alone.seconds += read_embedding(&s, pass->tokens);
        return alone;
    }
    double compute_spread = 0, read_spread = 0;
    const double read_bytes = (double)w->read_bytes + (pass->cold ? (double)w->resident_bytes : 0);
    const double speed = pi2_prediction_disk(&s, w->read_block, stream_depth(w), &read_spread);
    pi2_pass_time time = {.read = divide(read_bytes, speed)};
    if (read_bytes <= 0) read_spread = 0;
    time.compute = all_matrices(&s, pass, &compute_spread) + pi2_prediction_between(&s, pass) +
                   pi2_prediction_stages(&s, w->stages_per_pass) +
                   pi2_prediction_lost(&s, read_bytes, w->read_block, stream_depth(w));
    if (w->experts.count) {
        const double expert_compute = pi2_prediction_matrices(&s, pass, PI2_ROLE_EXPERT, &compute_spread);
        const layer_time layer = expert_layer(&s, pass, expert_compute / pi2_prediction_expert_layers(w), &read_spread);
        time.read += pi2_prediction_expert_layers(w) * layer.read;
        time.seconds = fmax(time.read, time.compute + pi2_prediction_expert_layers(w) * layer.seconds);
        time.exposed = time.seconds - (time.compute + pi2_prediction_expert_layers(w) * layer.busy);
        time.compute += expert_compute;
    } else {
        time.seconds = fmax(time.read, time.compute);
        time.exposed = time.seconds - time.compute;
    }
    /* Each part's uncertainty as far as it decides. */
    const double exposed = time.seconds > 0 ? fmax(0, time.seconds - time.compute) / time.seconds : 0;
    const double share = time.read > time.compute ? 1 : exposed;
    time.spread = share * read_spread + (1 - share) * compute_spread;
    time.seconds += read_embedding(&s, pass->tokens);
    return time;
}

/* Computing grows with the batch; reading does not, or only until a batch uses every expert. */
uint32_t pi2_predict_hiding_batch(const pi2_workload *w, const pi2_machine_profile *profile, double hits,
                                  uint32_t most) {
    uint32_t enough = 0, too_few = 0;
    pi2_pass pass = {most, 0, hits, false};
    for (; pass.tokens && !too_few; pass.tokens /= 2) {
        if (pi2_predict_pass(w, profile, &pi2_as_it_is, &pass).exposed > 0) too_few = pass.tokens;
        else enough = pass.tokens;
    }
    while (enough > too_few + 1) {
        pass.tokens = too_few + (enough - too_few) / 2;
        if (pi2_predict_pass(w, profile, &pi2_as_it_is, &pass).exposed > 0) too_few = pass.tokens;
        else enough = pass.tokens;
    }
    return enough;
}

static pi2_speed range(double tokens_per_second, double spread) {
    const double off = MODEL_ERROR + spread;
    return (pi2_speed){tokens_per_second, tokens_per_second / (1 + off), tokens_per_second * (1 + off)};
}

/** What saves most, were it twice as fast. */
static pi2_bottleneck limit_of(const pi2_workload *w, const pi2_machine_profile *profile, const pi2_what_if *what_if,
                               const pi2_pass *pass) {
    static const pi2_bottleneck kinds[] = {PI2_LIMIT_DISK, PI2_LIMIT_MEMORY_BANDWIDTH, PI2_LIMIT_COMPUTE};
    pi2_bottleneck limit = PI2_LIMIT_COMPUTE;
    double least = INFINITY;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        pi2_what_if twice = *what_if;
        if (kinds[i] == PI2_LIMIT_DISK) twice.disk *= 2;
        else if (kinds[i] == PI2_LIMIT_MEMORY_BANDWIDTH) twice.memory *= 2;
        else twice.compute *= 2;
        const double seconds = pi2_predict_pass(w, profile, &twice, pass).seconds;
        if (seconds >= least) continue;
        least = seconds;
        limit = kinds[i];
    }
    return limit;
}

typedef struct prompt_time {
    double seconds, spread;
} prompt_time;

static prompt_time predict_prompt(const setting *s, uint32_t prompt_tokens, double hits, bool cold) {
    const uint32_t batch = s->w->batch_tokens ? s->w->batch_tokens : 1;
    prompt_time time = {0, 0};
    for (uint32_t done = 0; done < prompt_tokens;) {
        const uint32_t tokens = prompt_tokens - done < batch ? prompt_tokens - done : batch;
        const pi2_pass pass = {tokens, done, hits, cold && done == 0};
        const pi2_pass_time one = pi2_predict_pass(s->w, s->profile, s->what_if, &pass);
        time.seconds += one.seconds;
        time.spread = fmax(time.spread, one.spread);
        done += tokens;
    }
    return time;
}

static void tell_neurons(const pi2_workload *w, pi2_prediction *prediction) {
    const pi2_workload_neurons *n = &w->neurons;
    prediction->neuron_units = n->units;
    prediction->neuron_slots = n->slots;
    prediction->neuron_share = n->fires;
    prediction->neuron_hit_rate = n->hits;
    prediction->neuron_reads = pi2_predict_neuron_misses(w, 1);
    prediction->bytes_per_token += (uint64_t)(prediction->neuron_reads * n->read_bytes);
    prediction->resident_bytes += n->slots * n->unit_bytes;
}

void pi2_predict(const pi2_workload *w, const pi2_machine_profile *profile, const pi2_what_if *what_if,
                 uint32_t prompt_tokens, uint32_t position, pi2_prediction *prediction) {
    const setting s = {w, profile, what_if};
    const pi2_workload_experts *e = &w->experts;
    memset(prediction, 0, sizeof *prediction);
    const pi2_pass decode_pass = {1, position, e->decode_hits, false};
    pi2_pass_time decode = pi2_predict_pass(w, profile, what_if, &decode_pass);
    if (w->neurons.fill_tokens) decode.seconds += pi2_predict_neuron_fill(&s) / w->neurons.fill_tokens;
    prediction->decode = range(divide(1, decode.seconds), decode.spread);
    prediction->bottleneck = limit_of(w, profile, what_if, &decode_pass);
    const bool by_neuron = pi2_predict_goes_by_neuron(&w->neurons, w->read_bytes, decode_pass.tokens);
    const bool of_gates = by_neuron && w->neurons.gate_bytes;
    const bool wants_none = by_neuron && w->neurons.is_named; /* nothing of experts but single neurons */
    const double hits = wants_none ? 1 : of_gates ? w->neurons.gate_hits : e->decode_hits;
    const double missed = (double)e->used * pi2_prediction_expert_layers(w) * (1 - hits);
    const uint64_t of_one = of_gates ? w->neurons.gate_bytes : e->expert_bytes;
    prediction->bytes_per_token = (by_neuron ? 0 : w->read_bytes) + (uint64_t)(missed * (double)of_one);
    prediction->resident_bytes = w->resident_bytes + e->slots * e->expert_bytes;
    if (of_gates) prediction->resident_bytes += w->neurons.gate_slots * w->neurons.gate_bytes;
    if (by_neuron) tell_neurons(w, prediction);
    prediction->expert_slots = of_gates ? w->neurons.gate_slots : e->slots;
    prediction->expert_total = wants_none ? 0 : e->count * pi2_prediction_expert_layers(w);
    prediction->expert_hit_rate = e->count ? hits : 0;
    const prompt_time prompt = predict_prompt(&s, prompt_tokens, e->prompt_hits, false);
    prediction->prefill = range(divide(prompt_tokens, prompt.seconds), prompt.spread);
    const uint32_t batch = w->batch_tokens && w->batch_tokens < prompt_tokens ? w->batch_tokens : prompt_tokens;
    const pi2_pass first = {batch ? batch : 1, 0, e->prompt_hits, false};
    prediction->prefill_bottleneck = limit_of(w, profile, what_if, &first);
    const double loaded = (double)w->resident_bytes + (e->loaded ? (double)(e->slots * e->expert_bytes) : 0) +
                          (double)w->neurons.slots * w->neurons.unit_bytes;
    double disk_spread = 0;
    const double disk = pi2_prediction_disk(&s, w->read_block, stream_depth(w), &disk_spread);
    prediction->load_ms = 1e3 * divide(loaded, disk);
    prediction->disk_speed = disk;
    prediction->disk_low = disk / (1 + disk_spread);
    prediction->disk_high = disk * (1 + disk_spread);
    const double cold = predict_prompt(&s, prompt_tokens, e->cold_hits, !w->load_before).seconds;
    prediction->time_to_first_token_ms = (w->load_before ? prediction->load_ms : 0) + 1e3 * cold;
}
