/* sampler.c: see sampler.h. Arithmetic is our own, so a seed means the same text everywhere. */
#include "engine/sampler.h"

#include "base/fail.h"
#include "engine/sampler_filters.h"

#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How often a token is in the window; the entries are sorted by token. */
typedef struct window_count {
    int32_t token;
    uint32_t count;
    float logit; /* before the penalties, while a token is chosen */
} window_count;

typedef struct random_state {
    uint64_t state, increment;
} random_state;

struct pi2_sampler {
    pi2_sampling params;
    uint32_t vocabulary_size;
    uint32_t seed;
    random_state random;
    uint32_t window_size;  /* tokens that fit; 0 when no penalty is on */
    uint32_t window_used;
    uint32_t window_next;  /* where the next token goes, and the oldest one once full */
    uint32_t count_used;
    uint32_t candidate_size;
    int32_t *window;       /* [window_size] */
    window_count *counts;  /* [window_size] */
    pi2_logit_bias *biases; /* [params.logit_bias_count], what the params say */
    float *biased;         /* [params.logit_bias_count] their logits before, while a token is chosen */
    pi2_candidate *candidates; /* [candidate_size] of the caller's [vocabulary_size] */
};

void pi2_sampling_init(pi2_sampling *sampling) {
    *sampling = (pi2_sampling){
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .typical_p = 1.0f,
        .top_n_sigma = -1.0f,
        .xtc_probability = 0.0f,
        .xtc_threshold = 0.1f,
        .dynamic_range = 0.0f,
        .dynamic_exponent = 1.0f,
        .repeat_penalty = 1.0f,
        .repeat_last_n = 64,
        .presence_penalty = 0.0f,
        .frequency_penalty = 0.0f,
        .seed = PI2_SAMPLER_RANDOM_SEED,
        .logit_biases = NULL,
        .logit_bias_count = 0,
        .forbid_end_tokens = false,
        .grammar = NULL,
    };
}

static pi2_status check_biases(const pi2_sampling *params) {
    if (params->logit_bias_count > PI2_LOGIT_BIASES_MOST)
        return pi2_fail(PI2_ERR_INVALID, "logit_bias has %lu tokens; it may have %d",
                        (unsigned long)params->logit_bias_count, PI2_LOGIT_BIASES_MOST);
    if (params->logit_bias_count > 0 && params->logit_biases == NULL)
        return pi2_fail(PI2_ERR_INVALID, "logit_bias_count is %lu, but logit_biases is NULL",
                        (unsigned long)params->logit_bias_count);
    for (uint32_t i = 0; i < params->logit_bias_count; i++) {
        const pi2_logit_bias *bias = &params->logit_biases[i];
        if (isnan(bias->bias) || bias->bias > FLT_MAX)
            return pi2_fail(PI2_ERR_INVALID, "logit_bias of token %ld is %g; it must be a number, or minus infinity",
                            (long)bias->token, (double)bias->bias);
    }
    return PI2_OK;
}

