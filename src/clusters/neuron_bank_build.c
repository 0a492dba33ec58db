/*
 * neuron_bank_build.c: rows of Gate and of Up are parts of bundles as they are; rows of Down are scattered, one value
 * into each bundle. So Down goes block of columns by block of columns through as many rows as lie in memory, and every
 * bundle is written in runs. Where the source stores Down by column, its columns are bundles' last parts.
 */
#include "clusters/neuron_bank_build.h"

#include <string.h>

#include "base/fail.h"

enum { MOST_BLOCK_COLUMNS = 256, MOST_SPLIT_ROWS = 8 * PI2_NEURON_GROUP_ROWS };

/** Where a neuron's bundle goes; NULL: it is not in this part. */
static uint8_t *bundle_of(const pi2_neuron_bank_part *part, uint32_t neuron) {
    const pi2_neuron_bank *bank = part->bank;
    const uint32_t place = part->place_of[neuron], unit = place / bank->unit_neurons;
    if (unit < part->first_unit || unit - part->first_unit >= part->unit_count) return NULL;
    return part->units + (size_t)(unit - part->first_unit) * bank->unit_bytes +
           (size_t)(place % bank->unit_neurons) * bank->bundle_bytes;
}

/** The first neuron of this part and the one behind its last: without a head no other rows are read. */
static void find_range(const pi2_neuron_bank_part *part, uint32_t *begin_out, uint32_t *end_out) {
    const uint32_t count = part->bank->neuron_count;
    *begin_out = 0;
    *end_out = count;
    if (part->head) return;
    while (*begin_out < count && !bundle_of(part, *begin_out)) ++*begin_out;
    while (*end_out > *begin_out && !bundle_of(part, *end_out - 1)) --*end_out;
}

/** Rows of Gate or Up: of which tensor, and where they go. */
typedef struct row_part {
    uint32_t tensor;
    const pi2_weight_format *format;
    uint32_t offset, scale_bytes; /* in a bundle, of a row */
    uint64_t scales_at;           /* in the head */
} row_part;

static pi2_status build_rows(pi2_extent_builder *builder, const pi2_neuron_bank_part *part, const row_part *rows_of,
                             bool *can_be_skipped) {
    const pi2_neuron_bank *bank = part->bank;
    const pi2_weight_format *format = rows_of->format;
    const size_t row_bytes = pi2_row_bytes(format, bank->width), blocks = bank->width / format->block_columns;
    const uint64_t first_row = bank->expert == UINT32_MAX ? 0 : (uint64_t)bank->expert * bank->neuron_count;
    uint32_t neuron, end;
    find_range(part, &neuron, &end);
    while (neuron < end) {
        const uint8_t *rows;
        uint64_t count;
        PI2_TRY(pi2_extent_builder_rows(builder, rows_of->tensor, first_row + neuron, end - neuron, &rows, &count));
        *can_be_skipped &= pi2_neuron_weights_can_be_skipped(format, rows, (size_t)count * blocks);
        for (uint64_t i = 0; i < count; i++, neuron++) {
            uint8_t *bundle = bundle_of(part, neuron);
            const uint64_t scales_at = rows_of->scales_at + (uint64_t)neuron * rows_of->scale_bytes;
            uint8_t *scales = part->head ? part->head + scales_at : NULL;
            pi2_neuron_split_row(format, bundle ? bundle + rows_of->offset : NULL, scales, rows + i * row_bytes,
                                 blocks);
        }
    }
    return PI2_OK;
}

/** The rows of Down that lie in memory, [count], from row `first` on of its layer or expert. */
typedef struct down_rows {
    const uint8_t *data;
    uint32_t first, count;
    const uint8_t *blocks[MOST_SPLIT_ROWS]; /* scratch: one block of some rows */
} down_rows;

/** Block b of columns: its rows in steps, into the bundles and the head. */
static void scatter_block(const pi2_neuron_bank_part *part, down_rows *rows, uint32_t b, uint8_t *const *columns) {
    const pi2_neuron_bank *bank = part->bank;
    const pi2_weight_format *format = bank->down_format;
    const size_t row_bytes = pi2_row_bytes(format, bank->neuron_count);
    const uint8_t *at = rows->data + (size_t)b * format->block_bytes;
    const uint64_t scales_at = bank->down_scales_at + (uint64_t)b * bank->down_scale_bytes;
    uint8_t *scales = part->head ? part->head + scales_at : NULL;
    for (uint32_t done = 0; done < rows->count;) {
        const uint32_t left = rows->count - done, step = left < MOST_SPLIT_ROWS ? left : MOST_SPLIT_ROWS;
        for (uint32_t r = 0; r < step; r++, at += row_bytes) rows->blocks[r] = at;
        pi2_neuron_split_columns(format, columns, scales, rows->blocks, rows->first + done, step, bank->width);
        done += step;
    }
}

