/* soft_cap.h: values held between -cap and cap by a tangent (docs/arithmetic.md, Soft caps). */
#ifndef PI2_KERNELS_VECTOR_SOFT_CAP_H
#define PI2_KERNELS_VECTOR_SOFT_CAP_H

#include <stddef.h>

/** x[i] = cap * tanh(x[i] / cap), in place; cap > 0. The same function serves every instruction set. */
void pi2_soft_cap(float *x, size_t count, float cap);

#endif