pi2_status pi2_sampling_check(const pi2_sampling *params) {
    const struct { const char *name; float value, least, most; const char *remedy; } numbers[] = {
        {"temperature", params->temperature, -FLT_MAX, FLT_MAX, "a finite number"},
        {"top_p", params->top_p, 0.0f, 1.0f, "from 0 to 1 (1: off)"},
        {"min_p", params->min_p, 0.0f, 1.0f, "from 0 to 1 (0: off)"},
        {"typical_p", params->typical_p, 0.0f, 1.0f, "from 0 to 1 (1: off)"},
        {"top_n_sigma", params->top_n_sigma, -FLT_MAX, FLT_MAX, "a finite number (0 and below: off)"},
        {"xtc_probability", params->xtc_probability, 0.0f, 1.0f, "from 0 to 1 (0: off)"},
        {"xtc_threshold", params->xtc_threshold, 0.0f, FLT_MAX, "a finite number from 0 on (above 0.5: off)"},
        {"dynatemp_range", params->dynamic_range, 0.0f, FLT_MAX, "a finite number from 0 on (0: off)"},
        {"dynatemp_exponent", params->dynamic_exponent, 0.0f, FLT_MAX, "a finite number from 0 on"},
        {"repeat_penalty", params->repeat_penalty, FLT_MIN, FLT_MAX, "a finite number above 0 (1: off)"},
        {"presence_penalty", params->presence_penalty, -FLT_MAX, FLT_MAX, "a finite number"},
        {"frequency_penalty", params->frequency_penalty, -FLT_MAX, FLT_MAX, "a finite number"}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (!(numbers[i].value >= numbers[i].least && numbers[i].value <= numbers[i].most))
            return pi2_fail(PI2_ERR_INVALID, "%s is %g; it must be %s", numbers[i].name, (double)numbers[i].value,
                            numbers[i].remedy);
    }
    if (params->repeat_last_n < -1)
        return pi2_fail(PI2_ERR_INVALID,
                        "repeat_last_n is %ld; it must be at least -1 (0: off, -1: the context)",
                        (long)params->repeat_last_n);
    if (params->grammar != NULL && params->forbid_end_tokens)
        return pi2_fail(PI2_ERR_INVALID, "a grammar and ignored end tokens (ignore_eos) exclude each other: the "
                        "grammar's text ends");
    return check_biases(params);
}

/* ---- memory ---- */

static uint32_t window_size_of(const pi2_sampling *params, uint32_t context_length) {
    const bool penalises = params->repeat_penalty != 1.0f || params->presence_penalty != 0.0f ||
                           params->frequency_penalty != 0.0f;
    if (!penalises || params->repeat_last_n == 0) return 0;
    if (params->repeat_last_n < 0) return context_length;
    const uint32_t asked = (uint32_t)params->repeat_last_n;
    return asked < context_length ? asked : context_length;
}

static uint32_t candidate_size_of(const pi2_sampling *params, uint32_t vocabulary_size) {
    if (params->temperature <= 0.0f) return 0; /* greedy needs no list */
    if (params->top_k <= 0 || (uint32_t)params->top_k > vocabulary_size) return vocabulary_size;
    return (uint32_t)params->top_k;
}

size_t pi2_sampler_candidate_bytes(uint32_t vocabulary_size) { return vocabulary_size * sizeof(pi2_candidate); }

size_t pi2_sampler_bytes(const pi2_sampling *params, uint32_t context_length) {
    if (pi2_sampling_check(params) != PI2_OK) return 0;
    const uint64_t per_window_token = sizeof(int32_t) + sizeof(window_count);
    const uint64_t per_bias = sizeof(pi2_logit_bias) + sizeof(float);
    const uint64_t bytes = sizeof(pi2_sampler) + window_size_of(params, context_length) * per_window_token +
                           params->logit_bias_count * per_bias;
    return bytes <= SIZE_MAX ? (size_t)bytes : 0;
}

/* ---- random numbers: PCG32 (O'Neill 2014), 64-bit state, 32-bit output ---- */

static uint32_t random_next(random_state *random) {
    const uint64_t old = random->state;
    random->state = old * UINT64_C(6364136223846793005) + random->increment;
    const uint32_t shifted = (uint32_t)(((old >> 18) ^ old) >> 27);
    const uint32_t rotation = (uint32_t)(old >> 59);
    return (shifted >> rotation) | (shifted << ((32u - rotation) & 31u));
}

static void random_seed(random_state *random, uint32_t seed) {
    random->state = 0;
    random->increment = 1442695040888963407u; /* odd, as the generator asks */
    (void)random_next(random);
    random->state += seed;
    (void)random_next(random);
}

static uint64_t random_number(random_state *random) {
    const uint64_t high = random_next(random);
    return high << 32 | random_next(random);
}

