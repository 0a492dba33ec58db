/* random_blocks.c: integers to blocks of every weight type, and pools of random ones. */
#include "synthetic/random_blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "kernels/vector/vector.h"
#include "weight_formats/half_float.h"

pi2_random pi2_random_named(uint64_t seed, const char *name) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    pi2_random random = { hash ^ seed * UINT64_C(0xd6e8feb86659fd93) };
    (void)pi2_random_next(&random);
    return random;
}

float pi2_random_uniform(pi2_random *random, float low, float high) {
    return low + (high - low) * ((float)(pi2_random_next(random) >> 40) * 0x1p-24f);
}

float pi2_random_normal(pi2_random *random) {
    int32_t sum = 0; /* of twelve uniform 16-bit numbers: variance 1 in units of 65536 */
    for (int i = 0; i < 3; i++) {
        const uint64_t bits = pi2_random_next(random);
        sum += (int32_t)(bits & 0xffff) + (int32_t)(bits >> 16 & 0xffff) +
               (int32_t)(bits >> 32 & 0xffff) + (int32_t)(bits >> 48);
    }
    return (float)(sum - 6 * 65536 + 6) / 65536.0f;
}

int8_t pi2_random_integer(pi2_random *random, int limit) {
    const uint64_t bits = pi2_random_next(random) >> 32;
    return (int8_t)((int)(bits * (uint64_t)(2 * limit + 1) >> 32) - limit);
}

int pi2_block_limit(pi2_weight_type type) {
    switch (type) {
    case PI2_Q4_0:
    case PI2_Q4_1:
    case PI2_Q4_K: return 7;
    case PI2_Q5_0:
    case PI2_Q5_1: return 15;
    case PI2_Q6_K: return 31;
    default: return 127; /* Q8_0, floats */
    }
}

float pi2_block_deviation(pi2_weight_type type) {
    const float limit = (float)pi2_block_limit(type);
    return sqrtf(limit * (limit + 1.0f) / 3.0f);
}

static void put_u16(uint8_t *bytes, unsigned value) {
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

/** Writes a scale and, `ratio` times as large, a minimum: exact multiples of one another. */
static void put_scale_and_minimum(uint8_t *bytes, float scale, float ratio) {
    const uint16_t half = pi2_float_to_half(scale);
    put_u16(bytes, half);
    put_u16(bytes + 2, pi2_float_to_half(ratio * pi2_float_of_half(half)));
}

/* Values 0 .. 15 into low halves, 16 .. 31 into high ones. */
static void put_nibbles(uint8_t *bytes, const int8_t *values, int bias) {
    for (int i = 0; i < 16; i++) {
        bytes[i] = (uint8_t)(((values[i] + bias) & 15) | ((values[i + 16] + bias) & 15) << 4);
    }
}

static void put_fifth_bits(uint8_t *bytes, const int8_t *values) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (uint32_t)((values[i] + 16) >> 4 & 1) << i;
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(bits >> 8 * i);
}

static void encode_block_32(pi2_weight_type type, uint8_t *block, float step,
                            const int8_t *values) {
    switch (type) {
    case PI2_Q4_0:
        put_u16(block, pi2_float_to_half(step));
        put_nibbles(block + 2, values, 8);
        break;
    case PI2_Q4_1:
        put_scale_and_minimum(block, step, -8.0f);
        put_nibbles(block + 4, values, 8);
        break;
    case PI2_Q5_0:
        put_u16(block, pi2_float_to_half(step));
        put_fifth_bits(block + 2, values);
        put_nibbles(block + 6, values, 16);
        break;
    case PI2_Q5_1:
        put_scale_and_minimum(block, step, -16.0f);
        put_fifth_bits(block + 4, values);
        put_nibbles(block + 8, values, 16);
        break;
    default: /* Q8_0 */
        put_u16(block, pi2_float_to_half(step));
        memcpy(block + 2, values, 32);
        break;
    }
}

/* Sub-block scales lie in 16 .. 31: fine enough, and the block's own scale stays a normal half. */
enum { SUB_SCALE_LEAST = 16, SUB_SCALE_MEAN = 23 };

static unsigned sub_scale(pi2_random *variation) {
    return variation ? SUB_SCALE_LEAST + (unsigned)(pi2_random_next(variation) >> 60)
                     : SUB_SCALE_LEAST;
}

