/*
 * attention_template.h: attention in lanes of 16 (lanes_<isa>.h). The including file defines
 *
 *   ATTENTION_KERNELS_SYMBOL, _NAME, _CPU
 *   KEY_QUERIES           queries that meet one loaded key at once, 4 or 8
 *   KEY_TILES(queries)    key tiles in flight for so many queries
 *   VALUE_QUERIES         queries that meet one loaded value at once
 *   VALUE_VECTORS         vectors of a value row that meet them together
 *
 * Up to PI2_ATTENTION_GROUP queries share each pass over the keys and the values, so that
 * loading and converting them is paid once. A lane is one position (keys) or one dimension
 * (values); no sum ever crosses queries, so grouping leaves the bits alone.
 * attention_scalar.c says in plain C what this computes.
 */
#include <math.h>

#include "base/cpu_features.h"
#include "kernels/attention/kv_layout.h"
#include "kernels/vector/lanes_exp.h"
#include "kernels/vector/soft_cap.h"
#include "kernels/vector/vector.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

enum {
    KEY_STEPS_AHEAD = 2, /* groups of tiles from the keys in use to those being fetched */
    VALUE_AHEAD = 48, /* positions from the value in use to the one being fetched */
    VALUE_TILES = 8, /* tiles that stay in the first cache while all queries meet them */
    TURNED = 128, /* dimensions of a tile of keys that are turned into rows at once, where they are the values */
    MAX_BLOCKS = (VALUE_VECTORS * LANES + PI2_KV_BLOCK - 1) / PI2_KV_BLOCK
};

typedef struct attention_group {
    float *outs[PI2_ATTENTION_GROUP];
    const float *queries[PI2_ATTENTION_GROUP];
    float *scores[PI2_ATTENTION_GROUP];
    size_t firsts[PI2_ATTENTION_GROUP]; /* query i sees positions firsts[i] .. ends[i] - 1 */
    size_t ends[PI2_ATTENTION_GROUP];
    float sums[PI2_ATTENTION_GROUP];
    size_t count;
    const void *head;
    const pi2_kv_layout *layout;
    const uint32_t *pages; /* NULL: tiles lie where their positions are */
    const float *sinks[PI2_ATTENTION_GROUP]; /* NULL: it has none */
    float scale, cap;
    size_t value_first, value_end; /* dimensions of values that are added */
    const uint8_t *rows; /* where values are keys: those dimensions of one tile, TURNED numbers a position; else NULL */
} attention_group;

/*
 * Tiles of keys and narrow rows of values begin a new stream every few lines, so the
 * processor's own prefetching lags behind: without this, decode over a long context ran at two
 * thirds of the speed. The address may pass the end of the head.
 */
ALWAYS_INLINE void fetch_ahead(const uint8_t *at, size_t bytes) {
    __builtin_prefetch((const void *)((uintptr_t)at + bytes));
}

/* Sixteen numbers of F16 or F32. */
ALWAYS_INLINE lanes load_numbers(const uint8_t *at, size_t number_bytes) {
    return number_bytes == 2 ? lanes_load_halves(at) : lanes_load((const float *)(const void *)at);
}

ALWAYS_INLINE const uint8_t *key_tile(const attention_group *g, size_t tile) {
    return pi2_kv_key_tile(g->head, g->layout, pi2_kv_page(g->pages, tile));
}

/* Positions from `first` on, of those before `end`, whose tiles lie one behind the other: they end here. */
ALWAYS_INLINE size_t end_of_run(const attention_group *g, size_t first, size_t end) {
    if (!g->pages) return end;
    size_t tile = first / LANES;
    while ((tile + 1) * LANES < end && g->pages[tile + 1] == g->pages[tile] + 1) tile++;
    return (tile + 1) * LANES < end ? (tile + 1) * LANES : end;
}

