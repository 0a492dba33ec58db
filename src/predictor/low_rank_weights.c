/*
 * low_rank_weights.c: with M Gate's rows (drelu: Up's behind them, which decide less), each column times the deviation
 * of its input, the directions V that M's rows have most of: some times
 *
 *   along   T = M V                    threads share neurons out
 *   turn    V = M' T, made orthogonal  inputs
 *
 * A neuron's Gate is then its mean, plus T times what the input has of the directions, plus a rest that is taken for
 * normal: how likely it is above zero follows. A direction v becomes two rows of A, v and -v, since relu(z) - relu(-z)
 * = z.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "kernels/vector/vector.h"
#include "predictor/low_rank_start.h"

enum { ROWS = 64, APART = 16, ROUNDS = 3 };
static const float least_deviation = 1e-4f, up_part = 0.5f; /* of all inputs'; of Up's rows in M */
static const double logistic_slope = 1.7;   /* of the logistic function that is most like the normal distribution */
static const double least_rest = 0.01;      /* of a row's variance, whatever is left of it */

typedef struct weight_starter {
    const pi2_low_rank_begin *begin;
    const pi2_low_rank_weights *weights;
    uint32_t width, neurons, rows, half; /* rows: of M */
    float *means, *deviations;           /* [width]: of inputs */
    float *directions, *next, *turned;   /* V: [width][half], twice, and as [half][width] */
    float *along;                        /* T: [rows][half] */
    double *levels, *variances;          /* [rows]: of a row's product with the inputs */
    float *taken;                        /* [members][ROWS][stride] */
    size_t stride;
} weight_starter;

static uint32_t share_of(uint32_t count, unsigned member, unsigned members) {
    return (uint32_t)((uint64_t)count * member / members);
}

static void find_moments(void *argument, unsigned member, unsigned members) {
    const weight_starter *self = argument;
    const pi2_low_rank_begin *begin = self->begin;
    const uint32_t end = share_of(self->width, member + 1, members);
    for (uint32_t c = share_of(self->width, member, members); c < end; c++) {
        double sum = 0, squares = 0;
        for (uint32_t i = 0; i < begin->count; i++) {
            const double x = (double)(begin->samples->inputs[(size_t)begin->order[i] * self->width + c] * begin->scale);
            sum += x;
            squares += x * x;
        }
        const double mean = sum / begin->count, variance = squares / begin->count - mean * mean;
        self->means[c] = (float)mean;
        self->deviations[c] = (float)sqrt(variance > 0 ? variance : 0);
        if (!(self->deviations[c] > least_deviation)) self->deviations[c] = least_deviation;
    }
}

/* Rows [first, first + count) of M, and what is known of each. Inputs are `scale` times what the weights read. */
static void take_rows(const weight_starter *self, uint32_t first, uint32_t count, float *rows) {
    const bool is_up = first >= self->neurons;
    const uint32_t neuron = is_up ? first - self->neurons : first;
    const float *biases = is_up ? self->weights->up_bias : self->weights->gate_bias;
    for (uint32_t i = 0; i < count; i++) {
        float *row = rows + i * self->stride;
        double level = biases ? (double)(biases[neuron + i] * self->begin->scale) : 0, variance = 0;
        self->weights->rows(self->weights->user, is_up, neuron + i, 1, row);
        for (uint32_t c = 0; c < self->width; c++) {
            level += (double)(row[c] * self->means[c]);
            row[c] *= self->deviations[c];
            variance += (double)(row[c] * row[c]);
        }
        self->levels[first + i] = level;
        self->variances[first + i] = variance;
        for (uint32_t c = 0; is_up && c < self->width; c++) row[c] *= up_part;
    }
}

/* Of [first, end) as many rows as are taken at once: all of Gate, or all of Up. */
static uint32_t rows_at_once(const weight_starter *self, uint32_t first, uint32_t end) {
    if (first < self->neurons && end > self->neurons) end = self->neurons;
    return end - first < ROWS ? end - first : ROWS;
}