static float unit_of(float step, const pi2_random *variation) {
    return step / (float)(variation ? SUB_SCALE_MEAN : SUB_SCALE_LEAST);
}

/* A sub-block's minimum is 8 times its scale: 0 .. 15 stand for -8 .. 7. */
static void encode_q4_k(uint8_t *block, float step, const int8_t *values, pi2_random *variation) {
    unsigned scales[8];
    put_scale_and_minimum(block, unit_of(step, variation), 8.0f);
    for (int i = 0; i < 8; i++) scales[i] = sub_scale(variation);
    for (int i = 0; i < 4; i++) {
        const unsigned high = scales[i + 4];
        block[4 + i] = block[8 + i] = (uint8_t)(scales[i] | (high >> 4) << 6);
        block[12 + i] = (uint8_t)((high & 15) | (high & 15) << 4);
    }
    for (int i = 0; i < 128; i++) {
        const int8_t *pair = values + i / 32 * 64 + i % 32;
        block[16 + i] = (uint8_t)(((pair[0] + 8) & 15) | ((pair[32] + 8) & 15) << 4);
    }
}

static void encode_q6_k(uint8_t *block, float step, const int8_t *values, pi2_random *variation) {
    for (int half = 0; half < 2; half++) {
        uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half;
        const int8_t *from = values + 128 * half;
        for (int i = 0; i < 32; i++) {
            unsigned q[4];
            for (int k = 0; k < 4; k++) q[k] = (unsigned)(from[i + 32 * k] + 32);
            low[i] = (uint8_t)((q[0] & 15) | (q[2] & 15) << 4);
            low[i + 32] = (uint8_t)((q[1] & 15) | (q[3] & 15) << 4);
            high[i] = (uint8_t)(q[0] >> 4 | (q[1] >> 4) << 2 | (q[2] >> 4) << 4 | (q[3] >> 4) << 6);
        }
    }
    for (int i = 0; i < 16; i++) block[192 + i] = (uint8_t)sub_scale(variation);
    put_u16(block + 208, pi2_float_to_half(unit_of(step, variation)));
}

static void encode_float(pi2_weight_type type, uint8_t *bytes, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (type == PI2_F16) {
        put_u16(bytes, pi2_float_to_half(value));
    } else if (type == PI2_BF16) {
        put_u16(bytes, bits >> 16);
    } else {
        put_u16(bytes, bits & 0xffff);
        put_u16(bytes + 2, bits >> 16);
    }
}

void pi2_block_encode(const pi2_weight_format *format, uint8_t *blocks, float step,
                      const int8_t *values, size_t count, pi2_random *variation) {
    for (size_t i = 0; i < count; i += format->block_columns, blocks += format->block_bytes) {
        if (format->read_block) {
            memset(blocks, 0, format->block_bytes); /* weights of 0 in each of these formats */
        } else if (format->block_columns == 1) {
            encode_float(format->type, blocks, step * (float)values[i]);
        } else if (format->type == PI2_Q4_K) {
            encode_q4_k(blocks, step, values + i, variation);
        } else if (format->type == PI2_Q6_K) {
            encode_q6_k(blocks, step, values + i, variation);
        } else {
            encode_block_32(format->type, blocks, step, values + i);
        }
    }
}

/* ---- blocks that are read whole: any bits will do, with a scale that fits ---- */

static void fill_random(uint8_t *block, size_t bytes, pi2_random *random) {
    for (size_t i = 0; i < bytes; i++) block[i] = (uint8_t)(pi2_random_next(random) >> 56);
}

static void put_scale(const pi2_weight_format *format, uint8_t *block, const pi2_block_scale *scale, float d) {
    const pi2_block_parts *parts = &format->parts;
    if (parts->half_count > 0) put_u16(block + parts->halves, pi2_float_to_half(d));
    if (parts->half_count > 1) put_u16(block + parts->halves + 2, pi2_float_to_half(d * scale->minimum));
    if (parts->half_count == 0) memset(block + parts->scales, scale->byte, parts->scale_bytes);
}

/* The byte that as a block's scale comes nearest to d. */
static uint8_t nearest_byte(const pi2_weight_format *format, float d) {
    uint8_t block[PI2_LARGEST_BLOCK_BYTES] = { 0 }, best = 0;
    float least = INFINITY;
    for (unsigned byte = 0; byte < 256; byte++) {
        pi2_block_values values;
        memset(block + format->parts.scales, (int)byte, format->parts.scale_bytes);
        format->read_block(&values, block);
        const float error = fabsf(values.d[0] - d);
        if (error < least) {
            least = error;
            best = (uint8_t)byte;
        }
    }
    return best;
}

