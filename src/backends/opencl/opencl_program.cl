/*
 * opencl_program.cl: tiles of weights times activations on a device, with the bits of kernels/matmul/matmul_scalar.c:
 * a block's products are integers and exact in any order; the floats of a row's chain are single operations in the
 * order of its blocks, none of them fused but where fma() says so (docs/arithmetic.md). It asks for a device whose
 * fma() and conversions are IEEE 754's, which opencl_check.c tries.
 *
 * A device that takes denormal floats for 0 (FLUSHES) has the right bits as long as none occurs. A chain in which one
 * might have becomes NaN, and whoever asked leaves that work to the processor: one with a product or a sum that is not
 * 0 and nearer to it than 2^-70. Otherwise products are multiples of 2^-117 and sums of 2^-93, so that what they add
 * up to is 0, or far from a denormal. No chain begins with -0 then, so none becomes it.
 *
 * A work item computes one row for TOKENS tokens, so that weights are unpacked once for them. Global size: rows x
 * groups of tokens. Weights lie as in weight_formats/weight_format.h, their values as in tile_values.h.
 */
#pragma OPENCL FP_CONTRACT OFF

#define TOKENS 4
#define TILE_ROWS 16

typedef struct { /* as pi2_opencl_shape in opencl_internal.h */
    ulong tiles;                /* offset of the first tile in its buffer, bytes */
    ulong tile_bytes, value_area; /* of a tile, and where its values begin in it */
    ulong values, scales, sums; /* offsets in the buffer of activations, bytes */
    uint value_stride, scale_stride, sum_stride; /* of a token, in entries */
    uint blocks, tokens, rows;
    uint start;
} shape;

#if defined(__opencl_c_integer_dot_product_input_4x8bit)
#define DOT4(w, a) ((int)dot(w, a))
#define DOT4_SIGNED(w, a) ((int)dot(w, a))
#else
static inline int DOT4(uchar4 w, char4 a) {
    const int4 p = convert_int4(w) * convert_int4(a);
    return p.x + p.y + p.z + p.w;
}
static inline int DOT4_SIGNED(char4 w, char4 a) {
    const int4 p = convert_int4(w) * convert_int4(a);
    return p.x + p.y + p.z + p.w;
}
#endif

#ifdef FLUSHES
/* Halves that are denormal are floats that are not, but a conversion may flush them, too. */
static inline float half_at(__global const uchar *p) {
    const uint bits = (uint)p[0] | (uint)p[1] << 8, sign = (bits & 0x8000) << 16, rest = bits & 0x7fff;
    if (rest < 0x400) return as_float(as_uint((float)rest * 0x1p-24f) | sign);
    return as_float(((rest < 0x7c00 ? rest + 0x1c000 : rest + 0x38000) << 13) | sign);
}

static inline bool is_zero(float x) { return as_uint(x) << 1 == 0; }
static inline bool is_small(float x) { return (as_uint(x) & 0x7fffffff) - 1 < 0x1c800000 - 1; } /* but not 0 */
#define FIRST(chain) (is_small(chain) || as_uint(chain) == 0x80000000 ? NAN : (chain))
#else
static inline float half_at(__global const uchar *p) { return vload_half(0, (__global const half *)p); }
#define FIRST(chain) (chain)
#endif

/* chain + a * b, rounded once, where product = f * g is b, or all of what is added. */
static inline float add_checked(float chain, float a, float b, float f, float g, float product) {
    const float sum = fma(a, b, chain);
#ifdef FLUSHES
    const bool is_lost = is_zero(product) && !is_zero(f) && !is_zero(g);
    if (is_lost || is_small(product) || is_small(sum)) return NAN;
    if (is_zero(sum)) return 0.0f; /* such a compiler may lose the sign, which is never negative here */
#endif
    return sum;
}

/* chain + a * (f * g) */
static inline float add(float chain, float a, float f, float g) {
    const float product = f * g;
    return add_checked(chain, a, product, f, g, product);
}

