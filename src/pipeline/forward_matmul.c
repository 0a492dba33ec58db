/* forward_matmul.c: operands of many pieces, as kernels take them. */
#include <assert.h>

#include "pipeline/forward_internal.h"

enum { CHUNK_BYTES = 48 * 1024, CHUNKS_PER_THREAD = 4 };

uint32_t pi2_operand_tiles(const pi2_model *model, const pi2_operand *operand) {
    const pi2_piece_ref *refs = model->refs + operand->first_ref;
    uint64_t end = operand->row_base;
    for (uint32_t i = 0; i < operand->ref_count; i++) {
        const pi2_piece *piece = &model->layout->pieces[refs[i].piece];
        if (piece->row_begin + piece->row_count > end) end = piece->row_begin + piece->row_count;
    }
    return (uint32_t)((end - operand->row_base + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS);
}

uint32_t pi2_forward_chunk_tiles(const pi2_forward *forward, uint32_t tile_count, size_t tile_bytes) {
    const uint32_t threads = forward->options.shape.thread_count;
    uint32_t tiles = (uint32_t)(CHUNK_BYTES / (tile_bytes ? tile_bytes : 1));
    const uint32_t fair = tile_count / (threads * CHUNKS_PER_THREAD);
    if (tiles > fair) tiles = fair;
    if (threads == 1) tiles = (uint32_t)(8 * CHUNK_BYTES / (tile_bytes ? tile_bytes : 1));
    if (tiles >= 4) tiles = tiles / 4 * 4; /* kernels take four tiles at a time */
    return tiles ? tiles : 1;
}

void pi2_forward_rows(pi2_forward *forward, const pi2_operand *operand, uint32_t tile_begin, uint32_t tile_count,
                      const pi2_activation_set *set, uint32_t token_begin, uint32_t token_count, float *out,
                      size_t out_stride, bool last) {
    const pi2_extent_layout *layout = forward->model->layout;
    const pi2_piece_ref *refs = forward->model->refs + operand->first_ref;
    const pi2_weight_format *format = operand->tensor->format;
    const size_t tile_bytes = pi2_tile_bytes(format, operand->tensor->columns);
    const uint32_t tile_end = tile_begin + tile_count;
    for (uint32_t i = 0; i < operand->ref_count && !pi2_forward_failed(forward); i++) {
        const pi2_piece *piece = &layout->pieces[refs[i].piece];
        const uint32_t first = (uint32_t)((piece->row_begin - operand->row_base) / PI2_TILE_ROWS);
        const uint32_t end = first + pi2_piece_tiles(piece);
        if (end <= tile_begin) continue;
        if (first >= tile_end) break;
        const uint32_t from = first > tile_begin ? first : tile_begin;
        const uint32_t to = end < tile_end ? end : tile_end;
        const uint8_t *memory;
        const pi2_status status = pi2_weight_store_extent(forward->options.store, refs[i].extent, &memory);
        if (status != PI2_OK) {
            pi2_forward_fail(forward, status);
            return;
        }
        operand->kernel->run(out + (size_t)(from - tile_begin) * PI2_TILE_ROWS, out_stride,
                             memory + piece->offset + (from - first) * tile_bytes, to - from,
                             operand->tensor->columns, 0, &set->of[format->activation], token_begin,
                             token_count, true);
        if (last) pi2_weight_store_used(forward->options.store, refs[i].extent, to - from);
    }
}

void pi2_forward_columns(pi2_forward *forward, const pi2_operand *operand, uint32_t tile_begin,
                         uint32_t tile_count, uint32_t column_begin, uint32_t column_end,
                         const pi2_activation_set *set, uint32_t token_count, float *out, size_t out_stride) {
    const pi2_extent_layout *layout = forward->model->layout;
    const pi2_piece_ref *refs = forward->model->refs + operand->first_ref;
    const pi2_weight_format *format = operand->tensor->format;
    const uint32_t tile_end = tile_begin + tile_count;
    for (uint32_t i = 0; i < operand->ref_count && !pi2_forward_failed(forward); i++) {
        const pi2_piece *piece = &layout->pieces[refs[i].piece];
        if (piece->column_begin < column_begin) continue;
        if (piece->column_begin >= column_end) break;
        const uint32_t first = (uint32_t)((piece->row_begin - operand->row_base) / PI2_TILE_ROWS);
        const uint32_t end = first + pi2_piece_tiles(piece);
        if (end <= tile_begin || first >= tile_end) continue;
        const uint32_t from = first > tile_begin ? first : tile_begin;
        const uint32_t to = end < tile_end ? end : tile_end;
        const uint8_t *memory;
        const pi2_status status = pi2_weight_store_extent(forward->options.store, refs[i].extent, &memory);
        if (status != PI2_OK) {
            pi2_forward_fail(forward, status);
            return;
        }
        operand->kernel->run(out + (size_t)(from - tile_begin) * PI2_TILE_ROWS, out_stride,
                             memory + piece->offset + (from - first) * pi2_tile_bytes(format, piece->column_count),
                             to - from, piece->column_count, piece->column_begin, &set->of[format->activation], 0,
                             token_count, piece->column_begin == 0);
        pi2_weight_store_used(forward->options.store, refs[i].extent, to - from);
    }
}

void pi2_activation_set_fill(pi2_activation_set *set, uint32_t token, uint32_t column_begin,
                             uint32_t column_count, const float *floats) {
    for (int kind = 0; kind < PI2_ACTIVATION_KINDS; kind++) {
        if (kind == PI2_ACTIVATION_F32 || !(set->kinds & (1u << kind))) continue;
        pi2_activations_quantize(&set->of[kind], token, column_begin, column_count, floats);
    }
}
