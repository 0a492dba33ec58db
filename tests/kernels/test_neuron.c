/*
 * Goal:   every kernel of the list computes rows of Up and columns of Down with the bits of the scalar
 *         neuron kernels, and those have the bits of the scalar dense kernel on the same weights in
 *         tiles; no kernel writes other rows or reads past a neuron's bytes (make asan).
 * Method: random weights of every type (PI2_SEED replays a run), split here into neuron form, every
 *         column and row in memory of its own size; activations of 0 to 100 % density with blocks
 *         whose scale is a NaN and values -127 and 127; many counts of rows, ranges of rows, cuts
 *         of the list of blocks. Bits are compared, NaNs as NaNs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu_features.h"
#include "kernels/matmul/matmul.h"
#include "kernels/neuron/neuron.h"
#include "pipeline/ffn_unit.h"
#include "support/random_weights.h"

static const float guard_value = -77.25f;
static unsigned kernels_checked;

static bool same_bits(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

static bool can_run(const pi2_neuron_kernel *kernel) { return (kernel->cpu_required & ~pi2_cpu_features()) == 0; }

/* Memory of exactly so many bytes, at an odd address; freed by free_odd(). */
static uint8_t *odd_alloc(size_t bytes) {
    uint8_t *memory = malloc(bytes + 1);
    assert_non_null(memory);
    return memory + 1;
}

static void free_odd(const uint8_t *memory) { free((uint8_t *)((uintptr_t)memory - 1)); }

/* ---- a matrix, dense and in both forms ---- */

typedef struct matrix {
    const pi2_weight_format *format;
    size_t rows, columns, blocks, tile_count, scale_block_bytes;
    uint8_t *gguf;  /* [rows][blocks] */
    uint8_t *tiles; /* all columns */
    const uint8_t **row_values, **row_scales; /* [rows] */
    uint8_t **column_values;                  /* [columns] */
    uint8_t *scale_blocks;                    /* [blocks] */
} matrix;

static void split_matrix(matrix *m) {
    const size_t row_bytes = pi2_row_bytes(m->format, m->columns);
    const uint8_t **rows = calloc(m->rows, sizeof *rows);
    for (size_t r = 0; r < m->rows; r++) {
        uint8_t *values = odd_alloc(pi2_neuron_row_value_bytes(m->format, m->columns));
        uint8_t *scales = odd_alloc(pi2_neuron_row_scale_bytes(m->format, m->columns));
        pi2_neuron_split_row(m->format, values, scales, m->gguf + r * row_bytes, m->blocks);
        m->row_values[r] = values;
        m->row_scales[r] = scales;
    }
    for (size_t c = 0; c < m->columns; c++) {
        m->column_values[c] = odd_alloc(pi2_neuron_column_value_bytes(m->format, m->rows));
    }
    for (size_t b = 0; b < m->blocks; b++) {
        for (size_t r = 0; r < m->rows; r++) rows[r] = m->gguf + r * row_bytes + b * m->format->block_bytes;
        pi2_neuron_split_columns(m->format, m->column_values + b * m->format->block_columns,
                                 m->scale_blocks + b * m->scale_block_bytes, rows, 0, m->rows, m->rows);
    }
    free(rows);
}

static void pack_tiles(matrix *m) {
    const size_t row_bytes = pi2_row_bytes(m->format, m->columns);
    for (size_t tile = 0; tile < m->tile_count; tile++) {
        const uint8_t *rows[PI2_TILE_ROWS] = {0};
        for (size_t r = 0; r < PI2_TILE_ROWS && tile * PI2_TILE_ROWS + r < m->rows; r++) {
            rows[r] = m->gguf + (tile * PI2_TILE_ROWS + r) * row_bytes;
        }
        m->format->pack_tile(m->tiles + tile * pi2_tile_bytes(m->format, m->columns), rows, m->blocks);
    }
}

