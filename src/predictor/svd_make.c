/*
 * svd_make.c: a layer at a time, whose bundles are read twice, some neurons at once:
 *
 *   first   the gram matrix of its rows, of which the directions come (svd_basis.h); what neurons are worth
 *   then    B, and of samples that are held out what rows really give. What each width leaves of that, direction by
 *           direction, says how far its estimates are off and what neurons the samples want
 *
 * Widths double, as one is the beginning of the next: all come of one decomposition.
 */
#include "predictor/svd_make.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu_features.h"
#include "base/fail.h"
#include "base/progress.h"
#include "predictor/bank_rows.h"
#include "predictor/estimates.h"
#include "predictor/svd.h"
#include "predictor/svd_basis.h"
#include "predictor/trial.h"

enum { GATE, UP, SIDES, COST_SHARE = 10 };
static const float least_deviation = 1e-4f;  /* of inputs */
static const float own_part = 0.05f;         /* of moments, what is taken from each input by itself */
static const double least_gain = 0.01;       /* of recall, for which a width doubles */

/** One layer at work. */
typedef struct svd_maker {
    const pi2_svd_request *request;
    pi2_predictor *predictor;
    const pi2_training_kernels *kernels;
    pi2_weight_file file;
    pi2_progress progress;
    uint64_t done_bytes;
    pi2_bank_rows rows;
    uint32_t layer, width, neurons, sides; /* sides: 1, or 2 where Up is estimated too */
    uint32_t most;               /* directions */
    float *taken[SIDES];         /* [step][width] */
    double *lengths;             /* [step] */
    float *worths;               /* [neurons] */
    float *gram;                 /* [width][width] */
    float *deviations;           /* [width]; samples NULL */
    float *moments;              /* [width][width] of samples */
    pi2_svd_basis basis;
    float *parts[SIDES];         /* B: [neurons][most] */
    double *left[SIDES];         /* [neurons]: mean square of what the estimates of the width at work leave */
    float *given[SIDES];         /* [neurons][held]: what rows give, less what the width at work says of it */
    float *held_inputs;          /* [held][width] */
    float *held_turned;          /* [width][held] */
    float *held_code;            /* [most][held], negative */
    float *scores;               /* [members][neurons] */
    uint32_t held, done_columns; /* done_columns: of code that was taken from `given` */
    uint8_t *wanted;             /* [held][(neurons + 7) / 8] */
    /* a job over the rows that were taken */
    uint32_t begin, count;
} svd_maker;

static pi2_status fail_memory(void) { return pi2_fail(PI2_ERR_MEMORY, "no memory to make a predictor"); }

static uint32_t share_of(uint32_t count, unsigned member, unsigned members) {
    return (uint32_t)((uint64_t)count * member / members);
}

uint32_t pi2_svd_most_rank(const pi2_predictor *predictor) {
    const uint64_t width = predictor->width, neurons = predictor->neuron_count;
    const uint64_t each = width + neurons * (predictor->has_up ? 2 : 1), ffn = 3 * width * neurons;
    uint64_t most = ffn / COST_SHARE / each / PI2_SMALL_BLOCK * PI2_SMALL_BLOCK;
    if (most > predictor->width) most = predictor->width / PI2_SMALL_BLOCK * PI2_SMALL_BLOCK;
    if (most > PI2_PREDICTOR_MOST_RANK) most = PI2_PREDICTOR_MOST_RANK;
    return most < PI2_SMALL_BLOCK ? PI2_SMALL_BLOCK : (uint32_t)most;
}

/* ---- inputs ---- */

static void take_sample(const svd_maker *self, uint32_t sample, float *out) {
    const pi2_svd_samples *samples = self->request->samples;
    const size_t at = (size_t)self->layer * samples->count + sample;
    const int16_t *values = samples->values + at * self->width;
    for (uint32_t c = 0; c < self->width; c++) out[c] = (float)values[c] * samples->scales[at];
}

static bool is_held(uint32_t sample) { return sample % PI2_SVD_HELD_OUT == PI2_SVD_HELD_OUT - 1; }

