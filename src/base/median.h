/* median.h: the middle one of some numbers. */
#ifndef PI2_BASE_MEDIAN_H
#define PI2_BASE_MEDIAN_H

#include <stdint.h>

/** Of count numbers, at least one, the upper of the two in the middle where they are even; sorts them. For few. */
uint64_t pi2_median(uint64_t *numbers, uint32_t count);

#endif
