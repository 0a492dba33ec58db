/* extent_layout.c: cuts a model's groups into extents. A pure function of shapes and types. */
#include "clusters/extent_layout.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"

enum {
    CLUSTER_UNIT_NEURONS = 32,
    PIECE_ALIGNMENT = 64,
    MAX_COLUMNS = 1 << 24,
    MAX_MATRICES = 3, /* of one cluster: gate, up, down */
    MAX_TABLE_ROWS = 1 << 28
};

/* ---- growing the tables ----------------------------------------------------------------- */

typedef struct layout_maker {
    pi2_extent_layout *layout;
    pi2_layout_kind kind;
    const pi2_gguf_tensor **sources;     /* of each layout tensor */
    uint32_t tensor_capacity, piece_capacity, extent_capacity;
    size_t name_bytes;
} layout_maker;

static pi2_status make_room(void **array, size_t element_bytes, uint32_t count,
                            uint32_t *capacity) {
    if (count < *capacity) return PI2_OK;
    const uint32_t wanted = *capacity ? *capacity * 2 : 64;
    void *grown = count >= MAX_TABLE_ROWS ? NULL : realloc(*array, (size_t)wanted * element_bytes);
    if (!grown) return pi2_fail(PI2_ERR_MEMORY, "no memory for a table of %" PRIu32 " extents", wanted);
    *array = grown;
    *capacity = wanted;
    return PI2_OK;
}

static pi2_status begin_extent(layout_maker *maker, uint32_t group) {
    pi2_extent_layout *layout = maker->layout;
    PI2_TRY(make_room((void **)&layout->extents, sizeof *layout->extents, layout->extent_count,
                      &maker->extent_capacity));
    layout->extents[layout->extent_count] =
        (pi2_extent){ .first_piece = layout->piece_count, .group = group };
    layout->extent_count++;
    layout->groups[group].extent_count++;
    return PI2_OK;
}

/** Adds a piece behind what the newest extent holds. Its size was checked to fit 32 bits. */
static pi2_status add_piece(layout_maker *maker, pi2_piece piece) {
    pi2_extent_layout *layout = maker->layout;
    pi2_extent *extent = &layout->extents[layout->extent_count - 1];
    PI2_TRY(make_room((void **)&layout->pieces, sizeof *layout->pieces, layout->piece_count,
                      &maker->piece_capacity));
    piece.offset = extent->bytes;
    const size_t bytes = pi2_piece_bytes(layout, &piece);
    if (bytes > INT32_MAX - extent->bytes) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "tensor '%s': its rows are too long to be cut",
                        layout->tensors[piece.tensor].name);
    }
    layout->pieces[layout->piece_count++] = piece;
    extent->piece_count++;
    extent->bytes += (uint32_t)bytes;
    layout->weight_bytes += bytes;
    return PI2_OK;
}

/* ---- tensors ---------------------------------------------------------------------------- */

static pi2_status check_tensor(const pi2_gguf_tensor *tensor, const pi2_group_request *request) {
    if (tensor->dimensions[3] != 1 ||
        (request->kind == PI2_GROUP_EXPERT ? tensor->dimensions[2] != request->expert_count
                                           : request->kind != PI2_GROUP_ATTENTION && request->kind != PI2_GROUP_ROWS &&
                                                 tensor->dimensions[2] != 1)) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "tensor '%s' at byte %" PRIu64 ": its dimensions do not fit its role: convert "
                        "the model again",
                        tensor->name, tensor->file_offset);
    }
    if (!pi2_weight_format_find(tensor->type)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "tensor '%s' at byte %" PRIu64 ": the weight type %s is not supported: get "
                        "the model in another quantisation, such as Q4_0 or Q4_K",
                        tensor->name, tensor->file_offset, pi2_weight_type_name(tensor->type));
    }
    const uint64_t rows = tensor->dimensions[1] * tensor->dimensions[2];
    if (tensor->dimensions[0] > MAX_COLUMNS || rows > INT32_MAX) {
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "tensor '%s' at byte %" PRIu64 ": %" PRIu64 " columns and %" PRIu64
                        " rows are more than this version runs",
                        tensor->name, tensor->file_offset, tensor->dimensions[0], rows);
    }
    return PI2_OK;
}

