/*
 * Goal:   every kernel of the list gives the same bits as its format's scalar kernel, for any
 *         shape and split, and writes nothing outside its rows; and the scalar kernel is right.
 * Method: random tiles and activations (PI2_SEED replays a run) over many shapes; guard values
 *         around out. The scalar kernel is held against a sum in double of decoded weights.
 *         PI2_CPU lowers the CPU; kernels that it lacks are named as skipped. Those of AVX-VNNI
 *         are tested on every CPU with AVX2, too, with their one instruction emulated.
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
#include "support/emulated_kernels.h"
#include "support/random_weights.h"

static const float guard_value = -77.25f;

typedef struct shape {
    size_t tile_count, blocks, blocks_before, token_begin, token_count;
    bool start;
} shape;

typedef struct problem {
    const pi2_weight_format *format;
    shape shape;
    size_t columns, column_begin, out_stride, out_count;
    uint8_t *tiles;
    void *memory;
    pi2_activations x;
    float *first; /* what out holds before: guards, and chains to continue */
} problem;

static problem make_problem(test_random *random, const pi2_weight_format *format, shape s) {
    problem p = {.format = format, .shape = s};
    p.columns = s.blocks * format->block_columns;
    p.column_begin = s.blocks_before * format->block_columns;
    p.out_stride = s.tile_count * PI2_TILE_ROWS + 1 + test_random_u32(random) % 32;
    p.out_count = (s.token_count + 1) * p.out_stride + 32;
    p.tiles = test_aligned_alloc(s.tile_count * pi2_tile_bytes(format, p.columns));
    test_random_tiles(random, format, p.tiles, s.tile_count, p.columns);
    const size_t tokens = s.token_begin + s.token_count;
    const size_t all_columns = p.column_begin + p.columns;
    p.memory = test_aligned_alloc(test_activations_bytes(format->activation, tokens, all_columns));
    test_random_activations(random, &p.x, format->activation, tokens, all_columns, p.memory);
    p.first = test_aligned_alloc(p.out_count * sizeof(float));
    for (size_t i = 0; i < p.out_count; i++) p.first[i] = guard_value;
    for (size_t t = 0; t < s.token_count; t++) {
        for (size_t r = 0; r < s.tile_count * PI2_TILE_ROWS; r++) {
            p.first[16 + t * p.out_stride + r] = s.start ? NAN : test_random_float(random);
        }
    }
    return p;
}

static void free_problem(problem *p) {
    free(p->tiles);
    free(p->memory);
    free(p->first);
}

static float *run_kernel(const pi2_matmul_kernel *kernel, const problem *p) {
    float *out = test_aligned_alloc(p->out_count * sizeof(float));
    memcpy(out, p->first, p->out_count * sizeof(float));
    kernel->run(out + 16, p->out_stride, p->tiles, p->shape.tile_count, p->columns, p->column_begin,
                &p->x, p->shape.token_begin, p->shape.token_count, p->shape.start);
    return out;
}

static void check_equal(const char *name, const problem *p, const float *want, const float *got) {
    for (size_t i = 0; i < p->out_count; i++) {
        if (memcmp(&want[i], &got[i], sizeof(float)) == 0) continue;
        const size_t place = i - 16;
        fail_msg("%s: tiles %zu, blocks %zu after %zu, tokens %zu after %zu, start %d: token %zu "
                 "row %zu "
                 "is %a, want %a",
                 name, p->shape.tile_count, p->shape.blocks, p->shape.blocks_before,
                 p->shape.token_count, p->shape.token_begin, p->shape.start, place / p->out_stride,
                 place % p->out_stride, (double)got[i], (double)want[i]);
    }
}

static void check_guards(const problem *p, const float *out) {
    const size_t rows = p->shape.tile_count * PI2_TILE_ROWS, written_tokens = p->shape.token_count;
    for (size_t i = 0; i < p->out_count; i++) {
        const bool written =
            i >= 16 && (i - 16) / p->out_stride < written_tokens && (i - 16) % p->out_stride < rows;
        if (written)
            assert_true(!isnan(out[i]));
        else
            assert_true(out[i] == guard_value);
    }
}

