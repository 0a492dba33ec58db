/*
 * low_rank_train.c: it starts from directions that firing follows (low_rank_start.h). Then, in a batch of samples, with
 * barriers between:
 *
 *   code     h = relu(A x)                     threads share samples out
 *   error    g = weight * (sigmoid(B h + b) - y)   neurons
 *   back     dh = B' g, where h is not 0       samples
 *   update   B, b by h and g (neurons); A by dh and x (inputs)
 *
 * Each is a product of matrices (kernels/training), of which a thread computes whole sums.
 */
#include "predictor/low_rank_train.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu_features.h"
#include "base/fail.h"
#include "kernels/training/training.h"
#include "predictor/low_rank.h"
#include "predictor/low_rank_start.h"

enum { BATCH = 128, PATIENCE = 2, STEP = 256, INPUT_STEP = 32, FACTORS = 32 };
/* Rows of a power of two of bytes would meet in the same sets of a cache. */
enum { APART = 16 };
#define LOSS_UNITS 1048576.0
static const float first_decay = 0.9f, second_decay = 0.999f, tiny = 1e-8f, most_weight = 4.0f;
static const double least_chance = 1e-9; /* of what happened: FACTORS of them are a number still */

/** Numbers that are learned, and Adam's two means of their gradients. */
typedef struct learned {
    float *values, *first, *second, *best;
    size_t count;
} learned;

typedef struct trainer {
    const pi2_low_rank_samples *samples;
    const pi2_low_rank_training *training;
    const pi2_training_kernels *kernels;
    uint32_t width, neurons, rank;
    uint32_t input_stride, error_stride;
    learned a, b, bias;          /* [width][rank], [rank][neurons], [neurons] */
    float *inputs, *code, *errors, *back; /* [BATCH][input_stride], [BATCH][rank], [BATCH][error_stride],
                                    [BATCH][rank] */
    float *turned;               /* B as [neurons][rank], of this batch */
    float *gradients;            /* [members][gradient_count()] */
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

/* Of one thread: of B's columns, then of A's rows. */
static size_t gradient_count(uint32_t rank) { return (size_t)rank * STEP; }

static void close_trainer(trainer *self) {
    free_learned(&self->a);
    free_learned(&self->b);
    free_learned(&self->bias);
    free(self->inputs);
    free(self->code);
    free(self->errors);
    free(self->back);
    free(self->turned);
    free(self->gradients);
    free(self->order);
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
}

static pi2_status open_trainer(trainer *self) {
    const unsigned members = pi2_team_member_count(self->training->team);
    const bool is_there = make_learned(&self->a, (size_t)self->width * self->rank) &&
                          make_learned(&self->b, (size_t)self->rank * self->neurons) &&
                          make_learned(&self->bias, self->neurons);
    self->kernels = pi2_training_select(pi2_cpu_features());
    self->input_stride = self->width + APART;
    self->error_stride = self->neurons + APART;
    self->inputs = malloc((size_t)BATCH * self->input_stride * sizeof *self->inputs);
    self->code = malloc((size_t)BATCH * self->rank * sizeof *self->code);
    self->back = malloc((size_t)BATCH * self->rank * sizeof *self->back);
    self->errors = malloc((size_t)BATCH * self->error_stride * sizeof *self->errors);
    self->turned = malloc((size_t)self->neurons * self->rank * sizeof *self->turned);
    self->gradients = malloc(members * gradient_count(self->rank) * sizeof *self->gradients);
    self->order = malloc(self->samples->count * sizeof *self->order);
    if (!is_there || !self->inputs || !self->code || !self->back || !self->errors || !self->turned ||
        !self->gradients || !self->order) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory to train a predictor of rank %u", self->rank);
    }
    look_at_samples(self);
    const pi2_low_rank_begin begin = {
        .samples = self->samples, .order = self->order, .count = self->learn_count, .rank = self->rank,
        .scale = self->scale, .weight = self->weight, .seed = self->training->seed, .team = self->training->team,
        .kernels = self->kernels };
    return (self->samples->weights ? pi2_low_rank_start_by_weights : pi2_low_rank_start)(
        &begin, self->a.values, self->b.values, self->bias.values);
}