/** Finds or adds the tensor's line in the layout. Stacked experts come again soon after, so
 *  looking from the end finds them at once. */
static pi2_status tensor_number(layout_maker *maker, const pi2_gguf_tensor *tensor, bool is_raw,
                                uint32_t *number_out) {
    pi2_extent_layout *layout = maker->layout;
    for (uint32_t i = layout->tensor_count; i-- > 0;) {
        if (strcmp(maker->sources[i]->name, tensor->name) == 0) {
            *number_out = i;
            return PI2_OK;
        }
    }
    if (layout->tensor_count == maker->tensor_capacity) {
        uint32_t capacity = maker->tensor_capacity;
        PI2_TRY(make_room((void **)&layout->tensors, sizeof *layout->tensors, layout->tensor_count,
                          &capacity));
        PI2_TRY(make_room((void **)&maker->sources, sizeof *maker->sources, layout->tensor_count,
                          &maker->tensor_capacity));
    }
    maker->sources[layout->tensor_count] = tensor;
    layout->tensors[layout->tensor_count] =
        (pi2_layout_tensor){ .name = tensor->name,
                             .format = pi2_weight_format_find(tensor->type),
                             .rows = tensor->dimensions[1] * tensor->dimensions[2],
                             .matrix_rows = tensor->dimensions[1],
                             .columns = (uint32_t)tensor->dimensions[0],
                             .is_raw = is_raw };
    maker->name_bytes += strlen(tensor->name) + 1;
    *number_out = layout->tensor_count++;
    return PI2_OK;
}

/* ---- tensors cut by rows ---------------------------------------------------------------- */

static size_t tensor_tile_bytes(const pi2_layout_tensor *tensor) {
    return pi2_tile_bytes(tensor->format, tensor->columns);
}

