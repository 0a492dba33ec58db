/* sparsity.h: how many of a model's neurons give nothing, counted over a text. */
#ifndef POWERINFER2_SPARSITY_H
#define POWERINFER2_SPARSITY_H

#include "powerinfer2/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Shares of activations by rank are told for these shares of the neurons, those that fire most first. */
enum { PI2_SPARSITY_RANKS = 10 };
#define PI2_SPARSITY_RANK_SHARES { 0.01, 0.02, 0.05, 0.10, 0.20, 0.30, 0.40, 0.50, 0.65, 0.80 }

/** What tokens have active together is told for so many tokens that follow each other. */
enum { PI2_SPARSITY_BATCHES = 5 };
#define PI2_SPARSITY_BATCH_TOKENS { 1, 2, 4, 8, 32 }

/** One layer's shares, or the mean over layers; of experts, those that were chosen count. */
typedef struct pi2_layer_sparsity {
    double zeros;       /* of activations that are exactly zero */
    double rounded_zeros; /* that are zero once rounded to 8 bits, as Down reads them */
    double zero_tiles;  /* of tiles of 16 neurons, those that are zero wholly once rounded */
    double zero_blocks; /* of blocks of 32 neurons */
    double hot;         /* of the neurons, those that fire most, which give 80 % of all activations */
    double repeat;      /* of a token's active neurons, those that the token before had active too (of experts: those
                           that the token before used too) */
    double in_batch[PI2_SPARSITY_BATCHES]; /* of the neurons (of all experts), those that are active in at least one of
                           so many tokens that follow each other; NaN: no text has so many */
    double by_rank[PI2_SPARSITY_RANKS]; /* of all activations, what the hottest neurons give */
    double magnitude_by_rank[PI2_SPARSITY_RANKS]; /* of the sum of |activation|, what those with most give */
} pi2_layer_sparsity;

typedef struct pi2_sparsity {
    uint32_t layer_count, token_count;
    pi2_layer_sparsity mean;
    pi2_layer_sparsity *layers;  /* shape [layer_count] */
} pi2_sparsity;

/** Counting under way. */
typedef struct pi2_sparsity_counter pi2_sparsity_counter;

/**
 * Counts what every pass of an engine computes from now on; passes take a little longer and compute every neuron.
 * engine       in  opened with counts_neurons, so that the memory is within its budget
 * text_tokens  in  of each text that will be counted
 * Errors  MEMORY.  Threads: between passes; an engine has one counter, a second takes its place
 */
PI2_API pi2_status pi2_sparsity_begin(pi2_engine *engine, size_t text_tokens, pi2_sparsity_counter **counter_out);
/** What follows is another text: its first token repeats nothing. Before the first text it does nothing. Between
 *  passes. */
PI2_API void pi2_sparsity_new_text(pi2_sparsity_counter *counter);
/** Ends counting and frees the counter (NULL is fine). sparsity_out may be NULL. Errors MEMORY. Between passes. */
PI2_API pi2_status pi2_sparsity_end(pi2_sparsity_counter *counter, pi2_sparsity **sparsity_out);

/**
 * Runs tokens[count] as one text and counts.
 * engine        in   opened with counts_neurons, so that the memory is within its budget; without a session; its
 *                    context has room for the tokens
 * sparsity_out  out  pi2_sparsity_free() it; NULL on any error
 * Errors  INVALID (a session is open, a token out of range), CONTEXT, MEMORY, IO, INTERRUPTED
 */
PI2_API pi2_status pi2_sparsity_measure(pi2_engine *engine, const int32_t *tokens, size_t count,
                                        pi2_sparsity **sparsity_out);
/**
 * Plots activation by rank, sparsity and repetition by layer, and what fires in tokens together: NAME.gnuplot has the
 * commands and the data, NAME.svg the picture, where gnuplot is installed (in the PATH), which is run.
 * is_drawn_out  out  whether there is a picture of these numbers
 * Errors  INVALID (what lies there is no such plot), IO (a file that cannot be written, gnuplot that fails): the
 *         commands may be there then
 */
PI2_API pi2_status pi2_sparsity_plot(const pi2_sparsity *sparsity, const char *name, bool *is_drawn_out);
/** Looks whether a plot may be written there, ahead of work that takes long. inputs: files that are read, and others
 *  that will be written, NULL at the end. Errors  INVALID */
PI2_API pi2_status pi2_sparsity_check_plot(const char *name, const char *const *inputs);
PI2_API void pi2_sparsity_free(pi2_sparsity *sparsity); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
