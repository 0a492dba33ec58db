/*
 * Goal:   the neuron form keeps every weight bit for bit, in rows and in columns, and lies as
 *         docs/cluster_file_format.md says.
 * Method: random bytes (PI2_SEED replays a run) of every type through split and join, many counts of
 *         rows, guards behind every piece; places of single values against formulas written here;
 *         scale blocks against the scale areas of tiles.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/random_weights.h"
#include "weight_formats/neuron_form.h"

enum { GUARD = 0xa5, GUARD_BYTES = 32, MAX_ROWS = 131 };

static void fill(test_random *random, uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)(test_random_u32(random) >> 7);
}

static uint8_t *guarded(size_t bytes) {
    uint8_t *memory = test_aligned_alloc(bytes + GUARD_BYTES);
    memset(memory, GUARD, bytes + GUARD_BYTES);
    return memory;
}

static void check_guard(const uint8_t *memory, size_t bytes) {
    for (size_t i = 0; i < GUARD_BYTES; i++) assert_int_equal(memory[bytes + i], GUARD);
}

static void rows_survive(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t f = 0; f < count; f++) {
        for (size_t blocks = 0; blocks <= 19; blocks++) {
            const pi2_weight_format *format = formats[f];
            const size_t columns = blocks * format->block_columns, bytes = pi2_row_bytes(format, columns);
            const size_t value_bytes = pi2_neuron_row_value_bytes(format, columns);
            const size_t scale_bytes = pi2_neuron_row_scale_bytes(format, columns);
            assert_int_equal(value_bytes + scale_bytes, bytes);
            uint8_t *row = guarded(bytes), *back = guarded(bytes);
            uint8_t *values = guarded(value_bytes), *scales = guarded(scale_bytes);
            fill(&random, row, bytes);
            pi2_neuron_split_row(format, values, scales, row, blocks);
            check_guard(values, value_bytes);
            check_guard(scales, scale_bytes);
            pi2_neuron_join_row(format, back, values, scales, blocks);
            check_guard(back, bytes);
            assert_memory_equal(back, row, bytes);
            free(row);
            free(back);
            free(values);
            free(scales);
        }
    }
}

/* Where Q5's and Q6_K's values lie in a column, by the words of the document. */
static unsigned code_by_definition(const pi2_weight_format *format, const uint8_t *column, size_t rows, size_t row) {
    const size_t groups = (rows + 31) / 32, g = row / 32, r = row % 32;
    unsigned code = r < 16 ? column[16 * g + r] & 15u : column[16 * g + r - 16] >> 4;
    const uint8_t *behind = column + 16 * groups;
    if (format->parts.code_bits == 8) return column[row];
    if (format->parts.code_bits == 5) code += 16u * (behind[4 * g + r % 4] >> (r / 4) & 1u);
    if (format->parts.code_bits == 6) {
        const uint8_t *plane = r < 16 ? behind : behind + 4 * groups;
        code += 16u * (plane[4 * g + r % 4] >> (2 * (r % 16 / 4)) & 3u);
    }
    return code;
}

typedef struct matrix {
    const pi2_weight_format *format;
    size_t rows, column_bytes, scale_bytes;
    uint8_t *blocks, *back, *scales;
    uint8_t *columns[256];
    const uint8_t *row_pointers[MAX_ROWS];
    uint8_t *back_pointers[MAX_ROWS];
} matrix;

static void make_matrix(test_random *random, matrix *m, const pi2_weight_format *format, size_t rows) {
    memset(m, 0, sizeof *m);
    m->format = format;
    m->rows = rows;
    m->column_bytes = pi2_neuron_column_value_bytes(format, rows);
    m->scale_bytes = pi2_neuron_scale_block_bytes(format, rows);
    m->blocks = guarded(rows * format->block_bytes);
    m->back = guarded(rows * format->block_bytes);
    m->scales = guarded(m->scale_bytes);
    fill(random, m->blocks, rows * format->block_bytes);
    for (size_t r = 0; r < rows; r++) {
        m->row_pointers[r] = m->blocks + r * format->block_bytes;
        m->back_pointers[r] = m->back + r * format->block_bytes;
    }
    for (size_t c = 0; c < format->block_columns; c++) m->columns[c] = guarded(m->column_bytes);
}

static void free_matrix(matrix *m) {
    for (size_t c = 0; c < m->format->block_columns; c++) free(m->columns[c]);
    free(m->blocks);
    free(m->back);
    free(m->scales);
}

/* The scale block is the scale areas of the tiles of one block of columns. */
static void check_scales(const matrix *m) {
    const size_t tile_bytes = pi2_tile_bytes(m->format, m->format->block_columns);
    uint8_t *tile = test_aligned_alloc(tile_bytes);
    for (size_t first = 0; first < m->rows; first += PI2_TILE_ROWS) {
        const uint8_t *rows[PI2_TILE_ROWS] = {0};
        for (size_t r = 0; r < PI2_TILE_ROWS && first + r < m->rows; r++) rows[r] = m->row_pointers[first + r];
        m->format->pack_tile(tile, rows, 1);
        assert_memory_equal(m->scales + first / PI2_TILE_ROWS * m->format->tile_scale_bytes, tile,
                            m->format->tile_scale_bytes);
    }
    free(tile);
}