static void take_held(svd_maker *self) {
    const pi2_svd_samples *samples = self->request->samples;
    uint32_t taken = 0;
    for (uint32_t i = 0; i < samples->count && taken < self->held; i++) {
        if (is_held(i)) take_sample(self, i, self->held_inputs + (size_t)taken++ * self->width);
    }
    for (size_t i = 0; i < self->held; i++) {
        for (size_t c = 0; c < self->width; c++) {
            self->held_turned[c * self->held + i] = self->held_inputs[i * self->width + c];
        }
    }
}

static void add_moments(void *argument, unsigned member, unsigned members) {
    const svd_maker *self = argument;
    const uint32_t first = share_of(self->width, member, members), end = share_of(self->width, member + 1, members);
    pi2_add_product(self->kernels, self->moments + (size_t)first * self->width, self->width,
                    (pi2_float_matrix){ self->taken[GATE] + first, 1, self->width },
                    (pi2_float_matrix){ self->taken[GATE], self->width, 1 }, end - first, self->count, self->width);
}

/* Of the samples that are learned from; a little of each input by itself keeps the rest from being none. */
static void find_moments(svd_maker *self) {
    const pi2_svd_samples *samples = self->request->samples;
    const size_t width = self->width;
    uint32_t learned = 0;
    float all = 0;
    memset(self->moments, 0, width * width * sizeof *self->moments);
    for (uint32_t i = 0; i < samples->count;) {
        for (self->count = 0; i < samples->count && self->count < self->rows.neurons.step; i++) {
            if (!is_held(i)) take_sample(self, i, self->taken[GATE] + (size_t)self->count++ * width);
        }
        learned += self->count;
        pi2_team_run(self->request->team, add_moments, self);
    }
    for (size_t c = 0; c < width; c++) all += self->moments[c * width + c] / (float)width;
    for (size_t i = 0; i < width * width; i++) self->moments[i] /= (float)learned;
    for (size_t c = 0; c < width; c++) {
        float *own = &self->moments[c * width + c];
        *own += own_part * *own + 1e-6f * all / (float)learned;
    }
}

static void find_deviations(svd_maker *self) {
    const float *norm = self->request->norms ? self->request->norms[self->layer] : NULL;
    for (uint32_t c = 0; c < self->width; c++) {
        const float size = norm ? fabsf(norm[c]) : 1.0f;
        self->deviations[c] = size > least_deviation && size < INFINITY ? size : least_deviation;
    }
}

/* ---- the bank, once and again ---- */

static void add_gram(void *argument, unsigned member, unsigned members) {
    const svd_maker *self = argument;
    const uint32_t first = share_of(self->width, member, members), end = share_of(self->width, member + 1, members);
    for (uint32_t s = 0; s < self->sides; s++) {
        pi2_add_product(self->kernels, self->gram + (size_t)first * self->width, self->width,
                        (pi2_float_matrix){ self->taken[s] + first, 1, self->width },
                        (pi2_float_matrix){ self->taken[s], self->width, 1 }, end - first, self->count, self->width);
    }
}

static void project(void *argument, unsigned member, unsigned members) {
    const svd_maker *self = argument;
    const uint32_t first = share_of(self->count, member, members), end = share_of(self->count, member + 1, members);
    for (uint32_t s = 0; s < self->sides; s++) {
        const pi2_float_matrix left = { self->taken[s] + (size_t)first * self->width, self->width, 1 };
        const size_t at = self->begin + first;
        float *parts = self->parts[s] + at * self->most, *given = self->held ? self->given[s] + at * self->held : NULL;
        memset(parts, 0, (size_t)(end - first) * self->most * sizeof *parts);
        pi2_add_product(self->kernels, parts, self->most, left,
                        (pi2_float_matrix){ self->basis.along, self->most, 1 }, end - first, self->width, self->most);
        if (!given) continue;
        memset(given, 0, (size_t)(end - first) * self->held * sizeof *given);
        pi2_add_product(self->kernels, given, self->held, left,
                        (pi2_float_matrix){ self->held_turned, self->held, 1 }, end - first, self->width, self->held);
    }
}

/* Without samples, what a row gives on the mean, all of it. */
static void measure_rows(svd_maker *self) {
    for (uint32_t s = 0; s < self->sides; s++) {
        for (uint32_t i = 0; i < self->count; i++) {
            const float *row = self->taken[s] + (size_t)i * self->width;
            double sum = 0;
            for (uint32_t c = 0; c < self->width; c++) {
                const double each = (double)(row[c] * self->deviations[c]);
                sum += each * each;
            }
            self->left[s][self->begin + i] = sum;
        }
    }
}

