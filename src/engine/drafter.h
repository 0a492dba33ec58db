/*
 * drafter.h: guesses the next tokens from earlier text, so that one pass can check several.
 *
 * A pass over a model that streams costs its reads, whether it computes one token or eight. So the
 * token that was just picked is computed together with tokens that are likely to follow it: those
 * that followed the last time when the same few tokens were seen. The pass gives the logits after
 * each of them. As long as the tokens picked from those logits are the guessed ones, their passes
 * are saved; the first that differs ends the guess. Passes over one token and over many give the
 * same bits (docs/arithmetic.md), so the text is the same with and without guesses.
 *
 * How much to guess is decided from what was seen in this run: how often guesses were right (by the
 * length of the match), and what a pass of so many tokens takes.
 */
#ifndef PI2_ENGINE_DRAFTER_H
#define PI2_ENGINE_DRAFTER_H

#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

enum { PI2_DRAFT_MOST = 15 };

typedef struct pi2_drafter pi2_drafter;

/** Memory of a drafter over a context of so many tokens. */
size_t pi2_drafter_bytes(uint32_t context_tokens);
/** most: tokens of a guess, 1 .. PI2_DRAFT_MOST. Errors MEMORY. */
pi2_status pi2_drafter_create(uint32_t context_tokens, uint32_t most, pi2_drafter **drafter_out);
void pi2_drafter_free(pi2_drafter *drafter); /* NULL is fine */

/** Appends to the text; beyond context_tokens nothing is kept. */
void pi2_drafter_push(pi2_drafter *drafter, const int32_t *tokens, size_t count);
/** Cuts the text back to so many tokens. */
void pi2_drafter_truncate(pi2_drafter *drafter, uint32_t length);

/** Takes over the text, and what was learnt, of a drafter over the same context. */
void pi2_drafter_follow(pi2_drafter *drafter, const pi2_drafter *from);

/** Guesses at most `room` tokens that follow the text; returns how many. guess_out[PI2_DRAFT_MOST]. */
uint32_t pi2_drafter_guess(pi2_drafter *drafter, uint32_t room, int32_t *guess_out);
/** How many tokens of the last guess were right. A guess is noted once. */
void pi2_drafter_note_guess(pi2_drafter *drafter, uint32_t guessed, uint32_t right);
/** A pass over so many tokens took so long. */
void pi2_drafter_note_pass(pi2_drafter *drafter, uint32_t tokens, uint64_t nanoseconds);

#endif
