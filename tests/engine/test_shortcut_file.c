/*
 * Goal:   a shortcut's file that is another model's, cut, of wrong shapes, or has numbers that are none, is refused
 *         with one line that names the file and what is wrong; so is one for a model that cannot leave layers out.
 *         What is read of it is what it says, to the 8 bits that a number keeps. Where the budget has no room for the
 *         layers that it computes, a line says so and the run goes on.
 * Method: files that are made with one thing wrong each, for a tiny model and for models of other families.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/engine_internal.h"
#include "engine/run_draft.h"
#include "engine/shortcut_file.h"
#include "support/emulator.h"
#include "support/family_model.h"
#include "support/shortcut_maker.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum { LAYERS = 6, WIDTH = 256, TYPE_I32 = 26, STEP = 500000, MANY_STEPS = 60 };

static char *model_path, *file_path;
static char logged[4096];

static void keep_line(void *user, const char *line) {
    (void)user;
    const size_t used = strlen(logged);
    (void)snprintf(logged + used, sizeof logged - used, "%s\n", line);
}

static pi2_engine_options options_of(const char *model) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model;
    options.context_tokens = 64;
    options.thread_count = 1;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.draft_tokens = 4;
    options.draft_model_path = file_path;
    options.draft_always = true;
    options.callbacks.log = keep_line;
    logged[0] = '\0';
    return options;
}

static pi2_shortcut_maker maker_of(void) {
    pi2_shortcut_maker maker;
    pi2_shortcut_maker_init(&maker);
    maker.layer_count = LAYERS;
    maker.width = WIDTH;
    maker.deviation = 0.5f;
    return maker;
}

static void write_file(const pi2_shortcut_maker *maker) {
    assert_int_equal(pi2_shortcut_maker_write(maker, file_path), 0);
}

static void expect_refusal(const char *model, pi2_status wanted, const char *words) {
    const pi2_engine_options options = options_of(model);
    pi2_engine *engine = NULL;
    const pi2_status status = pi2_engine_open(&options, &engine);
    if (status != wanted) fail_msg("status %d for '%s': %s", (int)status, words, status ? pi2_error_text() : "");
    assert_null(engine);
    if (!strstr(pi2_error_text(), words)) fail_msg("'%s' lacks '%s'", pi2_error_text(), words);
    if (!strstr(pi2_error_text(), file_path)) fail_msg("'%s' names no file", pi2_error_text());
    assert_null(strchr(pi2_error_text(), '\n'));
}

/* ---- what is refused ---- */

