/*
 * neuron_form.h: a weight matrix stored neuron by neuron, every value and scale bit for bit.
 *
 * Neuron i of a feed-forward network is row i of Up and column i of Down. In tiles 16 rows are woven
 * together; in this form a neuron's values lie side by side, so that one that fires is read and
 * computed alone (kernels/neuron), with the bits of the dense kernels. The tables of bytes are in
 * docs/cluster_file_format.md, "Neuron form".
 *
 *   row form     Up.   Values: the quantised values of one row, block after block, without scales.
 *                      Scales: the row's scale bytes, block after block.
 *   column form  Down. Values: those of all rows in one column, in groups of 32 rows.
 *                      Scales: for a block of columns (1, 32 or 256) those of all rows, as in the
 *                      scale areas of tiles, tile after tile: a scale block.
 *
 * No function allocates or fails; all of them may run at the same time on different memory. Values
 * need no alignment. Kernels want scale blocks, not row scales, aligned to PI2_TILE_ALIGNMENT.
 */
#ifndef PI2_WEIGHT_FORMATS_NEURON_FORM_H
#define PI2_WEIGHT_FORMATS_NEURON_FORM_H

#include "weight_formats/weight_format.h"

enum { PI2_NEURON_GROUP_ROWS = 32 };

/** Bytes of one row's values and scales. columns: a multiple of block_columns. */
size_t pi2_neuron_row_value_bytes(const pi2_weight_format *format, size_t columns);
size_t pi2_neuron_row_scale_bytes(const pi2_weight_format *format, size_t columns);

/** block_count GGUF blocks of one row to row form. Of floats, `scales` is not used. What is NULL is not wanted. */
void pi2_neuron_split_row(const pi2_weight_format *format, uint8_t *values, uint8_t *scales,
                          const uint8_t *blocks, size_t block_count);

/** The inverse. */
void pi2_neuron_join_row(const pi2_weight_format *format, uint8_t *blocks, const uint8_t *values,
                         const uint8_t *scales, size_t block_count);

/** Bytes of one column's values of `rows` rows; rows are filled up with zeros to whole groups. */
size_t pi2_neuron_column_value_bytes(const pi2_weight_format *format, size_t rows);

/** Bytes of a block's scales of `rows` rows: a multiple of PI2_TILE_ALIGNMENT, 0 for floats. */
size_t pi2_neuron_scale_block_bytes(const pi2_weight_format *format, size_t rows);

/**
 * The block of columns that rows[0 .. row_count - 1] point at, one GGUF block each, to column form. They are the rows
 * from first_row on of `row_total`, which need not all be in memory: first_row is a multiple of PI2_NEURON_GROUP_ROWS,
 * and so is row_count unless the part has the last row.
 * columns[0 .. block_columns - 1] take pi2_neuron_column_value_bytes() each; a NULL leaves that
 * column out. scale_block takes pi2_neuron_scale_block_bytes(), NULL: not wanted; padding is written as zeros.
 */
void pi2_neuron_split_columns(const pi2_weight_format *format, uint8_t *const *columns, uint8_t *scale_block,
                              const uint8_t *const *rows, size_t first_row, size_t row_count, size_t row_total);

/** The inverse: writes one GGUF block to each of rows[0 .. row_count - 1]. No column may be NULL. */
void pi2_neuron_join_columns(const pi2_weight_format *format, uint8_t *const *rows,
                             const uint8_t *const *columns, const uint8_t *scale_block,
                             size_t row_count);

/** The value of `row` in a column, as get_codes gives it: the bytes of one value. */
void pi2_neuron_column_code(const pi2_weight_format *format, uint8_t *code, const uint8_t *column,
                            size_t rows, size_t row);

/**
 * Whether blocks of activations that are all zero may be left out of sums over these weights without
 * changing a bit (docs/arithmetic.md, "Neurons that do not fire"): scales are finite; floats are
 * finite and 0 or at least 2^-50. A matrix with other blocks must be computed dense.
 */
bool pi2_neuron_weights_can_be_skipped(const pi2_weight_format *format, const uint8_t *blocks,
                                       size_t block_count);

/* ---- out of tiles, neuron_tiles.c ---- */

enum { PI2_NEURON_PLANE_COLUMNS = 32 }; /* that a tile of such a type has side by side */

/** Whether a type's neurons can be taken out of tiles by the next two: its values are 4 bits and nothing else. */
bool pi2_neuron_comes_of_tiles(const pi2_weight_format *format);

/** Row form's values of row 0 .. 15 of a tile of block_count blocks. */
void pi2_neuron_row_of_tile(const pi2_weight_format *format, uint8_t *values, const uint8_t *tile, uint32_t row,
                            size_t block_count);

/**
 * Rows 32 * group to 32 * group + 31 of the columns that are number 32 * plane and following of two tiles, the first
 * and the last 16 of those rows (second NULL: zeros). tile_columns: of each tile.
 * columns[0 .. PI2_NEURON_PLANE_COLUMNS - 1]: whole columns; a NULL leaves that one out.
 */
void pi2_neuron_columns_of_tiles(const pi2_weight_format *format, uint8_t *const *columns, size_t group,
                                 const uint8_t *first, const uint8_t *second, size_t tile_columns, size_t plane);

#endif
