/*
 * extent_build.c: reads a tensor's rows in order and packs them into the pieces that hold them.
 *
 * A chunk is a multiple of 16 rows of one tensor. Every wanted piece that has rows in the chunk
 * takes its columns of them: for q, k, v, gate and up that is one piece, for Down a narrow strip
 * for each cluster.
 */
#include "clusters/extent_build.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/pages.h"
#include "base/uncached_file.h"

enum { MAX_GROUP_TENSORS = 8 };

struct pi2_extent_builder {
    const pi2_gguf *gguf;
    const pi2_extent_layout *layout;
    const pi2_gguf_tensor **sources; /* of each tensor of the layout */
    pi2_uncached_file *files;        /* of each part of the model; opened when first needed */
    void *scratch;
    size_t scratch_bytes;
};

/* ---- opening ---------------------------------------------------------------------------- */

static pi2_status find_sources(pi2_extent_builder *builder, size_t *widest_row_out) {
    const pi2_extent_layout *layout = builder->layout;
    *widest_row_out = 0;
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const pi2_layout_tensor *tensor = &layout->tensors[i];
        const pi2_gguf_tensor *source = pi2_gguf_tensor_find(builder->gguf, tensor->name);
        if (!source || source->type != (uint32_t)tensor->format->type ||
            source->dimensions[0] != tensor->columns ||
            source->dimensions[1] * source->dimensions[2] != tensor->rows) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' is not there in the expected shape",
                            pi2_gguf_file_path(builder->gguf, 0), tensor->name);
        }
        builder->sources[i] = source;
        const size_t row_bytes = pi2_row_bytes(tensor->format, tensor->columns);
        if (row_bytes > *widest_row_out) *widest_row_out = row_bytes;
    }
    return PI2_OK;
}

static pi2_status open_builder(pi2_extent_builder *builder, size_t scratch_bytes) {
    const size_t parts = pi2_gguf_file_count(builder->gguf);
    size_t widest_row;
    builder->files = malloc(parts * sizeof *builder->files);
    builder->sources = calloc(builder->layout->tensor_count + (size_t)1, sizeof *builder->sources);
    if (!builder->files || !builder->sources) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory to build extents");
    }
    for (size_t i = 0; i < parts; i++) builder->files[i] = (pi2_uncached_file){ .file = -1 };
    PI2_TRY(find_sources(builder, &widest_row));
    const size_t least = widest_row * PI2_TILE_ROWS + PI2_UNCACHED_SLACK;
    builder->scratch_bytes = scratch_bytes > least ? scratch_bytes : least;
    return pi2_pages_reserve(builder->scratch_bytes, false, "rows of the model file",
                             &builder->scratch);
}

pi2_status pi2_extent_builder_open(const pi2_gguf *gguf, const pi2_extent_layout *layout,
                                   size_t scratch_bytes, pi2_extent_builder **builder_out) {
    *builder_out = NULL;
    pi2_extent_builder *builder = calloc(1, sizeof *builder);
    if (!builder) return pi2_fail(PI2_ERR_MEMORY, "no memory to build extents");
    builder->gguf = gguf;
    builder->layout = layout;
    const pi2_status status = open_builder(builder, scratch_bytes);
    if (status != PI2_OK) {
        pi2_extent_builder_close(builder);
        return status;
    }
    *builder_out = builder;
    return PI2_OK;
}

void pi2_extent_builder_close(pi2_extent_builder *builder) {
    if (!builder) return;
    const size_t parts = builder->files ? pi2_gguf_file_count(builder->gguf) : 0;
    for (size_t i = 0; i < parts; i++) pi2_uncached_file_close(&builder->files[i]);
    pi2_pages_release(builder->scratch, builder->scratch_bytes);
    free(builder->files);
    free(builder->sources);
    free(builder);
}

size_t pi2_extent_builder_memory_bytes(const pi2_extent_builder *builder) {
    return sizeof *builder + builder->scratch_bytes +
           builder->layout->tensor_count * sizeof *builder->sources +
           pi2_gguf_file_count(builder->gguf) * sizeof *builder->files;
}

uint64_t pi2_extent_builder_bytes_read(const pi2_extent_builder *builder) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < pi2_gguf_file_count(builder->gguf); i++) {
        bytes += builder->files[i].bytes_read;
    }
    return bytes;
}

/* ---- packing ---------------------------------------------------------------------------- */

/** Rows of one tensor that lie in the scratch memory. */
typedef struct row_chunk {
    uint64_t begin, end;
    size_t row_bytes;
    const uint8_t *data;
} row_chunk;

