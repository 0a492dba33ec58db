/* small_rows_avx2.c: a block of 32 values at a time. */
#include <immintrin.h>
#include <string.h>

#include "kernels/small_rows/small_rows_four_template.h"

/* What 32 bits of a lane hold: a block's four products come to at most 7 * 32767 * 4, times a scale below 2^8 below
 * 2^28. */
enum { BLOCKS_OF_32_BITS = 8 };

static inline __m256i widen(__m256i sum64, __m256i sum32) {
    sum64 = _mm256_add_epi64(sum64, _mm256_cvtepi32_epi64(_mm256_castsi256_si128(sum32)));
    return _mm256_add_epi64(sum64, _mm256_cvtepi32_epi64(_mm256_extracti128_si256(sum32, 1)));
}

static inline int64_t sum_of(__m256i sum64) {
    int64_t lanes[4];
    memcpy(lanes, &sum64, sizeof lanes);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

static inline __m256i products(__m128i values, const int16_t *x) {
    return _mm256_madd_epi16(_mm256_cvtepi8_epi16(values), _mm256_loadu_si256((const __m256i *)(const void *)x));
}

static inline __m256i block_products(__m256i codes, __m256i levels, const int16_t *x) {
    const __m256i values = _mm256_shuffle_epi8(levels, codes);
    return _mm256_add_epi32(products(_mm256_castsi256_si128(values), x),
                            products(_mm256_extracti128_si256(values, 1), x + 16));
}

/* Bits 2 k and 2 k + 1 of the eight bytes to 64-bit lane k. */
static inline __m256i lower_bits(const uint8_t *block) {
    int64_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    const __m256i moved = _mm256_srlv_epi64(_mm256_set1_epi64x(bytes), _mm256_setr_epi64x(0, 2, 4, 6));
    return _mm256_and_si256(moved, _mm256_set1_epi8(3));
}

/* Bit k of the four bytes to 32-bit lane k, as bit 2. */
static inline __m256i third_bit(const uint8_t *bytes_of_block) {
    int32_t bytes;
    memcpy(&bytes, bytes_of_block, sizeof bytes);
    const __m256i moved = _mm256_srlv_epi32(_mm256_set1_epi32(bytes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    return _mm256_slli_epi32(_mm256_and_si256(moved, _mm256_set1_epi8(1)), 2);
}

int64_t pi2_small_rows_low_bit_avx2(const uint8_t *blocks, const uint8_t *scales, unsigned bits, const int16_t *x,
                                    size_t columns) {
    const size_t count = columns / PI2_SMALL_BLOCK, bytes = pi2_small_block_bytes(bits);
    const __m128i of_2 = _mm_setr_epi8(-3, -1, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i of_3 = _mm_setr_epi8(-7, -5, -3, -1, 1, 3, 5, 7, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i levels = _mm256_broadcastsi128_si256(bits == 3 ? of_3 : of_2);
    __m256i sum = _mm256_setzero_si256();
    for (size_t begin = 0; begin < count; begin += BLOCKS_OF_32_BITS) {
        const size_t end = count - begin < BLOCKS_OF_32_BITS ? count : begin + BLOCKS_OF_32_BITS;
        __m256i part = _mm256_setzero_si256();
        for (size_t b = begin; b < end; b++) {
            const uint8_t *block = blocks + b * bytes;
            __m256i codes = lower_bits(block);
            if (bits == 3) codes = _mm256_or_si256(codes, third_bit(block + 8));
            const __m256i of_block = block_products(codes, levels, x + b * PI2_SMALL_BLOCK);
            part = _mm256_add_epi32(part, _mm256_mullo_epi32(of_block, _mm256_set1_epi32(scales[b])));
        }
        sum = widen(sum, part);
    }
    return sum_of(sum);
}

static inline void sums_of_four(int32_t sums[ROWS], const four_of_rows *four, const int16_t *x, size_t columns) {
    const int8_t *const *rows = four->rows;
    __m256i part[ROWS];
    for (int r = 0; r < ROWS; r++) part[r] = _mm256_setzero_si256();
    for (size_t c = 0; c < columns; c += PI2_SMALL_BLOCK) {
        for (int r = 0; r < ROWS; r++) {
            _mm_prefetch((const char *)four->ahead[r] + c, _MM_HINT_T0);
            for (size_t half = c; half < c + PI2_SMALL_BLOCK; half += 16) {
                const __m128i values = _mm_loadu_si128((const __m128i *)(const void *)(rows[r] + half));
                part[r] = _mm256_add_epi32(part[r], products(values, x + half));
            }
        }
    }
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(part[0], part[1]), _mm256_hadd_epi32(part[2], part[3]));
    const __m128i both = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    _mm_storeu_si128((__m128i *)(void *)sums, both);
}

void pi2_small_rows_int8_avx2(float *sums, const int8_t *rows, const uint32_t *numbers, size_t row_count,
                              const int16_t *x, size_t columns) {
    int8_rows(sums, rows, numbers, row_count, x, columns);
}
