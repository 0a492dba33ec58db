/* drafter_ngram.c: what followed the last time when the same few tokens were seen; it costs nothing. */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/drafter.h"

enum { MATCH_MOST = 4 }; /* longer matches are as good as ones of this length */

static const double hit_memory = 1.0 / 16;

/** What guesses after a match of one length came to: shares of right tokens. */
typedef struct match_record {
    double first, later; /* of first tokens; of those that follow a right one */
} match_record;

typedef struct ngram_state {
    uint32_t match; /* of the last proposal */
    match_record records[MATCH_MOST + 1];
} ngram_state;

static size_t ngram_bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)run;
    (void)context_tokens;
    return sizeof(ngram_state);
}

static pi2_status begin_ngram(struct pi2_session *session, void **state_out) {
    (void)session;
    /* What answers of a small model came to (bench/EXPERIMENTS.md); a run soon knows better. */
    static const match_record start[MATCH_MOST + 1] = {
        { 0, 0 }, { 0.15, 0.3 }, { 0.35, 0.6 }, { 0.5, 0.75 }, { 0.65, 0.85 } };
    ngram_state *state = calloc(1, sizeof *state);
    *state_out = state;
    if (!state) return pi2_fail(PI2_ERR_MEMORY, "no memory for guessing ahead");
    memcpy(state->records, start, sizeof start);
    return PI2_OK;
}

/* The end of the latest of the longest matches with the text's last tokens; 0: there is none. */
static uint32_t find_match(const pi2_draft_text *text, uint32_t *match_out) {
    const int32_t *tokens = text->tokens;
    const uint32_t length = text->length;
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

static pi2_status propose_ngram(void *user, const pi2_draft_text *text, const pi2_draft_wish *wish,
                                pi2_draft *draft_out) {
    ngram_state *state = user;
    const uint32_t end = find_match(text, &state->match);
    draft_out->count = 0;
    if (end == 0) return PI2_OK;
    const match_record *record = &state->records[state->match];
    uint32_t count = text->length - end;
    if (count > wish->most) count = wish->most;
    memcpy(draft_out->tokens, text->tokens + end, count * sizeof *draft_out->tokens);
    for (uint32_t i = 0; i < count; i++) draft_out->chances[i] = (float)(i == 0 ? record->first : record->later);
    draft_out->count = count;
    return PI2_OK;
}

static void judge_ngram(void *user, uint32_t checked, uint32_t right, const uint8_t *path) {
    (void)path;
    ngram_state *state = user;
    match_record *record = &state->records[state->match];
    record->first += hit_memory * ((right > 0) - record->first);
    for (uint32_t i = 1; i < checked && i <= right; i++) record->later += hit_memory * ((i < right) - record->later);
}

static void follow_ngram(void *state, const void *from) { memcpy(state, from, sizeof(ngram_state)); }

const pi2_drafter_kind pi2_drafter_ngram = {
    .name = "ngram", .bytes = ngram_bytes, .begin = begin_ngram, .end = free, .propose = propose_ngram,
    .judge = judge_ngram, .follow = follow_ngram,
};
