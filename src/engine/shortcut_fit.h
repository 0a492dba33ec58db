/*
 * shortcut_fit.h: the map of a shortcut (shortcut_file.h), of what two layers read: a ridge regression from what the
 * first one does, x, to what is added to it until the second, d. Sums of products are made of so many tokens at a time
 * in floats, and kept in doubles.
 */
#ifndef PI2_ENGINE_SHORTCUT_FIT_H
#define PI2_ENGINE_SHORTCUT_FIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/team.h"
#include "powerinfer2/engine.h"

typedef struct pi2_shortcut_fit pi2_shortcut_fit;

/** Memory that one takes. */
uint64_t pi2_shortcut_fit_bytes(uint32_t width, unsigned members);
/** team: it computes with; must live as long. Errors  MEMORY */
pi2_status pi2_shortcut_fit_create(uint32_t width, pi2_team *team, pi2_shortcut_fit **fit_out);
void pi2_shortcut_fit_free(pi2_shortcut_fit *fit); /* NULL is fine */

/** Takes a token: inputs [2][width], what the two layers read. Not from inside a run of the team. */
void pi2_shortcut_fit_add(pi2_shortcut_fit *fit, const float *inputs);
/** Tokens so far. */
uint64_t pi2_shortcut_fit_count(const pi2_shortcut_fit *fit);

/**
 * Solves it, once: afterwards nothing is added. Errors  INVALID (no tokens; numbers that are none), INTERRUPTED
 */
pi2_status pi2_shortcut_fit_solve(pi2_shortcut_fit *fit, const pi2_callbacks *callbacks);
/** Of a solved one: what output `row` is made of, out[width]. */
void pi2_shortcut_fit_row(const pi2_shortcut_fit *fit, uint32_t row, float *out);
const float *pi2_shortcut_fit_bias(const pi2_shortcut_fit *fit);   /* [width] */
const float *pi2_shortcut_fit_scales(const pi2_shortcut_fit *fit); /* [width]: how large x is as a rule, above 0 */

#endif
