/*
 * look_ahead.h: whether a pass looks ahead (asks for experts that the next layer will probably want).
 *
 * Whether that pays depends on the disk, the cache's hits, the threads and how well one layer's router
 * foretells the next. So `auto` tries it: TRIAL tokens with and as many without, by turns and in pairs of
 * changing order so that a drift hurts neither, then the way with the lower median time for HOLD tokens;
 * then again. What is being done already stays unless the other is better by a little, lest noise decide.
 * The first WARM_UP tokens look ahead untried: they find what a prompt left in the cache, which is not what
 * lasts, and an answer that is shorter than a trial gains where looking ahead mostly does. After a pass that missed
 * nothing there is nothing to be hidden: `auto` then does not look ahead, nor try it, until something is missing.
 */
#ifndef PI2_PIPELINE_LOOK_AHEAD_H
#define PI2_PIPELINE_LOOK_AHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pi2_look_ahead_mode { PI2_LOOK_AHEAD_AUTO, PI2_LOOK_AHEAD_OFF, PI2_LOOK_AHEAD_ON } pi2_look_ahead_mode;

enum { PI2_LOOK_AHEAD_WARM_UP = 64, PI2_LOOK_AHEAD_TRIAL = 12, PI2_LOOK_AHEAD_HOLD = 240 };

/** All 0 but the mode is a good beginning. */
typedef struct pi2_look_ahead {
    pi2_look_ahead_mode mode;
    bool is_off;              /* auto: what the last trial said */
    bool is_idle;             /* auto: the last pass missed nothing */
    uint32_t token;           /* decoded since the beginning, or since the last trial began */
    uint64_t times[2][PI2_LOOK_AHEAD_TRIAL]; /* without, with */
    uint32_t counts[2];
} pi2_look_ahead;

/** Whether the next pass, over so many tokens, looks ahead. */
bool pi2_look_ahead_wanted(const pi2_look_ahead *state, uint32_t token_count);

/** The pass took so long. A failed pass is not noted. */
void pi2_look_ahead_note(pi2_look_ahead *state, uint32_t token_count, uint64_t pass_ns);

/** Whether the pass found all that it used in memory, and read nothing ahead. */
void pi2_look_ahead_note_missing(pi2_look_ahead *state, bool any);

/** What the next layer's router said of the tokens that are asked for. */
typedef struct pi2_look_ahead_votes {
    float *logits;            /* [token_count][stride], of which score_count are scores; used up */
    size_t stride;
    uint32_t token_count, score_count, used_count;
    uint32_t *votes;          /* [score_count], written */
} pi2_look_ahead_votes;

/** Each token votes for its used_count best experts, the first choices counting most. Writes the experts that have
 *  votes, the most wanted first, of equals the lower number; returns how many. */
uint32_t pi2_look_ahead_name(const pi2_look_ahead_votes *votes, uint32_t *experts_out);

#endif