/* ---- one batch ---- */

/* Samples [first, end) of the batch. */
static void code_of(const trainer *self, uint32_t first, uint32_t end) {
    float *code = self->code + (size_t)first * self->rank, *inputs = self->inputs + (size_t)first * self->input_stride;
    const size_t count = (size_t)(end - first) * self->rank;
    for (uint32_t i = first; i < end; i++) {
        const float *from = self->samples->inputs + (size_t)self->order[self->begin + i] * self->width;
        float *to = self->inputs + (size_t)i * self->input_stride;
        for (uint32_t c = 0; c < self->width; c++) to[c] = from[c] * self->scale;
    }
    memset(code, 0, count * sizeof *code);
    pi2_add_product(self->kernels, code, self->rank, (pi2_float_matrix){ inputs, self->input_stride, 1 },
                    (pi2_float_matrix){ self->a.values, self->rank, 1 }, end - first, self->width, self->rank);
    for (size_t k = 0; k < count; k++) code[k] = code[k] > 0 ? code[k] : code[k] == code[k] ? 0 : code[k];
}

/* Of chances: what is left to 0 and to 1. */
static void put_errors(const trainer *self, uint32_t sample, uint32_t begin, uint32_t count, float *chances) {
    for (uint32_t n = 0; n < count; n++) {
        if (fires(self, sample, begin + n)) chances[n] = self->weight * (chances[n] - 1.0f);
    }
}

/* Minus the logarithm of the chance of what happened; what fires counts `weight` times. */
static double loss_of(const trainer *self, uint32_t sample, uint32_t begin, uint32_t count, const float *chances) {
    double loss = 0;
    for (uint32_t from = 0; from < count; from += FACTORS) {
        const uint32_t end = count - from < FACTORS ? count : from + FACTORS;
        double silent = 1, firing = 1;
        for (uint32_t n = from; n < end; n++) {
            const bool should = fires(self, sample, begin + n);
            const double right = should ? (double)chances[n] : 1.0 - (double)chances[n];
            const double chance = right < least_chance ? least_chance : right;
            if (should) firing *= chance;
            else silent *= chance;
        }
        if (!(silent > 0 && firing > 0)) return NAN;
        loss -= pi2_log(silent) + (double)self->weight * pi2_log(firing);
    }
    return loss;
}

/* What a loss of a few hundred neurons comes to, as an integer, so that sums do not hang on who adds. */
static void add_loss(trainer *self, double loss) {
    if (!(loss < 1e9)) {
        atomic_store_explicit(&self->broken, 1, memory_order_relaxed);
        return;
    }
    (void)atomic_fetch_add_explicit(&self->loss, (uint64_t)(loss * LOSS_UNITS), memory_order_relaxed);
}

/* Neurons [begin, begin + count), at most STEP, of all samples: errors, or the loss. */
static void errors_of(trainer *self, uint32_t begin, uint32_t count) {
    float *errors = self->errors + begin;
    for (uint32_t i = 0; i < self->count; i++) {
        memcpy(errors + (size_t)i * self->error_stride, self->bias.values + begin, count * sizeof *errors);
    }
    pi2_add_product(self->kernels, errors, self->error_stride, (pi2_float_matrix){ self->code, self->rank, 1 },
                    (pi2_float_matrix){ self->b.values + begin, self->neurons, 1 }, self->count, self->rank, count);
    for (uint32_t i = 0; i < self->count; i++) {
        float *chances = errors + (size_t)i * self->error_stride;
        const uint32_t sample = self->order[self->begin + i];
        self->kernels->logistic(chances, count);
        if (self->learns) put_errors(self, sample, begin, count, chances);
        else add_loss(self, loss_of(self, sample, begin, count, chances));
    }
    if (!self->learns) return;
    for (uint32_t n = begin; n < begin + count; n++) {
        float *to = self->turned + (size_t)n * self->rank;
        for (uint32_t k = 0; k < self->rank; k++) to[k] = self->b.values[(size_t)k * self->neurons + n];
    }
}

