/* clock.h: the monotonic clock, and a thread's own. */
#ifndef PI2_BASE_CLOCK_H
#define PI2_BASE_CLOCK_H

#include <stdint.h>

/** Nanoseconds of the monotonic clock; only differences mean anything. Threads: any. */
uint64_t pi2_clock_ns(void);

/** Nanoseconds of processor time that the calling thread has had: not what others took meanwhile. Threads: any. */
uint64_t pi2_clock_thread_ns(void);

#endif