/* Activation k of a token as the float that its quantised form stands for. */
static double activation_value(const pi2_activations *x, size_t token, size_t k) {
    if (x->kind == PI2_ACTIVATION_F32) return x->floats[token * x->float_stride + k];
    const size_t block = x->kind == PI2_ACTIVATION_Q8_256 ? 256 : 32;
    return (double)x->scales[token * x->block_stride + k / block] *
           x->values[token * x->value_stride + k];
}

/* The scalar kernel against decoded weights: differences of rounding only. */
static void check_scalar(const problem *p, const float *out) {
    const pi2_weight_format *format = p->format;
    uint8_t *blocks = test_aligned_alloc(pi2_row_bytes(format, p->columns));
    float *weights = test_aligned_alloc(p->columns * sizeof(float));
    for (size_t r = 0; r < p->shape.tile_count * PI2_TILE_ROWS; r++) {
        const uint8_t *tile = p->tiles + r / PI2_TILE_ROWS * pi2_tile_bytes(format, p->columns);
        format->unpack_row(blocks, tile, (uint32_t)(r % PI2_TILE_ROWS), p->shape.blocks);
        format->decode_row(weights, blocks, p->shape.blocks);
        for (size_t t = 0; t < p->shape.token_count; t++) {
            const size_t place = 16 + t * p->out_stride + r;
            double sum = p->shape.start ? 0.0 : p->first[place], magnitude = fabs(sum);
            for (size_t k = 0; k < p->columns; k++) {
                const double product =
                    weights[k] *
                    activation_value(&p->x, p->shape.token_begin + t, p->column_begin + k);
                sum += product;
                magnitude += fabs(product);
            }
            if (fabs(out[place] - sum) > 1e-5 * magnitude + 1e-30) {
                fail_msg("%s scalar: row %zu token %zu is %g, want %g", format->name, r, t,
                         (double)out[place], sum);
            }
        }
    }
    free(blocks);
    free(weights);
}

static unsigned kernels_checked;

/* The library's kernels, then the emulated ones. */
static size_t kernel_count(void) { return pi2_matmul_kernel_count + test_emulated_kernel_count; }

static const pi2_matmul_kernel *kernel_at(size_t i) {
    if (i < pi2_matmul_kernel_count) return &pi2_matmul_kernels[i];
    return &test_emulated_kernels[i - pi2_matmul_kernel_count];
}

static void check_shape(test_random *random, const pi2_weight_format *format, shape s) {
    problem p = make_problem(random, format, s);
    const pi2_matmul_kernel *scalar = pi2_matmul_select(format->type, PI2_CPU_NONE);
    float *want = run_kernel(scalar, &p);
    check_guards(&p, want);
    check_scalar(&p, want);
    for (size_t i = 0; i < kernel_count(); i++) {
        const pi2_matmul_kernel *kernel = kernel_at(i);
        if (kernel->format != format->type || kernel == scalar) continue;
        if (kernel->cpu_required & ~pi2_cpu_features()) continue;
        float *got = run_kernel(kernel, &p);
        check_equal(kernel->name, &p, want, got);
        free(got);
        kernels_checked++;
    }
    free(want);
    free_problem(&p);
}

static void kernels_agree_with_the_specification(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        const size_t unit = formats[f]->block_columns == 1 ? 7 : 1;
        for (size_t tokens = 1; tokens <= 40; tokens++) {
            const shape s = {1 + test_random_u32(&random) % 3,
                             unit * (1 + test_random_u32(&random) % 3),
                             unit * (test_random_u32(&random) % 3),
                             test_random_u32(&random) % 3,
                             tokens,
                             test_random_u32(&random) % 2 == 0};
            check_shape(&random, formats[f], s);
        }
        for (size_t tiles = 1; tiles <= 9; tiles++) {
            for (size_t tokens = 1; tokens <= 2; tokens++) {
                const shape s = {tiles,  unit * (1 + test_random_u32(&random) % 12),
                                 0,      0,
                                 tokens, tiles % 2 == 0};
                check_shape(&random, formats[f], s);
            }
        }
    }
}

