/* Goal:   the neurons that scores choose are those that they should be; copies of 2 and 3 bits foretell what rows give
 *         as well as their errors say; a low-rank predictor and an svd compute their matrices; a file comes back as it
 *         was written, and one that was altered anywhere is refused; layers that lose least give most; a low-rank
 *         predictor that is a linear map gives the same bits from half of its numbers.
 * Method: scores with ties and numbers that are none against sorting; random rows against exact products; bytes of a
 *         small file changed, and lengths cut; losses whose best shares are known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu_features.h"
#include "predictor/layer_shares.h"
#include "predictor/low_bit.h"
#include "predictor/low_rank.h"
#include "predictor/predictor_file.h"
#include "predictor/svd.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { WIDTH = 96, NEURONS = 40, RANK = 32 };

static char *path;

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    path = test_folder_path("some.predictor");
    return 0;
}

static float random_float(uint64_t *seed) { return (float)((double)(pi2_tiny_random(seed) >> 40) / 8388608.0 - 1.0); }

/* ---- choosing ---- */

static int by_worth(const void *a, const void *b) {
    const float left = *(const float *)a, right = *(const float *)b;
    return left < right ? 1 : left > right ? -1 : 0;
}

static void the_largest_are_chosen(void **state) {
    (void)state;
    enum { COUNT = 700 };
    uint64_t seed = 3;
    float scores[COUNT], sorted[COUNT], chosen[COUNT];
    for (int round = 0; round < 3; round++) { /* all different, many ties, negative ones */
        for (int i = 0; i < COUNT; i++) {
            scores[i] = round == 1 ? (float)(pi2_tiny_random(&seed) % 5)
                                   : random_float(&seed) * (round ? 1e-30f : 1e30f);
        }
        memcpy(sorted, scores, sizeof sorted);
        qsort(sorted, COUNT, sizeof *sorted, by_worth);
        for (uint32_t kept = 0; kept <= COUNT; kept += kept < 4 || kept > COUNT - 4 ? 1 : 87) {
            uint32_t count = 0, ties = 0;
            bool is_over = false;
            memcpy(chosen, scores, sizeof chosen);
            pi2_predictor_choose_largest(chosen, COUNT, kept);
            for (int i = 0; i < COUNT; i++) {
                assert_true(chosen[i] == 0.0f || chosen[i] == 1.0f);
                count += chosen[i] == 1.0f;
                if (kept == 0) continue;
                if (scores[i] > sorted[kept - 1]) assert_true(chosen[i] == 1.0f);
                if (scores[i] < sorted[kept - 1]) assert_true(chosen[i] == 0.0f);
                if (scores[i] != sorted[kept - 1]) continue;
                ties++;
                assert_false(is_over && chosen[i] == 1.0f); /* the first of equal ones */
                is_over = chosen[i] == 0.0f;
            }
            assert_int_equal(count, kept);
            if (round == 1 && kept > 4 && kept < 600) assert_true(ties > 1);
        }
    }
}

static void what_is_no_number_is_computed(void **state) {
    (void)state;
    float scores[4] = { 5.0f, NAN, -1.0f, 7.0f };
    pi2_predictor_choose_largest(scores, 4, 2);
    assert_true(scores[0] == 0 && scores[1] == 1 && scores[2] == 0 && scores[3] == 1);
    float firing[4] = { -1.0f, NAN, -0.5f, -2.0f };
    pi2_predictor_choose_firing(firing, 4, -1.0f);
    assert_true(firing[0] == 0 && firing[1] == 1 && firing[2] == 1 && firing[3] == 0);
    assert_int_equal(pi2_predictor_kept(100, 0), 100);
    assert_int_equal(pi2_predictor_kept(100, 0.3), 70);
    assert_int_equal(pi2_predictor_kept(100, 0.999999), 1);
}

