/*
 * neuron_tally.h: counts what the neurons give while a chunk of a text runs, beside the statistics that the counts go
 * into once the chunk is whole: a chunk that was interrupted leaves nothing.
 */
#ifndef PI2_ENGINE_NEURON_TALLY_H
#define PI2_ENGINE_NEURON_TALLY_H

#include "architectures/model.h"
#include "powerinfer2/session.h"
#include "powerinfer2/sparsity.h"
#include "statistics/neuron_statistics.h"

typedef struct pi2_neuron_tally pi2_neuron_tally;

/** Memory of a tally, of the statistics that it adds to, and of what is told of them. */
uint64_t pi2_neuron_tally_bytes(const pi2_model_shape *shape);

/** Statistics of the model without counts: its identity, activation, entries, and the columns that a tally counts.
 *  chunk_tokens: of the chunks that will be added. Errors  MEMORY */
pi2_status pi2_neuron_tally_statistics(const pi2_engine *engine, uint32_t chunk_tokens,
                                       pi2_neuron_statistics *statistics_out);

/** engine: opened with counts_neurons, so that the memory is planned; outlives the tally. Errors  MEMORY */
pi2_status pi2_neuron_tally_create(pi2_engine *engine, pi2_neuron_tally **tally_out);
/** Ends counting, too. NULL is fine. */
void pi2_neuron_tally_free(pi2_neuron_tally *tally);

/** Counts what the passes from now on compute, as one chunk of so many tokens from position 0. What was counted and not
 *  added is forgotten. begin: tokens of the text before the chunk. Between passes. */
void pi2_neuron_tally_begin(pi2_neuron_tally *tally, const pi2_statistics_text *text, uint64_t begin,
                            size_t token_count);
/** Ends counting and adds the chunk, if any of it was computed, as tokens of `text`. Between passes. */
void pi2_neuron_tally_add(pi2_neuron_tally *tally, pi2_neuron_statistics *statistics, pi2_statistics_text *text);

/**
 * Runs tokens[count] from an empty timeline and counts; adds to the statistics when all went well.
 * text   in  the one of `statistics` that the tokens are of
 * begin  in  tokens of the text before them
 * Errors  as pi2_session_append(); UNSUPPORTED (too many tokens): the statistics are as before
 */
pi2_status pi2_neuron_tally_chunk(pi2_neuron_tally *tally, pi2_session *session, const int32_t *tokens, size_t count,
                                  pi2_neuron_statistics *statistics, pi2_statistics_text *text, uint64_t begin);

/** What statistics say of each layer. Errors  MEMORY */
pi2_status pi2_sparsity_of(const pi2_neuron_statistics *statistics, pi2_sparsity **sparsity_out);

#endif
