/*
 * neuron_lane_avx2.h: what the neuron kernels of AVX2 and AVX-512 do in vectors of 128 bits: one lane
 * of neuron_template.h, and the scales of four rows.
 */
#ifndef PI2_KERNELS_NEURON_NEURON_LANE_AVX2_H
#define PI2_KERNELS_NEURON_NEURON_LANE_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "weight_formats/weight_format.h"

#define NEURON_INLINE static inline __attribute__((always_inline))

typedef __m128 v4f;
typedef __m128i v4i;

NEURON_INLINE v4f zeros4(void) { return _mm_setzero_ps(); }
NEURON_INLINE v4f set4(float x) { return _mm_set1_ps(x); }
NEURON_INLINE v4f multiply4(v4f a, v4f b) { return _mm_mul_ps(a, b); }
NEURON_INLINE v4f fma4(v4f a, v4f b, v4f c) { return _mm_fmadd_ps(a, b, c); }
NEURON_INLINE v4f fnma4(v4f a, v4f b, v4f c) { return _mm_fnmadd_ps(a, b, c); }
NEURON_INLINE v4f to_floats4(v4i a) { return _mm_cvtepi32_ps(a); }
NEURON_INLINE void store4(float *to, v4f a) { _mm_storeu_ps(to, a); }

NEURON_INLINE __m128i load_16(const void *bytes) { return _mm_loadu_si128(bytes); }

NEURON_INLINE __m128i load_8(const void *bytes) { return _mm_loadl_epi64(bytes); }

NEURON_INLINE __m128i load_4(const void *bytes) {
    int32_t word;
    memcpy(&word, bytes, sizeof word);
    return _mm_cvtsi32_si128(word);
}

/* Element r: the sum of rows[r]. */
NEURON_INLINE v4i reduce_rows4(const v4i rows[4]) {
    return _mm_hadd_epi32(_mm_hadd_epi32(rows[0], rows[1]), _mm_hadd_epi32(rows[2], rows[3]));
}

/* The half at `offset` of each row's scales. */
NEURON_INLINE void load_four_halves(const uint8_t *const scales[4], size_t offset, v4f *to) {
    uint16_t halves[4];
    for (int r = 0; r < 4; r++) memcpy(&halves[r], scales[r] + offset, sizeof halves[r]);
    *to = _mm_cvtph_ps(_mm_set_epi16(0, 0, 0, 0, (short)halves[3], (short)halves[2], (short)halves[1],
                                     (short)halves[0]));
}

/* Q4_K: products of the 8 minimums with the activations' sums over 32 columns, four sums of two. */
NEURON_INLINE v4i minimum_products(uint64_t minimums, const int16_t *sums) {
    const __m128i over_32 = _mm_hadd_epi16(load_16(sums), load_16(sums + 8));
    return _mm_madd_epi16(_mm_cvtepu8_epi16(_mm_cvtsi64_si128((long long)minimums)), over_32);
}

/* Q6_K: products of a row's 16 scales with the activations' sums over 16 columns, eight sums of two. */
NEURON_INLINE __m256i eight_scale_products(const uint8_t *scales, const int16_t *sums) {
    return _mm256_madd_epi16(_mm256_cvtepi8_epi16(load_16(scales)), _mm256_loadu_si256((const void *)sums));
}

/* Four rows' words of 4 bytes (two of 2), transposed: element 4 l + r of 16-bit ones is value l of row r. */
NEURON_INLINE __m128i transpose_halves_low(__m128i r0, __m128i r1, __m128i r2, __m128i r3) {
    return _mm_unpacklo_epi32(_mm_unpacklo_epi16(r0, r1), _mm_unpacklo_epi16(r2, r3));
}

NEURON_INLINE __m128i transpose_halves_high(__m128i r0, __m128i r1, __m128i r2, __m128i r3) {
    return _mm_unpackhi_epi32(_mm_unpacklo_epi16(r0, r1), _mm_unpacklo_epi16(r2, r3));
}

/* The bytes of four columns, interleaved: element e of to[j] has byte 4 j + e of each. */
NEURON_INLINE void interleave_16(const __m128i from[4], __m128i to[4]) {
    const __m128i low01 = _mm_unpacklo_epi8(from[0], from[1]), high01 = _mm_unpackhi_epi8(from[0], from[1]);
    const __m128i low23 = _mm_unpacklo_epi8(from[2], from[3]), high23 = _mm_unpackhi_epi8(from[2], from[3]);
    to[0] = _mm_unpacklo_epi16(low01, low23);
    to[1] = _mm_unpackhi_epi16(low01, low23);
    to[2] = _mm_unpacklo_epi16(high01, high23);
    to[3] = _mm_unpackhi_epi16(high01, high23);
}

#endif