static void vectors_are_rounded_to_16_bits(void **state) {
    (void)state;
    float floats[32] = { 0 };
    int16_t values[32];
    pi2_predictor_vector x = pi2_predictor_quantize(floats, 32, values);
    assert_true(x.scale == 0 && x.norm == 0);
    floats[3] = -2.0f;
    floats[7] = 1.0f;
    x = pi2_predictor_quantize(floats, 32, values);
    assert_int_equal(values[3], -32767);
    assert_int_equal(values[7], 16384);
    assert_true(fabsf(x.norm - sqrtf(5.0f)) < 1e-3f);
    floats[9] = INFINITY;
    assert_true(isnan(pi2_predictor_quantize(floats, 32, values).scale));
    floats[9] = NAN;
    assert_true(isnan(pi2_predictor_quantize(floats, 32, values).scale));
}

/* ---- kinds ---- */

static pi2_predictor make(uint32_t kind, uint32_t size, const char *activation, bool has_up, void **memory) {
    pi2_predictor predictor = { .kind = pi2_predictor_kind_find(kind), .header_hash = 11, .content_hash = 12,
                                .layer_count = 2, .width = WIDTH, .neuron_count = NEURONS, .has_up = has_up };
    pi2_ffn_activation number = PI2_FFN_silu;
    memcpy(predictor.activation, activation, strlen(activation));
    assert_true(pi2_ffn_activation_find(activation, strlen(activation), &number));
    predictor.activation_number = number;
    predictor.layers = calloc(2, sizeof *predictor.layers);
    const uint64_t bytes = predictor.kind->layer_bytes(&predictor, size);
    assert_true(bytes > 0 && bytes % PI2_PREDICTOR_ALIGNMENT == 0);
    assert_int_equal(posix_memalign(memory, PI2_PREDICTOR_ALIGNMENT, bytes), 0);
    memset(*memory, 0, bytes);
    assert_non_null(predictor.layers);
    predictor.layers[1] = (pi2_predictor_layer){ .size = size, .threshold = -0.5f, .recall = 0.9f, .data = *memory };
    return predictor;
}

static pi2_predictor_query query_of(const pi2_predictor *predictor, pi2_score_kind score) {
    return (pi2_predictor_query){ .predictor = predictor, .layer = &predictor->layers[1],
                                  .kernel = pi2_small_select(pi2_cpu_features()),
                                  .vector = pi2_vector_select(pi2_cpu_features()), .score = score };
}

static void fill_rows(float rows[NEURONS][WIDTH], uint64_t seed) {
    for (int n = 0; n < NEURONS; n++) {
        for (int c = 0; c < WIDTH; c++) rows[n][c] = random_float(&seed) * (c < 32 ? 3.0f : 1.0f);
    }
}

static double product(const float *row, const float *x) {
    double sum = 0;
    for (int c = 0; c < WIDTH; c++) sum += (double)row[c] * x[c];
    return sum;
}

/* Of some neurons, in any order, the scores that all have. */
static void some_have_their_scores(const pi2_predictor_query *query, const pi2_predictor_vector *from,
                                   const float *scores) {
    static const uint32_t some[] = { NEURONS - 1, 3, 4, 0, 17, 3 };
    enum { SOME = sizeof some / sizeof some[0] };
    float found[SOME + 1];
    found[SOME] = 0.5f;
    query->predictor->kind->scores_of(query, from, some, SOME, found);
    for (int i = 0; i < SOME; i++) assert_memory_equal(&found[i], &scores[some[i]], sizeof(float));
    query->predictor->kind->scores_of(query, from, some, 0, found + SOME);
    assert_true(found[SOME] == 0.5f);
}

