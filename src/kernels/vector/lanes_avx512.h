/*
 * lanes_avx512.h: sixteen floats in one AVX-512 register. lanes_<isa>.h of every instruction
 * set offers the same functions with the same bits; vector_template.h and
 * attention_template.h are written in them. Included by *_avx512.c only.
 */
#ifndef PI2_KERNELS_VECTOR_LANES_AVX512_H
#define PI2_KERNELS_VECTOR_LANES_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/vector/exp_constants.h"

enum { LANES = 16 };
typedef __m512 lanes;

static inline __mmask16 lanes_mask(size_t count) { return (__mmask16)((1u << count) - 1u); }

static inline lanes lanes_load(const float *x) { return _mm512_loadu_ps(x); }
static inline void lanes_store(float *x, lanes a) { _mm512_storeu_ps(x, a); }

/* The first `count` lanes, 0 .. 15; the others are zero, and are not written. */
static inline lanes lanes_load_first(const float *x, size_t count) {
    return _mm512_maskz_loadu_ps(lanes_mask(count), x);
}
static inline void lanes_store_first(float *x, lanes a, size_t count) {
    _mm512_mask_storeu_ps(x, lanes_mask(count), a);
}

static inline lanes lanes_set(float x) { return _mm512_set1_ps(x); }
static inline lanes lanes_zero(void) { return _mm512_setzero_ps(); }
static inline lanes lanes_add(lanes a, lanes b) { return _mm512_add_ps(a, b); }
static inline lanes lanes_sub(lanes a, lanes b) { return _mm512_sub_ps(a, b); }
static inline lanes lanes_mul(lanes a, lanes b) { return _mm512_mul_ps(a, b); }
static inline lanes lanes_div(lanes a, lanes b) { return _mm512_div_ps(a, b); }
static inline lanes lanes_fma(lanes a, lanes b, lanes c) { return _mm512_fmadd_ps(a, b, c); }

/* a > b ? a : b, and a < b ? a : b: with a NaN, b. */
static inline lanes lanes_max(lanes a, lanes b) { return _mm512_max_ps(a, b); }
static inline lanes lanes_min(lanes a, lanes b) { return _mm512_min_ps(a, b); }

/* a where first <= lane < end, else `other`. */
static inline lanes lanes_keep(lanes a, lanes other, size_t first, size_t end) {
    const uint32_t mask = ((1u << end) - 1u) & ~((1u << first) - 1u);
    return _mm512_mask_mov_ps(other, (__mmask16)mask, a);
}

/* p * 2^n, where shifted = n + PI2_ROUNDING_SHIFT. One rounding. */
static inline lanes lanes_scale_by_power(lanes p, lanes shifted) {
    return _mm512_scalef_ps(p, _mm512_sub_ps(shifted, _mm512_set1_ps(PI2_ROUNDING_SHIFT)));
}

/* The tree of docs/arithmetic.md: lanes i + 8, then i + 4, i + 2, i + 1. */
static inline float lanes_sum(lanes a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float lanes_max_of_all(lanes a) { return _mm512_reduce_max_ps(a); }

static inline lanes lanes_load_halves(const void *halves) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
}
static inline void lanes_store_halves(void *halves, lanes a) {
    const __m256i rounded = _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256((__m256i *)halves, rounded);
}
static inline lanes lanes_load_int8(const void *values) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)values);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

/* Pairs (x0, x1) times pairs (cos, sin): (x0 cos - x1 sin, x1 cos + x0 sin). */
static inline lanes lanes_rotate_pairs(lanes x, lanes cos_sin) {
    const lanes swapped = _mm512_permute_ps(x, 0xb1);
    const lanes product = _mm512_mul_ps(swapped, _mm512_movehdup_ps(cos_sin));
    return _mm512_fmaddsub_ps(x, _mm512_moveldup_ps(cos_sin), product);
}

/* 16 pairs (cos, sin) in two registers become 16 cosines and 16 sines. */
static inline void lanes_split_pairs(lanes low, lanes high, lanes *even, lanes *odd) {
    const __m512i even_index =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd_index = _mm512_add_epi32(even_index, _mm512_set1_epi32(1));
    *even = _mm512_permutex2var_ps(low, even_index, high);
    *odd = _mm512_permutex2var_ps(low, odd_index, high);
}

/* The larger magnitude of each lane, as integers: a NaN is larger than infinity. */
static inline lanes lanes_max_magnitude(lanes largest, lanes x) {
    const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(largest), bits));
}
static inline float lanes_largest_magnitude(lanes largest) {
    const int32_t bits = _mm512_reduce_max_epi32(_mm512_castps_si512(largest));
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Stores 16 floats of magnitude up to 127, rounded to nearest even, and returns their sum. */
static inline int lanes_store_int8(signed char *values, lanes a) {
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a));
    _mm_storeu_si128((__m128i *)values, bytes);
    const __m128i above_zero = _mm_xor_si128(bytes, _mm_set1_epi8((char)0x80));
    const __m128i sums = _mm_sad_epu8(above_zero, _mm_setzero_si128());
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
}

#endif