static void copy_raw_rows(const pi2_extent_layout *layout, const pi2_piece *piece,
                          const row_chunk *chunk, uint64_t from, uint64_t to, uint8_t *memory) {
    uint8_t *piece_memory = memory + piece->offset;
    const size_t start = (size_t)(from - piece->row_begin) * chunk->row_bytes;
    const size_t bytes = (size_t)(to - from) * chunk->row_bytes;
    memcpy(piece_memory + start, chunk->data + (size_t)(from - chunk->begin) * chunk->row_bytes,
           bytes);
    if (to == piece->row_begin + piece->row_count) { /* the padding behind the last row */
        const size_t end = start + bytes;
        memset(piece_memory + end, 0, pi2_piece_bytes(layout, piece) - end);
    }
}

/** Packs rows from .. to - 1 of a piece; `from` begins a tile. */
static void pack_rows(const pi2_extent_layout *layout, const pi2_piece *piece,
                      const row_chunk *chunk, uint64_t from, uint64_t to, uint8_t *memory) {
    const pi2_weight_format *format = layout->tensors[piece->tensor].format;
    const size_t tile_bytes = pi2_tile_bytes(format, piece->column_count);
    const size_t block_count = piece->column_count / format->block_columns;
    const uint8_t *columns = chunk->data + pi2_row_bytes(format, piece->column_begin);
    uint8_t *tile = memory + piece->offset +
                    (size_t)((from - piece->row_begin) / PI2_TILE_ROWS) * tile_bytes;
    for (uint64_t row = from; row < to; row += PI2_TILE_ROWS, tile += tile_bytes) {
        const uint8_t *rows[PI2_TILE_ROWS];
        for (uint64_t i = 0; i < PI2_TILE_ROWS; i++) {
            rows[i] = row + i < to ? columns + (size_t)(row + i - chunk->begin) * chunk->row_bytes
                                   : NULL;
        }
        format->pack_tile(tile, rows, block_count);
    }
}

/* ---- one tensor of a group -------------------------------------------------------------- */

/** Calls for each wanted piece of a tensor go through this cursor. */
typedef struct piece_cursor {
    const pi2_extent_layout *layout;
    const pi2_group *group;
    void *const *extent_memory;
    uint32_t tensor;
    uint32_t extent, piece; /* of the next look: extent within the group, piece within it */
} piece_cursor;

static const pi2_piece *next_piece(piece_cursor *cursor, uint8_t **memory_out) {
    for (; cursor->extent < cursor->group->extent_count; cursor->extent++, cursor->piece = 0) {
        if (!cursor->extent_memory[cursor->extent]) continue;
        const pi2_extent *extent =
            &cursor->layout->extents[cursor->group->first_extent + cursor->extent];
        while (cursor->piece < extent->piece_count) {
            const pi2_piece *piece = &cursor->layout->pieces[extent->first_piece + cursor->piece++];
            if (piece->tensor == cursor->tensor) {
                *memory_out = cursor->extent_memory[cursor->extent];
                return piece;
            }
        }
    }
    return NULL;
}

/** The next rows that a wanted piece needs, at most row_limit of them. False: no more. */
static bool next_rows(piece_cursor cursor, uint64_t done, uint64_t row_limit, row_chunk *chunk) {
    const piece_cursor start = cursor;
    const pi2_piece *piece;
    uint8_t *memory;
    uint64_t begin = UINT64_MAX, end = 0;
    while ((piece = next_piece(&cursor, &memory))) {
        if (piece->row_begin + piece->row_count <= done) continue;
        const uint64_t first = piece->row_begin > done ? piece->row_begin : done;
        if (first < begin) begin = first;
    }
    if (begin == UINT64_MAX) return false;
    for (cursor = start; (piece = next_piece(&cursor, &memory));) {
        const uint64_t piece_end = piece->row_begin + piece->row_count;
        if (piece->row_begin < begin + row_limit && piece_end > end) end = piece_end;
    }
    chunk->begin = begin;
    chunk->end = end < begin + row_limit ? end : begin + row_limit;
    return true;
}

static pi2_status read_rows(pi2_extent_builder *builder, const pi2_gguf_tensor *source,
                            row_chunk *chunk) {
    pi2_uncached_file *file = &builder->files[source->file_index];
    if (file->file < 0) {
        PI2_TRY(pi2_uncached_file_open(pi2_gguf_file_path(builder->gguf, source->file_index), file));
    }
    const pi2_status status = pi2_uncached_file_read(
        file, source->file_offset + chunk->begin * chunk->row_bytes,
        (size_t)(chunk->end - chunk->begin) * chunk->row_bytes, builder->scratch, &chunk->data);
    return status == PI2_OK ? status : pi2_fail_prefix(status, "tensor '%s'", source->name);
}