/* Who is foretold to fire, and what it is worth: three bits know better than two, and each as well as it says. */
static void copies_foretell_what_rows_give(void **state) {
    (void)state;
    static float gate[NEURONS][WIDTH], up[NEURONS][WIDTH];
    double misses[2] = { 0 };
    fill_rows(gate, 5);
    fill_rows(up, 6);
    for (uint32_t bits = 2; bits <= 3; bits++) {
        void *memory;
        uint64_t seed = 17;
        pi2_predictor predictor = make(1, bits, "relu", true, &memory);
        for (uint32_t n = 0; n < NEURONS; n++) {
            pi2_low_bit_put_row(&predictor, bits, memory, false, n, gate[n]);
            pi2_low_bit_put_row(&predictor, bits, memory, true, n, up[n]);
            pi2_low_bit_put_worth(&predictor, bits, memory, n, n == 7 ? 0.0f : 1.0f);
        }
        assert_true(predictor.kind->is_good(&predictor, &predictor.layers[1]));
        double far = 0;
        for (int round = 0; round < 50; round++) {
            float x[WIDTH], fires[NEURONS], worth[NEURONS];
            int16_t values[WIDTH];
            for (int c = 0; c < WIDTH; c++) x[c] = random_float(&seed);
            const pi2_predictor_vector input = pi2_predictor_quantize(x, WIDTH, values);
            const pi2_predictor_query query = query_of(&predictor, PI2_SCORE_FIRES);
            const pi2_predictor_query other = query_of(&predictor, PI2_SCORE_WORTH);
            predictor.kind->scores(&query, &input, 0, NEURONS, fires);
            predictor.kind->scores(&other, &input, 0, NEURONS, worth);
            some_have_their_scores(&query, &input, fires);
            some_have_their_scores(&other, &input, worth);
            for (int n = 0; n < NEURONS; n++) {
                const double gives = product(gate[n], x);
                assert_true(worth[n] >= 0 && (n != 7 || worth[n] == 0));
                misses[bits - 2] += (fires[n] > 0) != (gives > 0);
                far += gives > 0 && fires[n] < -3.0f; /* three deviations off: one in some hundred */
            }
        }
        assert_true(far <= 20);
        pi2_predictor_free(&predictor);
        free(memory);
    }
    assert_true(misses[0] > 0 && misses[1] < misses[0] && misses[0] < 0.25 * 50 * NEURONS);
}

static void a_low_rank_predictor_computes_its_matrices(void **state) {
    (void)state;
    static float a[RANK][WIDTH], b[NEURONS][RANK];
    void *memory;
    uint64_t seed = 23;
    pi2_predictor predictor = make(2, RANK, "relu", false, &memory);
    for (uint32_t r = 0; r < RANK; r++) {
        for (int c = 0; c < WIDTH; c++) a[r][c] = random_float(&seed);
        pi2_low_rank_put_code_row(&predictor, RANK, memory, r, a[r]);
    }
    for (uint32_t n = 0; n < NEURONS; n++) {
        for (int r = 0; r < RANK; r++) b[n][r] = random_float(&seed);
        pi2_low_rank_put_neuron(&predictor, RANK, memory, n, b[n], (float)n - 20.0f);
    }
    float x[WIDTH], code[RANK], scores[NEURONS];
    int16_t values[WIDTH], code_values[RANK];
    for (int c = 0; c < WIDTH; c++) x[c] = random_float(&seed);
    const pi2_predictor_vector input = pi2_predictor_quantize(x, WIDTH, values);
    const pi2_predictor_query query = query_of(&predictor, PI2_SCORE_FIRES);
    assert_int_equal(predictor.kind->code_rows(query.layer), RANK);
    predictor.kind->code(&query, &input, 0, RANK, code);
    const pi2_predictor_vector from = pi2_predictor_quantize(code, RANK, code_values);
    predictor.kind->scores(&query, &from, 0, 10, scores); /* in parts */
    predictor.kind->scores(&query, &from, 10, NEURONS, scores + 10);
    some_have_their_scores(&query, &from, scores);
    for (uint32_t n = 0; n < NEURONS; n++) {
        double wanted = (double)n - 20.0;
        for (int r = 0; r < RANK; r++) {
            const double value = product(a[r], x);
            wanted += value > 0 ? value * (double)b[n][r] : 0;
        }
        assert_true(fabs((double)scores[n] - wanted) < 0.3);
    }
    pi2_predictor_free(&predictor);
    free(memory);
}

