/* Goal:   extents built from a GGUF hold every source block bit for bit, whatever the weight type,
 *         the scratch memory and the number of extents built at once; read errors are named.
 * Method: tiny models of every type; every piece is unpacked and compared with the file. Extents
 *         built one by one must equal those built together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "architectures/model.h"
#include "clusters/extent_build.h"
#include "support/model_layout.h"
#include "support/random_weights.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

static char *path;

static int make_folder(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("tiny.gguf");
    return 0;
}

static void build_all(const test_model *model, size_t scratch_bytes, void **extents) {
    pi2_extent_builder *builder;
    assert_int_equal(pi2_extent_builder_open(model->gguf, model->layout, scratch_bytes, &builder),
                     PI2_OK);
    for (uint32_t g = 0; g < model->layout->group_count; g++) {
        if (pi2_extent_builder_group(builder, g, extents + model->layout->groups[g].first_extent)) {
            fail_msg("%s", pi2_error_text());
        }
    }
    pi2_extent_builder_close(builder);
}

static void test_every_type(void **state) {
    (void)state;
    size_t format_count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&format_count);
    for (size_t f = 0; f < format_count; f++) {
        pi2_tiny_model_options options;
        pi2_tiny_model_options_init(&options);
        pi2_tiny_model_set_types(&options, formats[f]->type);
        options.feed_forward_length = 768;
        options.tied_head = f % 2 == 0;
        options.vocabulary_size = 331; /* no multiple of 16 */
        assert_int_equal(pi2_tiny_model_write(&options, path), 0);
        test_model model;
        test_model_open(path, &model);
        void **extents = test_extents_make(model.layout);
        build_all(&model, f % 3 ? 4096 : 1 << 20, extents);
        test_extents_check(model.layout, extents, model.gguf);
        test_extents_free(extents, model.layout);
        test_model_close(&model);
    }
}

/* A Down that its file stores by neuron gives the extents of an ordinary one with the same values, whatever the scratch
 * memory: every type, a piece that is cut by rows, and one whose columns are packed in several steps. */
static void test_down_by_column(void **state) {
    (void)state;
    char *twin_path = test_path(test_folder, "twin.gguf");
    size_t format_count;
    const pi2_weight_format *const *formats = test_formats_of_columns(&format_count);
    for (size_t f = 0; f < 2 * format_count; f++) {
        pi2_tiny_model_options options;
        pi2_tiny_model_options_init(&options);
        options.down_type = formats[f / 2]->type;
        options.layer_count = 1;
        options.embedding_length = f % 2 ? 8448 : 256; /* 32 columns of F32 are more than an extent holds */
        options.head_count = options.head_count_kv = 1;
        options.head_dimension = 32;
        options.feed_forward_length = f % 2 ? 80 : 784;
        options.predictor_rank = 8;
        assert_int_equal(pi2_tiny_model_write(&options, path), 0);
        options.predictor_rank = 0;
        options.down_by_neuron = true;
        assert_int_equal(pi2_tiny_model_write(&options, twin_path), 0);
        test_model model, twin;
        test_model_open(path, &model);
        test_model_open(twin_path, &twin);
        if (f % 2 && (options.down_type == PI2_F32 || options.down_type == PI2_Q4_0)) {
            assert_true(model.layout->groups[1].extent_count > 3);
        }
        assert_int_equal(model.layout->extent_count, twin.layout->extent_count);
        void **extents = test_extents_make(model.layout), **wanted = test_extents_make(twin.layout);
        build_all(&model, f % 4 < 2 ? 1 : 1 << 20, extents);
        build_all(&twin, 1 << 20, wanted);
        for (uint32_t e = 0; e < twin.layout->extent_count; e++) {
            assert_int_equal(model.layout->extents[e].bytes, twin.layout->extents[e].bytes);
            assert_memory_equal(extents[e], wanted[e], twin.layout->extents[e].bytes);
        }
        test_extents_free(extents, model.layout);
        test_extents_free(wanted, twin.layout);
        test_model_close(&model);
        test_model_close(&twin);
    }
    free(twin_path);
}

/** A model whose FFN has several clusters. */
static void open_larger_model(test_model *model) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 1;
    options.embedding_length = 512;
    options.feed_forward_length = 1792;
    options.down_type = PI2_Q6_K;
    options.gate_type = PI2_Q8_0;
    options.up_type = PI2_F16;
    assert_int_equal(pi2_tiny_model_write(&options, path), 0);
    test_model_open(path, model);
}

static void test_one_by_one_equals_together(void **state) {
    (void)state;
    test_model model;
    open_larger_model(&model);
    const pi2_extent_layout *layout = model.layout;
    void **together = test_extents_make(layout), **single = test_extents_make(layout);
    void **pointers = calloc(layout->extent_count, sizeof *pointers);
    assert_non_null(pointers);
    build_all(&model, 64 * 1024, together);
    test_extents_check(layout, together, model.gguf);
    pi2_extent_builder *builder;
    assert_int_equal(pi2_extent_builder_open(model.gguf, layout, 1, &builder), PI2_OK);
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        const uint32_t g = layout->extents[e].group;
        pointers[e] = single[e];
        assert_int_equal(pi2_extent_builder_group(builder, g,
                                                  pointers + layout->groups[g].first_extent),
                         PI2_OK);
        pointers[e] = NULL;
        assert_memory_equal(single[e], together[e], layout->extents[e].bytes);
    }
    assert_true(layout->groups[layout->group_count - 2].extent_count > 2);
    pi2_extent_builder_close(builder);
    free(pointers);
    test_extents_free(together, layout);
    test_extents_free(single, layout);
    test_model_close(&model);
}

static void test_errors_are_named(void **state) {
    (void)state;
    test_model model, other;
    open_larger_model(&model);
    void **extents = test_extents_make(model.layout);
    pi2_extent_builder *builder;
    /* The file becomes shorter between opening and reading. */
    assert_int_equal(pi2_extent_builder_open(model.gguf, model.layout, 1 << 20, &builder), PI2_OK);
    assert_int_equal(truncate(path, (off_t)pi2_gguf_file_data_offset(model.gguf, 0) + 100), 0);
    const uint32_t last = model.layout->group_count - 1;
    assert_int_equal(pi2_extent_builder_group(
                         builder, last, extents + model.layout->groups[last].first_extent),
                     PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "tiny.gguf"));
    assert_non_null(strstr(pi2_error_text(), "become shorter"));
    assert_int_equal(pi2_extent_builder_group(builder, last + 1, extents), PI2_ERR_INVALID);
    pi2_model *tables = NULL;
    assert_int_equal(pi2_model_create(model.gguf, &tables), PI2_ERR_IO);
    assert_null(tables);
    assert_non_null(strstr(pi2_error_text(), "tensor 'blk.0."));
    assert_non_null(strstr(pi2_error_text(), "tiny.gguf: the file ends at byte "));
    pi2_extent_builder_close(builder);
    test_extents_free(extents, model.layout);
    /* The layout of another model. */
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    assert_int_equal(pi2_tiny_model_write(&options, path), 0);
    test_model_open(path, &other);
    assert_int_equal(pi2_extent_builder_open(other.gguf, model.layout, 1, &builder), PI2_ERR_FORMAT);
    test_model_close(&other);
    test_model_close(&model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_down_by_column),
        cmocka_unit_test(test_one_by_one_equals_together),
        cmocka_unit_test(test_errors_are_named),
    };
    return cmocka_run_group_tests(tests, make_folder, test_folder_end);
}
