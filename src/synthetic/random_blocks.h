/*
 * random_blocks.h: random weights as GGUF blocks, made at the speed of memory.
 *
 * Blocks are encoded from small integers, so that chosen weights (zeros, a single one) are exact in
 * every type. Bulk weights are runs of a pool of random blocks, each run from another place.
 */
#ifndef PI2_SYNTHETIC_RANDOM_BLOCKS_H
#define PI2_SYNTHETIC_RANDOM_BLOCKS_H

#include "powerinfer2/status.h"
#include "weight_formats/weight_format.h"

/** splitmix64: any state will do, and it moves on by one addition. */
typedef struct pi2_random {
    uint64_t state;
} pi2_random;

static inline uint64_t pi2_random_next(pi2_random *random) {
    uint64_t z = (random->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/** A generator that depends on a seed and a name alone. */
pi2_random pi2_random_named(uint64_t seed, const char *name);
/** Uniform in [low, high). */
float pi2_random_uniform(pi2_random *random, float low, float high);
/** Nearly normal, deviation 1, at most 6 in size; plain additions, so equal on every machine. */
float pi2_random_normal(pi2_random *random);
/** Uniform in -limit .. limit; limit at most 127. */
int8_t pi2_random_integer(pi2_random *random, int limit);

/** Largest integer that a type can hold on both sides of zero. */
int pi2_block_limit(pi2_weight_type type);
/** Standard deviation of uniform integers in -limit .. limit. */
float pi2_block_deviation(pi2_weight_type type);

/**
 * Encodes `count` weights values[i] * step. count: a multiple of the format's block_columns. A format that is read by
 * whole blocks cannot hold any integers: it gets zeros, and who plans gives other weights another format.
 * variation: NULL, or a generator that draws each sub-block's share of the scale (K types).
 */
void pi2_block_encode(const pi2_weight_format *format, uint8_t *blocks, float step,
                      const int8_t *values, size_t count, pi2_random *variation);

/** What gives blocks of random bits a deviation, of a format that is read by whole blocks. */
typedef struct pi2_block_scale {
    float d, minimum; /* the minimum's share of d */
    uint8_t byte;     /* instead, where a scale is no half */
} pi2_block_scale;

pi2_block_scale pi2_block_scale_of(const pi2_weight_format *format, float deviation);
/** One block of random bits, its scale `factor` times the given one. */
void pi2_block_random(const pi2_weight_format *format, uint8_t *block, const pi2_block_scale *scale, float factor,
                      pi2_random *random);

/** Random blocks of one type and deviation. */
typedef struct pi2_block_pool {
    const pi2_weight_format *format;
    float deviation;
    bool is_even;       /* every block has the same scale; otherwise within 0.7 .. 1.3 of it */
    uint8_t *blocks;
    uint64_t block_count;
} pi2_block_pool;

enum { PI2_BLOCK_POOL_BYTES = 4 * 1024 * 1024, PI2_BLOCK_RUN_BYTES = 64 * 1024 };

/** Errors  MEMORY. The pool must be zeroed or closed before. */
pi2_status pi2_block_pool_open(pi2_block_pool *pool, const pi2_weight_format *format,
                               float deviation, bool is_even, uint64_t seed);
void pi2_block_pool_close(pi2_block_pool *pool);

/** A run of random blocks of at most PI2_BLOCK_RUN_BYTES bytes; bytes: whole blocks. */
const uint8_t *pi2_block_pool_run(const pi2_block_pool *pool, pi2_random *random, size_t bytes);

#endif