/* Scores of query_count queries and tile_count tiles (both constants after inlining, as number_bytes is). */
ALWAYS_INLINE void key_scores_plain(const attention_group *g, size_t query_begin, size_t query_count, size_t tile,
                                    size_t tile_count, size_t number_bytes) {
    const size_t dimensions = g->layout->key_dimensions;
    const size_t tile_bytes = dimensions * PI2_KV_TILE * number_bytes;
    const float *const *queries = &g->queries[query_begin];
    const uint8_t *keys[4];
    lanes score[KEY_QUERIES][4];
    UNROLLED for (size_t t = 0; t < tile_count; t++) keys[t] = key_tile(g, tile + t);
    UNROLLED for (size_t q = 0; q < query_count; q++) {
        UNROLLED for (size_t t = 0; t < tile_count; t++) score[q][t] = lanes_zero();
    }
    for (size_t d = 0; d < dimensions; d++) {
        lanes key[4];
        UNROLLED for (size_t t = 0; t < tile_count; t++) {
            const uint8_t *at = keys[t] + d * PI2_KV_TILE * number_bytes;
            key[t] = load_numbers(at, number_bytes);
            fetch_ahead(at, KEY_STEPS_AHEAD * tile_count * tile_bytes);
        }
        UNROLLED for (size_t q = 0; q < query_count; q++) {
            const lanes x = lanes_set(queries[q][d]);
            UNROLLED for (size_t t = 0; t < tile_count; t++) {
                score[q][t] = lanes_fma(x, key[t], score[q][t]);
            }
        }
    }
    const lanes scale = lanes_set(g->scale);
    UNROLLED for (size_t q = 0; q < query_count; q++) {
        float *scores = g->scores[query_begin + q] + tile * LANES;
        UNROLLED for (size_t t = 0; t < tile_count; t++) {
            lanes_store(scores + t * LANES, lanes_mul(score[q][t], scale));
        }
    }
}

/* The scores' memory carries the chain over blocks; the last block applies the scale. */
ALWAYS_INLINE void key_scores_q8_0(const attention_group *g, size_t query_begin,
                                   size_t query_count, size_t tile, size_t tile_count) {
    const size_t dimensions = g->layout->key_dimensions;
    const size_t tile_bytes = pi2_kv_key_tile_bytes(g->layout);
    const float *const *queries = &g->queries[query_begin];
    const uint8_t *keys[4];
    UNROLLED for (size_t t = 0; t < tile_count; t++) keys[t] = key_tile(g, tile + t);
    for (size_t begin = 0; begin < dimensions; begin += PI2_KV_BLOCK) {
        lanes partial[KEY_QUERIES][4];
        UNROLLED for (size_t q = 0; q < query_count; q++) {
            UNROLLED for (size_t t = 0; t < tile_count; t++) partial[q][t] = lanes_zero();
        }
        for (size_t d = begin; d < begin + PI2_KV_BLOCK; d++) {
            lanes key[4];
            UNROLLED for (size_t t = 0; t < tile_count; t++) {
                const uint8_t *at = keys[t] + d * PI2_KV_TILE;
                key[t] = lanes_load_int8(at);
                if (d % 4 == 0) fetch_ahead(at, KEY_STEPS_AHEAD * tile_count * tile_bytes);
            }
            UNROLLED for (size_t q = 0; q < query_count; q++) {
                const lanes x = lanes_set(queries[q][d]);
                UNROLLED for (size_t t = 0; t < tile_count; t++) {
                    partial[q][t] = lanes_fma(x, key[t], partial[q][t]);
                }
            }
        }
        const size_t scales_at = dimensions * PI2_KV_TILE + begin / PI2_KV_BLOCK * PI2_KV_TILE * 2;
        UNROLLED for (size_t t = 0; t < tile_count; t++) {
            const lanes block_scale = lanes_load_halves(keys[t] + scales_at);
            UNROLLED for (size_t q = 0; q < query_count; q++) {
                float *at = g->scores[query_begin + q] + (tile + t) * LANES;
                const lanes before = begin == 0 ? lanes_zero() : lanes_load(at);
                lanes score = lanes_fma(partial[q][t], block_scale, before);
                if (begin + PI2_KV_BLOCK == dimensions) {
                    score = lanes_mul(score, lanes_set(g->scale));
                }
                lanes_store(at, score);
            }
        }
    }
}

