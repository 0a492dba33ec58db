/* attention_scalar.c: the specification of attention in portable C (docs/arithmetic.md). */
#include <math.h>
#include <string.h>

#include "base/cpu_features.h"
#include "kernels/attention/kv_layout.h"
#include "kernels/vector/soft_cap.h"
#include "kernels/vector/vector.h"

static float half_at(const uint8_t *halves, size_t index) {
    uint16_t half;
    memcpy(&half, halves + index * 2, sizeof half);
    return pi2_half_to_float(half);
}

/* Number `index` of a tile of F16 or F32. */
static float number_at(const uint8_t *numbers, const pi2_kv_layout *layout, size_t index) {
    float number;
    if (layout->type == PI2_KV_F16) return half_at(numbers, index);
    memcpy(&number, numbers + index * sizeof number, sizeof number);
    return number;
}

/* The key in `lane` of a tile times the query, before the scale of attention. */
static float key_score(const uint8_t *tile, const pi2_kv_layout *layout, size_t lane,
                       const float *query) {
    const size_t dimensions = layout->key_dimensions;
    float score = 0.0f;
    if (layout->type != PI2_KV_Q8_0) {
        for (size_t d = 0; d < dimensions; d++) {
            score = fmaf(query[d], number_at(tile, layout, d * PI2_KV_TILE + lane), score);
        }
        return score;
    }
    const int8_t *values = (const int8_t *)tile;
    const uint8_t *scales = tile + dimensions * PI2_KV_TILE;
    for (size_t block = 0; block < dimensions / PI2_KV_BLOCK; block++) {
        float partial = 0.0f;
        for (size_t d = block * PI2_KV_BLOCK; d < (block + 1) * PI2_KV_BLOCK; d++) {
            partial = fmaf(query[d], (float)values[d * PI2_KV_TILE + lane], partial);
        }
        score = fmaf(partial, half_at(scales, block * PI2_KV_TILE + lane), score);
    }
    return score;
}

/* out += weight * the first dimensions of the key in `lane` of a tile, which are the value. */
static void add_key(float *out, const uint8_t *tile, const pi2_kv_layout *layout, size_t lane, float weight) {
    const size_t dimensions = layout->value_dimensions;
    const uint8_t *scales = tile + (size_t)layout->key_dimensions * PI2_KV_TILE;
    for (size_t d = 0; d < dimensions; d++) {
        const size_t at = d * PI2_KV_TILE + lane;
        if (layout->type == PI2_KV_Q8_0) {
            const float scale = half_at(scales, d / PI2_KV_BLOCK * PI2_KV_TILE + lane);
            out[d] = fmaf(weight * scale, (float)((const int8_t *)tile)[at], out[d]);
        } else {
            out[d] = fmaf(weight, number_at(tile, layout, at), out[d]);
        }
    }
}

/* out += weight * the value in `lane` of a tile. */
static void add_value(float *out, const uint8_t *tile, const pi2_kv_layout *layout, size_t lane,
                      float weight) {
    const size_t dimensions = layout->value_dimensions;
    if (layout->type != PI2_KV_Q8_0) {
        const size_t row = lane * pi2_kv_padded_values(layout);
        for (size_t d = 0; d < dimensions; d++) {
            out[d] = fmaf(weight, number_at(tile, layout, row + d), out[d]);
        }
        return;
    }
    const int8_t *row = (const int8_t *)tile + lane * dimensions;
    const size_t blocks = dimensions / PI2_KV_BLOCK;
    const uint8_t *scales = tile + dimensions * PI2_KV_TILE;
    for (size_t block = 0; block < blocks; block++) {
        const float scaled = weight * half_at(scales, block * PI2_KV_TILE + lane);
        for (size_t d = block * PI2_KV_BLOCK; d < (block + 1) * PI2_KV_BLOCK; d++) {
            out[d] = fmaf(scaled, (float)row[d], out[d]);
        }
    }
}

static void attend_one(float *out, const float *query, size_t first, size_t count,
                       const void *head, const pi2_kv_layout *layout, const uint32_t *pages,
                       const pi2_attention_scoring *scoring, const float *sink, float *scores) {
    float max = -INFINITY;
    for (size_t p = first; p < count; p++) {
        const uint8_t *tile = pi2_kv_key_tile(head, layout, pi2_kv_page(pages, p / PI2_KV_TILE));
        scores[p] = key_score(tile, layout, p % PI2_KV_TILE, query) * scoring->scale;
        if (scoring->cap > 0.0f) pi2_soft_cap(&scores[p], 1, scoring->cap);
        max = scores[p] > max ? scores[p] : max;
    }
    if (sink) max = *sink > max ? *sink : max;
    float sums[PI2_KV_TILE] = {0.0f};
    for (size_t p = first; p < count; p++) {
        scores[p] = pi2_expf(scores[p] - max);
        sums[p % PI2_KV_TILE] += scores[p];
    }
    for (size_t width = PI2_KV_TILE / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) sums[i] += sums[i + width];
    }
    if (sink) sums[0] += pi2_expf(*sink - max);
    for (size_t d = 0; d < layout->value_dimensions; d++) out[d] = 0.0f;
    for (size_t p = first; p < count; p++) {
        const size_t page = pi2_kv_page(pages, p / PI2_KV_TILE), lane = p % PI2_KV_TILE;
        if (layout->values_are_keys) add_key(out, pi2_kv_key_tile(head, layout, page), layout, lane, scores[p]);
        else add_value(out, pi2_kv_value_tile(head, layout, page), layout, lane, scores[p]);
    }
    if (first >= count) return; /* nothing to see: zeros */
    for (size_t d = 0; d < layout->value_dimensions; d++) out[d] /= sums[0];
}

static void attend(float *const *outs, const float *const *queries, const uint32_t *key_counts,
                   const uint32_t *first_keys, size_t query_count, const void *head,
                   const pi2_kv_layout *layout, const uint32_t *pages, const pi2_attention_scoring *scoring,
                   float *scores, size_t score_stride) {
    (void)score_stride; /* one query at a time needs one row of scores */
    for (size_t i = 0; i < query_count; i++) {
        attend_one(outs[i], queries[i], first_keys ? first_keys[i] : 0, key_counts[i], head,
                   layout, pages, scoring, scoring->sinks ? &scoring->sinks[i] : NULL, scores);
    }
}

static void floats_to_halves(uint16_t *halves, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) halves[i] = pi2_float_to_half(x[i]);
}

static void store(void *head, const pi2_kv_layout *layout, uint32_t position, const float *key,
                  const float *value) {
    pi2_kv_store(head, layout, position, key, value, floats_to_halves);
}

extern const pi2_attention_kernels pi2_attention_kernels_scalar;
const pi2_attention_kernels pi2_attention_kernels_scalar = {
    .name = "scalar",
    .cpu_required = PI2_CPU_NONE,
    .store = store,
    .attend = attend,
};
