/* attention.c: the table of implementations, the cache's size, and storing a position. */
#include "kernels/attention/attention.h"

#include <assert.h>
#include <string.h>

#include "kernels/attention/kv_layout.h"
#include "kernels/vector/vector.h"

#define ATTENTION_KERNELS(name) extern const pi2_attention_kernels pi2_attention_kernels_##name;
#include "kernels/attention/attention.inc"
#undef ATTENTION_KERNELS

const pi2_attention_kernels *const pi2_attention_kernel_sets[] = {
#define ATTENTION_KERNELS(name) &pi2_attention_kernels_##name,
#include "kernels/attention/attention.inc"
#undef ATTENTION_KERNELS
};
const size_t pi2_attention_kernel_set_count =
    sizeof pi2_attention_kernel_sets / sizeof pi2_attention_kernel_sets[0];

const pi2_attention_kernels *pi2_attention_select(unsigned cpu_features) {
    const pi2_attention_kernels *best = pi2_attention_kernel_sets[0];
    for (size_t i = 1; i < pi2_attention_kernel_set_count; i++) {
        if ((pi2_attention_kernel_sets[i]->cpu_required & ~cpu_features) == 0) {
            best = pi2_attention_kernel_sets[i];
        }
    }
    return best;
}

size_t pi2_kv_head_bytes(const pi2_kv_layout *layout) {
    const size_t tiles = ((size_t)layout->capacity + PI2_KV_TILE - 1) / PI2_KV_TILE;
    const size_t bytes =
        pi2_kv_values_offset(layout) + tiles * pi2_kv_value_tile_bytes(layout);
    return (bytes + 63) / 64 * 64;
}

static void put_half(uint8_t *at, float value) {
    const uint16_t half = pi2_float_to_half(value);
    memcpy(at, &half, sizeof half);
}

static void store_f16(uint8_t *keys, uint8_t *values, const pi2_kv_layout *layout, size_t lane,
                      const float *key, const float *value,
                      pi2_floats_to_halves_fn *floats_to_halves) {
    enum { CHUNK = 64 };
    uint16_t halves[CHUNK];
    for (size_t begin = 0; begin < layout->key_dimensions; begin += CHUNK) {
        const size_t left = layout->key_dimensions - begin;
        const size_t count = left < CHUNK ? left : CHUNK;
        floats_to_halves(halves, key + begin, count);
        for (size_t i = 0; i < count; i++) {
            memcpy(keys + ((begin + i) * PI2_KV_TILE + lane) * 2, &halves[i], 2);
        }
    }
    if (layout->values_are_keys) return;
    const size_t padded = pi2_kv_padded_values(layout);
    uint8_t *row = values + lane * padded * 2;
    for (size_t begin = 0; begin < padded; begin += CHUNK) {
        const size_t left = layout->value_dimensions - begin;
        const size_t count = left < CHUNK ? left : CHUNK;
        const size_t padded_left = padded - begin;
        const size_t stored = padded_left < CHUNK ? padded_left : CHUNK;
        memset(halves, 0, sizeof halves);
        floats_to_halves(halves, value + begin, count);
        memcpy(row + begin * 2, halves, stored * 2);
    }
}

static void store_f32(uint8_t *keys, uint8_t *values, const pi2_kv_layout *layout, size_t lane, const float *key,
                      const float *value) {
    const size_t padded = pi2_kv_padded_values(layout), count = layout->value_dimensions;
    uint8_t *row = values + lane * padded * sizeof *value;
    for (size_t i = 0; i < layout->key_dimensions; i++) {
        memcpy(keys + (i * PI2_KV_TILE + lane) * sizeof *key, &key[i], sizeof *key);
    }
    if (layout->values_are_keys) return;
    memcpy(row, value, count * sizeof *value);
    memset(row + count * sizeof *value, 0, (padded - count) * sizeof *value);
}

static void store_q8_0(uint8_t *keys, uint8_t *values, const pi2_kv_layout *layout, size_t lane,
                       const float *key, const float *value) {
    assert(layout->key_dimensions % PI2_KV_BLOCK == 0);
    assert(layout->value_dimensions % PI2_KV_BLOCK == 0);
    const pi2_vector_kernels *quantizer = pi2_vector_kernel_sets[0];
    signed char block[PI2_KV_BLOCK];
    float scale;
    short sum;
    uint8_t *key_scales = keys + (size_t)layout->key_dimensions * PI2_KV_TILE;
    for (size_t d = 0; d < layout->key_dimensions; d += PI2_KV_BLOCK) {
        quantizer->quantize_q8_32(block, &scale, &sum, key + d, PI2_KV_BLOCK);
        for (size_t i = 0; i < PI2_KV_BLOCK; i++) {
            keys[(d + i) * PI2_KV_TILE + lane] = (uint8_t)block[i];
        }
        put_half(key_scales + (d / PI2_KV_BLOCK * PI2_KV_TILE + lane) * 2, scale);
    }
    if (layout->values_are_keys) return;
    const size_t value_blocks = layout->value_dimensions / PI2_KV_BLOCK;
    uint8_t *value_scales = values + (size_t)layout->value_dimensions * PI2_KV_TILE;
    for (size_t b = 0; b < value_blocks; b++) {
        quantizer->quantize_q8_32(block, &scale, &sum, value + b * PI2_KV_BLOCK, PI2_KV_BLOCK);
        memcpy(values + lane * layout->value_dimensions + b * PI2_KV_BLOCK, block, sizeof block);
        put_half(value_scales + (b * PI2_KV_TILE + lane) * 2, scale);
    }
}

void pi2_kv_store(void *head, const pi2_kv_layout *layout, uint32_t position, const float *key,
                  const float *value, pi2_floats_to_halves_fn *floats_to_halves) {
    assert(position < layout->capacity);
    const size_t tile = position / PI2_KV_TILE;
    const size_t lane = position % PI2_KV_TILE;
    uint8_t *keys = (uint8_t *)head + tile * pi2_kv_key_tile_bytes(layout);
    uint8_t *values = (uint8_t *)head + pi2_kv_values_offset(layout) +
                      tile * pi2_kv_value_tile_bytes(layout);
    if (layout->type == PI2_KV_F16) {
        store_f16(keys, values, layout, lane, key, value, floats_to_halves);
    } else if (layout->type == PI2_KV_F32) {
        store_f32(keys, values, layout, lane, key, value);
    } else {
        store_q8_0(keys, values, layout, lane, key, value);
    }
}
