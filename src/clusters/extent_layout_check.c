/* extent_layout_check.c: nothing about a layout that a file holds is believed. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/fail.h"
#include "clusters/extent_layout.h"

enum { PIECE_ALIGNMENT = 64, MAX_COLUMNS = 1 << 24 };

static const char damaged[] = "the file is damaged: make it again";

static pi2_status check_tensor(const pi2_extent_layout *layout, uint32_t number,
                               const char *name) {
    const pi2_layout_tensor *tensor = &layout->tensors[number];
    if (!tensor->format || tensor->columns == 0 || tensor->columns > MAX_COLUMNS ||
        tensor->columns % tensor->format->block_columns != 0 || tensor->rows == 0 ||
        tensor->rows > INT32_MAX || tensor->matrix_rows == 0 ||
        tensor->rows % tensor->matrix_rows != 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' has an impossible shape: %s", name,
                        tensor->name, damaged);
    }
    return PI2_OK;
}

static bool piece_is_possible(const pi2_extent_layout *layout, const pi2_piece *piece) {
    if (piece->tensor >= layout->tensor_count) return false;
    const pi2_layout_tensor *tensor = &layout->tensors[piece->tensor];
    const uint32_t block = tensor->format->block_columns;
    if (piece->column_begin > tensor->columns || piece->column_count == 0 ||
        piece->column_count > tensor->columns - piece->column_begin ||
        piece->column_begin % block != 0 || piece->column_count % block != 0 ||
        piece->row_begin >= tensor->rows || piece->row_count == 0) {
        return false;
    }
    const uint64_t row_in_matrix = piece->row_begin % tensor->matrix_rows;
    const uint64_t rows_left = tensor->matrix_rows - row_in_matrix;
    if (row_in_matrix % PI2_TILE_ROWS != 0 || piece->row_count > rows_left) return false;
    if (tensor->is_raw) return piece->column_count == tensor->columns;
    return piece->row_count == rows_left || piece->row_count % PI2_TILE_ROWS == 0;
}

static pi2_status check_extent(const pi2_extent_layout *layout, uint32_t number,
                               uint32_t *next_piece, uint64_t *weight_bytes, const char *name) {
    const pi2_extent *extent = &layout->extents[number];
    const bool wants_raw = pi2_group_kind_is_raw(layout->groups[extent->group].kind);
    bool is_good = extent->first_piece == *next_piece && extent->piece_count > 0 &&
                   extent->piece_count <= layout->piece_count - *next_piece &&
                   extent->bytes > 0 && extent->bytes <= INT32_MAX &&
                   extent->bytes % PIECE_ALIGNMENT == 0 &&
                   extent->file_offset % PI2_EXTENT_ALIGNMENT == 0;
    size_t used = 0;
    for (uint32_t i = 0; is_good && i < extent->piece_count; i++) {
        const pi2_piece *piece = &layout->pieces[extent->first_piece + i];
        is_good = piece_is_possible(layout, piece) && piece->offset % PIECE_ALIGNMENT == 0 &&
                  piece->offset >= used && piece->offset < extent->bytes &&
                  layout->tensors[piece->tensor].is_raw == wants_raw;
        if (!is_good) break;
        const size_t bytes = pi2_piece_bytes(layout, piece);
        is_good = bytes <= extent->bytes - piece->offset;
        used = piece->offset + bytes;
    }
    if (!is_good) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: extent %" PRIu32 " at byte %" PRIu64
                        ": its pieces are impossible: %s",
                        name, number, extent->file_offset, damaged);
    }
    *next_piece += extent->piece_count;
    *weight_bytes += extent->bytes;
    return PI2_OK;
}

static pi2_status check_group(const pi2_extent_layout *layout, uint32_t number,
                              uint32_t *next_extent, const char *name) {
    const pi2_group *group = &layout->groups[number];
    bool is_good = (unsigned)group->kind < PI2_GROUP_KINDS &&
                   group->first_extent == *next_extent && group->extent_count > 0 &&
                   group->extent_count <= layout->extent_count - *next_extent;
    for (uint32_t i = 0; is_good && i < group->extent_count; i++) {
        is_good = layout->extents[group->first_extent + i].group == number;
    }
    if (!is_good) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: group %" PRIu32 " of extents is impossible: %s", name,
                        number, damaged);
    }
    *next_extent += group->extent_count;
    return PI2_OK;
}

/** Rows are looked up in pieces that hold whole rows of one matrix, the only one of their group. */
static pi2_status check_lookup(const pi2_extent_layout *layout, const pi2_group *group, const char *name) {
    const uint32_t number = layout->pieces[layout->extents[group->first_extent].first_piece].tensor;
    const pi2_layout_tensor *tensor = &layout->tensors[number];
    bool is_good = tensor->matrix_rows == tensor->rows;
    for (uint32_t e = 0; e < group->extent_count; e++) {
        const pi2_extent *extent = &layout->extents[group->first_extent + e];
        for (uint32_t p = extent->first_piece; p < extent->first_piece + extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[p];
            is_good = is_good && piece->tensor == number && piece->column_count == tensor->columns;
        }
    }
    if (is_good) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: rows of tensor '%s' cannot be looked up: %s", name, tensor->name, damaged);
}

