/*
 * layer_shares.h: how much of each layer a run leaves out that leaves a share of all neurons out. What leaving out
 * costs differs from layer to layer, so where it was measured (pi2_predictor_layer.lost) layers that lose least give
 * most.
 */
#ifndef PI2_PREDICTOR_LAYER_SHARES_H
#define PI2_PREDICTOR_LAYER_SHARES_H

#include "predictor/predictor.h"

/** Shares of a layer at which its loss is measured: a quarter, a half, three quarters. */
#define PI2_PREDICTOR_SHARE_AT(point) (0.25 * ((point) + 1))

/** Whether each layer that it knows has been measured. */
bool pi2_predictor_is_balanced(const pi2_predictor *predictor);

/**
 * Sets every layer's left_out, so that together they leave out `share` of the neurons of the layers that it knows: each
 * as much, or, where it is balanced, so that what they lose together is least, as far as losses add up.
 */
void pi2_predictor_share_out(pi2_predictor *predictor, double share);

#endif
