/*
 * low_rank_train.c: in a batch of samples, with barriers between:
 *
 *   code     h = relu(A x)                     threads share samples out
 *   error    g = weight * (sigmoid(B h + b) - y)   neurons
 *   back     dh = B' g, where h is not 0       samples
 *   update   B, b by h and g (neurons); A by dh and x (inputs)
 *
 * Matrices lie so that the inner loop runs over what is written side by side: A as [width][rank], B as [rank][neurons].
 */
#include "predictor/low_rank_train.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu_features.h"
#include "base/fail.h"
#include "predictor/low_rank.h"

enum { BATCH = 64, LANES = 16, PATIENCE = 2, STEP = 256 };
#define LOSS_UNITS 1048576.0
static const float first_decay = 0.9f, second_decay = 0.999f, tiny = 1e-8f, most_weight = 4.0f;

/** Numbers that are learned, and Adam's two means of their gradients. */
typedef struct learned {
    float *values, *first, *second, *best;
    size_t count;
} learned;

typedef struct trainer {
    const pi2_low_rank_samples *samples;
    const pi2_low_rank_training *training;
    uint32_t width, neurons, rank;
    learned a, b, bias;          /* [width][rank], [rank][neurons], [neurons] */
    float *code, *errors, *back; /* [BATCH][rank], [BATCH][neurons], [BATCH][rank] */
    uint32_t *order;             /* [samples]: those that are learned from, shuffled; then those held out */
    uint32_t learn_count, held_count;
    float scale, weight;         /* of inputs; of a neuron that fires */
    float rate, first_left, second_left; /* of this batch: rate, and what the means lack at first */
    uint32_t begin, count;       /* of `order`: this batch */
    bool learns;
    _Atomic uint64_t loss;       /* in units of 1 / LOSS_UNITS */
    _Atomic uint32_t broken;     /* 1: a loss was no number */
} trainer;

/* ---- memory ---- */

static void free_learned(learned *of) {
    free(of->values);
    free(of->first);
    free(of->second);
    free(of->best);
}

static bool make_learned(learned *of, size_t count) {
    of->count = count;
    of->values = calloc(count, sizeof *of->values);
    of->first = calloc(count, sizeof *of->first);
    of->second = calloc(count, sizeof *of->second);
    of->best = calloc(count, sizeof *of->best);
    return of->values && of->first && of->second && of->best;
}

uint64_t pi2_low_rank_training_bytes(uint32_t width, uint32_t neurons, uint32_t rank) {
    return sizeof(float) * (4 * ((uint64_t)rank * (width + neurons) + neurons) + BATCH * (2ull * rank + neurons));
}

static void close_trainer(trainer *self) {
    free_learned(&self->a);
    free_learned(&self->b);
    free_learned(&self->bias);
    free(self->code);
    free(self->errors);
    free(self->back);
    free(self->order);
}

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void fill_random(learned *of, float most, uint64_t *seed) {
    for (size_t i = 0; i < of->count; i++) {
        of->values[i] = most * ((float)(next_random(seed) >> 40) / 8388608.0f - 1.0f);
    }
}

static bool fires(const trainer *self, uint32_t sample, uint32_t neuron) {
    const size_t bytes = (self->neurons + (size_t)7) / 8;
    return self->samples->fires[sample * bytes + neuron / 8] >> (neuron % 8) & 1;
}

/* Who is learned from, how large inputs are, and how rare it is to fire. */
static void look_at_samples(trainer *self) {
    const pi2_low_rank_samples *samples = self->samples;
    double squares = 0;
    uint64_t fired = 0;
    for (uint32_t i = 0; i < samples->count; i++) {
        if (i % PI2_LOW_RANK_HELD_OUT) self->order[self->learn_count++] = i;
        for (uint32_t c = 0; c < self->width; c++) {
            const double x = (double)samples->inputs[(size_t)i * self->width + c];
            squares += x * x;
        }
        for (uint32_t n = 0; n < self->neurons; n++) fired += fires(self, i, n);
    }
    for (uint32_t i = 0; i < samples->count; i += PI2_LOW_RANK_HELD_OUT) {
        self->order[self->learn_count + self->held_count++] = i;
    }
    const double all = (double)samples->count * self->neurons, mean = squares / ((double)samples->count * self->width);
    const double odds = fired > 0 ? (all - (double)fired) / (double)fired : 1;
    self->scale = mean > 0 ? (float)(1.0 / sqrt(mean)) : 1.0f;
    self->weight = odds < 1 ? 1.0f : odds > (double)most_weight ? most_weight : (float)odds;
    for (uint32_t n = 0; n < self->neurons; n++) self->bias.values[n] = -(float)log(odds > 1 ? odds : 1);
}

