/*
 * hexagon_protocol.h: what the host and the Hexagon DSP say to each other: words at the beginning of a memory that both
 * have mapped, offsets from its beginning instead of pointers, little-endian on both sides. The same header compiles
 * for both. Neither side trusts the other: the device copies a request before it checks and follows it; the host keeps
 * every length in memory of its own and takes from the device a number, a status and a count, each compared with what
 * it has to be (docs/devices.md).
 */
#ifndef PI2_BACKENDS_HEXAGON_HEXAGON_PROTOCOL_H
#define PI2_BACKENDS_HEXAGON_HEXAGON_PROTOCOL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "weight_formats/weight_format.h"

enum {
    PI2_HEXAGON_MAGIC = 0x32495048, /* "HPI2" */
    PI2_HEXAGON_VERSION = 1,
    PI2_HEXAGON_ALIGNMENT = 128, /* of a vector, and of every area */
    PI2_HEXAGON_MOST_PRODUCTS = 16,
    PI2_HEXAGON_MOST_THREADS = 4
};

typedef enum pi2_hexagon_status {
    PI2_HEXAGON_DONE = 1,
    PI2_HEXAGON_REFUSED = 2 /* a product does not fit the memory, or is of a kind that the device does not compute */
} pi2_hexagon_status;

/**
 * Tiles times activations of blocks of 32: out[t * out_stride + r] goes on with its chain over all columns, from 0
 * where `start` is not 0. tiles, values, scales, sums and out are offsets in bytes, multiples of 64. Strides are
 * numbers of elements.
 */
typedef struct pi2_hexagon_product {
    uint32_t type; /* PI2_Q4_0, PI2_Q8_0 */
    uint32_t tiles, tile_count, columns;
    uint32_t token_count;
    uint32_t values, value_stride; /* int8, [token][columns] */
    uint32_t scales, scale_stride; /* float, [token][columns / 32] */
    uint32_t sums, sum_stride;     /* int16, [token][columns / 32] */
    uint32_t out, out_stride;      /* float, [token][tile_count * 16] */
    uint32_t start;
} pi2_hexagon_product;

/** No products: the device says that it is there. */
typedef struct pi2_hexagon_request {
    uint32_t product_count;
    pi2_hexagon_product products[PI2_HEXAGON_MOST_PRODUCTS];
} pi2_hexagon_request;

/** The beginning of the memory. The host waits for `answered`, the device for `asked`. */
typedef struct pi2_hexagon_words {
    /* The host's, written before the device starts. */
    uint32_t magic, version, memory_bytes, thread_count;
    uint32_t unused_0[28];
    /* The host's: the number of the last request, from 1; and whether the device shall end. */
    _Atomic uint32_t asked, stop;
    uint32_t unused_1[30];
    /* The device's: the last request that it is done with, and how that went. */
    _Atomic uint32_t answered, status, written;
    uint32_t unused_2[29];
    pi2_hexagon_request request;
} pi2_hexagon_words;

/** Where areas may begin. */
#define PI2_HEXAGON_FIRST_AREA ((uint32_t)4096)
_Static_assert(sizeof(pi2_hexagon_words) <= 4096, "the words lie before the first area");

static inline bool pi2_hexagon_computes(uint32_t type) { return type == PI2_Q4_0 || type == PI2_Q8_0; }

static inline uint64_t pi2_hexagon_scale_area_bytes(uint64_t columns) { return (columns + 63) / 64 * 64; }

/** pi2_tile_bytes() of a type that the device computes, without its table of formats. */
static inline uint64_t pi2_hexagon_tile_bytes(uint32_t type, uint64_t columns) {
    return pi2_hexagon_scale_area_bytes(columns) + columns / 32 * (type == PI2_Q4_0 ? 256 : 512);
}

/* Whether `rows` rows of `width` elements, `stride` elements apart, lie in the memory behind the words. */
static inline bool pi2_hexagon_area_fits(uint32_t offset, uint64_t rows, uint64_t stride, uint64_t width,
                                         uint64_t element_bytes, uint64_t memory_bytes) {
    if (offset < PI2_HEXAGON_FIRST_AREA || offset % 64 != 0 || stride < width) return false;
    /* Numbers below 2^32: (2^32 - 1)^2 + 2^32 elements do not wrap, and their bytes are compared by division. */
    const uint64_t elements = (rows - 1) * stride + width;
    return offset <= memory_bytes && elements <= (memory_bytes - offset) / element_bytes;
}

/** Whether a product is one that the device computes, and all of it lies in `memory_bytes`. */
static inline bool pi2_hexagon_product_fits(const pi2_hexagon_product *p, uint64_t memory_bytes) {
    if (!pi2_hexagon_computes(p->type) || p->tile_count == 0 || p->token_count == 0) return false;
    if (p->columns == 0 || p->columns % 32 != 0 || p->value_stride % 4 != 0 || p->start > 1) return false;
    const uint64_t tile_bytes = pi2_hexagon_tile_bytes(p->type, p->columns), blocks = p->columns / 32;
    return pi2_hexagon_area_fits(p->tiles, p->tile_count, tile_bytes, tile_bytes, 1, memory_bytes) &&
           pi2_hexagon_area_fits(p->values, p->token_count, p->value_stride, p->columns, 1, memory_bytes) &&
           pi2_hexagon_area_fits(p->scales, p->token_count, p->scale_stride, blocks, 4, memory_bytes) &&
           pi2_hexagon_area_fits(p->sums, p->token_count, p->sum_stride, blocks, 2, memory_bytes) &&
           pi2_hexagon_area_fits(p->out, p->token_count, p->out_stride, (uint64_t)p->tile_count * PI2_TILE_ROWS, 4,
                                 memory_bytes);
}

#endif
