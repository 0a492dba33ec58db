/* prediction.c: the arithmetic of prediction.h. */
#include "device/prediction.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { READ_DEPTH = 32, BATCH_LEAST = 4, QUERIES_OF_A_BATCH = 24 };

/* What the arithmetic itself may be off by, beside what the measurements vary. */
static const double MODEL_ERROR = 0.08;
/* Share of its measured speed at which a kernel counts as limited by memory. */
static const double MEMORY_BOUND = 0.65;

const pi2_what_if pi2_as_it_is = {1, 1, 1};

static double divide(double amount, double rate) { return rate > 0 ? amount / rate : 0; }

/** Seconds of one type's matrices for one token. */
static double one_token(const pi2_workload_weights *part, const pi2_workload *w, const pi2_device_profile *profile,
                        const pi2_what_if *what_if, pi2_pass_time *time) {
    double spread;
    const double bytes = (double)part->bytes;
    const double speed = pi2_profile_value(profile, PI2_MEASURED_DECODE, part->type, w->threads, 0, &spread);
    const double memory = pi2_profile_value(profile, PI2_MEASURED_MEMORY, "", w->threads, 0, NULL);
    const double seconds = divide(bytes, speed);
    time->spread = fmax(time->spread, spread);
    if (memory <= 0 || speed < MEMORY_BOUND * memory) return seconds / what_if->compute;
    time->memory += seconds / what_if->memory;
    return seconds / what_if->memory;
}

/** Seconds of one type's matrices for several tokens; the head has one. */
static double several_tokens(const pi2_workload_weights *part, const pi2_workload *w,
                             const pi2_device_profile *profile, const pi2_what_if *what_if, uint32_t tokens,
                             pi2_pass_time *time) {
    double spread;
    const uint32_t batch = tokens < BATCH_LEAST ? BATCH_LEAST : tokens;
    const double speed = pi2_profile_value(profile, PI2_MEASURED_BATCH, part->type, batch, w->threads, &spread);
    const double operations = 2.0 * (double)(part->weights - part->head_weights) * tokens;
    pi2_workload_weights layers = *part, head = *part;
    layers.bytes -= part->head_bytes;
    head.bytes = part->head_bytes;
    /* Few tokens still wait for the weights to pass by. */
    pi2_pass_time ignored = {0};
    const double least = one_token(&layers, w, profile, what_if, &ignored);
    time->spread = fmax(time->spread, spread);
    return fmax(divide(operations, speed) / what_if->compute, least) +
           one_token(&head, w, profile, what_if, time);
}

static double attention_seconds(const pi2_workload *w, const pi2_device_profile *profile,
                                const pi2_what_if *what_if, uint32_t tokens, uint32_t position) {
    const double keys = (double)position + ((double)tokens + 1) / 2;
    const uint64_t queries = tokens > 1 ? QUERIES_OF_A_BATCH
                                        : w->key_value_floats ? 2 * (uint64_t)w->query_floats / w->key_value_floats : 1;
    const double speed = pi2_profile_value(profile, PI2_MEASURED_ATTENTION, "", queries, 0, NULL);
    const double memory = pi2_profile_value(profile, PI2_MEASURED_MEMORY, "", w->threads, 0, NULL);
    const double operations = 4.0 * (double)w->query_floats * w->layer_count * keys * tokens;
    const double computing = divide(operations, speed * w->threads) / what_if->compute;
    const double moving = divide((double)w->cache_bytes_per_position * keys, memory) / what_if->memory;
    return fmax(computing, moving);
}

/** Norms, rotations, quantising: by one thread for one token, by all for many. */
static double vector_seconds(const pi2_workload *w, const pi2_device_profile *profile, const pi2_what_if *what_if,
                             uint32_t tokens) {
    const double speed = pi2_profile_value(profile, PI2_MEASURED_VECTOR, "", 0, 0, NULL);
    const double serial = 2.0 * w->width + 2.0 * w->query_floats + w->key_value_floats;
    const double threads = tokens > 2 ? w->threads : 1;
    const double floats = w->layer_count * (serial / threads + (double)w->feed_forward / w->threads);
    return divide(floats * tokens, speed) / what_if->compute;
}

pi2_pass_time pi2_predict_pass(const pi2_workload *w, const pi2_device_profile *profile, const pi2_what_if *what_if,
                               uint32_t tokens, uint32_t position) {
    pi2_pass_time time = {0};
    double spread = 0;
    for (uint32_t i = 0; i < w->type_count; i++) {
        const pi2_workload_weights *part = &w->types[i];
        time.compute += tokens == 1 ? one_token(part, w, profile, what_if, &time)
                                    : several_tokens(part, w, profile, what_if, tokens, &time);
    }
    time.compute += attention_seconds(w, profile, what_if, tokens, position);
    time.compute += vector_seconds(w, profile, what_if, tokens);
    time.compute += w->stages_per_pass * pi2_profile_value(profile, PI2_MEASURED_STAGE, "", w->threads, 0, NULL);
    const double read_bytes = (double)w->read_bytes;
    const double disk = pi2_profile_value(profile, PI2_MEASURED_DISK, w->read_method, w->read_block, READ_DEPTH,
                                          &spread);
    time.read = divide(read_bytes, disk) / what_if->disk;
    if (w->threads >= w->cores) { /* the reading thread has no processor of its own */
        const double cpu = pi2_profile_value(profile, PI2_MEASURED_READ_CPU, w->read_method, 0, 0, NULL);
        time.compute += read_bytes * cpu / (w->cores ? w->cores : 1);
    }
    time.seconds = fmax(time.read, time.compute);
    if (time.read > time.compute) time.spread = spread;
    if (w->embedding_streams) {
        time.seconds += divide(4096, pi2_profile_value(profile, PI2_MEASURED_DISK, w->read_method, 0, 1, NULL));
    }
    return time;
}