static pi2_status open_trainer(trainer *self) {
    uint64_t seed = self->training->seed;
    const bool is_there = make_learned(&self->a, (size_t)self->width * self->rank) &
                          make_learned(&self->b, (size_t)self->rank * self->neurons) &
                          make_learned(&self->bias, self->neurons);
    self->code = malloc((size_t)BATCH * self->rank * sizeof *self->code);
    self->back = malloc((size_t)BATCH * self->rank * sizeof *self->back);
    self->errors = malloc((size_t)BATCH * self->neurons * sizeof *self->errors);
    self->order = malloc(self->samples->count * sizeof *self->order);
    if (!is_there || !self->code || !self->back || !self->errors || !self->order) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory to train a predictor of rank %u", self->rank);
    }
    look_at_samples(self);
    fill_random(&self->a, sqrtf(3.0f / (float)self->width), &seed);
    fill_random(&self->b, sqrtf(3.0f / (float)self->rank), &seed);
    return PI2_OK;
}

/* ---- one batch ---- */

static const float *input_of(const trainer *self, uint32_t i) {
    return self->samples->inputs + (size_t)self->order[self->begin + i] * self->width;
}

static void add_scaled(float *restrict to, const float *restrict from, float factor, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) to[i] += factor * from[i];
}

static float dot(const float *a, const float *b, uint32_t count) {
    float lanes[LANES] = { 0 }, sum = 0;
    uint32_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (uint32_t k = 0; k < LANES; k++) lanes[k] += a[i + k] * b[i + k];
    }
    for (; i < count; i++) lanes[0] += a[i] * b[i];
    for (int k = 0; k < LANES; k++) sum += lanes[k];
    return sum;
}

static void code_of(const trainer *self, uint32_t i) {
    const float *input = input_of(self, i);
    float *code = self->code + (size_t)i * self->rank;
    memset(code, 0, self->rank * sizeof *code);
    for (uint32_t c = 0; c < self->width; c++) {
        add_scaled(code, self->a.values + (size_t)c * self->rank, input[c] * self->scale, self->rank);
    }
    for (uint32_t k = 0; k < self->rank; k++) code[k] = code[k] > 0 ? code[k] : code[k] == code[k] ? 0 : code[k];
}

/* Neurons [begin, end), at most STEP, of sample i: their errors; returns the loss. */
static double errors_of(const trainer *self, uint32_t i, uint32_t begin, uint32_t end) {
    const float *code = self->code + (size_t)i * self->rank;
    float *errors = self->errors + (size_t)i * self->neurons;
    double loss = 0;
    memcpy(errors + begin, self->bias.values + begin, (end - begin) * sizeof *errors);
    for (uint32_t k = 0; k < self->rank; k++) {
        if (code[k] == 0) continue;
        add_scaled(errors + begin, self->b.values + (size_t)k * self->neurons + begin, code[k], end - begin);
    }
    for (uint32_t n = begin; n < end; n++) {
        const bool should = fires(self, self->order[self->begin + i], n);
        const float score = errors[n], size = fabsf(score), below = pi2_expf(-size);
        const float probability = score >= 0 ? 1.0f / (1.0f + below) : below / (1.0f + below);
        const float weight = should ? self->weight : 1.0f, wrong = should ? -score : score;
        loss += (double)weight * ((wrong > 0 ? (double)wrong : 0) + log1p((double)below));
        errors[n] = weight * (probability - (should ? 1.0f : 0.0f));
    }
    return loss;
}

static void back_of(const trainer *self, uint32_t i) {
    const float *code = self->code + (size_t)i * self->rank, *errors = self->errors + (size_t)i * self->neurons;
    float *back = self->back + (size_t)i * self->rank;
    for (uint32_t k = 0; k < self->rank; k++) {
        back[k] = code[k] == 0 ? 0 : dot(errors, self->b.values + (size_t)k * self->neurons, self->neurons);
    }
}