ALWAYS_INLINE void key_scores_of_tiles(const attention_group *g, size_t query_begin,
                                       size_t query_count, size_t tile, size_t tile_end) {
    const size_t step = KEY_TILES(query_count);
    if (g->layout->type == PI2_KV_F16) {
        for (; tile + step <= tile_end; tile += step) {
            key_scores_plain(g, query_begin, query_count, tile, step, 2);
        }
        for (; tile < tile_end; tile++) key_scores_plain(g, query_begin, query_count, tile, 1, 2);
    } else if (g->layout->type == PI2_KV_F32) {
        for (; tile < tile_end; tile++) key_scores_plain(g, query_begin, query_count, tile, 1, 4);
    } else {
        for (; tile + step <= tile_end; tile += step) {
            key_scores_q8_0(g, query_begin, query_count, tile, step);
        }
        for (; tile < tile_end; tile++) key_scores_q8_0(g, query_begin, query_count, tile, 1);
    }
}

static void key_scores(const attention_group *g, size_t query_begin, size_t query_count,
                       size_t tile, size_t tile_end) {
    switch (query_count) {
    case 1: key_scores_of_tiles(g, query_begin, 1, tile, tile_end); break;
    case 2: key_scores_of_tiles(g, query_begin, 2, tile, tile_end); break;
    case 3: key_scores_of_tiles(g, query_begin, 3, tile, tile_end); break;
    case 4: key_scores_of_tiles(g, query_begin, 4, tile, tile_end); break;
#if KEY_QUERIES > 4
    case 5: key_scores_of_tiles(g, query_begin, 5, tile, tile_end); break;
    case 6: key_scores_of_tiles(g, query_begin, 6, tile, tile_end); break;
    case 7: key_scores_of_tiles(g, query_begin, 7, tile, tile_end); break;
    default: key_scores_of_tiles(g, query_begin, 8, tile, tile_end); break;
#endif
    }
}

/* Scores become weights exp(score - max), zero outside the range; returns their sum. */
static float scores_to_weights(float *scores, size_t first, size_t end, float cap, const float *sink) {
    const size_t tile_begin = first / LANES;
    const size_t tile_end = (end + LANES - 1) / LANES;
    const lanes lowest = lanes_set(-INFINITY);
    lanes largest = lowest;
    if (cap > 0.0f && first < end) pi2_soft_cap(scores + first, end - first, cap);
    for (size_t tile = tile_begin; tile < tile_end; tile++) {
        const size_t position = tile * LANES;
        lanes score = lanes_load(scores + position);
        if (position < first || position + LANES > end) {
            const size_t lane_first = position < first ? first - position : 0;
            const size_t lane_end = position + LANES > end ? end - position : LANES;
            score = lanes_keep(score, lowest, lane_first, lane_end);
        }
        largest = lanes_max(score, largest);
    }
    float most = lanes_max_of_all(largest);
    if (sink) most = *sink > most ? *sink : most;
    const lanes max = lanes_set(most);
    lanes sums = lanes_zero();
    for (size_t tile = tile_begin; tile < tile_end; tile++) {
        const size_t position = tile * LANES;
        lanes weight = lanes_exp(lanes_sub(lanes_load(scores + position), max));
        if (position < first || position + LANES > end) {
            const size_t lane_first = position < first ? first - position : 0;
            const size_t lane_end = position + LANES > end ? end - position : LANES;
            weight = lanes_keep(weight, lanes_zero(), lane_first, lane_end);
        }
        lanes_store(scores + position, weight);
        sums = lanes_add(sums, weight);
    }
    const float sum = lanes_sum(sums);
    return sink ? sum + pi2_expf(*sink - most) : sum;
}

/* A vector of an out row, of which the last may be partly beyond the value's dimensions. */
ALWAYS_INLINE lanes load_out(const float *out, size_t dimension, size_t dimensions) {
    if (dimension + LANES <= dimensions) return lanes_load(out + dimension);
    return lanes_load_first(out + dimension, dimensions - dimension);
}
ALWAYS_INLINE void store_out(float *out, lanes a, size_t dimension, size_t dimensions) {
    if (dimension + LANES <= dimensions) lanes_store(out + dimension, a);
    else lanes_store_first(out + dimension, a, dimensions - dimension);
}

