/* model_layout.c */
#include "support/model_layout.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "architectures/decoder.h"

static void check(pi2_status status) {
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
}

void test_model_open_as(const char *path, pi2_layout_kind kind, test_model *model_out) {
    const pi2_architecture *architecture;
    pi2_model_shape shape;
    memset(model_out, 0, sizeof *model_out);
    check(pi2_gguf_open(path, &model_out->gguf));
    check(pi2_tensor_directory_open(model_out->gguf, NULL, &model_out->directory));
    check(pi2_architecture_find(model_out->gguf, &architecture));
    check(pi2_architecture_shape(architecture, &model_out->directory, &shape));
    check(pi2_decoder_list_tensors(&model_out->directory, &shape, &model_out->requests));
    check(pi2_extent_layout_build(model_out->requests.groups, model_out->requests.group_count,
                                  kind, &model_out->layout));
}

void test_model_open(const char *path, test_model *model_out) {
    test_model_open_as(path, PI2_LAYOUT_DENSE, model_out);
}

void test_model_close(test_model *model) {
    pi2_extent_layout_free(model->layout);
    pi2_model_requests_free(&model->requests);
    pi2_tensor_directory_close(&model->directory);
    pi2_gguf_close(model->gguf);
}

void **test_extents_make(const pi2_extent_layout *layout) {
    void **extents = calloc(layout->extent_count + (size_t)1, sizeof *extents);
    assert_non_null(extents);
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        assert_int_equal(posix_memalign(&extents[i], 4096, pi2_extent_read_bytes(&layout->extents[i])),
                         0);
        memset(extents[i], 0xa5, pi2_extent_read_bytes(&layout->extents[i]));
    }
    return extents;
}

void test_extents_free(void **extents, const pi2_extent_layout *layout) {
    for (uint32_t i = 0; i < layout->extent_count; i++) free(extents[i]);
    free(extents);
}

static void check_piece(const pi2_layout_tensor *tensor, const pi2_piece *piece,
                        const uint8_t *memory, const uint8_t *source) {
    const pi2_weight_format *format = tensor->format;
    const size_t source_row = pi2_row_bytes(format, tensor->columns);
    const size_t row_bytes = pi2_row_bytes(format, piece->column_count);
    const size_t blocks = piece->column_count / format->block_columns;
    uint8_t *row = malloc(row_bytes);
    assert_non_null(row);
    for (uint32_t r = 0; r < piece->row_count; r++) {
        const uint8_t *wanted = source + (piece->row_begin + r) * source_row +
                                pi2_row_bytes(format, piece->column_begin);
        if (tensor->is_raw) {
            assert_memory_equal(memory + piece->offset + r * row_bytes, wanted, row_bytes);
            continue;
        }
        const uint8_t *tile = memory + piece->offset +
                              r / PI2_TILE_ROWS * pi2_tile_bytes(format, piece->column_count);
        format->unpack_row(row, tile, r % PI2_TILE_ROWS, blocks);
        assert_memory_equal(row, wanted, row_bytes);
    }
    free(row);
}

void test_extents_check(const pi2_extent_layout *layout, void *const *extents,
                        const pi2_gguf *source) {
    for (uint32_t t = 0; t < layout->tensor_count; t++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(source, layout->tensors[t].name);
        assert_non_null(tensor);
        uint8_t *bytes = malloc(tensor->bytes);
        assert_non_null(bytes);
        const int file = open(pi2_gguf_file_path(source, tensor->file_index), O_RDONLY);
        assert_true(file >= 0);
        assert_int_equal(pread(file, bytes, tensor->bytes, (off_t)tensor->file_offset),
                         tensor->bytes);
        assert_int_equal(close(file), 0);
        for (uint32_t e = 0; e < layout->extent_count; e++) {
            for (uint32_t p = 0; p < layout->extents[e].piece_count; p++) {
                const pi2_piece *piece = &layout->pieces[layout->extents[e].first_piece + p];
                if (piece->tensor == t) check_piece(&layout->tensors[t], piece, extents[e], bytes);
            }
        }
        free(bytes);
    }
}
