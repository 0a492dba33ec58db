/*
 * Goal:   a model in a file of PowerInfer (PWRI: Down by neuron, predictors) gives bit for bit what the same weights in
 *         an ordinary GGUF give with ReLU (Bamboo: dReLU): in memory, and from cluster files of both layouts with
 *         little memory, for types with and without blocks; a file with a part that is missing or of another shape is
 *         refused by that part's name and nothing is written; a family that does not run is described.
 * Method: tiny models with the same random weights in both forms; files with a changed name or shape of one tensor.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "powerinfer2/model_file.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { IS_SLOW = PI2_UNDER_TSAN || PI2_UNDER_EMULATOR, CONTEXT = 64, RANK = 24, LAYERS = 3 };
enum { PROMPT = IS_SLOW ? 9 : 21, DECODED = IS_SLOW ? 2 : 5, PLENTY = 400000000 };

static char *theirs, *ordinary, *cluster_path;

static pi2_tiny_model_options model_of(const char *architecture, pi2_weight_type type, pi2_weight_type down) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    pi2_tiny_model_set_types(&options, type);
    options.architecture = architecture;
    options.down_type = down;
    options.layer_count = LAYERS;
    options.feed_forward_length = 1312; /* the last cluster is smaller; clusters are no multiple of what is packed */
    options.predictor_rank = RANK;
    if (strcmp(architecture, "opt") == 0) options.head_count_kv = options.head_count;
    return options;
}

/* more_bytes 0: about the least with which it opens. */
static pi2_session_run run_file(const char *path, const char *activation, uint64_t more_bytes, uint32_t threads) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_session_run run;
    const bool is_least = more_bytes == 0;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.ffn_activation = activation;
    options.thread_count = threads;
    options.context_tokens = CONTEXT;
    options.batch_tokens = 16;
    if (is_least) more_bytes = 500000;
    while (pi2_small_budget_open(&options, more_bytes, &engine) != PI2_OK) {
        if (!is_least || more_bytes > PLENTY) fail_msg("%s", pi2_error_text());
        more_bytes += 500000;
    }
    pi2_session_run_make(engine, PROMPT, DECODED, &run);
    pi2_engine_close(engine);
    return run;
}

static void check_activation(const char *path, const char *wanted) {
    pi2_model_file *file = NULL;
    if (pi2_model_file_open(path, &file) != PI2_OK) fail_msg("%s", pi2_error_text());
    const pi2_model_summary *summary = pi2_model_file_summary(file);
    assert_string_equal(summary->not_runnable_reason, "");
    assert_string_equal(summary->ffn_activation, wanted);
    assert_int_equal(summary->predictor_matrix_count, 2 * LAYERS);
    assert_int_equal(summary->predictor_rank_least, RANK);
    assert_int_equal(summary->predictor_rank_most, RANK);
    assert_int_equal(summary->predictor_bytes, LAYERS * 2 * RANK * (256 + 1312));
    pi2_model_file_close(file);
}

/* Cluster files of both layouts, made from theirs, with the least memory that does: read back and compared. */
static void check_cluster_files(const pi2_session_run *want, const char *activation) {
    static const pi2_layout_kind layouts[] = { PI2_LAYOUT_DENSE, PI2_LAYOUT_NEURON };
    for (size_t l = 0; l < 2; l++) {
        const pi2_prepare_options prepare = { .model_path = theirs, .output_path = cluster_path, .layout = layouts[l],
                                              .memory_bytes = PI2_TEST_PREPARE_BYTES, .overwrite = true };
        if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
        check_activation(cluster_path, activation);
        pi2_model_file *file = NULL;
        assert_int_equal(pi2_model_file_open(cluster_path, &file), PI2_OK);
        const pi2_callbacks callbacks = { .user = NULL };
        if (pi2_model_file_verify(file, &callbacks) != PI2_OK) fail_msg("%s", pi2_error_text());
        pi2_model_file_close(file);
        static const uint64_t budgets[] = { 0, PLENTY };
        for (size_t b = 0; b < 2; b++) {
            pi2_session_run got = run_file(cluster_path, NULL, budgets[b], 2);
            pi2_session_run_compare(want, &got, 10 * l + b);
            pi2_session_run_free(&got);
        }
    }
}

