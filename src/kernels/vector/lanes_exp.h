/* lanes_exp.h: pi2_expf() of sixteen floats. Include a lanes_<isa>.h first. */
#ifndef PI2_KERNELS_VECTOR_LANES_EXP_H
#define PI2_KERNELS_VECTOR_LANES_EXP_H

static inline lanes lanes_exp(lanes x) {
    x = lanes_max(lanes_set(PI2_EXP_LOWEST), x); /* keeps a NaN */
    x = lanes_min(lanes_set(PI2_EXP_HIGHEST), x);
    const lanes shifted =
        lanes_fma(x, lanes_set(PI2_EXP_LOG2_E), lanes_set(PI2_ROUNDING_SHIFT));
    const lanes n = lanes_sub(shifted, lanes_set(PI2_ROUNDING_SHIFT));
    lanes r = lanes_fma(n, lanes_set(-PI2_EXP_LN2_HIGH), x);
    r = lanes_fma(n, lanes_set(-PI2_EXP_LN2_LOW), r);
    lanes p = lanes_fma(lanes_set(PI2_EXP_C6), r, lanes_set(PI2_EXP_C5));
    p = lanes_fma(p, r, lanes_set(PI2_EXP_C4));
    p = lanes_fma(p, r, lanes_set(PI2_EXP_C3));
    p = lanes_fma(p, r, lanes_set(PI2_EXP_C2));
    p = lanes_fma(p, r, lanes_set(1.0f));
    p = lanes_fma(p, r, lanes_set(1.0f));
    return lanes_scale_by_power(p, shifted);
}

#endif
