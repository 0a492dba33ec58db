/* clock.c: clock_gettime, in nanoseconds. */
#include "base/clock.h"

#include <time.h>

uint64_t pi2_clock_ns(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0; /* POSIX.1-2008 systems have it */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
