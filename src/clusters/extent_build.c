/*
 * extent_build.c: reads a tensor's rows in order and packs them into the pieces that hold them.
 *
 * A chunk is a multiple of 16 rows of one tensor. Every wanted piece that has rows in the chunk
 * takes its columns of them: for q, k, v, gate and up that is one piece, for Down a narrow strip
 * for each cluster.
 *
 * A Down that its file stores by neuron (PowerInfer's) is read by columns instead, those of one piece after the other.
 */
#include "clusters/extent_build.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/pages.h"
#include "file_formats/powerinfer_gguf.h"
#include "store/weight_file.h"

enum { MAX_GROUP_TENSORS = 8, PACKED_COLUMNS = 64, LARGEST_FLOAT = 4 };

/** Where a tensor's weights come from. */
typedef struct tensor_source {
    const pi2_gguf_tensor *tensor;
    const pi2_weight_format *by_column; /* how it is stored where that is by column; NULL: by row, as it is */
} tensor_source;

struct pi2_extent_builder {
    const pi2_gguf *gguf;
    const pi2_extent_layout *layout;
    tensor_source *sources;          /* of each tensor of the layout */
    pi2_weight_file file;            /* the part of the model that was read last */
    void *scratch;
    size_t scratch_bytes;
};

/* ---- opening ---------------------------------------------------------------------------- */

/** Of a matrix that is stored by column: as floats like its tiles, or in blocks that give F32. */
static bool find_columns(const pi2_gguf *gguf, const pi2_layout_tensor *tensor, tensor_source *source) {
    const pi2_gguf_tensor *found = pi2_powerinfer_transposed(gguf, tensor->name);
    const pi2_weight_format *stored = found ? pi2_weight_format_find(found->type) : NULL;
    if (!stored || found->dimensions[0] != tensor->rows || found->dimensions[1] != tensor->columns ||
        found->dimensions[2] != 1 || found->dimensions[3] != 1 || tensor->format->block_columns != 1 ||
        tensor->is_raw) {
        return false;
    }
    *source = (tensor_source){ found, stored };
    return stored == tensor->format || (stored->block_columns > 1 && tensor->format->type == PI2_F32);
}

static bool find_rows(const pi2_gguf *gguf, const pi2_layout_tensor *tensor, tensor_source *source) {
    const pi2_gguf_tensor *found = pi2_gguf_tensor_find(gguf, tensor->name);
    *source = (tensor_source){ found, NULL };
    return found && found->type == (uint32_t)tensor->format->type && found->dimensions[0] == tensor->columns &&
           found->dimensions[1] * found->dimensions[2] == tensor->rows;
}

/** What one column takes in the scratch memory: as it is stored and, unless that is the same, as it is wanted. */
static size_t column_bytes(const pi2_layout_tensor *tensor, const tensor_source *source) {
    const size_t wanted = (size_t)tensor->rows * tensor->format->block_bytes;
    const size_t stored = pi2_row_bytes(source->by_column, (size_t)tensor->rows);
    return source->by_column == tensor->format ? stored : stored + wanted + LARGEST_FLOAT;
}

/** least_out: the scratch memory that 16 rows, or a column, of every tensor take. */
static pi2_status find_sources(pi2_extent_builder *builder, size_t *least_out) {
    const pi2_extent_layout *layout = builder->layout;
    *least_out = 0;
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const pi2_layout_tensor *tensor = &layout->tensors[i];
        tensor_source *source = &builder->sources[i];
        if (!find_rows(builder->gguf, tensor, source) && !find_columns(builder->gguf, tensor, source)) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' is not there in the expected shape",
                            pi2_gguf_file_path(builder->gguf, 0), tensor->name);
        }
        const size_t bytes = source->by_column ? column_bytes(tensor, source)
                                               : pi2_row_bytes(tensor->format, tensor->columns) * PI2_TILE_ROWS;
        if (bytes > *least_out) *least_out = bytes;
    }
    return PI2_OK;
}