static pi2_status take_rows(svd_maker *self, bool is_first) {
    PI2_TRY(pi2_bank_rows_fetch(&self->rows, self->begin, self->count));
    if (is_first) PI2_TRY(pi2_bank_rows_measure_down(&self->rows, self->lengths));
    for (uint32_t i = 0; i < self->count; i++) {
        const uint32_t n = self->begin + i;
        double length;
        PI2_TRY(pi2_bank_rows_take(&self->rows, n, false, self->taken[GATE] + (size_t)i * self->width, &length));
        if (self->rows.bank->up_format) {
            PI2_TRY(pi2_bank_rows_take(&self->rows, n, true, self->taken[UP] + (size_t)i * self->width, &length));
            if (is_first && self->sides == 1) {
                PI2_TRY(pi2_bank_rows_join_lengths(&self->rows, n, length, &self->lengths[i]));
            }
        }
        if (is_first) self->worths[n] = (float)self->lengths[i];
    }
    return PI2_OK;
}

static pi2_status go_through(svd_maker *self, bool is_first) {
    for (self->begin = 0; (self->count = pi2_bank_rows_step(&self->rows, self->begin)) > 0;
         self->begin += self->count) {
        PI2_TRY(take_rows(self, is_first));
        pi2_team_run(self->request->team, is_first ? add_gram : project, self);
        if (!is_first && !self->request->samples) measure_rows(self);
        self->done_bytes += (uint64_t)self->count * self->rows.bank->bundle_bytes;
        PI2_TRY(pi2_progress_tell(&self->progress, self->done_bytes));
    }
    return PI2_OK;
}

/* ---- what samples want ---- */

static float bias_of(const float *const *biases, uint32_t layer, uint32_t neuron) {
    return biases && biases[layer] ? biases[layer][neuron] : 0.0f;
}

static void want_of_sample(svd_maker *self, uint32_t sample, float *scores, const pi2_vector_kernels *vector) {
    const uint32_t activation = self->predictor->activation_number, neurons = self->neurons;
    const bool fires = self->request->fires;
    uint8_t *bits = self->wanted + (size_t)sample * ((neurons + (size_t)7) / 8);
    for (uint32_t n = 0; n < neurons; n++) {
        float gate = self->given[GATE][(size_t)n * self->held + sample];
        float up = self->sides > 1 ? self->given[UP][(size_t)n * self->held + sample] : 1.0f;
        gate += bias_of(self->request->gate_biases, self->layer, n);
        if (self->sides > 1) up += bias_of(self->request->up_biases, self->layer, n);
        vector->activate[activation](&gate, &gate, &up, 1);
        scores[n] = fires ? gate : fabsf(gate) * self->worths[n];
    }
    if (!fires) pi2_predictor_choose_largest(scores, neurons, pi2_predictor_kept(neurons, 0.5));
    for (uint32_t n = 0; n < neurons; n++) {
        if (scores[n] != 0.0f) bits[n / 8] = (uint8_t)(bits[n / 8] | 1u << (n % 8));
    }
}

static void find_wanted(void *argument, unsigned member, unsigned members) {
    svd_maker *self = argument;
    const pi2_vector_kernels *vector = pi2_vector_select(pi2_cpu_features());
    float *scores = self->scores + (size_t)member * self->neurons;
    for (uint32_t i = member; i < self->held; i += members) want_of_sample(self, i, scores, vector);
}

static const float *input_of(const void *user, uint32_t sample) {
    const svd_maker *self = user;
    return self->held_inputs + (size_t)sample * self->width;
}

static bool wants(const void *user, uint32_t sample, uint32_t neuron) {
    const svd_maker *self = user;
    return self->wanted[(size_t)sample * ((self->neurons + (size_t)7) / 8) + neuron / 8] >> (neuron % 8) & 1;
}

/* ---- widths ---- */

