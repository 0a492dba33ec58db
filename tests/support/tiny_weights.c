/*
 * tiny_weights.c: random weights, made as quantised blocks directly. Scales are drawn within a
 * factor of two around what gives the wanted deviation; quantised values are uniform.
 */
#include "support/tiny_model.h"

#include <stdlib.h>
#include <string.h>

#include "synthetic/random_blocks.h"

uint64_t pi2_tiny_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/** Uniform in [low, high). */
static float uniform(uint64_t *state, float low, float high) {
    return low + (high - low) * ((float)(pi2_tiny_random(state) >> 40) / 16777216.0f);
}

/** Truncates to half precision: exact rounding is of no use to random values. */
static uint16_t half_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const int exponent = (int)(bits >> 23 & 0xffu) - 127 + 15;
    if (exponent < -9) return (uint16_t)sign;
    if (exponent <= 0) return (uint16_t)(sign | ((bits & 0x7fffffu) | 0x800000u) >> (14 - exponent)); /* subnormal */
    if (exponent >= 31) return (uint16_t)(sign | 0x7bffu);
    return (uint16_t)(sign | (uint32_t)exponent << 10 | (bits >> 13 & 0x3ffu));
}

static void add_u16(pi2_test_bytes *bytes, uint16_t value) {
    const unsigned char encoded[2] = {(unsigned char)value, (unsigned char)(value >> 8)};
    pi2_test_bytes_add(bytes, encoded, 2);
}

static void add_half(pi2_test_bytes *bytes, float value) { add_u16(bytes, half_bits(value)); }

static void add_random_bytes(pi2_test_bytes *bytes, uint64_t *state, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const unsigned char value = (unsigned char)(pi2_tiny_random(state) >> 56);
        pi2_test_bytes_add(bytes, &value, 1);
    }
}

/** One block of 32: scale, or scale and minimum, then the quantised values. */
static void add_block_32(pi2_test_bytes *out, pi2_weight_type type, float deviation, uint64_t *state) {
    const float scale = deviation * uniform(state, 0.7f, 1.4f);
    switch (type) { /* divisors: the deviation of uniform 4-, 5- and 8-bit integers */
    case PI2_Q4_0: add_half(out, scale / 4.6f); add_random_bytes(out, state, 16); break;
    case PI2_Q5_0: add_half(out, scale / 9.2f); add_random_bytes(out, state, 20); break;
    case PI2_Q8_0: add_half(out, scale / 74.0f); add_random_bytes(out, state, 32); break;
    case PI2_Q4_1:
        add_half(out, scale / 4.6f);
        add_half(out, -7.5f * scale / 4.6f);
        add_random_bytes(out, state, 16);
        break;
    case PI2_Q5_1:
        add_half(out, scale / 9.2f);
        add_half(out, -15.5f * scale / 9.2f);
        add_random_bytes(out, state, 20);
        break;
    default: abort();
    }
}

/** Eight scales and eight minima of six bits, packed into twelve bytes as ggml does. */
static void add_q4_k_scales(pi2_test_bytes *out, uint64_t *state) {
    unsigned char scales[8], minima[8], packed[12];
    for (int i = 0; i < 8; i++) {
        scales[i] = (unsigned char)(32 + pi2_tiny_random(state) % 32);
        minima[i] = (unsigned char)(scales[i] - pi2_tiny_random(state) % 3);
    }
    for (int i = 0; i < 4; i++) {
        packed[i] = (unsigned char)(scales[i] | (scales[i + 4] >> 4) << 6);
        packed[i + 4] = (unsigned char)(minima[i] | (minima[i + 4] >> 4) << 6);
        packed[i + 8] = (unsigned char)((scales[i + 4] & 15) | (minima[i + 4] & 15) << 4);
    }
    pi2_test_bytes_add(out, packed, sizeof packed);
}

static void add_block_256(pi2_test_bytes *out, pi2_weight_type type, float deviation, uint64_t *state) {
    const float scale = deviation * uniform(state, 0.7f, 1.4f);
    if (type == PI2_Q4_K) {
        const float d = scale / (4.6f * 47.0f);
        add_half(out, d);
        add_half(out, 7.5f * d);
        add_q4_k_scales(out, state);
        add_random_bytes(out, state, 128);
        return;
    }
    add_random_bytes(out, state, 128 + 64); /* Q6_K: low bits, high bits, 16 scales, d */
    for (int i = 0; i < 16; i++) {
        const int magnitude = 64 + (int)(pi2_tiny_random(state) % 64);
        const unsigned char value = (unsigned char)(i % 2 ? magnitude : -magnitude);
        pi2_test_bytes_add(out, &value, 1);
    }
    add_half(out, scale / (18.5f * 95.0f));
}

/** Blocks that are read whole: random bits, with a scale that fits. */
static void add_whole_blocks(pi2_test_bytes *out, const pi2_weight_format *format, uint64_t blocks, float deviation,
                             uint64_t *state) {
    const pi2_block_scale scale = pi2_block_scale_of(format, deviation);
    pi2_random random = {pi2_tiny_random(state)};
    for (uint64_t i = 0; i < blocks; i++) {
        uint8_t block[PI2_LARGEST_BLOCK_BYTES];
        pi2_block_random(format, block, &scale, uniform(state, 0.7f, 1.4f), &random);
        pi2_test_bytes_add(out, block, format->block_bytes);
    }
}

unsigned char *pi2_tiny_weights(pi2_weight_type type, uint64_t count, float deviation, uint64_t seed,
                                size_t *length_out) {
    pi2_test_bytes out = {0};
    uint64_t state = seed;
    const pi2_weight_format *format = pi2_weight_format_find((uint32_t)type);
    const uint32_t block = format->block_columns;
    if (count % block) abort();
    if (format->read_block) {
        add_whole_blocks(&out, format, count / block, deviation, &state);
        *length_out = out.length;
        return out.data;
    }
    for (uint64_t i = 0; i < count / block; i++) {
        if (block == 32) {
            add_block_32(&out, type, deviation, &state);
        } else if (block == 256) {
            add_block_256(&out, type, deviation, &state);
        } else {
            const float value = uniform(&state, -1.73f, 1.73f) * deviation;
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            if (type == PI2_F32) pi2_test_bytes_add_f32(&out, value);
            else if (type == PI2_F16) add_half(&out, value);
            else add_u16(&out, (uint16_t)(bits >> 16));
        }
    }
    *length_out = out.length;
    return out.data;
}
