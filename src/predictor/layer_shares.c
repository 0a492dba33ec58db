/*
 * layer_shares.c: step by step, the next few neurons are left out where they cost least. What a layer loses grows
 * ever faster, so that is the least sum. What the next neuron costs is told by differences of losses, since any change
 * at all, however small, makes an answer diverge a little: other activations are rounded otherwise. It is nothing at
 * first, and lies on lines between the middles of what was measured.
 */
#include "predictor/layer_shares.h"

#define STEP (1.0 / 256)
static const double most_share = 15.0 / 16; /* beyond what was measured nobody knows much */

bool pi2_predictor_is_balanced(const pi2_predictor *predictor) {
    uint32_t known = 0;
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        if (predictor->layers[i].size == 0) continue;
        known++;
        if (!(predictor->layers[i].lost[PI2_PREDICTOR_POINTS - 1] > 0)) return false;
    }
    return known > 0;
}

/* What it costs to leave out the next neurons, where `share` of the layer is left out already. */
static double next_cost(const pi2_predictor_layer *layer, double share) {
    double cost = 0, place = 0; /* at the middle of the part before this one */
    for (int p = 1; p < PI2_PREDICTOR_POINTS; p++) {
        const double lost = (double)layer->lost[p], middle = PI2_PREDICTOR_SHARE_AT(p) - 0.125;
        double here = (lost - (double)layer->lost[p - 1]) / 0.25;
        if (here < cost) here = cost; /* noise: more never costs less */
        if (share <= middle || p + 1 == PI2_PREDICTOR_POINTS) {
            return cost + (here - cost) * (share - place) / (middle - place);
        }
        cost = here;
        place = middle;
    }
    return cost;
}

/* Leaves `step` more of the layer out that loses least by it. Whether there is one. */
static bool take_step(pi2_predictor *predictor, double step) {
    pi2_predictor_layer *best = NULL;
    double least = 0;
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        pi2_predictor_layer *layer = &predictor->layers[i];
        if (layer->size == 0 || layer->left_out + step > most_share) continue;
        const double cost = next_cost(layer, layer->left_out + step / 2);
        if (best && !(cost < least)) continue;
        best = layer;
        least = cost;
    }
    if (best) best->left_out += step;
    return best != NULL;
}

void pi2_predictor_share_out(pi2_predictor *predictor, double share) {
    uint32_t known = 0;
    const bool is_balanced = pi2_predictor_is_balanced(predictor) && share < most_share;
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        pi2_predictor_layer *layer = &predictor->layers[i];
        layer->left_out = is_balanced || layer->size == 0 ? 0 : share;
        known += layer->size != 0;
    }
    if (!is_balanced) return;
    double left = share * known;
    while (left >= STEP && take_step(predictor, STEP)) left -= STEP;
    if (left > 0) (void)take_step(predictor, left < STEP ? left : STEP);
}
