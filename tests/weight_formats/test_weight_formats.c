/*
 * Goal:   every weight format keeps its rows bit for bit in a tile, and decodes them as the
 *         format's definition says.
 * Method: random rows (PI2_SEED replays a run), several block counts, rows left out; decoding
 *         against formulas written here from the GGUF definitions, column by column, in double, or
 *         against blocks that another implementation decoded.
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

#include "support/random_weights.h"

enum { MAX_BLOCKS = 40, GUARD_BYTES = 64, GUARD = 0xa5 };

static double half_value(const uint8_t *bytes) {
    const int bits = bytes[0] | bytes[1] << 8;
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double sign = bits & 0x8000 ? -1.0 : 1.0;
    if (exponent == 0) return sign * ldexp(mantissa, -24);
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    return sign * ldexp(1024 + mantissa, exponent - 25);
}

/* Bit `bit` of a little-endian bit string. */
static int bit_at(const uint8_t *bytes, size_t bit) { return bytes[bit / 8] >> (bit % 8) & 1; }

static int nibble(const uint8_t *qs, size_t column_in_32) {
    return column_in_32 < 16 ? qs[column_in_32] & 15 : qs[column_in_32 - 16] >> 4;
}

static double q4_k_value(const uint8_t *block, size_t k) {
    const uint8_t *p = block + 4;
    const size_t s = k / 32;
    const int sc = s < 4 ? p[s] & 63 : (p[s + 4] & 15) + 16 * (p[s - 4] >> 6);
    const int m = s < 4 ? p[s + 4] & 63 : (p[s + 4] >> 4) + 16 * (p[s] >> 6);
    const uint8_t byte = block[16 + k / 64 * 32 + k % 32];
    const int q = s % 2 ? byte >> 4 : byte & 15;
    return half_value(block) * sc * q - half_value(block + 2) * m;
}

static double q6_k_value(const uint8_t *block, size_t k) {
    const size_t half = k >> 7, in_half = k & 127, i = in_half & 31;
    const uint8_t *ql = block + 64 * half, *qh = block + 128 + 32 * half;
    int q = 0;
    switch (in_half >> 5) {
    case 0: q = (ql[i] & 15) + 16 * (qh[i] & 3); break;
    case 1: q = (ql[i + 32] & 15) + 16 * (qh[i] >> 2 & 3); break;
    case 2: q = (ql[i] >> 4) + 16 * (qh[i] >> 4 & 3); break;
    default: q = (ql[i + 32] >> 4) + 16 * (qh[i] >> 6); break;
    }
    return half_value(block + 208) * (int8_t)block[192 + k / 16] * (q - 32);
}

static double value_by_definition(pi2_weight_type type, const uint8_t *b, size_t k) {
    float single;
    uint32_t bits;
    switch (type) {
    case PI2_F32: memcpy(&single, b, 4); return single;
    case PI2_F16: return half_value(b);
    case PI2_BF16:
        bits = (uint32_t)b[0] << 16 | (uint32_t)b[1] << 24;
        memcpy(&single, &bits, 4);
        return single;
    case PI2_Q4_0: return half_value(b) * (nibble(b + 2, k) - 8);
    case PI2_Q4_1: return half_value(b) * nibble(b + 4, k) + half_value(b + 2);
    case PI2_Q5_0: return half_value(b) * (nibble(b + 6, k) + 16 * bit_at(b + 2, k) - 16);
    case PI2_Q5_1:
        return half_value(b) * (nibble(b + 8, k) + 16 * bit_at(b + 4, k)) + half_value(b + 2);
    case PI2_Q8_0: return half_value(b) * (int8_t)b[2 + k];
    case PI2_Q4_K: return q4_k_value(b, k);
    case PI2_Q6_K: return q6_k_value(b, k);
    default: return NAN; /* types of golden_blocks.inc */
    }
}

