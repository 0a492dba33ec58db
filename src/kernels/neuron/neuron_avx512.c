/* neuron_avx512.c: neuron_template.h in vectors of four lanes, for AVX-512 with VNNI. */
#include "kernels/neuron/neuron_lane_avx2.h"
#include "weight_formats/unpack_avx512.h"

typedef __m512 vf;
typedef __m512i vi;

/* vpdpbusd wants one unsigned operand: signed bytes are moved up by 128, and sums moved back. */
enum { LANES = 4, Q8_OFFSET = 128 };
#define NEURON_SUFFIX avx512

NEURON_INLINE vi zeros(void) { return _mm512_setzero_si512(); }
NEURON_INLINE vi set_ints(int32_t x) { return _mm512_set1_epi32(x); }
NEURON_INLINE vi load(const uint8_t *bytes) { return _mm512_loadu_si512(bytes); }
NEURON_INLINE vi load_some(const uint8_t *bytes, size_t count) {
    return _mm512_maskz_loadu_epi8(~(__mmask64)0 >> (64 - count), bytes);
}
NEURON_INLINE vi add(vi a, vi b) { return _mm512_add_epi32(a, b); }
NEURON_INLINE vi subtract(vi a, vi b) { return _mm512_sub_epi32(a, b); }
NEURON_INLINE vi times(vi a, int32_t b) { return _mm512_mullo_epi32(a, _mm512_set1_epi32(b)); }
NEURON_INLINE vi multiply_ints(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
NEURON_INLINE vi dot(vi sum, vi w, vi a) { return _mm512_dpbusd_epi32(sum, w, a); }
NEURON_INLINE vi as_bytes(vi w) { return _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80)); }
NEURON_INLINE vi dot_bytes(vi sum, vi w, vi a) { return _mm512_dpbusd_epi32(sum, w, a); }

NEURON_INLINE vf set_floats(float x) { return _mm512_set1_ps(x); }
NEURON_INLINE vf load_floats(const float *x) { return _mm512_loadu_ps(x); }
NEURON_INLINE void store(float *to, vf a) { _mm512_storeu_ps(to, a); }
NEURON_INLINE vf multiply(vf a, vf b) { return _mm512_mul_ps(a, b); }
NEURON_INLINE vf fused(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
NEURON_INLINE vf fused_negative(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
NEURON_INLINE vf to_floats(vi a) { return _mm512_cvtepi32_ps(a); }

NEURON_INLINE void split_nibbles(vi bytes, vi *low, vi *high) {
    const __m512i low_half = _mm512_set1_epi8(15);
    *low = _mm512_and_si512(bytes, low_half);
    *high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_half);
}

/* ---- rows ---- */

/* Columns 0-15 of four blocks, and columns 16-31. */
NEURON_INLINE void load_halves_of_blocks(const int8_t *bytes, vi *low, vi *high) {
    const __m512i first = _mm512_loadu_si512(bytes), second = _mm512_loadu_si512(bytes + 64);
    *low = _mm512_shuffle_i64x2(first, second, 0x88);
    *high = _mm512_shuffle_i64x2(first, second, 0xdd);
}

NEURON_INLINE void add_fifth_bits(const uint8_t *fifth, vi *low, vi *high) {
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m128i bits = _mm_shuffle_epi8(load_16(fifth), order);
    const __m512i sixteen = _mm512_set1_epi8(16);
    *low = _mm512_mask_add_epi8(*low, (__mmask64)_mm_cvtsi128_si64(bits), *low, sixteen);
    *high = _mm512_mask_add_epi8(*high, (__mmask64)_mm_extract_epi64(bits, 1), *high, sixteen);
}

NEURON_INLINE vi reduce_rows(const vi rows[4]) {
    const __m512i sums01 = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[0], rows[1]),
                                            _mm512_unpackhi_epi32(rows[0], rows[1]));
    const __m512i sums23 = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[2], rows[3]),
                                            _mm512_unpackhi_epi32(rows[2], rows[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(sums01, sums23), _mm512_unpackhi_epi64(sums01, sums23));
}