/** Rows that the scratch memory holds: a multiple of a tile's. */
static uint64_t scratch_rows(const pi2_extent_builder *builder, size_t row_bytes) {
    return (builder->scratch_bytes - PI2_UNCACHED_SLACK) / row_bytes / PI2_TILE_ROWS * PI2_TILE_ROWS;
}

pi2_status pi2_extent_builder_rows(pi2_extent_builder *builder, uint32_t tensor, uint64_t row_begin, uint64_t row_limit,
                                   const uint8_t **data_out, uint64_t *row_count_out) {
    const pi2_layout_tensor *matrix = &builder->layout->tensors[tensor];
    row_chunk chunk = { .begin = row_begin, .row_bytes = pi2_row_bytes(matrix->format, matrix->columns) };
    const uint64_t most = scratch_rows(builder, chunk.row_bytes);
    *row_count_out = row_limit < most ? row_limit : most;
    chunk.end = row_begin + *row_count_out;
    PI2_TRY(read_rows(builder, builder->sources[tensor], &chunk));
    *data_out = chunk.data;
    return PI2_OK;
}

static pi2_status build_tensor(pi2_extent_builder *builder, piece_cursor start) {
    const pi2_extent_layout *layout = builder->layout;
    const pi2_layout_tensor *tensor = &layout->tensors[start.tensor];
    row_chunk chunk = { .row_bytes = pi2_row_bytes(tensor->format, tensor->columns) };
    const uint64_t row_limit = scratch_rows(builder, chunk.row_bytes);
    for (uint64_t done = 0; next_rows(start, done, row_limit, &chunk); done = chunk.end) {
        PI2_TRY(read_rows(builder, builder->sources[start.tensor], &chunk));
        const pi2_piece *piece;
        uint8_t *memory;
        for (piece_cursor cursor = start; (piece = next_piece(&cursor, &memory));) {
            const uint64_t piece_end = piece->row_begin + piece->row_count;
            const uint64_t from = piece->row_begin > chunk.begin ? piece->row_begin : chunk.begin;
            const uint64_t to = piece_end < chunk.end ? piece_end : chunk.end;
            if (from >= to) continue;
            if (tensor->is_raw) {
                copy_raw_rows(layout, piece, &chunk, from, to, memory);
            } else if ((from - piece->row_begin) % PI2_TILE_ROWS == 0) {
                pack_rows(layout, piece, &chunk, from, to, memory);
            } else { /* chunks begin where tiles do: all pieces of a group are of one matrix */
                return pi2_fail(PI2_ERR_INVALID, "tensor '%s': a group mixes matrices", tensor->name);
            }
        }
    }
    return PI2_OK;
}

/** The tensors that a group's wanted extents have pieces of, in the order of their first piece. */
static pi2_status list_tensors(const pi2_extent_layout *layout, const pi2_group *group,
                               void *const extent_memory[], uint32_t tensors[MAX_GROUP_TENSORS],
                               uint32_t *count_out) {
    uint32_t count = 0;
    for (uint32_t e = 0; e < group->extent_count; e++) {
        const pi2_extent *extent = &layout->extents[group->first_extent + e];
        if (!extent_memory[e]) continue;
        for (uint32_t p = 0; p < extent->piece_count; p++) {
            const uint32_t tensor = layout->pieces[extent->first_piece + p].tensor;
            uint32_t i = 0;
            while (i < count && tensors[i] != tensor) i++;
            if (i < count) continue;
            if (count == MAX_GROUP_TENSORS) {
                return pi2_fail(PI2_ERR_INVALID, "a group of more than %d tensors",
                                MAX_GROUP_TENSORS);
            }
            tensors[count++] = tensor;
        }
    }
    *count_out = count;
    return PI2_OK;
}

pi2_status pi2_extent_builder_group(pi2_extent_builder *builder, uint32_t group,
                                    void *const extent_memory[]) {
    const pi2_extent_layout *layout = builder->layout;
    if (group >= layout->group_count) {
        return pi2_fail(PI2_ERR_INVALID, "group %" PRIu32 " of %" PRIu32, group, layout->group_count);
    }
    uint32_t tensors[MAX_GROUP_TENSORS], count = 0;
    PI2_TRY(list_tensors(layout, &layout->groups[group], extent_memory, tensors, &count));
    for (uint32_t i = 0; i < count; i++) {
        PI2_TRY(build_tensor(builder, (piece_cursor){ .layout = layout,
                                                      .group = &layout->groups[group],
                                                      .extent_memory = extent_memory,
                                                      .tensor = tensors[i] }));
    }
    return PI2_OK;
}
