/*
 * draft_chain.h: guesses of a drafter that picks each token from logits, one behind the other: what
 * would be drawn if they were those of the model itself, how sure it is of each,
 * and how often it was right when it was so sure. Where a tree is wanted it names what else may
 * follow each of them, and goes on behind that, too, where it is likely enough.
 */
#ifndef PI2_ENGINE_DRAFT_CHAIN_H
#define PI2_ENGINE_DRAFT_CHAIN_H

#include "engine/drafter.h"

enum { PI2_DRAFT_BINS = 10 };
#define PI2_DRAFT_LEAST_BRANCH (1.0 / 16) /* a chain beside the first one goes on where it is reached so often */

/** A drafter's state begins with it. */
typedef struct pi2_draft_chain {
    uint32_t vocabulary, known;      /* logits of a row; ids that the model guessed for has */
    const float *ids;                /* [vocabulary]: whose logits they are; NULL: in the order of ids */
    double least_sure;               /* a token that is given less ends a guess */
    float sure[PI2_DRAFT_MOST];      /* what the last guess's tokens were given, as far as draws leave it open */
    double right[PI2_DRAFT_BINS];    /* how often tokens that it is so sure of were right */
    void *user; /* of these two, which pi2_draft_chain_guess() calls */
    const float *(*logits)(void *user);               /* after the last token */
    /* Goes on with a token behind `depth` guessed ones, which are those of the calls before; what came behind them is
     * taken back. */
    pi2_status (*append)(void *user, uint32_t depth, int32_t token);
} pi2_draft_chain;

/** It is as often right as it is sure, until more is known. */
void pi2_draft_chain_begin(pi2_draft_chain *chain);
/** Guesses what follows, from the logits that are there. Errors  what `append` returns */
pi2_status pi2_draft_chain_guess(pi2_draft_chain *chain, const pi2_draws *draws, const pi2_draft_wish *wish,
                                 pi2_draft *draft_out);
/** The tokens that logits give most, `depth` behind the text; where tokens are drawn, those that are ahead of the
 *  others: the same weights with logits that are a little off would draw another. */
void pi2_draft_chain_name(const pi2_draft_chain *chain, const float *logits, const pi2_draws *draws, uint32_t depth,
                          pi2_draft_place *place);
/** How often a token that is given so much was right. */
double pi2_draft_chain_chance(const pi2_draft_chain *chain, float sure);
/** A guess of fewer tokens is none. */
void pi2_draft_chain_keep(pi2_draft *draft, const pi2_draft_wish *wish, uint32_t least_tokens);
/** pi2_drafter_kind.judge and .follow of a state that begins with a chain. */
void pi2_draft_chain_judge(void *state, uint32_t checked, uint32_t right, const uint8_t *path);
void pi2_draft_chain_follow(void *state, const void *from);

#endif
