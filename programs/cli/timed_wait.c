/* timed_wait.c: see timed_wait.h. */
#include "timed_wait.h"

#include <time.h>

void pi2_timed_condition_init(pthread_cond_t *condition) {
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* a clock that is set makes no wait longer */
    (void)pthread_cond_init(condition, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

bool pi2_timed_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, uint64_t until_ns) {
    enum { SECOND_NS = 1000000000 };
    const struct timespec until = {(time_t)(until_ns / SECOND_NS), (long)(until_ns % SECOND_NS)};
    return pthread_cond_timedwait(condition, mutex, &until) == 0;
}
