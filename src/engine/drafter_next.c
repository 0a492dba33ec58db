/* drafter_next.c: what the model says behind one token alone, from a table (next_table_file.h); it costs nothing. */
#include <stdlib.h>

#include "base/fail.h"
#include "engine/drafter.h"
#include "engine/next_table_file.h"
#include "engine/session_internal.h"

static const double hit_memory = 1.0 / 32;
static const double start = 0.15; /* how often it is right of text (bench/EXPERIMENTS.md); a run soon knows better */

typedef struct next_state {
    const pi2_next_table *table; /* the engine's; NULL: it is damaged */
    double first, later;         /* how often first tokens were right; those that follow a right one */
} next_state;

static size_t bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)context_tokens;
    return run && !run->is_next && pi2_next_table_bytes(run) ? sizeof(next_state) : 0;
}

/* Without the table the text is the same. */
static pi2_status begin(struct pi2_session *session, void **state_out) {
    next_state *state = calloc(1, sizeof *state);
    *state_out = state;
    if (!state) return pi2_fail(PI2_ERR_MEMORY, "no memory for guessing ahead");
    state->first = state->later = start;
    state->table = session->engine->next_table;
    return PI2_OK;
}

static pi2_status propose(void *user, const pi2_draft_text *text, const pi2_draft_wish *wish, pi2_draft *draft_out) {
    const next_state *state = user;
    const pi2_next_table *table = state->table;
    uint32_t token = (uint32_t)text->tokens[text->length - 1];
    draft_out->count = 0;
    while (table && draft_out->count < wish->most && token < table->count) {
        const uint32_t entry = table->entries[(size_t)token * table->width];
        if (entry == PI2_NO_NEXT) break;
        token = pi2_next_id(entry);
        draft_out->chances[draft_out->count] = (float)(draft_out->count ? state->later : state->first);
        draft_out->tokens[draft_out->count++] = (int32_t)token;
    }
    return PI2_OK;
}

static void judge(void *user, uint32_t checked, uint32_t right, const uint8_t *path) {
    (void)path;
    next_state *state = user;
    for (uint32_t i = 0; i < checked && i <= right; i++) {
        double *record = i ? &state->later : &state->first;
        *record += hit_memory * ((i < right) - *record);
    }
}

static void follow(void *user, const void *from) {
    next_state *state = user;
    state->first = ((const next_state *)from)->first;
    state->later = ((const next_state *)from)->later;
}

const pi2_drafter_kind pi2_drafter_next = {
    .name = "next", .bytes = bytes, .begin = begin, .end = free, .propose = propose, .judge = judge, .follow = follow,
};
