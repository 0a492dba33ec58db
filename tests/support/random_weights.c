/* random_weights.c: see the header. */
#include "support/random_weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

test_random test_random_from_env(const char *variable) {
    test_random random = {0x9e3779b97f4a7c15u};
    const char *seed = getenv(variable);
    if (seed && *seed) random.state ^= strtoull(seed, NULL, 0) << 1;
    if (!random.state) random.state = 1;
    return random;
}

uint32_t test_random_u32(test_random *random) {
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return (uint32_t)((random->state * 0x2545f4914f6cdd1du) >> 32);
}

float test_random_float(test_random *random) {
    return (float)(int32_t)test_random_u32(random) * 0x1p-31f;
}

void *test_aligned_alloc(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!memory) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

const pi2_weight_format *const *test_formats_of_columns(size_t *count_out) {
    static const pi2_weight_format *found[64];
    size_t count, kept = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t f = 0; f < count; f++) {
        if (pi2_has_columns(formats[f])) found[kept++] = formats[f];
    }
    *count_out = kept;
    return found;
}

/* A half of either sign, 2^-9 .. 2^-4, now and then zero or subnormal. */
static void put_random_half(test_random *random, uint8_t *bytes) {
    const uint32_t bits = test_random_u32(random);
    uint32_t half = (bits & 0x83ff) | (6 + (bits >> 16) % 6) << 10;
    if (bits >> 28 == 0) half &= 0x83ff;
    if (bits >> 27 == 2) half = 0;
    bytes[0] = (uint8_t)half;
    bytes[1] = (uint8_t)(half >> 8);
}

static void put_random_scales(test_random *random, const pi2_weight_format *format, uint8_t *block) {
    const pi2_block_parts *parts = &format->parts;
    uint32_t bits;
    float value;
    switch (format->type) {
    case PI2_F32:
        value = test_random_float(random);
        memcpy(block, &value, sizeof value);
        break;
    case PI2_BF16:
        value = test_random_float(random);
        memcpy(&bits, &value, sizeof bits);
        block[0] = (uint8_t)(bits >> 16);
        block[1] = (uint8_t)(bits >> 24);
        break;
    case PI2_F16: put_random_half(random, block); break;
    default:
        for (size_t h = 0; h < parts->half_count; h++) put_random_half(random, block + parts->halves + 2 * h);
        if (parts->half_count > 0) break;
        for (size_t i = 0; i < parts->scale_bytes; i++) { /* floats of a byte: powers of two, or some of everything */
            block[parts->scales + i] = (uint8_t)(112 + test_random_u32(random) % 32);
        }
    }
}

void test_random_blocks(test_random *random, const pi2_weight_format *format, uint8_t *blocks,
                        size_t block_count) {
    for (size_t b = 0; b < block_count; b++, blocks += format->block_bytes) {
        const uint32_t extreme = test_random_u32(random) % 16;
        for (uint32_t i = 0; i < format->block_bytes; i++) {
            const uint8_t byte = (uint8_t)test_random_u32(random);
            blocks[i] = extreme == 0 ? 0xff : extreme == 1 ? 0x80 : byte;
        }
        put_random_scales(random, format, blocks);
    }
}

void test_random_tiles(test_random *random, const pi2_weight_format *format, uint8_t *tiles,
                       size_t tile_count, size_t columns) {
    const size_t row_bytes = pi2_row_bytes(format, columns);
    uint8_t *gguf = test_aligned_alloc(PI2_TILE_ROWS * row_bytes);
    const uint8_t *rows[PI2_TILE_ROWS];
    for (size_t tile = 0; tile < tile_count; tile++) {
        for (size_t r = 0; r < PI2_TILE_ROWS; r++) {
            rows[r] = gguf + r * row_bytes;
            test_random_blocks(random, format, gguf + r * row_bytes,
                               columns / format->block_columns);
        }
        format->pack_tile(tiles + tile * pi2_tile_bytes(format, columns), rows,
                          columns / format->block_columns);
    }
    free(gguf);
}

size_t test_activations_bytes(pi2_activation_kind kind, size_t token_count, size_t columns) {
    if (kind == PI2_ACTIVATION_F32) return token_count * (columns + 16) * sizeof(float);
    return pi2_activations_bytes(kind, token_count, columns);
}

/* A block as the header of activations.h describes it. */
static float quantize_block(int8_t *values, const float *x, size_t count) {
    float largest = 0.0f;
    for (size_t k = 0; k < count; k++) largest = fmaxf(largest, fabsf(x[k]));
    const float scale = largest / 127.0f;
    for (size_t k = 0; k < count; k++) {
        values[k] = largest > 0.0f ? (int8_t)nearbyintf(x[k] / scale) : (int8_t)0;
    }
    return scale;
}

static void random_vector(test_random *random, float *x, size_t columns, size_t block) {
    for (size_t k = 0; k < columns; k++) {
        const uint32_t kind = (uint32_t)(k / block * 7 + columns) % 11;
        x[k] = test_random_float(random);
        if (kind == 3) x[k] = 0.0f;
        if (kind == 5) x[k] = 1.5f;
        if (kind == 7) x[k] = -1.5f;
    }
}

void test_random_activations(test_random *random, pi2_activations *activations,
                             pi2_activation_kind kind, size_t token_count, size_t columns,
                             void *memory) {
    pi2_activations_layout(activations, kind, token_count, columns, memory);
    memset(memory, 0, test_activations_bytes(kind, token_count, columns));
    if (kind == PI2_ACTIVATION_F32) {
        float *floats = memory;
        activations->floats = floats;
        activations->float_stride = (columns + 15) / 16 * 16;
        for (size_t t = 0; t < token_count; t++) {
            random_vector(random, floats + t * activations->float_stride, columns, 32);
        }
        return;
    }
    const size_t block = kind == PI2_ACTIVATION_Q8_256 ? 256 : 32;
    const size_t summed = kind == PI2_ACTIVATION_Q8_256 ? 16 : 32;
    float *x = test_aligned_alloc(columns * sizeof *x);
    for (size_t t = 0; t < token_count; t++) {
        int8_t *values = (int8_t *)memory + t * activations->value_stride;
        float *scales = (float *)((uintptr_t)activations->scales) + t * activations->block_stride;
        int16_t *sums = (int16_t *)((uintptr_t)activations->sums) + t * activations->sum_stride;
        random_vector(random, x, columns, block);
        for (size_t k = 0; k < columns; k += block) {
            scales[k / block] = quantize_block(values + k, x + k, block);
        }
        for (size_t k = 0; k < columns; k++)
            sums[k / summed] = (int16_t)(sums[k / summed] + values[k]);
    }
    free(x);
}