static void every_type_gives_the_same_bits(void **state) {
    (void)state;
    static const struct { const char *architecture, *activation; pi2_weight_type type, down; } cases[] = {
        { "llama", "relu", PI2_Q4_0, PI2_Q4_0 }, { "bamboo", "drelu", PI2_F16, PI2_F16 },
        { "llama", "relu", PI2_F32, PI2_F32 },   { "bamboo", "drelu", PI2_Q4_0, PI2_BF16 },
        { "llama", "relu", PI2_Q8_0, PI2_Q8_0 }, { "bamboo", "drelu", PI2_Q4_0, PI2_Q4_K },
        { "falcon", "relu", PI2_Q4_0, PI2_Q4_0 }, { "falcon", "relu", PI2_F16, PI2_F16 },
        { "opt", "relu", PI2_Q4_0, PI2_Q4_0 },    { "opt", "relu", PI2_F16, PI2_F16 } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pi2_tiny_model_options options = model_of(cases[i].architecture, cases[i].type, cases[i].down);
        assert_int_equal(pi2_tiny_model_write_apart(&options, theirs), 0);
        const bool is_llama = strcmp(cases[i].architecture, "bamboo") == 0;
        options.architecture = is_llama ? "llama" : cases[i].architecture;
        options.predictor_rank = 0;
        options.down_by_neuron = true;
        assert_int_equal(pi2_tiny_model_write_apart(&options, ordinary), 0);
        check_activation(theirs, cases[i].activation);
        pi2_session_run want = run_file(ordinary, cases[i].activation, PLENTY, 1);
        pi2_session_run got = run_file(theirs, NULL, PLENTY, 2);
        pi2_session_run_compare(&want, &got, 100 * i);
        check_cluster_files(&want, cases[i].activation);
        if (strcmp(cases[i].architecture, "bamboo") == 0) { /* which is published as an ordinary GGUF as well */
            options.architecture = "bamboo";
            assert_int_equal(pi2_tiny_model_write_apart(&options, ordinary), 0);
            pi2_session_run dense = run_file(ordinary, NULL, PLENTY, 2);
            pi2_session_run_compare(&want, &dense, 100 * i + 50);
            pi2_session_run_free(&dense);
        }
        pi2_session_run_free(&want);
        pi2_session_run_free(&got);
    }
}

/* The user goes before the file, and hears of it. */
static char told[1024];
static void take_line(void *user, const char *line) {
    (void)user;
    if (strstr(line, "activation")) (void)snprintf(told, sizeof told, "%s", line);
}

