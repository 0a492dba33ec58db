/*
 * draft_places.h: where in a text the same few tokens stood before, and what followed them there: found by the last
 * token, however long the text is.
 */
#ifndef PI2_ENGINE_DRAFT_PLACES_H
#define PI2_ENGINE_DRAFT_PLACES_H

#include "engine/drafter.h"

enum {
    PI2_DRAFT_MATCH_MOST = 8,     /* longer matches are as good as ones of this length */
    PI2_DRAFT_FOLLOWERS_MOST = 4  /* that are told of */
};

/** One place of the text behind each token: those of one chain have tokens that hash alike, the latest first. */
typedef struct pi2_draft_places {
    uint32_t capacity, count;     /* tokens of the text that are listed */
    uint32_t heads[1024];         /* the latest place, and one more; 0: none */
    uint32_t before[];            /* [capacity]: likewise, of the chain before this place */
} pi2_draft_places;

/** A token that followed such a match. */
typedef struct pi2_draft_follower {
    int32_t token;
    uint32_t match;               /* tokens, 1 .. PI2_DRAFT_MATCH_MOST */
} pi2_draft_follower;

size_t pi2_draft_places_bytes(uint32_t context_tokens);
/** Of zeros; nothing is listed yet. */
void pi2_draft_places_begin(pi2_draft_places *places, uint32_t context_tokens);
/** Lists the text's tokens, of which `unchanged` were listed before. */
void pi2_draft_places_list(pi2_draft_places *places, const pi2_draft_text *text);
/**
 * What followed where these tokens stood: other tokens, after the longest match first, and of those the latest.
 * tail  in  [tail_count]: the last tokens, the last one first; at most PI2_DRAFT_MATCH_MOST
 * Returns how many there are, at most PI2_DRAFT_FOLLOWERS_MOST
 */
uint32_t pi2_draft_places_find(const pi2_draft_places *places, const pi2_draft_text *text, const int32_t *tail,
                               uint32_t tail_count, pi2_draft_follower *followers_out);

#endif