static void go_along(void *argument, unsigned member, unsigned members) {
    const weight_starter *self = argument;
    float *rows = self->taken + member * ROWS * self->stride;
    const uint32_t end = share_of(self->rows, member + 1, members);
    for (uint32_t n = share_of(self->rows, member, members), count; n < end; n += count) {
        float *to = self->along + (size_t)n * self->half;
        count = rows_at_once(self, n, end);
        take_rows(self, n, count, rows);
        memset(to, 0, (size_t)count * self->half * sizeof *to);
        pi2_add_product(self->begin->kernels, to, self->half, (pi2_float_matrix){ rows, self->stride, 1 },
                        (pi2_float_matrix){ self->directions, self->half, 1 }, count, self->width, self->half);
    }
}

/* Each thread takes all rows, for its share of the inputs: sums keep their order. What take_rows() notes is the same
 * whoever notes it, and was noted: it goes to nobody's place here. */
static void turn(void *argument, unsigned member, unsigned members) {
    const weight_starter *self = argument;
    float *rows = self->taken + member * ROWS * self->stride;
    const uint32_t first = share_of(self->width, member, members), end = share_of(self->width, member + 1, members);
    float *to = self->next + (size_t)first * self->half;
    memset(to, 0, (size_t)(end - first) * self->half * sizeof *to);
    for (uint32_t n = 0, count; n < self->rows; n += count) {
        const bool is_up = n >= self->neurons;
        count = rows_at_once(self, n, self->rows);
        for (uint32_t i = 0; i < count; i++) {
            float *row = rows + i * self->stride;
            self->weights->rows(self->weights->user, is_up, n + i - (is_up ? self->neurons : 0), 1, row);
            for (uint32_t c = first; c < end; c++) row[c] *= self->deviations[c] * (is_up ? up_part : 1.0f);
        }
        pi2_add_product(self->begin->kernels, to, self->half, (pi2_float_matrix){ rows + first, 1, self->stride },
                        (pi2_float_matrix){ self->along + (size_t)n * self->half, self->half, 1 }, end - first, count,
                        self->half);
    }
}

/* ---- what it says of neurons ---- */

static double normal_share(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }

/* Adds `slope` times a row's product with the input, in deviations of the rest that the directions do not tell, to a
 * neuron's score. Returns the product's mean in these deviations. */
static double put_row(const weight_starter *self, uint32_t row, double slope_of_rest, double part,
                      const double *shifts, double *slopes, double *constant) {
    const float *along = self->along + (size_t)row * self->half;
    double told = 0, level = self->levels[row];
    for (uint32_t k = 0; k < self->half; k++) told += (double)along[k] * (double)along[k] / (part * part);
    const double left = self->variances[row] - told, least = least_rest * self->variances[row];
    const double rest = sqrt(left > least ? left : least > 0 ? least : 1);
    for (uint32_t k = 0; k < self->half; k++) {
        const double each = (double)along[k] / part;
        slopes[k] += slope_of_rest * each / rest;
        *constant -= slope_of_rest * each * shifts[k] / rest;
    }
    *constant += slope_of_rest * level / rest;
    return level / rest;
}

static void put_neuron(const weight_starter *self, uint32_t n, const double *shifts, double *slopes, double *constant) {
    memset(slopes, 0, self->half * sizeof *slopes);
    *constant = pi2_log((double)self->begin->weight);
    (void)put_row(self, n, logistic_slope, 1, shifts, slopes, constant);
    if (!self->weights->up_decides) return;
    /* The logarithm of Up's chance, a line through where Up mostly is. */
    const uint32_t up = self->neurons + n;
    const double spread = sqrt(self->variances[up] > 0 ? self->variances[up] : 1);
    const double middle = fmin(fmax(self->levels[up] / spread, -1.0), 3.0), share = normal_share(middle);
    const double slope = exp(-0.5 * middle * middle) * 0.39894228040143268 / share;
    const double mean = put_row(self, up, slope, (double)up_part, shifts, slopes, constant);
    *constant += pi2_log(share) - slope * mean;
}

