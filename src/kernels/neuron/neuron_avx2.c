/* neuron_avx2.c: neuron_template.h in vectors of two lanes, for AVX2. */
#include "kernels/neuron/neuron_lane_avx2.h"
#include "weight_formats/unpack_avx2.h"

typedef __m256 vf;
typedef __m256i vi;

enum { LANES = 2, Q8_OFFSET = 0 };
#define NEURON_SUFFIX avx2

NEURON_INLINE vi zeros(void) { return _mm256_setzero_si256(); }
NEURON_INLINE vi set_ints(int32_t x) { return _mm256_set1_epi32(x); }
NEURON_INLINE vi load(const uint8_t *bytes) { return _mm256_loadu_si256((const void *)bytes); }
NEURON_INLINE vi load_some(const uint8_t *bytes, size_t count) {
    return count < 32 ? _mm256_zextsi128_si256(load_16(bytes)) : load(bytes);
}
NEURON_INLINE vi add(vi a, vi b) { return _mm256_add_epi32(a, b); }
NEURON_INLINE vi subtract(vi a, vi b) { return _mm256_sub_epi32(a, b); }
NEURON_INLINE vi times(vi a, int32_t b) { return _mm256_mullo_epi32(a, _mm256_set1_epi32(b)); }
NEURON_INLINE vi multiply_ints(vi a, vi b) { return _mm256_mullo_epi32(a, b); }

/* Values of at most 6 bits: two products, 2 * 63 * 127, fit in 16 bits. */
NEURON_INLINE vi dot(vi sum, vi w, vi a) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1)));
}

/* Signed bytes: abs(w) times a with w's sign; two products, 2 * 128 * 127, fit in 16 bits. */
NEURON_INLINE vi as_bytes(vi w) { return w; }
NEURON_INLINE vi dot_bytes(vi sum, vi w, vi a) { return dot(sum, _mm256_abs_epi8(w), _mm256_sign_epi8(a, w)); }

NEURON_INLINE vf set_floats(float x) { return _mm256_set1_ps(x); }
NEURON_INLINE vf load_floats(const float *x) { return _mm256_loadu_ps(x); }
NEURON_INLINE void store(float *to, vf a) { _mm256_storeu_ps(to, a); }
NEURON_INLINE vf multiply(vf a, vf b) { return _mm256_mul_ps(a, b); }
NEURON_INLINE vf fused(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
NEURON_INLINE vf fused_negative(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
NEURON_INLINE vf to_floats(vi a) { return _mm256_cvtepi32_ps(a); }

NEURON_INLINE void split_nibbles(vi bytes, vi *low, vi *high) {
    const __m256i low_half = _mm256_set1_epi8(15);
    *low = _mm256_and_si256(bytes, low_half);
    *high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_half);
}

/* ---- rows ---- */

/* Columns 0-15 of two blocks, and columns 16-31. */
NEURON_INLINE void load_halves_of_blocks(const int8_t *bytes, vi *low, vi *high) {
    const __m256i first = load((const uint8_t *)bytes), second = load((const uint8_t *)bytes + 32);
    *low = _mm256_permute2x128_si256(first, second, 0x20);
    *high = _mm256_permute2x128_si256(first, second, 0x31);
}

NEURON_INLINE void add_fifth_bits(const uint8_t *fifth, vi *low, vi *high) {
    const __m256i both = _mm256_broadcastsi128_si256(load_8(fifth));
    const __m128i of_first = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m256i of_low = _mm256_set_m128i(_mm_add_epi8(of_first, _mm_set1_epi8(4)), of_first);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u), sixteen = _mm256_set1_epi8(16);
    const __m256i of_high = _mm256_add_epi8(of_low, _mm256_set1_epi8(2));
    const __m256i low_bits = _mm256_and_si256(_mm256_shuffle_epi8(both, of_low), bit);
    const __m256i high_bits = _mm256_and_si256(_mm256_shuffle_epi8(both, of_high), bit);
    *low = _mm256_or_si256(*low, _mm256_and_si256(_mm256_cmpeq_epi8(low_bits, bit), sixteen));
    *high = _mm256_or_si256(*high, _mm256_and_si256(_mm256_cmpeq_epi8(high_bits, bit), sixteen));
}

NEURON_INLINE vi reduce_rows(const vi rows[4]) {
    return _mm256_hadd_epi32(_mm256_hadd_epi32(rows[0], rows[1]), _mm256_hadd_epi32(rows[2], rows[3]));
}

NEURON_INLINE v4i add_lanes(vi a) {
    return _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}