static void adapt(const trainer *self, learned *of, size_t at, const float *gradients, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const float gradient = gradients[i] / (float)self->count;
        float *first = &of->first[at + i], *second = &of->second[at + i];
        *first = first_decay * *first + (1.0f - first_decay) * gradient;
        *second = second_decay * *second + (1.0f - second_decay) * (gradient * gradient);
        of->values[at + i] -= self->rate * (*first / self->first_left) / (sqrtf(*second / self->second_left) + tiny);
    }
}

static void update_neurons(trainer *self, uint32_t begin, uint32_t end) {
    float gradients[STEP];
    const uint32_t count = end - begin;
    for (uint32_t k = 0; k <= self->rank; k++) { /* the last one is the bias */
        memset(gradients, 0, sizeof gradients);
        for (uint32_t i = 0; i < self->count; i++) {
            const float code = k < self->rank ? self->code[(size_t)i * self->rank + k] : 1.0f;
            if (code != 0) add_scaled(gradients, self->errors + (size_t)i * self->neurons + begin, code, count);
        }
        if (k < self->rank) adapt(self, &self->b, (size_t)k * self->neurons + begin, gradients, count);
        else adapt(self, &self->bias, begin, gradients, count);
    }
}

static void update_input(trainer *self, uint32_t column) {
    float gradients[STEP];
    for (uint32_t begin = 0; begin < self->rank; begin += STEP) {
        const uint32_t count = self->rank - begin < STEP ? self->rank - begin : STEP;
        memset(gradients, 0, sizeof gradients);
        for (uint32_t i = 0; i < self->count; i++) {
            const float x = input_of(self, i)[column] * self->scale;
            add_scaled(gradients, self->back + (size_t)i * self->rank + begin, x, count);
        }
        adapt(self, &self->a, (size_t)column * self->rank + begin, gradients, count);
    }
}

/* What a loss of a few hundred neurons comes to, as an integer, so that sums do not hang on who adds. */
static void add_loss(trainer *self, double loss) {
    if (!(loss < 1e9)) {
        atomic_store_explicit(&self->broken, 1, memory_order_relaxed);
        return;
    }
    (void)atomic_fetch_add_explicit(&self->loss, (uint64_t)(loss * LOSS_UNITS), memory_order_relaxed);
}

static uint32_t share_of(uint32_t count, unsigned member, unsigned members) {
    return (uint32_t)((uint64_t)count * member / members);
}

static void run_batch(void *argument, unsigned member, unsigned members) {
    trainer *self = argument;
    const uint32_t blocks = (self->neurons + STEP - 1) / STEP;
    const uint32_t first_block = share_of(blocks, member, members), end_block = share_of(blocks, member + 1, members);
    const uint32_t first = share_of(self->count, member, members), end = share_of(self->count, member + 1, members);
    for (uint32_t i = first; i < end; i++) code_of(self, i);
    pi2_team_barrier(self->training->team, member);
    for (uint32_t i = 0; i < self->count; i++) {
        for (uint32_t b = first_block; b < end_block; b++) {
            const uint32_t begin = b * STEP, left = self->neurons - begin;
            add_loss(self, errors_of(self, i, begin, begin + (left < STEP ? left : STEP)));
        }
    }
    pi2_team_barrier(self->training->team, member);
    if (!self->learns) return;
    for (uint32_t i = first; i < end; i++) back_of(self, i);
    pi2_team_barrier(self->training->team, member);
    for (uint32_t b = first_block; b < end_block; b++) {
        const uint32_t begin = b * STEP, left = self->neurons - begin;
        update_neurons(self, begin, begin + (left < STEP ? left : STEP));
    }
    const uint32_t last = share_of(self->width, member + 1, members);
    for (uint32_t c = share_of(self->width, member, members); c < last; c++) update_input(self, c);
}

/* ---- epochs ---- */

/* The mean loss of a neuron, over samples [begin, begin + count) of the order. */
static double run_samples(trainer *self, uint32_t begin, uint32_t count, bool learns) {
    atomic_store(&self->loss, 0);
    self->learns = learns;
    for (uint32_t done = 0; done < count; done += self->count) {
        self->begin = begin + done;
        self->count = count - done < BATCH ? count - done : BATCH;
        if (learns) {
            self->first_left = 1.0f - (1.0f - self->first_left) * first_decay;
            self->second_left = 1.0f - (1.0f - self->second_left) * second_decay;
        }
        pi2_team_run(self->training->team, run_batch, self);
    }
    if (atomic_load(&self->broken)) return INFINITY;
    return (double)atomic_load(&self->loss) / LOSS_UNITS / ((double)count * self->neurons);
}

