/* forward_matmul.c: operands of many pieces, as kernels take them. */
#include <assert.h>

#include "pipeline/forward_internal.h"

enum {
    LONG_BYTES = 1024 * 1024, SHORT_BYTES = 40 * 1024, STREAMED_BYTES = 48 * 1024, CHUNKS_PER_THREAD = 4,
    COLUMN_TILES = 8,  /* Down: so many consecutive tiles of a cluster's columns are worth a call */
    BATCH_TOKENS = 6,  /* from here on a call's preparation counts: BATCH_TILES share one */
    BATCH_TILES = 8,
    OWN_CHUNKS = 4, OWN_BYTES = 256 * 1024, /* a device's part: few calls, and nobody waits long for one */
    STREAMS = 4        /* tiles of a strip of one token: with fewer a core gets less of the memory */
};

/* Kernels take two or four tiles at a time; one token's four. */
static uint32_t whole_strips(uint32_t tiles) {
    return tiles >= 4 ? tiles / 4 * 4 : tiles >= 2 ? 2 : 1;
}

/* The first `own` tiles are the devices'. */
static void part_tiles(pi2_tile_chunks *chunks, uint32_t own) {
    chunks->own = own;
    if (own == 0) return;
    const size_t least = OWN_BYTES / chunks->tile_bytes + 1;
    uint32_t size = (own + OWN_CHUNKS - 1) / OWN_CHUNKS;
    if (size < least) size = least < own ? (uint32_t)least : own;
    chunks->own_size = size;
    chunks->own_count = (own + size - 1) / size;
}

pi2_tile_chunks pi2_forward_own_chunks(uint32_t tiles, size_t tile_bytes, pi2_share_kind kind) {
    pi2_tile_chunks chunks = { .tiles = tiles, .coarse = 1, .fine = 1, .tile_bytes = tile_bytes, .kind = kind };
    part_tiles(&chunks, tiles);
    chunks.count = chunks.own_count;
    return chunks;
}

pi2_tile_chunks pi2_forward_plan_chunks(const pi2_forward *forward, uint32_t all_tiles, size_t tile_bytes,
                                        bool by_columns, pi2_share_kind kind) {
    const uint32_t threads = forward->options.shape.thread_count;
    const bool batch = forward->token_count >= BATCH_TOKENS;
    const bool streams = forward->streams && !forward->by_neuron && !by_columns;
    /* Where weights arrive in order, threads that are far apart would wait for each other's. */
    const bool near = streams && !batch;
    if (tile_bytes == 0) tile_bytes = 1;
    pi2_tile_chunks chunks = { .tiles = all_tiles, .tile_bytes = tile_bytes, .kind = streams ? PI2_SHARE_NONE : kind };
    part_tiles(&chunks, (uint32_t)(pi2_device_share_now(&forward->share, chunks.kind) * all_tiles + 0.5));
    const uint32_t tiles = all_tiles - chunks.own;
    const uint32_t fair = whole_strips(tiles / (threads * CHUNKS_PER_THREAD));
    uint32_t coarse = (uint32_t)((near ? STREAMED_BYTES : LONG_BYTES) / tile_bytes);
    uint32_t fine = (uint32_t)(SHORT_BYTES / tile_bytes);
    if (by_columns) coarse = fair > COLUMN_TILES ? fair : COLUMN_TILES;
    if (by_columns && fine < COLUMN_TILES) fine = COLUMN_TILES;
    /* One token's Down: short chunks would read a few tiles of every cluster, far from each other. */
    const uint32_t long_share = whole_strips(tiles / threads / 4 * 3);
    const bool one_each = by_columns && !batch && threads > 1 && long_share > coarse;
    if (batch && coarse < 2 * BATCH_TILES) coarse = 2 * BATCH_TILES;
    if (batch && fine < BATCH_TILES / 2) fine = BATCH_TILES / 2;
    if (!near && fine < STREAMS) fine = STREAMS;
    if (threads == 1) coarse = fine = tiles;
    else if (coarse > fair) coarse = fair;
    chunks.coarse = one_each ? long_share : whole_strips(coarse);
    chunks.fine = fine < chunks.coarse ? whole_strips(fine) : chunks.coarse;
    const uint32_t whole = tiles / chunks.coarse;
    chunks.coarse_count = one_each ? threads : whole > threads ? whole - threads : 0;
    const uint32_t rest = tiles - chunks.coarse_count * chunks.coarse;
    chunks.count = chunks.own_count + chunks.coarse_count + (rest + chunks.fine - 1) / chunks.fine;
    return chunks;
}