static matrix make_matrix(test_random *random, const pi2_weight_format *format, size_t rows, size_t blocks) {
    matrix m = {.format = format, .rows = rows, .columns = blocks * format->block_columns, .blocks = blocks};
    m.tile_count = (rows + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS;
    m.scale_block_bytes = pi2_neuron_scale_block_bytes(format, rows);
    m.gguf = test_aligned_alloc(rows * pi2_row_bytes(format, m.columns));
    test_random_blocks(random, format, m.gguf, rows * blocks);
    m.tiles = test_aligned_alloc(m.tile_count * pi2_tile_bytes(format, m.columns));
    pack_tiles(&m);
    m.row_values = calloc(rows, sizeof *m.row_values);
    m.row_scales = calloc(rows, sizeof *m.row_scales);
    m.column_values = calloc(m.columns, sizeof *m.column_values);
    m.scale_blocks = test_aligned_alloc(blocks * m.scale_block_bytes);
    split_matrix(&m);
    return m;
}

static void free_parts(matrix *m) {
    for (size_t r = 0; r < m->rows; r++) free_odd(m->row_values[r]);
    for (size_t r = 0; r < m->rows; r++) free_odd(m->row_scales[r]);
    for (size_t c = 0; c < m->columns; c++) free_odd(m->column_values[c]);
}

static void free_matrix(matrix *m) {
    free_parts(m);
    free(m->gguf);
    free(m->tiles);
    free(m->row_values);
    free(m->row_scales);
    free(m->column_values);
    free(m->scale_blocks);
}

/* The scalar dense kernel over all rows, its last tile's padding included. */
static void run_dense(const matrix *m, float *out, const pi2_activations *x, size_t token, bool start) {
    const pi2_matmul_kernel *dense = pi2_matmul_select(m->format->type, PI2_CPU_NONE);
    dense->run(out, m->tile_count * PI2_TILE_ROWS, m->tiles, m->tile_count, m->columns, 0, x, token, 1, start);
}

/* ---- rows ---- */

static void check_rows(const matrix *m, const pi2_activations *x, size_t token, size_t first, size_t count) {
    float *want = test_aligned_alloc((m->tile_count * PI2_TILE_ROWS) * sizeof *want);
    float *got = test_aligned_alloc((count + 32) * sizeof *got);
    run_dense(m, want, x, token, true);
    for (size_t i = 0; i < pi2_neuron_kernel_count; i++) {
        const pi2_neuron_kernel *kernel = &pi2_neuron_kernels[i];
        if (kernel->format != m->format->type || !can_run(kernel)) continue;
        for (size_t j = 0; j < count + 32; j++) got[j] = guard_value;
        kernel->rows(got + 16, count, m->row_values + first, m->row_scales + first, m->columns, x, token);
        for (size_t j = 0; j < count + 32; j++) {
            const float right = j < 16 || j >= count + 16 ? guard_value : want[first + j - 16];
            if (!same_bits(got[j], right)) {
                fail_msg("%s: rows %zu + %zu, blocks %zu: row %zu is %a, want %a", kernel->name, first, count,
                         m->blocks, j - 16, (double)got[j], (double)right);
            }
        }
        kernels_checked++;
    }
    free(want);
    free(got);
}

static void rows_have_the_dense_bits(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t f = 0; f < count; f++) {
        const size_t most = formats[f]->block_columns == 256 ? 5 : formats[f]->block_columns == 32 ? 13 : 70;
        for (size_t blocks = 1; blocks <= most; blocks++) {
            matrix m = make_matrix(&random, formats[f], 1 + test_random_u32(&random) % 40, blocks);
            pi2_activations x;
            void *memory = test_aligned_alloc(test_activations_bytes(formats[f]->activation, 3, m.columns));
            test_random_activations(&random, &x, formats[f]->activation, 3, m.columns, memory);
            for (size_t token = 0; token < 3; token++) {
                const size_t first = test_random_u32(&random) % m.rows;
                check_rows(&m, &x, token, 0, m.rows);
                check_rows(&m, &x, token, first, test_random_u32(&random) % (m.rows - first + 1));
            }
            free(memory);
            free_matrix(&m);
        }
    }
}

/* ---- columns ---- */

typedef struct hidden {
    void *memory;
    pi2_activations x;
    pi2_neuron_columns list;
    pi2_neuron_block *blocks;
    const uint8_t **values;
    int8_t *activations;
    uint8_t *places;
} hidden;

static int8_t random_activation(test_random *random, unsigned extreme) {
    if (extreme == 1) return 127;
    if (extreme == 2) return -127;
    if (extreme == 3) return test_random_u32(random) % 2 ? 127 : -127;
    return (int8_t)((int)(test_random_u32(random) % 255) - 127);
}

static void fill_floats(test_random *random, float *x, size_t columns, unsigned percent) {
    for (size_t k = 0; k < columns; k++) {
        x[k] = test_random_u32(random) % 100 < percent ? test_random_float(random) : 0.0f;
        if (test_random_u32(random) % 50 == 0) x[k] = -0.0f;
        if (percent && test_random_u32(random) % 500 == 0) x[k] = NAN;
    }
}