static uint64_t tiles_of_rows(uint64_t rows) { return (rows + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS; }

/** The state of filling extents of about equal size with tiles of several tensors. */
typedef struct even_cut {
    uint64_t total_bytes, extent_total; /* of the group */
    uint64_t extents_begun;
    uint64_t placed_bytes;              /* of the tiles placed so far */
    uint32_t group;
} even_cut;

/** How many of `tiles` tiles the present extent still takes; 0: it is full. The boundary of
 *  extent i lies where i / extent_total of all bytes are placed, rounded to the nearest tile. */
static uint64_t tiles_that_fit(const layout_maker *maker, const even_cut *cut, uint64_t tiles,
                               uint64_t tile_bytes) {
    const pi2_extent_layout *layout = maker->layout;
    const uint32_t used = layout->extents[layout->extent_count - 1].bytes;
    uint64_t fitting = tiles;
    if (cut->extents_begun < cut->extent_total) {
        const uint64_t boundary = cut->total_bytes / cut->extent_total * cut->extents_begun;
        const uint64_t left = boundary > cut->placed_bytes ? boundary - cut->placed_bytes : 0;
        fitting = (left + tile_bytes / 2) / tile_bytes;
    }
    const uint64_t room = used < PI2_EXTENT_MAX_BYTES ? PI2_EXTENT_MAX_BYTES - used : 0;
    if (fitting > room / tile_bytes) fitting = room / tile_bytes;
    if (fitting == 0 && used == 0) fitting = 1; /* a tile larger than an extent should be */
    return fitting < tiles ? fitting : tiles;
}

static pi2_status cut_tensor_evenly(layout_maker *maker, even_cut *cut, uint32_t number) {
    const pi2_layout_tensor *tensor = &maker->layout->tensors[number];
    const uint64_t rows = tensor->rows, tile_bytes = tensor_tile_bytes(tensor);
    const uint32_t columns = tensor->columns;
    for (uint64_t row = 0; row < rows;) {
        uint64_t tiles = 0;
        if (cut->extents_begun > 0) {
            tiles = tiles_that_fit(maker, cut, tiles_of_rows(rows - row), tile_bytes);
        }
        if (tiles == 0) {
            PI2_TRY(begin_extent(maker, cut->group));
            cut->extents_begun++;
            continue;
        }
        uint64_t row_count = tiles * PI2_TILE_ROWS;
        if (row_count > rows - row) row_count = rows - row;
        PI2_TRY(add_piece(maker, (pi2_piece){ .tensor = number,
                                              .column_count = columns,
                                              .row_begin = row,
                                              .row_count = (uint32_t)row_count }));
        cut->placed_bytes += tiles * tile_bytes;
        row += row_count;
    }
    return PI2_OK;
}

static pi2_status lay_out_by_rows(layout_maker *maker, const pi2_group_request *request,
                                  uint32_t group) {
    uint32_t numbers[PI2_GROUP_TENSORS];
    even_cut cut = { .group = group };
    for (uint32_t i = 0; i < request->tensor_count; i++) {
        PI2_TRY(tensor_number(maker, request->tensors[i], false, &numbers[i]));
        pi2_layout_tensor *tensor = &maker->layout->tensors[numbers[i]];
        tensor->matrix_rows = tensor->rows; /* matrices of heads are one: those behind one another are used so */
        cut.total_bytes += tiles_of_rows(tensor->rows) * tensor_tile_bytes(tensor);
    }
    cut.extent_total = (cut.total_bytes + PI2_EXTENT_TARGET_BYTES / 2) / PI2_EXTENT_TARGET_BYTES;
    if (cut.extent_total == 0) cut.extent_total = 1;
    for (uint32_t i = 0; i < request->tensor_count; i++) {
        PI2_TRY(cut_tensor_evenly(maker, &cut, numbers[i]));
    }
    return PI2_OK;
}

static pi2_status lay_out_raw_rows(layout_maker *maker, const pi2_group_request *request,
                                   uint32_t group) {
    for (uint32_t i = 0; i < request->tensor_count; i++) {
        uint32_t number;
        PI2_TRY(tensor_number(maker, request->tensors[i], true, &number));
        const pi2_layout_tensor *tensor = &maker->layout->tensors[number];
        const uint64_t rows = tensor->rows;
        const uint32_t columns = tensor->columns;
        const uint64_t row_bytes = pi2_row_bytes(tensor->format, columns);
        const uint64_t extents =
            (rows * row_bytes + PI2_EXTENT_TARGET_BYTES - 1) / PI2_EXTENT_TARGET_BYTES;
        const uint64_t rows_each = tiles_of_rows((rows + extents - 1) / extents) * PI2_TILE_ROWS;
        for (uint64_t row = 0; row < rows; row += rows_each) {
            const uint64_t count = rows - row < rows_each ? rows - row : rows_each;
            PI2_TRY(begin_extent(maker, group));
            PI2_TRY(add_piece(maker, (pi2_piece){ .tensor = number,
                                                  .column_count = columns,
                                                  .row_begin = row,
                                                  .row_count = (uint32_t)count }));
        }
    }
    return PI2_OK;
}

/* ---- neuron clusters -------------------------------------------------------------------- */

/** The matrices of one FFN or expert. */
typedef struct ffn_matrices {
    uint32_t numbers[MAX_MATRICES]; /* gate, up (if there is a gate beside it), down */
    uint32_t count;
    uint64_t first_row[MAX_MATRICES]; /* of this expert */
    uint64_t neurons, output_rows;
    bool gate_is_apart;               /* the first matrix lies in extents of its own */
} ffn_matrices;

static pi2_status read_ffn(layout_maker *maker, const pi2_group_request *request,
                           ffn_matrices *ffn) {
    ffn->count = request->tensor_count;
    if (ffn->count < 2 || ffn->count > MAX_MATRICES) {
        return pi2_fail(PI2_ERR_INVALID, "an FFN has 2 or 3 matrices, not %" PRIu32, ffn->count);
    }
    const uint64_t expert = request->kind == PI2_GROUP_EXPERT ? request->expert : 0;
    if (request->kind == PI2_GROUP_EXPERT && request->expert >= request->expert_count) {
        return pi2_fail(PI2_ERR_INVALID, "expert %" PRIu32 " of %" PRIu32, request->expert,
                        request->expert_count);
    }
    for (uint32_t i = 0; i < ffn->count; i++) {
        PI2_TRY(tensor_number(maker, request->tensors[i], false, &ffn->numbers[i]));
        ffn->first_row[i] = expert * request->tensors[i]->dimensions[1];
    }
    const pi2_gguf_tensor *first = request->tensors[0];
    const pi2_gguf_tensor *down = request->tensors[ffn->count - 1];
    ffn->gate_is_apart = maker->kind != PI2_LAYOUT_DENSE;
    ffn->neurons = down->dimensions[0];
    ffn->output_rows = down->dimensions[1];
    for (uint32_t i = 0; i + 1 < ffn->count; i++) {
        const pi2_gguf_tensor *tensor = request->tensors[i];
        if (tensor->dimensions[1] != ffn->neurons || tensor->dimensions[0] != first->dimensions[0]) {
            return pi2_fail(PI2_ERR_FORMAT,
                            "tensor '%s' at byte %" PRIu64 " and '%s' do not have the same number of "
                            "neurons: convert the model again",
                            tensor->name, tensor->file_offset, down->name);
        }
    }
    return PI2_OK;
}

/** Piece i (gate, up or down) of the cluster that begins at a neuron. */
static pi2_piece cluster_piece(const ffn_matrices *ffn, uint32_t i, const pi2_extent_layout *layout,
                               uint64_t neuron, uint64_t count) {
    pi2_piece piece = { .tensor = ffn->numbers[i], .row_begin = ffn->first_row[i] };
    if (i + 1 == ffn->count) {
        piece.column_begin = (uint32_t)neuron;
        piece.column_count = (uint32_t)count;
        piece.row_count = (uint32_t)ffn->output_rows;
    } else {
        piece.column_count = layout->tensors[piece.tensor].columns;
        piece.row_begin += neuron;
        piece.row_count = (uint32_t)count;
    }
    return piece;
}

/** Bytes of what lies together in a cluster of so many neurons. */
static uint64_t cluster_bytes(const ffn_matrices *ffn, const pi2_extent_layout *layout,
                              uint64_t neurons) {
    uint64_t bytes = 0;
    for (uint32_t i = ffn->gate_is_apart ? 1 : 0; i < ffn->count; i++) {
        const pi2_piece piece = cluster_piece(ffn, i, layout, 0, neurons);
        bytes += pi2_piece_bytes(layout, &piece);
    }
    return bytes;
}

static uint64_t choose_cluster_neurons(const ffn_matrices *ffn, const pi2_extent_layout *layout) {
    const uint32_t block = layout->tensors[ffn->numbers[ffn->count - 1]].format->block_columns;
    const uint64_t unit = block > CLUSTER_UNIT_NEURONS ? block : CLUSTER_UNIT_NEURONS;
    uint64_t neurons = unit;
    while (neurons < ffn->neurons &&
           cluster_bytes(ffn, layout, neurons) < PI2_EXTENT_TARGET_BYTES) {
        neurons += unit;
    }
    return neurons < ffn->neurons ? neurons : ffn->neurons;
}

/** Puts a piece into extents of its own, cut between tiles into parts of about equal size. */
static pi2_status add_large_piece(layout_maker *maker, uint32_t group, pi2_piece piece) {
    const pi2_layout_tensor *tensor = &maker->layout->tensors[piece.tensor];
    const uint64_t tile_bytes = pi2_tile_bytes(tensor->format, piece.column_count);
    const uint64_t tiles = pi2_piece_tiles(&piece), row_end = piece.row_begin + piece.row_count;
    uint64_t fitting = PI2_EXTENT_MAX_BYTES / tile_bytes;
    if (fitting == 0) fitting = 1;
    const uint64_t parts = (tiles + fitting - 1) / fitting;
    const uint64_t tiles_each = (tiles + parts - 1) / parts;
    for (uint64_t row = piece.row_begin; row < row_end; row += tiles_each * PI2_TILE_ROWS) {
        const uint64_t left = row_end - row;
        piece.row_begin = row;
        piece.row_count =
            (uint32_t)(left < tiles_each * PI2_TILE_ROWS ? left : tiles_each * PI2_TILE_ROWS);
        PI2_TRY(begin_extent(maker, group));
        PI2_TRY(add_piece(maker, piece));
    }
    return PI2_OK;
}

/** Pieces first .. end - 1 (of gate, up, down) of a cluster. */
static pi2_status add_cluster(layout_maker *maker, uint32_t group, const ffn_matrices *ffn,
                              uint64_t neuron, uint64_t count, uint32_t first, uint32_t end) {
    const pi2_extent_layout *layout = maker->layout;
    bool is_open = false;
    for (uint32_t i = first; i < end; i++) {
        const pi2_piece piece = cluster_piece(ffn, i, layout, neuron, count);
        const size_t bytes = pi2_piece_bytes(layout, &piece);
        if (bytes > PI2_EXTENT_MAX_BYTES) {
            PI2_TRY(add_large_piece(maker, group, piece));
            is_open = false;
            continue;
        }
        if (!is_open ||
            layout->extents[layout->extent_count - 1].bytes + bytes > PI2_EXTENT_MAX_BYTES) {
            PI2_TRY(begin_extent(maker, group));
            is_open = true;
        }
        PI2_TRY(add_piece(maker, piece));
        if (i == 0 && ffn->gate_is_apart) is_open = false;
    }
    return PI2_OK;
}

static pi2_status lay_out_clusters(layout_maker *maker, const pi2_group_request *request,
                                   uint32_t group) {
    ffn_matrices ffn = { 0 };
    PI2_TRY(read_ffn(maker, request, &ffn));
    const uint64_t step = choose_cluster_neurons(&ffn, maker->layout);
    maker->layout->groups[group].cluster_neurons = (uint32_t)step;
    const uint32_t apart = ffn.gate_is_apart && request->kind == PI2_GROUP_EXPERT ? 1 : 0;
    for (uint64_t neuron = 0; apart && neuron < ffn.neurons; neuron += step) {
        const uint64_t left = ffn.neurons - neuron;
        PI2_TRY(add_cluster(maker, group, &ffn, neuron, left < step ? left : step, 0, apart));
    }
    for (uint64_t neuron = 0; neuron < ffn.neurons; neuron += step) {
        const uint64_t left = ffn.neurons - neuron;
        PI2_TRY(add_cluster(maker, group, &ffn, neuron, left < step ? left : step, apart, ffn.count));
    }
    return PI2_OK;
}

static uint32_t runs_of(const pi2_extent_layout *layout, const pi2_group *group) {
    const pi2_extent *extent = &layout->extents[group->first_extent];
    return (uint32_t)tiles_of_rows(layout->tensors[layout->pieces[extent->first_piece].tensor].rows);
}

/** Leading extents of an expert that hold rows of one tensor alone, all that the expert has of it. */
static uint32_t count_gate_extents(const pi2_extent_layout *layout, const pi2_group *group) {
    const uint32_t gate = layout->pieces[layout->extents[group->first_extent].first_piece].tensor;
    uint64_t rows = 0;
    for (uint32_t e = 0; e < group->extent_count; e++) {
        const pi2_extent *extent = &layout->extents[group->first_extent + e];
        for (uint32_t p = 0; p < extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[extent->first_piece + p];
            if (piece->tensor != gate || piece->column_count != layout->tensors[gate].columns) return 0;
            rows += piece->row_count;
        }
        if (rows == layout->tensors[gate].matrix_rows) return e + 1;
    }
    return 0;
}

void pi2_extent_layout_note(pi2_extent_layout *layout) {
    const pi2_group *lookup = pi2_extent_layout_lookup(layout);
    uint32_t runs = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        pi2_group *group = &layout->groups[g];
        if (group->kind == PI2_GROUP_EXPERT) group->gate_extents = count_gate_extents(layout, group);
        group->first_run = PI2_NO_RUN;
        if (group != lookup && group->kind != PI2_GROUP_TABLE) continue;
        group->first_run = runs;
        runs += runs_of(layout, group);
    }
}