NEURON_INLINE v4i add_lanes(vi a) {
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

NEURON_INLINE __m512i lane_numbers(void) {
    return _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
}

NEURON_INLINE vf spread_floats(const float *x) {
    return _mm512_permutexvar_ps(lane_numbers(), _mm512_castps128_ps512(_mm_loadu_ps(x)));
}

NEURON_INLINE vi spread_sums(const int16_t *sums) {
    return _mm512_permutexvar_epi32(lane_numbers(), _mm512_castsi128_si512(_mm_cvtepi16_epi32(load_8(sums))));
}

/* Literal lane numbers, also where nothing is optimised. */
NEURON_INLINE v4f lane_of(vf a, int lane) {
    switch (lane) {
    case 0: return _mm512_castps512_ps128(a);
    case 1: return _mm512_extractf32x4_ps(a, 1);
    case 2: return _mm512_extractf32x4_ps(a, 2);
    default: return _mm512_extractf32x4_ps(a, 3);
    }
}

NEURON_INLINE vf floats_of_halves(__m128i low, __m128i high) { return _mm512_cvtph_ps(_mm256_set_m128i(high, low)); }

NEURON_INLINE void load_row_scales(const uint8_t *const rows[4], bool minimums, vf *d, vf *m) {
    __m128i r[4];
    for (int i = 0; i < 4; i++) r[i] = minimums ? load_16(rows[i]) : load_8(rows[i]);
    *m = _mm512_setzero_ps();
    if (!minimums) {
        *d = floats_of_halves(transpose_halves_low(r[0], r[1], r[2], r[3]),
                              transpose_halves_high(r[0], r[1], r[2], r[3]));
        return;
    }
    /* d of four blocks, then m of four blocks */
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    for (int i = 0; i < 4; i++) r[i] = _mm_shuffle_epi8(r[i], order);
    *d = floats_of_halves(transpose_halves_low(r[0], r[1], r[2], r[3]),
                          transpose_halves_high(r[0], r[1], r[2], r[3]));
    for (int i = 0; i < 4; i++) r[i] = _mm_unpackhi_epi64(r[i], r[i]);
    *m = floats_of_halves(transpose_halves_low(r[0], r[1], r[2], r[3]),
                          transpose_halves_high(r[0], r[1], r[2], r[3]));
}

NEURON_INLINE void load_q4_k_activations(const int8_t *a, int chunk, vi *low, vi *high) {
    const __m512i first = _mm512_loadu_si512(a + 128 * chunk), second = _mm512_loadu_si512(a + 128 * chunk + 64);
    *low = _mm512_shuffle_i64x2(first, second, 0x44);
    *high = _mm512_shuffle_i64x2(first, second, 0xee);
}

/* A dot product of Q4_K or Q6_K fits in 16 bits, so each 32-bit sum is multiplied as one. */
NEURON_INLINE vi scaled_dot_q4_k(vi sum, vi w, vi a, uint64_t scales, int chunk, int high) {
    const __m512i two = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    const __m512i first = _mm512_set1_epi32((int)(0x80808000u + 4 * (unsigned)chunk + (unsigned)high));
    const __m512i scale = _mm512_shuffle_epi8(_mm512_set1_epi64((long long)scales), _mm512_add_epi32(first, two));
    return _mm512_dpwssd_epi32(sum, _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, a), scale);
}

typedef struct q6_k_scales {
    __m512i words; /* the signed scale in the lower 16 bits of its lane of 32 */
} q6_k_scales;

NEURON_INLINE q6_k_scales load_q6_k_scales(const uint8_t *scales) {
    return (q6_k_scales){_mm512_cvtepu16_epi32(_mm256_cvtepi8_epi16(load_16(scales)))};
}

NEURON_INLINE vi scaled_dot_q6_k(vi sum, vi w, vi a, const q6_k_scales *scales, int first) {
    const __m512i number = _mm512_add_epi32(lane_numbers(), _mm512_set1_epi32(first));
    const __m512i scale = _mm512_permutexvar_epi32(number, scales->words);
    return _mm512_dpwssd_epi32(sum, _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, a), scale);
}

NEURON_INLINE vi scale_products(const uint8_t *scales, const int16_t *sums) {
    return _mm512_zextsi256_si512(eight_scale_products(scales, sums));
}

NEURON_INLINE void load_q6_k_values(const uint8_t *values, int chunk, vi *low, vi *high) {
    const __m256i upper = _mm256_loadu_si256((const void *)(values + 128 + 32 * chunk));
    const __m512i both = _mm512_broadcast_i64x4(upper), bits45 = _mm512_set1_epi8(0x30);
    const __m512i left = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
    const __m512i right = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
    split_nibbles(load(values + 64 * chunk), low, high);
    *low = _mm512_ternarylogic_epi32(_mm512_sllv_epi16(both, left), bits45, *low, PI2_AND_OR);
    *high = _mm512_ternarylogic_epi32(_mm512_srlv_epi16(both, right), bits45, *high, PI2_AND_OR);
}

/* Four floats of each of four rows, rows[0], rows[4], rows[8], rows[12], one a lane. */
NEURON_INLINE vf load_quads(pi2_weight_type type, const uint8_t *const *rows) {
    if (type == PI2_F32) {
        __m512i quads = _mm512_castsi128_si512(load_16(rows[0]));
        quads = _mm512_inserti32x4(quads, load_16(rows[4]), 1);
        quads = _mm512_inserti32x4(quads, load_16(rows[8]), 2);
        return _mm512_castsi512_ps(_mm512_inserti32x4(quads, load_16(rows[12]), 3));
    }
    const __m128i low = _mm_unpacklo_epi64(load_8(rows[0]), load_8(rows[4]));
    const __m128i high = _mm_unpacklo_epi64(load_8(rows[8]), load_8(rows[12]));
    if (type == PI2_F16) return floats_of_halves(low, high);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_set_m128i(high, low)), 16));
}

