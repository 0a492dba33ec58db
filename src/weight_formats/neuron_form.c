/*
 * neuron_form.c: weights neuron by neuron; see the header.
 *
 * A column's values are bit planes, each over all groups of 32 rows (`rows` rounded up):
 *
 *   nibbles    16 bytes a group: byte j has row j in its low half and row j + 16 in its high half
 *   fifth bit   4 bytes a group: bit k of byte j belongs to row 4 k + j
 *   bits 4-5    twice 4 bytes a group, rows 0-15 of all groups, then rows 16-31 of all groups: bits
 *               2 k and 2 k + 1 of byte j belong to row 4 k + j (and 16 + 4 k + j)
 *   bytes      one value after the other: Q8_0, floats
 *
 * So byte-wise interleaving of four columns puts the four values of one row into one 32-bit lane,
 * low and high halves alike, and the high bits of one lane follow by a shift.
 */
#include "weight_formats/neuron_form.h"

#include <math.h>
#include <string.h>

#include "weight_formats/half_float.h"

enum { GROUP = PI2_NEURON_GROUP_ROWS, LARGEST_BLOCK = 256, LARGEST_TILE = 288 + 32 + 3072 };

static size_t code_bytes(const pi2_weight_format *format) { return (format->parts.code_bits + 7u) / 8; }

static size_t groups_of(size_t rows) { return (rows + GROUP - 1) / GROUP; }

