/* Goal:   training finds what a planted predictor knows: enough of what fires, and far fewer neurons than all; the same
 *         bytes on any number of threads; with the weights at hand, few samples are enough; a rate that is too large
 *         ends in one line, and so do too few samples; what learns nothing is a linear map, and half as large.
 * Method: samples whose neurons fire by two small random matrices; what is trained against samples of another seed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu_features.h"
#include "predictor/low_rank_train.h"
#include "support/sanitizer.h"
#include "support/tiny_model.h"

enum { IS_SLOW = PI2_UNDER_ASAN || PI2_UNDER_TSAN };
enum { WIDTH = 64, NEURONS = 300, SAMPLES = IS_SLOW ? 500 : 2000, RANK = 32, BYTES = (NEURONS + 7) / 8 };

static float inputs[SAMPLES][WIDTH], planted[NEURONS][8], mixing[8][WIDTH];
static uint8_t fires[SAMPLES][BYTES];

static float random_float(uint64_t *seed) { return (float)((double)(pi2_tiny_random(seed) >> 40) / 8388608.0 - 1.0); }

/* A neuron fires where a vector of 8 numbers, made of the input, lies to its side: about a sixth of them. */
static void plant(uint64_t seed) {
    uint64_t fixed = 5;
    memset(fires, 0, sizeof fires);
    for (int k = 0; k < 8; k++) {
        for (int c = 0; c < WIDTH; c++) mixing[k][c] = random_float(&fixed);
    }
    for (int n = 0; n < NEURONS; n++) {
        for (int k = 0; k < 8; k++) planted[n][k] = random_float(&fixed);
    }
    for (int i = 0; i < SAMPLES; i++) {
        float code[8] = { 0 };
        for (int c = 0; c < WIDTH; c++) inputs[i][c] = 3.0f * random_float(&seed);
        for (int k = 0; k < 8; k++) {
            for (int c = 0; c < WIDTH; c++) code[k] += mixing[k][c] * inputs[i][c];
        }
        for (int n = 0; n < NEURONS; n++) {
            float score = -12.0f;
            for (int k = 0; k < 8; k++) score += planted[n][k] * code[k];
            if (score > 0) fires[i][n / 8] = (uint8_t)(fires[i][n / 8] | 1 << (n % 8));
        }
    }
}

static const pi2_low_rank_samples samples = { .count = SAMPLES, .width = WIDTH, .neurons = NEURONS,
                                              .inputs = &inputs[0][0], .fires = &fires[0][0] };

static pi2_predictor describe(void) {
    return (pi2_predictor){ .kind = pi2_predictor_kind_find(PI2_PREDICTOR_LOW_RANK), .layer_count = 1, .width = WIDTH,
                            .neuron_count = NEURONS };
}

static uint8_t *make_data(const pi2_predictor *predictor, size_t *bytes_out) {
    void *data;
    *bytes_out = (size_t)predictor->kind->layer_bytes(predictor, RANK);
    assert_int_equal(posix_memalign(&data, PI2_PREDICTOR_ALIGNMENT, *bytes_out), 0);
    memset(data, 0, *bytes_out);
    return data;
}

static pi2_status train(unsigned threads, float rate, uint8_t *data, pi2_low_rank_result *result) {
    pi2_team *team;
    const pi2_predictor predictor = describe();
    assert_int_equal(pi2_team_create(threads, NULL, &team), PI2_OK);
    const pi2_low_rank_training training = { .rank = RANK, .most_epochs = IS_SLOW ? 3 : 12, .rate = rate,
                                             .recall = 0.95, .seed = 1, .team = team };
    const pi2_status status = pi2_low_rank_train(&samples, &training, &predictor, data, result);
    pi2_team_destroy(team);
    return status;
}