/* One token whose activations are not 0 with a chance of `percent`. */
static void fill_activations(test_random *random, hidden *h, pi2_activation_kind kind, size_t columns,
                             unsigned percent) {
    const size_t bytes = test_activations_bytes(kind, 1, columns);
    h->memory = test_aligned_alloc(bytes);
    memset(h->memory, 0, bytes);
    pi2_activations_layout(&h->x, kind, 1, columns, h->memory);
    if (kind == PI2_ACTIVATION_F32) {
        h->x.floats = h->memory;
        h->x.float_stride = columns;
        fill_floats(random, h->memory, columns, percent);
        return;
    }
    const size_t block = kind == PI2_ACTIVATION_Q8_256 ? 256 : 32, summed = block == 256 ? 16 : 32;
    int8_t *values = h->memory;
    float *scales = (float *)((uintptr_t)h->x.scales);
    int16_t *sums = (int16_t *)((uintptr_t)h->x.sums);
    for (size_t b = 0; b < columns / block; b++) {
        const unsigned extreme = test_random_u32(random) % 12;
        const bool is_nan = test_random_u32(random) % 29 == 0;
        bool any = false;
        for (size_t k = b * block; k < (b + 1) * block; k++) {
            if (is_nan || test_random_u32(random) % 100 >= percent) continue;
            values[k] = random_activation(random, extreme);
            sums[k / summed] = (int16_t)(sums[k / summed] + values[k]);
            any = any || values[k] != 0;
        }
        scales[b] = is_nan ? NAN : any ? fabsf(test_random_float(random)) + 0x1p-20f : 0.0f;
    }
}

/* Lists what must be listed and, now and then, what may be. */
static void fill_list(test_random *random, hidden *h, const matrix *m) {
    const size_t block = m->format->block_columns;
    size_t neurons = 0;
    h->blocks = calloc(m->blocks + 1, sizeof *h->blocks);
    h->values = calloc(m->columns + 1, sizeof *h->values);
    h->activations = calloc(m->columns + 1, 1);
    h->places = calloc(m->columns + 1, 1);
    h->list = (pi2_neuron_columns){.rows = m->rows, .blocks = h->blocks, .values = h->values,
                                   .activations = h->activations, .places = h->places};
    for (size_t b = 0; b < m->blocks; b++) {
        pi2_neuron_block *to = &h->blocks[h->list.block_count];
        const bool floats = block == 1;
        const float scale = floats ? h->x.floats[b] : h->x.scales[b];
        *to = (pi2_neuron_block){m->scale_blocks + b * m->scale_block_bytes, scale, (uint32_t)neurons, 0};
        for (size_t k = 0; k < block; k++) {
            const int8_t a = floats ? 0 : h->x.values[b * block + k];
            if (!(floats ? scale != 0.0f : a != 0) && test_random_u32(random) % 60 != 0) continue;
            h->values[neurons] = m->column_values[b * block + k];
            h->activations[neurons] = a;
            h->places[neurons++] = (uint8_t)k;
            to->count++;
        }
        if (to->count || isnan(scale) || (!floats && test_random_u32(random) % 20 == 0)) h->list.block_count++;
    }
}

static void free_hidden(hidden *h) {
    free(h->memory);
    free(h->blocks);
    free(h->values);
    free(h->activations);
    free(h->places);
}

/* The rows of one call, computed after cutting the list of blocks at `cut`. */
static void run_columns(const pi2_neuron_kernel *kernel, float *out, size_t begin, size_t count,
                        const pi2_neuron_columns *x, size_t cut, bool start) {
    pi2_neuron_columns part = *x;
    part.block_count = cut;
    kernel->columns(out, begin, count, &part, start);
    part.blocks += cut;
    part.block_count = x->block_count - cut;
    kernel->columns(out, begin, count, &part, false);
}

typedef struct range {
    size_t begin, count, cut;
    bool start;
} range;

