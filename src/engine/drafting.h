/*
 * drafting.h: the guesses of one session: its text, its drafters, and which of them pay.
 *
 * What is guessed is decided from what was seen in this run: how long a pass of so many tokens takes, how long a
 * drafter takes for a token, and how often its tokens were right. Of the drafters that cost nothing, the best
 * proposal is taken; one that costs time is asked where tokens by time have been better with it than without, and now
 * and then again, because that changes with the text. A proposal is cut where a token more makes it worse. What does
 * not pay is not guessed, so guesses cost at most what trying them costs.
 */
#ifndef PI2_ENGINE_DRAFTING_H
#define PI2_ENGINE_DRAFTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/draft_times.h"
#include "engine/drafter.h"
#include "powerinfer2/session.h"

typedef struct pi2_drafting pi2_drafting;

/** Every drafter, in the order of drafters.inc; NULL at the end. */
const pi2_drafter_kind *const *pi2_drafter_kinds(void);

/** Memory of one session's guesses. run: only handed to drafters. */
size_t pi2_drafting_bytes(const struct pi2_planned_run *run, uint32_t context_tokens);

typedef struct pi2_drafting_options {
    const pi2_drafter_kind *const *kinds; /* NULL at the end; those whose bytes are 0 are left out */
    const struct pi2_planned_run *run;    /* handed to drafters, as the session is */
    struct pi2_session *session;
    bool always;                          /* drafters that cost time are asked, and checked, whatever comes of it */
    bool replays;                         /* of a guess that is wrong somewhere the right tokens are computed again */
    bool reads;                           /* passes read weights: beside that a token more costs little */
    pi2_draft_times *times;               /* of the engine, zeros at first; NULL: the session learns its own */
    bool trees;                           /* a pass of the session alone may check a tree; false: chains alone */
    uint32_t context_tokens, most;        /* most: tokens of a guess, one behind the other, 1 .. PI2_DRAFT_MOST */
    uint32_t nodes, leaves;               /* with trees, of one: tokens, at most PI2_DRAFT_NODES_MOST, up to
                                             PI2_DRAFT_MOST of them one behind the other; those that nothing follows */
} pi2_drafting_options;
/** Errors  MEMORY, and what a drafter's begin has */
pi2_status pi2_drafting_create(const pi2_drafting_options *options, pi2_drafting **drafting_out);
void pi2_drafting_free(pi2_drafting *drafting); /* NULL is fine */

/** Appends to the text; beyond context_tokens nothing is kept. */
void pi2_drafting_push(pi2_drafting *drafting, const int32_t *tokens, size_t count);
/** Cuts the text back to so many tokens. */
void pi2_drafting_truncate(pi2_drafting *drafting, uint32_t length);
/** Takes over the text, and what was learnt, of a session with the same drafters and context. */
void pi2_drafting_follow(pi2_drafting *drafting, const pi2_drafting *from);

/** Shows a pass to the drafters that want to know. Errors  INTERRUPTED */
pi2_status pi2_drafting_saw(pi2_drafting *drafting, const pi2_draft_pass *pass);
/** How the tokens that follow the text are drawn, for the next guess alone: without it they are the likeliest ones. */
void pi2_drafting_foretell(pi2_drafting *drafting, const pi2_draws *draws);
/** Guesses at most `room` tokens that follow the text, for a pass of this session alone. guess_out, parents_out (as of
 *  pi2_draft) [PI2_DRAFT_NODES_MOST].
 *  Errors  INTERRUPTED */
pi2_status pi2_drafting_guess(pi2_drafting *drafting, uint32_t room, int32_t *guess_out, uint8_t *parents_out,
                              uint32_t *count_out);
/** The same for the pass that was begun (pi2_draft_times_begin()), beside what others have guessed for it: a chain. */
pi2_status pi2_drafting_guess_beside(pi2_drafting *drafting, uint32_t room, int32_t *guess_out, uint8_t *parents_out,
                                     uint32_t *count_out);
/** A pass over the text's last token, so many guessed ones behind it, and so many before it that were right and had to
 *  be computed once more, took so long. */
void pi2_drafting_note_pass(pi2_drafting *drafting, uint32_t guessed, uint32_t replayed, uint64_t nanoseconds);
/** The session's part in a pass that others share, once its time was learnt. */
void pi2_drafting_note_part(pi2_drafting *drafting, uint32_t guessed);
/** How many tokens of the text were compared with the last guess, and were in it: its tokens path[right], each behind
 *  the one before it. A guess is noted once. */
void pi2_drafting_note_guess(pi2_drafting *drafting, uint32_t checked, uint32_t right, const uint8_t *path);

/** By drafter, in order; returns how many there are. */
size_t pi2_drafting_count(const pi2_drafting *drafting, pi2_drafter_counters *counters_out, size_t most);

#endif
