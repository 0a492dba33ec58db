/*
 * drafter.h: who guesses the next tokens, so that one pass can check several.
 *
 * A pass over a model that streams costs its reads, whether it computes one token or eight. So the
 * token that was just picked is computed together with tokens that are likely to follow it. The pass
 * gives the logits after each of them. As long as the tokens picked from those logits are the guessed
 * ones, their passes are saved; the first that differs ends the guess. Passes over one token and over
 * many give the same bits (docs/arithmetic.md), so the text is the same with and without guesses.
 *
 * A drafter is one file and one line of drafters.inc. It proposes; which drafter is asked, and how many
 * of its tokens a pass checks, is decided by drafting.h from what proposals and passes came to.
 */
#ifndef PI2_ENGINE_DRAFTER_H
#define PI2_ENGINE_DRAFTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/draws.h"
#include "powerinfer2/status.h"

enum {
    PI2_DRAFT_MOST = 15,      /* tokens of a guess, one behind the other */
    PI2_DRAFT_NODES_MOST = 31, /* of one that parts: a pass has as many rows at most, and one */
    PI2_DRAFT_NAMED = 8,     /* tokens that a drafter which computes names behind one place, */
    PI2_DRAFT_PLACES = 16    /* and places for which it does */
};

struct pi2_planned_run;
struct pi2_session;

/** What may follow one place, the text or a guessed token, by what a drafter has computed for it. */
typedef struct pi2_draft_place {
    uint8_t parent;          /* the place that its token follows, and one; 0: it is the text, */
    int32_t token;           /* and has none */
    uint32_t count;
    int32_t tokens[PI2_DRAFT_NAMED]; /* the likeliest first, */
    float sure[PI2_DRAFT_NAMED];     /* what each is given, as far as draws leave it open */
} pi2_draft_place;
typedef struct pi2_draft_named {
    uint32_t count, most;    /* places: parents come first; so many are wanted, up to PI2_DRAFT_PLACES */
    uint32_t passes;         /* that these took, where one computes several; 0: one each */
    pi2_draft_place places[PI2_DRAFT_PLACES];
} pi2_draft_named;

/** The text that a proposal follows. */
typedef struct pi2_draft_text {
    const int32_t *tokens;   /* [length]: the timeline, and the token that was just picked */
    uint32_t length;         /* at least 1 */
    uint32_t unchanged;      /* so many at the beginning are those of the last call for this session: 0 at first */
    const pi2_draws *draws;  /* of the tokens that follow: number 0 is that of the first one */
    const pi2_draft_named *named; /* what another drafter names to follow; NULL: nothing */
} pi2_draft_text;

/** A pass that has computed tokens of the text. What it gave is there until the next one (pi2_forward_given()). */
typedef struct pi2_draft_pass {
    const int32_t *tokens;   /* [count], from `position` on; the last ones may be guesses that turn out wrong */
    uint32_t position, count;
    uint32_t first;          /* of the pass's tokens; those before it are other sessions', or of the same guess */
    uint32_t follows;        /* where a branch of a guess begins: the pass's token that it follows, and one; 0: they
                                follow the text */
    const float *logits;     /* of the tokens from `logits_from` on, `logits_stride` floats apart */
    size_t logits_stride;
    uint32_t logits_from;    /* count: of none */
} pi2_draft_pass;

/** How much is worth proposing. */
typedef struct pi2_draft_wish {
    uint32_t most;           /* tokens, one behind the other, 1 .. PI2_DRAFT_MOST */
    uint32_t nodes, leaves;  /* of a tree: tokens, most .. PI2_DRAFT_NODES_MOST, and those of them that nothing follows;
                                0: chains alone are wanted */
    double least_reach;      /* a token that is right, with all before it, less often than this costs more than it
                                gives; drafters that cost nothing need not look at it */
    pi2_draft_named *named;  /* where a drafter that computes says what else may follow; NULL: a chain is wanted */
} pi2_draft_wish;

/** Tokens that may follow the text: a chain, each behind the one before it, or a tree of alternatives. */
typedef struct pi2_draft {
    uint32_t count;
    int32_t tokens[PI2_DRAFT_NODES_MOST];
    uint8_t parents[PI2_DRAFT_NODES_MOST]; /* token i follows token parents[i] - 1 of the draft, 0: the text; parents
                                              come first: at most i. Of a chain it is i, as before the call */
    float chances[PI2_DRAFT_NODES_MOST]; /* how often the token is right where all that it follows are, 0 .. 1 */
} pi2_draft;

/** A kind of drafter. Its state belongs to one session; all calls but the first are made in the engine's turn. */
typedef struct pi2_drafter_kind {
    const char *name;        /* of reports */
    bool costs;              /* its proposals take time that is worth measuring */
    bool joins;              /* it makes one tree of what it knows and of what another one names */
    /** Bytes of a state in a context of so many tokens; 0: it does not serve such a run. */
    size_t (*bytes)(const struct pi2_planned_run *run, uint32_t context_tokens);
    /** session: as far as its engine; it has no sequence yet. Errors  MEMORY */
    pi2_status (*begin)(struct pi2_session *session, void **state_out);
    void (*end)(void *state);
    /** After every pass over tokens of the session, alone or with others'; NULL: it need not know.
     *  Errors  as propose */
    pi2_status (*saw)(void *state, const pi2_draft_pass *pass);
    /** draft_out->count 0: nothing comes to mind. Errors  INTERRUPTED ends the append; after any other the drafter is
     *  not asked again in this session */
    pi2_status (*propose)(void *state, const pi2_draft_text *text, const pi2_draft_wish *wish, pi2_draft *draft_out);
    /** With the last proposal `checked` tokens of the text were compared, of which the first `right` were in it: they
     *  are its tokens path[right], each behind the one before it; of a chain the first ones. */
    void (*judge)(void *state, uint32_t checked, uint32_t right, const uint8_t *path);
    /** Takes over what the state of another session has learnt. */
    void (*follow)(void *state, const void *from);
} pi2_drafter_kind;

#define PI2_DRAFTER(name) extern const pi2_drafter_kind pi2_drafter_##name;
#include "engine/drafters.inc"
#undef PI2_DRAFTER

#endif
