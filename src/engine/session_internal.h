/* session_internal.h: what a session is made of; for the files of this folder that are named session*. */
#ifndef PI2_ENGINE_SESSION_INTERNAL_H
#define PI2_ENGINE_SESSION_INTERNAL_H

#include "engine/drafting.h"
#include "engine/engine_internal.h"
#include "engine/sampler.h"
#include "engine/state_file.h"
#include "grammar/grammar_state.h"
#include "powerinfer2/prompt_cache.h"

struct pi2_session {
    pi2_engine *engine;
    uint32_t sequence;       /* whose states are this session's */
    pi2_sampler *sampler;
    int32_t *forbidden;      /* [forbidden_count]: tokens that are never picked, behind them those that end answers */
    size_t suppressed_count, forbidden_count; /* the first: which are always in force */
    bool forbids_ends;       /* the others are in force too */
    pi2_grammar_state *grammar_state; /* how far the answer's text is in its grammar; NULL: any text is allowed */
    pi2_detokenizer detokenizer;
    uint32_t position;
    uint32_t logits_first, logits_count; /* of the pass's logits, those that the last append left */
    bool logits_kept;        /* they lie in the sequence's own room: one token's */
    pi2_drafting *drafting;  /* NULL: nothing is guessed */
    int32_t *timeline;       /* [context]: the tokens so far */
    bool is_recurrent;       /* the model has states that cannot be taken back: they are made again from the tokens */
    bool saves;              /* there is a second place for what cannot be taken back */
    uint32_t state_position; /* whose the recurrent states are; PI2_NO_POSITION: nobody's */
    uint32_t saved_position; /* the same of the saved ones, and of what windows see */
    uint32_t saved_at, saved_from; /* where they were saved; of windows, the least position that they serve */
    uint32_t marked_position; /* the same of those that are marked, before tokens that were guessed */
    uint32_t kept_from;      /* positions from here on can be gone back to: what windows see there has not been written
                                over; PI2_NO_POSITION: none can */
    int32_t ahead[PI2_DRAFT_NODES_MOST]; /* guessed tokens that the last pass computed after `position`: each, then what
                                follows it; PI2_NO_TOKEN: its keys and values are gone */
    uint8_t ahead_parents[PI2_DRAFT_NODES_MOST]; /* what they follow, as of a draft */
    uint8_t ahead_order[PI2_DRAFT_NODES_MOST], ahead_path[PI2_DRAFT_NODES_MOST]; /* which of the draft's they are; those
                                of the draft that were right */
    uint32_t ahead_at, ahead_count, ahead_right; /* how far the text is: ahead[ahead_at - 1], or the token before all;
                                all of the pass; right so far */
    uint32_t ahead_row;      /* of that pass's logits, those of the token before them */
    int32_t sampled;         /* by the sampler, last; PI2_NO_TOKEN: none */
    bool draws_next;         /* it is the text's last token: the sampler's next draws are those of what follows */
    bool is_guessing;        /* the present append is one token, behind which tokens may be guessed: */
    uint32_t replays, guesses; /* before it, tokens that are computed once more; behind it, those that `ahead` has */
    pi2_draft_counters draft_counters;
    uint64_t next_progress_ns;
    uint64_t progress_done, progress_total; /* tokens x layers of the present append */
    pi2_session_part part;   /* what the appends are a part of; total 0: each is the whole */
    uint32_t batch_tokens;
    bool predicts;           /* of the present append: a predictor serves it, from PI2_EXACT_POSITIONS on */
    uint32_t first_logits;   /* where the next pass's logits go, of the present append's */
    size_t batch_left;       /* of a call for several sessions: tokens that are not computed yet */
    pi2_prompt_cache *cache; /* NULL: nothing is kept */
    uint32_t pages_kept;     /* pages of the timeline's beginning that it has, or that cannot be kept */
    bool is_loaded;          /* from a session file, which may be made up: no page of it is kept */
    uint64_t recalled_ns;    /* when the timeline's pages were last asked for, in the system's time */
    size_t text_bytes;
    char text[];             /* what one token completes */
};

/* session_table.c */

/** One thread at a time computes for an engine's sessions. */
void pi2_engine_take_turn(pi2_engine *engine);
void pi2_engine_end_turn(pi2_engine *engine);

/** Gives the session a sequence. In a turn. Errors  INVALID (none is free) */
pi2_status pi2_engine_admit(pi2_engine *engine, pi2_session *session);
void pi2_engine_dismiss(pi2_session *session);
/** Puts what the last pass left to sessions where the next one does not write. In a turn, before every pass. */
void pi2_engine_keep_logits(pi2_engine *engine);