/** Uniform in [0, 1): 53 random bits, exact in a double. */
static double random_unit(random_state *random) {
    const uint64_t high = random_next(random) >> 5; /* 27 bits */
    const uint64_t low = random_next(random) >> 6;  /* 26 bits */
    return (double)((high << 26) | low) * (1.0 / 9007199254740992.0);
}

/** A seed that differs from run to run; never the value that asks for one. */
static uint32_t draw_seed(void) {
    uint32_t seed = 0;
    bool drawn = false;
    const int file = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        drawn = read(file, &seed, sizeof seed) == (ssize_t)sizeof seed;
        (void)close(file);
    }
    if (!drawn) {
        struct timespec now = {0, 0};
        (void)clock_gettime(CLOCK_REALTIME, &now);
        random_state mixer;
        random_seed(&mixer, (uint32_t)now.tv_nsec ^ (uint32_t)getpid());
        seed = random_next(&mixer) ^ (uint32_t)now.tv_sec;
    }
    return seed == PI2_SAMPLER_RANDOM_SEED ? 0 : seed;
}

/* ---- life ---- */

pi2_status pi2_sampler_create(const pi2_sampling *params, uint32_t vocabulary_size, uint32_t context_length,
                              void *candidates, pi2_sampler **sampler_out) {
    *sampler_out = NULL;
    PI2_TRY(pi2_sampling_check(params));
    if (vocabulary_size == 0 || vocabulary_size > INT32_MAX)
        return pi2_fail(PI2_ERR_INVALID, "a sampler needs 1 to %ld tokens; the vocabulary has %lu",
                        (long)INT32_MAX, (unsigned long)vocabulary_size);
    const size_t bytes = pi2_sampler_bytes(params, context_length);
    pi2_sampler *sampler = bytes != 0 ? malloc(bytes) : NULL;
    if (sampler == NULL)
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a sampler over %lu tokens (%zu bytes)",
                        (unsigned long)vocabulary_size, bytes);
    memset(sampler, 0, sizeof *sampler);
    sampler->params = *params;
    sampler->vocabulary_size = vocabulary_size;
    sampler->window_size = window_size_of(params, context_length);
    sampler->candidate_size = candidate_size_of(params, vocabulary_size);
    sampler->candidates = candidates;
    /* The arrays follow the struct; all hold 4-byte members, so any order is aligned. */
    sampler->counts = (window_count *)(void *)(sampler + 1);
    sampler->window = (int32_t *)(void *)(sampler->counts + sampler->window_size);
    sampler->biases = (pi2_logit_bias *)(void *)(sampler->window + sampler->window_size);
    sampler->biased = (float *)(void *)(sampler->biases + params->logit_bias_count);
    if (params->logit_bias_count > 0)
        memcpy(sampler->biases, params->logit_biases, params->logit_bias_count * sizeof sampler->biases[0]);
    sampler->params.logit_biases = sampler->biases;
    pi2_sampler_reset(sampler);
    *sampler_out = sampler;
    return PI2_OK;
}

void pi2_sampler_free(pi2_sampler *sampler) { free(sampler); }

uint32_t pi2_sampler_seed(const pi2_sampler *sampler) { return sampler->seed; }

void pi2_sampler_reset(pi2_sampler *sampler) {
    sampler->window_used = 0;
    sampler->window_next = 0;
    sampler->count_used = 0;
    sampler->seed = sampler->params.seed == PI2_SAMPLER_RANDOM_SEED ? draw_seed() : sampler->params.seed;
    random_seed(&sampler->random, sampler->seed);
}

/* ---- penalty window ---- */

