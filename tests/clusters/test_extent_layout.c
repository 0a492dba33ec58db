/* Goal:   a layout covers every element of every tensor exactly once, in pieces that kernels can
 *         take, in extents of the promised sizes; and the check finds each kind of damage.
 * Method: requests from made-up tensors over all weight types and awkward shapes; coverage is
 *         counted element by element, not by the check's own rule. Then one field at a time of a
 *         good layout is changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clusters/extent_layout.h"

static pi2_gguf_tensor tensor_of(const char *name, uint32_t type, uint64_t columns, uint64_t rows,
                                 uint64_t matrices) {
    return (pi2_gguf_tensor){ .name = name,
                              .type = type,
                              .dimension_count = matrices > 1 ? 3 : 2,
                              .dimensions = { columns, rows, matrices, 1 } };
}

static pi2_group_request request_of(pi2_group_kind kind, const pi2_gguf_tensor *tensors,
                                    uint32_t count) {
    pi2_group_request request = { .kind = kind,
                                  .layer = 0,
                                  .expert = UINT32_MAX,
                                  .expert_count = 1,
                                  .tensor_count = count };
    for (uint32_t i = 0; i < count; i++) request.tensors[i] = &tensors[i];
    return request;
}

static pi2_extent_layout *build_as(pi2_layout_kind kind, const pi2_group_request *requests, size_t count) {
    pi2_extent_layout *layout;
    const pi2_status status = pi2_extent_layout_build(requests, count, kind, &layout);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    if (pi2_extent_layout_check(layout, "test") != PI2_OK) fail_msg("%s", pi2_error_text());
    return layout;
}

static pi2_extent_layout *build(const pi2_group_request *requests, size_t count) {
    return build_as(PI2_LAYOUT_DENSE, requests, count);
}

/** Counts every element of every tensor over all pieces. */
static void check_cover(const pi2_extent_layout *layout) {
    for (uint32_t t = 0; t < layout->tensor_count; t++) {
        const pi2_layout_tensor *tensor = &layout->tensors[t];
        uint8_t *seen = calloc(tensor->rows, tensor->columns);
        assert_non_null(seen);
        for (uint32_t p = 0; p < layout->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[p];
            if (piece->tensor != t) continue;
            for (uint64_t r = piece->row_begin; r < piece->row_begin + piece->row_count; r++) {
                for (uint32_t c = 0; c < piece->column_count; c++) {
                    seen[r * tensor->columns + piece->column_begin + c]++;
                }
            }
        }
        for (uint64_t i = 0; i < tensor->rows * tensor->columns; i++) assert_int_equal(seen[i], 1);
        free(seen);
    }
}

static void check_pieces(const pi2_extent_layout *layout) {
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        const pi2_extent *extent = &layout->extents[e];
        uint32_t end = 0;
        for (uint32_t p = 0; p < extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[extent->first_piece + p];
            const pi2_layout_tensor *tensor = &layout->tensors[piece->tensor];
            assert_int_equal(piece->offset, end);
            assert_int_equal(piece->offset % 64, 0);
            assert_int_equal(piece->row_begin % tensor->matrix_rows % PI2_TILE_ROWS, 0);
            end += (uint32_t)pi2_piece_bytes(layout, piece);
        }
        assert_int_equal(end, extent->bytes);
        assert_true(pi2_extent_read_bytes(extent) >= extent->bytes);
        assert_true(pi2_extent_read_bytes(extent) - extent->bytes < PI2_EXTENT_ALIGNMENT);
    }
}

