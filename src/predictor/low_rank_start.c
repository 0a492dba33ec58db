/*
 * low_rank_start.c: with X the inputs [samples][width], Y what fired [samples][neurons] less each neuron's mean, and
 * half a rank of directions, some times:
 *
 *   follows  Z = Y R          what the directions' neurons did          threads share samples out
 *   turn     V = X' Z         directions of the input, made orthogonal  inputs
 *   project  P = X V          less its means                            samples
 *   answer   R = Y' P         what each direction says of each neuron   neurons
 *
 * A direction v becomes two rows of A, v and -v, since relu(z) - relu(-z) = z: the predictor begins as a linear one,
 * with the weights that each direction would have alone. Inputs are rows of samples that lie anywhere, so they are
 * gathered, BATCH at a time.
 */
#include "predictor/low_rank_start.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "kernels/vector/vector.h"

enum { BATCH = 128, COLUMNS = 256, APART = 16, ROUNDS = 3 };

typedef struct starter {
    const pi2_low_rank_begin *begin;
    uint32_t width, neurons, half;
    size_t fire_bytes;
    float *directions, *turned;  /* V: [width][half], and as [half][width] */
    float *follows, *project;    /* Z, P: [count][half] */
    float *answers;              /* R: [neurons][half] */
    float *means;                /* of the neurons' firing */
    float *shift;                /* [half]: means of a row of Z or P */
    uint32_t *fired;             /* [neurons]: samples in which each fired */
    float *gathered;             /* [members][BATCH][max(width, COLUMNS) + APART] */
    size_t stride;
} starter;

static uint32_t share_of(uint32_t count, unsigned member, unsigned members) {
    return (uint32_t)((uint64_t)count * member / members);
}

static uint32_t step_of(uint32_t all, uint32_t begin, uint32_t step) { return all - begin < step ? all - begin : step; }

static const uint8_t *fires_of(const starter *self, uint32_t i) {
    return self->begin->samples->fires + self->begin->order[i] * self->fire_bytes;
}

static float *gathered_of(const starter *self, unsigned member) {
    return self->gathered + member * (size_t)BATCH * self->stride;
}

/* Columns [column, column + columns) of samples [first, first + count). */
static void gather(const starter *self, float *to, uint32_t first, uint32_t count, uint32_t column, uint32_t columns) {
    for (uint32_t i = 0; i < count; i++, to += self->stride) {
        const float *from =
            self->begin->samples->inputs + (size_t)self->begin->order[first + i] * self->width + column;
        for (uint32_t c = 0; c < columns; c++) to[c] = from[c] * self->begin->scale;
    }
}

static void add(float *restrict to, const float *restrict from, uint32_t count) {
    for (uint32_t k = 0; k < count; k++) to[k] += from[k];
}

/* ---- the four steps ---- */

/* What every sample would have if each neuron did as it does on the mean. */
static void find_mean_answer(starter *self) {
    memset(self->shift, 0, self->half * sizeof *self->shift);
    for (uint32_t n = 0; n < self->neurons; n++) {
        const float *answer = self->answers + (size_t)n * self->half;
        for (uint32_t k = 0; k < self->half; k++) self->shift[k] -= self->means[n] * answer[k];
    }
}

static void follow(void *argument, unsigned member, unsigned members) {
    const starter *self = argument;
    const uint32_t end = share_of(self->begin->count, member + 1, members);
    for (uint32_t i = share_of(self->begin->count, member, members); i < end; i++) {
        const uint8_t *fires = fires_of(self, i);
        float *to = self->follows + (size_t)i * self->half;
        memcpy(to, self->shift, self->half * sizeof *to);
        for (uint32_t n = 0; n < self->neurons; n++) {
            if (fires[n / 8] >> (n % 8) & 1) add(to, self->answers + (size_t)n * self->half, self->half);
        }
    }
}

static void turn(void *argument, unsigned member, unsigned members) {
    const starter *self = argument;
    const uint32_t end = share_of(self->width, member + 1, members);
    float *inputs = gathered_of(self, member);
    for (uint32_t c = share_of(self->width, member, members); c < end; c += COLUMNS) {
        const uint32_t columns = step_of(end, c, COLUMNS);
        float *to = self->directions + (size_t)c * self->half;
        memset(to, 0, (size_t)columns * self->half * sizeof *to);
        for (uint32_t i = 0; i < self->begin->count; i += BATCH) {
            const uint32_t count = step_of(self->begin->count, i, BATCH);
            gather(self, inputs, i, count, c, columns);
            pi2_add_product(self->begin->kernels, to, self->half, (pi2_float_matrix){ inputs, 1, self->stride },
                            (pi2_float_matrix){ self->follows + (size_t)i * self->half, self->half, 1 }, columns, count,
                            self->half);
        }
    }
}

void pi2_low_rank_make_orthogonal(float *directions, float *turned, uint32_t width, uint32_t count) {
    for (uint32_t k = 0; k < count; k++) {
        float *own = turned + (size_t)k * width;
        double before = 0, length = 0;
        for (uint32_t c = 0; c < width; c++) {
            own[c] = directions[(size_t)c * count + k];
            before += (double)own[c] * (double)own[c];
        }
        for (uint32_t other = 0; other < k; other++) {
            const float *from = turned + (size_t)other * width;
            double along = 0;
            for (uint32_t c = 0; c < width; c++) along += (double)own[c] * (double)from[c];
            for (uint32_t c = 0; c < width; c++) own[c] -= (float)along * from[c];
        }
        for (uint32_t c = 0; c < width; c++) length += (double)own[c] * (double)own[c];
        const float unit = length > 1e-10 * before ? (float)(1.0 / sqrt(length)) : 0.0f;
        for (uint32_t c = 0; c < width; c++) {
            own[c] *= unit;
            directions[(size_t)c * count + k] = own[c];
        }
    }
}

static void project(void *argument, unsigned member, unsigned members) {
    const starter *self = argument;
    const uint32_t end = share_of(self->begin->count, member + 1, members);
    float *inputs = gathered_of(self, member);
    for (uint32_t i = share_of(self->begin->count, member, members); i < end; i += BATCH) {
        const uint32_t count = step_of(end, i, BATCH);
        float *to = self->project + (size_t)i * self->half;
        gather(self, inputs, i, count, 0, self->width);
        memset(to, 0, (size_t)count * self->half * sizeof *to);
        pi2_add_product(self->begin->kernels, to, self->half, (pi2_float_matrix){ inputs, self->stride, 1 },
                        (pi2_float_matrix){ self->directions, self->half, 1 }, count, self->width, self->half);
    }
}

/* Means go into `shift`; directions are scaled so that what is left has deviation 1. */
static void standardize(starter *self) {
    for (uint32_t k = 0; k < self->half; k++) {
        double sum = 0, squares = 0;
        for (uint32_t i = 0; i < self->begin->count; i++) sum += (double)self->project[(size_t)i * self->half + k];
        const double mean = sum / self->begin->count;
        for (uint32_t i = 0; i < self->begin->count; i++) {
            const double far = (double)self->project[(size_t)i * self->half + k] - mean;
            squares += far * far;
        }
        const double deviation = sqrt(squares / self->begin->count);
        const float unit = deviation > 0 ? (float)(1.0 / deviation) : 0.0f;
        self->shift[k] = (float)mean * unit;
        for (uint32_t i = 0; i < self->begin->count; i++) {
            float *of = &self->project[(size_t)i * self->half + k];
            *of = (*of - (float)mean) * unit;
        }
        for (uint32_t c = 0; c < self->width; c++) self->directions[(size_t)c * self->half + k] *= unit;
    }
}

static void answer(void *argument, unsigned member, unsigned members) {
    const starter *self = argument;
    const uint32_t first = share_of(self->neurons, member, members), end = share_of(self->neurons, member + 1, members);
    memset(self->answers + (size_t)first * self->half, 0, (size_t)(end - first) * self->half * sizeof *self->answers);
    for (uint32_t i = 0; i < self->begin->count; i++) {
        const uint8_t *fires = fires_of(self, i);
        const float *from = self->project + (size_t)i * self->half;
        for (uint32_t n = first; n < end; n++) {
            if (fires[n / 8] >> (n % 8) & 1) add(self->answers + (size_t)n * self->half, from, self->half);
        }
    }
}

/* ---- all of it ---- */

