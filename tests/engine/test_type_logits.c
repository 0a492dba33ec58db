/*
 * Goal:   every weight type, and mixes, compute what llama.cpp does on the same file, and lie no farther than that from
 *         what the weights say where nothing is rounded.
 * Method: tiny models of random weights, each three times with other ones (of the first three seeds), every matrix of a
 *         type but the head; llama.cpp's logits of 48 tokens, of which the last 23 are kept
 *         (tests/golden/make_family_logits.sh), with keys and values as floats in both. Both engines round activations;
 *         types of 256 have the same integers in both, those of 32 another rounding of activations' scales. Bounds hold
 *         for the mean of the three: of the divergence from llama.cpp, and of that from the same weights computed in
 *         doubles, which llama.cpp has too. What llama.cpp says of another model of the list lies far away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/emulator.h"
#include "support/float_reference.h"
#include "support/golden_logits.h"
#include "support/temporary_files.h"
#include "support/type_model.h"
#include "weight_formats/weight_format.h"

static const double most_quantised = 2e-3, most_float = 3e-9, far_away = 0.1;
/* Times llama.cpp's own distance from exact arithmetic: by chance single models lay between 0.7 and 1.5, three together
 * between 0.85 and 1.17. What is added is what the golden's 16 bits leave. */
static const double most_times = 1.25, rounding = 1e-8;
enum { MOST_TURNED = 1, MOST_TURNED_IN_ALL = 4 }; /* of some 65 clear tokens, and 1,800 */

/* Of one type's models together. */
typedef struct distances {
    double apart, ours, theirs;
    size_t clear, turned;
} distances;

/* llama.cpp rounds activations to halves, or to bfloats, where weights are such. */
static double most_divergence(size_t index) {
    size_t count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    return index < count && formats[index]->type == PI2_F32 ? most_float : most_quantised;
}

static float *as_floats(const pi2_golden_logits *golden) {
    const size_t count = (golden->tokens - 1 - golden->first) * (size_t)golden->vocabulary;
    float *floats = malloc(count * sizeof *floats);
    assert_non_null(floats);
    for (size_t i = 0; i < count; i++) floats[i] = (float)golden->logarithms[i];
    return floats;
}

static void add_model(size_t index, unsigned seed, const char *path, distances *sum) {
    char name[64];
    pi2_golden_logits golden;
    pi2_engine_options options;
    double *exact = NULL;
    size_t vocabulary = 0, clear, turned;
    (void)snprintf(name, sizeof name, "%s-%u", pi2_type_model_name(index), seed);
    assert_int_equal(pi2_type_model_write(index, seed, path), 0);
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.cache_type = PI2_CACHE_F32;
    pi2_golden_logits_read(PI2_TESTS_FOLDER "/golden/types", name, &golden);
    float *own = pi2_golden_logits_of_engine(&golden, name, &options), *theirs = as_floats(&golden);
    assert_int_equal(pi2_float_reference(path, golden.ids, golden.tokens, NULL, &exact, &vocabulary), 0);
    assert_int_equal(vocabulary, golden.vocabulary);
    const double *compared = exact + golden.first * vocabulary;
    sum->apart += pi2_golden_logits_mean(&golden, own) / PI2_TYPE_MODEL_SEEDS;
    sum->ours += pi2_golden_logits_mean_from(&golden, compared, own) / PI2_TYPE_MODEL_SEEDS;
    sum->theirs += pi2_golden_logits_mean_from(&golden, compared, theirs) / PI2_TYPE_MODEL_SEEDS;
    pi2_golden_logits_count(&golden, own, &clear, &turned);
    sum->clear += clear;
    sum->turned += turned;
    if (!(pi2_golden_logits_deviation(&golden, own) >= 3.0)) fail_msg("%s: logits do not deviate by 3", name);
    free(exact);
    free(own);
    free(theirs);
    pi2_golden_logits_free(&golden);
}

static void check_other(size_t index, size_t count, const char *path) {
    char name[64];
    double least;
    pi2_golden_logits golden;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    (void)snprintf(name, sizeof name, "%s-%u", pi2_type_model_name((index + count / 2) % count), PI2_TYPE_MODEL_SEEDS);
    pi2_golden_logits_read(PI2_TESTS_FOLDER "/golden/types", name, &golden);
    const double other = pi2_golden_logits_divergence(&golden, name, &options, false, &least);
    if (!(other >= far_away)) fail_msg("%s lies as near as %g to %s", pi2_type_model_name(index), other, name);
    pi2_golden_logits_free(&golden);
}

static void test_types(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "type.gguf");
    size_t count = 0, clear = 0, turned = 0;
    while (pi2_type_model_name(count)) count++;
    for (size_t i = 0; i < count; i++) {
        const char *name = pi2_type_model_name(i);
        distances sum = { .clear = 0 };
        for (unsigned seed = 1; seed <= PI2_TYPE_MODEL_SEEDS; seed++) add_model(i, seed, path, &sum);
        print_message("%-12s divergence %.1e, from exact %.1e, llama.cpp %.1e, %zu of %zu turned\n", name, sum.apart,
                      sum.ours, sum.theirs, sum.turned, sum.clear);
        clear += sum.clear;
        turned += sum.turned;
        if (getenv("PI2_SHOW_DIVERGENCE")) continue;
        if (!(sum.apart <= most_divergence(i))) fail_msg("%s: divergence %g", name, sum.apart);
        if (!(sum.ours <= most_times * sum.theirs + rounding)) {
            fail_msg("%s: %g from exact arithmetic, llama.cpp %g", name, sum.ours, sum.theirs);
        }
        if (sum.turned > MOST_TURNED) fail_msg("%s: %zu likeliest tokens are others", name, sum.turned);
        check_other(i, count, path);
    }
    assert_true(clear > 1500 && turned <= MOST_TURNED_IN_ALL);
    free(path);
    test_folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_types) };
    return cmocka_run_group_tests_name("logits of weight types", tests, NULL, NULL);
}