/* What the next directions say of the held samples is taken from what rows give. */
static void take_directions(void *argument, unsigned member, unsigned members) {
    const svd_maker *self = argument;
    const uint32_t first = share_of(self->neurons, member, members), end = share_of(self->neurons, member + 1, members);
    for (uint32_t s = 0; s < self->sides; s++) {
        const float *parts = self->parts[s] + (size_t)first * self->most + self->done_columns;
        pi2_add_product(self->kernels, self->given[s] + (size_t)first * self->held, self->held,
                        (pi2_float_matrix){ parts, self->most, 1 },
                        (pi2_float_matrix){ self->held_code + (size_t)self->done_columns * self->held, self->held, 1 },
                        end - first, self->count, self->held);
        for (uint32_t n = first; n < end; n++) {
            const float *given = self->given[s] + (size_t)n * self->held;
            double sum = 0;
            for (uint32_t i = 0; i < self->held; i++) sum += (double)given[i] * (double)given[i];
            self->left[s][n] = sum / self->held;
        }
    }
}

static void leave_rest(svd_maker *self, uint32_t rank) {
    self->count = rank - self->done_columns;
    if (self->held) pi2_team_run(self->request->team, take_directions, self);
    for (uint32_t s = 0; s < self->sides && !self->held; s++) {
        for (uint32_t n = 0; n < self->neurons; n++) {
            const float *parts = self->parts[s] + (size_t)n * self->most;
            for (uint32_t k = self->done_columns; k < rank; k++) {
                self->left[s][n] -= (double)parts[k] * (double)parts[k];
            }
        }
    }
    self->done_columns = rank;
}

static pi2_status put_layer(svd_maker *self, uint32_t rank, pi2_predictor_layer *layer) {
    const pi2_predictor *predictor = self->predictor;
    const uint64_t bytes = predictor->kind->layer_bytes(predictor, rank);
    void *data;
    if (posix_memalign(&data, PI2_PREDICTOR_ALIGNMENT, (size_t)bytes) != 0) return fail_memory();
    memset(data, 0, (size_t)bytes);
    float *row = self->taken[GATE]; /* done with */
    for (uint32_t k = 0; k < rank; k++) {
        for (uint32_t c = 0; c < self->width; c++) row[c] = self->basis.code[(size_t)c * self->most + k];
        pi2_svd_put_code_row(predictor, rank, data, k, row);
    }
    for (uint32_t n = 0; n < self->neurons; n++) {
        for (uint32_t s = 0; s < self->sides; s++) {
            const double left = self->left[s][n];
            pi2_svd_put_neuron(predictor, rank, data, s == UP, n, self->parts[s] + (size_t)n * self->most,
                               (float)sqrt(left > 0 ? left : 0));
        }
        pi2_svd_put_worth(predictor, rank, data, n, self->worths[n]);
    }
    *layer = (pi2_predictor_layer){ .size = rank, .threshold = -PI2_ESTIMATES_DOUBT, .data = data };
    return PI2_OK;
}

static pi2_status try_layer(const svd_maker *self, const pi2_predictor_layer *layer, pi2_predictor_rating *rating) {
    const pi2_svd_request *request = self->request;
    const pi2_predictor_trial trial = {
        .predictor = self->predictor, .layer = layer, .score = request->fires ? PI2_SCORE_FIRES : PI2_SCORE_WORTH,
        .gate_bias = request->gate_biases ? request->gate_biases[self->layer] : NULL,
        .up_bias = request->up_biases ? request->up_biases[self->layer] : NULL,
        .count = self->held, .input = input_of, .wants = wants, .user = self, .team = request->team };
    if (request->fires) return pi2_predictor_try_firing(&trial, request->recall, rating);
    return pi2_predictor_try_worth(&trial, pi2_predictor_kept(self->neurons, 0.5), rating);
}

/* Multiplications of a token that a layer of this rank leaves, its own included. */
static double work_left(const svd_maker *self, uint32_t rank, double named) {
    const double width = self->width, neurons = self->neurons;
    return rank * (width + neurons * self->sides) + named * 3 * width * neurons;
}

static bool is_better(const svd_maker *self, const pi2_predictor_layer *layer, const pi2_predictor_rating *rating,
                      const pi2_predictor_layer *best, const pi2_predictor_rating *best_rating) {
    if (best->size == 0) return true;
    if (!self->request->fires) return rating->recall >= best_rating->recall + least_gain;
    return work_left(self, layer->size, rating->named) < work_left(self, best->size, best_rating->named);
}

