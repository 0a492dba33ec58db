/* Goal:   experts that a file has one by one become stacks whose matrices are found where they lie; what is missing, or
 *         not like its fellows, is named.
 * Method: small files of two layers; each case leaves one tensor out, or changes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "file_formats/gguf.h"
#include "powerinfer2/status.h"
#include "support/gguf_builder.h"
#include "support/temporary_files.h"

enum { LAYERS = 2, EXPERTS = 3, COLUMNS = 32, ROWS = 4, MATRIX_BYTES = 4 * COLUMNS * ROWS };
enum { F32 = 0, F16 = 1 }; /* types of tensors */

static const char *path;

/** One tensor that is not as it should be: left out (rows 0), or with these rows and this type. */
typedef struct odd_tensor {
    const char *name;
    uint32_t type;
    uint64_t rows;
} odd_tensor;

static void add(pi2_gguf_builder *builder, const char *name, const odd_tensor *odd) {
    uint64_t dimensions[2] = { COLUMNS, ROWS };
    uint32_t type = F32;
    float data[COLUMNS * ROWS];
    for (size_t i = 0; i < COLUMNS * ROWS; i++) data[i] = (float)name[strlen(name) - 8]; /* the expert's digit */
    if (odd && strcmp(odd->name, name) == 0) {
        dimensions[1] = odd->rows;
        type = odd->type;
        if (odd->rows == 0) return;
    }
    const size_t bytes = (size_t)(COLUMNS * dimensions[1]) * (type == F32 ? 4 : 2);
    pi2_gguf_builder_tensor(builder, name, type, 2, dimensions, data, bytes);
}

static pi2_status open_file(uint32_t told_experts, const odd_tensor *odd, pi2_gguf **gguf_out) {
    static const char *const kinds[] = { "ffn_gate", "ffn_down", "ffn_up" };
    pi2_gguf_builder builder;
    pi2_gguf_builder_init(&builder);
    pi2_gguf_builder_string(&builder, "general.architecture", "llama");
    if (told_experts) pi2_gguf_builder_u32(&builder, "llama.expert_count", told_experts);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (uint32_t e = 0; e < EXPERTS; e++) {
            for (size_t k = 0; k < 3; k++) {
                char name[64];
                (void)snprintf(name, sizeof name, "blk.%u.%s.%u.weight", layer, kinds[k], e);
                add(&builder, name, odd);
            }
        }
        char norm[64];
        (void)snprintf(norm, sizeof norm, "blk.%u.ffn_norm.0.bias.x", layer); /* a name that only looks like one */
        add(&builder, norm, NULL);
    }
    assert_int_equal(pi2_gguf_builder_write(&builder, path), 0);
    pi2_gguf_builder_free(&builder);
    const pi2_status opened = pi2_gguf_open(path, gguf_out);
    if (opened != PI2_OK) fail_msg("%s", pi2_error_text());
    return pi2_gguf_stack_experts(*gguf_out);
}

static void test_stacks(void **state) {
    (void)state;
    for (uint32_t told = 0; told <= EXPERTS; told += EXPERTS) { /* not told: as many as there are */
        pi2_gguf *gguf;
        assert_int_equal(open_file(told, NULL, &gguf), PI2_OK);
        assert_int_equal(pi2_gguf_tensor_count(gguf), LAYERS * (3 + 1));
        assert_null(pi2_gguf_tensor_find(gguf, "blk.1.ffn_up.0.weight"));
        assert_null(pi2_gguf_tensor_find(gguf, "blk.1.ffn_up.2.weight"));
        const pi2_gguf_tensor *up = pi2_gguf_tensor_find(gguf, "blk.1.ffn_up_exps.weight");
        assert_non_null(up);
        assert_int_equal(up->dimension_count, 3);
        assert_int_equal(up->dimensions[2], EXPERTS);
        assert_int_equal(up->bytes, EXPERTS * MATRIX_BYTES);
        assert_int_equal(pi2_gguf_tensor_span(up), (3 * (EXPERTS - 1) + 1) * MATRIX_BYTES);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        for (uint32_t e = 0; e < EXPERTS; e++) {
            float first = 0;
            assert_int_equal(fseek(file, (long)pi2_gguf_matrix_offset(up, e), SEEK_SET), 0);
            assert_int_equal(fread(&first, sizeof first, 1, file), 1);
            assert_int_equal((int)first, '0' + (int)e);
        }
        assert_int_equal(fclose(file), 0);
        pi2_gguf_close(gguf);
    }
}

static void test_refusals(void **state) {
    (void)state;
    const struct { odd_tensor odd; pi2_status status; const char *says; } cases[] = {
        { { "blk.1.ffn_down.1.weight", F32, 0 }, PI2_ERR_FORMAT,
          "'blk.1.ffn_down.1.weight' is missing" },
        { { "blk.0.ffn_up.2.weight", F16, ROWS }, PI2_ERR_UNSUPPORTED,
          "'blk.0.ffn_up.2.weight' is of another type" },
        { { "blk.0.ffn_gate.1.weight", F32, ROWS / 2 }, PI2_ERR_UNSUPPORTED,
          "'blk.0.ffn_gate.1.weight' has other dimensions" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pi2_gguf *gguf;
        assert_int_equal(open_file(EXPERTS, &cases[i].odd, &gguf), cases[i].status);
        if (!strstr(pi2_error_text(), cases[i].says)) fail_msg("%s", pi2_error_text());
        pi2_gguf_close(gguf);
    }
    pi2_gguf *gguf; /* more are told than there are */
    assert_int_equal(open_file(EXPERTS + 1, NULL, &gguf), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "'blk.0.ffn_gate.3.weight' is missing"));
    pi2_gguf_close(gguf);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("experts.gguf");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_stacks), cmocka_unit_test(test_refusals) };
    return cmocka_run_group_tests_name("experts one by one", tests, set_up, test_folder_end);
}