static void test_every_type_is_covered_once(void **state) {
    (void)state;
    size_t format_count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&format_count);
    static const uint64_t widths[] = { 256, 768 }, neurons[] = { 256, 1280, 2048 };
    for (size_t f = 0; f < format_count; f++) {
        for (size_t w = 0; w < 2; w++) {
            for (size_t n = 0; n < 3; n++) {
                const uint32_t type = (uint32_t)formats[f]->type;
                const pi2_gguf_tensor tensors[] = {
                    tensor_of("gate", type, widths[w], neurons[n], 1),
                    tensor_of("up", type, widths[w], neurons[n], 1),
                    tensor_of("down", type, neurons[n], widths[w], 1),
                    tensor_of("q", type, widths[w], 1001, 1), /* no multiple of 16 */
                    tensor_of("k", type, widths[w], 16, 1),
                    tensor_of("head", type, widths[w], 1500, 1),
                    tensor_of("embedding", type, widths[w], 333, 1),
                };
                const pi2_group_request requests[] = {
                    request_of(PI2_GROUP_EMBEDDING, tensors + 6, 1),
                    request_of(PI2_GROUP_ATTENTION, tensors + 3, 2),
                    request_of(PI2_GROUP_FFN, tensors, 3),
                    request_of(PI2_GROUP_HEAD, tensors + 5, 1),
                };
                pi2_extent_layout *layout = build(requests, 4);
                assert_int_equal(layout->group_count, 4);
                assert_int_equal(layout->tensor_count, 7);
                check_cover(layout);
                check_pieces(layout);
                pi2_extent_layout_free(layout);
            }
        }
    }
}

static void test_neurons_that_are_no_multiple(void **state) {
    (void)state;
    /* F16 has blocks of one column: 1001 neurons end in a part of a tile. Without a gate. */
    const pi2_gguf_tensor tensors[] = { tensor_of("up", PI2_F16, 300, 1001, 1),
                                        tensor_of("down", PI2_F16, 1001, 300, 1) };
    const pi2_group_request request = request_of(PI2_GROUP_FFN, tensors, 2);
    pi2_extent_layout *layout = build(&request, 1);
    check_cover(layout);
    check_pieces(layout);
    assert_int_equal(layout->groups[0].cluster_neurons % 32, 0);
    pi2_extent_layout_free(layout);
}

static void test_experts_are_stacked_rows(void **state) {
    (void)state;
    enum { EXPERTS = 3 };
    const pi2_gguf_tensor tensors[] = { tensor_of("gate", PI2_Q4_0, 256, 500, EXPERTS),
                                        tensor_of("up", PI2_Q4_0, 256, 500, EXPERTS),
                                        tensor_of("down", PI2_F16, 500, 256, EXPERTS) };
    pi2_group_request requests[EXPERTS];
    for (uint32_t e = 0; e < EXPERTS; e++) {
        requests[e] = request_of(PI2_GROUP_EXPERT, tensors, 3);
        requests[e].expert = e;
        requests[e].expert_count = EXPERTS;
    }
    pi2_extent_layout *layout = build(requests, EXPERTS);
    assert_int_equal(layout->tensor_count, 3);
    assert_int_equal(layout->tensors[0].rows, 1500);
    assert_int_equal(layout->tensors[0].matrix_rows, 500);
    check_cover(layout);
    check_pieces(layout);
    for (uint32_t g = 0; g < EXPERTS; g++) {
        const pi2_group *group = &layout->groups[g];
        assert_int_equal(group->expert, g);
        const pi2_extent *first = &layout->extents[group->first_extent];
        assert_int_equal(layout->pieces[first->first_piece].row_begin, g * 500);
    }
    pi2_extent_layout_free(layout);
    requests[2].expert = 3;
    assert_int_equal(pi2_extent_layout_build(requests, EXPERTS, PI2_LAYOUT_DENSE, &layout), PI2_ERR_INVALID);
    /* One expert left out: the check sees the hole. */
    requests[2].expert = 2;
    assert_int_equal(pi2_extent_layout_build(requests, EXPERTS - 1, PI2_LAYOUT_DENSE, &layout), PI2_OK);
    assert_int_equal(pi2_extent_layout_check(layout, "file"), PI2_ERR_FORMAT);
    pi2_extent_layout_free(layout);
}

static void check_group_sizes(const pi2_extent_layout *layout, uint32_t group_number,
                              uint32_t smallest, uint32_t largest) {
    const pi2_group *group = &layout->groups[group_number];
    for (uint32_t e = 0; e < group->extent_count; e++) {
        const uint32_t bytes = layout->extents[group->first_extent + e].bytes;
        const bool is_last = e + 1 == group->extent_count;
        assert_true(bytes <= largest);
        if (!is_last) assert_true(bytes >= smallest);
    }
}

