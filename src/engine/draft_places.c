/* draft_places.c: see draft_places.h. */
#include "engine/draft_places.h"

#include <string.h>

enum { HEADS = sizeof((pi2_draft_places *)0)->heads / sizeof(uint32_t),
       LOOKED_AT = 64, FOUND = 16 }; /* places of a chain, and those of them with the token, that are worth the time */

static uint32_t *head_of(pi2_draft_places *places, int32_t token) {
    return &places->heads[((uint32_t)token * 2654435761u) >> 22];
}

size_t pi2_draft_places_bytes(uint32_t context_tokens) {
    return sizeof(pi2_draft_places) + (size_t)context_tokens * sizeof(uint32_t);
}

void pi2_draft_places_begin(pi2_draft_places *places, uint32_t context_tokens) { places->capacity = context_tokens; }

/* What was listed of another text is found no more: chains go back to what is before them. */
static void forget(pi2_draft_places *places, uint32_t unchanged) {
    if (unchanged == 0) memset(places->heads, 0, sizeof places->heads);
    for (uint32_t i = 0; unchanged && i < HEADS; i++) {
        while (places->heads[i] > unchanged) places->heads[i] = places->before[places->heads[i] - 1];
    }
    places->count = unchanged;
}

void pi2_draft_places_list(pi2_draft_places *places, const pi2_draft_text *text) {
    if (places->count > text->unchanged) forget(places, text->unchanged);
    for (; places->count < text->length && places->count < places->capacity; places->count++) {
        uint32_t *head = head_of(places, text->tokens[places->count]);
        places->before[places->count] = *head;
        *head = places->count + 1;
    }
}

/* Puts a token where it belongs among those that were found before it. */
static uint32_t add(pi2_draft_follower *followers, uint32_t count, pi2_draft_follower added) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (followers[i].token != added.token) continue;
        if (followers[i].match >= added.match) return count;
        memmove(followers + i, followers + i + 1, (--count - i) * sizeof *followers);
        break;
    }
    while (at < count && followers[at].match >= added.match) at++;
    if (at == PI2_DRAFT_FOLLOWERS_MOST) return count;
    const uint32_t kept = count < PI2_DRAFT_FOLLOWERS_MOST ? count : PI2_DRAFT_FOLLOWERS_MOST - 1;
    memmove(followers + at + 1, followers + at, (kept - at) * sizeof *followers);
    followers[at] = added;
    return kept + 1;
}

uint32_t pi2_draft_places_find(const pi2_draft_places *places, const pi2_draft_text *text, const int32_t *tail,
                               uint32_t tail_count, pi2_draft_follower *followers_out) {
    const uint32_t most = tail_count < PI2_DRAFT_MATCH_MOST ? tail_count : PI2_DRAFT_MATCH_MOST;
    uint32_t count = 0, looked = 0, found = 0;
    uint32_t next = *head_of((pi2_draft_places *)(uintptr_t)places, tail[0]);
    for (; next && looked < LOOKED_AT && found < FOUND; next = places->before[next - 1], looked++) {
        const uint32_t at = next - 1;
        if (text->tokens[at] != tail[0] || at + 1 >= places->count) continue;
        uint32_t match = 1;
        while (match < most && match <= at && text->tokens[at - match] == tail[match]) match++;
        count = add(followers_out, count, (pi2_draft_follower){ text->tokens[at + 1], match });
        found++;
    }
    return count;
}
