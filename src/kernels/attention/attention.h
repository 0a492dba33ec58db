/* attention.h: the key-value cache's layout and attention over it. */
#ifndef PI2_KERNELS_ATTENTION_ATTENTION_H
#define PI2_KERNELS_ATTENTION_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pi2_kv_type { PI2_KV_F16, PI2_KV_Q8_0, PI2_KV_F32 } pi2_kv_type;

/**
 * Keys and values of one layer and one KV head, for `capacity` positions (rounded up to 16).
 * Keys are stored in tiles of 16 positions, interleaved, so that a score needs no horizontal
 * sum; values lie row by row. Memory is touched only where positions have been written.
 * Position tiles are contiguous in ascending order in both areas: [keys of the head][values]. Of a cache that several
 * sequences share, a tile is a page of one of them, and `position` is that in the memory.
 */
typedef struct pi2_kv_layout {
    pi2_kv_type type;
    uint32_t key_dimensions;   /* per head; Q8_0: a multiple of 32 */
    uint32_t value_dimensions;
    uint32_t capacity;         /* positions, a multiple of 16 */
    bool values_are_keys;      /* a value is the first numbers of its key, 16 or a multiple, and is not stored */
} pi2_kv_layout;

/** Bytes of one head in one layer: a multiple of 64. */
size_t pi2_kv_head_bytes(const pi2_kv_layout *layout);

/** Queries that one pass over the keys and values serves; attend() groups them itself. */
enum { PI2_ATTENTION_GROUP = 8 };

/** What becomes of a query's product with a key. */
typedef struct pi2_attention_scoring {
    float scale;         /* times this */
    float cap;           /* then cap * tanh(score / cap); 0: it stays */
    const float *sinks;  /* [query_count]: a score more that the softmax counts and that has no value; NULL: none */
} pi2_attention_scoring;

typedef struct pi2_attention_kernels {
    const char *name;
    unsigned cpu_required;

    /**
     * Stores one position of one head. key: [key_dimensions], value: [value_dimensions], not read where values are
     * keys. Only
     * the memory of the position's tile of 16 is touched. Threads: positions of one tile share
     * cache lines but no bytes, so distinct positions may be stored at the same time.
     */
    void (*store)(void *head, const pi2_kv_layout *layout, uint32_t position,
                  const float *key, const float *value);

    /**
     * Attention of query_count queries that share one KV head.
     * pages[t]: the tile of the head's memory in which positions 16 t .. 16 t + 15 lie, read only where a query sees
     * one of them; NULL: tile t.
     * queries[i] [key_dimensions]; outs[i] [value_dimensions]; query i sees positions
     * first_keys[i] .. key_counts[i] - 1 (first_keys NULL: from 0; a sliding window uses it).
     * scores: scratch of min(query_count, PI2_ATTENTION_GROUP) * score_stride floats,
     * score_stride >= the largest key_counts[i] rounded up to 16.
     * Score = chain of fma over dimensions ascending, scaled and capped; softmax with lanes counted from position
     * 0; out = chain of fma over positions ascending, then one division (docs/arithmetic.md).
     * A query that sees nothing gives zeros. The bits depend neither on query_count nor on
     * which queries share a call. Fastest when queries that see about the same positions are
     * neighbours. outs must not overlap queries or each other. Threads: calls with different
     * outs and scores may run at the same time.
     */
    void (*attend)(float *const *outs, const float *const *queries, const uint32_t *key_counts,
                   const uint32_t *first_keys, size_t query_count, const void *head,
                   const pi2_kv_layout *layout, const uint32_t *pages, const pi2_attention_scoring *scoring,
                   float *scores, size_t score_stride);
} pi2_attention_kernels;

extern const pi2_attention_kernels *const pi2_attention_kernel_sets[];
extern const size_t pi2_attention_kernel_set_count;
const pi2_attention_kernels *pi2_attention_select(unsigned cpu_features);

#endif
