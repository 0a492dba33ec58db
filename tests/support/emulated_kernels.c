/*
 * emulated_kernels.c: the kernels of matmul_avxvnni.c for every CPU with AVX2. All is theirs but
 * vpdpbusd: its products are made and added in 32 bits here, each exactly.
 */
#include "support/emulated_kernels.h"

#include "base/cpu_features.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* 16 products of unsigned and signed bytes, as 8 sums of neighbours in 32 bits. */
static inline __m256i sums_of_pairs(__m128i w, __m128i x) {
    return _mm256_madd_epi16(_mm256_cvtepu8_epi16(w), _mm256_cvtepi8_epi16(x));
}

/* What vpdpbusd does: each lane of 32 bits + its 4 products. */
static inline __m256i add_four_products(__m256i sums, __m256i w, __m256i x) {
    const __m256i low = sums_of_pairs(_mm256_castsi256_si128(w), _mm256_castsi256_si128(x));
    const __m256i high =
        sums_of_pairs(_mm256_extracti128_si256(w, 1), _mm256_extracti128_si256(x, 1));
    /* Adding neighbours leaves the lanes 0 1 4 5 2 3 6 7. */
    const __m256i fours = _mm256_hadd_epi32(low, high);
    return _mm256_add_epi32(sums, _mm256_permute4x64_epi64(fours, _MM_SHUFFLE(3, 1, 2, 0)));
}

#define EMULATED(KERNEL)                               \
    KERNEL(pi2_matmul_q4_0_avxvnni_emulated, PI2_Q4_0) \
    KERNEL(pi2_matmul_q4_1_avxvnni_emulated, PI2_Q4_1) \
    KERNEL(pi2_matmul_q5_0_avxvnni_emulated, PI2_Q5_0) \
    KERNEL(pi2_matmul_q5_1_avxvnni_emulated, PI2_Q5_1) \
    KERNEL(pi2_matmul_q8_0_avxvnni_emulated, PI2_Q8_0) \
    KERNEL(pi2_matmul_q4_k_avxvnni_emulated, PI2_Q4_K) \
    KERNEL(pi2_matmul_q6_k_avxvnni_emulated, PI2_Q6_K)

#define PROTOTYPE(function, format) pi2_matmul_fn function;
EMULATED(PROTOTYPE)

#define ADD_PRODUCTS_STEP add_four_products
#define MATMUL_SUFFIX avxvnni_emulated
#include "kernels/matmul/matmul_avxvnni.c"

#define LINE(function, format) {#function, format, PI2_CPU_AVX2, function},
const pi2_matmul_kernel test_emulated_kernels[] = {EMULATED(LINE)};
const size_t test_emulated_kernel_count =
    sizeof test_emulated_kernels / sizeof test_emulated_kernels[0];
#else
const pi2_matmul_kernel test_emulated_kernels[] = {{0}};
const size_t test_emulated_kernel_count = 0;
#endif
