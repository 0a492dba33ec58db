/*
 * Goal:   synthetic models are what real ones are to every reader: they open, run and say finite,
 *         varied things; equal seeds give equal bytes; impossible shapes are refused.
 * Method: small shapes of every weight type, dense and with experts.
 */
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "file_formats/gguf.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/session.h"
#include "powerinfer2/synthetic.h"
#include "support/reference_check.h"
#include "support/temporary_files.h"
#include "synthetic/random_blocks.h"

static void write_or_fail(const pi2_synthetic_options *options) {
    pi2_synthetic_report report;
    if (pi2_synthetic_write(options, &report) != PI2_OK) fail_msg("%s", pi2_error_text());
    struct stat info;
    assert_int_equal(stat(options->output_path, &info), 0);
    assert_int_equal((uint64_t)info.st_size, report.file_bytes);
}

/* ---- blocks ----------------------------------------------------------------------------- */

static void blocks_hold_the_integers_exactly(void **state) {
    (void)state;
    size_t count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        const pi2_weight_format *format = formats[f];
        const int limit = pi2_block_limit(format->type);
        pi2_random random = pi2_random_named(7, format->name);
        int8_t values[512];
        uint8_t blocks[512 * 4];
        float decoded[512];
        const bool is_whole = format->read_block != NULL; /* such a block holds zeros, and no other chosen integers */
        for (size_t i = 0; i < 512; i++) values[i] = is_whole ? 0 : pi2_random_integer(&random, limit);
        values[0] = is_whole ? 0 : (int8_t)limit;
        values[511] = is_whole ? 0 : (int8_t)-limit;
        pi2_block_encode(format, blocks, 0.25f, values, 512, NULL);
        format->decode_row(decoded, blocks, 512 / format->block_columns);
        for (size_t i = 0; i < 512; i++) {
            if (decoded[i] != 0.25f * (float)values[i]) {
                fail_msg("%s: weight %zu is %g, not %g", format->name, i, (double)decoded[i],
                         0.25 * values[i]);
            }
        }
    }
}

static void pools_have_the_deviation_asked_for(void **state) {
    (void)state;
    size_t count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        const pi2_weight_format *format = formats[f];
        pi2_block_pool pool;
        assert_int_equal(pi2_block_pool_open(&pool, format, 0.01f, false, 3), PI2_OK);
        pi2_random random = { 5 };
        const size_t blocks = 8192 / format->block_columns;
        const uint8_t *run = pi2_block_pool_run(&pool, &random, blocks * format->block_bytes);
        float *values = malloc(8192 * sizeof *values);
        double sum = 0.0, squares = 0.0;
        format->decode_row(values, run, blocks);
        for (size_t i = 0; i < 8192; i++) {
            sum += (double)values[i];
            squares += (double)values[i] * (double)values[i];
        }
        free(values);
        pi2_block_pool_close(&pool);
        /* Blocks of random bits have a mean each, and a sign each that takes it away on the whole; scales may be powers
         * of two. */
        const double most_mean = format->read_block ? 0.002 : 0.0006;
        const double most = format->read_block && !format->parts.half_count ? 0.0042 : 0.0012;
        if (fabs(sum / 8192) > most_mean || fabs(sqrt(squares / 8192) - 0.01) > most) {
            fail_msg("%s: mean %g, deviation %g", format->name, sum / 8192, sqrt(squares / 8192));
        }
    }
}

/* ---- files ------------------------------------------------------------------------------ */

static void every_type_computes_what_its_weights_say(void **state) {
    (void)state;
    static const char *const types[] = { "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16",
                                         "bf16", "f32", "q4_k", "q4_k_m", "q6_k", "q5_k",
                                         "q2_k", "iq4_xs", "iq2_xxs", "mxfp4", "nvfp4" };
    char *path = test_path(test_folder, "type.gguf");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        pi2_synthetic_options options;
        pi2_synthetic_options_init(&options);
        options.type = types[i];
        options.output_path = path;
        options.overwrite = true;
        options.pure = i % 2;
        options.shape.tokenizer = i % 3 ? "spm" : "qwen2";
        options.shape.tied_head = i == 4;
        write_or_fail(&options);
        const bool is_exact = strstr(types[i], "f16") || strcmp(types[i], "f32") == 0;
        print_message("%s: ", types[i]);
        pi2_check_file_against_reference(path, PI2_CACHE_F16, is_exact ? 0.005 : 0.08);
    }
    free(path);
}

