/* random_weights.h: repeatable random weights and activations for tests and the benchmark. */
#ifndef PI2_TESTS_SUPPORT_RANDOM_WEIGHTS_H
#define PI2_TESTS_SUPPORT_RANDOM_WEIGHTS_H

#include "kernels/activations.h"

/** xorshift64*: state never 0. */
typedef struct test_random {
    uint64_t state;
} test_random;

/** Seeded from the environment variable `variable`, else with a fixed seed. */
test_random test_random_from_env(const char *variable);
uint32_t test_random_u32(test_random *random);
/** Uniform in [-1, 1). */
float test_random_float(test_random *random);

/** As pi2_weight_formats(), of the formats whose columns can be stored one by one. */
const pi2_weight_format *const *test_formats_of_columns(size_t *count_out);

/** block_count random GGUF blocks: every bit random except that scales are finite and small. */
void test_random_blocks(test_random *random, const pi2_weight_format *format, uint8_t *blocks,
                        size_t block_count);

/** tile_count packed tiles of random rows; `tiles` has tile_count * pi2_tile_bytes(). */
void test_random_tiles(test_random *random, const pi2_weight_format *format, uint8_t *tiles,
                       size_t tile_count, size_t columns);

/**
 * token_count vectors of random floats, quantised here by plain C. `memory` (64-byte aligned)
 * has test_activations_bytes(). Some blocks are all zero; some hold extreme values only.
 */
size_t test_activations_bytes(pi2_activation_kind kind, size_t token_count, size_t columns);
void test_random_activations(test_random *random, pi2_activations *activations,
                             pi2_activation_kind kind, size_t token_count, size_t columns,
                             void *memory);

/** bytes (rounded up) of 64-byte aligned memory; fails the program when there is none. */
void *test_aligned_alloc(size_t bytes);

#endif
