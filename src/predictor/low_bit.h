/*
 * low_bit.h: a predictor that is copies of Gate and Up with 2 or 3 bits for each weight, and their errors. It needs no
 * training and no text: it is made of the weights alone.
 *
 *   estimate  of a row of Gate or Up times the input: mean, and the deviation that the copy's error gives it, which is
 *             the root of the row's mean squared error times the input's length
 *   fires     the mean in deviations (of drelu the lesser of Gate's and Up's), so that the threshold is minus as many
 *             deviations as a neuron is given in doubt
 *   worth     the expectation of (activation(gate) * up)^2 times the squared length of the neuron's Down column;
 *             without a copy of Up that is its row's length instead
 *
 * A layer's data, each part from a multiple of 64 on: Gate, then Up where there are copies of it, each as
 *   values  [neurons][width / 32 blocks]     kernels/small_rows
 *   scales  [neurons][width / 32] u8         of the blocks, in units of the row's
 *   units   [neurons] f32
 *   errors  [neurons] f32                    root of the mean squared error of a weight
 * and then worths [neurons] f32, what an activation of 1 is worth. Numbers are little-endian.
 */
#ifndef PI2_PREDICTOR_LOW_BIT_H
#define PI2_PREDICTOR_LOW_BIT_H

#include "predictor/predictor.h"

enum { PI2_LOW_BIT_LEAST = 2, PI2_LOW_BIT_MOST = 3 };

/** Writes a neuron's Gate row (is_up: its Up row), `width` finite floats, into a layer's data. */
void pi2_low_bit_put_row(const pi2_predictor *predictor, uint32_t bits, uint8_t *data, bool is_up, uint32_t neuron,
                         const float *row);
void pi2_low_bit_put_worth(const pi2_predictor *predictor, uint32_t bits, uint8_t *data, uint32_t neuron, float worth);

#endif
