/*
 * low_rank.h: a predictor that is two small matrices: score = B * relu(A * input) + bias. They are trained
 * (low_rank_train.h; where a score is 0 the neuron is as likely to fire as not), or come with a model (PowerInfer's fc1
 * and fc2).
 *
 * A layer's data, each part from a multiple of 64 on:
 *   A       [rank][width] i8        its rows' units  [rank] f32
 *   B       [neurons][rank] i8      its rows' units  [neurons] f32
 *   bias    [neurons] f32
 * The rank is a multiple of 32. Numbers are little-endian. In a layer that is signed (predictor.h) there is no relu.
 */
#ifndef PI2_PREDICTOR_LOW_RANK_H
#define PI2_PREDICTOR_LOW_RANK_H

#include "predictor/predictor.h"

/** Writes a row of A, `width` finite floats, or of B, `rank` of them, and a bias, into a layer's data. */
void pi2_low_rank_put_code_row(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, uint32_t row,
                               const float *floats);
void pi2_low_rank_put_neuron(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, uint32_t neuron,
                             const float *floats, float bias);

/**
 * Where the second half of a layer's rows of A, and of B's columns, is minus the first, relu(z) - relu(-z) = z: half of
 * the numbers give the same scores, bit for bit, as a signed layer. Its data then lie at the beginning of `data`.
 * Returns the rank: half of what it was where that is so and is a multiple of 32.
 */
uint32_t pi2_low_rank_fold(const pi2_predictor *predictor, uint32_t rank, uint8_t *data);

#endif
