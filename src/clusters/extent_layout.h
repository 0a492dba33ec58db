/*
 * extent_layout.h: how a model's weights are cut into extents.
 *
 *   tensor   a matrix of the model, seen as two-dimensional: rows x columns. Experts stacked
 *            in a third dimension follow one another as rows.
 *   piece    rows x columns of one tensor, as tiles (weight_format.h): what a kernel is given.
 *            Of a raw tensor (PI2_GROUP_EMBEDDING, PI2_GROUP_TABLE): whole rows as GGUF has them, one after the
 *            other, so that looking one up reads 16 rows, not an extent.
 *   extent   one or more pieces that lie together: the unit of reading, of residency and of
 *            checksums. 256 KB to 1 MB where the model allows, starts at a multiple of
 *            PI2_EXTENT_ALIGNMENT in the cluster file.
 *   group    extents that the model uses at one moment: a layer's attention, a layer's FFN
 *            clusters, one expert, the head.
 *   cluster  a run of neurons: its Gate rows, Up rows and Down columns are the pieces of one
 *            extent, or of consecutive extents where a cluster is larger than that. In the neuron
 *            layout Gate's piece lies in extents of its own, so that it can be resident alone; those of an
 *            expert lie before all its others, so that they can be read alone. An FFN without Gate has one
 *            matrix before Down, which is Gate to all of this: there is no Up.
 *
 * Small tensors (norms, biases, router, rope factors, learned positions: what a group names no piece
 * of) are "tables": always resident, stored as ordinary tensors.
 */
#ifndef PI2_CLUSTERS_EXTENT_LAYOUT_H
#define PI2_CLUSTERS_EXTENT_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "file_formats/gguf.h"
#include "powerinfer2/layout.h"
#include "weight_formats/weight_format.h"

enum { PI2_EXTENT_ALIGNMENT = 4096, PI2_EXTENT_TARGET_BYTES = 512 * 1024, PI2_EXTENT_MAX_BYTES = 1024 * 1024 };

typedef enum pi2_group_kind {
    PI2_GROUP_ATTENTION,  /* tensors cut by rows: of attention q, k, v (or all three in one), output; of a block in
                             its place what that has */
    PI2_GROUP_FFN,        /* neuron clusters of gate, up, down */
    PI2_GROUP_EXPERT,     /* the same of one expert */
    PI2_GROUP_HEAD,       /* output matrix (or the tied embedding), cut by rows */
    PI2_GROUP_EMBEDDING,  /* token embedding when it is not the head: looked up by row, and
                             therefore stored as GGUF rows, not as tiles */
    PI2_GROUP_ROWS,       /* tensors cut by rows, of another block; a layer may have several */
    PI2_GROUP_TABLE,      /* another table of which a token needs one row: stored as the embedding is */
    PI2_GROUP_KINDS
} pi2_group_kind;

/** Whether its tensors are stored as GGUF rows, of which a token needs one. */
static inline bool pi2_group_kind_is_raw(pi2_group_kind kind) {
    return kind == PI2_GROUP_EMBEDDING || kind == PI2_GROUP_TABLE;
}

typedef struct pi2_layout_tensor {
    const char *name;
    const pi2_weight_format *format;
    uint64_t rows;
    uint64_t matrix_rows;  /* rows of one expert's matrix; equal to rows where none are stacked */
    uint32_t columns;
    bool is_raw;           /* stored as GGUF rows, not as tiles: an embedding that is not the head */
} pi2_layout_tensor;

typedef struct pi2_piece {
    uint32_t tensor;
    uint32_t column_begin, column_count;
    uint32_t offset;       /* of the first tile in its extent; a multiple of 64 */
    uint64_t row_begin;    /* a multiple of PI2_TILE_ROWS within its expert */
    uint32_t row_count;    /* rows of the tensor; tiles = (row_count + 15) / 16 */
} pi2_piece;

typedef struct pi2_extent {
    uint64_t file_offset;  /* in the cluster file, a multiple of PI2_EXTENT_ALIGNMENT; 0: no file */
    uint64_t checksum;     /* XXH3 64 of its `bytes` bytes; 0 while unknown (no file) */
    uint32_t bytes;        /* of the pieces; a multiple of 64. Reads round up to the alignment.
                              Above PI2_EXTENT_MAX_BYTES only where a single tile is larger */
    uint32_t first_piece, piece_count;
    uint32_t group;
} pi2_extent;

#define PI2_NO_RUN UINT32_MAX
typedef struct pi2_group {
    pi2_group_kind kind;
    uint32_t layer;            /* or UINT32_MAX */
    uint32_t expert;           /* or UINT32_MAX */
    uint32_t first_extent, extent_count;
    uint32_t cluster_neurons;  /* FFN, EXPERT: neurons in a cluster (the last may be smaller) */
    uint32_t first_run;        /* of a tensor that is looked up by row: the number of its first run of rows among all
                                  (pi2_extent_layout_lookup_runs()); PI2_NO_RUN: no rows are looked up */
    uint32_t gate_extents;     /* EXPERT: so many, its first, hold its whole Gate and nothing else; 0: none do */
} pi2_group;