static void check_range(const matrix *m, const hidden *h, const float *first, const float *want, range r) {
    const size_t all = m->tile_count * PI2_TILE_ROWS;
    float *got = test_aligned_alloc((all + 64) * sizeof *got);
    for (size_t i = 0; i < pi2_neuron_kernel_count; i++) {
        const pi2_neuron_kernel *kernel = &pi2_neuron_kernels[i];
        if (kernel->format != m->format->type || !can_run(kernel)) continue;
        for (size_t j = 0; j < all + 64; j++) got[j] = guard_value;
        for (size_t j = 0; j < r.count; j++) got[32 + r.begin + j] = r.start ? NAN : first[r.begin + j];
        run_columns(kernel, got + 32, r.begin, r.count, &h->list, r.cut, r.start);
        for (size_t j = 0; j < all + 64; j++) {
            const bool written = j >= 32 + r.begin && j < 32 + r.begin + r.count;
            const float right = written ? want[j - 32] : guard_value;
            if (!same_bits(got[j], right)) {
                fail_msg("%s: rows %zu + %zu of %zu, blocks %zu of %zu cut at %zu, start %d: row %zu is %a, want %a",
                         kernel->name, r.begin, r.count, m->rows, h->list.block_count, m->blocks, r.cut, r.start,
                         j - 32, (double)got[j], (double)right);
            }
        }
        kernels_checked++;
    }
    free(got);
}

/* All rows, every first group with some count, and some cuts of the list. */
static void check_columns(test_random *random, const matrix *m, unsigned percent) {
    const size_t all = m->tile_count * PI2_TILE_ROWS;
    float *first = test_aligned_alloc(all * sizeof *first), *want = test_aligned_alloc(all * sizeof *want);
    hidden h;
    fill_activations(random, &h, m->format->activation, m->columns, percent);
    fill_list(random, &h, m);
    for (size_t start = 0; start < 2; start++) {
        for (size_t r = 0; r < all; r++) first[r] = test_random_float(random);
        memcpy(want, first, all * sizeof *want);
        run_dense(m, want, &h.x, 0, start == 1);
        for (size_t begin = 0; begin < m->rows; begin += PI2_NEURON_GROUP_ROWS) {
            const size_t cut = test_random_u32(random) % (h.list.block_count + 1);
            const size_t count = begin == 0 ? m->rows : test_random_u32(random) % (m->rows - begin + 1);
            check_range(m, &h, first, want, (range){begin, count, cut, start == 1});
            check_range(m, &h, first, want, (range){begin, m->rows - begin, cut, start == 1});
        }
    }
    free(first);
    free(want);
    free_hidden(&h);
}

static void columns_have_the_dense_bits(void **state) {
    (void)state;
    static const unsigned percents[] = {0, 3, 10, 50, 100};
    static const size_t row_counts[] = {1, 16, 33, 64, 96, 128, 160, 205, 256, 300};
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t f = 0; f < count; f++) {
        for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
            const size_t most = formats[f]->block_columns == 256 ? 3 : formats[f]->block_columns == 32 ? 9 : 90;
            matrix m = make_matrix(&random, formats[f], row_counts[i], 1 + test_random_u32(&random) % most);
            for (size_t p = 0; p < sizeof percents / sizeof percents[0]; p++) check_columns(&random, &m, percents[p]);
            free_matrix(&m);
        }
    }
}

/* All values and scales of sub-blocks the largest or the smallest ones. */
static void make_extreme(matrix *m, unsigned kind) {
    static const uint8_t bytes[4] = {0x00, 0xff, 0x80, 0x7f};
    const unsigned bits = m->format->parts.code_bits;
    uint8_t codes[256];
    memset(codes, bytes[kind % 4] & ((1 << bits) - 1), sizeof codes);
    for (size_t b = 0; b < m->rows * m->blocks; b++) {
        uint8_t *block = m->gguf + b * m->format->block_bytes;
        m->format->put_codes(block, codes);
        if (m->format->type == PI2_Q6_K) memset(block + 192, kind & 4 ? 0x80 : 0x7f, 16);
        if (m->format->type == PI2_Q4_K) memset(block + 4, 0xff, 12);
    }
    pack_tiles(m);
    free_parts(m);
    split_matrix(m);
}

/* All activations `a`. */
static void make_equal(hidden *h, const matrix *m, int8_t a) {
    const size_t summed = m->format->block_columns == 256 ? 16 : 32;
    int16_t *sums = (int16_t *)((uintptr_t)h->x.sums);
    memset(h->memory, (uint8_t)a, m->columns);
    for (size_t b = 0; b < m->blocks; b++) ((float *)((uintptr_t)h->x.scales))[b] = 1.5f;
    for (size_t s = 0; s < m->columns / summed; s++) sums[s] = (int16_t)(a * (int)summed);
}

