/*
 * matmul_driver.h: the loops around the vector kernels of one instruction set, the same for all.
 *
 * A strip kernel multiplies R tiles by T tokens with both counts fixed, so that its sums live in
 * registers. The driver cuts a call into
 *
 *   panels    of columns, so that what it prepares of the activations has a bound;
 *   chunks    of tokens, whose activations stay in the second-level cache;
 *   strips    of R tiles (weights are read from memory once for each chunk);
 *   groups    of at most T tokens: one call of a strip kernel.
 *
 * Many tokens of a format that is spread (pi2_matmul_spread) have narrow panels instead, cut into chunks of tokens,
 * then strips, then groups.
 *
 * One token (decoding) is one call with all tiles: then weights only stream by. A strip's tiles lie apart then, so that
 * each thread follows several long streams at once: a core has more reads in flight so, and gets more of the memory.
 */
#ifndef PI2_KERNELS_MATMUL_MATMUL_DRIVER_H
#define PI2_KERNELS_MATMUL_MATMUL_DRIVER_H

#include "kernels/matmul/matmul.h"

/** What the driver computes of the activations' sums once for all tiles of a call. */
typedef enum pi2_matmul_prepared {
    PI2_PREPARED_NONE,
    PI2_PREPARED_OFFSET,  /* int32 for each sum: -offset * sum; chains start there */
    PI2_PREPARED_MINIMUM, /* float for each sum: scale * sum */
    PI2_PREPARED_PAIRS    /* 4 pairs of int16 a block of 256: of its eight sums over 32 columns
                             (0, 2) (1, 3) (4, 6) (5, 7) */
} pi2_matmul_prepared;

/** The operands of one call of a strip kernel. */
typedef struct pi2_matmul_strip {
    float *out;
    size_t out_stride;
    const uint8_t *scales, *values; /* first block of the panel in the first tile */
    size_t tile_bytes;
    size_t tile_end, tile_step;     /* the strips begin at tiles 0, tile_step, ... before tile_end */
    size_t tiles_apart;             /* from one of a strip's tiles to the next */
    size_t block_count;
    const int8_t *a; /* quantised activations of the group's first token */
    size_t a_stride;
    const float *a_scales; /* PI2_ACTIVATION_F32: the activations themselves */
    size_t a_scale_stride;
    const void *prepared; /* 4-byte entries */
    size_t prepared_stride;
    bool start;
    bool stream; /* the tiles come from memory: ask for the next ones */
} pi2_matmul_strip;

typedef void pi2_matmul_strip_fn(const pi2_matmul_strip *strip);

enum { PI2_STRIP_MAX_TILES = 4, PI2_STRIP_MAX_TOKENS = 8 };

/**
 * For formats whose unpacking is dear: a panel of a few tiles is spread once for many tokens, and multiplied by strips
 * of its own, whose `values` are what was spread.
 */
typedef struct pi2_matmul_spread {
    uint32_t tiles, max_tokens; /* of a strip: always so many tiles; tokens max_tokens - 2 .. max_tokens */
    size_t block_bytes;         /* a block of those tiles when spread; a multiple of 64 */
    int32_t offset;             /* not 0: as PI2_PREPARED_OFFSET, an entry for each sub-block */
    void (*spread)(void *to, const pi2_matmul_strip *strip);
    pi2_matmul_strip_fn *strips[3]; /* [tokens - (max_tokens - 2)] */
} pi2_matmul_spread;

/** The strip kernels of one format for one instruction set. */
typedef struct pi2_matmul_strips {
    const pi2_weight_format *format;
    pi2_matmul_prepared prepared;
    int32_t offset;      /* PI2_PREPARED_OFFSET */
    uint32_t max_tokens; /* T: every token count 1 .. max_tokens has kernels */
    /* [token count - 1]: of one tile, and of `wide_tiles` tiles (0: there is none). */
    uint32_t wide_tiles[PI2_STRIP_MAX_TOKENS];
    pi2_matmul_strip_fn *one_tile[PI2_STRIP_MAX_TOKENS];
    pi2_matmul_strip_fn *wide[PI2_STRIP_MAX_TOKENS];
    const pi2_matmul_spread *many; /* NULL: there is none */
} pi2_matmul_strips;

/* A quarter of a microsecond of one stream: what memory may take to answer; several streams need less each. */
enum { PI2_PREFETCH_DISTANCE = 8192, PI2_PREFETCH_LIMIT = 65536 };

/**
 * Where a strip kernel begins to ask for lines ahead of their use, or 0: not at all. Hardware
 * follows a stream by itself, but a tile is two short ones; asking front to back keeps memory
 * busy across their ends. A strip whose tiles lie apart is that many streams, and one of one tile is
 * one: each reads all bytes in order, so a fixed distance serves. One of neighbouring tiles asks for
 * the strip after it, if that is no more than a cache holds.
 */
static inline uintptr_t pi2_prefetch_begin(const pi2_matmul_strip *strip, size_t tile) {
    const size_t strip_bytes = strip->tile_step * strip->tile_bytes;
    size_t distance = PI2_PREFETCH_DISTANCE;
    if (!strip->stream || (strip->tile_step > 1 && strip_bytes > PI2_PREFETCH_LIMIT)) return 0;
    if (strip->tile_step > 1 && strip_bytes > distance) distance = strip_bytes;
    if (strip->tile_step == 1 && strip->tiles_apart > 0) distance /= 2;
    return (uintptr_t)strip->scales + tile * strip->tile_bytes + distance;
}

/** Asks for the next `bytes`; the address may lie past the tiles, where it does nothing. */
static inline __attribute__((always_inline)) uintptr_t pi2_prefetch(uintptr_t next, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch((const void *)(next + i));
    return next + bytes;
}

/** The same for all tiles of a strip of T tokens: `bytes` of each. */
static inline __attribute__((always_inline)) uintptr_t
pi2_prefetch_strip(uintptr_t next, const pi2_matmul_strip *strip, int R, int T, size_t bytes) {
    if (T > 1) return pi2_prefetch(next, (size_t)R * bytes);
    const size_t apart = strip->tiles_apart * strip->tile_bytes;
    for (int r = 1; r < R; r++) (void)pi2_prefetch(next + (size_t)r * apart, bytes);
    return pi2_prefetch(next, bytes);
}

/** Runs a call of pi2_matmul_fn with the given strip kernels. */
void pi2_matmul_drive(const pi2_matmul_strips *strips, float *out, size_t out_stride,
                      const void *tiles, size_t tile_count, size_t columns, size_t column_begin,
                      const pi2_activations *x, size_t token_begin, size_t token_count, bool start);

#endif