static void tell_layer(const svd_maker *self, const pi2_predictor_layer *layer, const pi2_predictor_rating *rating) {
    const pi2_callbacks *callbacks = self->request->callbacks;
    char line[200];
    if (!callbacks || !callbacks->log) return;
    (void)snprintf(line, sizeof line, "layer %u: rank %u, recall %.2f %%, precision %.2f %%; %.2f %% of the neurons "
                   "%s, %.2f %% are named", self->layer, layer->size, 100 * rating->recall, 100 * rating->precision,
                   100 * rating->density, self->request->fires ? "fire" : "are wanted", 100 * rating->named);
    callbacks->log(callbacks->user, line);
}

/* Of widths that double, the first that the next one is no better than. */
static pi2_status choose_width(svd_maker *self) {
    pi2_predictor_layer *best = &self->predictor->layers[self->layer];
    pi2_predictor_rating best_rating = { .threshold = 0 };
    const bool asks = self->request->rank || self->held == 0;
    for (uint32_t rank = asks ? self->most : PI2_SMALL_BLOCK; rank <= self->most; rank *= 2) {
        pi2_predictor_layer layer;
        pi2_predictor_rating rating = { .threshold = 0 };
        leave_rest(self, rank);
        PI2_TRY(put_layer(self, rank, &layer));
        const pi2_status status = self->held ? try_layer(self, &layer, &rating) : PI2_OK;
        if (status != PI2_OK || !is_better(self, &layer, &rating, best, &best_rating)) {
            free((void *)(uintptr_t)layer.data);
            PI2_TRY(status);
            break;
        }
        if (self->held && self->request->fires) layer.threshold = rating.threshold;
        layer.recall = (float)rating.recall;
        layer.precision = (float)rating.precision;
        layer.density = (float)rating.density;
        free((void *)(uintptr_t)best->data);
        *best = layer;
        best_rating = rating;
    }
    if (self->held) tell_layer(self, best, &best_rating);
    return PI2_OK;
}

/* ---- all layers ---- */

static pi2_status find_basis(svd_maker *self) {
    if (self->request->samples) find_moments(self);
    else find_deviations(self);
    const pi2_svd_basis_request request = {
        .width = self->width, .count = self->most, .gram = self->gram,
        .deviations = self->request->samples ? NULL : self->deviations, .moments = self->moments,
        .seed = self->layer + 1, .team = self->request->team, .kernels = self->kernels };
    return pi2_svd_basis_find(&request, &self->basis);
}

/* code' times the held inputs, with its sign turned. */
static void find_held_code(svd_maker *self) {
    memset(self->held_code, 0, (size_t)self->most * self->held * sizeof *self->held_code);
    pi2_add_product(self->kernels, self->held_code, self->held,
                    (pi2_float_matrix){ self->basis.code, 1, self->most },
                    (pi2_float_matrix){ self->held_turned, self->held, 1 }, self->most, self->width, self->held);
    for (size_t i = 0; i < (size_t)self->most * self->held; i++) self->held_code[i] = -self->held_code[i];
}

static pi2_status make_layer(svd_maker *self, const pi2_neuron_bank *bank) {
    PI2_TRY(pi2_bank_rows_open(&self->rows, pi2_gguf_file_path(self->request->gguf, 0), &self->file, bank));
    self->layer = bank->layer * self->request->layer_ffns + (bank->expert == UINT32_MAX ? 0 : bank->expert);
    self->done_columns = 0;
    memset(self->gram, 0, (size_t)self->width * self->width * sizeof *self->gram);
    PI2_TRY(go_through(self, true));
    PI2_TRY(find_basis(self));
    if (self->held) take_held(self);
    PI2_TRY(go_through(self, false));
    if (self->held) {
        memset(self->wanted, 0, (size_t)self->held * ((self->neurons + (size_t)7) / 8));
        pi2_team_run(self->request->team, find_wanted, self);
        find_held_code(self);
    }
    return choose_width(self);
}