/* ---- the whole layout ------------------------------------------------------------------- */

static pi2_status lay_out_group(layout_maker *maker, const pi2_group_request *request) {
    pi2_extent_layout *layout = maker->layout;
    const uint32_t group = layout->group_count++;
    layout->groups[group] = (pi2_group){ .kind = request->kind,
                                         .layer = request->layer,
                                         .expert = request->expert,
                                         .first_extent = layout->extent_count };
    if (request->tensor_count < 1 || request->tensor_count > PI2_GROUP_TENSORS) {
        return pi2_fail(PI2_ERR_INVALID, "a group of %" PRIu32 " tensors", request->tensor_count);
    }
    for (uint32_t i = 0; i < request->tensor_count; i++) {
        PI2_TRY(check_tensor(request->tensors[i], request));
    }
    switch (request->kind) {
    case PI2_GROUP_ATTENTION:
    case PI2_GROUP_ROWS:
    case PI2_GROUP_HEAD: return lay_out_by_rows(maker, request, group);
    case PI2_GROUP_EMBEDDING:
    case PI2_GROUP_TABLE: return lay_out_raw_rows(maker, request, group);
    case PI2_GROUP_FFN:
    case PI2_GROUP_EXPERT: return lay_out_clusters(maker, request, group);
    case PI2_GROUP_KINDS: break;
    }
    return pi2_fail(PI2_ERR_INVALID, "unknown kind of group %d", (int)request->kind);
}

