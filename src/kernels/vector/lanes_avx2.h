/* lanes_avx2.h: sixteen floats in two AVX registers; see lanes_avx512.h. For *_avx2.c only. */
#ifndef PI2_KERNELS_VECTOR_LANES_AVX2_H
#define PI2_KERNELS_VECTOR_LANES_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/vector/exp_constants.h"

enum { LANES = 16 };
typedef struct lanes {
    __m256 low;
    __m256 high;
} lanes;

static inline lanes lanes_of(__m256 low, __m256 high) {
    const lanes both = {low, high};
    return both;
}

static inline lanes lanes_load(const float *x) {
    return lanes_of(_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8));
}
static inline void lanes_store(float *x, lanes a) {
    _mm256_storeu_ps(x, a.low);
    _mm256_storeu_ps(x + 8, a.high);
}

static inline lanes lanes_load_first(const float *x, size_t count) {
    float padded[LANES] = {0.0f};
    for (size_t i = 0; i < count; i++) padded[i] = x[i];
    return lanes_load(padded);
}
static inline void lanes_store_first(float *x, lanes a, size_t count) {
    float padded[LANES];
    lanes_store(padded, a);
    for (size_t i = 0; i < count; i++) x[i] = padded[i];
}

static inline lanes lanes_set(float x) { return lanes_of(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
static inline lanes lanes_zero(void) { return lanes_of(_mm256_setzero_ps(), _mm256_setzero_ps()); }
static inline lanes lanes_add(lanes a, lanes b) {
    return lanes_of(_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high));
}
static inline lanes lanes_sub(lanes a, lanes b) {
    return lanes_of(_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high));
}
static inline lanes lanes_mul(lanes a, lanes b) {
    return lanes_of(_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high));
}
static inline lanes lanes_div(lanes a, lanes b) {
    return lanes_of(_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high));
}
static inline lanes lanes_fma(lanes a, lanes b, lanes c) {
    return lanes_of(_mm256_fmadd_ps(a.low, b.low, c.low),
                    _mm256_fmadd_ps(a.high, b.high, c.high));
}
static inline lanes lanes_max(lanes a, lanes b) {
    return lanes_of(_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high));
}
static inline lanes lanes_min(lanes a, lanes b) {
    return lanes_of(_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high));
}

static inline __m256 lanes_keep_half(__m256 a, __m256 other, __m256i lane, size_t first,
                                     size_t end) {
    const __m256i from = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32((int)first - 1));
    const __m256i to = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)end), lane);
    return _mm256_blendv_ps(other, a, _mm256_castsi256_ps(_mm256_and_si256(from, to)));
}
static inline lanes lanes_keep(lanes a, lanes other, size_t first, size_t end) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i next_lane = _mm256_add_epi32(lane, _mm256_set1_epi32(8));
    return lanes_of(lanes_keep_half(a.low, other.low, lane, first, end),
                    lanes_keep_half(a.high, other.high, next_lane, first, end));
}

/* Two multiplications, the first exact: see pi2_expf(). */
static inline __m256 lanes_scale_half(__m256 p, __m256 shifted) {
    const __m256i zero = _mm256_castps_si256(_mm256_set1_ps(PI2_ROUNDING_SHIFT));
    const __m256i offset = _mm256_sub_epi32(_mm256_set1_epi32(256), zero);
    const __m256i n_plus_256 = _mm256_add_epi32(_mm256_castps_si256(shifted), offset);
    const __m256i first = _mm256_srli_epi32(n_plus_256, 1);
    const __m256i second = _mm256_sub_epi32(n_plus_256, first);
    const __m256i one = _mm256_set1_epi32(1);
    const __m256i first_power = _mm256_slli_epi32(_mm256_sub_epi32(first, one), 23);
    const __m256i second_power = _mm256_slli_epi32(_mm256_sub_epi32(second, one), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(first_power)),
                         _mm256_castsi256_ps(second_power));
}
static inline lanes lanes_scale_by_power(lanes p, lanes shifted) {
    return lanes_of(lanes_scale_half(p.low, shifted.low), lanes_scale_half(p.high, shifted.high));
}

static inline float lanes_sum(lanes a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float lanes_max_of_all(lanes a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

static inline lanes lanes_load_halves(const void *halves) {
    const __m128i *eights = (const __m128i *)halves;
    return lanes_of(_mm256_cvtph_ps(_mm_loadu_si128(eights)),
                    _mm256_cvtph_ps(_mm_loadu_si128(eights + 1)));
}
static inline void lanes_store_halves(void *halves, lanes a) {
    __m128i *eights = (__m128i *)halves;
    _mm_storeu_si128(eights, _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(eights + 1, _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT));
}
static inline lanes lanes_load_int8(const void *values) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)values);
    const __m128i next_bytes = _mm_unpackhi_epi64(bytes, bytes);
    return lanes_of(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(next_bytes)));
}

static inline __m256 lanes_rotate_half(__m256 x, __m256 cos_sin) {
    const __m256 swapped = _mm256_permute_ps(x, 0xb1);
    const __m256 product = _mm256_mul_ps(swapped, _mm256_movehdup_ps(cos_sin));
    return _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(cos_sin), product);
}
static inline lanes lanes_rotate_pairs(lanes x, lanes cos_sin) {
    return lanes_of(lanes_rotate_half(x.low, cos_sin.low), lanes_rotate_half(x.high, cos_sin.high));
}

/* Pairs in a and b: shuffling gathers quarters, which a permutation puts in order. */
static inline __m256 lanes_in_order(__m256 quarters) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(quarters), 0xd8));
}
static inline void lanes_split_pairs(lanes low, lanes high, lanes *even, lanes *odd) {
    *even = lanes_of(lanes_in_order(_mm256_shuffle_ps(low.low, low.high, 0x88)),
                     lanes_in_order(_mm256_shuffle_ps(high.low, high.high, 0x88)));
    *odd = lanes_of(lanes_in_order(_mm256_shuffle_ps(low.low, low.high, 0xdd)),
                    lanes_in_order(_mm256_shuffle_ps(high.low, high.high, 0xdd)));
}

static inline __m256 lanes_max_magnitude_half(__m256 largest, __m256 x) {
    const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(largest), bits));
}
static inline lanes lanes_max_magnitude(lanes largest, lanes x) {
    return lanes_of(lanes_max_magnitude_half(largest.low, x.low),
                    lanes_max_magnitude_half(largest.high, x.high));
}
static inline float lanes_largest_magnitude(lanes largest) {
    const __m256i eight = _mm256_max_epi32(_mm256_castps_si256(largest.low),
                                           _mm256_castps_si256(largest.high));
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight),
                                       _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    const __m128i one = _mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(one));
}

static inline int lanes_store_int8(signed char *values, lanes a) {
    const __m256i low = _mm256_cvtps_epi32(a.low);
    const __m256i high = _mm256_cvtps_epi32(a.high);
    const __m128i low_words = _mm_packs_epi32(_mm256_castsi256_si128(low),
                                              _mm256_extracti128_si256(low, 1));
    const __m128i high_words = _mm_packs_epi32(_mm256_castsi256_si128(high),
                                               _mm256_extracti128_si256(high, 1));
    const __m128i bytes = _mm_packs_epi16(low_words, high_words);
    _mm_storeu_si128((__m128i *)values, bytes);
    const __m128i above_zero = _mm_xor_si128(bytes, _mm_set1_epi8((char)0x80));
    const __m128i sums = _mm_sad_epu8(above_zero, _mm_setzero_si128());
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
}

#endif
