/* Goal:   directions are those that leave least of a matrix, whether inputs are weighed one by one or by how they vary
 *         together; the same bytes on any number of threads; moments that are no numbers end in one line.
 * Method: small random matrices against a dense decomposition by Jacobi's one-sided rotations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu_features.h"
#include "powerinfer2/status.h"
#include "predictor/svd_basis.h"
#include "support/tiny_model.h"

enum { WIDTH = 48, ROWS = 80, SOME = 8 };

static double matrix[ROWS][WIDTH], root[WIDTH][WIDTH]; /* root: R of the inputs' moments R'R */
static float gram[WIDTH * WIDTH], moments[WIDTH * WIDTH], deviations[WIDTH];

static double random_number(uint64_t *seed) { return (double)(pi2_tiny_random(seed) >> 40) / 8388608.0 - 1.0; }

/* A matrix with a few strong directions, and inputs some of which are large, and vary together. */
static void draw(bool apart) {
    uint64_t seed = 5;
    double strong[SOME][WIDTH];
    for (int k = 0; k < SOME; k++) {
        for (int c = 0; c < WIDTH; c++) strong[k][c] = random_number(&seed) * 3 / (k + 1);
    }
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < WIDTH; c++) matrix[r][c] = 0.3 * random_number(&seed);
        for (int k = 0; k < SOME; k++) {
            const double part = random_number(&seed);
            for (int c = 0; c < WIDTH; c++) matrix[r][c] += part * strong[k][c];
        }
    }
    memset(root, 0, sizeof root);
    for (int i = 0; i < WIDTH; i++) {
        root[i][i] = 0.2 + fabs(random_number(&seed)) * (i < 6 ? 5 : 1);
        for (int j = i + 1; j < WIDTH && !apart; j++) root[i][j] = 0.3 * random_number(&seed);
    }
    memset(gram, 0, sizeof gram);
    memset(moments, 0, sizeof moments);
    for (int i = 0; i < WIDTH; i++) {
        deviations[i] = (float)root[i][i];
        for (int j = 0; j < WIDTH; j++) {
            double of_rows = 0, of_inputs = 0;
            for (int r = 0; r < ROWS; r++) of_rows += matrix[r][i] * matrix[r][j];
            for (int k = 0; k < WIDTH; k++) of_inputs += root[k][i] * root[k][j];
            gram[i * WIDTH + j] = (float)of_rows;
            moments[i * WIDTH + j] = (float)of_inputs;
        }
    }
}

/* m R', whose squares are what is left of m's products with inputs. */
static void weigh(double m[ROWS][WIDTH], double out[ROWS][WIDTH]) {
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < WIDTH; c++) {
            out[r][c] = 0;
            for (int k = 0; k < WIDTH; k++) out[r][c] += m[r][k] * root[c][k];
        }
    }
}

/* Squares of the singular values of the weighed matrix, the largest first. */
static void find_singular(double squares[WIDTH]) {
    static double a[ROWS][WIDTH];
    weigh(matrix, a);
    for (int sweep = 0; sweep < 30; sweep++) {
        for (int p = 0; p < WIDTH; p++) {
            for (int q = p + 1; q < WIDTH; q++) {
                double pp = 0, qq = 0, pq = 0;
                for (int r = 0; r < ROWS; r++) {
                    pp += a[r][p] * a[r][p];
                    qq += a[r][q] * a[r][q];
                    pq += a[r][p] * a[r][q];
                }
                if (fabs(pq) < 1e-14 * sqrt(pp * qq)) continue;
                const double theta = (qq - pp) / (2 * pq);
                const double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
                const double c = 1 / sqrt(t * t + 1), s = t * c;
                for (int r = 0; r < ROWS; r++) {
                    const double x = a[r][p], y = a[r][q];
                    a[r][p] = c * x - s * y;
                    a[r][q] = s * x + c * y;
                }
            }
        }
    }
    for (int c = 0; c < WIDTH; c++) {
        double sum = 0;
        for (int r = 0; r < ROWS; r++) sum += a[r][c] * a[r][c];
        int at = c;
        for (; at > 0 && squares[at - 1] < sum; at--) squares[at] = squares[at - 1];
        squares[at] = sum;
    }
}

