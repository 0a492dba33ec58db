/*
 * grammar_state.h: how far a text is in its grammar.
 *
 * All ways in which the text so far can be read are followed at once, each a stack of places to return to; what stacks
 * have in common is there once. Their number is bounded: beyond it a text counts as none of the grammar's. Which texts
 * are allowed depends on the grammar and the text alone. One thread at a time.
 */
#ifndef PI2_GRAMMAR_GRAMMAR_STATE_H
#define PI2_GRAMMAR_GRAMMAR_STATE_H

#include <stdbool.h>

#include "powerinfer2/grammar.h"

typedef struct pi2_grammar_state pi2_grammar_state;

/** At the beginning of the text. Becomes one of the grammar's owners. Errors MEMORY. */
pi2_status pi2_grammar_state_create(const pi2_grammar *grammar, pi2_grammar_state **state_out);
void pi2_grammar_state_free(pi2_grammar_state *state); /* NULL is fine */
/** Back to the beginning. */
void pi2_grammar_state_reset(pi2_grammar_state *state);
/** Becomes what `from` is, of the same grammar. */
void pi2_grammar_state_follow(pi2_grammar_state *state, const pi2_grammar_state *from);

/** Whether the text may go on with these bytes, which may end within a character. No bytes: no. */
bool pi2_grammar_state_allows(pi2_grammar_state *state, const char *text, size_t length);
/** Whether it may go on with anything that begins with this byte: false is certain, true is not. */
bool pi2_grammar_state_may_begin(pi2_grammar_state *state, unsigned char byte);
/** The text goes on. False: it may not, and stays as it is. */
bool pi2_grammar_state_accept(pi2_grammar_state *state, const char *text, size_t length);
/** Whether the text is one of the grammar's. */
bool pi2_grammar_state_may_end(const pi2_grammar_state *state);

#endif