uint32_t pi2_tile_chunk_begin(const pi2_tile_chunks *chunks, uint32_t chunk) {
    if (chunk < chunks->own_count) return chunk * chunks->own_size;
    const uint32_t other = chunk - chunks->own_count, coarse = other < chunks->coarse_count ? other
                                                                                            : chunks->coarse_count;
    const uint32_t begin = chunks->own + coarse * chunks->coarse + (other - coarse) * chunks->fine;
    return begin < chunks->tiles ? begin : chunks->tiles;
}

void pi2_forward_tile_stage(pi2_forward_walk *walk, const pi2_tile_chunks *chunks, pi2_stage_chunk *chunk,
                            pi2_token_tail *tail) {
    walk->own_chunks = chunks->own_count;
    pi2_forward_stage(walk, chunks->count, chunk, tail);
}

void pi2_forward_tiles_done(const pi2_forward_walk *walk, const pi2_tile_chunks *chunks, uint32_t chunk) {
    const uint32_t tiles = pi2_tile_chunk_begin(chunks, chunk + 1) - pi2_tile_chunk_begin(chunks, chunk);
    pi2_device_share_did(&walk->forward->share, chunks->kind, chunk < chunks->own_count, walk->device,
                         tiles * (uint64_t)chunks->tile_bytes);
}

/* The last piece that begins at or before this column and row; pieces are in this order. */
static uint32_t find_piece(const pi2_model *model, const pi2_operand *operand, uint32_t column, uint64_t row) {
    const pi2_piece_ref *refs = model->refs + operand->first_ref;
    uint32_t low = 0, high = operand->ref_count;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        const pi2_piece *piece = &model->layout->pieces[refs[middle].piece];
        if (piece->column_begin < column || (piece->column_begin == column && piece->row_begin <= row)) low = middle;
        else high = middle;
    }
    return low;
}

const uint8_t *pi2_forward_extent(pi2_forward *forward, const pi2_extent_source *source, uint32_t extent) {
    const uint8_t *memory = NULL;
    const pi2_status status =
        source->experts
            ? pi2_expert_cache_open(source->experts, source->key, extent - source->first_extent, &memory)
            : pi2_weight_store_extent(forward->options.weights, extent, &memory);
    if (status == PI2_OK) return memory;
    pi2_forward_fail(forward, status);
    return NULL;
}

/* The tiles [from, to) of a piece that lie in [begin, end), and the piece's first; false: there are none. */
typedef struct tile_range {
    uint32_t first, from, to;
} tile_range;

static bool cut_tiles(const pi2_operand *operand, const pi2_piece *piece, uint32_t begin, uint32_t end,
                      tile_range *range) {
    range->first = (uint32_t)((piece->row_begin - operand->row_base) / PI2_TILE_ROWS);
    const uint32_t piece_end = range->first + pi2_piece_tiles(piece);
    range->from = range->first > begin ? range->first : begin;
    range->to = piece_end < end ? piece_end : end;
    return range->from < range->to;
}

/* The pieces of an operand that have tiles of [begin, end), one after the other. */
typedef struct piece_walk {
    const pi2_operand *operand;
    uint32_t begin, end, next;
} piece_walk;