/* outs += weights * values of positions first .. end - 1; vector_count vectors of a row. */
ALWAYS_INLINE void add_values_plain(const attention_group *g, size_t query_begin, size_t query_count, size_t first,
                                    size_t end, size_t dimension, size_t vector_count, size_t number_bytes) {
    const size_t dimensions = g->layout->value_dimensions;
    const size_t row_bytes = (g->rows ? TURNED : pi2_kv_padded_values(g->layout)) * number_bytes;
    lanes sum[VALUE_QUERIES][VALUE_VECTORS];
    UNROLLED for (size_t q = 0; q < query_count; q++) {
        UNROLLED for (size_t v = 0; v < vector_count; v++) {
            sum[q][v] = load_out(g->outs[query_begin + q], dimension + v * LANES, dimensions);
        }
    }
    float *const *weights = &g->scores[query_begin];
    for (size_t p = first; p < end;) {
        const size_t run_end = end_of_run(g, p, end);
        const uint8_t *tile = g->rows ? g->rows - g->value_first * number_bytes
                                      : pi2_kv_value_tile(g->head, g->layout, pi2_kv_page(g->pages, p / LANES));
        const uint8_t *row = tile + p % LANES * row_bytes + dimension * number_bytes;
        for (; p < run_end; p++, row += row_bytes) {
            lanes value[VALUE_VECTORS];
            UNROLLED for (size_t v = 0; v < vector_count; v++) {
                value[v] = load_numbers(row + v * LANES * number_bytes, number_bytes);
                if (v % 2 == 0) fetch_ahead(row + v * LANES * number_bytes, VALUE_AHEAD * row_bytes);
            }
            UNROLLED for (size_t q = 0; q < query_count; q++) {
                const lanes weight = lanes_set(weights[q][p]);
                UNROLLED for (size_t v = 0; v < vector_count; v++) {
                    sum[q][v] = lanes_fma(weight, value[v], sum[q][v]);
                }
            }
        }
    }
    UNROLLED for (size_t q = 0; q < query_count; q++) {
        UNROLLED for (size_t v = 0; v < vector_count; v++) {
            store_out(g->outs[query_begin + q], sum[q][v], dimension + v * LANES, dimensions);
        }
    }
}

/* The same: weight * scale is formed for 16 positions at once. */
ALWAYS_INLINE void add_values_q8_0(const attention_group *g, size_t query_begin,
                                   size_t query_count, size_t first, size_t end,
                                   size_t dimension, size_t vector_count) {
    const size_t dimensions = g->layout->value_dimensions;
    const size_t block_count = vector_count > 2 ? vector_count * LANES / PI2_KV_BLOCK : 1;
    float scaled[VALUE_QUERIES][MAX_BLOCKS][LANES];
    lanes sum[VALUE_QUERIES][VALUE_VECTORS];
    UNROLLED for (size_t q = 0; q < query_count; q++) {
        UNROLLED for (size_t v = 0; v < vector_count; v++) {
            sum[q][v] = lanes_load(g->outs[query_begin + q] + dimension + v * LANES);
        }
    }
    for (size_t tile = first / LANES; tile * LANES < end; tile++) {
        const size_t position = tile * LANES;
        const size_t page = pi2_kv_page(g->pages, tile), row_bytes = g->rows ? TURNED : dimensions;
        const uint8_t *values = g->rows ? g->rows - g->value_first : pi2_kv_value_tile(g->head, g->layout, page);
        const uint8_t *scales = (g->rows ? pi2_kv_key_tile(g->head, g->layout, page) +
                                           (size_t)g->layout->key_dimensions * PI2_KV_TILE
                                         : values + dimensions * PI2_KV_TILE) +
                                dimension / PI2_KV_BLOCK * PI2_KV_TILE * 2;
        UNROLLED for (size_t b = 0; b < block_count; b++) {
            const lanes scale = lanes_load_halves(scales + b * PI2_KV_TILE * 2);
            UNROLLED for (size_t q = 0; q < query_count; q++) {
                const lanes weight = lanes_load(g->scores[query_begin + q] + position);
                lanes_store(scaled[q][b], lanes_mul(weight, scale));
            }
        }
        const size_t lane_end = position + LANES > end ? end - position : LANES;
        for (size_t lane = position < first ? first - position : 0; lane < lane_end; lane++) {
            const uint8_t *row = values + lane * row_bytes + dimension;
            lanes value[VALUE_VECTORS];
            UNROLLED for (size_t v = 0; v < vector_count; v++) {
                value[v] = lanes_load_int8(row + v * LANES);
                if (v % 4 == 0) fetch_ahead(row + v * LANES, VALUE_AHEAD * row_bytes);
            }
            UNROLLED for (size_t q = 0; q < query_count; q++) {
                UNROLLED for (size_t v = 0; v < vector_count; v++) {
                    const lanes weight = lanes_set(scaled[q][v * LANES / PI2_KV_BLOCK][lane]);
                    sum[q][v] = lanes_fma(weight, value[v], sum[q][v]);
                }
            }
        }
    }
    UNROLLED for (size_t q = 0; q < query_count; q++) {
        UNROLLED for (size_t v = 0; v < vector_count; v++) {
            lanes_store(g->outs[query_begin + q] + dimension + v * LANES, sum[q][v]);
        }
    }
}