/* Long rows and many tokens meet every inner split of columns and tokens. */
static void kernels_agree_on_long_rows(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        const size_t columns = 33024; /* 129 blocks of 256 */
        check_shape(&random, formats[f],
                    (shape){1, columns / formats[f]->block_columns, 0, 0, 1, true});
        check_shape(&random, formats[f],
                    (shape){1, columns / formats[f]->block_columns, 0, 0, 7, false});
        /* Tokens that need two chunks where a format is spread and its sub-blocks are short. */
        const size_t tokens = formats[f]->sub_columns == 16 ? 380 : 150;
        check_shape(&random, formats[f],
                    (shape){2, 512 / formats[f]->block_columns, 0, 0, tokens, true});
        /* One token and tiles that are long enough to be streams of their own; one tile is left over. */
        for (size_t tiles = 4; tiles <= 9; tiles += 5) {
            check_shape(&random, formats[f],
                        (shape){tiles, 4096 / formats[f]->block_columns, 0, 0, 1, tiles == 4});
            check_shape(&random, formats[f],
                        (shape){tiles, 4096 / formats[f]->block_columns, 1, 1, 1, tiles == 9});
        }
    }
}

/* Down is summed cluster by cluster: cutting the columns must not change a bit. */
static void cutting_columns_keeps_the_bits(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    for (size_t i = 0; i < kernel_count(); i++) {
        const pi2_matmul_kernel *kernel = kernel_at(i);
        if (kernel->cpu_required & ~pi2_cpu_features()) continue;
        const pi2_weight_format *format = pi2_weight_format_find((uint32_t)kernel->format);
        problem p = make_problem(&random, format, (shape){1, 12, 0, 0, 5, true});
        float *want = run_kernel(kernel, &p),
              *got = test_aligned_alloc(p.out_count * sizeof(float));
        memcpy(got, p.first, p.out_count * sizeof(float));
        const size_t row_bytes = pi2_row_bytes(format, p.columns), part = 4 * format->block_columns;
        uint8_t *blocks = test_aligned_alloc(PI2_TILE_ROWS * row_bytes);
        uint8_t *tile = test_aligned_alloc(pi2_tile_bytes(format, part));
        for (uint32_t r = 0; r < PI2_TILE_ROWS; r++)
            format->unpack_row(blocks + r * row_bytes, p.tiles, r, 12);
        for (size_t cut = 0; cut < 3; cut++) {
            const uint8_t *rows[PI2_TILE_ROWS];
            for (size_t r = 0; r < PI2_TILE_ROWS; r++) {
                rows[r] = blocks + r * row_bytes + cut * pi2_row_bytes(format, part);
            }
            format->pack_tile(tile, rows, 4);
            kernel->run(got + 16, p.out_stride, tile, 1, part, cut * part, &p.x, 0, 5, cut == 0);
        }
        check_equal(kernel->name, &p, want, got);
        free(want);
        free(got);
        free(blocks);
        free(tile);
        free_problem(&p);
    }
}

static void every_format_has_one_specification(void **state) {
    (void)state;
    size_t count = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        size_t scalars = 0;
        for (size_t i = 0; i < pi2_matmul_kernel_count; i++) {
            scalars += pi2_matmul_kernels[i].format == formats[f]->type &&
                       pi2_matmul_kernels[i].cpu_required == PI2_CPU_NONE;
        }
        assert_int_equal(scalars, 1);
        assert_non_null(pi2_matmul_select(formats[f]->type, pi2_cpu_features()));
    }
    assert_null(pi2_matmul_select((pi2_weight_type)19, pi2_cpu_features()));
}

/* A CPU that has just what a kernel needs runs it: no later line needs less. */
static void every_kernel_is_somewhere_the_best(void **state) {
    (void)state;
    for (size_t i = 0; i < pi2_matmul_kernel_count; i++) {
        const pi2_matmul_kernel *kernel = &pi2_matmul_kernels[i];
        assert_ptr_equal(pi2_matmul_select(kernel->format, kernel->cpu_required), kernel);
    }
}

int main(void) {
    for (size_t i = 0; i < kernel_count(); i++) {
        if (kernel_at(i)->cpu_required & ~pi2_cpu_features()) {
            printf("skipped: %s (this CPU lacks it, or PI2_CPU hides it)\n", kernel_at(i)->name);
        }
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_agree_with_the_specification),
        cmocka_unit_test(kernels_agree_on_long_rows),
        cmocka_unit_test(cutting_columns_keeps_the_bits),
        cmocka_unit_test(every_format_has_one_specification),
        cmocka_unit_test(every_kernel_is_somewhere_the_best),
    };
    const int failures = cmocka_run_group_tests(tests, NULL, NULL);
    printf("comparisons of kernels: %u\n", kernels_checked);
    return failures;
}
