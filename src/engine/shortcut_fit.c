/*
 * shortcut_fit.c: see shortcut_fit.h. With X and D, the tokens' x and d less a token that stands for all (or sums would
 * be of large numbers that cancel), A = X'X and B = X'D:
 *
 *   add      A, its lower triangle, and B grow by the products of a block of tokens; rows are shared out
 *   centre   X and D lose their means; the diagonal gets a little of itself: the ridge
 *   factor   A = L L', in A's place, a panel of columns at a time: its rows are shared out, then those behind it
 *   solve    L L' W = B, in B's place; columns are shared out
 */
#include "engine/shortcut_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu_features.h"
#include "base/fail.h"
#include "kernels/training/training.h"

enum { BLOCK_TOKENS = 256, ROW_CHUNK = 64, PANEL = 64, COLUMNS = 32, LANES = 8 };
static const double ridge = 1e-3; /* of the diagonal's mean */

struct pi2_shortcut_fit {
    uint32_t width, held;        /* held: tokens of the block so far */
    uint64_t count;
    pi2_team *team;
    const pi2_training_kernels *kernels;
    double *moments, *products;  /* A, B: [width][width] */
    double *sums[2];             /* of x, d [width] */
    float *block[2];             /* x, d [BLOCK_TOKENS][width] */
    float *reference[2];         /* the token that stands for all [width] */
    float *parts;                /* [members][ROW_CHUNK][width] */
    float *bias, *scales;
    uint32_t panel, panel_end;   /* columns that are factored now */
    const pi2_callbacks *callbacks;
};

static uint64_t float_count(uint32_t width, unsigned members) {
    return (uint64_t)width * (2 * BLOCK_TOKENS + 4 + (uint64_t)members * ROW_CHUNK);
}

uint64_t pi2_shortcut_fit_bytes(uint32_t width, unsigned members) {
    const uint64_t doubles = 2 * (uint64_t)width * width + 2 * (uint64_t)width;
    return sizeof(pi2_shortcut_fit) + doubles * sizeof(double) + float_count(width, members) * sizeof(float);
}

pi2_status pi2_shortcut_fit_create(uint32_t width, pi2_team *team, pi2_shortcut_fit **fit_out) {
    const size_t area = (size_t)width * width;
    const unsigned members = pi2_team_member_count(team);
    *fit_out = NULL;
    pi2_shortcut_fit *fit = calloc(1, sizeof *fit);
    double *doubles = calloc(2 * area + 2 * (size_t)width, sizeof *doubles);
    float *floats = calloc((size_t)float_count(width, members), sizeof *floats);
    if (!fit || !doubles || !floats) {
        free(fit);
        free(doubles);
        free(floats);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a map of %u numbers", width);
    }
    *fit = (pi2_shortcut_fit){ .width = width, .team = team, .kernels = pi2_training_select(pi2_cpu_features()),
                               .moments = doubles, .products = doubles + area };
    for (uint32_t i = 0; i < 2; i++) {
        fit->sums[i] = doubles + 2 * area + i * (size_t)width;
        fit->block[i] = floats + i * (size_t)BLOCK_TOKENS * width;
        fit->reference[i] = floats + (2 * BLOCK_TOKENS + i) * (size_t)width;
    }
    fit->bias = floats + (2 * BLOCK_TOKENS + 2) * (size_t)width;
    fit->scales = fit->bias + width;
    fit->parts = fit->scales + width;
    *fit_out = fit;
    return PI2_OK;
}

void pi2_shortcut_fit_free(pi2_shortcut_fit *fit) {
    if (!fit) return;
    free(fit->moments);
    free(fit->block[0]);
    free(fit);
}

uint64_t pi2_shortcut_fit_count(const pi2_shortcut_fit *fit) { return fit->count; }
const float *pi2_shortcut_fit_bias(const pi2_shortcut_fit *fit) { return fit->bias; }
const float *pi2_shortcut_fit_scales(const pi2_shortcut_fit *fit) { return fit->scales; }

/* ---- sums of products ---- */

/* Rows [first, first + rows) of a matrix grow by the block's X' times x or d, up to `columns`. */
static void add_rows(const pi2_shortcut_fit *fit, double *to, const float *right, float *part, uint32_t first,
                     uint32_t rows, uint32_t columns) {
    const size_t width = fit->width;
    const pi2_float_matrix left = { fit->block[0] + first, 1, width }, other = { right, width, 1 };
    memset(part, 0, rows * width * sizeof *part);
    pi2_add_product(fit->kernels, part, width, left, other, rows, fit->held, columns);
    for (uint32_t r = 0; r < rows; r++) {
        double *sums = to + (first + r) * width;
        for (uint32_t c = 0; c < columns; c++) sums[c] += (double)part[r * width + c];
    }
}

