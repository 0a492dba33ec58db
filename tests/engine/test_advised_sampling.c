/* Goal:   what a file advises about sampling is read whatever its numbers' types, and nothing that no sampler takes.
 * Method: metadata of one key each, against what becomes of pi2_sampling_init(). */
#include "engine/advised_sampling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/status.h"
#include "support/gguf_builder.h"
#include "support/temporary_files.h"

enum { U8 = 0, I8 = 1, I32 = 5, F32 = 6, STRING = 8, I64 = 11, F64 = 12 };

static void add_number(pi2_gguf_builder *builder, const char *key, uint32_t type, double value) {
    const int64_t whole = type == F32 || type == F64 ? 0 : (int64_t)value;
    const float single = (float)value;
    pi2_test_bytes *out = &builder->entries;
    pi2_test_bytes_add_u64(out, strlen(key));
    pi2_test_bytes_add(out, key, strlen(key));
    pi2_test_bytes_add_u32(out, type);
    if (type == F64) pi2_test_bytes_add(out, &value, 8);
    else if (type == F32) pi2_test_bytes_add(out, &single, 4);
    else pi2_test_bytes_add(out, &whole, type == I64 ? 8 : type == I32 ? 4 : 1);
    builder->entry_count++;
}

static pi2_status read_into(const char *key, uint32_t type, double value, pi2_sampling *sampling) {
    pi2_gguf_builder builder;
    pi2_gguf *gguf;
    pi2_advised_sampling advised;
    char *path = test_path(test_folder, "advice.gguf");
    pi2_gguf_builder_init(&builder);
    pi2_gguf_builder_string(&builder, "general.architecture", "llama");
    if (type == STRING) pi2_gguf_builder_string(&builder, key, "0.5");
    else add_number(&builder, key, type, value);
    assert_int_equal(pi2_gguf_builder_write(&builder, path), 0);
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    const pi2_status status = pi2_advised_sampling_read(gguf, &advised);
    if (status == PI2_OK) pi2_advised_sampling_apply(&advised, sampling);
    pi2_gguf_close(gguf);
    pi2_gguf_builder_free(&builder);
    free(path);
    return status;
}

static pi2_status read_one(const char *key, uint32_t type, double value, pi2_sampling *sampling) {
    pi2_sampling_init(sampling);
    return read_into(key, type, value, sampling);
}

/* Every key changes its own field, in every type of number, and no other one. */
static void test_each_key(void **state) {
    (void)state;
    static const struct { const char *key; double value; size_t offset; bool is_whole; } keys[] = {
        {"general.sampling.temp", 0.25, offsetof(pi2_sampling, temperature), false},
        {"general.sampling.top_k", 20, offsetof(pi2_sampling, top_k), true},
        {"general.sampling.top_p", 0.75, offsetof(pi2_sampling, top_p), false},
        {"general.sampling.min_p", 0.125, offsetof(pi2_sampling, min_p), false},
        {"general.sampling.xtc_probability", 0.5, offsetof(pi2_sampling, xtc_probability), false},
        {"general.sampling.xtc_threshold", 0.25, offsetof(pi2_sampling, xtc_threshold), false},
        {"general.sampling.penalty_repeat", 1.5, offsetof(pi2_sampling, repeat_penalty), false},
        {"general.sampling.penalty_last_n", 7, offsetof(pi2_sampling, repeat_last_n), true},
    };
    const size_t count = sizeof keys / sizeof keys[0];
    for (size_t i = 0; i < count; i++) {
        const uint32_t types[] = {F32, F64, I32, I64, I8, U8};
        for (size_t k = 0; k < (keys[i].is_whole ? 6 : 2); k++) {
            pi2_sampling sampling, wanted;
            pi2_sampling_init(&wanted);
            char *field = (char *)&wanted + keys[i].offset;
            const float single = (float)keys[i].value;
            const int32_t whole = (int32_t)keys[i].value;
            memcpy(field, keys[i].is_whole ? (const void *)&whole : &single, 4);
            if (read_one(keys[i].key, types[k], keys[i].value, &sampling) != PI2_OK) fail_msg("%s", pi2_error_text());
            for (size_t j = 0; j < count; j++) {
                if (memcmp((char *)&sampling + keys[j].offset, (char *)&wanted + keys[j].offset, 4) != 0)
                    fail_msg("%s, type %u: what %s gives", keys[i].key, types[k], keys[j].key);
            }
        }
    }
}

/* What the file leaves out stays as it is, whatever that is. */
static void test_rest_stays(void **state) {
    (void)state;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 3.0f;
    sampling.repeat_last_n = 5;
    assert_int_equal(read_into("general.sampling.top_k", I32, 9, &sampling), PI2_OK);
    assert_int_equal(sampling.top_k, 9);
    assert_true(sampling.temperature == 3.0f);
    assert_int_equal(sampling.repeat_last_n, 5);
}

static void test_edges(void **state) {
    (void)state;
    pi2_sampling sampling;
    assert_int_equal(read_one("general.sampling.top_k", I32, -1, &sampling), PI2_OK);
    assert_int_equal(sampling.top_k, 0); /* all tokens */
    assert_int_equal(read_one("general.sampling.penalty_last_n", I8, -1, &sampling), PI2_OK);
    assert_int_equal(sampling.repeat_last_n, -1);
    assert_int_equal(read_one("general.sampling.temp", I32, 0, &sampling), PI2_OK);
    assert_true(sampling.temperature == 0.0f);
    assert_int_equal(read_one("general.sampling.sequence", STRING, 0, &sampling), PI2_OK); /* the order is ours */
}

static void test_wrong_values(void **state) {
    (void)state;
    static const struct { const char *key; uint32_t type; double value; const char *what; } wrong[] = {
        {"general.sampling.temp", F32, NAN, "which no sampler takes"},
        {"general.sampling.temp", F32, INFINITY, "which no sampler takes"},
        {"general.sampling.temp", STRING, 0, "should be a number"},
        {"general.sampling.top_p", F32, 1.5, "'general.sampling.top_p' is 1.5, which"},
        {"general.sampling.min_p", F32, -0.1, "which no sampler takes"},
        {"general.sampling.xtc_threshold", F32, -1, "which no sampler takes"},
        {"general.sampling.penalty_repeat", F32, 0, "which no sampler takes"},
        {"general.sampling.penalty_last_n", I32, -2, "which no sampler takes"},
        {"general.sampling.penalty_last_n", I64, 1e12, "which no sampler takes"},
        {"general.sampling.top_k", F32, 20.5, "which no sampler takes"},
        {"general.sampling.top_k", F64, 1e300, "which no sampler takes"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        pi2_sampling sampling;
        const pi2_status status = read_one(wrong[i].key, wrong[i].type, wrong[i].value, &sampling);
        if (status != PI2_ERR_FORMAT || !strstr(pi2_error_text(), wrong[i].what))
            fail_msg("%s, %g: %s", wrong[i].key, wrong[i].value, status == PI2_OK ? "taken" : pi2_error_text());
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_key),
        cmocka_unit_test(test_rest_stays),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_wrong_values),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