static void test_sizes_of_a_7b_model(void **state) {
    (void)state;
    static const uint32_t types[][2] = { { PI2_Q4_0, PI2_Q4_0 }, { PI2_Q4_K, PI2_Q6_K },
                                         { PI2_Q8_0, PI2_Q8_0 }, { PI2_F16, PI2_F16 } };
    for (size_t i = 0; i < 4; i++) {
        const uint32_t type = types[i][0], down_type = types[i][1];
        const pi2_gguf_tensor tensors[] = {
            tensor_of("gate", type, 4096, 14336, 1),
            tensor_of("up", type, 4096, 14336, 1),
            tensor_of("down", down_type, 14336, 4096, 1),
            tensor_of("q", type, 4096, 4096, 1),
            tensor_of("k", type, 4096, 1024, 1),
            tensor_of("v", down_type, 4096, 1024, 1),
            tensor_of("o", type, 4096, 4096, 1),
            tensor_of("embedding", type, 4096, 32000, 1),
        };
        const pi2_group_request requests[] = { request_of(PI2_GROUP_EMBEDDING, tensors + 7, 1),
                                               request_of(PI2_GROUP_ATTENTION, tensors + 3, 4),
                                               request_of(PI2_GROUP_FFN, tensors, 3) };
        pi2_extent_layout *layout = build(requests, 3);
        check_pieces(layout);
        check_group_sizes(layout, 0, 256 * 1024, PI2_EXTENT_MAX_BYTES);
        check_group_sizes(layout, 1, 256 * 1024, PI2_EXTENT_MAX_BYTES);
        check_group_sizes(layout, 2, 256 * 1024, PI2_EXTENT_MAX_BYTES);
        assert_true(pi2_extent_layout_largest(layout) <= PI2_EXTENT_MAX_BYTES);
        const uint32_t neurons = layout->groups[2].cluster_neurons;
        const uint32_t block = pi2_weight_format_find(down_type)->block_columns;
        assert_int_equal(neurons % 32, 0);
        assert_int_equal(neurons % block, 0);
        pi2_extent_layout_free(layout);
    }
}

static void test_a_tile_larger_than_an_extent(void **state) {
    (void)state;
    const pi2_gguf_tensor head = tensor_of("head", PI2_F32, 28672, 40, 1);
    const pi2_group_request request = request_of(PI2_GROUP_HEAD, &head, 1);
    pi2_extent_layout *layout = build(&request, 1);
    check_cover(layout);
    check_pieces(layout);
    assert_int_equal(layout->extent_count, 3);
    pi2_extent_layout_free(layout);
}

static void test_same_input_same_layout(void **state) {
    (void)state;
    const pi2_gguf_tensor tensors[] = { tensor_of("gate", PI2_Q4_1, 576, 1536, 1),
                                        tensor_of("up", PI2_Q4_1, 576, 1536, 1),
                                        tensor_of("down", PI2_Q4_1, 1536, 576, 1) };
    const pi2_group_request request = request_of(PI2_GROUP_FFN, tensors, 3);
    pi2_extent_layout *a = build(&request, 1), *b = build(&request, 1);
    assert_int_equal(a->extent_count, b->extent_count);
    assert_int_equal(a->piece_count, b->piece_count);
    for (uint32_t i = 0; i < a->piece_count; i++) {
        assert_int_equal(a->pieces[i].offset, b->pieces[i].offset);
        assert_int_equal(a->pieces[i].row_begin, b->pieces[i].row_begin);
        assert_int_equal(a->pieces[i].column_begin, b->pieces[i].column_begin);
    }
    /* SmolLM2's FFN: three clusters of 512 neurons, each one extent. */
    assert_int_equal(a->groups[0].cluster_neurons, 512);
    assert_int_equal(a->extent_count, 3);
    pi2_extent_layout_free(a);
    pi2_extent_layout_free(b);
}

/** The extent in which a piece lies. */
static const pi2_extent *extent_of(const pi2_extent_layout *layout, uint32_t piece) {
    uint32_t e = 0;
    while (layout->extents[e].first_piece + layout->extents[e].piece_count <= piece) e++;
    return &layout->extents[e];
}