/* What matrix * along * code' leaves of the matrix, by its first `count` directions. */
static double left_by(const pi2_svd_basis *basis, uint32_t count) {
    static double rest[ROWS][WIDTH], weighed[ROWS][WIDTH];
    double sum = 0;
    memcpy(rest, matrix, sizeof rest);
    for (int r = 0; r < ROWS; r++) {
        for (uint32_t k = 0; k < count; k++) {
            double part = 0;
            for (int c = 0; c < WIDTH; c++) part += matrix[r][c] * (double)basis->along[(size_t)c * basis->count + k];
            for (int c = 0; c < WIDTH; c++) rest[r][c] -= part * (double)basis->code[(size_t)c * basis->count + k];
        }
    }
    weigh(rest, weighed);
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < WIDTH; c++) sum += weighed[r][c] * weighed[r][c];
    }
    return sum;
}

static pi2_status find(bool apart, uint32_t count, unsigned threads, pi2_svd_basis *basis) {
    pi2_team *team;
    assert_int_equal(pi2_team_create(threads, NULL, &team), PI2_OK);
    const pi2_svd_basis_request request = { .width = WIDTH, .count = count, .gram = gram,
                                            .deviations = apart ? deviations : NULL, .moments = moments, .seed = 7,
                                            .team = team, .kernels = pi2_training_select(pi2_cpu_features()) };
    const pi2_status status = pi2_svd_basis_find(&request, basis);
    pi2_team_destroy(team);
    return status;
}

static void check_directions(bool apart) {
    double squares[WIDTH] = { 0 };
    draw(apart);
    find_singular(squares);
    static const uint32_t counts[] = { 4, 32, WIDTH };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        pi2_svd_basis basis;
        double best = 0, all = 0;
        draw(apart);
        assert_int_equal(find(apart, counts[i], 2, &basis), PI2_OK);
        for (uint32_t k = WIDTH; k-- > 0;) {
            all += squares[k];
            if (k >= counts[i]) continue;
            /* The first k + 1 of them are the best k + 1, too. */
            best = 0;
            for (uint32_t l = k + 1; l < WIDTH; l++) best += squares[l];
            const double left = left_by(&basis, k + 1);
            assert_true(left > best * 0.999 - 1e-5 * squares[0] && left < best * 1.01 + 1e-5 * squares[0]);
        }
        assert_true(all > 0);
        pi2_svd_basis_free(&basis);
    }
}

static void directions_leave_least_of_inputs_that_vary_alone(void **state) {
    (void)state;
    check_directions(true);
}

static void directions_leave_least_of_inputs_that_vary_together(void **state) {
    (void)state;
    check_directions(false);
}

static void threads_change_no_bit(void **state) {
    (void)state;
    for (int apart = 0; apart < 2; apart++) {
        pi2_svd_basis one, three;
        const size_t bytes = WIDTH * 16 * sizeof(float);
        draw(apart);
        assert_int_equal(find(apart, 16, 1, &one), PI2_OK);
        draw(apart);
        assert_int_equal(find(apart, 16, 3, &three), PI2_OK);
        assert_memory_equal(one.along, three.along, bytes);
        assert_memory_equal(one.code, three.code, bytes);
        pi2_svd_basis_free(&one);
        pi2_svd_basis_free(&three);
    }
}

static void what_is_no_number_is_refused(void **state) {
    (void)state;
    pi2_svd_basis basis;
    draw(false);
    moments[5 * WIDTH + 5] = NAN;
    assert_int_equal(find(false, 16, 2, &basis), PI2_ERR_FORMAT);
    assert_null(basis.along);
    draw(true);
    gram[3] = INFINITY;
    assert_int_equal(find(true, 16, 2, &basis), PI2_ERR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directions_leave_least_of_inputs_that_vary_alone),
        cmocka_unit_test(directions_leave_least_of_inputs_that_vary_together),
        cmocka_unit_test(threads_change_no_bit), cmocka_unit_test(what_is_no_number_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