/** Gives back what doubling took too much, and copies the names: the source may be closed. */
static pi2_status settle(layout_maker *maker) {
    pi2_extent_layout *layout = maker->layout;
    void *extents = realloc(layout->extents, (layout->extent_count + 1) * sizeof *layout->extents);
    if (extents) layout->extents = extents;
    void *pieces = realloc(layout->pieces, (layout->piece_count + 1) * sizeof *layout->pieces);
    if (pieces) layout->pieces = pieces;
    layout->names = malloc(maker->name_bytes + 1);
    if (!layout->names) return pi2_fail(PI2_ERR_MEMORY, "no memory for the names of tensors");
    char *at = layout->names;
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const size_t bytes = strlen(layout->tensors[i].name) + 1;
        memcpy(at, layout->tensors[i].name, bytes);
        layout->tensors[i].name = at;
        at += bytes;
    }
    return PI2_OK;
}

pi2_status pi2_extent_layout_build(const pi2_group_request *requests, size_t request_count,
                                   pi2_layout_kind kind, pi2_extent_layout **layout_out) {
    *layout_out = NULL;
    layout_maker maker = { .layout = calloc(1, sizeof *maker.layout), .kind = kind };
    if (!maker.layout || request_count > MAX_TABLE_ROWS) {
        free(maker.layout);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the layout of %zu groups", request_count);
    }
    pi2_status status = PI2_OK;
    maker.layout->groups = calloc(request_count + 1, sizeof *maker.layout->groups);
    if (!maker.layout->groups) status = pi2_fail(PI2_ERR_MEMORY, "no memory for groups");
    for (size_t i = 0; i < request_count && status == PI2_OK; i++) {
        status = lay_out_group(&maker, &requests[i]);
    }
    if (status == PI2_OK) status = settle(&maker);
    if (status == PI2_OK) pi2_extent_layout_note(maker.layout);
    free(maker.sources);
    if (status != PI2_OK) {
        pi2_extent_layout_free(maker.layout);
        return status;
    }
    *layout_out = maker.layout;
    return PI2_OK;
}

