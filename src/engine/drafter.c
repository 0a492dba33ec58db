/* drafter.c: the longest match with earlier text, and how much of what followed it is worth a guess. */
#include "engine/drafter.h"

#include <stdlib.h>
#include <string.h>

#include "base/fail.h"

enum { MATCH_MOST = 4 }; /* longer matches are as good as ones of this length */

static const double hit_memory = 1.0 / 16, pass_memory = 1.0 / 8, token_memory = 1.0 / 32, return_rate = 1.0 / 256;
/* A token more in a pass, as a share of a pass over one, before one was measured. */
static const double token_share = 1.0 / 32;

/** What guesses after a match of one length came to: shares of right tokens. */
typedef struct match_record {
    double first, later; /* of first tokens; of those that follow a right one */
} match_record;

struct pi2_drafter {
    uint32_t most, capacity, length;
    uint32_t match; /* of the last guess */
    match_record records[MATCH_MOST + 1];
    double pass_ns, token_ns; /* a pass over one token; each token more. 0: not seen yet */
    int32_t tokens[];
};

size_t pi2_drafter_bytes(uint32_t context_tokens) {
    return sizeof(pi2_drafter) + (size_t)context_tokens * sizeof(int32_t);
}

pi2_status pi2_drafter_create(uint32_t context_tokens, uint32_t most, pi2_drafter **drafter_out) {
    *drafter_out = NULL;
    pi2_drafter *drafter = calloc(1, pi2_drafter_bytes(context_tokens));
    if (!drafter) return pi2_fail(PI2_ERR_MEMORY, "no memory for guessing ahead");
    drafter->most = most < PI2_DRAFT_MOST ? most : PI2_DRAFT_MOST;
    drafter->capacity = context_tokens;
    /* What answers of a small model came to (bench/EXPERIMENTS.md); a run soon knows better. */
    static const match_record start[MATCH_MOST + 1] = {
        { 0, 0 }, { 0.15, 0.3 }, { 0.35, 0.6 }, { 0.5, 0.75 }, { 0.65, 0.85 } };
    memcpy(drafter->records, start, sizeof start);
    *drafter_out = drafter;
    return PI2_OK;
}

void pi2_drafter_free(pi2_drafter *drafter) { free(drafter); }

void pi2_drafter_push(pi2_drafter *drafter, const int32_t *tokens, size_t count) {
    const size_t room = drafter->capacity - drafter->length;
    if (count > room) count = room;
    if (count) memcpy(drafter->tokens + drafter->length, tokens, count * sizeof *tokens);
    drafter->length += (uint32_t)count;
}

void pi2_drafter_truncate(pi2_drafter *drafter, uint32_t length) {
    if (length < drafter->length) drafter->length = length;
}

void pi2_drafter_follow(pi2_drafter *drafter, const pi2_drafter *from) {
    memcpy(drafter, from, pi2_drafter_bytes(from->length));
}

/* The end of the latest of the longest matches with the text's last tokens; 0: there is none. */
static uint32_t find_match(const pi2_drafter *drafter, uint32_t *match_out) {
    const int32_t *tokens = drafter->tokens;
    const uint32_t length = drafter->length;
    uint32_t best = 0, best_match = 0;
    for (uint32_t end = length ? length - 1 : 0; end > 0 && best_match < MATCH_MOST; end--) {
        uint32_t match = 0;
        while (match < MATCH_MOST && match < end && tokens[end - 1 - match] == tokens[length - 1 - match]) match++;
        if (match <= best_match) continue;
        best = end;
        best_match = match;
    }
    *match_out = best_match;
    return best;
}

/* The length whose expected tokens by time are best; 0: the pass alone is better. */
static uint32_t best_length(const pi2_drafter *drafter, const match_record *record, uint32_t room) {
    if (drafter->pass_ns <= 0) return 0; /* nothing is known of a pass yet */
    double time = drafter->pass_ns, tokens = 1, right = record->first, best = tokens / time;
    uint32_t length = 0;
    for (uint32_t i = 1; i <= room; i++) {
        time += drafter->token_ns;
        tokens += right;
        right *= record->later;
        if (tokens / time <= best) continue;
        best = tokens / time;
        length = i;
    }
    return length;
}

uint32_t pi2_drafter_guess(pi2_drafter *drafter, uint32_t room, int32_t *guess_out) {
    const uint32_t end = find_match(drafter, &drafter->match);
    if (end == 0) return 0;
    if (room > drafter->most) room = drafter->most;
    if (room > drafter->length - end) room = drafter->length - end;
    const uint32_t count = best_length(drafter, &drafter->records[drafter->match], room);
    memcpy(guess_out, drafter->tokens + end, count * sizeof *guess_out);
    return count;
}

void pi2_drafter_note_guess(pi2_drafter *drafter, uint32_t guessed, uint32_t right) {
    if (guessed == 0) return;
    match_record *record = &drafter->records[drafter->match];
    record->first += hit_memory * ((right > 0) - record->first);
    for (uint32_t i = 1; i < guessed && i <= right; i++) record->later += hit_memory * ((i < right) - record->later);
}

/*
 * A disk's speed changes from pass to pass by more than a token costs. So what a pass took beyond what
 * was expected is put down to tokens slowly.
 */
void pi2_drafter_note_pass(pi2_drafter *drafter, uint32_t tokens, uint64_t nanoseconds) {
    const double time = (double)nanoseconds, more = tokens > 1 ? tokens - 1.0 : 0;
    if (drafter->pass_ns <= 0) {
        if (more > 0) return;
        drafter->pass_ns = time;
        drafter->token_ns = token_share * time;
        return;
    }
    const double surprise = time - drafter->pass_ns - more * drafter->token_ns;
    if (more > 0) {
        drafter->pass_ns += token_memory * surprise;
        drafter->token_ns += token_memory * surprise / more;
        if (drafter->token_ns < 0) drafter->token_ns = 0;
    } else {
        drafter->pass_ns += pass_memory * surprise;
        /* A cost that was once seen too high would end guessing for good: it fades. */
        drafter->token_ns += return_rate * (token_share * drafter->pass_ns - drafter->token_ns);
    }
}
