/* forward_embed.c: rows of the embedding and of the table of layers' vectors, from memory where they are resident, else
 * from the file. */
#include <assert.h>
#include <string.h>

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

/* Rows whose runs are not in memory: read together, each checked and decoded when it has come. */
typedef struct row_reads {
    pi2_forward *forward;
    const pi2_operand *table;
    const int32_t *ids; /* [id_count] */
    uint32_t id_count;
    bool is_tiled;  /* the table is, and not GGUF rows */
    float *out;     /* [tokens][stride] */
    size_t stride, room; /* room: bytes of one run's place in the staging buffer */
    uint8_t *raw;   /* scratch for one GGUF row of a table that is tiled */
    uint32_t count;
    row_place places[PI2_STAGING_RUNS];
    uint32_t tokens[PI2_STAGING_RUNS]; /* which of the pass's */
    pi2_store_range ranges[PI2_STAGING_RUNS];
} row_reads;

static void decode_token(const row_reads *reads, const row_place *place, const uint8_t *memory, uint32_t token) {
    decode(reads->table, reads->is_tiled, place, memory, reads->raw, reads->out + token * reads->stride);
}

static uint64_t file_offset_of(const pi2_forward *forward, const row_place *place) {
    return forward->model->layout->extents[place->extent].file_offset + place->offset;
}

/* The bytes are compared with their checksum each time: they may be other ones by now. */
static pi2_status row_arrived(void *user, uint32_t i) {
    const row_reads *reads = user;
    const row_place *place = &reads->places[i];
    const pi2_forward *forward = reads->forward;
    const pi2_store_range *range = &reads->ranges[i];
    const uint8_t *memory = (const uint8_t *)range->memory + (file_offset_of(forward, place) - range->offset);
    PI2_TRY(pi2_cluster_file_check_run(forward->options.path, forward->model->layout, place->extent, place->piece,
                                       place->run, memory));
    decode_token(reads, place, memory, reads->tokens[i]);
    return PI2_OK;
}

/* Lists the read of a place that is not in memory. */
static pi2_status list_read(row_reads *reads, const row_place *place, uint32_t token) {
    const pi2_forward *forward = reads->forward;
    const uint64_t at = file_offset_of(forward, place), bytes = place->bytes;
    const uint64_t begin = at / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
    const uint64_t end = (at + bytes + PI2_READ_ALIGNMENT - 1) / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
    if (end - begin > reads->room) {
        return pi2_fail(PI2_ERR_MEMORY, "%s: embedding rows at byte %llu take %llu bytes, room was made for %zu: this "
                        "is a fault of the program, please report it", forward->options.path, (unsigned long long)at,
                        (unsigned long long)(end - begin), reads->room);
    }
    const uint32_t i = reads->count++;
    reads->places[i] = *place;
    reads->tokens[i] = token;
    reads->ranges[i] = (pi2_store_range){ .offset = begin, .bytes = end - begin, .number = place->extent,
                                          .memory = (uint8_t *)forward->options.staging + i * reads->room };
    return PI2_OK;
}

/* Every thread waits for the first stage meanwhile. */
static pi2_status read_rows(row_reads *reads) {
    return pi2_store_read(reads->forward->options.store, reads->ranges, reads->count, row_arrived, reads,
                          reads->forward->options.shape.thread_count);
}

static void scale_rows(pi2_forward *forward) {
    const float scale = forward->model->shape.embedding_scale;
    for (uint32_t t = 0; scale > 0.0f && t < forward->token_count; t++) {
        float *x = forward->buffers.x + t * forward->buffers.width_stride;
        for (uint32_t i = 0; i < forward->model->shape.embedding_length; i++) x[i] *= scale;
    }
}

/* Where the model learned its positions, each token's is added. */
static void add_positions(pi2_forward *forward) {
    const size_t width = forward->model->shape.embedding_length;
    for (uint32_t t = 0; forward->model->positions && t < forward->token_count; t++) {
        const size_t row = (size_t)pi2_forward_position(forward, t) + PI2_POSITION_OFFSET;
        forward->cpu.vector->add(forward->buffers.x + t * forward->buffers.width_stride,
                             forward->model->positions + row * width, width);
    }
}

/* Runs that the staging buffer has room for. */
static uint32_t most_runs(const pi2_forward *forward) {
    const uint32_t batch = forward->options.shape.batch_tokens;
    return batch < PI2_STAGING_RUNS ? batch : PI2_STAGING_RUNS;
}

static pi2_status look_up(row_reads *reads) {
    pi2_forward *forward = reads->forward;
    for (uint32_t token = 0; token < reads->id_count; token++) {
        const row_place place = place_of(forward, reads->table, reads->ids[token]);
        const uint8_t *resident = pi2_weight_store_peek(forward->options.weights, place.extent);
        if (resident) decode_token(reads, &place, resident + place.offset, token);
        else PI2_TRY(list_read(reads, &place, token));
        if (reads->count < most_runs(forward) && (token + 1 < reads->id_count || reads->count == 0)) continue;
        PI2_TRY(read_rows(reads));
        reads->count = 0;
    }
    return PI2_OK;
}

static size_t room_of(const pi2_forward *forward) {
    return pi2_forward_staging_bytes(forward->model, &forward->options.shape) / most_runs(forward);
}

pi2_status pi2_forward_look_up(pi2_forward *forward, const int32_t *tokens, uint32_t count, float *out, size_t stride) {
    const pi2_model *model = forward->model;
    const bool is_tiled = model->embedding.tensor == NULL;
    /* The projection buffer is free now and larger than a GGUF row of any type. */
    row_reads reads = { .forward = forward, .raw = (uint8_t *)forward->buffers.out, .room = room_of(forward),
                        .is_tiled = is_tiled, .table = is_tiled ? &model->head : &model->embedding,
                        .ids = tokens, .id_count = count, .out = out, .stride = stride };
    return look_up(&reads);
}

/* Rows that are given with what else a layer that guesses is given. */
static void take_given_rows(pi2_forward *forward) {
    const pi2_model_shape *shape = &forward->model->shape;
    const size_t length = pi2_model_given_length(shape, forward->given_is_own);
    for (uint32_t t = 0; t < forward->token_count; t++) {
        memcpy(forward->buffers.x + t * forward->buffers.width_stride, forward->given + t * length,
               shape->embedding_length * sizeof(float));
    }
}

pi2_status pi2_forward_embed(pi2_forward *forward) {
    const pi2_model *model = forward->model;
    const pi2_forward_buffers *buffers = &forward->buffers;
    if (model->shape.borrows_rows) {
        take_given_rows(forward);
        scale_rows(forward);
        return PI2_OK;
    }
    PI2_TRY(pi2_forward_look_up(forward, forward->tokens, forward->token_count, buffers->x, buffers->width_stride));
    scale_rows(forward);
    add_positions(forward);
    if (!model->token_table.tensor) return PI2_OK;
    row_reads vectors = { .forward = forward, .room = room_of(forward), .table = &model->token_table,
                          .ids = forward->tokens, .id_count = forward->token_count,
                          .out = buffers->token_vectors, .stride = buffers->token_stride };
    return look_up(&vectors);
}