/* session.c */

/** The session's logits number `index`; NULL: there are none. In a turn. */
float *pi2_session_logits_at(const pi2_session *session, size_t index);
/** What the last pass computed beyond `position` counts no more. next: the token that comes instead; NULL: none. */
void pi2_session_drop_ahead(pi2_session *session, const int32_t *next);

/* session_tree.c */

#define PI2_NO_TOKEN (-1)

/** Whether the last pass has computed the token behind the text. */
bool pi2_session_is_ahead(const pi2_session *session, int32_t token);
/** And something behind it. */
bool pi2_session_has_ahead(const pi2_session *session);
/** The text goes on with it. */
void pi2_session_go_ahead(pi2_session *session, int32_t token);
/** Puts a guess into the order of a pass, and cuts it to the branches, and pages of them, that there are. */
void pi2_session_order_guess(pi2_session *session, const int32_t *tokens, const uint8_t *parents);
/** The spans of the guess's pass, the session's own one first, where it parts. spans_out[PI2_BRANCHES_MOST + 1] */
uint32_t pi2_session_tree_spans(const pi2_session *session, pi2_batch_span *spans_out);
/** Branches' pages are given back, whoever's they are: before others need pages. next: the token that the session whose
 *  they are goes on with; NULL: that is not known. Of what it guessed one chain is left. In a turn. */
void pi2_engine_end_branches(pi2_engine *engine, const int32_t *next);
/** Before tokens are appended to a session: true: they are one that it has guessed and is to be taken, which needs no
 *  room; else branches are ended. */
bool pi2_session_takes_guess(const pi2_session *session, const int32_t *tokens, size_t token_count,
                             pi2_logits_wanted wanted);

/* session_shortcut.c */

/** Tokens that may follow the text: a tree, of which nothing is guessed yet. */
typedef struct pi2_session_branches {
    uint32_t count;              /* below PI2_SHORTCUT_TOKENS */
    int32_t tokens[PI2_DRAFT_PLACES];
    uint8_t parents[PI2_DRAFT_PLACES]; /* as of a draft */
} pi2_session_branches;
/**
 * A pass over the session's next token and these behind it, which takes the shortcut: about what the model would say
 * behind each that nothing follows (count 0: behind the token). The session is as before; its logits are lost.
 * rows_out: of these tokens the row of the engine's logits that is its own, and one; 0: it has none, by its place or
 * because there are too few branches or pages. count 0: the token's is row 0. In a turn, while nothing is ahead.
 * Errors  as pi2_forward_run()
 */
pi2_status pi2_session_run_short(pi2_session *session, int32_t token, const pi2_session_branches *branches,
                                 uint8_t *rows_out);

/* session_append.c */

/** Whether tokens can be appended, as pi2_session_append() says. */
pi2_status pi2_session_check_tokens(const pi2_session *session, const int32_t *tokens, size_t token_count,
                                    pi2_logits_wanted wanted);
/** pi2_session_append() of tokens that were checked, in a turn. */
pi2_status pi2_session_append_checked(pi2_session *session, const int32_t *tokens, size_t token_count,
                                      pi2_logits_wanted wanted);
/**
 * One token with guesses behind it, step by step, in a turn. Take: where the token was guessed itself its logits are
 * there, which is all then; else what is left of guesses is dropped first. Begin: what the token's pass computes before
 * it, at most `room` tokens. Guess: what may follow, at most `room` tokens; for a pass that others share its times were
 * begun before (pi2_draft_times_begin()). Span: what the pass computes, at most 2 * (PI2_DRAFT_MOST + 1) tokens; of a
 * tree it has parts (pi2_session_tree_spans()). End: what came of it, also of a step that failed; row: where the
 * token's logits are.
 */