static pi2_status take_memory(svd_maker *self, uint32_t step) {
    const size_t width = self->width, neurons = self->neurons, most = self->most, held = self->held;
    bool is_there = true;
    for (int s = 0; s < SIDES; s++) {
        self->taken[s] = malloc(step * width * sizeof(float));
        is_there = is_there && self->taken[s];
    }
    for (uint32_t s = 0; s < self->sides; s++) {
        self->parts[s] = malloc(neurons * most * sizeof(float));
        self->left[s] = malloc(neurons * sizeof(double));
        self->given[s] = malloc((neurons * held + 1) * sizeof(float));
        is_there = is_there && self->parts[s] && self->left[s] && self->given[s];
    }
    self->lengths = malloc(step * sizeof *self->lengths);
    self->worths = malloc(neurons * sizeof *self->worths);
    self->gram = malloc(width * width * sizeof *self->gram);
    self->deviations = malloc(width * sizeof *self->deviations);
    self->moments = malloc((held ? width * width : 1) * sizeof *self->moments);
    self->held_inputs = malloc((held * width + 1) * sizeof(float));
    self->held_turned = malloc((held * width + 1) * sizeof(float));
    self->held_code = malloc((held * most + 1) * sizeof(float));
    self->wanted = malloc(held * ((neurons + 7) / 8) + 1);
    self->scores = malloc(pi2_team_member_count(self->request->team) * neurons * sizeof(float));
    is_there = is_there && self->lengths && self->worths && self->gram && self->deviations && self->moments &&
               self->held_inputs && self->held_turned && self->held_code && self->wanted && self->scores;
    return is_there ? PI2_OK : fail_memory();
}

static void give_memory(svd_maker *self) {
    for (int s = 0; s < SIDES; s++) {
        free(self->taken[s]);
        free(self->parts[s]);
        free(self->left[s]);
        free(self->given[s]);
    }
    free(self->lengths);
    free(self->worths);
    free(self->gram);
    free(self->deviations);
    free(self->moments);
    free(self->held_inputs);
    free(self->held_turned);
    free(self->held_code);
    free(self->wanted);
    free(self->scores);
}

static pi2_status make_layers(svd_maker *self) {
    const pi2_neuron_banks *banks = self->request->banks;
    PI2_TRY(pi2_weight_file_open(&self->file, pi2_gguf_file_path(self->request->gguf, 0)));
    if (banks->count == 0) return PI2_OK;
    uint32_t step = 0; /* the most neurons at a time: layers differ where their types do */
    for (uint32_t b = 0; b < banks->count; b++) {
        PI2_TRY(pi2_bank_rows_open(&self->rows, pi2_gguf_file_path(self->request->gguf, 0), &self->file,
                                   &banks->banks[b]));
        if (self->rows.neurons.step > step) step = self->rows.neurons.step;
        pi2_bank_rows_close(&self->rows);
    }
    PI2_TRY(take_memory(self, step));
    for (uint32_t b = 0; b < banks->count; b++) {
        const pi2_status status = make_layer(self, &banks->banks[b]);
        pi2_bank_rows_close(&self->rows);
        pi2_svd_basis_free(&self->basis);
        PI2_TRY(status);
    }
    return PI2_OK;
}

/* The widest that is tried. */
static uint32_t most_of(const pi2_svd_request *request, const pi2_predictor *predictor) {
    const uint32_t most = pi2_svd_most_rank(predictor);
    uint32_t rank = PI2_SMALL_BLOCK;
    if (request->rank) return request->rank;
    if (!request->samples) return most;
    while (rank * 2 <= most) rank *= 2;
    return rank;
}

pi2_status pi2_svd_make(const pi2_svd_request *request, pi2_predictor *predictor) {
    svd_maker self = { .request = request, .predictor = predictor, .width = predictor->width,
                       .neurons = predictor->neuron_count, .sides = predictor->has_up ? 2 : 1,
                       .most = most_of(request, predictor),
                       .kernels = pi2_training_select(pi2_cpu_features()),
                       .progress = { .callbacks = request->callbacks, .what = "decomposing" } };
    for (uint32_t b = 0; b < request->banks->count; b++) {
        const pi2_neuron_bank *bank = &request->banks->banks[b];
        self.progress.total_bytes += 2 * (uint64_t)bank->neuron_count * bank->bundle_bytes;
    }
    if (request->samples) {
        self.held = request->samples->count / PI2_SVD_HELD_OUT;
        if (self.held > PI2_SVD_HELD_MOST) self.held = PI2_SVD_HELD_MOST;
    }
    const pi2_status status = make_layers(&self);
    pi2_bank_rows_close(&self.rows);
    pi2_weight_file_close(&self.file);
    give_memory(&self);
    return status;
}