/* Where A's second half is minus its first, and B's, half of the numbers give the same bits. */
static void opposite_halves_fold(void **state) {
    (void)state;
    enum { HALF = RANK, BOTH = 2 * RANK };
    void *memory;
    uint64_t seed = 37;
    float row[WIDTH], x[WIDTH], code[BOTH], whole[NEURONS], folded[NEURONS];
    int16_t values[WIDTH], code_values[BOTH];
    pi2_predictor predictor = make(2, BOTH, "relu", false, &memory);
    for (uint32_t r = 0; r < HALF; r++) {
        for (int sign = 0; sign < 2; sign++) {
            for (int c = 0; c < WIDTH; c++) row[c] = sign ? -row[c] : random_float(&seed);
            pi2_low_rank_put_code_row(&predictor, BOTH, memory, r + (uint32_t)sign * HALF, row);
        }
    }
    for (uint32_t n = 0; n < NEURONS; n++) {
        for (int r = 0; r < HALF; r++) {
            row[r] = random_float(&seed);
            row[r + HALF] = -row[r];
        }
        pi2_low_rank_put_neuron(&predictor, BOTH, memory, n, row, random_float(&seed));
    }
    for (int c = 0; c < WIDTH; c++) x[c] = random_float(&seed);
    const pi2_predictor_vector input = pi2_predictor_quantize(x, WIDTH, values);
    const pi2_predictor_query query = query_of(&predictor, PI2_SCORE_FIRES);
    predictor.kind->code(&query, &input, 0, BOTH, code);
    pi2_predictor_vector from = pi2_predictor_quantize(code, BOTH, code_values);
    predictor.kind->scores(&query, &from, 0, NEURONS, whole);
    ((int8_t *)memory)[WIDTH * HALF + 5] ^= 1; /* nearly opposite is not opposite */
    assert_int_equal(pi2_low_rank_fold(&predictor, BOTH, memory), BOTH);
    ((int8_t *)memory)[WIDTH * HALF + 5] ^= 1;
    assert_int_equal(pi2_low_rank_fold(&predictor, BOTH, memory), HALF);
    assert_int_equal(pi2_low_rank_fold(&predictor, HALF, memory), HALF); /* no further: 16 is no rank */
    predictor.layers[1].size = HALF;
    predictor.layers[1].is_signed = true;
    assert_true(predictor.kind->is_good(&predictor, &predictor.layers[1]));
    predictor.kind->code(&query, &input, 0, HALF, code);
    from = pi2_predictor_quantize(code, HALF, code_values);
    predictor.kind->scores(&query, &from, 0, NEURONS, folded);
    assert_memory_equal(folded, whole, sizeof whole);
    some_have_their_scores(&query, &from, folded);
    /* In a file it stays what it is. */
    pi2_predictor read;
    if (pi2_predictor_write(path, NULL, &predictor)) fail_msg("%s", pi2_error_text());
    if (pi2_predictor_read(path, &read)) fail_msg("%s", pi2_error_text());
    assert_true(!read.layers[0].is_signed && read.layers[1].is_signed && read.layers[1].size == HALF);
    pi2_predictor_free(&read);
    pi2_predictor_free(&predictor);
    free(memory);
}

/* Programs that know of no signed layers read files without them, and no others; a file cannot say both. */
static void versions_say_whether_layers_are_signed(void **state) {
    (void)state;
    for (uint32_t kind = 1; kind <= 2; kind++) {
        for (int is_signed = 0; is_signed < 2; is_signed++) {
            void *memory;
            size_t bytes;
            pi2_predictor read, predictor = make(kind, kind == 1 ? 2 : RANK, "relu", false, &memory);
            predictor.layers[1].is_signed = is_signed;
            if (pi2_predictor_write(path, NULL, &predictor)) fail_msg("%s", pi2_error_text());
            uint8_t *file = test_file_read(path, &bytes);
            assert_int_equal(file[8], is_signed ? 2 : 1);
            const pi2_status status = pi2_predictor_read(path, &read);
            assert_int_equal(status, kind == 1 && is_signed ? PI2_ERR_FORMAT : PI2_OK);
            if (status == PI2_OK) pi2_predictor_free(&read);
            free(file);
            pi2_predictor_free(&predictor);
            free(memory);
        }
    }
}

