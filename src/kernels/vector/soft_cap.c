/* soft_cap.c: tanh by the exponential function that all else uses. */
#include "kernels/vector/soft_cap.h"

#include "kernels/vector/vector.h"

void pi2_soft_cap(float *x, size_t count, float cap) {
    for (size_t i = 0; i < count; i++) {
        const float e = pi2_expf(2.0f * (x[i] / cap)); /* 0 and infinity, far out, give -cap and cap */
        x[i] = cap * (1.0f - 2.0f / (e + 1.0f));
    }
}
