/*
 * shortcut.h: a map that stands for the layers in the middle of a model, so that what lies in memory of a model that
 * streams can guess for it: its first layers, the map, its last layers and its head. What a layer behind the shortcut
 * reads is about x + scale * (rows (inputs * x)) + bias, x what the first layer left out would have read.
 *
 * Guesses change no text, so neither the map nor its arithmetic does.
 */
#ifndef PI2_PIPELINE_SHORTCUT_H
#define PI2_PIPELINE_SHORTCUT_H

#include <stdint.h>

enum { PI2_SHORTCUT_TOKENS = 32 }; /* of a pass that takes it, at most */

typedef struct pi2_shortcut {
    uint32_t first, end;     /* layers [first, end) are left out: at least one, and not all */
    uint32_t width;          /* of the residual stream; a multiple of PI2_SMALL_BLOCK */
    const int8_t *rows;      /* [width][width] */
    const float *row_scales, *biases, *input_scales; /* [width] */
    /* What a pass writes. */
    int16_t *inputs;         /* [PI2_SHORTCUT_TOKENS][width] */
    float *input_units;      /* [PI2_SHORTCUT_TOKENS]: of a token's inputs */
} pi2_shortcut;

#endif