/* Estimates are the product of both matrices; a neuron in doubt is worth more than its mean says, by its rest. */
static void an_svd_predictor_computes_its_matrices(void **state) {
    (void)state;
    static float a[RANK][WIDTH], b[2][NEURONS][RANK];
    void *memory;
    uint64_t seed = 29;
    pi2_predictor predictor = make(3, RANK, "drelu", true, &memory);
    for (uint32_t r = 0; r < RANK; r++) {
        for (int c = 0; c < WIDTH; c++) a[r][c] = random_float(&seed);
        pi2_svd_put_code_row(&predictor, RANK, memory, r, a[r]);
    }
    for (uint32_t n = 0; n < NEURONS; n++) {
        for (int up = 0; up < 2; up++) {
            for (int r = 0; r < RANK; r++) b[up][n][r] = random_float(&seed);
            pi2_svd_put_neuron(&predictor, RANK, memory, up, n, b[up][n], n == 9 ? 50.0f : 2.0f);
        }
        pi2_svd_put_worth(&predictor, RANK, memory, n, n == 7 ? 0.0f : 1.0f);
    }
    assert_true(predictor.kind->is_good(&predictor, &predictor.layers[1]));
    assert_true(predictor.kind->worths(&predictor, &predictor.layers[1])[8] == 1.0f);
    float x[WIDTH], code[RANK], scores[NEURONS], worth[NEURONS];
    int16_t values[WIDTH], code_values[RANK];
    for (int c = 0; c < WIDTH; c++) x[c] = random_float(&seed);
    const pi2_predictor_vector input = pi2_predictor_quantize(x, WIDTH, values);
    const pi2_predictor_query query = query_of(&predictor, PI2_SCORE_FIRES);
    const pi2_predictor_query other = query_of(&predictor, PI2_SCORE_WORTH);
    assert_int_equal(predictor.kind->code_rows(query.layer), RANK);
    predictor.kind->code(&query, &input, 0, RANK, code);
    const pi2_predictor_vector from = pi2_predictor_quantize(code, RANK, code_values);
    predictor.kind->scores(&query, &from, 0, 10, scores); /* in parts */
    predictor.kind->scores(&query, &from, 10, NEURONS, scores + 10);
    predictor.kind->scores(&other, &from, 0, NEURONS, worth);
    some_have_their_scores(&query, &from, scores);
    some_have_their_scores(&other, &from, worth);
    for (uint32_t n = 0; n < NEURONS; n++) {
        double least = INFINITY;
        for (int up = 0; up < 2; up++) {
            double sum = 0;
            for (int r = 0; r < RANK; r++) sum += product(a[r], x) * (double)b[up][n][r];
            sum /= n == 9 ? 50 : 2;
            if (sum < least) least = sum;
        }
        assert_true(fabs((double)scores[n] - least) < 0.15);
        assert_true(worth[n] >= 0 && (n != 7 || worth[n] == 0));
        if (n != 9) assert_true(worth[n] < worth[9]);
    }
    ((float *)memory)[predictor.kind->layer_bytes(&predictor, RANK) / sizeof(float) - 1] = NAN; /* of what is unused */
    assert_true(predictor.kind->is_good(&predictor, &predictor.layers[1]));
    pi2_svd_put_worth(&predictor, RANK, memory, 3, NAN);
    assert_false(predictor.kind->is_good(&predictor, &predictor.layers[1]));
    pi2_predictor_free(&predictor);
    free(memory);
}

/* ---- shares of layers ---- */

enum { LAYERS = 4 };

/* Losses that grow as the square of the share, the more the smaller a layer's number; nothing is known of the last. */
static void lose_squares(pi2_predictor_layer *layers) {
    for (int i = 0; i < LAYERS; i++) {
        layers[i] = (pi2_predictor_layer){ .size = i + 1 < LAYERS ? 2 : 0 };
        for (int p = 0; p < PI2_PREDICTOR_POINTS && layers[i].size; p++) {
            const double share = PI2_PREDICTOR_SHARE_AT(p);
            layers[i].lost[p] = (float)(0.1 + share * share / (1 << i)); /* any change loses a little */
        }
    }
}