static void test_wrong_keys(void **state) {
    (void)state;
    const struct {
        uint32_t layer_count, width, first, end;
        const char *without;
        pi2_status status;
        const char *words;
    } wrong[] = {
        { LAYERS + 1, WIDTH, 1, 5, NULL, PI2_ERR_INVALID, "its shortcut.block_count is 7, the model's is 6" },
        { LAYERS, WIDTH / 2, 1, 5, NULL, PI2_ERR_INVALID, "its shortcut.embedding_length is 128, the model's is 256" },
        { LAYERS, WIDTH, 3, 3, NULL, PI2_ERR_FORMAT, "it leaves out layers 3 to 3" },
        { LAYERS, WIDTH, 4, 2, NULL, PI2_ERR_FORMAT, "it leaves out layers 4 to 2" },
        { LAYERS, WIDTH, 1, 7, NULL, PI2_ERR_FORMAT, "it leaves out layers 1 to 7, and the model has 6" },
        { LAYERS, WIDTH, 0, 6, NULL, PI2_ERR_FORMAT, "it leaves out layers 0 to 6" },
        { LAYERS, WIDTH, UINT32_MAX, 2, NULL, PI2_ERR_FORMAT, "it leaves out layers 4294967295 to 2" },
        { LAYERS, WIDTH, 1, 5, "shortcut.block_count", PI2_ERR_FORMAT, "shortcut.block_count" },
        { LAYERS, WIDTH, 1, 5, "shortcut.embedding_length", PI2_ERR_FORMAT, "shortcut.embedding_length" },
        { LAYERS, WIDTH, 1, 5, "shortcut.first_layer", PI2_ERR_FORMAT, "shortcut.first_layer" },
        { LAYERS, WIDTH, 1, 5, "shortcut.end_layer", PI2_ERR_FORMAT, "shortcut.end_layer" },
        { LAYERS, WIDTH, 1, 5, "shortcut.weight", PI2_ERR_FORMAT, "tensor 'shortcut.weight' is missing" },
        { LAYERS, WIDTH, 1, 5, "shortcut.bias", PI2_ERR_FORMAT, "tensor 'shortcut.bias' is missing" },
        { LAYERS, WIDTH, 1, 5, "shortcut.scale", PI2_ERR_FORMAT, "tensor 'shortcut.scale' is missing" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        pi2_shortcut_maker maker = maker_of();
        maker.layer_count = wrong[i].layer_count;
        maker.width = wrong[i].width;
        maker.first = wrong[i].first;
        maker.end = wrong[i].end;
        maker.without = wrong[i].without;
        write_file(&maker);
        expect_refusal(model_path, wrong[i].status, wrong[i].words);
    }
}

static void test_wrong_tensors(void **state) {
    (void)state;
    const struct {
        uint32_t rows, length, type;
        const char *altered;
        float number;
        pi2_status status;
        const char *words;
    } wrong[] = {
        { WIDTH - 1, 0, PI2_Q8_0, NULL, 0, PI2_ERR_FORMAT, "256 x 255 weights where 256 x 256 are wanted" },
        { 0, WIDTH + 32, PI2_Q8_0, NULL, 0, PI2_ERR_FORMAT, "288 x 1 weights where 256 x 1 are wanted" },
        { 0, 0, TYPE_I32, NULL, 0, PI2_ERR_UNSUPPORTED, "its type cannot be read" },
        { 0, 0, PI2_F32, "shortcut.weight", NAN, PI2_ERR_FORMAT, "'shortcut.weight': row 0 has a number that is none" },
        { 0, 0, PI2_F32, "shortcut.weight", INFINITY, PI2_ERR_FORMAT, "row 0 has a number that is none" },
        { 0, 0, PI2_F32, "shortcut.weight", 3e38f, PI2_ERR_FORMAT, "'shortcut.weight': row 0 is too large" },
        { 0, 0, PI2_Q8_0, "shortcut.bias", NAN, PI2_ERR_FORMAT, "'shortcut.bias': row 0 has a number that is none" },
        { 0, 0, PI2_Q8_0, "shortcut.scale", NAN, PI2_ERR_FORMAT, "'shortcut.scale': row 0 has a number that is none" },
        { 0, 0, PI2_Q8_0, "shortcut.scale", 0, PI2_ERR_FORMAT, "'shortcut.scale': number 3 is not above 0" },
        { 0, 0, PI2_Q8_0, "shortcut.scale", -1, PI2_ERR_FORMAT, "number 3 is not above 0" },
        { 0, 0, PI2_Q8_0, "shortcut.scale", 1e-45f, PI2_ERR_FORMAT, "number 3 is not above 0, or too small" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        pi2_shortcut_maker maker = maker_of();
        maker.rows = wrong[i].rows;
        maker.length = wrong[i].length;
        maker.type = (pi2_weight_type)wrong[i].type;
        maker.scale = 2;
        maker.altered = wrong[i].altered;
        maker.number = wrong[i].number;
        write_file(&maker);
        expect_refusal(model_path, wrong[i].status, wrong[i].words);
    }
}

/* A file that ends early, wherever it does; and one that becomes shorter behind its header's check. */
static void test_cut(void **state) {
    (void)state;
    const pi2_shortcut_maker maker = maker_of();
    pi2_gguf *gguf = NULL;
    pi2_shortcut *shortcut = NULL;
    size_t bytes = 0;
    write_file(&maker);
    uint8_t *whole = test_file_read(file_path, &bytes);
    for (size_t left = 1; left < 32; left++) {
        const pi2_engine_options options = options_of(model_path);
        pi2_engine *engine = NULL;
        test_file_write(file_path, whole, bytes * left / 32);
        assert_int_not_equal(pi2_engine_open(&options, &engine), PI2_OK);
        assert_null(strchr(pi2_error_text(), '\n'));
        if (!strstr(pi2_error_text(), file_path)) fail_msg("'%s' names no file", pi2_error_text());
    }
    test_file_write(file_path, whole, bytes);
    assert_int_equal(pi2_gguf_open(file_path, &gguf), PI2_OK);
    assert_int_equal(truncate(file_path, (off_t)(bytes / 2)), 0);
    assert_int_equal(pi2_shortcut_load(gguf, &shortcut), PI2_ERR_IO);
    assert_null(shortcut);
    assert_non_null(strstr(pi2_error_text(), "it has become shorter"));
    pi2_gguf_close(gguf);
    free(whole);
}

/* Models that cannot leave layers out. */
static void test_other_kinds(void **state) {
    (void)state;
    static const struct { const char *family, *words; } kinds[] = {
        { "qwen2moe", "which has experts" }, { "qwen35", "which keeps states that cannot be taken back" },
        { "gemma2", "which has layers with a window" }, { "gemma3n", "which has several residual streams" } };
    char *path = test_folder_path("family.gguf"), *prepared = test_folder_path("family.pi2");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        (void)remove(prepared);
        assert_int_equal(pi2_family_model_write_apart(kinds[i].family, PI2_Q8_0, 1, path), 0);
        pi2_engine_options options = options_of(path);
        options.draft_tokens = 0;
        pi2_engine *engine = NULL;
        if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
        pi2_shortcut_maker maker = maker_of();
        maker.layer_count = engine->run.source.model->shape.layer_count;
        maker.width = engine->run.source.model->shape.embedding_length;
        maker.first = 0;
        maker.end = 1;
        pi2_engine_close(engine);
        write_file(&maker);
        expect_refusal(path, PI2_ERR_UNSUPPORTED, kinds[i].words);
    }
}

/* ---- what is read ---- */

/* A row's numbers, by the scale that they are kept with. */
static void check_row(const pi2_shortcut *shortcut, const float *wanted, const float *scales, uint32_t row) {
    float largest = 0;
    for (uint32_t i = 0; i < WIDTH; i++) {
        const float size = fabsf(wanted[i] * scales[i]);
        if (size > largest) largest = size;
    }
    for (uint32_t i = 0; i < WIDTH; i++) {
        const float kept = (float)shortcut->rows[row * WIDTH + i] * shortcut->row_scales[row];
        assert_true(fabsf(kept - wanted[i] * scales[i]) <= largest / 253);
    }
}

static const float *tensor_of(const uint8_t *whole, const pi2_gguf *gguf, const char *name) {
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(gguf, name);
    return (const float *)(const void *)(whole + tensor->file_offset);
}

static void test_what_is_read(void **state) {
    (void)state;
    pi2_shortcut_maker maker = maker_of();
    pi2_gguf *gguf = NULL;
    pi2_shortcut *shortcut = NULL;
    size_t bytes = 0;
    maker.type = PI2_F32;
    maker.scale = 3;
    write_file(&maker);
    uint8_t *whole = test_file_read(file_path, &bytes);
    assert_int_equal(pi2_gguf_open(file_path, &gguf), PI2_OK);
    assert_true(pi2_shortcut_file_is(gguf));
    if (pi2_shortcut_load(gguf, &shortcut) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(shortcut->first, maker.first);
    assert_int_equal(shortcut->end, maker.end);
    assert_int_equal(shortcut->width, WIDTH);
    const float *scales = tensor_of(whole, gguf, "shortcut.scale");
    assert_memory_equal(shortcut->biases, tensor_of(whole, gguf, "shortcut.bias"), WIDTH * sizeof(float));
    for (uint32_t i = 0; i < WIDTH; i++) assert_float_equal(shortcut->input_scales[i] * scales[i], 1, 1e-6);
    for (uint32_t row = 0; row < WIDTH; row++) {
        check_row(shortcut, tensor_of(whole, gguf, "shortcut.weight") + row * WIDTH, scales, row);
    }
    pi2_shortcut_free(shortcut);
    pi2_gguf_close(gguf);
    free(whole);
}

/* ---- where there is no room ---- */

/* With ever more memory: it does not open, then without the map, then with it; each time a line says which. */
static void test_no_room(void **state) {
    (void)state;
    char *streamed = test_folder_path("streamed.gguf");
    pi2_tiny_model_options model;
    pi2_streamed_model_options_init(&model);
    model.layer_count = LAYERS;
    assert_int_equal(pi2_tiny_model_write_apart(&model, streamed), 0);
    pi2_shortcut_maker maker = maker_of();
    maker.width = model.embedding_length;
    write_file(&maker);
    const pi2_engine_options options = options_of(streamed);
    uint32_t without = 0, with = 0;
    for (uint64_t more = 4; more < MANY_STEPS && with == 0; more++) {
        pi2_engine *engine = NULL;
        logged[0] = '\0';
        if (pi2_small_budget_open(&options, more * STEP, &engine) != PI2_OK) continue;
        const pi2_memory_plan *plan = &engine->run.plan.memory;
        if (pi2_engine_get_report(engine)->draft_model) {
            with++;
            assert_true(engine->run.plan.resident_room_bytes <= plan->resident_room);
            assert_true(engine->run.draft->kept_bytes + plan->loan_bytes <= plan->resident_room);
        } else {
            without++;
            assert_null(engine->shortcut);
            assert_null(engine->run.plan.kept);
            if (!strstr(logged, "left out: the layers that it computes take") &&
                !strstr(logged, "left out: it would take")) fail_msg("nothing is said: %s", logged);
        }
        pi2_engine_close(engine);
    }
    assert_true(without > 0 && with > 0);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("model.gguf");
    file_path = test_folder_path("map.gguf");
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = LAYERS;
    return pi2_tiny_model_write_apart(&options, model_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_keys), cmocka_unit_test(test_wrong_tensors), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_other_kinds), cmocka_unit_test(test_what_is_read), cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests_name("shortcut file", tests, set_up, test_folder_end);
}