NEURON_INLINE vf spread_floats(const float *x) {
    return _mm256_set_m128(_mm_broadcast_ss(x + 1), _mm_broadcast_ss(x));
}

NEURON_INLINE vi spread_sums(const int16_t *sums) {
    return _mm256_set_m128i(_mm_set1_epi32(sums[1]), _mm_set1_epi32(sums[0]));
}

NEURON_INLINE v4f lane_of(vf a, int lane) {
    return lane == 0 ? _mm256_castps256_ps128(a) : _mm256_extractf128_ps(a, 1);
}

NEURON_INLINE void load_row_scales(const uint8_t *const rows[4], bool minimums, vf *d, vf *m) {
    __m128i r[4];
    for (int i = 0; i < 4; i++) r[i] = minimums ? load_8(rows[i]) : load_4(rows[i]);
    *m = _mm256_setzero_ps();
    if (!minimums) {
        *d = _mm256_cvtph_ps(transpose_halves_low(r[0], r[1], r[2], r[3]));
        return;
    }
    /* d of two blocks, then m of two blocks */
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1);
    for (int i = 0; i < 4; i++) r[i] = _mm_shuffle_epi8(r[i], order);
    *d = _mm256_cvtph_ps(transpose_halves_low(r[0], r[1], r[2], r[3]));
    *m = _mm256_cvtph_ps(transpose_halves_high(r[0], r[1], r[2], r[3]));
}

NEURON_INLINE void load_q4_k_activations(const int8_t *a, int chunk, vi *low, vi *high) {
    *low = load((const uint8_t *)a + 64 * chunk);
    *high = load((const uint8_t *)a + 64 * chunk + 32);
}

NEURON_INLINE vi scaled_dot_q4_k(vi sum, vi w, vi a, uint64_t scales, int chunk, int high) {
    const __m256i scale = _mm256_set1_epi16((short)(scales >> (8 * (2 * chunk + high)) & 255));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), scale));
}

typedef struct q6_k_scales {
    __m256i words[2]; /* 8 signed scales in 16 bits each, in both lanes */
} q6_k_scales;

NEURON_INLINE q6_k_scales load_q6_k_scales(const uint8_t *scales) {
    const __m256i all = _mm256_cvtepi8_epi16(load_16(scales));
    return (q6_k_scales){{_mm256_permute4x64_epi64(all, 0x44), _mm256_permute4x64_epi64(all, 0xee)}};
}

/* Scale first in the lower lane, first + 1 in the upper one. */
NEURON_INLINE vi scaled_dot_q6_k(vi sum, vi w, vi a, const q6_k_scales *scales, int first) {
    const int low = 0x0100 + 0x0202 * (first % 8), high = low + 0x0202;
    const __m256i order = _mm256_set_m128i(_mm_set1_epi16((short)high), _mm_set1_epi16((short)low));
    const __m256i scale = _mm256_shuffle_epi8(scales->words[first / 8], order);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), scale));
}

NEURON_INLINE vi scale_products(const uint8_t *scales, const int16_t *sums) {
    return eight_scale_products(scales, sums);
}

NEURON_INLINE void load_q6_k_values(const uint8_t *values, int chunk, vi *low, vi *high) {
    const __m256i upper = load(values + 128 + 32 * (chunk / 2)), bits45 = _mm256_set1_epi8(0x30);
    const __m256i of_low = chunk % 2 ? _mm256_slli_epi16(upper, 2) : _mm256_slli_epi16(upper, 4);
    const __m256i of_high = chunk % 2 ? _mm256_srli_epi16(upper, 2) : upper;
    split_nibbles(load(values + 32 * chunk), low, high);
    *low = _mm256_or_si256(*low, _mm256_and_si256(of_low, bits45));
    *high = _mm256_or_si256(*high, _mm256_and_si256(of_high, bits45));
}