static void back_of(const trainer *self, uint32_t first, uint32_t end) {
    float *back = self->back + (size_t)first * self->rank;
    const float *code = self->code + (size_t)first * self->rank;
    const size_t count = (size_t)(end - first) * self->rank;
    memset(back, 0, count * sizeof *back);
    pi2_add_product(self->kernels, back, self->rank,
                    (pi2_float_matrix){ self->errors + (size_t)first * self->error_stride, self->error_stride, 1 },
                    (pi2_float_matrix){ self->turned, self->rank, 1 }, end - first, self->neurons, self->rank);
    for (size_t k = 0; k < count; k++) back[k] = code[k] == 0 ? 0 : back[k];
}

static void adapt(const trainer *self, learned *of, size_t at, const float *restrict gradients, size_t count) {
    float *restrict values = of->values + at, *restrict first = of->first + at, *restrict second = of->second + at;
    const float share = 1.0f / (float)self->count, unbiased = 1.0f / self->second_left;
    const float step = self->rate / self->first_left;
    for (size_t i = 0; i < count; i++) {
        const float gradient = gradients[i] * share;
        first[i] = first_decay * first[i] + (1.0f - first_decay) * gradient;
        second[i] = second_decay * second[i] + (1.0f - second_decay) * (gradient * gradient);
        values[i] -= step * first[i] / (sqrtf(second[i] * unbiased) + tiny);
    }
}

/* Neurons [begin, begin + count), at most STEP. */
static void update_neurons(trainer *self, float *gradients, uint32_t begin, uint32_t count) {
    const pi2_float_matrix errors = { self->errors + begin, self->error_stride, 1 };
    memset(gradients, 0, (size_t)self->rank * count * sizeof *gradients);
    pi2_add_product(self->kernels, gradients, count, (pi2_float_matrix){ self->code, 1, self->rank }, errors,
                    self->rank, self->count, count);
    for (uint32_t k = 0; k < self->rank; k++) {
        adapt(self, &self->b, (size_t)k * self->neurons + begin, gradients + (size_t)k * count, count);
    }
    memset(gradients, 0, count * sizeof *gradients);
    for (uint32_t i = 0; i < self->count; i++) {
        for (uint32_t n = 0; n < count; n++) gradients[n] += errors.values[(size_t)i * errors.row + n];
    }
    for (uint32_t n = 0; n < count; n++) {
        if (!(fabsf(gradients[n]) < INFINITY)) atomic_store_explicit(&self->broken, 1, memory_order_relaxed);
    }
    adapt(self, &self->bias, begin, gradients, count);
}

/* Inputs [begin, begin + count), at most INPUT_STEP. */
static void update_inputs(trainer *self, float *gradients, uint32_t begin, uint32_t count) {
    memset(gradients, 0, (size_t)count * self->rank * sizeof *gradients);
    pi2_add_product(self->kernels, gradients, self->rank,
                    (pi2_float_matrix){ self->inputs + begin, 1, self->input_stride },
                    (pi2_float_matrix){ self->back, self->rank, 1 }, count, self->count, self->rank);
    adapt(self, &self->a, (size_t)begin * self->rank, gradients, (size_t)count * self->rank);
}

static uint32_t share_of(uint32_t count, unsigned member, unsigned members) {
    return (uint32_t)((uint64_t)count * member / members);
}

static uint32_t step_of(uint32_t all, uint32_t begin, uint32_t step) { return all - begin < step ? all - begin : step; }

