/* sampler.h: logits to the next token: biases, penalties, what leaves tokens out, temperature, one draw. */
#ifndef PI2_ENGINE_SAMPLER_H
#define PI2_ENGINE_SAMPLER_H

#include "engine/draws.h"
#include "powerinfer2/session.h"

#include <stddef.h>
#include <stdint.h>

/* The parameters are pi2_sampling of powerinfer2/session.h: names, defaults, meaning and order are
 * llama.cpp's: logit biases, penalties, then sampler_filters.h. top_p and min_p look at the probabilities before the
 * temperature is applied. */

/** A seed of this value asks for a random one; pi2_sampler_seed() then says which it became. */
#define PI2_SAMPLER_RANDOM_SEED UINT32_MAX

typedef struct pi2_sampler pi2_sampler;

/** PI2_OK, or INVALID with the name of the first parameter that is no number or out of range. */
pi2_status pi2_sampling_check(const pi2_sampling *params);

/** Bytes of a list of candidates, which holds every token of a vocabulary. */
size_t pi2_sampler_candidate_bytes(uint32_t vocabulary_size);

/**
 * Bytes that pi2_sampler_create() allocates for the same arguments, so that a budget can count
 * them. 0 when the params are invalid or the sum does not fit in size_t.
 */
size_t pi2_sampler_bytes(const pi2_sampling *params, uint32_t context_length);

/**
 * One allocation; nothing is allocated afterwards.
 *
 * vocabulary_size  logits per token, at least 1, at most INT32_MAX
 * context_length   bounds the penalty window
 * candidates       pi2_sampler_candidate_bytes(vocabulary_size) of the caller's, as malloc() aligns them, for as long
 *                  as the sampler is; used while a token is sampled, so samplers that take turns can share them
 * sampler_out      caller owns: pi2_sampler_free(). NULL on error
 *
 * Errors   INVALID (params, vocabulary_size), MEMORY
 * Threads  one at a time per sampler
 */
pi2_status pi2_sampler_create(const pi2_sampling *params, uint32_t vocabulary_size, uint32_t context_length,
                              void *candidates, pi2_sampler **sampler_out);
void pi2_sampler_free(pi2_sampler *sampler); /* NULL is allowed */

/** The seed in use: the one given, or the one that was drawn last. Never PI2_SAMPLER_RANDOM_SEED. */
uint32_t pi2_sampler_seed(const pi2_sampler *sampler);

/** Empties the penalty window and starts the random numbers again from the seed: from another one that
 *  is drawn now, where a random one was asked for. */
void pi2_sampler_reset(pi2_sampler *sampler);

/**
 * Puts a token into the penalty window: each prompt token, and each token that was generated.
 * A token outside the vocabulary is ignored.
 */
void pi2_sampler_accept(pi2_sampler *sampler, int32_t token);

/** The parameters that it was made with. */
const pi2_sampling *pi2_sampler_params(const pi2_sampler *sampler);
/** Takes over the penalty window of `from`; with_numbers: the seed and what was drawn of it, too. */
void pi2_sampler_follow(pi2_sampler *sampler, const pi2_sampler *from, bool with_numbers);

/**
 * Chooses a token; does not accept it.
 *
 * logits     [vocabulary_size]; biases and penalties change it during the call, and it is put back. NaN
 *            counts as minus infinity
 * token_out  0 .. vocabulary_size - 1; of equal logits the lowest id ranks first
 *
 * Errors     FORMAT when no logit is above minus infinity: the model gives no answer
 */
pi2_status pi2_sampler_sample(pi2_sampler *sampler, float *logits, int32_t *token_out);

/** The draws of the tokens that come next, as far as no filter has one of them drawn again. */
void pi2_sampler_foretell(const pi2_sampler *sampler, pi2_draws *draws_out);

/** Which tokens may be picked; asked for as few of them as the choice needs. */
typedef struct pi2_token_filter {
    bool (*allows)(void *user, int32_t token);
    void *user;
} pi2_token_filter;
/**
 * The same among the tokens that a filter allows: one is chosen among all, and kept where it is allowed; else another
 * is chosen among those that are. Without top-k, top-p and min-p that is a choice by the chances of the allowed ones.
 * Errors  also UNSUPPORTED: no token is allowed
 */
pi2_status pi2_sampler_sample_allowed(pi2_sampler *sampler, float *logits, const pi2_token_filter *filter,
                                      int32_t *token_out);

#endif
