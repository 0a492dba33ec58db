/* Goal:   the predictors of a PowerInfer file say the same when they are imported: from the file itself and from a
 *         cluster file made from it, to the byte; a run uses them; models whose norms take a mean away are refused.
 * Method: a tiny random model; the sign of its own matrices' scores of a vector before the norm, against those of the
 *         imported ones of the vector behind it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu_features.h"
#include "file_formats/gguf.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/neuron_predictor.h"
#include "predictor/predictor_file.h"
#include "support/emulator.h"
#include "support/session_run.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"
#include "weight_formats/weight_format.h"

enum { RANK = 24, WIDTH = 256, NEURONS = 1312, LAYERS = 2 };

static char *theirs, *cluster_path, *imported, *again;

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    theirs = test_folder_path("theirs.gguf");
    cluster_path = test_folder_path("theirs.pi2");
    imported = test_folder_path("imported.predictor");
    again = test_folder_path("again.predictor");
    return 0;
}

static void write_model(const char *architecture) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.architecture = architecture;
    options.layer_count = LAYERS;
    options.feed_forward_length = NEURONS;
    options.predictor_rank = RANK;
    if (strcmp(architecture, "opt") == 0) options.head_count_kv = options.head_count;
    assert_int_equal(pi2_tiny_model_write_apart(&options, theirs), 0);
    const pi2_prepare_options prepare = { .model_path = theirs, .output_path = cluster_path, .overwrite = true,
                                          .layout = PI2_LAYOUT_BUNDLE, .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static pi2_status import(const char *model, const char *output) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model;
    return pi2_predictor_import(&options, output);
}

/* A tensor's floats, all rows. */
static float *floats_of(const pi2_gguf *gguf, const uint8_t *file, const char *name) {
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(gguf, name);
    assert_non_null(tensor);
    const pi2_weight_format *format = pi2_weight_format_find(tensor->type);
    const size_t count = (size_t)(tensor->dimensions[0] * tensor->dimensions[1]);
    float *floats = malloc(count * sizeof *floats);
    assert_non_null(floats);
    format->decode_row(floats, file + tensor->file_offset, count / format->block_columns);
    return floats;
}

/* Scores of both; they may differ in sign only where they are next to nothing. */
static void compare_scores(const pi2_predictor *predictor, const pi2_gguf *gguf, const uint8_t *file) {
    float *fc1 = floats_of(gguf, file, "blk.1.fc1.weight"), *fc2 = floats_of(gguf, file, "blk.1.fc2.weight");
    float *norm = floats_of(gguf, file, "blk.1.ffn_norm.weight");
    float x[WIDTH], normed[WIDTH], code[RANK], ours[32], scores[NEURONS];
    int16_t values[WIDTH], coded[32];
    double squares = 0, largest = 0;
    uint64_t seed = 31;
    for (int c = 0; c < WIDTH; c++) {
        x[c] = (float)(pi2_tiny_random(&seed) % 2001) / 100.0f - 10.0f;
        squares += (double)x[c] * (double)x[c];
    }
    for (int c = 0; c < WIDTH; c++) normed[c] = x[c] / (float)sqrt(squares / WIDTH) * norm[c];
    const pi2_predictor_query query = { .predictor = predictor, .layer = &predictor->layers[1],
                                        .kernel = pi2_small_select(pi2_cpu_features()) };
    const pi2_predictor_vector input = pi2_predictor_quantize(normed, WIDTH, values);
    assert_int_equal(query.layer->size, 32); /* filled up */
    predictor->kind->code(&query, &input, 0, 32, ours);
    const pi2_predictor_vector from = pi2_predictor_quantize(ours, 32, coded);
    predictor->kind->scores(&query, &from, 0, NEURONS, scores);
    for (int r = 0; r < RANK; r++) {
        double sum = 0;
        for (int c = 0; c < WIDTH; c++) sum += (double)fc1[r * WIDTH + c] * (double)x[c];
        code[r] = sum > 0 ? (float)sum : 0;
    }
    uint32_t firing = 0, different = 0;
    double *theirs_scores = malloc(NEURONS * sizeof *theirs_scores);
    assert_non_null(theirs_scores);
    for (int n = 0; n < NEURONS; n++) {
        theirs_scores[n] = 0;
        for (int r = 0; r < RANK; r++) theirs_scores[n] += (double)fc2[n * RANK + r] * (double)code[r];
        if (fabs(theirs_scores[n]) > largest) largest = fabs(theirs_scores[n]);
    }
    for (int n = 0; n < NEURONS; n++) {
        const bool fires = theirs_scores[n] >= 0, is_named = scores[n] > query.layer->threshold;
        firing += fires;
        different += fires != is_named;
        if (fires != is_named) assert_true(fabs(theirs_scores[n]) < 0.03 * largest);
    }
    assert_true(firing > NEURONS / 10 && firing < NEURONS - NEURONS / 10);
    assert_true(different < NEURONS / 20);
    free(theirs_scores);
    free(fc1);
    free(fc2);
    free(norm);
}