static void shuffle(trainer *self, uint64_t *seed) {
    for (uint32_t i = self->learn_count - 1; i > 0; i--) {
        const uint32_t other = (uint32_t)(next_random(seed) % (i + 1)), kept = self->order[i];
        self->order[i] = self->order[other];
        self->order[other] = kept;
    }
}

static void keep_best(trainer *self, bool back) {
    learned *const all[] = { &self->a, &self->b, &self->bias };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        memcpy(back ? all[i]->values : all[i]->best, back ? all[i]->best : all[i]->values,
               all[i]->count * sizeof *all[i]->values);
    }
}

static pi2_status learn(trainer *self, uint32_t *epochs_out) {
    const pi2_low_rank_training *training = self->training;
    const pi2_callbacks *callbacks = training->callbacks;
    uint64_t seed = training->seed ^ UINT64_C(0x5bd1e995);
    const double at_first = run_samples(self, self->learn_count, self->held_count, false);
    double best = INFINITY;
    uint32_t since = 0, epoch = 0;
    for (; epoch < training->most_epochs && since < PATIENCE; epoch++) {
        if (callbacks && callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
            return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
        }
        shuffle(self, &seed);
        self->rate = training->rate / (1.0f + 0.5f * (float)epoch);
        const double learned_loss = run_samples(self, 0, self->learn_count, true);
        const double loss = run_samples(self, self->learn_count, self->held_count, false);
        if (!(loss < 2 * at_first + 1) || !(learned_loss < INFINITY)) {
            return pi2_fail(PI2_ERR_INVALID, "training diverges in epoch %u (loss %.3g, %.3g at first): a lower --rate "
                            "than %g may help", epoch + 1, loss, at_first, (double)training->rate);
        }
        since = loss < 0.998 * best ? 0 : since + 1;
        if (loss >= best) continue;
        best = loss;
        keep_best(self, false);
    }
    keep_best(self, true);
    *epochs_out = epoch;
    return PI2_OK;
}

/* ---- the result, and what it is worth ---- */

static pi2_status put_result(const trainer *self, const pi2_predictor *predictor, uint8_t *data) {
    const size_t most = self->width > self->rank ? self->width : self->rank;
    float *row = malloc(most * sizeof *row);
    if (!row) return pi2_fail(PI2_ERR_MEMORY, "no memory for a row of a predictor");
    for (uint32_t k = 0; k < self->rank; k++) {
        for (uint32_t c = 0; c < self->width; c++) row[c] = self->a.values[(size_t)c * self->rank + k] * self->scale;
        pi2_low_rank_put_code_row(predictor, self->rank, data, k, row);
    }
    for (uint32_t n = 0; n < self->neurons; n++) {
        for (uint32_t k = 0; k < self->rank; k++) row[k] = self->b.values[(size_t)k * self->neurons + n];
        pi2_low_rank_put_neuron(predictor, self->rank, data, n, row, self->bias.values[n]);
    }
    free(row);
    return PI2_OK;
}

/** What scores of the samples held out are made with. */
typedef struct scorer {
    const trainer *self;
    pi2_predictor_query query;
    float *scores;               /* [held][neurons] */
    _Atomic uint32_t failed;
} scorer;

/* Scores of the samples held out, as a run would compute them. */
static void score_held(void *argument, unsigned member, unsigned members) {
    scorer *of = argument;
    const trainer *self = of->self;
    int16_t *values = malloc(self->width * sizeof *values), *code_values = malloc(self->rank * sizeof *code_values);
    float *code = malloc(self->rank * sizeof *code);
    if (!values || !code_values || !code) atomic_store(&of->failed, 1);
    for (uint32_t i = member; i < self->held_count && !atomic_load(&of->failed); i += members) {
        const float *input =
            self->samples->inputs + (size_t)self->order[self->learn_count + i] * self->width;
        const pi2_predictor_vector from = pi2_predictor_quantize(input, self->width, values);
        of->query.predictor->kind->code(&of->query, &from, 0, self->rank, code);
        const pi2_predictor_vector coded = pi2_predictor_quantize(code, self->rank, code_values);
        of->query.predictor->kind->scores(&of->query, &coded, 0, self->neurons, of->scores + (size_t)i * self->neurons);
    }
    free(values);
    free(code_values);
    free(code);
}