static void test_gate_lies_apart_in_the_neuron_layout(void **state) {
    (void)state;
    size_t format_count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&format_count);
    static const uint64_t widths[] = { 256, 2048 };
    for (size_t f = 0; f < format_count * 2; f++) {
        const uint32_t type = (uint32_t)formats[f / 2]->type;
        const uint64_t width = widths[f % 2];
        const pi2_gguf_tensor tensors[] = { tensor_of("gate", type, width, 2560, 1),
                                            tensor_of("up", type, width, 2560, 1),
                                            tensor_of("down", type, 2560, width, 1),
                                            tensor_of("q", type, width, 512, 1) };
        const pi2_group_request requests[] = { request_of(PI2_GROUP_ATTENTION, tensors + 3, 1),
                                               request_of(PI2_GROUP_FFN, tensors, 3) };
        pi2_extent_layout *layout = build_as(PI2_LAYOUT_NEURON, requests, 2);
        check_cover(layout);
        check_pieces(layout);
        uint64_t others = 0;
        uint32_t last_row = 0;
        for (uint32_t p = 0; p < layout->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[p];
            const pi2_extent *extent = extent_of(layout, p);
            if (extent->group != 1) continue;
            /* Tensors are numbered in the order of the requests: q, gate, up, down. */
            if (piece->tensor == 1) {
                assert_int_equal(extent->piece_count, 1);
                last_row = (uint32_t)piece->row_begin + piece->row_count;
                others = 0;
            } else {
                others += pi2_piece_bytes(layout, piece);
            }
            const bool cluster_ends =
                p + 1 == layout->piece_count || layout->pieces[p + 1].tensor == 1;
            const bool is_last = last_row == 2560;
            if (cluster_ends && piece->tensor != 1 && !is_last) {
                assert_true(others >= PI2_EXTENT_TARGET_BYTES);
            }
        }
        assert_int_equal(last_row, 2560);
        pi2_extent_layout_free(layout);
    }
}

/* An expert's Gate can be read alone: it is the first extents of its group, whole, and nothing else is in them. */
static void test_gates_of_experts_lie_first(void **state) {
    (void)state;
    enum { EXPERTS = 3 };
    static const struct { uint32_t type; uint64_t width, neurons; } shapes[] = {
        { PI2_Q4_0, 2048, 1280 }, { PI2_F32, 2048, 1000 }, { PI2_Q6_K, 256, 256 } };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const pi2_gguf_tensor tensors[] = {
            tensor_of("gate", shapes[s].type, shapes[s].width, shapes[s].neurons, EXPERTS),
            tensor_of("up", shapes[s].type, shapes[s].width, shapes[s].neurons, EXPERTS),
            tensor_of("down", shapes[s].type, shapes[s].neurons, shapes[s].width, EXPERTS) };
        pi2_group_request requests[EXPERTS];
        for (uint32_t e = 0; e < EXPERTS; e++) {
            requests[e] = request_of(PI2_GROUP_EXPERT, tensors, 3);
            requests[e].expert = e;
            requests[e].expert_count = EXPERTS;
        }
        pi2_extent_layout *layout = build_as(PI2_LAYOUT_NEURON, requests, EXPERTS);
        check_cover(layout);
        check_pieces(layout);
        for (uint32_t g = 0; g < EXPERTS; g++) {
            const pi2_group *group = &layout->groups[g];
            assert_true(group->gate_extents > 0 && group->gate_extents < group->extent_count);
            for (uint32_t e = 0; e < group->extent_count; e++) {
                const pi2_extent *extent = &layout->extents[group->first_extent + e];
                for (uint32_t p = 0; p < extent->piece_count; p++) {
                    const uint32_t tensor = layout->pieces[extent->first_piece + p].tensor;
                    assert_int_equal(tensor == 0, e < group->gate_extents);
                }
            }
        }
        pi2_extent_layout_free(layout);
        /* Woven with the others, as in the dense layout, it cannot be. */
        layout = build(requests, EXPERTS);
        if (s != 1) assert_int_equal(layout->groups[1].gate_extents, 0);
        pi2_extent_layout_free(layout);
    }
}