static pi2_status open_builder(pi2_extent_builder *builder, size_t scratch_bytes) {
    size_t least;
    builder->sources = calloc(builder->layout->tensor_count + (size_t)1, sizeof *builder->sources);
    if (!builder->sources) return pi2_fail(PI2_ERR_MEMORY, "no memory to build extents");
    PI2_TRY(find_sources(builder, &least));
    least += PI2_WEIGHT_FILE_SLACK;
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
    pi2_weight_file_close(&builder->file);
    pi2_pages_release(builder->scratch, builder->scratch_bytes);
    free(builder->sources);
    free(builder);
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

/** Rows chunk->begin .. end - 1 of the source as its file has them; chunk->row_bytes: of one of them. */
static pi2_status read_rows(pi2_extent_builder *builder, const pi2_gguf_tensor *source,
                            row_chunk *chunk) {
    pi2_status status = pi2_weight_file_open(&builder->file, pi2_gguf_file_path(builder->gguf, source->file_index));
    uint64_t offset = source->file_offset + chunk->begin * chunk->row_bytes;
    if (source->matrix_offsets) {
        const uint64_t rows = source->dimensions[1], matrix = chunk->begin / rows;
        if ((chunk->end - 1) / rows != matrix) {
            return pi2_fail(PI2_ERR_INVALID, "tensor '%s': rows of two matrices are read at once", source->name);
        }
        offset = source->matrix_offsets[matrix] + chunk->begin % rows * chunk->row_bytes;
    }
    if (status == PI2_OK) {
        const size_t bytes = (size_t)(chunk->end - chunk->begin) * chunk->row_bytes;
        status = pi2_weight_file_read(&builder->file, offset, bytes, builder->scratch, &chunk->data);
    }
    return status == PI2_OK ? status : pi2_fail_prefix(status, "tensor '%s'", source->name);
}

/** Rows that the scratch memory holds: a multiple of a tile's. */
static uint64_t scratch_rows(const pi2_extent_builder *builder, size_t row_bytes) {
    return (builder->scratch_bytes - PI2_WEIGHT_FILE_SLACK) / row_bytes / PI2_TILE_ROWS * PI2_TILE_ROWS;
}

pi2_status pi2_extent_builder_rows(pi2_extent_builder *builder, uint32_t tensor, uint64_t row_begin, uint64_t row_limit,
                                   const uint8_t **data_out, uint64_t *row_count_out) {
    const pi2_layout_tensor *matrix = &builder->layout->tensors[tensor];
    row_chunk chunk = { .begin = row_begin, .row_bytes = pi2_row_bytes(matrix->format, matrix->columns) };
    const uint64_t most = scratch_rows(builder, chunk.row_bytes);
    *row_count_out = row_limit < most ? row_limit : most;
    chunk.end = row_begin + *row_count_out;
    PI2_TRY(read_rows(builder, builder->sources[tensor].tensor, &chunk));
    *data_out = chunk.data;
    return PI2_OK;
}

/* ---- matrices that are stored by column ---- */

bool pi2_extent_builder_is_by_column(const pi2_extent_builder *builder, uint32_t tensor) {
    return builder->sources[tensor].by_column != NULL;
}

pi2_status pi2_extent_builder_columns(pi2_extent_builder *builder, uint32_t tensor, uint64_t column_begin,
                                      uint64_t column_limit, const uint8_t **data_out, uint64_t *column_count_out) {
    const pi2_layout_tensor *matrix = &builder->layout->tensors[tensor];
    const tensor_source *source = &builder->sources[tensor];
    const size_t rows = (size_t)matrix->rows;
    row_chunk chunk = { .begin = column_begin, .row_bytes = pi2_row_bytes(source->by_column, rows) };
    const uint64_t most = (builder->scratch_bytes - PI2_WEIGHT_FILE_SLACK) / column_bytes(matrix, source);
    const uint64_t count = column_limit < most ? column_limit : most;
    chunk.end = column_begin + count;
    PI2_TRY(read_rows(builder, source->tensor, &chunk));
    *column_count_out = count;
    *data_out = chunk.data;
    if (source->by_column == matrix->format) return PI2_OK;
    /* Behind what was read, which may lie anywhere in its part of the scratch memory. */
    const size_t read_bytes = (size_t)count * chunk.row_bytes + PI2_WEIGHT_FILE_SLACK;
    const size_t floats_at = (read_bytes + LARGEST_FLOAT - 1) / LARGEST_FLOAT * LARGEST_FLOAT;
    float *floats = (float *)((uint8_t *)builder->scratch + floats_at);
    source->by_column->decode_row(floats, chunk.data, (size_t)count * rows / source->by_column->block_columns);
    *data_out = (const uint8_t *)floats;
    return PI2_OK;
}

/** Columns first .. first + count - 1 of a piece into its tiles, from the memory of whole columns. Of floats a tile is
 *  its columns one after the other, so that some of them are packed as a narrow tile at their place. */
static void pack_columns(const pi2_piece *piece, const pi2_layout_tensor *tensor, const uint8_t *data, uint32_t first,
                         uint32_t count, uint8_t *piece_memory) {
    const pi2_weight_format *format = tensor->format;
    const size_t value_bytes = format->block_bytes, column_stride = (size_t)tensor->rows * value_bytes;
    const size_t tile_bytes = pi2_tile_bytes(format, piece->column_count);
    uint8_t turned[PI2_TILE_ROWS][PACKED_COLUMNS * LARGEST_FLOAT], tile[PI2_TILE_ROWS * PACKED_COLUMNS * LARGEST_FLOAT];
    for (uint32_t row = 0; row < piece->row_count; row += PI2_TILE_ROWS, piece_memory += tile_bytes) {
        const uint8_t *rows[PI2_TILE_ROWS];
        for (uint32_t r = 0; r < PI2_TILE_ROWS; r++) {
            rows[r] = row + r < piece->row_count ? turned[r] : NULL;
            const uint8_t *from = data + (size_t)(piece->row_begin + row + r) * value_bytes;
            for (uint32_t c = 0; c < count && rows[r]; c++, from += column_stride) {
                memcpy(turned[r] + c * value_bytes, from, value_bytes);
            }
        }
        format->pack_tile(tile, rows, count);
        memcpy(piece_memory + (size_t)first * format->tile_value_bytes, tile, (size_t)count * format->tile_value_bytes);
        if (first + count < piece->column_count) continue;
        const size_t end = (size_t)piece->column_count * format->tile_value_bytes;
        memset(piece_memory + end, 0, tile_bytes - end);
    }
}

static pi2_status build_by_column(pi2_extent_builder *builder, piece_cursor start) {
    const pi2_layout_tensor *tensor = &builder->layout->tensors[start.tensor];
    const size_t column_stride = (size_t)tensor->rows * tensor->format->block_bytes;
    const pi2_piece *piece;
    uint8_t *memory;
    for (piece_cursor cursor = start; (piece = next_piece(&cursor, &memory));) {
        for (uint32_t done = 0; done < piece->column_count;) {
            const uint8_t *data;
            uint64_t count;
            PI2_TRY(pi2_extent_builder_columns(builder, start.tensor, piece->column_begin + done,
                                               piece->column_count - done, &data, &count));
            for (uint64_t packed = 0; packed < count;) {
                const uint32_t step = count - packed < PACKED_COLUMNS ? (uint32_t)(count - packed) : PACKED_COLUMNS;
                pack_columns(piece, tensor, data + packed * column_stride, done, step, memory + piece->offset);
                packed += step;
                done += step;
            }
        }
    }
    return PI2_OK;
}

static pi2_status build_by_row(pi2_extent_builder *builder, piece_cursor start) {
    const pi2_extent_layout *layout = builder->layout;
    const pi2_layout_tensor *tensor = &layout->tensors[start.tensor];
    row_chunk chunk = { .row_bytes = pi2_row_bytes(tensor->format, tensor->columns) };
    const uint64_t row_limit = scratch_rows(builder, chunk.row_bytes);
    for (uint64_t done = 0; next_rows(start, done, row_limit, &chunk); done = chunk.end) {
        PI2_TRY(read_rows(builder, builder->sources[start.tensor].tensor, &chunk));
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
        const piece_cursor start = { .layout = layout, .group = &layout->groups[group],
                                     .extent_memory = extent_memory, .tensor = tensors[i] };
        const bool by_column = pi2_extent_builder_is_by_column(builder, tensors[i]);
        PI2_TRY(by_column ? build_by_column(builder, start) : build_by_row(builder, start));
    }
    return PI2_OK;
}