static int compare_floats(const void *a, const void *b) {
    const float left = *(const float *)a, right = *(const float *)b;
    return left < right ? -1 : left > right;
}

/* The highest threshold that enough of what fires is above. */
static pi2_status find_threshold(const trainer *self, const float *scores, double recall, float *threshold_out) {
    const size_t all = (size_t)self->held_count * self->neurons;
    size_t count = 0;
    float *firing = malloc(all * sizeof *firing);
    if (!firing) return pi2_fail(PI2_ERR_MEMORY, "no memory for the scores of what fires");
    for (uint32_t i = 0; i < self->held_count; i++) {
        for (uint32_t n = 0; n < self->neurons; n++) {
            if (!fires(self, self->order[self->learn_count + i], n)) continue;
            firing[count++] = scores[(size_t)i * self->neurons + n];
        }
    }
    qsort(firing, count, sizeof *firing, compare_floats);
    size_t at = (size_t)((1.0 - recall) * (double)count);
    if (count && at >= count) at = count - 1; /* a recall that is next to nothing */
    *threshold_out = count ? nextafterf(firing[at], -INFINITY) : 0.0f;
    free(firing);
    return PI2_OK;
}

static void rate_result(const trainer *self, const float *scores, pi2_low_rank_result *result) {
    uint64_t wanted = 0, named = 0, both = 0;
    for (uint32_t i = 0; i < self->held_count; i++) {
        for (uint32_t n = 0; n < self->neurons; n++) {
            const bool is_wanted = fires(self, self->order[self->learn_count + i], n);
            const bool is_named = scores[(size_t)i * self->neurons + n] > result->threshold;
            wanted += is_wanted;
            named += is_named;
            both += is_wanted && is_named;
        }
    }
    const double all = (double)self->held_count * self->neurons;
    result->recall = wanted ? (double)both / (double)wanted : 1;
    result->precision = named ? (double)both / (double)named : 1;
    result->density = (double)wanted / all;
    result->named = (double)named / all;
}

static pi2_status measure(const trainer *self, const pi2_predictor *predictor, uint8_t *data,
                          pi2_low_rank_result *result) {
    const pi2_predictor_layer layer = { .size = self->rank, .data = data };
    scorer of = { .self = self, .query = { .predictor = predictor, .layer = &layer,
                                           .kernel = pi2_small_select(pi2_cpu_features()),
                                           .vector = pi2_vector_select(pi2_cpu_features()) } };
    of.scores = malloc((size_t)self->held_count * self->neurons * sizeof *of.scores);
    if (!of.scores) return pi2_fail(PI2_ERR_MEMORY, "no memory to measure a predictor");
    pi2_team_run(self->training->team, score_held, &of);
    pi2_status status = atomic_load(&of.failed) ? pi2_fail(PI2_ERR_MEMORY, "no memory to measure a predictor") : PI2_OK;
    if (status == PI2_OK) status = find_threshold(self, of.scores, self->training->recall, &result->threshold);
    if (status == PI2_OK) rate_result(self, of.scores, result);
    free(of.scores);
    return status;
}

pi2_status pi2_low_rank_train(const pi2_low_rank_samples *samples, const pi2_low_rank_training *training,
                              const pi2_predictor *predictor, uint8_t *data, pi2_low_rank_result *result_out) {
    trainer self = { .samples = samples, .training = training, .width = samples->width, .neurons = samples->neurons,
                     .rank = training->rank };
    *result_out = (pi2_low_rank_result){ .epochs = 0 };
    if (samples->count < PI2_LOW_RANK_LEAST_SAMPLES) {
        return pi2_fail(PI2_ERR_INVALID, "%u tokens are too few to train a predictor: %d are the least", samples->count,
                        PI2_LOW_RANK_LEAST_SAMPLES);
    }
    pi2_status status = open_trainer(&self);
    if (status == PI2_OK) status = learn(&self, &result_out->epochs);
    if (status == PI2_OK) status = put_result(&self, predictor, data);
    if (status == PI2_OK) status = measure(&self, predictor, data, result_out);
    close_trainer(&self);
    return status;
}