static void add_block_rows(void *argument, unsigned member, unsigned members) {
    const pi2_shortcut_fit *fit = argument;
    float *part = fit->parts + member * (size_t)ROW_CHUNK * fit->width;
    for (uint32_t first = member * ROW_CHUNK; first < fit->width; first += members * ROW_CHUNK) {
        const uint32_t left = fit->width - first, rows = left < ROW_CHUNK ? left : ROW_CHUNK;
        add_rows(fit, fit->moments, fit->block[0], part, first, rows, first + rows);
        add_rows(fit, fit->products, fit->block[1], part, first, rows, fit->width);
    }
}

static void add_block(pi2_shortcut_fit *fit) {
    if (fit->held == 0) return;
    for (uint32_t which = 0; which < 2; which++) {
        for (uint32_t t = 0; t < fit->held; t++) {
            const float *row = fit->block[which] + t * (size_t)fit->width;
            for (uint32_t i = 0; i < fit->width; i++) fit->sums[which][i] += (double)row[i];
        }
    }
    pi2_team_run(fit->team, add_block_rows, fit);
    fit->held = 0;
}

void pi2_shortcut_fit_add(pi2_shortcut_fit *fit, const float *inputs) {
    const size_t width = fit->width;
    float *x = fit->block[0] + fit->held * width, *d = fit->block[1] + fit->held * width;
    for (size_t i = 0; i < width; i++) {
        const float added = inputs[width + i] - inputs[i];
        if (fit->count == 0) {
            fit->reference[0][i] = inputs[i];
            fit->reference[1][i] = added;
        }
        x[i] = inputs[i] - fit->reference[0][i];
        d[i] = added - fit->reference[1][i];
    }
    fit->count++;
    if (++fit->held == BLOCK_TOKENS) add_block(fit);
}

/* ---- the regression ---- */

/* sums become means; scales are those of x itself. */
static bool centre(pi2_shortcut_fit *fit) {
    const size_t width = fit->width;
    const double count = (double)fit->count;
    double trace = 0;
    for (size_t i = 0; i < width; i++) {
        for (int which = 0; which < 2; which++) fit->sums[which][i] /= count;
    }
    for (size_t i = 0; i < width; i++) {
        const double mean = fit->sums[0][i], whole = mean + (double)fit->reference[0][i];
        for (size_t j = 0; j <= i; j++) fit->moments[i * width + j] -= count * mean * fit->sums[0][j];
        for (size_t j = 0; j < width; j++) fit->products[i * width + j] -= count * mean * fit->sums[1][j];
        const double own = fit->moments[i * width + i] > 0 ? fit->moments[i * width + i] : 0;
        const float scale = (float)sqrt(own / count + whole * whole);
        fit->scales[i] = scale > 0 ? scale : 1;
        trace += own;
    }
    const double least = trace > 0 ? ridge * trace / (double)width : 1;
    for (size_t i = 0; i < width; i++) fit->moments[i * width + i] += least;
    return isfinite(trace);
}

static double dot(const double *a, const double *b, size_t count) {
    double sums[LANES] = { 0 }, rest = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int l = 0; l < LANES; l++) sums[l] += a[i + (size_t)l] * b[i + (size_t)l];
    }
    for (; i < count; i++) rest += a[i] * b[i];
    for (int l = 0; l < LANES; l++) rest += sums[l];
    return rest;
}

/* The panel's columns of a row: of what is left of A those of L. */
static void factor_row(const pi2_shortcut_fit *fit, size_t row) {
    double *own = fit->moments + row * fit->width + fit->panel;
    for (size_t c = fit->panel; c < fit->panel_end && c <= row; c++) {
        const double *other = fit->moments + c * fit->width + fit->panel;
        const size_t done = c - fit->panel;
        const double left = own[done] - dot(own, other, done);
        own[done] = c < row ? left / other[done] : sqrt(left);
    }
}

static void factor_rows(void *argument, unsigned member, unsigned members) {
    const pi2_shortcut_fit *fit = argument;
    for (size_t r = fit->panel_end + member; r < fit->width; r += members) factor_row(fit, r);
}

