/*
 * scoring.h: what a model says of the tokens of a text, by llama-perplexity's conventions, so that figures compare.
 */
#ifndef POWERINFER2_SCORING_H
#define POWERINFER2_SCORING_H

#include "powerinfer2/session.h"

#ifdef __cplusplus
extern "C" {
#endif

/** -log of the probability that the logits, [count], give to a token; not finite where they are no numbers.
 *  Threads: any. */
PI2_API double pi2_surprise(const float *logits, uint32_t count, int32_t token);

/** The logarithm of each probability, [count]. Threads: any. */
PI2_API void pi2_log_probabilities(const float *logits, uint32_t count, float *log_probabilities_out);

/** What was said of one token. logits: [vocabulary], valid during the call. Any status but PI2_OK ends the work. */
typedef pi2_status pi2_score_taker(void *user, const float *logits, int32_t token, double surprise);

typedef struct pi2_scored_chunk {
    const int32_t *tokens; /* [count], as the model shall see them: BOS in the first place where it has one there */
    uint32_t count;        /* at least 4 */
    uint32_t step;         /* tokens whose logits come with one append, 1 .. the engine's logits_tokens; 1: computed
                              as answers are, one after the other */
    uint64_t first;        /* number of tokens[0] in its text, for error texts */
} pi2_scored_chunk;

/** Tokens of a chunk that are scored: the first half is context, and the last one predicts nothing. */
PI2_API uint32_t pi2_scored_tokens(uint32_t chunk_tokens);

/**
 * Runs a chunk from an empty timeline: tokens 0 .. count / 2 - 1 are context alone, and each of those from there to the
 * last but one predicts the next, which the taker gets with its surprise.
 * Errors  as pi2_session_append(); FORMAT (logits that are no numbers: file and token); what the taker returned
 */
PI2_API pi2_status pi2_score_chunk(const pi2_engine *engine, pi2_session *session, const pi2_scored_chunk *chunk,
                                   pi2_score_taker *taker, void *user);

#ifdef __cplusplus
}
#endif
#endif
