/* block_lanes_avx512.h: as block_lanes_avx2.h, of AVX-512 with VNNI: 16 rows are a vector. */
#ifndef PI2_WEIGHT_FORMATS_BLOCK_LANES_AVX512_H
#define PI2_WEIGHT_FORMATS_BLOCK_LANES_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANES_INLINE static inline __attribute__((always_inline))

typedef __m512i lanes;
typedef __m512 float_lanes;
typedef uint32_t shifted_lanes __attribute__((vector_size(64))); /* by a count that need not be a literal */

/* Weights with signs are moved up by MOVES_SIGNED where sums can begin at minus that times the activations' sum. */
enum { LANE_ROWS = 16, SUM_LIMIT = INT32_MAX, MOVES_SIGNED = 128 };
/* matmul_spread_template.h: tiles, vectors of rows at once, tokens that 32 registers hold the sums of. */
enum { SPREAD_TILES = 2, SPREAD_MOST_PARTS = 2, SPREAD_TOKENS = 6 };

LANES_INLINE lanes load_words(const uint8_t *words) { return _mm512_loadu_si512((const void *)words); }
LANES_INLINE lanes load_halves_as_integers(const uint8_t *halves) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)halves));
}
LANES_INLINE lanes load_bytes_as_integers(const uint8_t *bytes) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)bytes));
}
LANES_INLINE lanes set_lanes(uint32_t x) { return _mm512_set1_epi32((int)x); }
LANES_INLINE lanes four_activations(const int8_t *a) {
    int32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}
LANES_INLINE lanes both(lanes a, lanes b) { return _mm512_and_si512(a, b); }
LANES_INLINE lanes either(lanes a, lanes b) { return _mm512_or_si512(a, b); }
LANES_INLINE lanes differ(lanes a, lanes b) { return _mm512_xor_si512(a, b); }
LANES_INLINE lanes right(lanes a, int bits) { return (lanes)((shifted_lanes)a >> bits); }
LANES_INLINE lanes left(lanes a, int bits) { return (lanes)((shifted_lanes)a << bits); }
LANES_INLINE lanes add_integers(lanes a, lanes b) { return _mm512_add_epi32(a, b); }
LANES_INLINE lanes multiply_integers(lanes a, lanes b) { return _mm512_mullo_epi32(a, b); }
LANES_INLINE lanes multiply_16(lanes a, lanes b) { return _mm512_mullo_epi16(a, b); }
LANES_INLINE lanes subtract_bytes(lanes a, lanes b) { return _mm512_sub_epi8(a, b); }

/* The lowest byte of each lane in all four. */
LANES_INLINE lanes spread_byte(lanes a) {
    const __m128i order = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    return _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(order));
}

LANES_INLINE lanes look_up(const int8_t book[16], lanes places) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)book)), places);
}

/* Bytes whose one bit of `pattern` is set in `bits` are negated. */
LANES_INLINE lanes negate_where(lanes a, lanes bits, lanes pattern) {
    return _mm512_mask_sub_epi8(a, _mm512_test_epi8_mask(bits, pattern), _mm512_setzero_si512(), a);
}

/* Where nothing is optimised, compilers' headers have macros for these, and masks in them that change their sign. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

/* Of a table of 8 bytes an entry: the first four and the last four of each lane's entry. */
LANES_INLINE void gather_pairs(const void *table, lanes index, lanes *first, lanes *last) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i low = _mm512_i32gather_epi64(_mm512_castsi512_si256(index), table, 8);
    const __m512i high = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(index, 1), table, 8);
    *first = _mm512_permutex2var_epi32(low, even, high);
    *last = _mm512_permutex2var_epi32(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high);
}

/* Entries of 4 bytes. */
LANES_INLINE lanes gather(const void *table, lanes index) { return _mm512_i32gather_epi32(index, table, 4); }

#pragma GCC diagnostic pop

LANES_INLINE float_lanes floats_of_bits(lanes a) { return _mm512_castsi512_ps(a); }
LANES_INLINE float_lanes load_halves(const uint8_t *halves) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)halves));
}
LANES_INLINE float_lanes set_floats(float x) { return _mm512_set1_ps(x); }
LANES_INLINE float_lanes load_floats(const float *x) { return _mm512_loadu_ps(x); }
LANES_INLINE void store_floats(float *to, float_lanes a) { _mm512_storeu_ps(to, a); }
LANES_INLINE float_lanes to_floats(lanes a) { return _mm512_cvtepi32_ps(a); }
LANES_INLINE float_lanes multiply(float_lanes a, float_lanes b) { return _mm512_mul_ps(a, b); }
LANES_INLINE float_lanes fused(float_lanes a, float_lanes b, float_lanes c) { return _mm512_fmadd_ps(a, b, c); }
LANES_INLINE float_lanes fused_negative(float_lanes a, float_lanes b, float_lanes c) {
    return _mm512_fnmadd_ps(a, b, c);
}

/* ---- products: vpdpbusd wants one operand without signs: weights are moved up, or give theirs to activations ---- */

typedef struct weights {
    __m512i magnitudes;
    __mmask64 negative;
} weights;

LANES_INLINE lanes moved_columns(lanes columns) {
    return _mm512_xor_si512(columns, _mm512_set1_epi8((char)MOVES_SIGNED));
}

LANES_INLINE weights weights_of(lanes columns, bool is_signed, bool moved) {
    if (moved) return (weights){moved_columns(columns), 0};
    if (!is_signed) return (weights){columns, 0};
    return (weights){_mm512_abs_epi8(columns), _mm512_movepi8_mask(columns)};
}

LANES_INLINE lanes add_products(lanes sums, weights w, lanes x, bool is_signed) {
    if (is_signed) x = _mm512_mask_sub_epi8(x, w.negative, _mm512_setzero_si512(), x);
    return _mm512_dpbusd_epi32(sums, w.magnitudes, x);
}

LANES_INLINE lanes factor_of(lanes scale) { return scale; }

LANES_INLINE lanes add_scaled(lanes total, lanes sums, lanes factor) {
    return _mm512_add_epi32(total, _mm512_mullo_epi32(sums, factor));
}

/* Sums and factors of 16 bits: the factor's upper half is 0, and the sum's then does not count. */
LANES_INLINE lanes short_factor(lanes factor) { return _mm512_and_si512(factor, _mm512_set1_epi32(0xffff)); }
LANES_INLINE lanes add_scaled_short(lanes total, lanes sums, lanes factor) {
    return _mm512_dpwssd_epi32(total, sums, factor);
}

/* sum + both products of two pairs of 16 bits. */
LANES_INLINE lanes add_pairs(lanes sum, lanes a, lanes b) { return _mm512_dpwssd_epi32(sum, a, b); }

#endif