/* sums[t] += 32 values of 4 bits of a row times a token's 32 activations. `at` is the row's first byte. */
static inline void dot_nibbles(int *sums, __global const uchar *at, __global const char *a, uint stride) {
    for (uint g = 0; g < 4; g++) {
        const uchar4 both = vload4(0, at + 64 * g), low = both & (uchar4)(15), high = both >> (uchar4)(4);
        for (uint t = 0; t < TOKENS; t++) {
            __global const char *x = a + t * stride + 8 * g;
            sums[t] += DOT4(low, vload4(0, x)) + DOT4(high, vload4(1, x));
        }
    }
}

/* The same of 5 bits: bit 4 of the columns of group g is bit g of a byte. */
static inline void dot_five_bits(int *sums, __global const uchar *at, __global const char *a, uint stride) {
    const uchar4 fifth = vload4(0, at + 256);
    for (uint g = 0; g < 4; g++) {
        const uchar4 both = vload4(0, at + 64 * g);
        const uchar4 even = ((fifth >> (uchar4)(2 * g)) & (uchar4)(1)) << (uchar4)(4);
        const uchar4 odd = ((fifth >> (uchar4)(2 * g + 1)) & (uchar4)(1)) << (uchar4)(4);
        const uchar4 low = (both & (uchar4)(15)) | even, high = (both >> (uchar4)(4)) | odd;
        for (uint t = 0; t < TOKENS; t++) {
            __global const char *x = a + t * stride + 8 * g;
            sums[t] += DOT4(low, vload4(0, x)) + DOT4(high, vload4(1, x));
        }
    }
}

static inline void dot_bytes(int *sums, __global const uchar *at, __global const char *a, uint stride) {
    for (uint g = 0; g < 8; g++) {
        const char4 w = as_char4(vload4(0, at + 64 * g));
        for (uint t = 0; t < TOKENS; t++) sums[t] += DOT4_SIGNED(w, vload4(0, a + t * stride + 4 * g));
    }
}

/* 16 values of 6 bits. */
static inline void dot_six_bits(int *sums, __global const uchar *at, __global const char *a, uint stride) {
    const uchar4 high = vload4(0, at);
    for (uint half_ = 0; half_ < 2; half_++) {
        const uchar4 both = vload4(0, at + 64 * (1 + half_));
        const uchar4 top_even = ((high >> (uchar4)(4 * half_)) & (uchar4)(3)) << (uchar4)(4);
        const uchar4 top_odd = ((high >> (uchar4)(4 * half_ + 2)) & (uchar4)(3)) << (uchar4)(4);
        const uchar4 low = (both & (uchar4)(15)) | top_even, up = (both >> (uchar4)(4)) | top_odd;
        for (uint t = 0; t < TOKENS; t++) {
            __global const char *x = a + t * stride + 8 * half_;
            sums[t] += DOT4(low, vload4(0, x)) + DOT4(up, vload4(1, x));
        }
    }
}

/* What a block of a row adds to the chains of the tokens: its scales and values begin there, its activations at `a`;
 * dx: their scales; ax: their sums. */
#define BLOCK(name)                                                                                             \
    static inline void block_##name(float *chain, __global const uchar *scales, __global const uchar *values,   \
                                    uint row, __global const char *a, uint stride, const float *dx,             \
                                    __global const short *ax, uint sum_stride)

#define BEGIN_BLOCK \
    int sums[TOKENS] = {0}; \
    (void)sums;

BLOCK(q4_0) {
    BEGIN_BLOCK
    const float d = half_at(scales + 2 * row);
    dot_nibbles(sums, values + 4 * row, a, stride);
    for (uint t = 0; t < TOKENS; t++) chain[t] = add(chain[t], (float)(sums[t] - 8 * ax[t * sum_stride]), d, dx[t]);
}