/** Immutable once built. Owned by whoever built it; free with pi2_extent_layout_free(). */
typedef struct pi2_extent_layout {
    pi2_layout_tensor *tensors; uint32_t tensor_count;
    pi2_piece *pieces;          uint32_t piece_count;
    pi2_extent *extents;        uint32_t extent_count;
    pi2_group *groups;          uint32_t group_count;  /* in the order in which a token uses them */
    uint64_t weight_bytes;      /* sum of extents' bytes */
    char *names;                /* storage of the tensors' names */
    uint64_t *lookup_checksums; /* [pi2_extent_layout_lookup_runs()]; NULL: no file */
} pi2_extent_layout;

enum { PI2_GROUP_TENSORS = 8 }; /* of one group at most */

/** What an architecture says about one group: which tensors, in which roles. */
typedef struct pi2_group_request {
    pi2_group_kind kind;
    uint32_t layer, expert;     /* UINT32_MAX where it has none */
    uint32_t expert_count;      /* EXPERT: how many are stacked; 1 otherwise */
    uint32_t tensor_count;      /* ATTENTION: what a block reads its input with, and writes its result with;
                                   FFN/EXPERT: gate, up, down (gate first); of an ungated FFN 2: the one that tells
                                   who fires, down */
    const pi2_gguf_tensor *tensors[PI2_GROUP_TENSORS];
    uint8_t roles[PI2_GROUP_TENSORS]; /* what each is to the requester */
} pi2_group_request;

/**
 * Cuts the requested groups, in order, into extents.
 * A cluster is the smallest multiple of 32 neurons, of PI2_TILE_ROWS and of Down's block that
 * makes its extent reach PI2_EXTENT_TARGET_BYTES where the FFN is large enough; one that would
 * pass PI2_EXTENT_MAX_BYTES is spread over consecutive extents (cut between its pieces, then
 * between tiles of a piece). In the neuron layout Gate is not counted: Up and Down reach the target
 * together, and Gate's piece, before them (of an expert: before all clusters' Up and Down), shares no
 * extent with them. Tensors cut by rows are cut between tiles into extents of about equal size, near the
 * target. The same input gives the same layout on every machine.
 * A tensor may be in several requests (stacked experts), but each row of it in one only.
 * Errors  UNSUPPORTED (weight type, by tensor name), FORMAT (shapes that do not fit), MEMORY
 */
pi2_status pi2_extent_layout_build(const pi2_group_request *requests, size_t request_count,
                                   pi2_layout_kind kind, pi2_extent_layout **layout_out);
void pi2_extent_layout_free(pi2_extent_layout *layout);

/** Fills in the groups' gate_extents and first_run from their pieces. */
void pi2_extent_layout_note(pi2_extent_layout *layout);

/** Bytes that a read of this extent moves: bytes rounded up to PI2_EXTENT_ALIGNMENT. */
uint32_t pi2_extent_read_bytes(const pi2_extent *extent);

/** Tiles of a piece, and its bytes: padded to 64. */
uint32_t pi2_piece_tiles(const pi2_piece *piece);
size_t pi2_piece_bytes(const pi2_extent_layout *layout, const pi2_piece *piece);

/**
 * The group whose rows are looked up one by one: the embedding, or the head that it is tied to; NULL where there is
 * neither. A lookup reads a run of 16 rows, a tile or 16 rows of a raw tensor, and each run has its checksum.
 */
const pi2_group *pi2_extent_layout_lookup(const pi2_extent_layout *layout);
/** Runs of all tensors that are looked up: of that group's, and of tables. A tensor's run number r begins with row
 *  16 r. */
uint32_t pi2_extent_layout_lookup_runs(const pi2_extent_layout *layout);
/** Offset in its extent, and bytes, of the run that begins at `row` of a piece, a multiple of 16. */
uint32_t pi2_piece_run(const pi2_extent_layout *layout, const pi2_piece *piece, uint32_t row, uint32_t *bytes_out);

/** The largest extent's pi2_extent_read_bytes(): what a slot of a cache must hold. */
uint32_t pi2_extent_layout_largest(const pi2_extent_layout *layout);

/**
 * Checks a layout that came from a file: indices in range, pieces inside their extent in ascending
 * order without overlap, every element of every tensor in exactly one piece, tiles on their
 * boundaries. `name` begins the error texts (the file's path).
 * Errors  FORMAT (which tensor or extent), MEMORY
 */
pi2_status pi2_extent_layout_check(const pi2_extent_layout *layout, const char *name);

#endif
