/*
 * weight_format.h: the weight types that we read, and the one layout in which every
 * kernel meets them.
 *
 * GGUF stores a matrix row by row; a row is a sequence of blocks (1, 32, 64 or 256 columns).
 * We store a matrix as tiles: PI2_TILE_ROWS rows, interleaved so that one vector holds
 * the same columns of all of them. A row's dot product then needs no horizontal sum, and
 * GEMV and GEMM share one order of operations (docs/arithmetic.md).
 *
 * A tile of `columns` columns (a multiple of the block) is
 *   [ scale area: every block's scales, padded to PI2_TILE_ALIGNMENT ]
 *   [ value area: every block's quantised values, padded likewise    ]
 * Every quantised value and scale is kept bit for bit: unpack(pack(x)) == x.
 * A matrix whose rows are no multiple of PI2_TILE_ROWS ends in rows of zero bytes.
 */
#ifndef PI2_WEIGHT_FORMATS_WEIGHT_FORMAT_H
#define PI2_WEIGHT_FORMATS_WEIGHT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PI2_TILE_ROWS = 16, PI2_TILE_ALIGNMENT = 64, PI2_LARGEST_BLOCK_BYTES = 210 };

/** Weight types, numbered as in GGUF (docs/gguf.md of ggml, "ggml_type"). */
typedef enum pi2_weight_type {
#define WEIGHT_FORMAT(lower, upper, id) PI2_##upper = (id),
#include "weight_formats/weight_formats.inc"
} pi2_weight_type;

/** How activations are presented to weights of one type. */
typedef enum pi2_activation_kind {
    PI2_ACTIVATION_F32,   /* as they are: F32, F16, BF16 weights */
    PI2_ACTIVATION_Q8_32, /* int8 in blocks of 32: weights in blocks of 32 or 64 */
    PI2_ACTIVATION_Q8_256 /* int8 in blocks of 256: weights in blocks of 256 */
} pi2_activation_kind;

/**
 * Where a GGUF block of one row holds what, in bytes from its beginning. A format by whole blocks says where d and m
 * are: halves, or `scale_bytes` bytes that stand for floats.
 */
typedef struct pi2_block_parts {
    uint16_t code_bits;           /* of one quantised value: 4, 5, 6, 8; of floats 16, 32; 0: none of its own */
    uint16_t scales, scale_bytes; /* everything but the values (floats: nothing) */
    uint16_t halves, half_count;  /* the half floats among the scales */
    uint16_t values, value_bytes; /* the values, without fifth bits where those lie apart */
    uint16_t fifth, fifth_bytes;  /* Q5_0, Q5_1 */
} pi2_block_parts;

/**
 * A block of one row as integers and scales. Blocks of 256 columns: the weight of column k is
 * d[0] * scales[s] * q[k] - m * minimums[s], s = k / sub_columns. Others: d[s] * q[k].
 */
typedef struct pi2_block_values {
    int8_t q[256];
    int16_t scales[16];
    uint8_t minimums[16]; /* with sub_minimums; else left as they are, and so is m */
    float d[4], m;
} pi2_block_values;

typedef struct pi2_weight_format {
    pi2_weight_type type;
    const char *name;         /* "Q4_0" */
    uint32_t block_columns;   /* 1, 32, 64 or 256 */
    uint32_t block_bytes;     /* one row's block in GGUF */
    uint32_t tile_scale_bytes; /* one block of 16 rows: bytes in the tile's scale area (may be 0) */
    uint32_t tile_value_bytes; /* and in its value area */
    pi2_activation_kind activation;

    /**
     * Packs one tile. rows[i] points at block_count GGUF blocks of row i, or is NULL for a
     * row of zero bytes. `tile` has pi2_tile_bytes() bytes; padding is written as zeros.
     */
    void (*pack_tile)(void *tile, const uint8_t *const rows[PI2_TILE_ROWS], size_t block_count);

    /** The inverse for one row: writes block_count GGUF blocks. row: 0 .. 15. */
    void (*unpack_row)(void *blocks, const void *tile, uint32_t row, size_t block_count);

    /** Decodes GGUF blocks of one row to floats: out has block_count * block_columns. */
    void (*decode_row)(float *out, const void *blocks, size_t block_count);

    pi2_block_parts parts;

    /**
     * One GGUF block's values, each in the fewest whole bytes (1; F16, BF16: 2; F32: 4), in the order
     * of columns, as they are stored: before any subtraction. put_codes leaves the block's scales.
     */
    void (*get_codes)(uint8_t *codes, const uint8_t *block);
    void (*put_codes)(uint8_t *block, const uint8_t *codes);

    /* ---- formats that are read by whole blocks (BLOCK_FORMAT); else all of it is 0 ---- */

    uint32_t sub_columns; /* columns that share a scale: 16 or 32 */
    bool sub_minimums;
    /** One GGUF block's integers and scales: what its weights are (docs/arithmetic.md). */
    void (*read_block)(pi2_block_values *values, const uint8_t *block);
    /** unpack_row for one block, given its places in the tile's two areas. */
    void (*unpack_block)(uint8_t *block, const uint8_t *scales, const uint8_t *values, uint32_t row);
} pi2_weight_format;

/** Whether single columns can be stored and computed (neuron_form.h); other formats stay whole. */
static inline bool pi2_has_columns(const pi2_weight_format *format) { return format->get_codes != NULL; }

/** The format of a GGUF type id, or NULL when we cannot read it. */
const pi2_weight_format *pi2_weight_format_find(uint32_t gguf_type);

/** The name of any GGUF type id, also of those that we cannot read ("unknown type 77"). */
const char *pi2_weight_type_name(uint32_t gguf_type);

/** Every format, in ascending type id. */
const pi2_weight_format *const *pi2_weight_formats(size_t *count_out);

/** Bytes of one tile of `columns` columns: a multiple of PI2_TILE_ALIGNMENT. */
size_t pi2_tile_bytes(const pi2_weight_format *format, size_t columns);

/** Bytes of a tile's scale area, padding included: where its value area begins. */
size_t pi2_tile_scale_area_bytes(const pi2_weight_format *format, size_t columns);

/** Bytes of `columns` columns of one row in GGUF. columns: a multiple of block_columns. */
size_t pi2_row_bytes(const pi2_weight_format *format, size_t columns);

#endif
