/*
 * ffn_unit.h: the arithmetic of one feed-forward network, a layer's or one expert's (docs/arithmetic.md, Sums of
 * parts). What is computed is told here; which neurons are computed when, and where their weights come from, is the
 * schedules' business: runs of clusters in order (forward_ffn.c), whatever has arrived (forward_experts.c), neurons
 * that fire (forward_neurons.c). All of them give the same bits.
 *
 * A row is one vector that the FFN reads: a token's, or a token's visit to an expert.
 */
#ifndef PI2_PIPELINE_FFN_UNIT_H
#define PI2_PIPELINE_FFN_UNIT_H

#include "pipeline/forward_internal.h"

/** Rows that are computed in one call: so many results fit a thread's buffers. */
enum { PI2_FFN_ROWS = 64 };

/**
 * A hidden value that is nearer to zero could leave a chain at -0, which a zero that is left out would have turned to
 * +0: in its row nothing is left out (docs/arithmetic.md, Neurons that do not fire).
 */
#define PI2_LEAST_HIDDEN 0x1p-53f

typedef struct pi2_ffn_unit {
    pi2_extent_source source;          /* of the three matrices */
    const pi2_operand *gate, *up, *down; /* up NULL: an ungated FFN, `gate` is its one matrix before Down */
    const float *gate_bias, *up_bias;  /* NULL: there is none */
    uint32_t expert;                   /* UINT32_MAX: a layer's own */
    const pi2_activation_set *input;   /* row r is its number r - input_shift */
    uint32_t input_shift;
    pi2_activation_set *hidden_set;    /* what Down reads, by row */
    float *hidden;                     /* the same as floats, [rows][hidden_stride]; NULL: Down reads none */
    size_t hidden_stride;
    float *gates;                      /* Gate of the whole layer, cut: [rows][gates_stride]; NULL: it has no cutoff */
    size_t gates_stride;
    bool tells_gates;                  /* the store of neurons is told Gate's values */
    const uint32_t *row_token;         /* [rows]: whose token a row is, for the counter; NULL: row r is token r */
} pi2_ffn_unit;

/** The layer's own FFN, whose rows are the pass's tokens. */
pi2_ffn_unit pi2_ffn_of_layer(const pi2_forward_walk *walk);
/** An expert's, whose rows are those of its job. */
pi2_ffn_unit pi2_ffn_of_expert(const pi2_forward_walk *walk, const pi2_expert_job *job);

/**
 * Gate, Up and activation of neurons [begin, end), at most forward->buffers.neuron_chunk, or more where the rows are
 * fewer (pi2_forward_cut_neurons()), for rows [first_row, + row_count), at most PI2_FFN_ROWS; results go into
 * hidden_set and hidden, and the counter is told.
 * With unit->gates Gate is there, cut.
 * begin: a multiple of 32. last: these neurons are computed for no other rows in this pass.
 */
void pi2_ffn_neurons(const pi2_forward_walk *walk, unsigned member, const pi2_ffn_unit *unit, uint32_t begin,
                     uint32_t end, uint32_t first_row, uint32_t row_count, bool last);

/** These neurons' tiles, of the weight store, were used for the last time, and no call of the above said so. */
void pi2_ffn_leave_neurons(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, uint32_t begin, uint32_t end);

/** Down's tiles [tile_begin, tile_end) over the columns [begin, end) of those rows: goes on with the sums of the
 *  columns before, in out[row - first_row][16 * tile]. */
void pi2_ffn_down(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, uint32_t tile_begin, uint32_t tile_end,
                  uint32_t begin, uint32_t end, uint32_t first_row, uint32_t row_count, float *out);

/**
 * What says who fires: Gate with its bias of neurons [begin, end) for rows [first_row, + row_count), as above; what is
 * not above 0 becomes 0, but of a layer that has a cutoff. Into hidden[row][neuron], of stride hidden_stride.
 */
void pi2_ffn_gate(const pi2_forward_walk *walk, unsigned member, const pi2_ffn_unit *unit, uint32_t begin, uint32_t end,
                  uint32_t first_row, uint32_t row_count, float *hidden, size_t hidden_stride, bool last);

/** Cuts one row of Gate, which is whole, where its layer's cutoff is: what does not fire becomes 0. */
void pi2_ffn_cut(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, float *gate);

/** Single neurons, their Up or Gate rows in neuron form; of Up of an ungated FFN nothing is there but their numbers. */
typedef struct pi2_ffn_single_rows {
    const uint8_t *const *values, *const *scales; /* [count] */
    const uint32_t *neurons;                      /* [count] */
    uint32_t count;                               /* at most PI2_FFN_UP_ROWS */
} pi2_ffn_single_rows;
enum { PI2_FFN_UP_ROWS = 256 };

/**
 * Up and activation of those neurons for one row: their Gate values in hidden[] become hidden values. kernel: NULL in
 * an ungated FFN.
 * True: one of them is not 0 and so small that Down may leave no zero of the row out.
 */
bool pi2_ffn_up(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, const pi2_neuron_kernel *kernel,
                const pi2_ffn_single_rows *rows, uint32_t row, float *hidden);

/** Gate of single neurons for one row, with its bias, into hidden[] by neuron; what is not above 0 becomes 0 where the
 *  activation has exact zeros. */
void pi2_ffn_single_gates(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, const pi2_neuron_kernel *kernel,
                          const pi2_ffn_single_rows *rows, uint32_t row, float *hidden);

#endif