static void they_say_the_same(void **state) {
    (void)state;
    static const char *const architectures[] = { "llama", "bamboo" };
    for (size_t a = 0; a < 2; a++) {
        size_t bytes, other_bytes, model_bytes;
        pi2_predictor predictor;
        pi2_gguf *gguf;
        void *memory;
        write_model(architectures[a]);
        if (import(theirs, imported) != PI2_OK) fail_msg("%s", pi2_error_text());
        if (import(cluster_path, again) != PI2_OK) fail_msg("%s", pi2_error_text());
        uint8_t *one = test_file_read(imported, &bytes), *other = test_file_read(again, &other_bytes);
        assert_int_equal(bytes, other_bytes);
        assert_memory_equal(one, other, bytes);
        if (pi2_predictor_read(imported, &predictor) != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_int_equal(posix_memalign(&memory, PI2_PREDICTOR_ALIGNMENT, pi2_predictor_data_bytes(&predictor)), 0);
        assert_int_equal(pi2_predictor_load(imported, &predictor, memory), PI2_OK);
        uint8_t *file = test_file_read(theirs, &model_bytes);
        assert_int_equal(pi2_gguf_open(theirs, &gguf), PI2_OK);
        compare_scores(&predictor, gguf, file);
        pi2_gguf_close(gguf);
        pi2_predictor_free(&predictor);
        free(memory);
        free(file);
        free(one);
        free(other);
    }
}

static void a_run_uses_them(void **state) {
    (void)state;
    pi2_engine *engine;
    pi2_engine_options options;
    pi2_engine_counters counters;
    pi2_session_run run;
    write_model("llama");
    assert_int_equal(import(theirs, imported), PI2_OK);
    pi2_engine_options_init(&options);
    options.model_path = cluster_path;
    options.context_tokens = 64;
    options.memory_bytes = 1000000000;
    options.sparsity = "auto";
    options.predictor = imported;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_string_equal(pi2_engine_get_report(engine)->predictor, "low_rank");
    pi2_session_run_make(engine, 9, 4, &run);
    pi2_engine_count(engine, &counters);
    assert_true(counters.neurons_predicted > 0 && counters.neurons_predicted < (uint64_t)4 * LAYERS * NEURONS);
    pi2_session_run_free(&run);
    pi2_engine_close(engine);
}

static void what_cannot_be_read_so_is_refused(void **state) {
    (void)state;
    static const char *const architectures[] = { "falcon", "opt" };
    for (size_t a = 0; a < 2; a++) {
        write_model(architectures[a]);
        assert_int_equal(import(theirs, imported), PI2_ERR_UNSUPPORTED);
        assert_non_null(strstr(pi2_error_text(), "no norm of its own without a mean"));
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, test_folder_end)
    const struct CMUnitTest tests[] = { TEST(they_say_the_same), TEST(a_run_uses_them),
                                        TEST(what_cannot_be_read_so_is_refused) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