bool pi2_session_may_guess(const pi2_session *session, size_t token_count, pi2_logits_wanted wanted);
bool pi2_session_take_ahead(pi2_session *session, int32_t token);
pi2_status pi2_session_begin_guess(pi2_session *session, int32_t token, uint32_t room);
pi2_status pi2_session_guess(pi2_session *session, uint32_t room, bool is_beside);
pi2_batch_span pi2_session_guess_span(const pi2_session *session, int32_t token, int32_t *tokens_out);
void pi2_session_end_guess(pi2_session *session, int32_t token, uint32_t row, pi2_status status);
/** The first position that the next token's pass writes: before the session's own where states are made again. */
uint32_t pi2_session_writes_from(const pi2_session *session);
/** Tokens for a layer that guesses, and what it is given of each (pi2_batch.given). */
typedef struct pi2_token_pairs {
    const int32_t *tokens;
    const float *given;
    uint32_t count;              /* at most as many as one pass takes */
    bool given_is_own, wants_logits; /* wants_logits: of the last one */
} pi2_token_pairs;
/** Appends them to a session of such a layer. Errors  as pi2_session_append() */
pi2_status pi2_session_append_pairs(pi2_session *session, const pi2_token_pairs *pairs);
/** Whether the key-value cache has room for `count` tokens more. Errors  CONTEXT (nothing has changed) */
pi2_status pi2_session_check_room(const pi2_session *session, size_t count);
/** Makes the positions from `first`, up to which there are tokens, to `end` the session's own to fill; weights leave
 *  that room. In a turn, while no pass runs. Errors  CONTEXT (the key-value cache is full) */
pi2_status pi2_session_hold(const pi2_session *session, uint32_t first, uint32_t end);
/** pi2_session_truncate() in a turn, of a position that the timeline has. */
void pi2_session_cut(pi2_session *session, uint32_t position);
/** Whether states are those of a position of the timeline: recurrent ones, and what windows see there. */
bool pi2_session_has_states(const pi2_session *session, uint32_t position);
/** The last position, at most this one, that states are kept of; 0: of none. */
uint32_t pi2_session_kept_states(const pi2_session *session, uint32_t position);
/** Of a timeline that is cut to `position`, the tokens that the saved states serve; PI2_NO_POSITION: they do not. */
uint32_t pi2_session_saved_for(const pi2_session *session, uint32_t position);
/** The states are those of a position, of layers with a window what is seen from there alone. */
void pi2_session_keep_from(pi2_session *session, uint32_t position);
/** The states become those of the session's position. In a turn. Errors as a pass has them */
pi2_status pi2_session_make_states(pi2_session *session);

/* prompt_cache.c */

/** Tokens of a page. */
uint32_t pi2_session_page_tokens(const pi2_session *session);
/** Keeps the pages that have become whole. */
void pi2_session_keep_pages(pi2_session *session);
/** Of `count` tokens that the next pass could take, those up to where a recurrent state is kept. */
uint32_t pi2_session_until_page(const pi2_session *session, uint32_t count);

/* session_file.c */

/** A number that names the model, its arithmetic and the way that states are laid out. */
pi2_status pi2_session_identity(const pi2_session *session, uint64_t *identity_out);
/** Bytes of a page's file, as the session would write it now. */
uint64_t pi2_session_page_bytes(const pi2_session *session, uint32_t first, uint32_t end);

/**
 * Writes the states of the positions from `first` up to `end` as a file of their own, with all tokens before and the
 * recurrent states, which must be those of `end`. In a turn. Errors  as pi2_session_save()
 */
pi2_status pi2_session_write_page(const pi2_session *session, const char *path, uint32_t first, uint32_t end);
/**
 * Reads them, where the file has the states of just these tokens' last `end - first`, behind what the session has of
 * `first` positions. with_states: recurrent states, too. Afterwards the session's position is `end`, and its recurrent
 * states are those of `end` or nobody's; it must have no logits before. Where kept_from
 * is PI2_NO_POSITION it stays so: the caller says what windows see. In a turn.
 * Errors  as pi2_session_load(); the session's position and tokens are as before, recurrent states nobody's
 */
pi2_status pi2_session_read_page(pi2_session *session, const char *path, const int32_t *tokens, uint32_t first,
                                 uint32_t end, bool with_states);

/** One pass, for one session or several. first_logits: where in the pass's rows its logits begin. */
typedef struct pi2_session_pass {
    pi2_batch batch;
    uint32_t first_logits;
    bool predicts;               /* a predictor serves it */
} pi2_session_pass;
/** teller: the session by which progress is told. In a turn. Errors as pi2_forward_run() */
pi2_status pi2_session_run_pass(pi2_session *teller, const pi2_session_pass *pass);
/** What a session notes of tokens that a pass has computed for it, from its position on. */
void pi2_session_note_tokens(pi2_session *session, const int32_t *tokens, uint32_t count);
/** Saves at the end of a prompt what cannot be taken back. */
void pi2_session_save_states(pi2_session *session);
/** A line of the table, where there is one, of `tokens` tokens from `position` on. */
void pi2_session_note_append(const pi2_session *session, bool is_prefill, uint32_t position, uint32_t tokens,
                             uint64_t begin_ns);

#endif
