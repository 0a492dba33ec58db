/*
 * draft_pairs.h: guesses of a layer that reads of each token the embedding, and what the model gave for the token
 * before it: a pair. Pairs of a text make a timeline of their own, whose keys and values the layer keeps; behind the
 * last one its logits say what follows the token that was just picked. Further guesses go on with what the layer
 * gave itself.
 *
 * What the model gave is kept of the last tokens, and made pairs of when a guess is asked for, or when there are many.
 * The model's session is one of an engine whose draft is such a layer.
 */
#ifndef PI2_ENGINE_DRAFT_PAIRS_H
#define PI2_ENGINE_DRAFT_PAIRS_H

#include "engine/drafter.h"

/** Functions of pi2_drafter_kind; the bytes are those of a run that has such a layer. */
size_t pi2_draft_pairs_bytes(const struct pi2_planned_run *run);
pi2_status pi2_draft_pairs_begin(struct pi2_session *session, void **state_out);
void pi2_draft_pairs_end(void *state);
pi2_status pi2_draft_pairs_saw(void *state, const pi2_draft_pass *pass);
pi2_status pi2_draft_pairs_propose(void *state, const pi2_draft_text *text, const pi2_draft_wish *wish,
                                   pi2_draft *draft_out);

#endif
