/*
 * block.h: what a layer is made of. A layer is a list of blocks, which run in order (pi2_layer_shape); a kind of block
 * says here which tensors it binds, what it keeps of a sequence, what it needs of a pass, and how it runs.
 *
 * Most kinds read the residual stream through a norm and add to it; others only prepare something for a later block of
 * the same layer (a router), or begin what a later one ends (a shared expert).
 */
#ifndef PI2_ARCHITECTURES_BLOCK_H
#define PI2_ARCHITECTURES_BLOCK_H

#include "architectures/architecture.h"

struct pi2_forward_shape;
struct pi2_forward_walk;

/** A part of a sequence's state. */
typedef struct pi2_state_area {
    size_t bytes;
    size_t tile_bytes; /* that each 16 positions begin to use; 0: all of it from the first position on */
} pi2_state_area;

/** What a block of one layer needs. Counts are of floats where nothing else is said. */
typedef struct pi2_block_needs {
    pi2_state_area areas[2]; /* the state: these areas one after the other, `repeats` times */
    uint32_t repeats;
    uint32_t window;         /* positions that a token sees of what fills by tiles, its own included; 0: all */
    uint32_t tiles;          /* of each sequence's ring, behind which positions begin anew; 0: all are kept, in pages */
    uint32_t saved_tiles;    /* of a ring: that a window touches at a position and at any of a few before
                                (PI2_TAKEN_BACK), for which there is a second place; else 0 */
    bool is_recurrent;       /* as its kind */
    uint32_t result;         /* of a token: what its last matrix reads */
    uint32_t scratch;        /* of a token: for it alone while it runs */
    uint32_t stages;         /* of a pass of one token: each is a meeting of all threads */
    uint32_t batch_stages;   /* that passes of more tokens have beside */
    uint32_t neuron_stages;  /* in place of `stages` where single neurons are computed; 0: they never are */
    uint32_t query, key_value; /* of a token: what attention compares with every position, and keeps of it */
} pi2_block_needs;

typedef struct pi2_block_kind {
    const char *name;
    /** What it reads the residual stream through, and what norms its result before that is added, where the model has
     *  such a norm. PI2_TABLE_ROLES: it does not add to the residual stream itself. */
    pi2_table_role norm, post_norm;
    bool attends;            /* to keys and values of the layer's key-value heads */
    bool is_recurrent;       /* its state is that after the last token alone: going back needs one that was saved */
    /** Names its tensors in the order of use. Errors  FORMAT, UNSUPPORTED */
    pi2_status (*list)(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests);
    /** shape: of the pass. needs_out is zeros. */
    void (*needs)(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out);
    /** Every thread calls it. */
    void (*run)(struct pi2_forward_walk *walk);
} pi2_block_kind;

/** Kind number PI2_BLOCK_attention ...: pure, never NULL below PI2_BLOCKS. */
const pi2_block_kind *pi2_block_kind_of(uint8_t block);

/** Whether the layer attends, and whether a layer is recurrent. */
bool pi2_layer_attends(const pi2_layer_shape *layer);
bool pi2_model_is_recurrent(const pi2_model_shape *shape);

/** What block number `block` of a layer needs. */
pi2_block_needs pi2_block_needs_of(const pi2_model_shape *model, uint32_t layer, uint32_t block,
                                   const struct pi2_forward_shape *shape);
/** Bytes of its state: a multiple of 64. */
size_t pi2_block_state_bytes(const pi2_block_needs *needs);
/** Bytes of a second place for what of it cannot be taken back: a multiple of 64; 0: all can. */
size_t pi2_block_saved_bytes(const pi2_block_needs *needs);

/** A layer's block that reads through a norm, from its `block`-th on; block_count: there is none. */
uint32_t pi2_layer_next_norm(const pi2_layer_shape *layer, uint32_t block);

#endif