/** First entry whose token is not below `token`. */
static uint32_t count_position(const pi2_sampler *sampler, int32_t token) {
    uint32_t low = 0, high = sampler->count_used;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (sampler->counts[middle].token < token) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void count_remove(pi2_sampler *sampler, int32_t token) {
    const uint32_t at = count_position(sampler, token);
    window_count *counts = sampler->counts;
    if (--counts[at].count > 0) return;
    sampler->count_used--;
    memmove(&counts[at], &counts[at + 1], (sampler->count_used - at) * sizeof counts[0]);
}

static void count_add(pi2_sampler *sampler, int32_t token) {
    const uint32_t at = count_position(sampler, token);
    window_count *counts = sampler->counts;
    if (at < sampler->count_used && counts[at].token == token) {
        counts[at].count++;
        return;
    }
    memmove(&counts[at + 1], &counts[at], (sampler->count_used - at) * sizeof counts[0]);
    counts[at] = (window_count){.token = token, .count = 1, .logit = 0.0f};
    sampler->count_used++;
}

void pi2_sampler_accept(pi2_sampler *sampler, int32_t token) {
    if (sampler->window_size == 0) return;
    if (token < 0 || (uint32_t)token >= sampler->vocabulary_size) return;
    if (sampler->window_used == sampler->window_size)
        count_remove(sampler, sampler->window[sampler->window_next]);
    else
        sampler->window_used++;
    count_add(sampler, token);
    sampler->window[sampler->window_next] = token;
    sampler->window_next = (sampler->window_next + 1) % sampler->window_size;
}

const pi2_sampling *pi2_sampler_params(const pi2_sampler *sampler) { return &sampler->params; }

void pi2_sampler_follow(pi2_sampler *sampler, const pi2_sampler *from, bool with_numbers) {
    sampler->window_used = sampler->window_next = sampler->count_used = 0;
    const uint32_t oldest = from->window_used == from->window_size ? from->window_next : 0;
    for (uint32_t i = 0; i < from->window_used; i++) {
        pi2_sampler_accept(sampler, from->window[(oldest + i) % from->window_size]);
    }
    if (!with_numbers) return;
    sampler->seed = from->seed;
    sampler->random = from->random;
}

/* ---- biases and penalties ---- */

static void apply_biases(pi2_sampler *sampler, float *logits) {
    for (uint32_t i = 0; i < sampler->params.logit_bias_count; i++) {
        const pi2_logit_bias *bias = &sampler->biases[i];
        if (bias->token < 0 || (uint32_t)bias->token >= sampler->vocabulary_size) continue;
        sampler->biased[i] = logits[bias->token];
        logits[bias->token] += bias->bias;
    }
}

/** The last first: a token may have several. */
static void undo_biases(const pi2_sampler *sampler, float *logits) {
    for (uint32_t i = sampler->params.logit_bias_count; i > 0; i--) {
        const int32_t token = sampler->biases[i - 1].token;
        if (token >= 0 && (uint32_t)token < sampler->vocabulary_size) logits[token] = sampler->biased[i - 1];
    }
}

static void apply_penalties(pi2_sampler *sampler, float *logits) {
    const pi2_sampling *params = &sampler->params;
    for (uint32_t i = 0; i < sampler->count_used; i++) {
        window_count *entry = &sampler->counts[i];
        float logit = entry->logit = logits[entry->token];
        if (logit <= 0.0f) logit *= params->repeat_penalty;
        else logit /= params->repeat_penalty;
        logit -= (float)entry->count * params->frequency_penalty;
        logits[entry->token] = logit - params->presence_penalty;
    }
}

static void undo_penalties(const pi2_sampler *sampler, float *logits) {
    for (uint32_t i = 0; i < sampler->count_used; i++)
        logits[sampler->counts[i].token] = sampler->counts[i].logit;
}

/* ---- choosing ---- */

/** A number that can be compared: NaN ranks last, plus infinity stays finite. */
static float comparable(float logit) {
    if (isnan(logit)) return -INFINITY;
    return logit > FLT_MAX ? FLT_MAX : logit;
}

/** Moves items[at] down a heap whose root ranks last (or first, when best_at_root). */
static void sift_down(pi2_candidate *items, uint32_t count, uint32_t at, bool best_at_root) {
    const pi2_candidate moved = items[at];
    for (;;) {
        uint64_t child = 2 * (uint64_t)at + 1;
        if (child >= count) break;
        if (child + 1 < count &&
            pi2_candidate_ranks_before(items[child + 1], items[child]) == best_at_root)
            child++;
        if (pi2_candidate_ranks_before(items[child], moved) != best_at_root) break;
        items[at] = items[child];
        at = (uint32_t)child;
    }
    items[at] = moved;
}

static void make_heap(pi2_candidate *items, uint32_t count, bool best_at_root) {
    for (uint32_t i = count / 2; i > 0; i--) sift_down(items, count, i - 1, best_at_root);
}

static bool is_allowed(const pi2_token_filter *filter, int32_t token) {
    return filter == NULL || filter->allows(filter->user, token);
}

/** The candidate_size best of all logits from `least` on that are allowed, in no useful order; returns how many. */
static uint32_t select_best(pi2_sampler *sampler, const float *logits, float least, const pi2_token_filter *filter) {
    pi2_candidate *items = sampler->candidates;
    const uint32_t size = sampler->candidate_size;
    uint32_t used = 0;
    for (uint32_t i = 0; i < sampler->vocabulary_size; i++) {
        const pi2_candidate next = {.logit = comparable(logits[i]), .token = (int32_t)i};
        if (next.logit < least) continue;
        if (used == size && !pi2_candidate_ranks_before(next, items[0])) continue;
        if (!is_allowed(filter, next.token)) continue;
        if (used < size) {
            items[used++] = next;
            if (used == size && size < sampler->vocabulary_size)
                make_heap(items, size, false); /* the root is the worst kept, the next to be replaced */
        } else {
            items[0] = next;
            sift_down(items, size, 0, false);
        }
    }
    return used;
}

/**
 * Brings the candidates that pass top-p and min-p to the end of the array, best last, and
 * returns how many they are. Takes them off a heap, so that only those kept are ever sorted.
 */
static uint32_t filter_by_probability(pi2_sampler *sampler, uint32_t size) {
    const float top_p = sampler->params.top_p, min_p = sampler->params.min_p;
    pi2_candidate *items = sampler->candidates;
    make_heap(items, size, true);
    const float best = items[0].logit;
    double total = 0.0;
    if (top_p < 1.0f) {
        for (uint32_t i = 0; i < size; i++) total += (double)pi2_candidate_weight(items[i].logit - best);
    }
    double sum = 0.0;
    uint32_t kept = 0;
    while (kept < size) {
        const float weight = pi2_candidate_weight(items[0].logit - best);
        if (kept > 0 && (weight < min_p || items[0].logit == -INFINITY)) break;
        const uint32_t rest = size - kept - 1;
        const pi2_candidate taken = items[0];
        items[0] = items[rest];
        items[rest] = taken;
        sift_down(items, rest, 0, true);
        kept++;
        sum += (double)weight;
        if (top_p < 1.0f && sum >= (double)top_p * total) break;
    }
    return kept;
}

static int32_t draw(pi2_sampler *sampler, const pi2_candidate *items, uint32_t count) {
    const pi2_sampling *params = &sampler->params;
    float temperature = params->temperature, best = items[0].logit;
    int32_t last = items[0].token;
    for (uint32_t i = 1; i < count; i++) {
        if (!pi2_candidate_ranks_before(items[i], (pi2_candidate){best, last})) continue;
        best = items[i].logit;
        last = items[i].token;
    }
    if (params->dynamic_range > 0.0f) {
        const float least = temperature > params->dynamic_range ? temperature - params->dynamic_range : 0.0f;
        temperature = pi2_dynamic_temperature(items, count, least, temperature + params->dynamic_range,
                                              params->dynamic_exponent);
        if (temperature <= 0.0f) return last;
    }
    const uint64_t number = random_number(&sampler->random);
    double first = INFINITY;
    for (uint32_t i = 0; i < count; i++) {
        const float weight = pi2_candidate_weight((items[i].logit - best) / temperature);
        if (weight <= 0.0f) continue;
        const double time = pi2_draw_time(number, items[i].token) / (double)weight;
        if (!(time < first)) continue;
        first = time;
        last = items[i].token;
    }
    return last;
}

static int32_t best_token(const float *logits, uint32_t count, const pi2_token_filter *filter) {
    float best = -INFINITY;
    int32_t token = -1;
    for (uint32_t i = 0; i < count; i++) {
        const float logit = comparable(logits[i]);
        if (logit > best && is_allowed(filter, (int32_t)i)) {
            best = logit;
            token = (int32_t)i;
        }
    }
    return token;
}

/* It takes a random number of its own. */
static bool excludes_top_choices(const pi2_sampling *params) {
    return params->xtc_probability > 0.0f && params->xtc_threshold <= 0.5f;
}

void pi2_sampler_foretell(const pi2_sampler *sampler, pi2_draws *draws_out) {
    const pi2_sampling *params = &sampler->params;
    random_state random = sampler->random;
    *draws_out = (pi2_draws){ .temperature = params->temperature, .least_share = params->min_p };
    if (params->temperature <= 0.0f || params->dynamic_range > 0.0f || params->top_k == 1) return;
    for (; draws_out->count < PI2_DRAWS_MOST; draws_out->count++) {
        if (excludes_top_choices(params)) (void)random_unit(&random);
        draws_out->numbers[draws_out->count] = random_number(&random);
    }
}

static int32_t choose(pi2_sampler *sampler, const float *logits, const pi2_token_filter *filter) {
    const int32_t greedy = best_token(logits, sampler->vocabulary_size, filter);
    if (greedy < 0 || sampler->params.temperature <= 0.0f) return greedy;
    const pi2_sampling *params = &sampler->params;
    float least = -INFINITY;
    if (params->top_n_sigma > 0.0f) {
        least = pi2_filter_sigma_floor(logits, sampler->vocabulary_size, comparable(logits[greedy]),
                                       params->top_n_sigma);
    }
    uint32_t size = select_best(sampler, logits, least, filter);
    pi2_candidate *items = sampler->candidates;
    if (params->typical_p < 1.0f) size = pi2_filter_typical(items, size, params->typical_p);
    uint32_t count = size;
    if (params->top_p < 1.0f || params->min_p > 0.0f) {
        count = filter_by_probability(sampler, size);
        items += size - count;
    }
    if (excludes_top_choices(params) && random_unit(&sampler->random) < (double)params->xtc_probability) {
        count = pi2_filter_top_choices(items, count, params->xtc_threshold);
    }
    return draw(sampler, items, count);
}

pi2_status pi2_sampler_sample(pi2_sampler *sampler, float *logits, int32_t *token_out) {
    return pi2_sampler_sample_allowed(sampler, logits, NULL, token_out);
}

pi2_status pi2_sampler_sample_allowed(pi2_sampler *sampler, float *logits, const pi2_token_filter *filter,
                                      int32_t *token_out) {
    apply_biases(sampler, logits);
    apply_penalties(sampler, logits);
    int32_t token = choose(sampler, logits, NULL);
    const bool has_numbers = token >= 0;
    if (has_numbers && !is_allowed(filter, token)) token = choose(sampler, logits, filter);
    undo_penalties(sampler, logits);
    undo_biases(sampler, logits);
    if (!has_numbers)
        return pi2_fail(PI2_ERR_FORMAT,
                        "none of the %lu logits is a number above minus infinity; the model file "
                        "may be damaged ('inspect --verify' looks)",
                        (unsigned long)sampler->vocabulary_size);
    if (token < 0)
        return pi2_fail(PI2_ERR_UNSUPPORTED, "no token of the vocabulary may come next by the grammar, or there are "
                        "too many ways to read the text so far: the answer cannot go on");
    *token_out = token;
    return PI2_OK;
}