/* ---- every element exactly once --------------------------------------------------------- */

static int compare_places(const void *a, const void *b) {
    const pi2_piece *left = *(const pi2_piece *const *)a, *right = *(const pi2_piece *const *)b;
    if (left->tensor != right->tensor) return left->tensor < right->tensor ? -1 : 1;
    if (left->column_begin != right->column_begin) {
        return left->column_begin < right->column_begin ? -1 : 1;
    }
    return left->row_begin < right->row_begin ? -1 : left->row_begin > right->row_begin;
}

/**
 * In this order the pieces of a tensor are strips of columns from left to right, each filled from
 * the first row to the last: every piece must begin exactly where the one before ended.
 */
static pi2_status check_cover(const pi2_extent_layout *layout, const pi2_piece *const *sorted,
                              const char *name) {
    uint32_t i = 0;
    for (uint32_t number = 0; number < layout->tensor_count; number++) {
        const pi2_layout_tensor *tensor = &layout->tensors[number];
        uint64_t column = 0, row = 0, strip = 0;
        for (; i < layout->piece_count && sorted[i]->tensor == number; i++) {
            const pi2_piece *piece = sorted[i];
            if (row == 0) strip = piece->column_count;
            if (piece->column_begin != column || piece->row_begin != row ||
                piece->column_count != strip) {
                break;
            }
            row += piece->row_count;
            if (row == tensor->rows) {
                row = 0;
                column += strip;
            }
        }
        if (column != tensor->columns || row != 0 ||
            (i < layout->piece_count && sorted[i]->tensor == number)) {
            return pi2_fail(PI2_ERR_FORMAT,
                            "%s: tensor '%s' is not covered exactly once near row %" PRIu64
                            ", column %" PRIu64 ": %s",
                            name, tensor->name, row, column, damaged);
        }
    }
    return PI2_OK;
}

static pi2_status sort_and_check_cover(const pi2_extent_layout *layout, const char *name) {
    const pi2_piece **sorted = malloc((layout->piece_count + (size_t)1) * sizeof *sorted);
    if (!sorted) return pi2_fail(PI2_ERR_MEMORY, "%s: no memory to check its pieces", name);
    for (uint32_t i = 0; i < layout->piece_count; i++) sorted[i] = &layout->pieces[i];
    qsort(sorted, layout->piece_count, sizeof *sorted, compare_places);
    const pi2_status status = check_cover(layout, sorted, name);
    free(sorted);
    return status;
}

pi2_status pi2_extent_layout_check(const pi2_extent_layout *layout, const char *name) {
    uint32_t next_extent = 0, next_piece = 0;
    uint64_t weight_bytes = 0;
    for (uint32_t i = 0; i < layout->tensor_count; i++) PI2_TRY(check_tensor(layout, i, name));
    for (uint32_t i = 0; i < layout->group_count; i++) {
        PI2_TRY(check_group(layout, i, &next_extent, name));
    }
    if (next_extent != layout->extent_count) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %" PRIu32 " extents, but its groups have %" PRIu32 ": %s",
                        name, layout->extent_count, next_extent, damaged);
    }
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        PI2_TRY(check_extent(layout, i, &next_piece, &weight_bytes, name));
    }
    if (next_piece != layout->piece_count || weight_bytes != layout->weight_bytes) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: the extents do not add up: %s", name, damaged);
    }
    for (uint32_t i = 0; i < layout->group_count; i++) {
        const pi2_group *group = &layout->groups[i];
        if (group != pi2_extent_layout_lookup(layout) && group->kind != PI2_GROUP_TABLE) continue;
        PI2_TRY(check_lookup(layout, group, name));
    }
    return sort_and_check_cover(layout, name);
}