static void put_start(const weight_starter *self, double *shifts, double *slopes, float *a, float *b, float *bias) {
    const uint32_t half = self->half, rank = self->begin->rank;
    memset(shifts, 0, half * sizeof *shifts);
    for (uint32_t c = 0; c < self->width; c++) {
        for (uint32_t k = 0; k < half; k++) {
            const float each = self->directions[(size_t)c * half + k] / self->deviations[c];
            a[(size_t)c * rank + k] = each;
            a[(size_t)c * rank + half + k] = -each;
            shifts[k] += (double)(each * self->means[c]);
        }
    }
    for (uint32_t n = 0; n < self->neurons; n++) {
        double constant;
        put_neuron(self, n, shifts, slopes, &constant);
        for (uint32_t k = 0; k < half; k++) {
            b[(size_t)k * self->neurons + n] = (float)slopes[k];
            b[(size_t)(half + k) * self->neurons + n] = -(float)slopes[k];
        }
        bias[n] = (float)constant;
    }
}

/* ---- all of it ---- */

static bool take_memory(weight_starter *self) {
    const size_t half = self->half, matrix = self->width * half;
    self->means = malloc(self->width * sizeof *self->means);
    self->deviations = malloc(self->width * sizeof *self->deviations);
    self->directions = malloc(matrix * sizeof *self->directions);
    self->next = malloc(matrix * sizeof *self->next);
    self->turned = malloc(matrix * sizeof *self->turned);
    self->along = malloc(self->rows * half * sizeof *self->along);
    self->levels = malloc(self->rows * sizeof *self->levels);
    self->variances = malloc(self->rows * sizeof *self->variances);
    self->taken = malloc(pi2_team_member_count(self->begin->team) * ROWS * self->stride * sizeof *self->taken);
    return self->means && self->deviations && self->directions && self->next && self->turned && self->along &&
           self->levels && self->variances && self->taken;
}

static void give_memory(weight_starter *self) {
    free(self->means);
    free(self->deviations);
    free(self->directions);
    free(self->next);
    free(self->turned);
    free(self->along);
    free(self->levels);
    free(self->variances);
    free(self->taken);
}

static void find_directions(weight_starter *self) {
    pi2_team *team = self->begin->team;
    uint64_t seed = self->begin->seed;
    pi2_team_run(team, find_moments, self);
    for (size_t i = 0; i < (size_t)self->width * self->half; i++) {
        self->directions[i] = (float)(pi2_low_rank_random(&seed) >> 40) / 8388608.0f - 1.0f;
    }
    for (int round = 0; round < ROUNDS; round++) {
        pi2_team_run(team, go_along, self);
        pi2_team_run(team, turn, self);
        float *turned = self->directions;
        self->directions = self->next;
        self->next = turned;
        pi2_low_rank_make_orthogonal(self->directions, self->turned, self->width, self->half);
    }
    pi2_team_run(team, go_along, self);
}

pi2_status pi2_low_rank_start_by_weights(const pi2_low_rank_begin *begin, float *a, float *b, float *bias) {
    weight_starter self = { .begin = begin, .weights = begin->samples->weights, .width = begin->samples->width,
                            .neurons = begin->samples->neurons, .half = begin->rank / 2 };
    double *shifts = malloc(self.half * sizeof *shifts), *slopes = malloc(self.half * sizeof *slopes);
    pi2_status status = PI2_OK;
    self.rows = self.weights->up_decides ? 2 * self.neurons : self.neurons;
    self.stride = self.width + (size_t)APART;
    bool is_good = true;
    if (take_memory(&self) && shifts && slopes) {
        find_directions(&self);
        put_start(&self, shifts, slopes, a, b, bias);
        for (uint32_t n = 0; n < self.neurons; n++) is_good = is_good && isfinite(bias[n]);
    } else {
        status = pi2_fail(PI2_ERR_MEMORY, "no memory to begin with a predictor of rank %u", begin->rank);
    }
    free(shifts);
    free(slopes);
    give_memory(&self);
    return is_good ? status : pi2_low_rank_start(begin, a, b, bias); /* a weight is no number, or endless */
}
