/*
 * block_lanes_avx2.h: what unpack_blocks_template.h and the kernels of whole blocks need of AVX2. A lane is one row:
 * 32 bits that are an integer, or 4 columns of a column group. Here 8 rows are a vector.
 */
#ifndef PI2_WEIGHT_FORMATS_BLOCK_LANES_AVX2_H
#define PI2_WEIGHT_FORMATS_BLOCK_LANES_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANES_INLINE static inline __attribute__((always_inline))

typedef __m256i lanes;
typedef __m256 float_lanes;
typedef uint32_t shifted_lanes __attribute__((vector_size(32))); /* by a count that need not be a literal */

/* Products are added up in 16 bits, which hold so many of size 127 * largest, two at a time. */
enum { LANE_ROWS = 8, SUM_LIMIT = 32767, MOVES_SIGNED = 0 };
/* matmul_spread_template.h: tiles, vectors of rows at once, tokens that 16 registers hold the sums of. */
enum { SPREAD_TILES = 1, SPREAD_MOST_PARTS = 1, SPREAD_TOKENS = 4 };

LANES_INLINE lanes load_words(const uint8_t *words) { return _mm256_loadu_si256((const void *)words); }
LANES_INLINE lanes load_halves_as_integers(const uint8_t *halves) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)halves));
}
LANES_INLINE lanes load_bytes_as_integers(const uint8_t *bytes) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)bytes));
}
LANES_INLINE lanes set_lanes(uint32_t x) { return _mm256_set1_epi32((int)x); }
LANES_INLINE lanes four_activations(const int8_t *a) {
    int32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}
LANES_INLINE lanes both(lanes a, lanes b) { return _mm256_and_si256(a, b); }
LANES_INLINE lanes either(lanes a, lanes b) { return _mm256_or_si256(a, b); }
LANES_INLINE lanes differ(lanes a, lanes b) { return _mm256_xor_si256(a, b); }
LANES_INLINE lanes right(lanes a, int bits) { return (lanes)((shifted_lanes)a >> bits); }
LANES_INLINE lanes left(lanes a, int bits) { return (lanes)((shifted_lanes)a << bits); }
LANES_INLINE lanes add_integers(lanes a, lanes b) { return _mm256_add_epi32(a, b); }
LANES_INLINE lanes multiply_integers(lanes a, lanes b) { return _mm256_mullo_epi32(a, b); }
LANES_INLINE lanes multiply_16(lanes a, lanes b) { return _mm256_mullo_epi16(a, b); }
LANES_INLINE lanes subtract_bytes(lanes a, lanes b) { return _mm256_sub_epi8(a, b); }

/* The lowest byte of each lane in all four. */
LANES_INLINE lanes spread_byte(lanes a) {
    const __m128i order = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    return _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(order));
}

LANES_INLINE lanes look_up(const int8_t book[16], lanes places) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)book)), places);
}

/* Bytes whose one bit of `pattern` is set in `bits` are negated. */
LANES_INLINE lanes negate_where(lanes a, lanes bits, lanes pattern) {
    const __m256i mask = _mm256_cmpeq_epi8(_mm256_and_si256(bits, pattern), pattern);
    return _mm256_sub_epi8(_mm256_xor_si256(a, mask), mask);
}

/* Of a table of 8 bytes an entry: the first four and the last four of each lane's entry. */
LANES_INLINE void gather_pairs(const void *table, lanes index, lanes *first, lanes *last) {
    const long long *entries = table;
    const __m256i low = _mm256_i32gather_epi64(entries, _mm256_castsi256_si128(index), 8);
    const __m256i high = _mm256_i32gather_epi64(entries, _mm256_extracti128_si256(index, 1), 8);
    const __m256 a = _mm256_castsi256_ps(_mm256_permute2x128_si256(low, high, 0x20));
    const __m256 b = _mm256_castsi256_ps(_mm256_permute2x128_si256(low, high, 0x31));
    *first = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
    *last = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));
}

/* Entries of 4 bytes. */
LANES_INLINE lanes gather(const void *table, lanes index) {
    return _mm256_i32gather_epi32((const int *)table, index, 4);
}

LANES_INLINE float_lanes floats_of_bits(lanes a) { return _mm256_castsi256_ps(a); }
LANES_INLINE float_lanes load_halves(const uint8_t *halves) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)halves));
}
LANES_INLINE float_lanes set_floats(float x) { return _mm256_set1_ps(x); }
LANES_INLINE float_lanes load_floats(const float *x) { return _mm256_loadu_ps(x); }
LANES_INLINE void store_floats(float *to, float_lanes a) { _mm256_storeu_ps(to, a); }
LANES_INLINE float_lanes to_floats(lanes a) { return _mm256_cvtepi32_ps(a); }
LANES_INLINE float_lanes multiply(float_lanes a, float_lanes b) { return _mm256_mul_ps(a, b); }
LANES_INLINE float_lanes fused(float_lanes a, float_lanes b, float_lanes c) { return _mm256_fmadd_ps(a, b, c); }
LANES_INLINE float_lanes fused_negative(float_lanes a, float_lanes b, float_lanes c) {
    return _mm256_fnmadd_ps(a, b, c);
}

/* ---- products: weights of -127 .. 127, activations likewise ---- */

typedef struct weights {
    __m256i magnitudes, signs;
} weights;

LANES_INLINE weights weights_of(lanes columns, bool is_signed, bool moved) {
    (void)moved;
    return (weights){is_signed ? _mm256_abs_epi8(columns) : columns, columns};
}

LANES_INLINE lanes add_products(lanes sums, weights w, lanes x, bool is_signed) {
    const __m256i factor = is_signed ? _mm256_sign_epi8(x, w.signs) : x;
    __m256i more = _mm256_add_epi16(sums, _mm256_maddubs_epi16(w.magnitudes, factor));
    __asm__("" : "+x"(more)); /* as they stand: of trees of additions the registers would not hold the leaves */
    return more;
}

/* A scale, which fits in 16 bits, meets both sums of its lane. */
LANES_INLINE lanes factor_of(lanes scale) { return _mm256_blend_epi16(scale, _mm256_slli_epi32(scale, 16), 0xAA); }

LANES_INLINE lanes add_scaled(lanes total, lanes sums, lanes factor) {
    __m256i more = _mm256_add_epi32(total, _mm256_madd_epi16(sums, factor));
    __asm__("" : "+x"(more));
    return more;
}

/* For matmul_spread_template.h: nothing is moved, and a factor meets 16 bits as it is. */
LANES_INLINE lanes moved_columns(lanes columns) { return columns; }
LANES_INLINE lanes short_factor(lanes factor) { return factor; }
LANES_INLINE lanes add_scaled_short(lanes total, lanes sums, lanes factor) { return add_scaled(total, sums, factor); }

/* sum + both products of two pairs of 16 bits. */
LANES_INLINE lanes add_pairs(lanes sum, lanes a, lanes b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }

#endif
