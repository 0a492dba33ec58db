/* hexagon_kernel.h: what runs on the DSP, whoever started it there. */
#ifndef PI2_BACKENDS_HEXAGON_HEXAGON_KERNEL_H
#define PI2_BACKENDS_HEXAGON_HEXAGON_KERNEL_H

#include "backends/hexagon/hexagon_protocol.h"

/**
 * Computes of a product that fits `memory` (pi2_hexagon_product_fits) the tiles of part `part` of `parts`. Threads:
 * distinct parts may be computed at the same time.
 */
void pi2_hexagon_multiply(const pi2_hexagon_product *product, uint8_t *memory, uint32_t part, uint32_t parts);

/** A copy that nobody else can change: what is checked then is what is followed. */
void pi2_hexagon_copy_request(pi2_hexagon_request *copy, const volatile pi2_hexagon_request *request);

/** Whether all products of a request, which nobody else can change, can be computed; how many floats they write. */
bool pi2_hexagon_check(const pi2_hexagon_request *request, uint32_t memory_bytes, uint32_t *written_out);

#endif
