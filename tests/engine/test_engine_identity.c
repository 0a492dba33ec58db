/*
 * Goal:   weights are known by a number, the same for a GGUF and its cluster file, another one for other weights with
 *         the same header and for another activation; and what makes results differ from the exact ones is named.
 * Method: tiny models that differ in their random values alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/identity.h"
#include "powerinfer2/model_file.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

typedef struct variation {
    const char *path, *activation;
    bool identifies;
    pi2_cache_type cache;
    const char *arithmetic; /* as it must be */
} variation;

static uint64_t hash_of(const variation *v, pi2_status want) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    uint64_t hash = 1;
    pi2_engine_options_init(&options);
    options.model_path = v->path;
    options.ffn_activation = v->activation;
    options.identifies_weights = v->identifies;
    options.cache_type = v->cache;
    options.context_tokens = 16;
    options.thread_count = 1;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_engine_weights_hash(engine, &hash), want);
    assert_string_equal(pi2_engine_arithmetic(engine), v->arithmetic);
    pi2_engine_close(engine);
    return hash;
}

static void write_model(const char *path, uint32_t seed) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.seed = seed;
    assert_int_equal(pi2_tiny_model_write(&options, path), 0);
}

static void test_weights_are_known(void **state) {
    (void)state;
    char *path = test_folder_path("model.gguf"), *other = test_folder_path("other.gguf");
    char *cluster = test_folder_path("apart.pi2");
    write_model(path, 1);
    write_model(other, 2);
    const pi2_prepare_options prepare = { .model_path = path, .output_path = cluster };
    char *made = NULL;
    assert_int_equal(pi2_prepare_file(&prepare, &made), PI2_OK);
    free(made);
    const variation plain = { .path = path, .identifies = true, .arithmetic = "exact" };
    variation changed = plain;
    const uint64_t hash = hash_of(&plain, PI2_OK);
    assert_true(hash_of(&plain, PI2_OK) == hash);
    changed.path = cluster;
    assert_true(hash_of(&changed, PI2_OK) == hash);
    changed = plain;
    changed.cache = PI2_CACHE_Q8_0;
    changed.arithmetic = "cache q8_0";
    assert_true(hash_of(&changed, PI2_OK) == hash);
    changed = plain;
    changed.path = other;
    assert_true(hash_of(&changed, PI2_OK) != hash);
    changed = plain;
    changed.activation = "relu";
    assert_true(hash_of(&changed, PI2_OK) != hash);
    changed = plain;
    changed.identifies = false;
    assert_true(hash_of(&changed, PI2_ERR_INVALID) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_weights_are_known, test_folder_begin_in_memory, test_folder_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