/* Four floats of each of two rows, rows[0] and rows[4], one a lane. */
NEURON_INLINE vf load_quads(pi2_weight_type type, const uint8_t *const *rows) {
    if (type == PI2_F32) return _mm256_castsi256_ps(_mm256_set_m128i(load_16(rows[4]), load_16(rows[0])));
    const __m128i halves = _mm_unpacklo_epi64(load_8(rows[0]), load_8(rows[4]));
    if (type == PI2_F16) return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

NEURON_INLINE void transpose_quads(vf w[4]) {
    const __m256 low01 = _mm256_unpacklo_ps(w[0], w[1]), high01 = _mm256_unpackhi_ps(w[0], w[1]);
    const __m256 low23 = _mm256_unpacklo_ps(w[2], w[3]), high23 = _mm256_unpackhi_ps(w[2], w[3]);
    w[0] = _mm256_shuffle_ps(low01, low23, 0x44);
    w[1] = _mm256_shuffle_ps(low01, low23, 0xee);
    w[2] = _mm256_shuffle_ps(high01, high23, 0x44);
    w[3] = _mm256_shuffle_ps(high01, high23, 0xee);
}

/* ---- columns ---- */

NEURON_INLINE void interleave(const vi from[4], vi to[4]) {
    const __m256i low01 = _mm256_unpacklo_epi8(from[0], from[1]), high01 = _mm256_unpackhi_epi8(from[0], from[1]);
    const __m256i low23 = _mm256_unpacklo_epi8(from[2], from[3]), high23 = _mm256_unpackhi_epi8(from[2], from[3]);
    to[0] = _mm256_unpacklo_epi16(low01, low23);
    to[1] = _mm256_unpackhi_epi16(low01, low23);
    to[2] = _mm256_unpacklo_epi16(high01, high23);
    to[3] = _mm256_unpackhi_epi16(high01, high23);
}

/* Of four columns the 4 bytes of each group, interleaved, one group a lane. */
NEURON_INLINE vi load_upper(const uint8_t *const columns[4], size_t offset, size_t groups, bool tail) {
    __m128i from[4], to[4];
    for (int n = 0; n < 4; n++) {
        from[n] = tail && groups < 2 ? load_4(columns[n] + offset) : load_8(columns[n] + offset);
    }
    interleave_16(from, to);
    return _mm256_set_m128i(to[1], to[0]);
}

NEURON_INLINE vi with_fifth_bit(vi w, vi upper, int bit) {
    return _mm256_or_si256(w, _mm256_and_si256(pi2_bit_to_bit4_avx2(upper, bit), _mm256_set1_epi8(16)));
}

/* Bits 2 k and 2 k + 1 as bits 4 and 5: bit 2 k goes where bit 4 is. */
NEURON_INLINE vi with_upper_bits(vi w, vi upper, int k) {
    return _mm256_or_si256(w, _mm256_and_si256(pi2_bit_to_bit4_avx2(upper, 2 * k), _mm256_set1_epi8(0x30)));
}

/* Lane l of the four together is tile l, as two vectors. */
NEURON_INLINE void order_rows(const vi sums[4], vi to[4]) {
    to[0] = _mm256_permute2x128_si256(sums[0], sums[1], 0x20);
    to[1] = _mm256_permute2x128_si256(sums[2], sums[3], 0x20);
    to[2] = _mm256_permute2x128_si256(sums[0], sums[1], 0x31);
    to[3] = _mm256_permute2x128_si256(sums[2], sums[3], 0x31);
}

NEURON_INLINE vf load_halves(const uint8_t *halves) { return pi2_load_halves_avx2(halves); }

/* The inverse. */
NEURON_INLINE void disorder_rows(const vi tiles[4], vi to[4]) {
    to[0] = _mm256_permute2x128_si256(tiles[0], tiles[2], 0x20);
    to[1] = _mm256_permute2x128_si256(tiles[0], tiles[2], 0x31);
    to[2] = _mm256_permute2x128_si256(tiles[1], tiles[3], 0x20);
    to[3] = _mm256_permute2x128_si256(tiles[1], tiles[3], 0x31);
}

/* Of 8 rows, `words` as in a tile: byte i of low is the scale of sub-block i, of high that of i + 4. */
NEURON_INLINE void q4_k_scales(const uint8_t *words, vi *low, vi *high) {
    const pi2_q4_k_scales_avx2 k = pi2_unpack_q4_k_scales_avx2(words);
    *low = k.scales_0_3;
    *high = k.scales_4_7;
}

NEURON_INLINE void q4_k_minimums(const uint8_t *words, vi *low, vi *high) {
    const pi2_q4_k_scales_avx2 k = pi2_unpack_q4_k_scales_avx2(words);
    *low = k.minimums_0_3;
    *high = k.minimums_4_7;
}

NEURON_INLINE vi byte_of_words(vi words, int byte) {
    return _mm256_and_si256(_mm256_srl_epi32(words, _mm_cvtsi32_si128(8 * byte)), _mm256_set1_epi32(255));
}

NEURON_INLINE vi load_sub_scales(const uint8_t *bytes) { return _mm256_cvtepi8_epi32(load_8(bytes)); }

NEURON_INLINE vf load_weights(pi2_weight_type type, const uint8_t *values) {
    if (type == PI2_F32) return _mm256_castsi256_ps(load(values));
    if (type == PI2_F16) return _mm256_cvtph_ps(load_16(values));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16(values)), 16));
}

#include "kernels/neuron/neuron_template.h"
