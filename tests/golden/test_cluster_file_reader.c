/* Goal:   the documented format is the real one: another reader, written from the document in
 *         another language, finds every tensor and key of the model in the cluster file.
 * Method: tiny models of every weight type are prepared and handed to read_cluster_file.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clusters/prepare.h"
#include "support/model_layout.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

static void read_back(const char *folder, const pi2_tiny_model_options *options) {
    char *model_path = test_path(folder, "tiny.gguf"), *output_path = test_path(folder, "tiny.pi2");
    char command[4096];
    const pi2_prepare_settings settings = { .overwrite = true };
    test_model model;
    assert_int_equal(pi2_tiny_model_write(options, model_path), 0);
    test_model_open(model_path, &model);
    if (pi2_prepare(model.gguf, model.requests.groups, model.requests.group_count, output_path,
                    &settings) != PI2_OK) {
        fail_msg("%s", pi2_error_text());
    }
    test_model_close(&model);
    (void)snprintf(command, sizeof command, "python3 '%s/golden/read_cluster_file.py' '%s' '%s'",
                   PI2_TESTS_FOLDER, model_path, output_path);
    assert_int_equal(system(command), 0);
    free(model_path);
    free(output_path);
}

static void test_every_type(void **state) {
    (void)state;
    size_t format_count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&format_count);
    char *folder = test_folder_make_in_memory();
    for (size_t f = 0; f < format_count; f++) {
        pi2_tiny_model_options options;
        if (formats[f]->read_block) continue;
        pi2_tiny_model_options_init(&options);
        pi2_tiny_model_set_types(&options, formats[f]->type);
        options.layer_count = 1;
        options.tied_head = f % 2 != 0;
        read_back(folder, &options);
    }
    test_folder_remove(folder);
}

/* Nine of them a model: Python takes its time. */
static void test_types_by_whole_blocks(void **state) {
    (void)state;
    size_t format_count, next = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&format_count);
    char *folder = test_folder_make_in_memory();
    while (next < format_count) {
        pi2_tiny_model_options options;
        pi2_tiny_model_options_init(&options);
        pi2_weight_type *const roles[] = { &options.query_type, &options.key_type, &options.value_type,
                                           &options.attention_output_type, &options.gate_type, &options.up_type,
                                           &options.down_type, &options.embedding_type, &options.head_type };
        options.layer_count = 1;
        options.tied_head = false;
        for (size_t i = 0; i < sizeof roles / sizeof roles[0] && next < format_count; next++) {
            if (formats[next]->read_block) *roles[i++] = formats[next]->type;
        }
        read_back(folder, &options);
    }
    test_folder_remove(folder);
}

static void test_several_clusters(void **state) {
    (void)state;
    char *folder = test_folder_make_in_memory();
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 1;
    options.embedding_length = 512;
    options.feed_forward_length = 1792;
    options.gate_type = PI2_F16;
    options.up_type = PI2_F16;
    read_back(folder, &options);
    test_folder_remove(folder);
}

int main(void) {
    if (system("python3 -c '' >/dev/null 2>&1") != 0) {
        (void)puts("skipped: there is no python3");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_types_by_whole_blocks),
        cmocka_unit_test(test_several_clusters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