static void equal_seeds_give_equal_bytes(void **state) {
    (void)state;
    char *paths[3] = { test_path(test_folder, "a"), test_path(test_folder, "b"), test_path(test_folder, "c") };
    uint8_t *bytes[3];
    size_t sizes[3];
    for (int i = 0; i < 3; i++) {
        pi2_synthetic_options options;
        pi2_synthetic_options_init(&options);
        options.shape.expert_count = 8;
        options.shape.expert_used_count = 2;
        options.shape.expert_repeat = 0.5;
        options.output_path = paths[i];
        options.seed = i == 2 ? 12 : 11;
        write_or_fail(&options);
        bytes[i] = test_file_read(paths[i], &sizes[i]);
    }
    assert_int_equal(sizes[0], sizes[1]);
    assert_memory_equal(bytes[0], bytes[1], sizes[0]);
    assert_int_equal(sizes[0], sizes[2]);
    assert_memory_not_equal(bytes[0], bytes[2], sizes[0]);
    for (int i = 0; i < 3; i++) {
        free(bytes[i]);
        free(paths[i]);
    }
}

static void a_file_that_is_there_stays(void **state) {
    (void)state;
    char *path = test_path(test_folder, "mine");
    test_file_write(path, "mine", 4);
    pi2_synthetic_options options;
    pi2_synthetic_options_init(&options);
    options.output_path = path;
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "--force"));
    size_t size;
    uint8_t *bytes = test_file_read(path, &size);
    assert_int_equal(size, 4);
    free(bytes);
    free(path);
}

/** A text is cut into words of the vocabulary, and comes back. */
static void vocabularies_have_words(void **state) {
    (void)state;
    static const char *const tokenizers[] = { "spm", "qwen2", "llama-bpe", "smollm" };
    char *path = test_path(test_folder, "words.gguf");
    for (size_t i = 0; i < 4; i++) {
        pi2_synthetic_options options;
        pi2_synthetic_options_init(&options);
        options.output_path = path;
        options.overwrite = true;
        options.shape.tokenizer = tokenizers[i];
        options.shape.vocabulary_size = 32000;
        options.shape.layer_count = 1;
        write_or_fail(&options);
        pi2_model_file *file = NULL;
        int32_t *tokens = NULL;
        size_t count = 0;
        assert_int_equal(pi2_model_file_open(path, &file), PI2_OK);
        assert_int_equal(pi2_model_file_summary(file)->vocabulary_size, 32000);
        static const char text[] = "bako mirena duketo";
        assert_int_equal(pi2_model_file_tokenize(file, text, strlen(text), false, false, &tokens, &count),
                         PI2_OK);
        assert_in_range(count, 3, 8);
        free(tokens);
        assert_int_equal(pi2_model_file_tokenize(file, "<|im_end|>", 10, false, true, &tokens, &count), PI2_OK);
        assert_int_equal(count, 1);
        assert_int_equal(tokens[0], 31999);
        free(tokens);
        pi2_model_file_close(file);
    }
    free(path);
}

/* ---- shapes ----------------------------------------------------------------------------- */

static void impossible_shapes_are_refused(void **state) {
    (void)state;
    pi2_synthetic_options good;
    pi2_synthetic_options_init(&good);
    char *path = test_path(test_folder, "never.gguf");
    good.output_path = path;
    const struct { const char *named; size_t offset; uint32_t value; } changes[] = {
        { "--layers", offsetof(pi2_synthetic_shape, layer_count), 0 },
        { "--layers", offsetof(pi2_synthetic_shape, layer_count), 4000000000u },
        { "--embedding", offsetof(pi2_synthetic_shape, embedding_length), 257 },
        { "--embedding", offsetof(pi2_synthetic_shape, embedding_length), 4000000000u },
        { "--ffn", offsetof(pi2_synthetic_shape, feed_forward_length), 100 },
        { "--heads", offsetof(pi2_synthetic_shape, head_count), 0 },
        { "--heads", offsetof(pi2_synthetic_shape, head_count), 7 },
        { "--kv-heads", offsetof(pi2_synthetic_shape, head_count_kv), 3 },
        { "--kv-heads", offsetof(pi2_synthetic_shape, head_count_kv), 5 },
        { "--vocab", offsetof(pi2_synthetic_shape, vocabulary_size), 100 },
        { "--context", offsetof(pi2_synthetic_shape, context_length), 0 },
        { "--experts-used", offsetof(pi2_synthetic_shape, expert_used_count), 2 },
        { "--experts-used", offsetof(pi2_synthetic_shape, expert_count), 8 },
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        pi2_synthetic_options options = good;
        memcpy((char *)&options.shape + changes[i].offset, &changes[i].value, sizeof changes[i].value);
        assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INVALID);
        if (!strstr(pi2_error_text(), changes[i].named)) fail_msg("%zu: %s", i, pi2_error_text());
        assert_null(strchr(pi2_error_text(), '\n'));
    }
    pi2_synthetic_options options = good;
    options.type = "q3_x";
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INVALID);
    options = good;
    options.shape.architecture = "gpt9";
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INVALID);
    options = good;
    options.shape.architecture = "qwen35"; /* its layers differ, and nothing says how */
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "--shape"));
    assert_int_equal(pi2_synthetic_shape_find("glm-4.7-flash", &options.shape), PI2_OK);
    options.shape.expert_feed_forward_length = 1024;
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INVALID);
    options.shape.head_dimension = 32;
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INVALID);
    options.shape.architecture = "llama";
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INVALID);
    options = good;
    options.shape.expert_count = 8;
    options.shape.expert_used_count = 4;
    options.shape.expert_repeat = 0.3; /* chance alone gives 0.5 */
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INVALID);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(pi2_synthetic_shape_find("gpt-9", &options.shape), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "mistral-7b"));
    free(path);
}