pi2_block_scale pi2_block_scale_of(const pi2_weight_format *format, float deviation) {
    enum { SAMPLES = 64 };
    pi2_random random = pi2_random_named(1, format->name);
    pi2_block_scale scale = { .byte = 0 };
    uint8_t block[PI2_LARGEST_BLOCK_BYTES];
    float weights[256];
    double sum = 0, minimums = 0, squares = 0;
    for (int i = 0; i < 2 * SAMPLES; i++) { /* first where the middle is, then how far weights lie from it */
        pi2_block_values values;
        fill_random(block, format->block_bytes, &random);
        if (i == SAMPLES && format->sub_minimums) scale.minimum = (float)(sum / minimums);
        if (format->parts.half_count == 0) scale.byte = nearest_byte(format, 1.0f);
        put_scale(format, block, &scale, 1.0f);
        format->read_block(&values, block);
        format->decode_row(weights, block, 1);
        for (uint32_t k = 0; k < format->block_columns; k++) {
            if (i < SAMPLES) {
                sum += weights[k];
                minimums += format->sub_minimums ? values.minimums[k / format->sub_columns] : 0;
            } else {
                squares += (double)weights[k] * weights[k];
            }
        }
    }
    scale.d = deviation / (float)sqrt(squares / (SAMPLES * format->block_columns));
    if (format->parts.half_count == 0) scale.byte = nearest_byte(format, scale.d);
    return scale;
}

void pi2_block_random(const pi2_weight_format *format, uint8_t *block, const pi2_block_scale *scale, float factor,
                      pi2_random *random) {
    fill_random(block, format->block_bytes, random);
    /* Code books have a middle of their own: of scales of either sign weights have 0. */
    const bool is_negative = !format->sub_minimums && pi2_random_next(random) >> 63;
    put_scale(format, block, scale, is_negative ? -scale->d * factor : scale->d * factor);
}

pi2_status pi2_block_pool_open(pi2_block_pool *pool, const pi2_weight_format *format,
                               float deviation, bool is_even, uint64_t seed) {
    *pool = (pi2_block_pool){ .format = format, .deviation = deviation, .is_even = is_even,
                              .block_count = PI2_BLOCK_POOL_BYTES / format->block_bytes };
    pool->blocks = malloc(PI2_BLOCK_POOL_BYTES);
    if (!pool->blocks) return pi2_fail(PI2_ERR_MEMORY, "no memory for random weights");
    pi2_random random = pi2_random_named(seed, format->name);
    const int limit = pi2_block_limit(format->type);
    const float step = deviation / pi2_block_deviation(format->type);
    const uint32_t columns = format->block_columns;
    int8_t values[256];
    pi2_block_scale whole = { .d = 0.0f };
    if (format->read_block) whole = pi2_block_scale_of(format, deviation);
    for (uint64_t block = 0; block < pool->block_count; block++) {
        uint8_t *bytes = pool->blocks + block * format->block_bytes;
        if (format->read_block) {
            pi2_block_random(format, bytes, &whole, is_even ? 1.0f : pi2_random_uniform(&random, 0.7f, 1.3f), &random);
            continue;
        }
        if (columns == 1) { /* every bit of the fraction random, not 255 values */
            encode_float(format->type, bytes, pi2_random_uniform(&random, -1.732f, 1.732f) * deviation);
            continue;
        }
        for (uint32_t i = 0; i < columns; i++) values[i] = pi2_random_integer(&random, limit);
        const float scale = is_even ? step : step * pi2_random_uniform(&random, 0.7f, 1.3f);
        pi2_block_encode(format, bytes, scale, values, columns, is_even ? NULL : &random);
    }
    return PI2_OK;
}

void pi2_block_pool_close(pi2_block_pool *pool) {
    free(pool->blocks);
    *pool = (pi2_block_pool){ 0 };
}

const uint8_t *pi2_block_pool_run(const pi2_block_pool *pool, pi2_random *random, size_t bytes) {
    const uint64_t starts = pool->block_count - bytes / pool->format->block_bytes + 1;
    const uint64_t block = (pi2_random_next(random) >> 32) * starts >> 32;
    return pool->blocks + block * pool->format->block_bytes;
}
