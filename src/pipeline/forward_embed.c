/* forward_embed.c: rows of the embedding, from memory where they are resident, else from the file. */
#include <assert.h>

#include "base/clock.h"
#include "base/fail.h"
#include "file_formats/cluster_file.h"
#include "pipeline/forward_internal.h"

/* Where a token's row lies: in a run of 16 rows, which is a tile where the embedding is the head, else GGUF rows. */
typedef struct row_place {
    const pi2_piece *piece;
    uint32_t extent, run;   /* run: the row of the piece that its run begins with */
    uint32_t offset, bytes; /* of the run inside the extent */
    uint32_t row;           /* of the token, inside the run */
} row_place;

static row_place place_of(const pi2_forward *forward, const pi2_operand *embedding, int32_t token) {
    const pi2_extent_layout *layout = forward->model->layout;
    const pi2_piece_ref *refs = forward->model->refs + embedding->first_ref;
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
    row_place place = { .piece = piece, .extent = refs[low].extent, .run = inside / PI2_TILE_ROWS * PI2_TILE_ROWS,
                        .row = inside % PI2_TILE_ROWS };
    place.offset = pi2_piece_run(layout, piece, place.run, &place.bytes);
    return place;
}

/* Decodes a row of the run at `memory` into x; `raw` is scratch for one GGUF row. */
static void decode(const pi2_operand *embedding, bool tiles, const row_place *place, const uint8_t *memory,
                   uint8_t *raw, float *x) {
    const pi2_weight_format *format = embedding->tensor->format;
    const size_t blocks = embedding->tensor->columns / format->block_columns;
    if (tiles) {
        format->unpack_row(raw, memory, place->row, blocks);
        memory = raw;
    } else {
        memory += place->row * pi2_row_bytes(format, embedding->tensor->columns);
    }
    format->decode_row(x, memory, blocks);
}

/* Starts the read of a place that is not in memory, into staging room number `slot`. */
static pi2_status start_read(pi2_forward *forward, const row_place *place, pi2_read_request *request, uint32_t slot,
                             size_t room) {
    const uint64_t at = forward->model->layout->extents[place->extent].file_offset + place->offset;
    const uint64_t begin = at / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
    const uint64_t end = (at + place->bytes + PI2_READ_ALIGNMENT - 1) / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
    *request = (pi2_read_request){ .offset = begin, .bytes = (uint32_t)(end - begin),
                                   .destination = (uint8_t *)forward->options.staging + slot * room,
                                   .priority = PI2_READ_CERTAIN };
    if (end - begin > room) {
        return pi2_fail(PI2_ERR_MEMORY, "%s: embedding rows at byte %llu take %llu bytes, room was made for %zu: this "
                        "is a fault of the program, please report it", forward->options.path, (unsigned long long)at,
                        (unsigned long long)(end - begin), room);
    }
    pi2_reader_submit(forward->options.reader, request);
    return PI2_OK;
}

/* Waits for a place's read. Its bytes are compared with their checksum each time: they may be other ones by now. */
static pi2_status await_read(pi2_forward *forward, const row_place *place, pi2_read_request *request,
                             const uint8_t **memory_out) {
    const pi2_extent_layout *layout = forward->model->layout;
    const uint64_t begin = pi2_clock_ns(); /* every thread waits for the first stage meanwhile */
    const pi2_status status = pi2_reader_wait(forward->options.reader, request, forward->options.spin_us);
    pi2_weight_store_add_stall(forward->options.weights, place->extent, begin, forward->options.shape.thread_count);
    PI2_TRY(status);
    const uint64_t at = layout->extents[place->extent].file_offset + place->offset;
    *memory_out = (const uint8_t *)request->destination + (at - request->offset);
    return pi2_cluster_file_check_run(forward->options.path, layout, place->extent, place->piece, place->run,
                                      *memory_out);
}

pi2_status pi2_forward_embed(pi2_forward *forward) {
    const pi2_model *model = forward->model;
    const bool tiles = model->embedding.tensor == NULL;
    const pi2_operand *embedding = tiles ? &model->head : &model->embedding;
    const size_t staging = pi2_forward_staging_bytes(model, &forward->options.shape);
    const uint32_t batch = forward->options.shape.batch_tokens;
    const size_t room = staging / (batch < PI2_STAGING_RUNS ? batch : PI2_STAGING_RUNS);
    /* The projection buffer is free now and larger than a GGUF row of any type. */
    uint8_t *raw = (uint8_t *)forward->buffers.out;
    pi2_read_request requests[PI2_STAGING_RUNS];
    row_place places[PI2_STAGING_RUNS];
    const uint8_t *memories[PI2_STAGING_RUNS];
    for (uint32_t first = 0; first < forward->token_count; first += PI2_STAGING_RUNS) {
        const uint32_t left = forward->token_count - first;
        const uint32_t count = left < PI2_STAGING_RUNS ? left : PI2_STAGING_RUNS;
        pi2_status status = PI2_OK; /* whatever fails, reads that were begun are waited for: they write into staging */
        uint32_t begun = 0;
        for (; begun < count; begun++) {
            row_place *place = &places[begun];
            *place = place_of(forward, embedding, forward->tokens[first + begun]);
            const uint8_t *resident = pi2_weight_store_peek(forward->options.weights, place->extent);
            memories[begun] = resident ? resident + place->offset : NULL;
            if (!resident) status = start_read(forward, place, &requests[begun], begun, room);
            if (status != PI2_OK) break;
        }
        for (uint32_t i = 0; i < begun; i++) {
            if (!memories[i]) {
                const pi2_status ended = await_read(forward, &places[i], &requests[i], &memories[i]);
                if (ended != PI2_OK) status = ended;
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