ALWAYS_INLINE void add_values_of_queries(const attention_group *g, size_t query_begin,
                                         size_t query_count, size_t first, size_t end) {
    const size_t dimensions = g->value_end;
    size_t d = g->value_first;
    if (g->layout->type == PI2_KV_F16) {
        for (; d + VALUE_VECTORS * LANES <= dimensions; d += VALUE_VECTORS * LANES) {
            add_values_plain(g, query_begin, query_count, first, end, d, VALUE_VECTORS, 2);
        }
        for (; d < dimensions; d += LANES) {
            add_values_plain(g, query_begin, query_count, first, end, d, 1, 2);
        }
    } else if (g->layout->type == PI2_KV_F32) {
        for (; d < dimensions; d += LANES) add_values_plain(g, query_begin, query_count, first, end, d, 1, 4);
    } else {
        for (; d + VALUE_VECTORS * LANES <= dimensions; d += VALUE_VECTORS * LANES) {
            add_values_q8_0(g, query_begin, query_count, first, end, d, VALUE_VECTORS);
        }
        for (; d < dimensions; d += LANES) {
            add_values_q8_0(g, query_begin, query_count, first, end, d, 1);
        }
    }
}

static void add_values(const attention_group *g, size_t query_begin, size_t query_count,
                       size_t first, size_t end) {
    switch (query_count) {
    case 1: add_values_of_queries(g, query_begin, 1, first, end); break;
#if VALUE_QUERIES > 2
    case 2: add_values_of_queries(g, query_begin, 2, first, end); break;
    case 3: add_values_of_queries(g, query_begin, 3, first, end); break;
#endif
    default: add_values_of_queries(g, query_begin, VALUE_QUERIES, first, end); break;
    }
}

/*
 * A weight of zero must not meet a value that its query does not see (it may be infinite), so
 * only the positions that every query sees are summed together, tile block by tile block;
 * what comes before and behind them is summed query by query. Each chain still ascends.
 * Positions from `begin` on, of those before `stop`.
 */
static void add_values_between(const attention_group *g, size_t begin, size_t stop) {
    size_t firsts[PI2_ATTENTION_GROUP], ends[PI2_ATTENTION_GROUP];
    size_t first = 0;
    size_t end = SIZE_MAX;
    for (size_t q = 0; q < g->count; q++) {
        firsts[q] = g->firsts[q] > begin ? g->firsts[q] : begin;
        ends[q] = g->ends[q] < stop ? g->ends[q] : stop;
        first = firsts[q] > first ? firsts[q] : first;
        end = ends[q] < end ? ends[q] : end;
    }
    if (first >= end) {
        for (size_t q = 0; q < g->count; q++) {
            if (firsts[q] < ends[q]) add_values(g, q, 1, firsts[q], ends[q]);
        }
        return;
    }
    for (size_t q = 0; q < g->count; q++) {
        if (firsts[q] < first) add_values(g, q, 1, firsts[q], first);
    }
    const size_t step = (size_t)VALUE_TILES * LANES;
    for (size_t p = first; p < end; p = p / step * step + step) {
        const size_t block_end = p / step * step + step < end ? p / step * step + step : end;
        for (size_t q = 0; q < g->count; q += VALUE_QUERIES) {
            const size_t left = g->count - q;
            add_values(g, q, left < VALUE_QUERIES ? left : VALUE_QUERIES, p, block_end);
        }
    }
    for (size_t q = 0; q < g->count; q++) {
        if (ends[q] > end) add_values(g, q, 1, end, ends[q]);
    }
}