/** The tensors of the known shapes, counted by hand from the models' own files. */
static void known_shapes_have_their_size(void **state) {
    (void)state;
    static const struct { const char *name; uint64_t layer_parameters; } known[] = {
        { "mistral-7b", 218112000 },     { "llama-3-8b", 218112000 },
        { "tinyllama-1.1b", 44044288 },  { "smollm2-135m", 3540096 } };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        pi2_synthetic_shape s;
        assert_int_equal(pi2_synthetic_shape_find(known[i].name, &s), PI2_OK);
        const uint64_t width = s.embedding_length, head = s.head_dimension;
        const uint64_t count = width * head * s.head_count * 2 + width * head * s.head_count_kv * 2 +
                               3 * width * s.feed_forward_length + 2 * width;
        assert_int_equal(count, known[i].layer_parameters);
    }
    for (const char *const *name = pi2_synthetic_shape_names(); *name; name++) {
        pi2_synthetic_shape shape;
        assert_int_equal(pi2_synthetic_shape_find(*name, &shape), PI2_OK);
    }
}

static void expect_nothing_left(const char *name) {
    char hidden[64];
    (void)snprintf(hidden, sizeof hidden, ".%s.tmp", name);
    char *path = test_path(test_folder, name), *temporary = test_path(test_folder, hidden);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(temporary, F_OK), 0);
    free(temporary);
    free(path);
}

/** A disk with too little room is noticed before anything is written. */
static void too_little_room_leaves_nothing(void **state) {
    (void)state;
    pi2_synthetic_options options;
    pi2_synthetic_options_init(&options);
    char *path = test_path(test_folder, "huge.gguf");
    options.output_path = path;
    options.type = "f32";
    options.shape = (pi2_synthetic_shape){
        .name = "huge", .architecture = "llama", .tokenizer = "spm", .layer_count = 1024,
        .embedding_length = 65536, .feed_forward_length = 1 << 20, .head_count = 512,
        .head_count_kv = 512, .vocabulary_size = 1024, .context_length = 512, .rope_base = 10000.0f,
        .norm_epsilon = 1e-5f };
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "make room"));
    expect_nothing_left("huge.gguf");
    free(path);
}

/** A write that fails in the middle, as on a disk that another program fills. */
static void a_failed_write_leaves_nothing(void **state) {
    (void)state;
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){ .rlim_cur = 12 * 1024 * 1024, .rlim_max = old.rlim_max };
    pi2_synthetic_options options;
    pi2_synthetic_options_init(&options);
    char *path = test_path(test_folder, "cut.gguf");
    options.output_path = path;
    options.type = "f32";
    options.shape.vocabulary_size = 32000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const pi2_status status = pi2_synthetic_write(&options, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(status, PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "cut.gguf"));
    expect_nothing_left("cut.gguf");
    free(path);
}

static bool always(void *user) {
    *(bool *)user = true;
    return true;
}

static void an_interruption_leaves_nothing(void **state) {
    (void)state;
    bool was_asked = false;
    pi2_synthetic_options options;
    pi2_synthetic_options_init(&options);
    char *path = test_path(test_folder, "stopped.gguf");
    options.output_path = path;
    options.type = "f32";
    options.shape.vocabulary_size = 32000;
    options.callbacks = (pi2_callbacks){ .user = &was_asked, .cancelled = always };
    assert_int_equal(pi2_synthetic_write(&options, NULL), PI2_ERR_INTERRUPTED);
    assert_true(was_asked);
    expect_nothing_left("stopped.gguf");
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_hold_the_integers_exactly),
        cmocka_unit_test(pools_have_the_deviation_asked_for),
        cmocka_unit_test(every_type_computes_what_its_weights_say),
        cmocka_unit_test(equal_seeds_give_equal_bytes),
        cmocka_unit_test(a_file_that_is_there_stays),
        cmocka_unit_test(vocabularies_have_words),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(known_shapes_have_their_size),
        cmocka_unit_test(too_little_room_leaves_nothing),
        cmocka_unit_test(a_failed_write_leaves_nothing),
        cmocka_unit_test(an_interruption_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
