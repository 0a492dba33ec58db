/* weight_format.c: the list of formats, names of types, sizes. */
#include "weight_formats/weight_format.h"

#include <stdio.h>
#include <string.h>

#include "weight_formats/tile_values.h"

static const pi2_weight_format *const formats[] = {
#define WEIGHT_FORMAT(lower, upper, id) &pi2_weight_format_##lower,
#include "weight_formats/weight_formats.inc"
};
static const size_t format_count = sizeof formats / sizeof formats[0];

/* NULL: a number that the GGUF format gave up or never gave out. */
static const char *const type_names[] = {
    [0] = "F32",     [1] = "F16",         [2] = "Q4_0",        [3] = "Q4_1",        [4] = "Q4_2",
    [5] = "Q4_3",    [6] = "Q5_0",        [7] = "Q5_1",        [8] = "Q8_0",        [9] = "Q8_1",
    [10] = "Q2_K",   [11] = "Q3_K",       [12] = "Q4_K",       [13] = "Q5_K",       [14] = "Q6_K",
    [15] = "Q8_K",   [16] = "IQ2_XXS",    [17] = "IQ2_XS",     [18] = "IQ3_XXS",    [19] = "IQ1_S",
    [20] = "IQ4_NL", [21] = "IQ3_S",      [22] = "IQ2_S",      [23] = "IQ4_XS",     [24] = "I8",
    [25] = "I16",    [26] = "I32",        [27] = "I64",        [28] = "F64",        [29] = "IQ1_M",
    [30] = "BF16",   [31] = "Q4_0_4_4",   [32] = "Q4_0_4_8",   [33] = "Q4_0_8_8",   [34] = "TQ1_0",
    [35] = "TQ2_0",  [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8", [39] = "MXFP4",
    [40] = "NVFP4",  [41] = "Q1_0",
};

const pi2_weight_format *pi2_weight_format_find(uint32_t gguf_type) {
    for (size_t i = 0; i < format_count; i++) {
        if ((uint32_t)formats[i]->type == gguf_type) return formats[i];
    }
    return NULL;
}

const char *pi2_weight_type_name(uint32_t gguf_type) {
    static _Thread_local char unknown_name[32];
    if (gguf_type < sizeof type_names / sizeof type_names[0] && type_names[gguf_type]) {
        return type_names[gguf_type];
    }
    (void)snprintf(unknown_name, sizeof unknown_name, "unknown type %lu", (unsigned long)gguf_type);
    return unknown_name;
}

const pi2_weight_format *const *pi2_weight_formats(size_t *count_out) {
    *count_out = format_count;
    return formats;
}

static size_t round_up_to_alignment(size_t bytes) {
    return (bytes + PI2_TILE_ALIGNMENT - 1) / PI2_TILE_ALIGNMENT * PI2_TILE_ALIGNMENT;
}

size_t pi2_tile_scale_area_bytes(const pi2_weight_format *format, size_t columns) {
    return round_up_to_alignment(columns / format->block_columns * format->tile_scale_bytes);
}

size_t pi2_tile_bytes(const pi2_weight_format *format, size_t columns) {
    const size_t value_bytes = columns / format->block_columns * format->tile_value_bytes;
    return pi2_tile_scale_area_bytes(format, columns) + round_up_to_alignment(value_bytes);
}

size_t pi2_row_bytes(const pi2_weight_format *format, size_t columns) {
    return columns / format->block_columns * format->block_bytes;
}

void pi2_pack_tile_by_block(const pi2_weight_format *format, pi2_pack_block_fn *pack_block,
                            void *tile, const uint8_t *const rows[PI2_TILE_ROWS],
                            size_t block_count) {
    const size_t columns = block_count * format->block_columns;
    uint8_t *scales = tile;
    uint8_t *values = scales + pi2_tile_scale_area_bytes(format, columns);
    memset(tile, 0, pi2_tile_bytes(format, columns));
    for (uint32_t row = 0; row < PI2_TILE_ROWS; row++) {
        if (!rows[row]) continue;
        for (size_t b = 0; b < block_count; b++) {
            pack_block(scales + b * format->tile_scale_bytes, values + b * format->tile_value_bytes,
                       row, rows[row] + b * format->block_bytes);
        }
    }
}

void pi2_unpack_row_by_block(const pi2_weight_format *format, pi2_unpack_block_fn *unpack_block,
                             void *blocks, const void *tile, uint32_t row, size_t block_count) {
    const uint8_t *scales = tile;
    const uint8_t *values =
        scales + pi2_tile_scale_area_bytes(format, block_count * format->block_columns);
    uint8_t *block = blocks;
    for (size_t b = 0; b < block_count; b++) {
        unpack_block(block + b * format->block_bytes, scales + b * format->tile_scale_bytes,
                     values + b * format->tile_value_bytes, row);
    }
}