static void check_codes(const matrix *m) {
    const size_t bytes = (m->format->parts.code_bits + 7u) / 8;
    uint8_t codes[256], code[4];
    for (size_t r = 0; r < m->rows; r++) {
        m->format->get_codes(codes, m->row_pointers[r]);
        for (size_t c = 0; c < m->format->block_columns; c++) {
            pi2_neuron_column_code(m->format, code, m->columns[c], m->rows, r);
            assert_memory_equal(code, codes + c * bytes, bytes);
            if (bytes == 1 && m->format->block_columns > 1) {
                assert_int_equal(code_by_definition(m->format, m->columns[c], m->rows, r), codes[c]);
            }
        }
    }
}

static void columns_survive(void **state) {
    (void)state;
    static const size_t row_counts[] = {1, 15, 16, 17, 31, 32, 33, 48, 64, 95, 128, MAX_ROWS};
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t f = 0; f < count; f++) {
        for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
            matrix m;
            make_matrix(&random, &m, formats[f], row_counts[i]);
            pi2_neuron_split_columns(m.format, m.columns, m.scales, m.row_pointers, 0, m.rows, m.rows);
            check_guard(m.scales, m.scale_bytes);
            for (size_t c = 0; c < m.format->block_columns; c++) check_guard(m.columns[c], m.column_bytes);
            pi2_neuron_join_columns(m.format, m.back_pointers, (const uint8_t *const *)m.columns, m.scales, m.rows);
            check_guard(m.back, m.rows * m.format->block_bytes);
            assert_memory_equal(m.back, m.blocks, m.rows * m.format->block_bytes);
            check_scales(&m);
            check_codes(&m);
            free_matrix(&m);
        }
    }
}

/* Rows that come in parts give the bytes that they give at once. */
static void columns_come_in_parts(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t f = 0; f < count; f++) {
        for (size_t part = 32; part <= 96; part += 32) {
            matrix m, other;
            make_matrix(&random, &m, formats[f], MAX_ROWS);
            make_matrix(&random, &other, formats[f], MAX_ROWS);
            pi2_neuron_split_columns(m.format, m.columns, m.scales, m.row_pointers, 0, m.rows, m.rows);
            for (size_t first = 0; first < m.rows; first += part) {
                const size_t left = m.rows - first;
                pi2_neuron_split_columns(m.format, other.columns, other.scales, m.row_pointers + first, first,
                                         left < part ? left : part, m.rows);
            }
            assert_memory_equal(other.scales, m.scales, m.scale_bytes);
            for (size_t c = 0; c < m.format->block_columns; c++) {
                assert_memory_equal(other.columns[c], m.columns[c], m.column_bytes);
                check_guard(other.columns[c], m.column_bytes);
            }
            check_guard(other.scales, m.scale_bytes);
            free_matrix(&m);
            free_matrix(&other);
        }
    }
}

/* A column that nobody asks for is not written, and rows that are not there are zeros. */
static void columns_can_be_left_out(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    const pi2_weight_format *format = pi2_weight_format_find(PI2_Q5_1);
    matrix m;
    make_matrix(&random, &m, format, 40);
    memset(m.blocks, 0xff, m.rows * format->block_bytes);
    uint8_t *wanted[32] = {0};
    wanted[7] = m.columns[7];
    pi2_neuron_split_columns(format, wanted, m.scales, m.row_pointers, 0, m.rows, m.rows);
    for (size_t i = 0; i < m.column_bytes; i++) assert_int_equal(m.columns[6][i], GUARD);
    /* Two groups; rows 40 to 63 are zeros: of the second group bytes 0 to 7 have low halves only. */
    for (size_t i = 0; i < 32; i++) assert_int_equal(m.columns[7][i], i < 16 ? 0xff : i < 24 ? 0x0f : 0);
    for (size_t i = 0; i < 8; i++) assert_int_equal(m.columns[7][32 + i], i < 4 ? 0xff : 0x03);
    free_matrix(&m);
}