/* The matrix before Down shares extents with it in the dense layout, and none in the neuron layout, as Gate. */
static void test_without_gate_the_first_matrix_is_apart(void **state) {
    (void)state;
    const pi2_gguf_tensor tensors[] = { tensor_of("up", PI2_Q8_0, 512, 4096, 1),
                                        tensor_of("down", PI2_Q8_0, 4096, 512, 1) };
    const pi2_group_request request = request_of(PI2_GROUP_FFN, tensors, 2);
    for (int n = 0; n < 2; n++) {
        pi2_extent_layout *layout = build_as(n ? PI2_LAYOUT_NEURON : PI2_LAYOUT_DENSE, &request, 1);
        uint32_t shared = 0;
        for (uint32_t e = 0; e < layout->extent_count; e++) {
            const pi2_extent *extent = &layout->extents[e];
            shared += extent->piece_count > 1;
            assert_true(extent->bytes >= (n ? PI2_EXTENT_TARGET_BYTES : 1) || e + 2 >= layout->extent_count);
        }
        assert_int_equal(shared, n ? 0 : layout->extent_count);
        if (pi2_extent_layout_check(layout, "ungated")) fail_msg("%s", pi2_error_text());
        pi2_extent_layout_free(layout);
    }
}

static void test_refusals_name_the_tensor(void **state) {
    (void)state;
    pi2_extent_layout *layout;
    pi2_gguf_tensor tensors[] = { tensor_of("blk.0.ffn_gate.weight", 19, 256, 512, 1),
                                  tensor_of("blk.0.ffn_up.weight", PI2_Q4_0, 256, 512, 1),
                                  tensor_of("blk.0.ffn_down.weight", PI2_Q4_0, 512, 256, 1) };
    const pi2_group_request request = request_of(PI2_GROUP_FFN, tensors, 3);
    assert_int_equal(pi2_extent_layout_build(&request, 1, PI2_LAYOUT_DENSE, &layout), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "blk.0.ffn_gate.weight"));
    assert_non_null(strstr(pi2_error_text(), "IQ1_S"));
    assert_null(layout);
    tensors[0] = tensor_of("blk.0.ffn_gate.weight", PI2_Q4_0, 256, 480, 1);
    assert_int_equal(pi2_extent_layout_build(&request, 1, PI2_LAYOUT_DENSE, &layout), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "neurons"));
    tensors[0] = tensor_of("blk.0.ffn_gate.weight", PI2_Q4_0, 256, 512, 2);
    assert_int_equal(pi2_extent_layout_build(&request, 1, PI2_LAYOUT_DENSE, &layout), PI2_ERR_FORMAT);
}

/* ---- damage ----------------------------------------------------------------------------- */

static pi2_extent_layout *sample_layout(void) {
    static pi2_gguf_tensor tensors[3];
    tensors[0] = tensor_of("gate", PI2_Q4_0, 1024, 2048, 1);
    tensors[1] = tensor_of("up", PI2_Q4_0, 1024, 2048, 1);
    tensors[2] = tensor_of("down", PI2_Q4_0, 2048, 1024, 1);
    const pi2_group_request request = request_of(PI2_GROUP_FFN, tensors, 3);
    return build(&request, 1);
}

static void expect_found(pi2_extent_layout *layout) {
    assert_int_equal(pi2_extent_layout_check(layout, "some.pi2"), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "some.pi2"));
    pi2_extent_layout_free(layout);
}

#define EXPECT_DAMAGE_FOUND(change)                   \
    do {                                              \
        pi2_extent_layout *layout = sample_layout();  \
        change;                                       \
        expect_found(layout);                         \
    } while (0)

