/*
 * hexagon_kernel.c: tiles of Q4_0 and Q8_0 times int8 activations, in HVX integers of v66 and up with vectors of 128
 * bytes, and in plain C where there are none, which is what the host's tests compile.
 *
 * The file's tiles are taken as they are: a vector holds two column groups (weight_formats/tile_values.h), lanes 0 to
 * 15 the even one of 16 rows and lanes 16 to 31 the odd one, so each half of a vector meets 4 activations of its own
 * and the halves are added at the end. Tiles are multiples of 64 bytes, so vectors are loaded unaligned.
 *
 * Integers are exact in any order. Floats are scalar: HVX has no fused multiply-add that rounds once as IEEE 754 does,
 * and the scalar unit has, so a chain has the bits of docs/arithmetic.md.
 */
#include "backends/hexagon/device/hexagon_kernel.h"
#include "weight_formats/half_float.h"

enum { BLOCK = 32, VECTOR = PI2_HEXAGON_ALIGNMENT };

#ifdef __HVX__
#include <hexagon_types.h>
#include <hvx_hexagon_protos.h>

/* 4 activations for lanes 0 to 15, 4 for lanes 16 to 31. */
static inline HVX_Vector spread(HVX_VectorPred first_half, const int8_t *first, const int8_t *second) {
    int32_t words[2];
    memcpy(&words[0], first, 4);
    memcpy(&words[1], second, 4);
    return Q6_V_vmux_QVV(first_half, Q6_V_vsplat_R(words[0]), Q6_V_vsplat_R(words[1]));
}

static inline void store_rows(int32_t *dots, HVX_Vector sums) {
    *(HVX_Vector *)dots = Q6_Vw_vadd_VwVw(sums, Q6_V_vror_VR(sums, VECTOR / 2));
}

/* q - 8 is left to the start of the sums: -8 times the sum of the activations. */
static void dots_q4_0(int32_t *dots, const uint8_t *values, const int8_t *a, int32_t sum) {
    const HVX_VectorPred half = Q6_Q_vsetq_R(VECTOR / 2);
    const HVX_Vector mask = Q6_V_vsplat_R(0x0f0f0f0f);
    HVX_Vector sums = Q6_V_vmux_QVV(half, Q6_V_vsplat_R(-8 * sum), Q6_V_vzero());
    for (uint32_t i = 0; i < 2; i++, values += VECTOR, a += 16) {
        const HVX_Vector pairs = *(const HVX_UVector *)values;
        const HVX_Vector low = Q6_V_vand_VV(pairs, mask);
        const HVX_Vector high = Q6_V_vand_VV(Q6_Vuw_vlsr_VuwR(pairs, 4), mask);
        sums = Q6_Vw_vrmpyacc_VwVubVb(sums, low, spread(half, a, a + 8));
        sums = Q6_Vw_vrmpyacc_VwVubVb(sums, high, spread(half, a + 4, a + 12));
    }
    store_rows(dots, sums);
}

static void dots_q8_0(int32_t *dots, const uint8_t *values, const int8_t *a, int32_t sum) {
    (void)sum;
    const HVX_VectorPred half = Q6_Q_vsetq_R(VECTOR / 2);
    HVX_Vector sums = Q6_V_vzero();
    for (uint32_t i = 0; i < 4; i++, values += VECTOR, a += 8) {
        sums = Q6_Vw_vrmpyacc_VwVbVb(sums, *(const HVX_UVector *)values, spread(half, a, a + 4));
    }
    store_rows(dots, sums);
}
#else

static void dots_q4_0(int32_t *dots, const uint8_t *values, const int8_t *a, int32_t sum) {
    for (uint32_t row = 0; row < PI2_TILE_ROWS; row++) {
        dots[row] = -8 * sum;
        for (uint32_t k = 0; k < BLOCK; k++) {
            dots[row] += (values[k / 8 * 64 + 4 * row + k % 4] >> (k & 4) & 15) * a[k];
        }
    }
}

static void dots_q8_0(int32_t *dots, const uint8_t *values, const int8_t *a, int32_t sum) {
    (void)sum;
    for (uint32_t row = 0; row < PI2_TILE_ROWS; row++) {
        dots[row] = 0;
        for (uint32_t k = 0; k < BLOCK; k++) dots[row] += (int8_t)values[k / 4 * 64 + 4 * row + k % 4] * a[k];
    }
}
#endif

/* One block of 16 rows for every token. */
static void add_block(const pi2_hexagon_product *p, const uint8_t *memory, uint32_t block, const uint8_t *scales,
                      const uint8_t *values, float *out) {
    /* The vector code writes a whole vector, of which the second half is of no use. */
    _Alignas(VECTOR) int32_t dots[VECTOR / sizeof(int32_t)];
    float d[PI2_TILE_ROWS];
    for (uint32_t row = 0; row < PI2_TILE_ROWS; row++) d[row] = pi2_load_half(scales + 2 * row);
    for (uint32_t t = 0; t < p->token_count; t++, out += p->out_stride) {
        const int8_t *a = (const int8_t *)memory + p->values + (size_t)t * p->value_stride + BLOCK * block;
        const float dx = ((const float *)(const void *)(memory + p->scales))[(size_t)t * p->scale_stride + block];
        const int32_t sum = ((const int16_t *)(const void *)(memory + p->sums))[(size_t)t * p->sum_stride + block];
        if (p->type == PI2_Q4_0) {
            dots_q4_0(dots, values, a, sum);
        } else {
            dots_q8_0(dots, values, a, sum);
        }
        const bool first = p->start && block == 0;
        for (uint32_t row = 0; row < PI2_TILE_ROWS; row++) {
            out[row] = __builtin_fmaf((float)dots[row], d[row] * dx, first ? 0.0f : out[row]);
        }
    }
}

void pi2_hexagon_multiply(const pi2_hexagon_product *p, uint8_t *memory, uint32_t part, uint32_t parts) {
    const size_t tile_bytes = (size_t)pi2_hexagon_tile_bytes(p->type, p->columns);
    const size_t block_bytes = p->type == PI2_Q4_0 ? 256 : 512;
    float *out = (float *)(void *)(memory + p->out);
    for (uint32_t tile = part; tile < p->tile_count; tile += parts) {
        const uint8_t *scales = memory + p->tiles + tile * tile_bytes;
        const uint8_t *values = scales + pi2_hexagon_scale_area_bytes(p->columns);
        for (uint32_t block = 0; block < p->columns / BLOCK; block++) {
            add_block(p, memory, block, scales + 2 * PI2_TILE_ROWS * block, values + block_bytes * block,
                      out + (size_t)tile * PI2_TILE_ROWS);
        }
    }
}

void pi2_hexagon_copy_request(pi2_hexagon_request *copy, const volatile pi2_hexagon_request *request) {
    const volatile uint32_t *from = (const volatile uint32_t *)request;
    uint32_t *to = (uint32_t *)copy;
    for (size_t i = 0; i < sizeof *copy / sizeof *to; i++) to[i] = from[i]; /* no C library: no structure is assigned */
}

bool pi2_hexagon_check(const pi2_hexagon_request *request, uint32_t memory_bytes, uint32_t *written_out) {
    *written_out = 0;
    if (request->product_count > PI2_HEXAGON_MOST_PRODUCTS) return false;
    for (uint32_t i = 0; i < request->product_count; i++) {
        const pi2_hexagon_product *p = &request->products[i];
        if (!pi2_hexagon_product_fits(p, memory_bytes)) return false;
        *written_out += p->tile_count * PI2_TILE_ROWS * p->token_count;
    }
    return true;
}