static void who_loses_least_gives_most(void **state) {
    (void)state;
    static const double all[] = { 0, 0.001, 0.2, 0.3, 0.5, 0.9 };
    pi2_predictor_layer layers[LAYERS];
    const pi2_predictor predictor = { .layer_count = LAYERS, .layers = layers };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        pi2_predictor own = predictor;
        double sum = 0;
        lose_squares(layers);
        pi2_predictor_share_out(&own, all[i]);
        for (int l = 0; l < LAYERS; l++) sum += layers[l].left_out;
        assert_true(fabs(sum - 3 * all[i]) < 1e-9 && layers[3].left_out == 0);
        for (int l = 0; l < 2; l++) assert_true(layers[l].left_out <= layers[l + 1].left_out + 1.0 / 256);
        /* With cost c s^2 the least sum has s in proportion to 1 / c: 1 to 2 to 4, as long as none is nearly whole. */
        for (int l = 0; l < 3 && all[i] < 0.4; l++) {
            assert_true(fabs(layers[l].left_out - 3 * all[i] * (1 << l) / 7) < 2.0 / 256);
        }
        for (int l = 0; l < 3; l++) assert_true(layers[l].left_out < 1);
    }
}

static void what_was_not_measured_is_shared_out_evenly(void **state) {
    (void)state;
    pi2_predictor_layer layers[LAYERS];
    pi2_predictor predictor = { .layer_count = LAYERS, .layers = layers };
    lose_squares(layers);
    pi2_predictor_share_out(&predictor, 0.97); /* beyond what any layer can give */
    assert_true(layers[0].left_out == 0.97 && layers[2].left_out == 0.97 && layers[3].left_out == 0);
    layers[1].lost[0] = 0.9f; /* noise: less lost with more left out */
    pi2_predictor_share_out(&predictor, 0.5);
    assert_true(fabs(layers[0].left_out + layers[1].left_out + layers[2].left_out - 1.5) < 1e-9);
    memset(layers[1].lost, 0, sizeof layers[1].lost);
    assert_false(pi2_predictor_is_balanced(&predictor));
    pi2_predictor_share_out(&predictor, 0.3);
    for (int l = 0; l < 3; l++) assert_true(layers[l].left_out == 0.3);
    assert_true(layers[3].left_out == 0);
    for (int l = 0; l < LAYERS; l++) layers[l].size = 0;
    assert_false(pi2_predictor_is_balanced(&predictor));
}

/* ---- files ---- */

static size_t write_one(void) {
    void *memory;
    size_t bytes;
    pi2_predictor predictor = make(1, 2, "drelu", true, &memory);
    float row[WIDTH];
    uint64_t seed = 29;
    for (int p = 0; p < PI2_PREDICTOR_POINTS; p++) predictor.layers[1].lost[p] = 0.25f * (float)(p + 1);
    for (uint32_t n = 0; n < NEURONS; n++) {
        for (int c = 0; c < WIDTH; c++) row[c] = random_float(&seed);
        for (int up = 0; up < 2; up++) pi2_low_bit_put_row(&predictor, 2, memory, up, n, row);
        pi2_low_bit_put_worth(&predictor, 2, memory, n, 1.0f);
    }
    if (pi2_predictor_write(path, NULL, &predictor)) fail_msg("%s", pi2_error_text());
    pi2_predictor_free(&predictor);
    free(memory);
    free(test_file_read(path, &bytes));
    return bytes;
}

static pi2_status load(void) {
    void *memory;
    pi2_predictor predictor;
    const pi2_status status = pi2_predictor_read(path, &predictor);
    if (status != PI2_OK) return status;
    assert_int_equal(posix_memalign(&memory, PI2_PREDICTOR_ALIGNMENT, pi2_predictor_data_bytes(&predictor)), 0);
    const pi2_status loaded = pi2_predictor_load(path, &predictor, memory);
    pi2_predictor_free(&predictor);
    free(memory);
    return loaded;
}

