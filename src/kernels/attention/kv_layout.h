/*
 * kv_layout.h: where the keys and values of one head lie; shared by every implementation.
 *
 *   [key tile 0][key tile 1] ... [value tile 0][value tile 1] ...     tiles of 16 positions
 *
 * F16   key tile:   half [dimension][16 positions]
 *       value tile: half [16 positions][value dimensions padded to 16]
 * Q8_0  key tile:   int8 [dimension][16 positions], then half scales [dimension / 32][16]
 *       value tile: int8 [16 positions][dimension], then half scales [dimension / 32][16]
 * F32   as F16, with a float for each half
 *
 * Where values are keys there are no value tiles.
 */
#ifndef PI2_KERNELS_ATTENTION_KV_LAYOUT_H
#define PI2_KERNELS_ATTENTION_KV_LAYOUT_H

#include "kernels/attention/attention.h"

enum { PI2_KV_TILE = 16, PI2_KV_BLOCK = 32 };

/** Bytes of a number of F16 and F32; not for Q8_0. */
static inline size_t pi2_kv_number_bytes(const pi2_kv_layout *layout) { return layout->type == PI2_KV_F32 ? 4 : 2; }

/** Value dimensions with the padding of F16's and F32's rows; the padding holds zeros. */
static inline size_t pi2_kv_padded_values(const pi2_kv_layout *layout) {
    const size_t dimensions = layout->value_dimensions;
    return (dimensions + PI2_KV_TILE - 1) / PI2_KV_TILE * PI2_KV_TILE;
}

static inline size_t pi2_kv_key_tile_bytes(const pi2_kv_layout *layout) {
    const size_t dimensions = layout->key_dimensions;
    if (layout->type != PI2_KV_Q8_0) return dimensions * PI2_KV_TILE * pi2_kv_number_bytes(layout);
    return dimensions * PI2_KV_TILE + dimensions / PI2_KV_BLOCK * PI2_KV_TILE * 2;
}

static inline size_t pi2_kv_value_tile_bytes(const pi2_kv_layout *layout) {
    const size_t dimensions = layout->value_dimensions;
    if (layout->values_are_keys) return 0;
    if (layout->type != PI2_KV_Q8_0) {
        return pi2_kv_padded_values(layout) * PI2_KV_TILE * pi2_kv_number_bytes(layout);
    }
    return dimensions * PI2_KV_TILE + dimensions / PI2_KV_BLOCK * PI2_KV_TILE * 2;
}

/** Tiles that so many positions in a row touch at most, wherever they begin. */
static inline uint32_t pi2_kv_tiles_of(uint32_t positions) {
    return (uint32_t)(((uint64_t)positions + 2 * PI2_KV_TILE - 2) / PI2_KV_TILE);
}

/** Byte offset of the first value tile: the keys, rounded up to a cache line. */
static inline size_t pi2_kv_values_offset(const pi2_kv_layout *layout) {
    const size_t tiles = ((size_t)layout->capacity + PI2_KV_TILE - 1) / PI2_KV_TILE;
    return (tiles * pi2_kv_key_tile_bytes(layout) + 63) / 64 * 64;
}

static inline const uint8_t *pi2_kv_key_tile(const void *head, const pi2_kv_layout *layout,
                                             size_t tile) {
    return (const uint8_t *)head + tile * pi2_kv_key_tile_bytes(layout);
}

static inline const uint8_t *pi2_kv_value_tile(const void *head, const pi2_kv_layout *layout,
                                               size_t tile) {
    return (const uint8_t *)head + pi2_kv_values_offset(layout) +
           tile * pi2_kv_value_tile_bytes(layout);
}

/** The tile of the head's memory in which a sequence's tile lies. */
static inline size_t pi2_kv_page(const uint32_t *pages, size_t tile) { return pages ? pages[tile] : tile; }

/** Rounds floats to halves, to nearest even. */
typedef void pi2_floats_to_halves_fn(uint16_t *halves, const float *x, size_t count);

/** `store` of every set, which brings its own conversion. */
void pi2_kv_store(void *head, const pi2_kv_layout *layout, uint32_t position, const float *key,
                  const float *value, pi2_floats_to_halves_fn *floats_to_halves);

#endif
