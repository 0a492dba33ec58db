/* sleepers.c: futex on Linux, mutex and condition variable everywhere. */
#if defined(__linux__)
#define _GNU_SOURCE /* syscall() */
#endif
#include "base/sleepers.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fail.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
/* 32-bit systems with a 64-bit time_t need the other call: they use the condition variable. */
#if defined(SYS_futex) && LONG_MAX > 0x7fffffffL
#define PI2_HAVE_FUTEX 1
#endif
#endif

enum { PAUSES_PER_CLOCK = 16 }; /* a look at the clock costs about as much as a pause */
static const uint64_t ns_per_second = 1000000000u;

pi2_status pi2_sleepers_init(pi2_sleepers *sleepers, bool by_condition) {
    atomic_init(&sleepers->count, 0);
#ifdef PI2_HAVE_FUTEX
    sleepers->by_condition = by_condition;
#else
    (void)by_condition;
    sleepers->by_condition = true;
#endif
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);
    if (error) return pi2_fail(PI2_ERR_MEMORY, "condition variable: %s", strerror(error));
    error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (!error) error = pthread_cond_init(&sleepers->condition, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    if (error) return pi2_fail(PI2_ERR_MEMORY, "condition variable: %s", strerror(error));
    error = pthread_mutex_init(&sleepers->mutex, NULL);
    if (error) {
        (void)pthread_cond_destroy(&sleepers->condition);
        return pi2_fail(PI2_ERR_MEMORY, "mutex: %s", strerror(error));
    }
    return PI2_OK;
}

void pi2_sleepers_destroy(pi2_sleepers *sleepers) {
    (void)pthread_cond_destroy(&sleepers->condition);
    (void)pthread_mutex_destroy(&sleepers->mutex);
}

static bool changed(_Atomic int *word, int value) {
    return atomic_load_explicit(word, memory_order_acquire) != value;
}

bool pi2_spin_for_change(_Atomic int *word, int value, unsigned spin_us) {
    if (changed(word, value)) return true;
    if (spin_us == 0) return false;
    const uint64_t end = pi2_clock_ns() + (uint64_t)spin_us * 1000u;
    do {
        for (int i = 0; i < PAUSES_PER_CLOCK; i++) {
            pi2_spin_pause();
            if (changed(word, value)) return true;
        }
    } while (pi2_clock_ns() < end);
    return false;
}

static struct timespec timespec_of(uint64_t nanoseconds) {
    struct timespec time;
    time.tv_sec = (time_t)(nanoseconds / ns_per_second);
    time.tv_nsec = (long)(nanoseconds % ns_per_second);
    return time;
}

#ifdef PI2_HAVE_FUTEX
static bool sleep_on_futex(_Atomic int *word, int value, uint64_t deadline) {
    while (atomic_load(word) == value) {
        struct timespec left;
        if (deadline) {
            const uint64_t now = pi2_clock_ns();
            if (now >= deadline) return false;
            left = timespec_of(deadline - now);
        }
        /* Any return means: look again. EAGAIN, EINTR and ETIMEDOUT differ in nothing here. */
        (void)syscall(SYS_futex, (void *)word, FUTEX_WAIT_PRIVATE, value, deadline ? &left : NULL,
                      NULL, 0);
    }
    return true;
}
#endif

static bool sleep_on_condition(pi2_sleepers *sleepers, _Atomic int *word, int value,
                               uint64_t deadline) {
    bool is_changed = true;
    (void)pthread_mutex_lock(&sleepers->mutex);
    while (atomic_load(word) == value) {
        if (!deadline) {
            (void)pthread_cond_wait(&sleepers->condition, &sleepers->mutex);
            continue;
        }
        const struct timespec end = timespec_of(deadline);
        if (pthread_cond_timedwait(&sleepers->condition, &sleepers->mutex, &end) == ETIMEDOUT) {
            is_changed = atomic_load(word) != value;
            break;
        }
    }
    (void)pthread_mutex_unlock(&sleepers->mutex);
    return is_changed;
}

bool pi2_wait_for_change(pi2_sleepers *sleepers, _Atomic int *word, int value, unsigned spin_us,
                         uint64_t timeout_ns) {
    if (pi2_spin_for_change(word, value, spin_us)) return true;
    const uint64_t deadline = timeout_ns ? pi2_clock_ns() + timeout_ns : 0;
    (void)atomic_fetch_add(&sleepers->count, 1);
    bool is_changed;
#ifdef PI2_HAVE_FUTEX
    if (!sleepers->by_condition) {
        is_changed = sleep_on_futex(word, value, deadline);
    } else
#endif
    {
        is_changed = sleep_on_condition(sleepers, word, value, deadline);
    }
    (void)atomic_fetch_sub(&sleepers->count, 1);
    return is_changed;
}

void pi2_wake_sleepers(pi2_sleepers *sleepers, _Atomic int *word) {
    if (atomic_load(&sleepers->count) == 0) return;
#ifdef PI2_HAVE_FUTEX
    if (!sleepers->by_condition) {
        (void)syscall(SYS_futex, (void *)word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        return;
    }
#endif
    /* A sleeper that saw the old value holds the mutex until it waits: lock it before waking. */
    (void)word;
    (void)pthread_mutex_lock(&sleepers->mutex);
    (void)pthread_mutex_unlock(&sleepers->mutex);
    (void)pthread_cond_broadcast(&sleepers->condition);
}
