/* small_rows_avx512.c: rows of int8, 32 values of four rows at a time. What a block of few bits takes is AVX2's. */
#include <immintrin.h>

#include "kernels/small_rows/small_rows_four_template.h"

enum { LINE = 64 };

int64_t pi2_small_rows_low_bit_avx512(const uint8_t *blocks, const uint8_t *scales, unsigned bits, const int16_t *x,
                                      size_t columns) {
    return pi2_small_rows_low_bit_avx2(blocks, scales, bits, x, columns);
}

static inline void sums_of_four(int32_t sums[ROWS], const four_of_rows *four, const int16_t *x, size_t columns) {
    __m512i part[ROWS];
    for (int r = 0; r < ROWS; r++) part[r] = _mm512_setzero_si512();
    for (size_t c = 0; c < columns; c += PI2_SMALL_BLOCK) {
        const __m512i inputs = _mm512_loadu_si512(x + c);
        for (int r = 0; r < ROWS; r++) {
            if (c % LINE == 0) _mm_prefetch((const char *)four->ahead[r] + c, _MM_HINT_T0);
            const __m256i values = _mm256_loadu_si256((const __m256i *)(const void *)(four->rows[r] + c));
            part[r] = _mm512_dpwssd_epi32(part[r], _mm512_cvtepi8_epi16(values), inputs);
        }
    }
    for (int r = 0; r < ROWS; r++) sums[r] = _mm512_reduce_add_epi32(part[r]);
}

void pi2_small_rows_int8_avx512(float *sums, const int8_t *rows, const uint32_t *numbers, size_t row_count,
                                const int16_t *x, size_t columns) {
    int8_rows(sums, rows, numbers, row_count, x, columns);
}