static void check_round_trip(test_random *random, const pi2_weight_format *format,
                             size_t block_count) {
    const size_t columns = block_count * format->block_columns;
    const size_t row_bytes = pi2_row_bytes(format, columns),
                 tile_bytes = pi2_tile_bytes(format, columns);
    uint8_t *gguf = test_aligned_alloc(PI2_TILE_ROWS * row_bytes);
    uint8_t *tile = test_aligned_alloc(tile_bytes + GUARD_BYTES);
    uint8_t *back = test_aligned_alloc(row_bytes + GUARD_BYTES);
    const uint8_t *rows[PI2_TILE_ROWS];
    const uint32_t missing = test_random_u32(random) & test_random_u32(random);
    for (size_t i = 0; i < PI2_TILE_ROWS * row_bytes; i++)
        gguf[i] = (uint8_t)test_random_u32(random);
    for (size_t r = 0; r < PI2_TILE_ROWS; r++)
        rows[r] = missing >> r & 1 ? NULL : gguf + r * row_bytes;

    memset(tile, GUARD, tile_bytes + GUARD_BYTES);
    format->pack_tile(tile, rows, block_count);
    for (size_t i = 0; i < GUARD_BYTES; i++) assert_int_equal(tile[tile_bytes + i], GUARD);
    for (uint32_t r = 0; r < PI2_TILE_ROWS; r++) {
        memset(back, GUARD, row_bytes + GUARD_BYTES);
        format->unpack_row(back, tile, r, block_count);
        for (size_t i = 0; i < row_bytes; i++) {
            const uint8_t want = rows[r] ? rows[r][i] : 0;
            if (back[i] != want)
                fail_msg("%s row %u byte %zu: %d, want %d", format->name, r, i, back[i], want);
        }
        for (size_t i = 0; i < GUARD_BYTES; i++) assert_int_equal(back[row_bytes + i], GUARD);
    }
    free(gguf);
    free(tile);
    free(back);
}

static void rows_survive_the_tile(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        for (size_t blocks = 1; blocks <= MAX_BLOCKS; blocks++)
            check_round_trip(&random, formats[f], blocks);
    }
}

static void padding_is_zero(void **state) {
    (void)state;
    size_t count = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        const pi2_weight_format *format = formats[f];
        const size_t columns = 3 * format->block_columns;
        const size_t scale_bytes = 3 * format->tile_scale_bytes,
                     value_bytes = 3 * format->tile_value_bytes;
        const size_t area = pi2_tile_scale_area_bytes(format, columns),
                     bytes = pi2_tile_bytes(format, columns);
        const size_t row_bytes = pi2_row_bytes(format, columns);
        uint8_t *ones = test_aligned_alloc(row_bytes), *tile = test_aligned_alloc(bytes);
        const uint8_t *rows[PI2_TILE_ROWS];
        memset(ones, 0xff, row_bytes);
        for (size_t r = 0; r < PI2_TILE_ROWS; r++) rows[r] = ones;
        memset(tile, GUARD, bytes);
        format->pack_tile(tile, rows, 3);
        for (size_t i = 0; i < bytes; i++) {
            const bool used = i < scale_bytes || (i >= area && i < area + value_bytes);
            if (tile[i] != (used ? 0xff : 0))
                fail_msg("%s byte %zu is %d", format->name, i, tile[i]);
        }
        free(ones);
        free(tile);
    }
}

static void decoding_follows_the_definition(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    size_t count = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        const pi2_weight_format *format = formats[f];
        if (format->read_block) continue;
        const size_t columns = MAX_BLOCKS * format->block_columns;
        uint8_t *blocks = test_aligned_alloc(pi2_row_bytes(format, columns));
        float *out = test_aligned_alloc((columns + 1) * sizeof *out);
        test_random_blocks(&random, format, blocks, MAX_BLOCKS);
        out[columns] = 12345.0f;
        format->decode_row(out, blocks, MAX_BLOCKS);
        assert_true(out[columns] == 12345.0f);
        for (size_t k = 0; k < columns; k++) {
            const uint8_t *block = blocks + k / format->block_columns * format->block_bytes;
            const float want =
                (float)value_by_definition(format->type, block, k % format->block_columns);
            if (out[k] != want)
                fail_msg("%s column %zu: %a, want %a", format->name, k, (double)out[k],
                         (double)want);
        }
        free(blocks);
        free(out);
    }
}

static const struct { const char *type, *blocks, *weights; } goldens[] = {
#define GOLDEN(type, blocks, weights) {type, blocks, weights},
#include "golden_blocks.inc"
};

static uint8_t byte_of(const char *hexadecimal, size_t i) {
    const char digits[3] = {hexadecimal[2 * i], hexadecimal[2 * i + 1], 0};
    return (uint8_t)strtoul(digits, NULL, 16);
}

