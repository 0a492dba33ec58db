/* exp_constants.h: the numbers of our single-precision exp and of gelu, shared by every instruction set. */
#ifndef PI2_KERNELS_VECTOR_EXP_CONSTANTS_H
#define PI2_KERNELS_VECTOR_EXP_CONSTANTS_H

/*
 * exp(x) = 2^n * exp(r), n = x / ln 2 to the nearest integer, |r| <= ln 2 / 2. The polynomial
 * 1 + r * (1 + r * (C2 + ...)) interpolates (exp(r) - 1 - r) / r^2 at Chebyshev nodes; its
 * own relative error is 1.1e-8, a fifth of a unit in the last place.
 */
#define PI2_EXP_LOWEST (-104.0f)  /* exp of it and below rounds to 0 */
#define PI2_EXP_HIGHEST 89.0f     /* exp of it and above rounds to infinity */
#define PI2_EXP_LOG2_E 0x1.715476p+0f
#define PI2_EXP_LN2_HIGH 0x1.62e430p-1f
#define PI2_EXP_LN2_LOW (-0x1.05c610p-29f)
#define PI2_EXP_C2 0x1.000000p-1f
#define PI2_EXP_C3 0x1.5554dcp-3f
#define PI2_EXP_C4 0x1.55550ap-5f
#define PI2_EXP_C5 0x1.120ba2p-7f
#define PI2_EXP_C6 0x1.6d1e94p-10f

/* Added to a float of magnitude below 2^22 it leaves the nearest integer in the low bits. */
#define PI2_ROUNDING_SHIFT 0x1.8p+23f

/*
 * gelu(x) = x * (1 + tanh(u)) / 2 = x / (1 + exp(-2 u)), 2 u = x * (LINEAR + CUBIC * x^2): LINEAR is
 * 2 * sqrt(2 / pi), CUBIC that times 0.044715.
 */
#define PI2_GELU_LINEAR 0x1.988454p+0f
#define PI2_GELU_CUBIC 0x1.2444f2p-4f

/* silu_clamped: how steep, and within what limits. */
#define PI2_CLAMPED_SLOPE 1.702f
#define PI2_CLAMPED_LIMIT 7.0f

/* Blocks whose largest magnitude is below this count as zeros: 127 / amax must stay finite. */
#define PI2_QUANTIZE_SMALLEST 0x1p-119f

#endif