static void an_option_goes_before_the_file(void **state) {
    (void)state;
    const pi2_tiny_model_options options = model_of("llama", PI2_Q4_0, PI2_F16);
    assert_int_equal(pi2_tiny_model_write(&options, theirs), 0);
    pi2_engine_options engine_options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&engine_options);
    engine_options.model_path = theirs;
    engine_options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    engine_options.ffn_activation = "silu";
    engine_options.callbacks.log = take_line;
    if (pi2_engine_open(&engine_options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_string_equal(pi2_engine_get_report(engine)->ffn_activation, "silu");
    pi2_engine_close(engine);
    assert_non_null(strstr(told, "says that its FFN activation is relu: silu is computed"));
}

/* ---- files that lack something ---- */

/** The place behind a tensor's name in a file: the number of its dimensions, then those. */
static unsigned char *find_tensor(unsigned char *image, size_t length, const char *name) {
    const size_t name_length = strlen(name);
    for (size_t i = 8; i + name_length < length; i++) {
        if (image[i - 8] == name_length && memcmp(image + i, name, name_length) == 0) return image + i + name_length;
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void check_refused(const char *because) {
    const pi2_prepare_options prepare = { .model_path = theirs, .output_path = cluster_path };
    pi2_model_file *file = NULL;
    (void)remove(cluster_path);
    const pi2_status status = pi2_prepare_file(&prepare, NULL);
    if (status != PI2_ERR_FORMAT && status != PI2_ERR_UNSUPPORTED) fail_msg("%d: %s", status, pi2_error_text());
    if (!strstr(pi2_error_text(), because) || strchr(pi2_error_text(), '\n')) fail_msg("%s", pi2_error_text());
    assert_int_not_equal(access(cluster_path, F_OK), 0);
    assert_int_equal(pi2_model_file_open(theirs, &file), PI2_OK);
    const pi2_model_summary *summary = pi2_model_file_summary(file);
    assert_true(summary->is_powerinfer && !summary->runnable);
    assert_non_null(strstr(summary->not_runnable_reason, because));
    pi2_model_file_close(file);
}

enum { RENAME, TURN, HALVE };

static void parts_that_lack_are_named(void **state) {
    (void)state;
    static const struct { const char *name; int change; const char *because; } cases[] = {
        { "blk.1.ffn_down_t.weight", RENAME, "tensor 'blk.1.ffn_down_t.weight' is missing" },
        { "blk.1.ffn_down_t.weight", TURN, "tensor 'blk.1.ffn_down_t.weight' is 1312 x 256" },
        { "blk.2.fc1.weight", RENAME, "tensor 'blk.2.fc1.weight' of the predictor is missing" },
        { "blk.0.fc2.weight", RENAME, "tensor 'blk.0.fc2.weight' of the predictor is missing" },
        { "blk.0.fc1.weight", TURN, "tensor 'blk.0.fc1.weight' is 24 x 256, but a predictor's first" },
        { "blk.0.fc2.weight", TURN, "tensor 'blk.0.fc2.weight' is 1312 x 24, but a predictor's second" },
        { "blk.2.fc1.weight", HALVE, "tensor 'blk.2.fc2.weight' is 24 x 1312, but its columns" },
        { "blk.1.fc2.weight", HALVE, "tensor 'blk.1.fc2.weight' is 24 x 656, but a predictor's second" },
        { "blk.1.ffn_down_t.weight", HALVE, "tensor 'blk.1.ffn_down_t.weight' is 256 x 656" } };
    const pi2_tiny_model_options options = model_of("llama", PI2_Q4_0, PI2_F16);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pi2_gguf_builder builder;
        size_t length = 0;
        pi2_tiny_model_build(&options, &builder);
        unsigned char *image = pi2_gguf_builder_image(&builder, &length);
        unsigned char *at = find_tensor(image, length, cases[i].name), kept[8];
        memcpy(kept, at + 4, 8);
        if (cases[i].change == RENAME) at[-1] = 'x';
        if (cases[i].change == TURN) {
            memcpy(at + 4, at + 12, 8);
            memcpy(at + 12, kept, 8);
        }
        if (cases[i].change == HALVE) { /* the second dimension, which is even and below 65536 */
            const unsigned rows = (unsigned)(at[12] | at[13] << 8) / 2;
            at[12] = (unsigned char)rows;
            at[13] = (unsigned char)(rows >> 8);
        }
        test_file_write(theirs, image, length);
        free(image);
        pi2_gguf_builder_free(&builder);
        check_refused(cases[i].because);
    }
}

/* A type that is not computed, a family that PowerInfer does not publish. */
static void strange_parts_are_refused(void **state) {
    (void)state;
    pi2_tiny_model_options options = model_of("qwen2", PI2_Q4_0, PI2_F16);
    assert_int_equal(pi2_tiny_model_write(&options, theirs), 0);
    check_refused("a file of PowerInfer (PWRI) with architecture 'qwen2' is not known");
    options.architecture = "llama";
    pi2_gguf_builder builder;
    size_t length = 0;
    pi2_tiny_model_build(&options, &builder);
    unsigned char *image = pi2_gguf_builder_image(&builder, &length);
    unsigned char *type = find_tensor(image, length, "blk.2.ffn_down_t.weight") + 20;
    *type = 24; /* I8, of half the bytes */
    test_file_write(theirs, image, length);
    check_refused("blk.2.ffn_down");
    *type = 1;
    image[0] = 'G', image[1] = 'G', image[2] = 'U', image[3] = 'F'; /* an ordinary file has an ordinary Down */
    test_file_write(theirs, image, length);
    pi2_model_file *file = NULL;
    assert_int_equal(pi2_model_file_open(theirs, &file), PI2_OK);
    assert_non_null(strstr(pi2_model_file_summary(file)->not_runnable_reason, "'blk.0.ffn_down.weight' is missing"));
    pi2_model_file_close(file);
    free(image);
    pi2_gguf_builder_free(&builder);
}

/* A table of positions that is missing, turned round, or has none but the rows that no position uses. */
static void positions_that_lack_are_named(void **state) {
    (void)state;
    static const char *const wanted[] = { "tensor 'position_embd.weight' is missing",
                                          "tensor 'position_embd.weight' has 514 x 256 elements, 256 x 256 were exp",
                                          "tensor 'position_embd.weight' has 2 rows, of which the first 2 are of no" };
    pi2_tiny_model_options options = model_of("opt", PI2_F16, PI2_F16);
    for (size_t i = 0; i < 3; i++) {
        pi2_gguf_builder builder;
        size_t length = 0;
        pi2_tiny_model_build(&options, &builder);
        unsigned char *image = pi2_gguf_builder_image(&builder, &length);
        unsigned char *at = find_tensor(image, length, "position_embd.weight"), kept[8];
        memcpy(kept, at + 4, 8);
        if (i == 0) at[-1] = 'x';
        if (i == 1) {
            memcpy(at + 4, at + 12, 8);
            memcpy(at + 12, kept, 8);
        }
        if (i == 2) at[12] = 2, at[13] = 0;
        test_file_write(theirs, image, length);
        check_refused(wanted[i]);
        free(image);
        pi2_gguf_builder_free(&builder);
    }
}

static void a_family_that_does_not_run_is_described(void **state) {
    (void)state;
    const pi2_tiny_model_options options = model_of("mpt", PI2_Q4_0, PI2_F16);
    assert_int_equal(pi2_tiny_model_write(&options, theirs), 0);
    check_refused("architecture 'mpt' is not supported");
    pi2_model_file *file = NULL;
    assert_int_equal(pi2_model_file_open(theirs, &file), PI2_OK);
    const pi2_model_summary *summary = pi2_model_file_summary(file);
    assert_string_equal(summary->architecture, "mpt");
    assert_int_equal(summary->layer_count, LAYERS);
    assert_int_equal(summary->predictor_matrix_count, 2 * LAYERS);
    bool has_down = false;
    for (uint32_t t = 0; t < summary->tensor_count; t++) {
        pi2_tensor_info info;
        assert_int_equal(pi2_model_file_tensor(file, t, &info), PI2_OK);
        if (strcmp(info.name, "blk.1.ffn_down_t.weight") != 0) continue;
        has_down = info.dimensions[0] == 256 && info.dimensions[1] == 1312 && strcmp(info.type, "F16") == 0;
    }
    assert_true(has_down);
    pi2_model_file_close(file);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    theirs = test_folder_path("tiny.powerinfer.gguf");
    ordinary = test_folder_path("tiny.gguf");
    cluster_path = test_folder_path("tiny.pi2");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_gives_the_same_bits), cmocka_unit_test(an_option_goes_before_the_file),
        cmocka_unit_test(parts_that_lack_are_named), cmocka_unit_test(strange_parts_are_refused),
        cmocka_unit_test(positions_that_lack_are_named),
        cmocka_unit_test(a_family_that_does_not_run_is_described) };
    return cmocka_run_group_tests(tests, set_up, test_folder_end);
}
