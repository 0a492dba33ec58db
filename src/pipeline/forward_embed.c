/* forward_embed.c: rows of the embedding, from memory where they are resident, else from the file. */
#include <assert.h>

#include "base/clock.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

enum { STAGING_ROWS = 16 };

/* Where a token's row lies: a GGUF row, or a row of a tile when the embedding is the head. */
typedef struct row_place {
    uint32_t extent;
    uint32_t offset, bytes; /* of the row or its tile inside the extent */
    uint32_t tile_row;
} row_place;

static row_place place_of(const pi2_forward *forward, const pi2_operand *embedding, bool tiles, int32_t token) {
    const pi2_extent_layout *layout = forward->model->layout;
    const pi2_piece_ref *refs = forward->model->refs + embedding->first_ref;
    const pi2_weight_format *format = embedding->tensor->format;
    const uint32_t row = (uint32_t)token;
    uint32_t low = 0, high = embedding->ref_count;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (layout->pieces[refs[middle].piece].row_begin <= row) low = middle;
        else high = middle;
    }
    const pi2_piece *piece = &layout->pieces[refs[low].piece];
    const uint32_t inside = row - (uint32_t)piece->row_begin;
    assert(inside < piece->row_count);
    const size_t unit = tiles ? pi2_tile_bytes(format, embedding->tensor->columns)
                              : pi2_row_bytes(format, embedding->tensor->columns);
    const uint32_t index = tiles ? inside / PI2_TILE_ROWS : inside;
    return (row_place){ .extent = refs[low].extent, .offset = (uint32_t)(piece->offset + index * unit),
                        .bytes = (uint32_t)unit, .tile_row = tiles ? inside % PI2_TILE_ROWS : 0 };
}

/* Decodes the row at `memory` into x; `raw` is scratch for one GGUF row. */
static void decode(const pi2_operand *embedding, bool tiles, const row_place *place, const uint8_t *memory,
                   uint8_t *raw, float *x) {
    const pi2_weight_format *format = embedding->tensor->format;
    const size_t blocks = embedding->tensor->columns / format->block_columns;
    if (tiles) {
        format->unpack_row(raw, memory, place->tile_row, blocks);
        memory = raw;
    }
    format->decode_row(x, memory, blocks);
}

/* Starts the read of a place that is not in memory, into staging room number `slot`. */
static void start_read(pi2_forward *forward, const row_place *place, pi2_read_request *request, uint32_t slot,
                       size_t room) {
    const uint64_t at = forward->model->layout->extents[place->extent].file_offset + place->offset;
    const uint64_t begin = at / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
    const uint64_t end = (at + place->bytes + PI2_READ_ALIGNMENT - 1) / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
    *request = (pi2_read_request){ .offset = begin, .bytes = (uint32_t)(end - begin),
                                   .destination = (uint8_t *)forward->options.staging + slot * room,
                                   .priority = PI2_READ_CERTAIN };
    assert(request->bytes <= room);
    pi2_reader_submit(forward->options.reader, request);
}

pi2_status pi2_forward_embed(pi2_forward *forward) {
    const pi2_model *model = forward->model;
    const bool tiles = model->embedding.tensor == NULL;
    const pi2_operand *embedding = tiles ? &model->head : &model->embedding;
    const size_t staging = pi2_forward_staging_bytes(model, &forward->options.shape);
    const uint32_t batch = forward->options.shape.batch_tokens;
    const size_t room = staging / (batch < STAGING_ROWS ? batch : STAGING_ROWS);
    /* The projection buffer is free now and larger than a GGUF row of any type. */
    uint8_t *raw = (uint8_t *)forward->buffers.out;
    pi2_read_request requests[STAGING_ROWS];
    row_place places[STAGING_ROWS];
    const uint8_t *memories[STAGING_ROWS];
    for (uint32_t first = 0; first < forward->token_count; first += STAGING_ROWS) {
        const uint32_t left = forward->token_count - first;
        const uint32_t count = left < STAGING_ROWS ? left : STAGING_ROWS;
        for (uint32_t i = 0; i < count; i++) {
            places[i] = place_of(forward, embedding, tiles, forward->tokens[first + i]);
            const uint8_t *resident = pi2_weight_store_peek(forward->options.store, places[i].extent);
            memories[i] = resident ? resident + places[i].offset : NULL;
            if (!resident) start_read(forward, &places[i], &requests[i], i, room);
        }
        pi2_status status = PI2_OK;
        for (uint32_t i = 0; i < count; i++) {
            if (!memories[i]) { /* every thread waits for the first stage meanwhile */
                const uint64_t begin = pi2_clock_ns();
                const pi2_status ended = pi2_reader_wait(forward->options.reader, &requests[i],
                                                         forward->options.spin_us);
                pi2_weight_store_add_stall(forward->options.store, places[i].extent, begin,
                                           forward->options.shape.thread_count);
                if (ended != PI2_OK) status = ended;
                const uint64_t at = model->layout->extents[places[i].extent].file_offset + places[i].offset;
                memories[i] = (const uint8_t *)requests[i].destination + (at - requests[i].offset);
            }
            if (status == PI2_OK) {
                decode(embedding, tiles, &places[i], memories[i], raw,
                       forward->buffers.x + (first + i) * forward->buffers.width_stride);
            }
        }
        PI2_TRY(status);
    }
    return PI2_OK;
}