static size_t tiles_of(size_t rows) { return (rows + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS; }

/* ---- rows ---- */

size_t pi2_neuron_row_value_bytes(const pi2_weight_format *format, size_t columns) {
    const pi2_block_parts *parts = &format->parts;
    return columns / format->block_columns * (size_t)(parts->value_bytes + parts->fifth_bytes);
}

size_t pi2_neuron_row_scale_bytes(const pi2_weight_format *format, size_t columns) {
    return columns / format->block_columns * format->parts.scale_bytes;
}

void pi2_neuron_split_row(const pi2_weight_format *format, uint8_t *values, uint8_t *scales,
                          const uint8_t *blocks, size_t block_count) {
    const pi2_block_parts *parts = &format->parts;
    uint8_t *fifth = values ? values + block_count * parts->value_bytes : NULL;
    const size_t fifth_bytes = values ? parts->fifth_bytes : 0, scale_bytes = scales ? parts->scale_bytes : 0;
    for (size_t b = 0; b < block_count; b++, blocks += format->block_bytes) {
        if (values) memcpy(values + b * parts->value_bytes, blocks + parts->values, parts->value_bytes);
        if (fifth_bytes) memcpy(fifth + b * fifth_bytes, blocks + parts->fifth, fifth_bytes);
        if (scale_bytes) memcpy(scales + b * scale_bytes, blocks + parts->scales, scale_bytes);
    }
}

void pi2_neuron_join_row(const pi2_weight_format *format, uint8_t *blocks, const uint8_t *values,
                         const uint8_t *scales, size_t block_count) {
    const pi2_block_parts *parts = &format->parts;
    const uint8_t *fifth = values + block_count * parts->value_bytes;
    for (size_t b = 0; b < block_count; b++, blocks += format->block_bytes) {
        memcpy(blocks + parts->values, values + b * parts->value_bytes, parts->value_bytes);
        if (parts->fifth_bytes) memcpy(blocks + parts->fifth, fifth + b * parts->fifth_bytes, parts->fifth_bytes);
        if (parts->scale_bytes) memcpy(blocks + parts->scales, scales + b * parts->scale_bytes, parts->scale_bytes);
    }
}

/* ---- columns ---- */

size_t pi2_neuron_column_value_bytes(const pi2_weight_format *format, size_t rows) {
    return groups_of(rows) * GROUP * format->parts.code_bits / 8;
}

size_t pi2_neuron_scale_block_bytes(const pi2_weight_format *format, size_t rows) {
    const size_t bytes = tiles_of(rows) * format->tile_scale_bytes;
    return (bytes + PI2_TILE_ALIGNMENT - 1) / PI2_TILE_ALIGNMENT * PI2_TILE_ALIGNMENT;
}

/* The 32 values of one group into their column. */
static void put_group(const pi2_weight_format *format, uint8_t *column, size_t groups, size_t group,
                      const uint8_t q[GROUP]) {
    uint8_t *nibbles = column + 16 * group, *high = column + 16 * groups + 4 * group;
    for (size_t j = 0; j < 16; j++) nibbles[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
    if (format->parts.code_bits == 5) {
        memset(high, 0, 4);
        for (size_t r = 0; r < GROUP; r++) high[r % 4] = (uint8_t)(high[r % 4] | (q[r] >> 4) << (r / 4));
    } else if (format->parts.code_bits == 6) {
        for (size_t half = 0; half < 2; half++, high += 4 * groups) {
            memset(high, 0, 4);
            for (size_t r = 0; r < 16; r++) {
                high[r % 4] = (uint8_t)(high[r % 4] | (q[16 * half + r] >> 4) << (2 * (r / 4)));
            }
        }
    }
}

void pi2_neuron_column_code(const pi2_weight_format *format, uint8_t *code, const uint8_t *column,
                            size_t rows, size_t row) {
    const size_t groups = groups_of(rows), group = row / GROUP, r = row % GROUP;
    const uint8_t *high = column + 16 * groups + 4 * group + r % 4;
    if (format->parts.code_bits >= 8) {
        memcpy(code, column + row * code_bytes(format), code_bytes(format));
        return;
    }
    code[0] = (uint8_t)(column[16 * group + r % 16] >> (r / 16 * 4) & 15);
    if (format->parts.code_bits == 5) {
        code[0] = (uint8_t)(code[0] | (*high >> (r / 4) & 1) << 4);
    } else if (format->parts.code_bits == 6) {
        code[0] = (uint8_t)(code[0] | (high[r / 16 * 4 * groups] >> (r % 16 / 4 * 2) & 3) << 4);
    }
}

/* The values of up to 32 rows, `codes` [GROUP][block_columns], into all columns. */
static void put_codes_of_group(const pi2_weight_format *format, uint8_t *const *columns, size_t groups,
                               size_t group, const uint8_t *codes) {
    const size_t bytes = code_bytes(format);
    for (size_t c = 0; c < format->block_columns; c++) {
        if (!columns[c]) continue;
        if (format->parts.code_bits >= 8) {
            uint8_t *to = columns[c] + group * GROUP * bytes;
            for (size_t r = 0; r < GROUP; r++) {
                memcpy(to + r * bytes, codes + (r * format->block_columns + c) * bytes, bytes);
            }
        } else {
            uint8_t q[GROUP];
            for (size_t r = 0; r < GROUP; r++) q[r] = codes[r * format->block_columns + c];
            put_group(format, columns[c], groups, group, q);
        }
    }
}

/* The scales of rows from first_row on into their tiles' places; zeros behind the last. */
static void put_scales(const pi2_weight_format *format, uint8_t *scale_block, const uint8_t *const *rows,
                       size_t first_row, size_t row_count, size_t row_total) {
    const size_t tile_bytes = format->tile_scale_bytes, used = tiles_of(row_total) * tile_bytes;
    uint8_t *to = scale_block + first_row / PI2_TILE_ROWS * tile_bytes;
    for (size_t first = 0; first < row_count; first += PI2_TILE_ROWS, to += tile_bytes) {
        uint8_t packed[LARGEST_TILE];
        const uint8_t *tile_rows[PI2_TILE_ROWS];
        for (size_t r = 0; r < PI2_TILE_ROWS; r++) {
            tile_rows[r] = first + r < row_count ? rows[first + r] : NULL;
        }
        format->pack_tile(packed, tile_rows, 1);
        memcpy(to, packed, tile_bytes);
    }
    if (first_row + row_count == row_total) {
        memset(scale_block + used, 0, pi2_neuron_scale_block_bytes(format, row_total) - used);
    }
}

void pi2_neuron_split_columns(const pi2_weight_format *format, uint8_t *const *columns, uint8_t *scale_block,
                              const uint8_t *const *rows, size_t first_row, size_t row_count, size_t row_total) {
    uint8_t codes[GROUP * LARGEST_BLOCK];
    const size_t groups = groups_of(row_total), row_codes = format->block_columns * code_bytes(format);
    for (size_t first = 0; first < row_count; first += GROUP) {
        memset(codes, 0, GROUP * row_codes);
        for (size_t r = 0; r < GROUP && first + r < row_count; r++) {
            format->get_codes(codes + r * row_codes, rows[first + r]);
        }
        put_codes_of_group(format, columns, groups, (first_row + first) / GROUP, codes);
    }
    if (scale_block && format->tile_scale_bytes) {
        put_scales(format, scale_block, rows, first_row, row_count, row_total);
    }
}

void pi2_neuron_join_columns(const pi2_weight_format *format, uint8_t *const *rows,
                             const uint8_t *const *columns, const uint8_t *scale_block,
                             size_t row_count) {
    const size_t bytes = code_bytes(format);
    uint8_t codes[LARGEST_BLOCK], packed[LARGEST_TILE] = {0};
    for (size_t row = 0; row < row_count; row++) {
        if (format->tile_scale_bytes) {
            memcpy(packed, scale_block + row / PI2_TILE_ROWS * format->tile_scale_bytes, format->tile_scale_bytes);
            format->unpack_row(rows[row], packed, (uint32_t)(row % PI2_TILE_ROWS), 1);
        }
        for (size_t c = 0; c < format->block_columns; c++) {
            pi2_neuron_column_code(format, codes + c * bytes, columns[c], row_count, row);
        }
        format->put_codes(rows[row], codes);
    }
}

bool pi2_neuron_weights_can_be_skipped(const pi2_weight_format *format, const uint8_t *blocks,
                                       size_t block_count) {
    const pi2_block_parts *parts = &format->parts;
    for (size_t b = 0; b < block_count; b++, blocks += format->block_bytes) {
        for (size_t h = 0; h < parts->half_count; h++) {
            if (!isfinite(pi2_load_half(blocks + parts->halves + 2 * h))) return false;
        }
        if (parts->half_count) continue;
        float weight;
        format->decode_row(&weight, blocks, 1);
        if (!isfinite(weight) || (weight != 0.0f && fabsf(weight) < 0x1p-50f)) return false;
    }
    return true;
}