/* No sum on the way may overflow. */
static void extremes_do_not_overflow(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t f = 0; f < count; f++) {
        for (unsigned kind = 0; formats[f]->block_columns > 1 && kind < 16; kind++) {
            matrix m = make_matrix(&random, formats[f], 130, 2);
            hidden h;
            float want[144];
            make_extreme(&m, kind);
            fill_activations(&random, &h, formats[f]->activation, m.columns, 0);
            make_equal(&h, &m, kind & 8 ? -127 : 127);
            fill_list(&random, &h, &m);
            run_dense(&m, want, &h.x, 0, true);
            check_range(&m, &h, want, want, (range){0, m.rows, 1, true});
            check_rows(&m, &h.x, 0, 0, m.rows);
            free_hidden(&h);
            free_matrix(&m);
        }
    }
}

/* ---- what may be left out ---- */

/* Of two columns (blocks) the first gives a chain of -0, the second is zero: dense ends at +0. */
static void tiny_products_forbid_skipping(void **state) {
    (void)state;
    const pi2_weight_format *format = pi2_weight_format_find(PI2_F32);
    const float weights[2] = {-0x1p-50f, 1.0f};
    float x[2] = {0x1p-120f, 0.0f};
    uint8_t tile[128] = {0};
    const uint8_t *rows[PI2_TILE_ROWS] = {(const uint8_t *)weights};
    format->pack_tile(tile, rows, 2);
    pi2_activations a = {.kind = PI2_ACTIVATION_F32, .token_count = 1, .columns = 2, .float_stride = 2, .floats = x};
    float dense[PI2_TILE_ROWS], sparse[1] = {1.0f};
    pi2_matmul_select(PI2_F32, PI2_CPU_NONE)->run(dense, 16, tile, 1, 2, 0, &a, 0, 1, true);
    uint8_t column[128] = {0};
    memcpy(column, &weights[0], sizeof weights[0]);
    const uint8_t *values[1] = {column};
    const pi2_neuron_block block = {NULL, x[0], 0, 1};
    const pi2_neuron_columns list = {.rows = 1, .block_count = 1, .blocks = &block, .values = values};
    pi2_neuron_select(PI2_F32, PI2_CPU_NONE)->columns(sparse, 0, 1, &list, true);
    assert_true(dense[0] == 0.0f && !signbit(dense[0])); /* the premise: here skipping would show */
    assert_true(sparse[0] == 0.0f && signbit(sparse[0]));
    assert_true(x[0] < PI2_LEAST_HIDDEN);
    assert_true(PI2_LEAST_HIDDEN / 127 >= 0x1p-91f); /* the scale of a block that has such a value */
}

/* ---- the list ---- */

static void every_format_has_one_specification(void **state) {
    (void)state;
    size_t count = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t f = 0; f < count; f++) {
        size_t scalars = 0;
        for (size_t i = 0; i < pi2_neuron_kernel_count; i++) {
            const pi2_neuron_kernel *kernel = &pi2_neuron_kernels[i];
            scalars += kernel->format == formats[f]->type && kernel->cpu_required == PI2_CPU_NONE;
        }
        assert_int_equal(scalars, 1);
        assert_non_null(pi2_neuron_select(formats[f]->type, pi2_cpu_features()));
    }
    assert_null(pi2_neuron_select((pi2_weight_type)16, pi2_cpu_features()));
}

/* A CPU that has just what a kernel needs runs it: no later line needs less. */
static void every_kernel_is_somewhere_the_best(void **state) {
    (void)state;
    for (size_t i = 0; i < pi2_neuron_kernel_count; i++) {
        const pi2_neuron_kernel *kernel = &pi2_neuron_kernels[i];
        assert_ptr_equal(pi2_neuron_select(kernel->format, kernel->cpu_required), kernel);
    }
}

int main(void) {
    for (size_t i = 0; i < pi2_neuron_kernel_count; i++) {
        if (can_run(&pi2_neuron_kernels[i])) continue;
        printf("skipped: %s (this CPU lacks it, or PI2_CPU hides it)\n", pi2_neuron_kernels[i].name);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_have_the_dense_bits),
        cmocka_unit_test(columns_have_the_dense_bits),
        cmocka_unit_test(extremes_do_not_overflow),
        cmocka_unit_test(tiny_products_forbid_skipping),
        cmocka_unit_test(every_format_has_one_specification),
        cmocka_unit_test(every_kernel_is_somewhere_the_best),
    };
    const int failures = cmocka_run_group_tests(tests, NULL, NULL);
    printf("comparisons of kernels: %u\n", kernels_checked);
    return failures;
}
