/* Goal:   the stages that blocks say they need, from which the planner tells how often threads meet and a pass its list
 *         of stages, are those that passes have, in every family.
 * Method: the tiny model of each family, in memory: the stages that a pass of one token opened, counted in its list,
 *         beside those of its layers' blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include <cmocka.h>

#include "architectures/block.h"
#include "engine/engine_internal.h"
#include "pipeline/forward_internal.h"
#include "support/emulator.h"
#include "support/family_model.h"
#include "support/session_run.h"
#include "support/temporary_files.h"

static uint32_t told(const pi2_forward *forward) {
    const pi2_model_shape *shape = &forward->model->shape;
    uint32_t stages = pi2_stages_beside_layers(shape);
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        for (uint32_t b = 0; b < shape->layers[i].block_count; b++) {
            stages += pi2_block_needs_of(shape, i, b, &forward->options.shape).stages;
        }
    }
    return stages;
}

static uint32_t opened(const pi2_forward *forward) {
    uint32_t stages = 0;
    for (uint32_t i = 0; i < forward->stages.capacity; i++) {
        stages += atomic_load(&forward->stages.stages[i].open_next) != 0;
    }
    return stages;
}

static bool agrees(const char *family, const char *path) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_session_run run;
    assert_int_equal(pi2_family_model_write(family, PI2_F32, 1, path), 0);
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.thread_count = 1;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s: %s", family, pi2_error_text());
    pi2_session_run_make(engine, 4, 2, &run); /* the last pass is of one token */
    const uint32_t want = told(engine->forward), got = opened(engine->forward);
    if (want != got) print_error("%s: its blocks say %u stages, a pass has %u\n", family, want, got);
    pi2_session_run_free(&run);
    pi2_engine_close(engine);
    return want == got;
}

static void test_families(void **state) {
    (void)state;
    bool all_agree = true;
    char *folder = test_folder_make(), *path = test_path(folder, "family.gguf");
    for (size_t i = 0; pi2_family_name(i); i++) all_agree &= agrees(pi2_family_name(i), path);
    free(path);
    test_folder_remove(folder);
    assert_true(all_agree);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_families) };
    return cmocka_run_group_tests_name("counts of stages", tests, NULL, NULL);
}