BLOCK(q5_0) {
    BEGIN_BLOCK
    const float d = half_at(scales + 2 * row);
    dot_five_bits(sums, values + 4 * row, a, stride);
    for (uint t = 0; t < TOKENS; t++) chain[t] = add(chain[t], (float)(sums[t] - 16 * ax[t * sum_stride]), d, dx[t]);
}

static inline void add_minimum(float *chain, const int *sums, float d, float m, const float *dx,
                               __global const short *ax, uint sum_stride) {
    for (uint t = 0; t < TOKENS; t++) {
        chain[t] = add(chain[t], (float)sums[t], d, dx[t]);
        chain[t] = add(chain[t], m, dx[t], (float)ax[t * sum_stride]);
    }
}

BLOCK(q4_1) {
    BEGIN_BLOCK
    dot_nibbles(sums, values + 4 * row, a, stride);
    add_minimum(chain, sums, half_at(scales + 2 * row), half_at(scales + 32 + 2 * row), dx, ax, sum_stride);
}

BLOCK(q5_1) {
    BEGIN_BLOCK
    dot_five_bits(sums, values + 4 * row, a, stride);
    add_minimum(chain, sums, half_at(scales + 2 * row), half_at(scales + 32 + 2 * row), dx, ax, sum_stride);
}

BLOCK(q8_0) {
    BEGIN_BLOCK
    const float d = half_at(scales + 2 * row);
    dot_bytes(sums, values + 4 * row, a, stride);
    for (uint t = 0; t < TOKENS; t++) chain[t] = add(chain[t], (float)sums[t], d, dx[t]);
}

/* ---- blocks of 256 columns: a token has 16 sums a block ---- */

BLOCK(q4_k) {
    const float d = half_at(scales + 2 * row), m = half_at(scales + 32 + 2 * row);
    __global const uchar *low = scales + 64 + 4 * row, *low_minimums = low + 64, *high = low + 128;
    int total[TOKENS] = {0}, minimums[TOKENS] = {0};
    for (uint i = 0; i < 8; i++) {
        const uint j = i % 4;
        const int scale = i < 4 ? low[j] & 63 : (high[j] & 15) | (low[j] >> 6) << 4;
        const int minimum = i < 4 ? low_minimums[j] & 63 : high[j] >> 4 | (low_minimums[j] >> 6) << 4;
        int sums[TOKENS] = {0};
        dot_nibbles(sums, values + 256 * i + 4 * row, a + 32 * i, stride);
        for (uint t = 0; t < TOKENS; t++) {
            total[t] += scale * sums[t];
            minimums[t] += minimum * (ax[t * sum_stride + 2 * i] + ax[t * sum_stride + 2 * i + 1]);
        }
    }
    for (uint t = 0; t < TOKENS; t++) {
        chain[t] = add(chain[t], (float)total[t], d, dx[t]);
        chain[t] = add(chain[t], -(float)minimums[t], m, dx[t]);
    }
}

BLOCK(q6_k) {
    const float d = half_at(scales + 2 * row);
    int total[TOKENS] = {0};
    for (uint i = 0; i < 16; i++) {
        const int scale = as_char(scales[32 + 16 * i + row]);
        int sums[TOKENS] = {0};
        dot_six_bits(sums, values + 192 * i + 4 * row, a + 16 * i, stride);
        for (uint t = 0; t < TOKENS; t++) total[t] += scale * (sums[t] - 32 * ax[t * sum_stride + i]);
    }
    for (uint t = 0; t < TOKENS; t++) chain[t] = add(chain[t], (float)total[t], d, dx[t]);
}

/* ---- one row for TOKENS tokens; the last group of tokens is whole: activations and results have room for it ---- */