static void a_file_comes_back(void **state) {
    (void)state;
    void *memory;
    pi2_predictor predictor;
    (void)write_one();
    if (pi2_predictor_read(path, &predictor)) fail_msg("%s", pi2_error_text());
    assert_true(predictor.kind == pi2_predictor_kind_find(1) && predictor.header_hash == 11 &&
                predictor.content_hash == 12 && predictor.width == WIDTH && predictor.neuron_count == NEURONS &&
                predictor.layer_count == 2 && predictor.has_up && predictor.activation_number == PI2_FFN_drelu);
    assert_int_equal(predictor.layers[0].size, 0);
    assert_int_equal(predictor.layers[1].size, 2);
    assert_true(predictor.layers[1].threshold == -0.5f && predictor.layers[1].recall == 0.9f);
    assert_true(predictor.layers[0].lost[2] == 0 && predictor.layers[1].lost[0] == 0.25f);
    assert_true(predictor.layers[1].lost[2] == 0.75f && pi2_predictor_is_balanced(&predictor));
    assert_int_equal(posix_memalign(&memory, PI2_PREDICTOR_ALIGNMENT, pi2_predictor_data_bytes(&predictor)), 0);
    if (pi2_predictor_load(path, &predictor, memory)) fail_msg("%s", pi2_error_text());
    assert_null(predictor.layers[0].data);
    assert_ptr_equal(predictor.layers[1].data, memory);
    pi2_predictor_free(&predictor);
    free(memory);
}

static void what_was_altered_or_cut_is_refused(void **state) {
    (void)state;
    const size_t bytes = write_one();
    size_t count;
    uint8_t *file = test_file_read(path, &count);
    assert_int_equal(count, bytes);
    for (size_t at = 0; at < bytes; at += at < 300 ? 1 : 37) {
        file[at] ^= 16;
        test_file_write(path, file, bytes);
        assert_int_not_equal(load(), PI2_OK);
        file[at] ^= 16;
    }
    for (size_t length = 0; length < bytes; length += length < 300 ? 1 : 211) {
        test_file_write(path, file, length);
        assert_int_equal(load(), PI2_ERR_FORMAT);
    }
    test_file_write(path, file, bytes);
    assert_int_equal(load(), PI2_OK);
    free(file);
}

/* Header and list are read, not as much as the longest list: a budget does not know of that. */
static void no_more_than_header_and_list_is_read(void **state) {
    (void)state;
    const size_t bytes = write_one(); /* of two layers */
    size_t count;
    uint8_t *file = test_file_read(path, &count);
    assert_int_equal(pi2_predictor_head_bytes(file, 128, bytes), 128 + 2 * 64);
    assert_int_equal(pi2_predictor_head_bytes(file, 128, UINT64_C(1) << 40), 128 + 2 * 64);
    assert_int_equal(pi2_predictor_head_bytes(file, 128, 150), 150);
    assert_int_equal(pi2_predictor_head_bytes(file, 20, 20), 20);
    memset(file + 32, 0xff, 4); /* layers that cannot be */
    assert_int_equal(pi2_predictor_head_bytes(file, 128, bytes), 128);
    file[32] = file[33] = file[35] = 0;
    file[34] = 1; /* as many as can be */
    assert_int_equal(pi2_predictor_head_bytes(file, 128, UINT64_C(1) << 40), 128 + 65536 * 64);
    free(file);
}

static void nothing_else_is_replaced(void **state) {
    (void)state;
    void *memory;
    pi2_predictor predictor = make(1, 2, "silu", true, &memory);
    test_file_write(path, "somebody's text", 15);
    assert_int_equal(pi2_predictor_check_place(path, NULL), PI2_ERR_INVALID);
    assert_int_equal(pi2_predictor_write(path, NULL, &predictor), PI2_ERR_INVALID);
    size_t count;
    uint8_t *kept = test_file_read(path, &count);
    assert_int_equal(count, 15);
    free(kept);
    pi2_predictor_free(&predictor);
    free(memory);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, test_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(the_largest_are_chosen), TEST(what_is_no_number_is_computed), TEST(vectors_are_rounded_to_16_bits),
        TEST(copies_foretell_what_rows_give), TEST(a_low_rank_predictor_computes_its_matrices),
        TEST(opposite_halves_fold), TEST(versions_say_whether_layers_are_signed),
        TEST(an_svd_predictor_computes_its_matrices), TEST(a_file_comes_back),
        TEST(what_was_altered_or_cut_is_refused), TEST(nothing_else_is_replaced), TEST(who_loses_least_gives_most),
        TEST(what_was_not_measured_is_shared_out_evenly), TEST(no_more_than_header_and_list_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