static piece_walk walk_pieces(const pi2_forward *forward, const pi2_operand *operand, uint32_t tile_begin,
                              uint32_t tile_count) {
    const uint32_t first = find_piece(forward->model, operand, 0,
                                      operand->row_base + (uint64_t)tile_begin * PI2_TILE_ROWS);
    return (piece_walk){ .operand = operand, .begin = tile_begin, .end = tile_begin + tile_count, .next = first };
}

/* False: there is none, or the pass fails. */
static bool next_piece(const pi2_forward *forward, piece_walk *walk, pi2_piece_ref *ref, tile_range *range) {
    while (walk->next < walk->operand->ref_count && !pi2_forward_failed(forward)) {
        *ref = forward->model->refs[walk->operand->first_ref + walk->next++];
        if (cut_tiles(walk->operand, &forward->model->layout->pieces[ref->piece], walk->begin, walk->end, range)) {
            return true;
        }
        if (range->first >= walk->end) return false;
    }
    return false;
}

pi2_tiles pi2_forward_tiles(pi2_forward *forward, const pi2_operand *operand, uint32_t tile, uint32_t column) {
    static const pi2_extent_source store = { .experts = NULL };
    const uint32_t i = find_piece(forward->model, operand, column, operand->row_base + (uint64_t)tile * PI2_TILE_ROWS);
    const pi2_piece_ref ref = forward->model->refs[operand->first_ref + i];
    const pi2_piece *piece = &forward->model->layout->pieces[ref.piece];
    const uint32_t begin = (uint32_t)((piece->row_begin - operand->row_base) / PI2_TILE_ROWS);
    const size_t bytes = pi2_tile_bytes(operand->tensor->format, piece->column_count);
    const uint8_t *memory = pi2_forward_extent(forward, &store, ref.extent);
    if (memory) memory += piece->offset + (tile - begin) * bytes;
    return (pi2_tiles){ .memory = memory, .first = tile, .end = begin + pi2_piece_tiles(piece),
                        .columns = piece->column_count, .bytes = bytes };
}

/* By whom this member works with: a device, where it has one that computes such weights, or the processor. */
static void compute(const pi2_forward_walk *walk, const pi2_backend_work *work) {
    const pi2_forward *forward = walk->forward;
    if (walk->device && pi2_backend_multiply(walk->device, work)) return;
    pi2_cpu_backend_multiply(&forward->cpu, work);
}

/* Whether a device may keep the chunk's weights: a view of them costs nothing, a copy takes its memory. */
static bool may_keep(const pi2_forward_walk *walk) {
    return walk->device && (walk->is_kept || pi2_backend_facts(walk->device)->shares_memory);
}

/* Multiplies these tiles of a piece, of all its columns. False: the pass fails. */
static bool multiply(const pi2_forward_walk *walk, const pi2_extent_source *source, const pi2_operand *operand,
                     pi2_piece_ref ref, const tile_range *range, const pi2_activation_set *set, uint32_t token_begin,
                     uint32_t token_count, float *out, size_t out_stride, bool last) {
    pi2_forward *forward = walk->forward;
    const pi2_piece *piece = &forward->model->layout->pieces[ref.piece];
    const pi2_weight_format *format = operand->tensor->format;
    const uint8_t *memory = pi2_forward_extent(forward, source, ref.extent);
    if (!memory) return false;
    const size_t tile_bytes = pi2_tile_bytes(format, piece->column_count);
    compute(walk, &(pi2_backend_work){
        .out = out, .out_stride = out_stride, .type = format->type,
        .tiles = memory + piece->offset + (range->from - range->first) * tile_bytes,
        .tile_count = range->to - range->from, .tile_bytes = tile_bytes,
        .columns = piece->column_count, .column_begin = piece->column_begin, .x = &set->of[format->activation],
        .token_begin = token_begin, .token_count = token_count, .start = piece->column_begin == 0,
        .unit = ref.extent, .unit_memory = memory, .unit_bytes = forward->model->layout->extents[ref.extent].bytes,
        .stays = may_keep(walk) && !source->experts && forward->options.resident[ref.extent] });
    if (last && !source->experts) {
        pi2_weight_store_used(forward->options.weights, ref.extent, range->to - range->from);
    }
    return true;
}

