/* int8_rows.h: how kinds of predictors keep a row of a matrix: 8 bits for each number, and a unit. */
#ifndef PI2_PREDICTOR_INT8_ROWS_H
#define PI2_PREDICTOR_INT8_ROWS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/** Rounds finite floats; returns the row's unit. */
static inline float pi2_int8_row_put(int8_t *row, const float *floats, size_t count) {
    float most = 0;
    for (size_t i = 0; i < count; i++) {
        if (fabsf(floats[i]) > most) most = fabsf(floats[i]);
    }
    const float unit = most / 127;
    for (size_t i = 0; i < count; i++) row[i] = unit > 0 ? (int8_t)rintf(floats[i] / unit) : 0;
    return unit;
}

#endif