static void test_damage_is_found(void **state) {
    (void)state;
    EXPECT_DAMAGE_FOUND(layout->tensors[0].columns = 0);
    EXPECT_DAMAGE_FOUND(layout->tensors[0].columns = 1040);
    EXPECT_DAMAGE_FOUND(layout->tensors[0].columns += 32);
    EXPECT_DAMAGE_FOUND(layout->tensors[0].rows += 16);
    EXPECT_DAMAGE_FOUND(layout->tensors[0].rows = UINT64_MAX);
    EXPECT_DAMAGE_FOUND(layout->tensors[0].matrix_rows = 0);
    EXPECT_DAMAGE_FOUND(layout->tensors[0].matrix_rows = 7);
    EXPECT_DAMAGE_FOUND(layout->tensors[0].format = NULL);
    EXPECT_DAMAGE_FOUND(layout->tensors[0].is_raw = true);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].tensor = 3);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].tensor = 0);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].column_begin = 32);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].column_count = 0);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].column_count = UINT32_MAX);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].row_begin += 16);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].row_begin = UINT64_MAX - 15);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].row_count = 0);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].row_count -= 1);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].row_count = UINT32_MAX);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].offset += 1);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].offset -= 64);
    EXPECT_DAMAGE_FOUND(layout->pieces[1].offset = UINT32_MAX - 63);
    EXPECT_DAMAGE_FOUND(layout->pieces[2].column_begin = layout->pieces[5].column_begin);
    EXPECT_DAMAGE_FOUND(layout->extents[1].bytes -= 64);
    EXPECT_DAMAGE_FOUND(layout->extents[1].bytes = 0);
    EXPECT_DAMAGE_FOUND(layout->extents[1].first_piece += 1);
    EXPECT_DAMAGE_FOUND(layout->extents[1].piece_count += 1);
    EXPECT_DAMAGE_FOUND(layout->extents[1].piece_count = UINT32_MAX);
    EXPECT_DAMAGE_FOUND(layout->extents[1].file_offset = 4095);
    EXPECT_DAMAGE_FOUND(layout->extents[1].group = 1);
    EXPECT_DAMAGE_FOUND(layout->groups[0].extent_count -= 1);
    EXPECT_DAMAGE_FOUND(layout->groups[0].extent_count = UINT32_MAX);
    EXPECT_DAMAGE_FOUND(layout->groups[0].first_extent = 1);
    EXPECT_DAMAGE_FOUND(layout->groups[0].kind = (pi2_group_kind)9);
    EXPECT_DAMAGE_FOUND(layout->groups[0].kind = PI2_GROUP_EMBEDDING);
    EXPECT_DAMAGE_FOUND(layout->weight_bytes += 1);
}

/* Rows are looked up by their number alone: they lie in one matrix, whole, in pieces of their own. */
static void test_rows_that_cannot_be_looked_up(void **state) {
    (void)state;
    for (int raw = 0; raw < 2; raw++) {
        pi2_gguf_tensor tensor = tensor_of("rows", PI2_Q4_0, 1024, 1792, 1);
        const pi2_group_request request = request_of(raw ? PI2_GROUP_EMBEDDING : PI2_GROUP_HEAD, &tensor, 1);
        pi2_extent_layout *layout = build(&request, 1);
        assert_int_equal(layout->extent_count, 2);
        assert_int_equal(pi2_extent_layout_lookup_runs(layout), 1792 / 16);
        assert_ptr_equal(pi2_extent_layout_lookup(layout), &layout->groups[0]);
        layout->tensors[0].matrix_rows = 896; /* each extent holds one matrix of two: otherwise possible */
        assert_int_equal(pi2_extent_layout_check(layout, "some.pi2"), PI2_ERR_FORMAT);
        assert_non_null(strstr(pi2_error_text(), "some.pi2: rows of tensor 'rows' cannot be looked up"));
        pi2_extent_layout_free(layout);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_is_covered_once),
        cmocka_unit_test(test_neurons_that_are_no_multiple),
        cmocka_unit_test(test_experts_are_stacked_rows),
        cmocka_unit_test(test_sizes_of_a_7b_model),
        cmocka_unit_test(test_a_tile_larger_than_an_extent),
        cmocka_unit_test(test_same_input_same_layout),
        cmocka_unit_test(test_gate_lies_apart_in_the_neuron_layout),
        cmocka_unit_test(test_gates_of_experts_lie_first),
        cmocka_unit_test(test_without_gate_the_first_matrix_is_apart),
        cmocka_unit_test(test_refusals_name_the_tensor),
        cmocka_unit_test(test_damage_is_found),
        cmocka_unit_test(test_rows_that_cannot_be_looked_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