static void run_batch(void *argument, unsigned member, unsigned members) {
    trainer *self = argument;
    const uint32_t blocks = (self->neurons + STEP - 1) / STEP, inputs = (self->width + INPUT_STEP - 1) / INPUT_STEP;
    const uint32_t first_block = share_of(blocks, member, members), end_block = share_of(blocks, member + 1, members);
    const uint32_t first = share_of(self->count, member, members), end = share_of(self->count, member + 1, members);
    float *gradients = self->gradients + member * gradient_count(self->rank);
    code_of(self, first, end);
    pi2_team_barrier(self->training->team, member);
    for (uint32_t b = first_block; b < end_block; b++) {
        errors_of(self, b * STEP, step_of(self->neurons, b * STEP, STEP));
    }
    pi2_team_barrier(self->training->team, member);
    if (!self->learns) return;
    back_of(self, first, end);
    pi2_team_barrier(self->training->team, member);
    for (uint32_t b = first_block; b < end_block; b++) {
        update_neurons(self, gradients, b * STEP, step_of(self->neurons, b * STEP, STEP));
    }
    const uint32_t last = share_of(inputs, member + 1, members);
    for (uint32_t c = share_of(inputs, member, members); c < last; c++) {
        update_inputs(self, gradients, c * INPUT_STEP, step_of(self->width, c * INPUT_STEP, INPUT_STEP));
    }
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
        const uint32_t other = (uint32_t)(pi2_low_rank_random(seed) % (i + 1)), kept = self->order[i];
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
    double best = at_first;
    uint32_t since = 0, epoch = 0;
    keep_best(self, false);
    for (; epoch < training->most_epochs && since < PATIENCE; epoch++) {
        if (callbacks && callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
            return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
        }
        shuffle(self, &seed);
        self->rate = training->rate / (1.0f + 0.5f * (float)epoch);
        (void)run_samples(self, 0, self->learn_count, true);
        const double loss = run_samples(self, self->learn_count, self->held_count, false);
        if (!(loss < 2 * at_first + 1)) {
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
    /* What fires counted more: without that a score of 0 is as likely to fire as not. */
    const float counted = (float)pi2_log((double)self->weight);
    float *row = malloc(most * sizeof *row);
    if (!row) return pi2_fail(PI2_ERR_MEMORY, "no memory for a row of a predictor");
    for (uint32_t k = 0; k < self->rank; k++) {
        for (uint32_t c = 0; c < self->width; c++) row[c] = self->a.values[(size_t)c * self->rank + k] * self->scale;
        pi2_low_rank_put_code_row(predictor, self->rank, data, k, row);
    }
    for (uint32_t n = 0; n < self->neurons; n++) {
        for (uint32_t k = 0; k < self->rank; k++) row[k] = self->b.values[(size_t)k * self->neurons + n];
        pi2_low_rank_put_neuron(predictor, self->rank, data, n, row, self->bias.values[n] - counted);
    }
    free(row);
    return PI2_OK;
}

static const float *held_input(const void *user, uint32_t sample) {
    const trainer *self = user;
    return self->samples->inputs + (size_t)self->order[self->learn_count + sample] * self->width;
}

static bool held_fires(const void *user, uint32_t sample, uint32_t neuron) {
    const trainer *self = user;
    return fires(self, self->order[self->learn_count + sample], neuron);
}

static pi2_status measure(const trainer *self, const pi2_predictor *predictor, uint8_t *data,
                          pi2_low_rank_result *result) {
    result->rank = pi2_low_rank_fold(predictor, self->rank, data);
    result->is_signed = result->rank < self->rank;
    const pi2_predictor_layer layer = { .size = result->rank, .is_signed = result->is_signed, .data = data };
    const pi2_predictor_trial trial = { .predictor = predictor, .layer = &layer, .score = PI2_SCORE_FIRES,
                                        .count = self->held_count, .input = held_input, .wants = held_fires,
                                        .user = self, .team = self->training->team };
    return pi2_predictor_try_firing(&trial, self->training->recall, &result->held);
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