/* ---- values that are keys: rows of a tile's columns ---- */

typedef uint8_t turned_bytes __attribute__((vector_size(16)));
typedef uint16_t turned_halves __attribute__((vector_size(32)));
enum { BYTES_AT_ONCE = 16, HALVES_AT_ONCE = 8 };

/* 16 dimensions of 16 positions: each round puts the second half of what there is between the first. */
ALWAYS_INLINE void turn_bytes(uint8_t *rows, const uint8_t *columns) {
    turned_bytes at[BYTES_AT_ONCE], next[BYTES_AT_ONCE];
    UNROLLED for (size_t i = 0; i < BYTES_AT_ONCE; i++) memcpy(&at[i], columns + i * sizeof at[i], sizeof at[i]);
    UNROLLED for (size_t round = 0; round < 4; round++) {
        UNROLLED for (size_t i = 0; i < BYTES_AT_ONCE / 2; i++) {
            const turned_bytes a = at[i], b = at[i + BYTES_AT_ONCE / 2];
            next[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            next[2 * i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                                      31);
        }
        UNROLLED for (size_t i = 0; i < BYTES_AT_ONCE; i++) at[i] = next[i];
    }
    UNROLLED for (size_t i = 0; i < BYTES_AT_ONCE; i++) memcpy(rows + i * TURNED, &at[i], sizeof at[i]);
}

/* 8 dimensions of 16 positions, the first 8 and the last 8 each in their half of a vector. */
ALWAYS_INLINE void turn_halves(uint8_t *rows, const uint8_t *columns) {
    turned_halves at[HALVES_AT_ONCE], next[HALVES_AT_ONCE];
    UNROLLED for (size_t i = 0; i < HALVES_AT_ONCE; i++) memcpy(&at[i], columns + i * sizeof at[i], sizeof at[i]);
    UNROLLED for (size_t round = 0; round < 3; round++) {
        UNROLLED for (size_t i = 0; i < HALVES_AT_ONCE / 2; i++) {
            const turned_halves a = at[i], b = at[i + HALVES_AT_ONCE / 2];
            next[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27);
            next[2 * i + 1] = __builtin_shufflevector(a, b, 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15,
                                                      31);
        }
        UNROLLED for (size_t i = 0; i < HALVES_AT_ONCE; i++) at[i] = next[i];
    }
    UNROLLED for (size_t i = 0; i < HALVES_AT_ONCE; i++) {
        memcpy(rows + i * TURNED * 2, &at[i], sizeof at[i] / 2);
        memcpy(rows + (i + 8) * TURNED * 2, (const uint8_t *)&at[i] + sizeof at[i] / 2, sizeof at[i] / 2);
    }
}

/* `count` dimensions, a multiple of 16, from g->value_first on. */
static void turn_tile(const attention_group *g, size_t tile, size_t count, uint8_t *rows) {
    const uint8_t *keys = key_tile(g, tile);
    if (g->layout->type == PI2_KV_F16) {
        for (size_t d = 0; d < count; d += HALVES_AT_ONCE) {
            turn_halves(rows + d * 2, keys + (g->value_first + d) * PI2_KV_TILE * 2);
        }
    } else if (g->layout->type == PI2_KV_Q8_0) {
        for (size_t d = 0; d < count; d += BYTES_AT_ONCE) {
            turn_bytes(rows + d, keys + (g->value_first + d) * PI2_KV_TILE);
        }
    } else {
        const float *from = (const float *)(const void *)keys + g->value_first * PI2_KV_TILE;
        float *to = (float *)(void *)rows;
        for (size_t d = 0; d < count; d++) {
            for (size_t p = 0; p < PI2_KV_TILE; p++) to[p * TURNED + d] = from[d * PI2_KV_TILE + p];
        }
    }
}

static void add_keys_between(attention_group *g, size_t begin, size_t stop) {
    _Alignas(64) uint8_t rows[TURNED * PI2_KV_TILE * sizeof(float)];
    const size_t dimensions = g->layout->value_dimensions;
    g->rows = rows;
    for (size_t tile = begin / LANES; tile * LANES < stop; tile++) {
        for (g->value_first = 0; g->value_first < dimensions; g->value_first = g->value_end) {
            const size_t left = dimensions - g->value_first, count = left < TURNED ? left : TURNED;
            g->value_end = g->value_first + count;
            turn_tile(g, tile, count, rows);
            add_values_between(g, tile * LANES, (tile + 1) * LANES);
        }
    }
    g->rows = NULL;
}

static void attend_group(attention_group *g) {
    const size_t dimensions = g->layout->value_dimensions;
    size_t first = SIZE_MAX;
    size_t end = 0;
    for (size_t q = 0; q < g->count; q++) {
        first = g->firsts[q] < first ? g->firsts[q] : first;
        end = g->ends[q] > end ? g->ends[q] : end;
    }
    const size_t tile_end = (end + LANES - 1) / LANES;
    for (size_t q = 0; q < g->count; q += KEY_QUERIES) {
        const size_t left = g->count - q;
        key_scores(g, q, left < KEY_QUERIES ? left : KEY_QUERIES, first / LANES, tile_end);
    }
    for (size_t q = 0; q < g->count; q++) {
        g->sums[q] = scores_to_weights(g->scores[q], g->firsts[q], g->ends[q], g->cap, g->sinks[q]);
        memset(g->outs[q], 0, dimensions * sizeof(float));
    }
    g->value_first = 0;
    g->value_end = dimensions;
    if (g->layout->values_are_keys) add_keys_between(g, first, end);
    else add_values_between(g, 0, SIZE_MAX);
    for (size_t q = 0; q < g->count; q++) {
        if (g->firsts[q] >= g->ends[q]) continue; /* nothing to see: zeros */
        const lanes sum = lanes_set(g->sums[q]);
        for (size_t d = 0; d < dimensions; d += LANES) {
            const lanes out = load_out(g->outs[q], d, dimensions);
            store_out(g->outs[q], lanes_div(out, sum), d, dimensions);
        }
    }
}

static void attend(float *const *outs, const float *const *queries, const uint32_t *key_counts,
                   const uint32_t *first_keys, size_t query_count, const void *head,
                   const pi2_kv_layout *layout, const uint32_t *pages, const pi2_attention_scoring *scoring,
                   float *scores, size_t score_stride) {
    attention_group g = {.head = head, .layout = layout, .pages = pages, .scale = scoring->scale, .cap = scoring->cap};
    for (size_t begin = 0; begin < query_count; begin += g.count) {
        const size_t left = query_count - begin;
        g.count = left < PI2_ATTENTION_GROUP ? left : PI2_ATTENTION_GROUP;
        for (size_t q = 0; q < g.count; q++) {
            g.outs[q] = outs[begin + q];
            g.queries[q] = queries[begin + q];
            g.scores[q] = scores + q * score_stride;
            g.firsts[q] = first_keys ? first_keys[begin + q] : 0;
            g.ends[q] = key_counts[begin + q];
            g.sinks[q] = scoring->sinks ? &scoring->sinks[begin + q] : NULL;
        }
        attend_group(&g);
    }
}

static void floats_to_halves(uint16_t *halves, const float *x, size_t count) {
    const size_t whole = count / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) lanes_store_halves(halves + i, lanes_load(x + i));
    for (size_t i = whole; i < count; i++) halves[i] = pi2_float_to_half(x[i]);
}

static void store(void *head, const pi2_kv_layout *layout, uint32_t position, const float *key,
                  const float *value) {
    pi2_kv_store(head, layout, position, key, value, floats_to_halves);
}

extern const pi2_attention_kernels ATTENTION_KERNELS_SYMBOL;
const pi2_attention_kernels ATTENTION_KERNELS_SYMBOL = {
    .name = ATTENTION_KERNELS_NAME,
    .cpu_required = ATTENTION_KERNELS_CPU,
    .store = store,
    .attend = attend,
};