static pi2_speed range(double tokens_per_second, double spread) {
    const double off = MODEL_ERROR + spread;
    return (pi2_speed){tokens_per_second, tokens_per_second / (1 + off), tokens_per_second * (1 + off)};
}

static pi2_bottleneck limit_of(const pi2_pass_time *time) {
    if (time->read > time->compute) return PI2_LIMIT_DISK;
    return time->memory > time->compute / 2 ? PI2_LIMIT_MEMORY_BANDWIDTH : PI2_LIMIT_COMPUTE;
}

void pi2_predict(const pi2_workload *w, const pi2_device_profile *profile, const pi2_what_if *what_if,
                 uint32_t prompt_tokens, uint32_t position, pi2_prediction *prediction) {
    memset(prediction, 0, sizeof *prediction);
    const pi2_pass_time decode = pi2_predict_pass(w, profile, what_if, 1, position);
    prediction->decode = range(divide(1, decode.seconds), decode.spread);
    prediction->bottleneck = limit_of(&decode);
    prediction->bytes_per_token = w->read_bytes;
    prediction->resident_bytes = w->resident_bytes;
    double seconds = 0, spread = 0;
    const uint32_t batch = w->batch_tokens ? w->batch_tokens : 1;
    for (uint32_t done = 0; done < prompt_tokens;) {
        const uint32_t tokens = prompt_tokens - done < batch ? prompt_tokens - done : batch;
        const pi2_pass_time pass = pi2_predict_pass(w, profile, what_if, tokens, done);
        seconds += pass.seconds;
        spread = fmax(spread, pass.spread);
        if (done == 0) prediction->prefill_bottleneck = limit_of(&pass);
        done += tokens;
    }
    prediction->prefill = range(divide(prompt_tokens, seconds), spread);
    const double disk = pi2_profile_value(profile, PI2_MEASURED_DISK, w->read_method, w->read_block, READ_DEPTH, NULL);
    prediction->load_ms = 1e3 * divide((double)w->resident_bytes, disk) / what_if->disk;
    prediction->time_to_first_token_ms = prediction->load_ms + 1e3 * seconds;
}

/* ---- what would help ---- */

static void add_advice(pi2_advice *advice, size_t *count, const pi2_workload *w, const pi2_device_profile *profile,
                       const pi2_what_if *what_if, uint32_t prompt, uint32_t position, const char *what,
                       double before) {
    pi2_prediction with;
    pi2_predict(w, profile, what_if, prompt, position, &with);
    if (before <= 0 || with.decode.tokens_per_second < 1.05 * before || *count == PI2_ADVICE_MOST) return;
    size_t place = (*count)++;
    const double speed = with.decode.tokens_per_second;
    for (; place > 0 && advice[place - 1].tokens_per_second < speed; place--) advice[place] = advice[place - 1];
    advice[place] = (pi2_advice){.tokens_per_second = speed, .factor = speed / before};
    (void)snprintf(advice[place].what, sizeof advice[place].what, "%s", what);
}

/** Bytes of a token's weights, were those above 4.5 bits Q4_0; false when none is. */
static bool smaller_weights(pi2_workload *w) {
    double before = 0, after = 0;
    for (uint32_t i = 0; i < w->type_count; i++) {
        pi2_workload_weights *part = &w->types[i];
        const double bits = part->weights ? 8.0 * (double)part->bytes / (double)part->weights : 0;
        before += (double)part->bytes;
        if (bits > 4.7) {
            part->bytes = (uint64_t)((double)part->bytes * 4.5 / bits);
            part->head_bytes = (uint64_t)((double)part->head_bytes * 4.5 / bits);
            part->type = "Q4_0";
        }
        after += (double)part->bytes;
    }
    const double saved = before - after;
    w->read_bytes -= saved < (double)w->read_bytes ? (uint64_t)saved : w->read_bytes;
    return saved > 0;
}

size_t pi2_predict_advice(const pi2_workload *w, const pi2_device_profile *profile, uint32_t prompt,
                          uint32_t position, pi2_advice advice[PI2_ADVICE_MOST]) {
    size_t count = 0;
    pi2_prediction now;
    pi2_predict(w, profile, &pi2_as_it_is, prompt, position, &now);
    const double before = now.decode.tokens_per_second;
    pi2_workload changed = *w;
    changed.read_bytes -= w->resident_bytes < w->read_bytes ? w->resident_bytes : w->read_bytes;
    add_advice(advice, &count, &changed, profile, &pi2_as_it_is, prompt, position,
               "memory for twice the weights", before);
    changed.read_bytes = 0;
    changed.embedding_streams = false;
    add_advice(advice, &count, &changed, profile, &pi2_as_it_is, prompt, position, "memory for all weights", before);
    pi2_what_if twice = pi2_as_it_is;
    twice.disk = 2;
    add_advice(advice, &count, w, profile, &twice, prompt, position, "a disk twice as fast", before);
    twice = pi2_as_it_is;
    twice.memory = 2;
    add_advice(advice, &count, w, profile, &twice, prompt, position, "memory of twice the bandwidth", before);
    twice = pi2_as_it_is;
    twice.compute = 2;
    add_advice(advice, &count, w, profile, &twice, prompt, position, "processors twice as fast", before);
    changed = *w;
    changed.threads = w->cores;
    add_advice(advice, &count, &changed, profile, &pi2_as_it_is, prompt, position,
               "a thread on every processor", before);
    changed = *w;
    if (smaller_weights(&changed)) {
        add_advice(advice, &count, &changed, profile, &pi2_as_it_is, prompt, position,
                   "weights of 4.5 bits (Q4_0)", before);
    }
    return count;
}
