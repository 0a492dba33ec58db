/*
 * Goal:   every weight type, and mixes, compute what llama.cpp does on the same file.
 * Method: tiny models of random weights, every matrix of a type but the head; llama.cpp's logits of 48 tokens, of
 *         which the last 23 are kept (tests/golden/make_family_logits.sh), with keys and values as floats in both.
 *         Types of 256 have the same integers in both engines, those of 32 another rounding of activations' scales.
 *         What llama.cpp says of another model of the list lies far away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/emulator.h"
#include "support/golden_logits.h"
#include "support/temporary_files.h"
#include "support/type_model.h"
#include "weight_formats/weight_format.h"

static const double most_quantised = 2e-3, most_float = 1e-5, far_away = 0.1;

/* llama.cpp rounds activations to halves, or to bfloats, where weights are such. */
static double most_divergence(size_t index) {
    size_t count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    return index < count && formats[index]->type == PI2_F32 ? most_float : most_quantised;
}

static void test_types(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "type.gguf");
    size_t count = 0;
    while (pi2_type_model_name(count)) count++;
    for (size_t i = 0; i < count; i++) {
        const char *name = pi2_type_model_name(i), *another = pi2_type_model_name((i + count / 2) % count);
        pi2_golden_logits golden;
        pi2_engine_options options;
        double least;
        assert_int_equal(pi2_type_model_write(i, path), 0);
        pi2_engine_options_init(&options);
        options.model_path = path;
        options.memory_bytes = PI2_TEST_PLENTY_BYTES;
        options.cache_type = PI2_CACHE_F32;
        pi2_golden_logits_read(PI2_TESTS_FOLDER "/golden/types", name, &golden);
        pi2_golden_logits_check(&golden, name, &options, most_divergence(i));
        pi2_golden_logits_free(&golden);
        pi2_golden_logits_read(PI2_TESTS_FOLDER "/golden/types", another, &golden);
        const double other = pi2_golden_logits_divergence(&golden, name, &options, false, &least);
        if (!(other >= far_away)) fail_msg("%s lies as near as %g to %s", name, other, another);
        pi2_golden_logits_free(&golden);
    }
    free(path);
    test_folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_types) };
    return cmocka_run_group_tests_name("logits of weight types", tests, NULL, NULL);
}
