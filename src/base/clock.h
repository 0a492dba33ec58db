/* clock.h: the monotonic clock. */
#ifndef PI2_BASE_CLOCK_H
#define PI2_BASE_CLOCK_H

#include <stdint.h>

/** Nanoseconds of the monotonic clock; only differences mean anything. Threads: any. */
uint64_t pi2_clock_ns(void);

#endif