/* Of rows whose columns are all summed. A matrix that is no expert's has one scale. */
static void scale_rows(const pi2_extent_source *source, const pi2_operand *operand, uint32_t rows,
                       uint32_t token_count, float *out, size_t out_stride) {
    const float scale = operand->scales[source->expert];
    for (uint32_t t = 0; t < token_count; t++) {
        for (uint32_t i = 0; i < rows; i++) out[t * out_stride + i] *= scale;
    }
}

void pi2_forward_source_rows(const pi2_forward_walk *walk, const pi2_extent_source *source, const pi2_operand *operand,
                             uint32_t tile_begin, uint32_t tile_count, const pi2_activation_set *set,
                             uint32_t token_begin, uint32_t token_count, float *out, size_t out_stride, bool last) {
    piece_walk pieces = walk_pieces(walk->forward, operand, tile_begin, tile_count);
    pi2_piece_ref ref;
    tile_range range;
    while (next_piece(walk->forward, &pieces, &ref, &range)) {
        if (!multiply(walk, source, operand, ref, &range, set, token_begin, token_count,
                      out + (size_t)(range.from - tile_begin) * PI2_TILE_ROWS, out_stride, last)) return;
    }
    if (operand->scales) scale_rows(source, operand, tile_count * PI2_TILE_ROWS, token_count, out, out_stride);
}

void pi2_forward_leave_rows(const pi2_forward_walk *walk, const pi2_operand *operand, uint32_t tile_begin,
                            uint32_t tile_count) {
    piece_walk pieces = walk_pieces(walk->forward, operand, tile_begin, tile_count);
    pi2_piece_ref ref;
    tile_range range;
    while (next_piece(walk->forward, &pieces, &ref, &range)) {
        pi2_weight_store_used(walk->forward->options.weights, ref.extent, range.to - range.from);
    }
}

void pi2_forward_source_columns(const pi2_forward_walk *walk, const pi2_extent_source *source,
                                const pi2_operand *operand, uint32_t tile_begin, uint32_t tile_count,
                                uint32_t column_begin, uint32_t column_end, const pi2_activation_set *set,
                                uint32_t token_begin, uint32_t token_count, float *out, size_t out_stride) {
    const pi2_model *model = walk->forward->model;
    const pi2_piece_ref *refs = model->refs + operand->first_ref;
    for (uint32_t i = find_piece(model, operand, column_begin, 0);
         i < operand->ref_count && !pi2_forward_failed(walk->forward); i++) {
        const pi2_piece *piece = &model->layout->pieces[refs[i].piece];
        tile_range range;
        if (piece->column_begin < column_begin) continue;
        if (piece->column_begin >= column_end) break;
        if (!cut_tiles(operand, piece, tile_begin, tile_begin + tile_count, &range)) continue;
        if (!multiply(walk, source, operand, refs[i], &range, set, token_begin, token_count,
                      out + (size_t)(range.from - tile_begin) * PI2_TILE_ROWS, out_stride, true)) return;
    }
}

void pi2_forward_rows(const pi2_forward_walk *walk, const pi2_operand *operand, uint32_t tile_begin,
                      uint32_t tile_count, const pi2_activation_set *set, uint32_t token_begin, uint32_t token_count,
                      float *out, size_t out_stride, bool last) {
    static const pi2_extent_source store = { .experts = NULL };
    pi2_forward_source_rows(walk, &store, operand, tile_begin, tile_count, set, token_begin, token_count, out,
                            out_stride, last);
}

void pi2_activation_set_fill(pi2_activation_set *set, uint32_t token, uint32_t column_begin,
                             uint32_t column_count, const float *floats) {
    for (int kind = 0; kind < PI2_ACTIVATION_KINDS; kind++) {
        if (kind == PI2_ACTIVATION_F32 || !(set->kinds & (1u << kind))) continue;
        pi2_activations_quantize(&set->of[kind], token, column_begin, column_count, floats);
    }
}
