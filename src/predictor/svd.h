/*
 * svd.h: a predictor that is the rows of Gate and Up by their directions of most weight (a truncated singular value
 * decomposition): code = A input, estimate = B code, and what each row is likely to be off by. It needs no training
 * (svd_make.h); scores are made of the estimates as low_bit's are.
 *
 * A layer's data, each part from a multiple of 64 on:
 *   A       [rank][width] i8         its rows' units  [rank] f32
 * then for Gate, and for Up where it is estimated:
 *   B       [neurons][rank] i8       its rows' units  [neurons] f32
 *   rests   [neurons] f32            root of the mean square of what the estimate is off by
 * and worths [neurons] f32, as low_bit's. The rank is a multiple of 32. Numbers are little-endian.
 */
#ifndef PI2_PREDICTOR_SVD_H
#define PI2_PREDICTOR_SVD_H

#include "predictor/predictor.h"

/** Writes a row of A, `width` finite floats, or of a neuron's B, `rank` of them, with its rest, into a layer's data. */
void pi2_svd_put_code_row(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, uint32_t row,
                          const float *floats);
void pi2_svd_put_neuron(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, bool is_up, uint32_t neuron,
                        const float *floats, float rest);
void pi2_svd_put_worth(const pi2_predictor *predictor, uint32_t rank, uint8_t *data, uint32_t neuron, float worth);

#endif