NEURON_INLINE void transpose_quads(vf w[4]) {
    const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(w[0], w[1]));
    const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(w[0], w[1]));
    const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(w[2], w[3]));
    const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(w[2], w[3]));
    w[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23));
    w[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23));
    w[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23));
    w[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23));
}

/* ---- columns ---- */

NEURON_INLINE void interleave(const vi from[4], vi to[4]) {
    const __m512i low01 = _mm512_unpacklo_epi8(from[0], from[1]), high01 = _mm512_unpackhi_epi8(from[0], from[1]);
    const __m512i low23 = _mm512_unpacklo_epi8(from[2], from[3]), high23 = _mm512_unpackhi_epi8(from[2], from[3]);
    to[0] = _mm512_unpacklo_epi16(low01, low23);
    to[1] = _mm512_unpackhi_epi16(low01, low23);
    to[2] = _mm512_unpacklo_epi16(high01, high23);
    to[3] = _mm512_unpackhi_epi16(high01, high23);
}

/* Of four columns the 4 bytes of each group, interleaved, one group a lane. */
NEURON_INLINE vi load_upper(const uint8_t *const columns[4], size_t offset, size_t groups, bool tail) {
    __m128i from[4], to[4];
    for (int n = 0; n < 4; n++) {
        from[n] = tail ? _mm_maskz_loadu_epi32((__mmask8)((1 << groups) - 1), columns[n] + offset)
                       : load_16(columns[n] + offset);
    }
    interleave_16(from, to);
    const __m512i low = _mm512_inserti32x4(_mm512_castsi128_si512(to[0]), to[1], 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(low, to[2], 2), to[3], 3);
}

NEURON_INLINE vi with_fifth_bit(vi w, vi upper, int bit) {
    return _mm512_ternarylogic_epi32(pi2_bit_to_bit4_avx512(upper, bit), _mm512_set1_epi8(16), w, PI2_AND_OR);
}

/* Bits 2 k and 2 k + 1 as bits 4 and 5: bit 2 k goes where bit 4 is. */
NEURON_INLINE vi with_upper_bits(vi w, vi upper, int k) {
    return _mm512_ternarylogic_epi32(pi2_bit_to_bit4_avx512(upper, 2 * k), _mm512_set1_epi8(0x30), w, PI2_AND_OR);
}

/* Lane l of the four together is tile l. */
NEURON_INLINE void order_rows(const vi sums[4], vi to[4]) {
    const __m512i low01 = _mm512_shuffle_i64x2(sums[0], sums[1], 0x44);
    const __m512i high01 = _mm512_shuffle_i64x2(sums[0], sums[1], 0xee);
    const __m512i low23 = _mm512_shuffle_i64x2(sums[2], sums[3], 0x44);
    const __m512i high23 = _mm512_shuffle_i64x2(sums[2], sums[3], 0xee);
    to[0] = _mm512_shuffle_i64x2(low01, low23, 0x88);
    to[1] = _mm512_shuffle_i64x2(low01, low23, 0xdd);
    to[2] = _mm512_shuffle_i64x2(high01, high23, 0x88);
    to[3] = _mm512_shuffle_i64x2(high01, high23, 0xdd);
}

NEURON_INLINE vf load_halves(const uint8_t *halves) { return pi2_load_halves_avx512(halves); }

/* The inverse; a transposed square transposed again. */
NEURON_INLINE void disorder_rows(const vi tiles[4], vi to[4]) { order_rows(tiles, to); }

/* Of 16 rows, `words` as in a tile: byte i of low is the scale of sub-block i, of high that of i + 4. */
NEURON_INLINE void q4_k_scales(const uint8_t *words, vi *low, vi *high) {
    const pi2_q4_k_scales_avx512 k = pi2_unpack_q4_k_scales_avx512(words);
    *low = k.scales_0_3;
    *high = k.scales_4_7;
}

NEURON_INLINE void q4_k_minimums(const uint8_t *words, vi *low, vi *high) {
    const pi2_q4_k_scales_avx512 k = pi2_unpack_q4_k_scales_avx512(words);
    *low = k.minimums_0_3;
    *high = k.minimums_4_7;
}

NEURON_INLINE vi byte_of_words(vi words, int byte) {
    return _mm512_and_si512(_mm512_srl_epi32(words, _mm_cvtsi32_si128(8 * byte)), _mm512_set1_epi32(255));
}

NEURON_INLINE vi load_sub_scales(const uint8_t *bytes) { return _mm512_cvtepi8_epi32(load_16(bytes)); }

NEURON_INLINE vf load_weights(pi2_weight_type type, const uint8_t *values) {
    if (type == PI2_F32) return _mm512_loadu_ps(values);
    const __m256i halves = _mm256_loadu_si256((const void *)values);
    if (type == PI2_F16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

#include "kernels/neuron/neuron_template.h"
