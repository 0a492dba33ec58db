/* clock.c: clock_gettime, in nanoseconds. */
#include "base/clock.h"

#include <time.h>

static uint64_t read_clock(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0) return 0; /* POSIX.1-2008 systems have both */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t pi2_clock_ns(void) { return read_clock(CLOCK_MONOTONIC); }

uint64_t pi2_clock_thread_ns(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }
