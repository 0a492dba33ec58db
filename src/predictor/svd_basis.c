/*
 * svd_basis.c: with G the gram matrix, C = R'R the moments of inputs, directions are eigenvectors of K = R G R':
 *
 *   factor   R, by Cholesky                        threads share rows out
 *   weigh    K = R (G R')                          rows
 *   iterate  V = K V, made orthogonal, some times  rows; it begins with drawn numbers, and with some directions more
 *            than are wanted, which carry what would be left over
 *   turn     V by the eigenvectors of V'KV, by Jacobi's rotations, so that the first k are the best k
 *   result   along = R'V, code = R^-1 V
 */
#include "predictor/svd_basis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "predictor/low_rank_start.h"

enum { SPARE = 16, ROUNDS = 8, SWEEPS = 12 };
static const double small_enough = 1e-7; /* of what lies beside the diagonal, of its own two */

typedef struct finder {
    const pi2_svd_basis_request *request;
    uint32_t width, count;       /* count: with those that are spare */
    float *root;                 /* R, in the moments' place; NULL: it is diagonal */
    float *product;              /* [width][width]: G R' */
    float *directions, *next, *turned; /* V: [width][count], twice, and as [count][width] */
    uint32_t column;             /* of R that is at work */
    /* a job: to += left right, rows shared out */
    float *to;
    pi2_float_matrix left, right;
    uint32_t rows, steps, columns;
    double *small, *vectors;     /* [count][count]: V'KV, and its eigenvectors, by columns */
} finder;

static uint32_t share_of(uint32_t count, unsigned member, unsigned members) {
    return (uint32_t)((uint64_t)count * member / members);
}

static void multiply_rows(void *argument, unsigned member, unsigned members) {
    const finder *self = argument;
    const uint32_t first = share_of(self->rows, member, members), end = share_of(self->rows, member + 1, members);
    float *to = self->to + (size_t)first * self->columns;
    const pi2_float_matrix left = { self->left.values + first * self->left.row, self->left.row, self->left.column };
    memset(to, 0, (size_t)(end - first) * self->columns * sizeof *to);
    pi2_add_product(self->request->kernels, to, self->columns, left, self->right, end - first, self->steps,
                    self->columns);
}

/* to [rows][columns] = left right */
static void multiply(finder *self, float *to, pi2_float_matrix left, pi2_float_matrix right, uint32_t rows,
                     uint32_t steps, uint32_t columns) {
    self->to = to;
    self->left = left;
    self->right = right;
    self->rows = rows;
    self->steps = steps;
    self->columns = columns;
    pi2_team_run(self->request->team, multiply_rows, self);
}

/* ---- R ---- */

/* Rows below `column` lose what it has of them. Members take every so-manieth, since rows get shorter. */
static void reduce_rows(void *argument, unsigned member, unsigned members) {
    const finder *self = argument;
    const size_t width = self->width;
    const float *own = self->root + self->column * width;
    for (size_t r = self->column + 1 + member; r < width; r += members) {
        float *row = self->root + r * width;
        const float part = own[r];
        for (size_t c = r; c < width; c++) row[c] -= part * own[c];
    }
}

static bool find_root(finder *self) {
    const size_t width = self->width;
    self->root = self->request->moments;
    for (self->column = 0; self->column < width; self->column++) {
        float *row = self->root + self->column * width;
        const float square = row[self->column];
        if (!(square > 0 && square < INFINITY)) return false;
        const float root = sqrtf(square);
        memset(row, 0, self->column * sizeof *row);
        for (size_t c = self->column; c < width; c++) row[c] /= root;
        row[self->column] = root;
        pi2_team_run(self->request->team, reduce_rows, self);
    }
    return true;
}

static void weigh_by_deviations(const finder *self) {
    const size_t width = self->width;
    const float *deviations = self->request->deviations;
    for (size_t r = 0; r < width; r++) {
        float *row = self->request->gram + r * width;
        for (size_t c = 0; c < width; c++) row[c] *= deviations[r] * deviations[c];
    }
}

/* R as [width][width] by rows, R' by columns of the same. */
static void weigh_by_root(finder *self) {
    const size_t width = self->width;
    const pi2_float_matrix root = { self->root, width, 1 };
    /* G R' is the transposed of R G, since G is symmetric: R (R G)' = R (G R'). */
    multiply(self, self->product, root, (pi2_float_matrix){ self->request->gram, width, 1 }, self->width, self->width,
             self->width);
    for (size_t r = 0; r < width; r++) {
        for (size_t c = 0; c < width; c++) self->request->gram[c * width + r] = self->product[r * width + c];
    }
    multiply(self, self->product, root, (pi2_float_matrix){ self->request->gram, width, 1 }, self->width, self->width,
             self->width);
    memcpy(self->request->gram, self->product, width * width * sizeof(float));
}

/* ---- directions ---- */

static void iterate(finder *self) {
    uint64_t seed = self->request->seed;
    const pi2_float_matrix gram = { self->request->gram, self->width, 1 };
    for (size_t i = 0; i < (size_t)self->width * self->count; i++) {
        self->directions[i] = (float)(pi2_low_rank_random(&seed) >> 40) / 8388608.0f - 1.0f;
    }
    for (int round = 0; round < ROUNDS; round++) {
        multiply(self, self->next, gram, (pi2_float_matrix){ self->directions, self->count, 1 }, self->width,
                 self->width, self->count);
        float *kept = self->directions;
        self->directions = self->next;
        self->next = kept;
        pi2_low_rank_make_orthogonal(self->directions, self->turned, self->width, self->count);
    }
}

/* Rows and columns p and q of the small matrix turn, so that nothing is left beside the diagonal there. */
static void rotate(finder *self, size_t p, size_t q) {
    const size_t count = self->count;
    double *a = self->small, *vectors = self->vectors;
    const double theta = (a[q * count + q] - a[p * count + p]) / (2 * a[p * count + q]);
    const double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
    const double c = 1 / sqrt(t * t + 1), s = t * c;
    for (size_t k = 0; k < count; k++) {
        const double x = a[p * count + k], y = a[q * count + k];
        a[p * count + k] = c * x - s * y;
        a[q * count + k] = s * x + c * y;
    }
    for (size_t k = 0; k < count; k++) {
        const double x = a[k * count + p], y = a[k * count + q];
        a[k * count + p] = c * x - s * y;
        a[k * count + q] = s * x + c * y;
    }
    for (size_t k = 0; k < count; k++) { /* vectors by rows: contiguous */
        const double x = vectors[p * count + k], y = vectors[q * count + k];
        vectors[p * count + k] = c * x - s * y;
        vectors[q * count + k] = s * x + c * y;
    }
}

static void diagonalize(finder *self) {
    const size_t count = self->count;
    memset(self->vectors, 0, count * count * sizeof *self->vectors);
    for (size_t k = 0; k < count; k++) self->vectors[k * count + k] = 1;
    bool turned = true;
    for (int sweep = 0; sweep < SWEEPS && turned; sweep++) {
        turned = false;
        for (size_t p = 0; p < count; p++) {
            for (size_t q = p + 1; q < count; q++) {
                const double beside = fabs(self->small[p * count + q]);
                const double own = sqrt(fabs(self->small[p * count + p] * self->small[q * count + q]));
                if (!(beside > small_enough * own) || !(beside > 1e-300)) continue;
                rotate(self, p, q);
                turned = true;
            }
        }
    }
}

static void sort_vectors(finder *self) {
    const size_t count = self->count;
    for (size_t k = 0; k < count; k++) { /* the largest that is left comes next */
        size_t best = k;
        for (size_t i = k + 1; i < count; i++) {
            if (self->small[i * count + i] > self->small[best * count + best]) best = i;
        }
        const double value = self->small[k * count + k];
        self->small[k * count + k] = self->small[best * count + best];
        self->small[best * count + best] = value;
        for (size_t i = 0; i < count && best != k; i++) {
            const double kept = self->vectors[k * count + i];
            self->vectors[k * count + i] = self->vectors[best * count + i];
            self->vectors[best * count + i] = kept;
        }
    }
}

/* Into `next`: V turned, its best directions first. */
static void turn(finder *self) {
    const size_t count = self->count, width = self->width;
    multiply(self, self->next, (pi2_float_matrix){ self->request->gram, width, 1 },
             (pi2_float_matrix){ self->directions, count, 1 }, self->width, self->width, self->count);
    multiply(self, self->turned, (pi2_float_matrix){ self->directions, 1, count },
             (pi2_float_matrix){ self->next, count, 1 }, self->count, self->width, self->count);
    for (size_t i = 0; i < count * count; i++) self->small[i] = (double)self->turned[i];
    for (size_t p = 0; p < count; p++) {
        for (size_t q = 0; q < p; q++) {
            const double mean = (self->small[p * count + q] + self->small[q * count + p]) / 2;
            self->small[p * count + q] = self->small[q * count + p] = mean;
        }
    }
    diagonalize(self);
    sort_vectors(self);
    for (size_t k = 0; k < count; k++) {
        for (size_t i = 0; i < count; i++) self->turned[i * count + k] = (float)self->vectors[k * count + i];
    }
    multiply(self, self->next, (pi2_float_matrix){ self->directions, count, 1 },
             (pi2_float_matrix){ self->turned, count, 1 }, self->width, self->count, self->count);
}

/* ---- the result ---- */

static void put_result(finder *self, pi2_svd_basis *basis) {
    const size_t width = self->width, count = basis->count;
    const float *deviations = self->request->deviations;
    for (size_t r = 0; r < width; r++) {
        const float *from = self->next + r * self->count;
        for (size_t k = 0; k < count; k++) {
            basis->along[r * count + k] = deviations ? from[k] * deviations[r] : 0;
            basis->code[r * count + k] = deviations ? from[k] / deviations[r] : from[k];
        }
    }
    if (deviations) return;
    for (size_t k = 0; k < width; k++) { /* along = R' V */
        const float *from = basis->code + k * count;
        for (size_t r = k; r < width; r++) {
            const float part = self->root[k * width + r];
            float *to = basis->along + r * count;
            for (size_t i = 0; i < count; i++) to[i] += part * from[i];
        }
    }
    for (size_t r = width; r-- > 0;) { /* R code = V, from the last row on */
        float *own = basis->code + r * count;
        for (size_t c = r + 1; c < width; c++) {
            const float part = self->root[r * width + c], *from = basis->code + c * count;
            for (size_t i = 0; i < count; i++) own[i] -= part * from[i];
        }
        for (size_t i = 0; i < count; i++) own[i] /= self->root[r * width + r];
    }
}

static bool is_finite(const pi2_svd_basis *basis) {
    for (size_t i = 0; i < (size_t)basis->width * basis->count; i++) {
        if (!isfinite(basis->along[i]) || !isfinite(basis->code[i])) return false;
    }
    return true;
}

static bool take_memory(finder *self, pi2_svd_basis *basis) {
    const size_t width = self->width, count = self->count, wide = width > count ? width : count;
    self->product = self->request->deviations ? NULL : malloc(width * width * sizeof *self->product);
    self->directions = malloc(width * count * sizeof *self->directions);
    self->next = malloc(width * count * sizeof *self->next);
    self->turned = malloc(wide * count * sizeof *self->turned);
    self->small = malloc(count * count * sizeof *self->small);
    self->vectors = malloc(count * count * sizeof *self->vectors);
    basis->along = malloc(width * basis->count * sizeof *basis->along);
    basis->code = malloc(width * basis->count * sizeof *basis->code);
    return (self->product || self->request->deviations) && self->directions && self->next && self->turned &&
           self->small && self->vectors && basis->along && basis->code;
}

pi2_status pi2_svd_basis_find(const pi2_svd_basis_request *request, pi2_svd_basis *basis_out) {
    const uint32_t left = request->width - request->count;
    finder self = { .request = request, .width = request->width,
                    .count = request->count + (left < SPARE ? left : SPARE) };
    *basis_out = (pi2_svd_basis){ .width = request->width, .count = request->count };
    pi2_status status = PI2_OK;
    if (!take_memory(&self, basis_out)) {
        status = pi2_fail(PI2_ERR_MEMORY, "no memory for %u directions of %u inputs", request->count, request->width);
    } else if (!request->deviations && !find_root(&self)) {
        status = pi2_fail(PI2_ERR_FORMAT, "the samples' inputs are no numbers");
    } else {
        if (request->deviations) weigh_by_deviations(&self);
        else weigh_by_root(&self);
        iterate(&self);
        turn(&self);
        put_result(&self, basis_out);
        if (!is_finite(basis_out)) status = pi2_fail(PI2_ERR_FORMAT, "the weights are beyond all numbers");
    }
    free(self.product);
    free(self.directions);
    free(self.next);
    free(self.turned);
    free(self.small);
    free(self.vectors);
    if (status != PI2_OK) pi2_svd_basis_free(basis_out);
    return status;
}

void pi2_svd_basis_free(pi2_svd_basis *basis) {
    free(basis->along);
    free(basis->code);
    memset(basis, 0, sizeof *basis);
}
