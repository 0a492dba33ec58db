/*
 * neuron_tiles.c: single neurons out of tiles, for types whose values are 4 bits and nothing else: there both forms
 * hold the same halves of bytes, in other places. In a tile 8 columns of a row are 4 bytes, the first 4 columns in
 * their low halves (tile_values.h).
 */
#include "weight_formats/neuron_form.h"
#include "weight_formats/tile_values.h"

enum { PLANE_BYTES = PI2_NEURON_PLANE_COLUMNS / 2 * PI2_TILE_ROWS, NIBBLE_GROUPS = 4 };

bool pi2_neuron_comes_of_tiles(const pi2_weight_format *format) {
    return pi2_has_columns(format) && format->parts.code_bits == 4 &&
           format->tile_value_bytes == format->block_columns / PI2_NEURON_PLANE_COLUMNS * PLANE_BYTES;
}

/* Where 8 columns of a row lie, from a multiple of 8 on. */
static uint32_t word_at(const uint8_t *planes, uint32_t row, size_t column) {
    return pi2_group_word(planes + column / PI2_NEURON_PLANE_COLUMNS * PLANE_BYTES +
                          column % PI2_NEURON_PLANE_COLUMNS / 8 * PI2_GROUP_POSITIONS + row * PI2_GROUP_COLUMNS);
}

void pi2_neuron_row_of_tile(const pi2_weight_format *format, uint8_t *values, const uint8_t *tile, uint32_t row,
                            size_t block_count) {
    const uint32_t low = 0x0f0f0f0fu, high = 0xf0f0f0f0u;
    const size_t columns = block_count * format->block_columns;
    const uint8_t *planes = tile + pi2_tile_scale_area_bytes(format, columns);
    /* GGUF puts a column and the one so many behind it into one byte. */
    const size_t apart = format->block_columns == PI2_NEURON_PLANE_COLUMNS ? 16 : 32;
    for (size_t begin = 0; begin < columns; begin += 2 * apart) {
        for (size_t j = 0; j < apart; j += 8, values += 8) {
            const uint32_t first = word_at(planes, row, begin + j), second = word_at(planes, row, begin + apart + j);
            pi2_put_word(values, 0, (first & low) | (second & low) << 4);
            pi2_put_word(values, 1, (first >> 4 & low) | (second & high));
        }
    }
}

/* Every fourth byte, from `from` on. */
static void put_column(uint8_t *column, const uint8_t *from) {
    uint8_t rows[PI2_TILE_ROWS];
    for (size_t r = 0; r < PI2_TILE_ROWS; r++) rows[r] = from[r * PI2_GROUP_COLUMNS];
    memcpy(column, rows, sizeof rows);
}

void pi2_neuron_columns_of_tiles(const pi2_weight_format *format, uint8_t *const *columns, size_t group,
                                 const uint8_t *first, const uint8_t *second, size_t tile_columns, size_t plane) {
    static const uint8_t zeros[PLANE_BYTES];
    const size_t at = pi2_tile_scale_area_bytes(format, tile_columns) + plane * PLANE_BYTES;
    const uint8_t *low = first + at, *high = second ? second + at : zeros;
    for (size_t g = 0; g < NIBBLE_GROUPS; g++, low += PI2_GROUP_POSITIONS, high += PI2_GROUP_POSITIONS) {
        uint8_t even[PI2_GROUP_POSITIONS], odd[PI2_GROUP_POSITIONS];
        for (size_t i = 0; i < PI2_GROUP_POSITIONS; i++) {
            even[i] = (uint8_t)((low[i] & 15) | high[i] << 4);
            odd[i] = (uint8_t)(low[i] >> 4 | (high[i] & 0xf0));
        }
        for (size_t c = 0; c < PI2_GROUP_COLUMNS; c++) {
            uint8_t *const *to = columns + 8 * g + c;
            if (to[0]) put_column(to[0] + 16 * group, even + c);
            if (to[PI2_GROUP_COLUMNS]) put_column(to[PI2_GROUP_COLUMNS] + 16 * group, odd + c);
        }
    }
}