static void weights_that_forbid_skipping(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    static const uint8_t infinity[2] = {0x00, 0x7c}, nan_half[2] = {0x01, 0xfe};
    size_t count = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t f = 0; f < count; f++) {
        const pi2_weight_format *format = formats[f];
        uint8_t *blocks = test_aligned_alloc(5 * format->block_bytes);
        for (size_t h = 0; h < format->parts.half_count; h++) {
            test_random_blocks(&random, format, blocks, 5);
            assert_true(pi2_neuron_weights_can_be_skipped(format, blocks, 5));
            uint8_t *half = blocks + 4 * format->block_bytes + format->parts.halves + 2 * h;
            memcpy(half, infinity, 2);
            assert_false(pi2_neuron_weights_can_be_skipped(format, blocks, 5));
            memcpy(half, nan_half, 2);
            assert_false(pi2_neuron_weights_can_be_skipped(format, blocks, 5));
            assert_true(pi2_neuron_weights_can_be_skipped(format, blocks, 4));
        }
        free(blocks);
    }
    const float allowed[] = {0.0f, -0.0f, 0x1p-50f, -3.5f}, forbidden[] = {0x1.8p-51f, -0x1p-149f, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        const pi2_weight_format *format = pi2_weight_format_find(PI2_F32);
        assert_true(pi2_neuron_weights_can_be_skipped(format, (const uint8_t *)&allowed[i], 1));
        assert_false(pi2_neuron_weights_can_be_skipped(format, (const uint8_t *)&forbidden[i], 1));
    }
    assert_false(pi2_neuron_weights_can_be_skipped(pi2_weight_format_find(PI2_F16), infinity, 1));
    assert_false(pi2_neuron_weights_can_be_skipped(pi2_weight_format_find(PI2_BF16), (const uint8_t[2]){1, 0}, 1));
}

/* Neurons out of tiles are those out of rows, of every number of rows and blocks; columns that nobody wants are left
 * out. */
static void tiles_give_the_same_neurons(void **state) {
    (void)state;
    enum { MOST_BLOCKS = 3, MOST_GROUPS = (MAX_ROWS + 31) / 32 };
    static const size_t row_counts[] = { 1, 16, 17, 32, 48, 64, MAX_ROWS };
    static uint8_t rows[MAX_ROWS][MOST_BLOCKS * 256], tiles[2 * MOST_GROUPS][MOST_BLOCKS * 256 * 16];
    static uint8_t expected[256][16 * MOST_GROUPS], found[256][16 * MOST_GROUPS], values[2][MOST_BLOCKS * 256];
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0, tried = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t f = 0; f < count; f++) {
        const pi2_weight_format *format = formats[f];
        if (!pi2_neuron_comes_of_tiles(format)) continue;
        tried++;
        for (size_t n = 0; n < sizeof row_counts / sizeof row_counts[0]; n++) {
            const size_t row_count = row_counts[n], blocks = 1 + n % MOST_BLOCKS, planes = format->block_columns / 32;
            const size_t tile_columns = blocks * format->block_columns, tile_count = (row_count + 15) / 16;
            for (size_t row = 0; row < row_count; row++) fill(&random, rows[row], pi2_row_bytes(format, tile_columns));
            for (size_t t = 0; t < tile_count; t++) {
                const uint8_t *of[16] = { NULL };
                for (size_t row = 16 * t; row < row_count && row < 16 * t + 16; row++) of[row % 16] = rows[row];
                assert_true(pi2_tile_bytes(format, tile_columns) <= sizeof tiles[0]);
                format->pack_tile(tiles[t], of, blocks);
            }
            for (size_t row = 0; row < row_count; row++) {
                pi2_neuron_split_row(format, values[0], NULL, rows[row], blocks);
                pi2_neuron_row_of_tile(format, values[1], tiles[row / 16], (uint32_t)(row % 16), blocks);
                assert_memory_equal(values[0], values[1], pi2_neuron_row_value_bytes(format, tile_columns));
            }
            for (size_t b = 0; b < blocks; b++) {
                const uint8_t *blocks_of[MAX_ROWS];
                uint8_t *columns[256], *wanted[256];
                for (size_t row = 0; row < row_count; row++) blocks_of[row] = rows[row] + b * format->block_bytes;
                memset(found, GUARD, sizeof found);
                memset(expected, GUARD, sizeof expected);
                for (size_t c = 0; c < format->block_columns; c++) {
                    columns[c] = c % 5 == 1 ? NULL : expected[c];
                    wanted[c] = c % 5 == 1 ? NULL : found[c];
                }
                pi2_neuron_split_columns(format, columns, NULL, blocks_of, 0, row_count, row_count);
                for (size_t t = 0; t < tile_count; t += 2) {
                    for (size_t plane = 0; plane < planes; plane++) {
                        pi2_neuron_columns_of_tiles(format, wanted + 32 * plane, t / 2, tiles[t],
                                                    t + 1 < tile_count ? tiles[t + 1] : NULL, tile_columns,
                                                    b * planes + plane);
                    }
                }
                assert_memory_equal(found, expected, sizeof found);
            }
        }
    }
    assert_int_equal(tried, 3); /* Q4_0, Q4_1, Q4_K */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_give_the_same_neurons),
        cmocka_unit_test(rows_survive),
        cmocka_unit_test(columns_survive), cmocka_unit_test(columns_come_in_parts),
        cmocka_unit_test(columns_can_be_left_out),
        cmocka_unit_test(weights_that_forbid_skipping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