void pi2_extent_layout_free(pi2_extent_layout *layout) {
    if (!layout) return;
    free(layout->tensors);
    free(layout->pieces);
    free(layout->extents);
    free(layout->groups);
    free(layout->names);
    free(layout->lookup_checksums);
    free(layout);
}

/* ---- sizes ------------------------------------------------------------------------------ */

uint32_t pi2_extent_read_bytes(const pi2_extent *extent) {
    const uint32_t blocks = (extent->bytes + (PI2_EXTENT_ALIGNMENT - 1)) / PI2_EXTENT_ALIGNMENT;
    return blocks * PI2_EXTENT_ALIGNMENT;
}

uint32_t pi2_piece_tiles(const pi2_piece *piece) {
    return (uint32_t)tiles_of_rows(piece->row_count);
}

size_t pi2_piece_bytes(const pi2_extent_layout *layout, const pi2_piece *piece) {
    const pi2_layout_tensor *tensor = &layout->tensors[piece->tensor];
    if (!tensor->is_raw) {
        return pi2_tile_bytes(tensor->format, piece->column_count) * pi2_piece_tiles(piece);
    }
    const size_t bytes = pi2_row_bytes(tensor->format, piece->column_count) * piece->row_count;
    return (bytes + PIECE_ALIGNMENT - 1) / PIECE_ALIGNMENT * PIECE_ALIGNMENT;
}