static void count_firing(starter *self) {
    for (uint32_t i = 0; i < self->begin->count; i++) {
        const uint8_t *fires = fires_of(self, i);
        for (uint32_t n = 0; n < self->neurons; n++) self->fired[n] += fires[n / 8] >> (n % 8) & 1;
    }
    for (uint32_t n = 0; n < self->neurons; n++) {
        self->means[n] = (float)self->fired[n] / (float)self->begin->count;
    }
}

/* What a direction says of a neuron is in doubt where it fired seldom: it counts less the fewer samples there are for
 * each direction. */
static void put_start(const starter *self, float *a, float *b, float *bias) {
    const uint32_t half = self->half;
    const double count = self->begin->count, weight = (double)self->begin->weight;
    for (uint32_t c = 0; c < self->width; c++) {
        for (uint32_t k = 0; k < half; k++) {
            a[(size_t)c * self->begin->rank + k] = self->directions[(size_t)c * half + k];
            a[(size_t)c * self->begin->rank + half + k] = -self->directions[(size_t)c * half + k];
        }
    }
    for (uint32_t n = 0; n < self->neurons; n++) {
        const double share = (self->fired[n] + 0.5) / (count + 1), rare = fmin(share, 1 - share) * count;
        const double each = rare / (rare + half) / (share * (1 - share)) / count;
        double constant = pi2_log(weight * share / (1 - share));
        for (uint32_t k = 0; k < half; k++) {
            const float slope = (float)(each * (double)self->answers[(size_t)n * half + k]);
            b[(size_t)k * self->neurons + n] = slope;
            b[(size_t)(half + k) * self->neurons + n] = -slope;
            constant -= (double)slope * (double)self->shift[k];
        }
        bias[n] = (float)constant;
    }
}

static bool take_memory(starter *self) {
    const size_t samples = self->begin->count, half = self->half;
    self->directions = malloc(self->width * half * sizeof *self->directions);
    self->turned = malloc(self->width * half * sizeof *self->turned);
    self->follows = malloc(samples * half * sizeof *self->follows);
    self->project = malloc(samples * half * sizeof *self->project);
    self->answers = malloc(self->neurons * half * sizeof *self->answers);
    self->means = malloc(self->neurons * sizeof *self->means);
    self->shift = malloc(half * sizeof *self->shift);
    self->fired = calloc(self->neurons, sizeof *self->fired);
    self->gathered = malloc(pi2_team_member_count(self->begin->team) * BATCH * self->stride * sizeof *self->gathered);
    return self->directions && self->turned && self->follows && self->project && self->answers && self->means &&
           self->shift && self->fired && self->gathered;
}

static void give_memory(starter *self) {
    free(self->directions);
    free(self->turned);
    free(self->follows);
    free(self->project);
    free(self->answers);
    free(self->means);
    free(self->shift);
    free(self->fired);
    free(self->gathered);
}

static void find_directions(starter *self) {
    pi2_team *team = self->begin->team;
    uint64_t seed = self->begin->seed;
    count_firing(self);
    for (size_t i = 0; i < (size_t)self->neurons * self->half; i++) {
        self->answers[i] = (float)(pi2_low_rank_random(&seed) >> 40) / 8388608.0f - 1.0f;
    }
    for (int round = 0; round < ROUNDS; round++) {
        find_mean_answer(self);
        pi2_team_run(team, follow, self);
        pi2_team_run(team, turn, self);
        pi2_low_rank_make_orthogonal(self->directions, self->turned, self->width, self->half);
        pi2_team_run(team, project, self);
        standardize(self);
        pi2_team_run(team, answer, self);
    }
}

pi2_status pi2_low_rank_start(const pi2_low_rank_begin *begin, float *a, float *b, float *bias) {
    starter self = { .begin = begin, .width = begin->samples->width, .neurons = begin->samples->neurons,
                     .half = begin->rank / 2 };
    pi2_status status = PI2_OK;
    self.fire_bytes = (self.neurons + (size_t)7) / 8;
    self.stride = (self.width > COLUMNS ? self.width : COLUMNS) + (size_t)APART;
    if (take_memory(&self)) {
        find_directions(&self);
        put_start(&self, a, b, bias);
    } else {
        status = pi2_fail(PI2_ERR_MEMORY, "no memory to begin with a predictor of rank %u", begin->rank);
    }
    give_memory(&self);
    return status;
}
