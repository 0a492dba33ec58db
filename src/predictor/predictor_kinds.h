/* predictor_kinds.h: prototypes of every kind, from the list; what kinds share; for the files of this folder. */
#ifndef PI2_PREDICTOR_PREDICTOR_KINDS_H
#define PI2_PREDICTOR_PREDICTOR_KINDS_H

#include "predictor/predictor.h"

#define PREDICTOR(name) extern const pi2_predictor_kind pi2_predictor_##name;
#include "predictor/predictors.inc"
#undef PREDICTOR

static inline uint64_t pi2_predictor_round_up(uint64_t bytes) {
    return (bytes + PI2_PREDICTOR_ALIGNMENT - 1) / PI2_PREDICTOR_ALIGNMENT * PI2_PREDICTOR_ALIGNMENT;
}

/** Whether all of them are finite, and at least `least`. */
bool pi2_predictor_floats_are_good(const float *floats, uint64_t count, float least);

#endif