/* What the panel's columns take from those behind it. */
static void reduce_rows(void *argument, unsigned member, unsigned members) {
    const pi2_shortcut_fit *fit = argument;
    const size_t width = fit->width, count = fit->panel_end - fit->panel;
    for (size_t r = fit->panel_end + member; r < width; r += members) {
        const double *own = fit->moments + r * width + fit->panel;
        for (size_t c = fit->panel_end; c <= r; c++) {
            fit->moments[r * width + c] -= dot(own, fit->moments + c * width + fit->panel, count);
        }
    }
}

static bool is_cancelled(const pi2_shortcut_fit *fit) {
    const pi2_callbacks *callbacks = fit->callbacks;
    return callbacks && callbacks->cancelled && callbacks->cancelled(callbacks->user);
}

static pi2_status refuse(void) { return pi2_fail(PI2_ERR_INVALID, "what layers read are no numbers"); }
static pi2_status interrupted(void) { return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted"); }

static pi2_status factor(pi2_shortcut_fit *fit) {
    for (fit->panel = 0; fit->panel < fit->width; fit->panel = fit->panel_end) {
        const uint32_t left = fit->width - fit->panel;
        fit->panel_end = fit->panel + (left < PANEL ? left : PANEL);
        if (is_cancelled(fit)) return interrupted();
        for (size_t r = fit->panel; r < fit->panel_end; r++) {
            factor_row(fit, r);
            if (!(fit->moments[r * fit->width + r] > 0)) return refuse(); /* NaN, too */
        }
        pi2_team_run(fit->team, factor_rows, fit);
        pi2_team_run(fit->team, reduce_rows, fit);
    }
    return PI2_OK;
}

static void take_row(double *to, const double *from, double times, size_t count) {
    for (size_t i = 0; i < count; i++) to[i] -= times * from[i];
}

/* Some columns of B become those of W. */
static void solve_columns(const pi2_shortcut_fit *fit, size_t first, size_t count) {
    const size_t width = fit->width;
    double *columns = fit->products + first;
    for (size_t r = 0; r < width; r++) {
        const double *row = fit->moments + r * width;
        for (size_t k = 0; k < r; k++) take_row(columns + r * width, columns + k * width, row[k], count);
        for (size_t i = 0; i < count; i++) columns[r * width + i] /= row[r];
    }
    for (size_t r = width; r-- > 0;) {
        const double *row = fit->moments + r * width;
        for (size_t i = 0; i < count; i++) columns[r * width + i] /= row[r];
        for (size_t k = 0; k < r; k++) take_row(columns + k * width, columns + r * width, row[k], count);
    }
}

static void solve_all(void *argument, unsigned member, unsigned members) {
    const pi2_shortcut_fit *fit = argument;
    for (size_t first = member * (size_t)COLUMNS; first < fit->width; first += members * (size_t)COLUMNS) {
        const size_t left = fit->width - first;
        if (is_cancelled(fit)) return;
        solve_columns(fit, first, left < COLUMNS ? left : COLUMNS);
    }
}

static pi2_status make_bias(pi2_shortcut_fit *fit) {
    const size_t width = fit->width;
    double *bias = fit->sums[1];
    for (size_t j = 0; j < width; j++) bias[j] += (double)fit->reference[1][j];
    for (size_t i = 0; i < width; i++) {
        take_row(bias, fit->products + i * width, fit->sums[0][i] + (double)fit->reference[0][i], width);
    }
    for (size_t j = 0; j < width; j++) {
        fit->bias[j] = (float)bias[j];
        if (!isfinite(fit->bias[j])) return refuse();
    }
    return PI2_OK;
}

pi2_status pi2_shortcut_fit_solve(pi2_shortcut_fit *fit, const pi2_callbacks *callbacks) {
    fit->callbacks = callbacks;
    if (fit->count == 0) return pi2_fail(PI2_ERR_INVALID, "there is no text to make a map of");
    add_block(fit);
    if (!centre(fit)) return refuse();
    PI2_TRY(factor(fit));
    pi2_team_run(fit->team, solve_all, fit);
    if (is_cancelled(fit)) return interrupted();
    return make_bias(fit);
}

void pi2_shortcut_fit_row(const pi2_shortcut_fit *fit, uint32_t row, float *out) {
    for (uint32_t i = 0; i < fit->width; i++) out[i] = (float)fit->products[(size_t)i * fit->width + row];
}
