/* draft_times.h: what a pass of an engine takes, and each token more in it: that decides how much is guessed. */
#ifndef PI2_ENGINE_DRAFT_TIMES_H
#define PI2_ENGINE_DRAFT_TIMES_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PI2_DRAFT_SHARERS_MOST = 16, /* sessions that guess in common passes */
    PI2_DRAFT_BANDS = 4, PI2_DRAFT_BAND_TOKENS = 8 /* the first tokens more in a pass, the next ones, ..., and in the
                                                      last band all that are left */
};

/** How long an engine's passes take, learnt by all of its sessions, and the pass that is being made. */
typedef struct pi2_draft_times {
    double pass_ns[PI2_DRAFT_SHARERS_MOST]; /* of a pass over one token of each of so many sessions, less one; 0: not
                                               seen yet */
    double token_ns[PI2_DRAFT_BANDS]; /* each token more: beside reading the first ones may cost nothing, where
                                         computing them takes less time than reading, and later ones much; never less
                                         than those before them */
    bool seen[PI2_DRAFT_BANDS]; /* passes had so many; until then they are taken to cost what those before them do, */
    bool is_told;            /* or what waiting for reads leaves room for (pi2_draft_times_tell()) */
    double token_share;      /* token_ns by pass_ns, as far as nothing is known; 0: nothing is learnt yet */
    double known;            /* passes with guesses whose cost is remembered, up to 1 / token_memory */
    uint32_t alone_after, since_alone; /* passes with guesses until one without; since the last one */
    double since_guessed[PI2_DRAFT_BANDS]; /* tokens of these guesses */
    uint32_t sharers;        /* of the pass that is being made: its sessions, */
    double tokens, more;     /* what it will probably give, and its tokens beyond one for each session */
} pi2_draft_times;

/** reads: passes read weights: beside that a token more costs little. */
void pi2_draft_times_start(pi2_draft_times *times, bool reads);
/** Begins a pass over one token of each of so many sessions, at least 1. */
void pi2_draft_times_begin(pi2_draft_times *times, uint32_t sharers);
/** What it takes without guesses; 0: that is not known. */
double pi2_draft_times_pass(const pi2_draft_times *times);
/** What so many tokens more take in it, behind `before` ones. */
double pi2_draft_times_more(const pi2_draft_times *times, double before, double more);
/** A pass without guesses spent so much of its time, 0 .. 1, on waiting for reads: tokens that can be computed
 *  meanwhile are taken to cost next to nothing, until passes have had so many. */
void pi2_draft_times_tell(pi2_draft_times *times, double waited);
/** Tokens more that a guess may try: as many as passes had, and a band more. */
uint32_t pi2_draft_times_tried(const pi2_draft_times *times);
/** It had so many tokens more, and took so long. */
void pi2_draft_times_learn(pi2_draft_times *times, uint32_t more, uint64_t nanoseconds);

#endif
