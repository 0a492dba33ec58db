/*
 * Goal:   the map of a shortcut is the ridge regression that it is said to be, with any number of threads, and of any
 *         number of tokens; what is no number is refused.
 * Method: drawn tokens with a mean of their own and one number much larger than the rest; the same regression by
 *         elimination in long doubles.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fail.h"
#include "engine/shortcut_fit.h"
#include "support/random_weights.h"

enum { WIDTH = 96, TOKENS = 700, LARGE = 7 };

static float inputs[TOKENS][2][WIDTH];

static void draw(void) {
    test_random random = { .state = 99 };
    for (int t = 0; t < TOKENS; t++) {
        float *x = inputs[t][0], *y = inputs[t][1];
        for (int i = 0; i < WIDTH; i++) x[i] = test_random_float(&random) + 0.1f * (float)(i % 5);
        x[LARGE] = 40 + 9 * x[LARGE];
        for (int i = 0; i < WIDTH; i++) {
            y[i] = x[i] + 0.5f * x[(i + 3) % WIDTH] - 0.01f * x[LARGE] + 0.2f * test_random_float(&random) + 1;
        }
    }
}

/* The same by the definition: (X'X + r I) w = X'd, of centred X and d. */
static long double reference[WIDTH][WIDTH], reference_bias[WIDTH];

static void eliminate(long double (*a)[2 * WIDTH]) {
    for (int k = 0; k < WIDTH; k++) {
        for (int r = 0; r < WIDTH; r++) {
            if (r == k) continue;
            const long double factor = a[r][k] / a[k][k];
            for (int c = k; c < 2 * WIDTH; c++) a[r][c] -= factor * a[k][c];
        }
    }
}

static void solve_by_definition(void) {
    static long double a[WIDTH][2 * WIDTH];
    long double means[2][WIDTH] = { { 0 } }, trace = 0;
    memset(a, 0, sizeof a);
    for (int t = 0; t < TOKENS; t++) {
        for (int i = 0; i < WIDTH; i++) {
            means[0][i] += (long double)inputs[t][0][i] / TOKENS;
            means[1][i] += (long double)(inputs[t][1][i] - inputs[t][0][i]) / TOKENS;
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        for (int i = 0; i < WIDTH; i++) {
            const long double x = inputs[t][0][i] - means[0][i];
            for (int j = 0; j < WIDTH; j++) {
                a[i][j] += x * (inputs[t][0][j] - means[0][j]);
                a[i][WIDTH + j] += x * (inputs[t][1][j] - inputs[t][0][j] - means[1][j]);
            }
        }
    }
    for (int i = 0; i < WIDTH; i++) trace += a[i][i];
    for (int i = 0; i < WIDTH; i++) a[i][i] += 1e-3L * trace / WIDTH;
    eliminate(a);
    for (int j = 0; j < WIDTH; j++) {
        reference_bias[j] = means[1][j];
        for (int i = 0; i < WIDTH; i++) {
            reference[j][i] = a[i][WIDTH + j] / a[i][i];
            reference_bias[j] -= reference[j][i] * means[0][i];
        }
    }
}

static pi2_shortcut_fit *fit_all(pi2_team *team, int tokens) {
    pi2_shortcut_fit *fit = NULL;
    assert_int_equal(pi2_shortcut_fit_create(WIDTH, team, &fit), PI2_OK);
    for (int t = 0; t < tokens; t++) pi2_shortcut_fit_add(fit, inputs[t][0]);
    assert_int_equal(pi2_shortcut_fit_count(fit), tokens);
    return fit;
}

static void test_against_the_definition(void **state) {
    (void)state;
    draw();
    solve_by_definition();
    for (unsigned members = 1; members <= 3; members++) {
        pi2_team *team = NULL;
        float row[WIDTH];
        assert_int_equal(pi2_team_create(members, NULL, &team), PI2_OK);
        pi2_shortcut_fit *fit = fit_all(team, TOKENS);
        assert_int_equal(pi2_shortcut_fit_solve(fit, NULL), PI2_OK);
        for (uint32_t j = 0; j < WIDTH; j++) {
            pi2_shortcut_fit_row(fit, j, row);
            for (int i = 0; i < WIDTH; i++) assert_float_equal(row[i], (float)reference[j][i], 2e-4f);
            assert_float_equal(pi2_shortcut_fit_bias(fit)[j], (float)reference_bias[j], 2e-3f);
        }
        double square = 0;
        for (int t = 0; t < TOKENS; t++) square += (double)inputs[t][0][LARGE] * (double)inputs[t][0][LARGE] / TOKENS;
        assert_float_equal(pi2_shortcut_fit_scales(fit)[LARGE], (float)sqrt(square), 1e-3f);
        pi2_shortcut_fit_free(fit);
        pi2_team_destroy(team);
    }
}

static bool always(void *user) {
    (void)user;
    return true;
}

static void test_what_cannot_be(void **state) {
    (void)state;
    const pi2_callbacks cancels = { .cancelled = always };
    pi2_team *team = NULL;
    assert_int_equal(pi2_team_create(2, NULL, &team), PI2_OK);
    draw();
    pi2_shortcut_fit *fit = fit_all(team, 0);
    assert_int_equal(pi2_shortcut_fit_solve(fit, NULL), PI2_ERR_INVALID);
    pi2_shortcut_fit_free(fit);
    fit = fit_all(team, 30);
    assert_int_equal(pi2_shortcut_fit_solve(fit, &cancels), PI2_ERR_INTERRUPTED);
    pi2_shortcut_fit_free(fit);
    fit = fit_all(team, 1); /* one token: it is added to as it was, and nothing else is known */
    assert_int_equal(pi2_shortcut_fit_solve(fit, NULL), PI2_OK);
    float row[WIDTH];
    pi2_shortcut_fit_row(fit, 3, row);
    for (int i = 0; i < WIDTH; i++) assert_float_equal(row[i], 0, 0);
    assert_float_equal(pi2_shortcut_fit_bias(fit)[3], inputs[0][1][3] - inputs[0][0][3], 1e-6f);
    pi2_shortcut_fit_free(fit);
    inputs[5][1][2] = NAN;
    fit = fit_all(team, 30);
    assert_int_equal(pi2_shortcut_fit_solve(fit, NULL), PI2_ERR_INVALID);
    pi2_shortcut_fit_free(fit);
    inputs[5][0][2] = INFINITY;
    fit = fit_all(team, 30);
    assert_int_equal(pi2_shortcut_fit_solve(fit, NULL), PI2_ERR_INVALID);
    pi2_shortcut_fit_free(fit);
    pi2_team_destroy(team);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_against_the_definition),
                                        cmocka_unit_test(test_what_cannot_be) };
    return cmocka_run_group_tests_name("shortcut fit", tests, NULL, NULL);
}
