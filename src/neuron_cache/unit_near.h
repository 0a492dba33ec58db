/*
 * unit_near.h: how near a unit's neurons are to firing, in a byte of each: a running mean of Gate's values, of which
 * half is the last pass's. A neuron fires again, or for the first time, the more likely the larger its Gate was, on
 * either side of zero; and where all of Gate is computed for every token its values cost nothing.
 *
 * A byte is PI2_NEAR_ZERO where Gate was zero, PI2_NEAR_STEPS more or less where it was as large as the root of the
 * layer's mean square; 0: it was never told.
 */
#ifndef PI2_NEURON_CACHE_UNIT_NEAR_H
#define PI2_NEURON_CACHE_UNIT_NEAR_H

#include <stdint.h>

enum { PI2_NEAR_ZERO = 128, PI2_NEAR_STEPS = 32, PI2_NEAR_MOST = 127 };

/** Gate's value of one pass; per_step: steps in a Gate of 1. What is no number is as far as can be. */
static inline uint8_t pi2_near_of(float gate, float per_step) {
    const float steps = gate * per_step;
    const float bounded = steps > -PI2_NEAR_MOST ? (steps < PI2_NEAR_MOST ? steps : PI2_NEAR_MOST) : -PI2_NEAR_MOST;
    return (uint8_t)((int)bounded + PI2_NEAR_ZERO);
}

/** The mean after one more pass. */
static inline uint8_t pi2_near_after(uint8_t before, uint8_t now) { return (uint8_t)(((unsigned)before + now) / 2); }

#endif