/* What another implementation decodes: of every format that is read by whole blocks. */
static void decoding_follows_the_reference(void **state) {
    (void)state;
    size_t count = 0, checked = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        const pi2_weight_format *format = formats[f];
        size_t g = 0;
        if (!format->read_block) continue;
        while (g < sizeof goldens / sizeof goldens[0] && strcmp(goldens[g].type, format->name) != 0) g++;
        if (g == sizeof goldens / sizeof goldens[0]) fail_msg("no golden blocks of %s", format->name);
        const size_t bytes = strlen(goldens[g].blocks) / 2, blocks = bytes / format->block_bytes;
        const size_t columns = blocks * format->block_columns;
        assert_int_equal(strlen(goldens[g].weights), 8 * columns);
        uint8_t *raw = test_aligned_alloc(bytes);
        float *out = test_aligned_alloc(columns * sizeof *out);
        for (size_t i = 0; i < bytes; i++) raw[i] = byte_of(goldens[g].blocks, i);
        format->decode_row(out, raw, blocks);
        for (size_t k = 0; k < columns; k++, checked++) {
            uint32_t bits = 0;
            float want;
            for (size_t i = 0; i < 4; i++) bits |= (uint32_t)byte_of(goldens[g].weights, 4 * k + i) << (8 * i);
            memcpy(&want, &bits, sizeof want);
            if (out[k] != want) fail_msg("%s column %zu: %a, want %a", format->name, k, (double)out[k], (double)want);
        }
        free(raw);
        free(out);
    }
    assert_true(checked > 2000);
}

/* All 65,536 halves, against the formula above. */
static void every_half_decodes(void **state) {
    (void)state;
    const pi2_weight_format *format = pi2_weight_format_find(PI2_F16);
    for (uint32_t bits = 0; bits < 65536; bits++) {
        const uint8_t bytes[2] = {(uint8_t)bits, (uint8_t)(bits >> 8)};
        float out = 0.0f;
        format->decode_row(&out, bytes, 1);
        const double want = half_value(bytes);
        if (isnan(want))
            assert_true(isnan(out));
        else
            assert_true((double)out == want && (signbit(out) != 0) == (bits >> 15 == 1));
    }
}

static void sizes_and_list(void **state) {
    (void)state;
    size_t count = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    assert_true(count >= 10);
    for (size_t f = 0; f < count; f++) {
        const pi2_weight_format *format = formats[f];
        assert_ptr_equal(pi2_weight_format_find((uint32_t)format->type), format);
        assert_string_equal(pi2_weight_type_name((uint32_t)format->type), format->name);
        if (f) assert_true(formats[f - 1]->type < format->type);
        /* A tile holds what the GGUF blocks hold, no byte more or less, but for alignment. */
        assert_int_equal(format->tile_scale_bytes + format->tile_value_bytes,
                         PI2_TILE_ROWS * format->block_bytes);
        for (size_t blocks = 1; blocks <= 32; blocks *= 2) {
            const size_t columns = blocks * format->block_columns,
                         bytes = pi2_tile_bytes(format, columns);
            const size_t rows_bytes = PI2_TILE_ROWS * pi2_row_bytes(format, columns);
            assert_int_equal(bytes % PI2_TILE_ALIGNMENT, 0);
            assert_int_equal(pi2_tile_scale_area_bytes(format, columns) % PI2_TILE_ALIGNMENT, 0);
            assert_true(bytes >= rows_bytes && bytes < rows_bytes + 2 * PI2_TILE_ALIGNMENT);
        }
    }
}

static void names_of_types(void **state) {
    (void)state;
    assert_null(pi2_weight_format_find(19));
    assert_null(pi2_weight_format_find(4));
    assert_null(pi2_weight_format_find(UINT32_MAX));
    assert_string_equal(pi2_weight_type_name(19), "IQ1_S");
    assert_string_equal(pi2_weight_type_name(40), "NVFP4");
    assert_string_equal(pi2_weight_type_name(77), "unknown type 77");
    assert_string_equal(pi2_weight_type_name(UINT32_MAX), "unknown type 4294967295");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_survive_the_tile),
        cmocka_unit_test(padding_is_zero),
        cmocka_unit_test(decoding_follows_the_definition),
        cmocka_unit_test(decoding_follows_the_reference),
        cmocka_unit_test(every_half_decodes),
        cmocka_unit_test(sizes_and_list),
        cmocka_unit_test(names_of_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