uint32_t pi2_extent_layout_largest(const pi2_extent_layout *layout) {
    uint32_t largest = 0;
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        const uint32_t bytes = pi2_extent_read_bytes(&layout->extents[i]);
        if (bytes > largest) largest = bytes;
    }
    return largest;
}

/* ---- looking rows up ---- */

const pi2_group *pi2_extent_layout_lookup(const pi2_extent_layout *layout) {
    const pi2_group *found = NULL;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        const pi2_group *group = &layout->groups[g];
        if (group->kind == PI2_GROUP_EMBEDDING) return group;
        if (group->kind == PI2_GROUP_HEAD) found = group;
    }
    return found;
}

uint32_t pi2_extent_layout_lookup_runs(const pi2_extent_layout *layout) {
    const pi2_group *lookup = pi2_extent_layout_lookup(layout);
    uint32_t runs = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        const pi2_group *group = &layout->groups[g];
        if (group == lookup || group->kind == PI2_GROUP_TABLE) runs += runs_of(layout, group);
    }
    return runs;
}

uint32_t pi2_piece_run(const pi2_extent_layout *layout, const pi2_piece *piece, uint32_t row, uint32_t *bytes_out) {
    const pi2_layout_tensor *tensor = &layout->tensors[piece->tensor];
    if (!tensor->is_raw) {
        const size_t tile = pi2_tile_bytes(tensor->format, piece->column_count);
        *bytes_out = (uint32_t)tile;
        return piece->offset + (uint32_t)(row / PI2_TILE_ROWS * tile);
    }
    const size_t row_bytes = pi2_row_bytes(tensor->format, piece->column_count);
    const uint32_t left = piece->row_count - row;
    *bytes_out = (uint32_t)(row_bytes * (left < PI2_TILE_ROWS ? left : PI2_TILE_ROWS));
    return piece->offset + (uint32_t)(row * row_bytes);
}