static void scatter_down(const pi2_neuron_bank_part *part, down_rows *rows) {
    const pi2_neuron_bank *bank = part->bank;
    const uint32_t block_columns = bank->down_format->block_columns, blocks = bank->neuron_count / block_columns;
    for (uint32_t b = 0; b < blocks; b++) {
        uint8_t *columns[MOST_BLOCK_COLUMNS];
        bool is_wanted = part->head != NULL;
        for (uint32_t c = 0; c < block_columns; c++) {
            uint8_t *bundle = bundle_of(part, b * block_columns + c);
            columns[c] = bundle ? bundle + bank->down_offset : NULL;
            is_wanted |= bundle != NULL;
        }
        if (is_wanted) scatter_block(part, rows, b, columns);
    }
}

/** One column of floats, whole, into its bundle. */
static void take_column(const pi2_neuron_bank *bank, const uint8_t *column, uint8_t *bundle) {
    const size_t value_bytes = bank->down_format->block_bytes;
    const uint8_t *blocks[MOST_SPLIT_ROWS];
    uint8_t *const columns[1] = { bundle + bank->down_offset };
    for (uint32_t done = 0; done < bank->width;) {
        const uint32_t left = bank->width - done, step = left < MOST_SPLIT_ROWS ? left : MOST_SPLIT_ROWS;
        for (uint32_t r = 0; r < step; r++, column += value_bytes) blocks[r] = column;
        pi2_neuron_split_columns(bank->down_format, columns, NULL, blocks, done, step, bank->width);
        done += step;
    }
}

static pi2_status build_down_by_column(pi2_extent_builder *builder, const pi2_neuron_bank_part *part,
                                       bool *can_be_skipped) {
    const pi2_neuron_bank *bank = part->bank;
    const size_t column_stride = (size_t)bank->width * bank->down_format->block_bytes;
    uint32_t neuron, end;
    find_range(part, &neuron, &end);
    while (neuron < end) {
        const uint8_t *columns;
        uint64_t count;
        PI2_TRY(pi2_extent_builder_columns(builder, bank->down_tensor, neuron, end - neuron, &columns, &count));
        *can_be_skipped &= pi2_neuron_weights_can_be_skipped(bank->down_format, columns, (size_t)count * bank->width);
        for (uint64_t i = 0; i < count; i++, neuron++) {
            uint8_t *bundle = bundle_of(part, neuron);
            if (bundle) take_column(bank, columns + i * column_stride, bundle);
        }
    }
    return PI2_OK;
}

static pi2_status build_down(pi2_extent_builder *builder, const pi2_neuron_bank_part *part, bool *can_be_skipped) {
    const pi2_neuron_bank *bank = part->bank;
    const size_t blocks = bank->neuron_count / bank->down_format->block_columns;
    const uint64_t first_row = bank->expert == UINT32_MAX ? 0 : (uint64_t)bank->expert * bank->width;
    down_rows rows = { .first = 0 };
    while (rows.first < bank->width) {
        const uint32_t left = bank->width - rows.first;
        uint64_t count;
        PI2_TRY(pi2_extent_builder_rows(builder, bank->down_tensor, first_row + rows.first, left, &rows.data, &count));
        rows.count = (uint32_t)count == left ? left : (uint32_t)count / PI2_NEURON_GROUP_ROWS * PI2_NEURON_GROUP_ROWS;
        if (rows.count == 0) return pi2_fail(PI2_ERR_INVALID, "too little memory for rows of Down");
        *can_be_skipped &= pi2_neuron_weights_can_be_skipped(bank->down_format, rows.data, rows.count * blocks);
        scatter_down(part, &rows);
        rows.first += rows.count;
    }
    return PI2_OK;
}

pi2_status pi2_neuron_bank_build(pi2_extent_builder *builder, const pi2_neuron_bank_part *part,
                                 bool *can_be_skipped_out) {
    *can_be_skipped_out = true;
    memset(part->units, 0, (size_t)part->unit_count * part->bank->unit_bytes);
    const pi2_neuron_bank *bank = part->bank;
    const row_part parts[] = {
        { bank->gate_tensor, bank->gate_format, 0, bank->gate_scale_bytes, bank->gate_scales_at },
        { bank->up_tensor, bank->up_format, bank->up_offset, bank->up_scale_bytes, bank->up_scales_at } };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].format) PI2_TRY(build_rows(builder, part, &parts[i], can_be_skipped_out));
    }
    return pi2_extent_builder_is_by_column(builder, bank->down_tensor)
        ? build_down_by_column(builder, part, can_be_skipped_out) : build_down(builder, part, can_be_skipped_out);
}
