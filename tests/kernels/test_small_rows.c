/* Goal:   every kernel of small rows gives the exact sums that the header defines, up to the largest numbers.
 * Method: random and extreme rows of many lengths against sums written down from the definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu_features.h"
#include "kernels/small_rows/small_rows.h"
#include "support/tiny_model.h"

enum { MOST = 4096 + 96, MOST_ROWS = 11 };

static uint8_t blocks[MOST / PI2_SMALL_BLOCK * 12], scales[MOST / PI2_SMALL_BLOCK];
static int8_t rows[MOST_ROWS * MOST];
static int16_t x[MOST];

static int value_of(unsigned bits, const uint8_t *block, int i) {
    int u = block[i % 8] >> (2 * (i / 8)) & 3;
    if (bits == 3) u += 4 * (block[8 + i % 4] >> (i / 4) & 1);
    return 2 * u - ((1 << bits) - 1);
}

static int64_t wanted_low_bit(unsigned bits, size_t columns) {
    int64_t sum = 0;
    for (size_t c = 0; c < columns; c++) {
        const size_t b = c / PI2_SMALL_BLOCK;
        sum += (int64_t)scales[b] * x[c] *
               value_of(bits, blocks + b * pi2_small_block_bytes(bits), (int)(c % PI2_SMALL_BLOCK));
    }
    return sum;
}

static float wanted_int8(const int8_t *row, size_t columns) {
    int64_t sum = 0;
    for (size_t c = 0; c < columns; c++) sum += (int64_t)row[c] * x[c];
    return (float)sum;
}

/* 0 rows, fewer than are computed side by side, as many, and more; nothing behind them is written. */
static void compare_int8(const pi2_small_kernel *kernel, size_t columns) {
    static const size_t counts[] = { 0, 1, 3, 4, 8, MOST_ROWS };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        float sums[MOST_ROWS + 1];
        for (size_t r = 0; r <= MOST_ROWS; r++) sums[r] = 0.5f;
        kernel->int8(sums, rows, NULL, counts[i], x, columns);
        for (size_t r = 0; r < counts[i]; r++) {
            assert_true(sums[r] == wanted_int8(rows + r * columns, columns));
        }
        assert_true(sums[counts[i]] == 0.5f);
        uint32_t numbers[MOST_ROWS]; /* out of order, and one of them twice */
        for (uint32_t r = 0; r < MOST_ROWS; r++) numbers[r] = r == 1 ? MOST_ROWS - 1 : MOST_ROWS - 1 - r;
        kernel->int8(sums, rows, numbers, counts[i], x, columns);
        for (size_t r = 0; r < counts[i]; r++) {
            assert_true(sums[r] == wanted_int8(rows + numbers[r] * columns, columns));
        }
        assert_true(sums[counts[i]] == 0.5f);
    }
}

/* extreme: 0 random, 1 all largest, 2 all smallest. */
static void fill(uint64_t seed, int extreme) {
    for (size_t i = 0; i < sizeof blocks; i++) {
        blocks[i] = extreme == 1 ? 255 : extreme == 2 ? 0 : (uint8_t)pi2_tiny_random(&seed);
    }
    for (size_t i = 0; i < sizeof scales; i++) scales[i] = extreme ? 255 : (uint8_t)pi2_tiny_random(&seed);
    for (size_t i = 0; i < sizeof rows; i++) rows[i] = extreme ? -128 : (int8_t)pi2_tiny_random(&seed);
    for (size_t i = 0; i < MOST; i++) {
        x[i] = extreme == 1 ? 32767 : extreme == 2 ? -32767 : (int16_t)(pi2_tiny_random(&seed) % 65535 - 32767);
    }
}

static void every_kernel_gives_the_exact_sums(void **state) {
    (void)state;
    static const size_t lengths[] = { 32, 64, 96, 256, 288, 512, 544, 576, 4096, MOST };
    const unsigned features = pi2_cpu_features();
    size_t tested = 0;
    for (size_t k = 0; k < pi2_small_kernel_count; k++) {
        const pi2_small_kernel *kernel = &pi2_small_kernels[k];
        if (kernel->cpu_required & ~features) continue;
        tested++;
        for (int extreme = 0; extreme < 3; extreme++) {
            for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
                fill(7 + l, extreme);
                for (unsigned bits = 2; bits <= 3; bits++) {
                    assert_true(kernel->low_bit(blocks, scales, bits, x, lengths[l]) ==
                                wanted_low_bit(bits, lengths[l]));
                }
                compare_int8(kernel, lengths[l]);
            }
        }
    }
    assert_true(tested > 0);
    assert_int_equal(pi2_small_kernels[0].cpu_required, PI2_CPU_NONE);
}

static void the_best_is_chosen(void **state) {
    (void)state;
    assert_string_equal(pi2_small_select(PI2_CPU_NONE)->name, "scalar");
    for (size_t k = 0; k < pi2_small_kernel_count; k++) {
        assert_string_equal(pi2_small_select(pi2_small_kernels[k].cpu_required)->name, pi2_small_kernels[k].name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_kernel_gives_the_exact_sums),
                                        cmocka_unit_test(the_best_is_chosen) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