static void what_was_planted_is_found(void **state) {
    (void)state;
    const pi2_predictor predictor = describe();
    pi2_low_rank_result result;
    size_t bytes;
    uint8_t *data = make_data(&predictor, &bytes);
    plant(7);
    if (train(2, 0.01f, data, &result) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(result.held.density > 0.05 && result.held.density < 0.4);
    assert_true(result.held.recall >= 0.95 && result.held.recall < 1);
    assert_true(result.rank == RANK && !result.is_signed); /* half of 32 is no rank */
    assert_true(result.epochs >= 2 && result.held.named < (IS_SLOW ? 0.9 : 2.0 * result.held.density));
    /* Of other samples, by the data as a run reads them. */
    const pi2_predictor_layer layer = { .size = RANK, .data = data, .threshold = result.held.threshold };
    const pi2_predictor_query query = { .predictor = &predictor, .layer = &layer,
                                        .kernel = pi2_small_select(pi2_cpu_features()) };
    assert_true(predictor.kind->is_good(&predictor, &layer));
    plant(8);
    uint64_t wanted = 0, named = 0, both = 0;
    for (int i = 0; i < 200; i++) {
        int16_t values[WIDTH], code_values[RANK];
        float code[RANK], scores[NEURONS];
        const pi2_predictor_vector input = pi2_predictor_quantize(inputs[i], WIDTH, values);
        predictor.kind->code(&query, &input, 0, RANK, code);
        const pi2_predictor_vector from = pi2_predictor_quantize(code, RANK, code_values);
        predictor.kind->scores(&query, &from, 0, NEURONS, scores);
        for (int n = 0; n < NEURONS; n++) {
            const bool is_wanted = fires[i][n / 8] >> (n % 8) & 1, is_named = scores[n] > layer.threshold;
            wanted += is_wanted;
            named += is_named;
            both += is_wanted && is_named;
        }
    }
    assert_true((double)both > 0.9 * (double)wanted);
    if (!IS_SLOW) assert_true(named < 2 * wanted + wanted / 4);
    free(data);
}

static void any_number_of_threads_gives_the_same_bytes(void **state) {
    (void)state;
    const pi2_predictor predictor = describe();
    pi2_low_rank_result one, three;
    size_t bytes;
    uint8_t *first = make_data(&predictor, &bytes), *other = make_data(&predictor, &bytes);
    plant(7);
    assert_int_equal(train(1, 0.01f, first, &one), PI2_OK);
    assert_int_equal(train(3, 0.01f, other, &three), PI2_OK);
    assert_memory_equal(first, other, bytes);
    assert_true(one.held.threshold == three.held.threshold && one.epochs == three.epochs);
    free(first);
    free(other);
}

/* Gate's rows as they were planted; of Up, what is above zero in about half of the inputs. */
static void planted_rows(void *user, bool is_up, uint32_t first, uint32_t count, float *out) {
    (void)user;
    for (uint32_t n = first; n < first + count; n++) {
        for (uint32_t c = 0; c < WIDTH; c++, out++) {
            *out = is_up && c == n % WIDTH ? 1.0f : 0.0f;
            for (int k = 0; k < 8 && !is_up; k++) *out += planted[n][k] * mixing[k][c];
        }
    }
}

static pi2_low_rank_result train_on(const pi2_low_rank_samples *of, unsigned threads, uint8_t *data) {
    pi2_team *team;
    pi2_low_rank_result result;
    const pi2_predictor predictor = describe();
    assert_int_equal(pi2_team_create(threads, NULL, &team), PI2_OK);
    const pi2_low_rank_training training = { .rank = RANK, .most_epochs = 2, .rate = 0.004f, .recall = 0.95, .seed = 1,
                                             .team = team };
    if (pi2_low_rank_train(of, &training, &predictor, data, &result) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_team_destroy(team);
    return result;
}

/* Where few samples tell little, the weights tell nearly all; and the same to any number of threads. */
static void weights_tell_what_few_samples_do_not(void **state) {
    (void)state;
    const pi2_predictor predictor = describe();
    float gate_bias[NEURONS];
    size_t bytes;
    uint8_t *data = make_data(&predictor, &bytes), *other = make_data(&predictor, &bytes);
    plant(7);
    for (int n = 0; n < NEURONS; n++) gate_bias[n] = -12.0f;
    pi2_low_rank_weights weights = { .rows = planted_rows, .gate_bias = gate_bias };
    pi2_low_rank_samples few = samples;
    few.count = 150;
    const pi2_low_rank_result without = train_on(&few, 2, data);
    few.weights = &weights;
    const pi2_low_rank_result with = train_on(&few, 2, data);
    assert_true(with.held.recall >= 0.95 && with.held.named < 1.3 * with.held.density);
    assert_true(with.held.named < 0.8 * without.held.named);
    (void)train_on(&few, 3, other);
    assert_memory_equal(data, other, bytes);
    /* drelu: who fires is decided by Up as well. */
    for (uint32_t i = 0; i < few.count; i++) {
        for (uint32_t n = 0; n < NEURONS; n++) {
            if (inputs[i][n % WIDTH] <= 0) fires[i][n / 8] = (uint8_t)(fires[i][n / 8] & ~(1 << (n % 8)));
        }
    }
    weights.up_decides = true;
    const pi2_low_rank_result both = train_on(&few, 2, data);
    assert_true(both.held.density < 0.7 * with.held.density && both.held.named < 3 * both.held.density);
    /* A weight that is no number tells nothing: the samples do. */
    gate_bias[5] = NAN;
    assert_true(train_on(&few, 2, data).held.recall >= 0.95);
    free(data);
    free(other);
}

/* Nothing is learned: what it starts from is a linear map, which half of the rank holds. */
static void a_start_is_half_as_large(void **state) {
    (void)state;
    enum { BOTH = 2 * RANK };
    pi2_team *team;
    pi2_low_rank_result result;
    float gate_bias[NEURONS];
    void *data;
    const pi2_predictor predictor = describe();
    plant(7);
    for (int n = 0; n < NEURONS; n++) gate_bias[n] = -12.0f;
    const pi2_low_rank_weights weights = { .rows = planted_rows, .gate_bias = gate_bias };
    pi2_low_rank_samples few = samples;
    few.count = 150;
    few.weights = &weights;
    assert_int_equal(posix_memalign(&data, PI2_PREDICTOR_ALIGNMENT, predictor.kind->layer_bytes(&predictor, BOTH)), 0);
    memset(data, 0, predictor.kind->layer_bytes(&predictor, BOTH));
    assert_int_equal(pi2_team_create(2, NULL, &team), PI2_OK);
    pi2_low_rank_training training = { .rank = BOTH, .rate = 0.004f, .recall = 0.95, .seed = 1, .team = team };
    for (training.most_epochs = 0; training.most_epochs < 2; training.most_epochs++) {
        const pi2_status status = pi2_low_rank_train(&few, &training, &predictor, data, &result);
        if (status != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_int_equal(result.rank, result.is_signed ? RANK : BOTH);
        assert_true(training.most_epochs > 0 || result.is_signed);
        assert_true(result.held.recall >= 0.95 && result.held.named < 1.3 * result.held.density);
    }
    pi2_team_destroy(team);
    free(data);
}

static void what_diverges_says_so(void **state) {
    (void)state;
    const pi2_predictor predictor = describe();
    pi2_low_rank_result result;
    size_t bytes;
    uint8_t *data = make_data(&predictor, &bytes);
    plant(7);
    assert_int_equal(train(1, 500.0f, data, &result), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "diverges"));
    inputs[3][5] = 1e38f;
    inputs[4][5] = -1e38f;
    assert_int_equal(train(2, 1e30f, data, &result), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "diverges"));
    free(data);
}

static void too_few_samples_are_refused(void **state) {
    (void)state;
    pi2_team *team;
    pi2_low_rank_result result;
    const pi2_predictor predictor = describe();
    pi2_low_rank_samples few = samples;
    few.count = PI2_LOW_RANK_LEAST_SAMPLES - 1;
    assert_int_equal(pi2_team_create(1, NULL, &team), PI2_OK);
    const pi2_low_rank_training training = { .rank = RANK, .most_epochs = 1, .rate = 0.01f, .recall = 0.9,
                                             .team = team };
    assert_int_equal(pi2_low_rank_train(&few, &training, &predictor, NULL, &result), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "too few"));
    pi2_team_destroy(team);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_planted_is_found), cmocka_unit_test(any_number_of_threads_gives_the_same_bytes),
                                        cmocka_unit_test(weights_tell_what_few_samples_do_not),
        cmocka_unit_test(a_start_is_half_as_large), cmocka_unit_test(what_diverges_says_so),
        cmocka_unit_test(too_few_samples_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