/* COLUMNS of a block and SUMS of its activations; bytes of its scales and its values in a tile. */
#define CODE_KERNEL(name, COLUMNS, SUMS, SCALE_BYTES, VALUE_BYTES)                                                \
    __kernel void multiply_##name(__global const uchar *weights, __global const uchar *x, __global float *out,    \
                                  const shape s) {                                                                \
        const uint row = get_global_id(0), first = get_global_id(1) * TOKENS;                                     \
        if (row >= s.rows) return;                                                                                \
        __global const uchar *tile = weights + s.tiles + row / TILE_ROWS * s.tile_bytes;                          \
        __global const char *a = (__global const char *)(x + s.values) + first * s.value_stride;                  \
        __global const float *scales_x = (__global const float *)(x + s.scales) + first * s.scale_stride;         \
        __global const short *sums_x = (__global const short *)(x + s.sums) + first * s.sum_stride;               \
        float chain[TOKENS];                                                                                      \
        for (uint t = 0; t < TOKENS; t++) chain[t] = s.start ? 0.0f : FIRST(out[(first + t) * s.rows + row]);     \
        for (uint b = 0; b < s.blocks; b++) {                                                                     \
            float dx[TOKENS];                                                                                     \
            for (uint t = 0; t < TOKENS; t++) dx[t] = scales_x[t * s.scale_stride + b];                           \
            block_##name(chain, tile + b * SCALE_BYTES, tile + s.value_area + b * VALUE_BYTES, row % TILE_ROWS,   \
                         a + COLUMNS * b, s.value_stride, dx, sums_x + SUMS * b, s.sum_stride);                   \
        }                                                                                                         \
        for (uint t = 0; t < TOKENS; t++) out[(first + t) * s.rows + row] = chain[t];                             \
    }

CODE_KERNEL(q4_0, 32, 1, 32, 256)
CODE_KERNEL(q4_1, 32, 1, 64, 256)
CODE_KERNEL(q5_0, 32, 1, 32, 320)
CODE_KERNEL(q5_1, 32, 1, 64, 320)
CODE_KERNEL(q8_0, 32, 1, 32, 512)
CODE_KERNEL(q4_k, 256, 16, 256, 2048)
CODE_KERNEL(q6_k, 256, 16, 288, 3072)

/* ---- floats: a block is a column, and activations are floats ---- */

#ifdef FLUSHES
#define PRODUCT(a, b) ((a) * (b))
#else
#define PRODUCT(a, b) 0.0f
#endif

static inline float read_f32(__global const uchar *p) { return as_float(vload4(0, p)); }
static inline float read_f16(__global const uchar *p) { return half_at(p); }
static inline float read_bf16(__global const uchar *p) { return as_float((uint)(p[0] | (uint)p[1] << 8) << 16); }

#define FLOAT_KERNEL(name, BYTES)                                                                                 \
    __kernel void multiply_##name(__global const uchar *weights, __global const uchar *x, __global float *out,    \
                                  const shape s) {                                                                \
        const uint row = get_global_id(0), first = get_global_id(1) * TOKENS;                                     \
        if (row >= s.rows) return;                                                                                \
        __global const uchar *w = weights + s.tiles + row / TILE_ROWS * s.tile_bytes + row % TILE_ROWS * BYTES;   \
        __global const float *a = (__global const float *)(x + s.values) + first * s.value_stride;                \
        float chain[TOKENS];                                                                                      \
        for (uint t = 0; t < TOKENS; t++) chain[t] = s.start ? 0.0f : FIRST(out[(first + t) * s.rows + row]);     \
        for (uint b = 0; b < s.blocks; b++) {                                                                     \
            const float weight = read_##name(w + b * BYTES * TILE_ROWS);                                          \
            for (uint t = 0; t < TOKENS; t++) {                                                                   \
                const float x = a[t * s.value_stride + b];                                                        \
                chain[t] = add_checked(chain[t], weight, x, weight, x, PRODUCT(weight, x));                       \
            }                                                                                                     \
        }                                                                                                         \
        for (uint t = 0; t < TOKENS; t++) out[(first + t) * s.rows + row] = chain[t];                             \
    }

FLOAT_KERNEL(f32, 4)
FLOAT_KERNEL(f16, 2)
FLOAT_KERNEL(bf16, 2)
