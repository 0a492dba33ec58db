/* finite_blocks.h: whether weights are numbers at all. */
#ifndef PI2_WEIGHT_FORMATS_FINITE_BLOCKS_H
#define PI2_WEIGHT_FORMATS_FINITE_BLOCKS_H

#include "weight_formats/weight_format.h"

/**
 * Whether every weight of these GGUF blocks is finite: of quantised types the scales and minimums decide, of plain
 * floats each value. Zero times an infinity is no zero, so what is left out because it is multiplied with zero must
 * be finite for the sum to stay the same.
 */
bool pi2_blocks_are_finite(const pi2_weight_format *format, const void *blocks, size_t block_count);

#endif
