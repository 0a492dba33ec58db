/*
 * sleepers.h: waiting for a word of memory to change: spin a little, then sleep.
 *
 * A pi2_sleepers says how many threads sleep for changes of the words that belong to it, so that
 * whoever changes a word pays for a system call only when somebody sleeps. On Linux the sleep is a
 * futex on the word itself; elsewhere, and where tests ask for it, a mutex and a condition
 * variable.
 *
 * Why no wake-up is lost: the sleeper first counts itself, then looks at the word; the waker first
 * changes the word, then looks at the count. All four are sequentially consistent, so at least one
 * of the two sees the other. A change therefore has to be a seq_cst store or read-modify-write
 * (C11's plain atomic_store and atomic_fetch_add are), followed by pi2_wake_sleepers().
 */
#ifndef PI2_BASE_SLEEPERS_H
#define PI2_BASE_SLEEPERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/status.h"

typedef struct pi2_sleepers {
    _Atomic uint32_t count;
    bool by_condition; /* sleep on the condition variable, not on a futex */
    pthread_mutex_t mutex;
    pthread_cond_t condition;
} pi2_sleepers;

/** Errors  MEMORY. `by_condition` asks for the portable way even where there is a futex. */
pi2_status pi2_sleepers_init(pi2_sleepers *sleepers, bool by_condition);
/** No thread may wait or wake any more. */
void pi2_sleepers_destroy(pi2_sleepers *sleepers);

/**
 * Returns true once *word differs from `value` (with acquire order), false when `timeout_ns`
 * nanoseconds of sleep have passed (0: no limit). Spins for at most spin_us microseconds first.
 */
bool pi2_wait_for_change(pi2_sleepers *sleepers, _Atomic int *word, int value, unsigned spin_us,
                         uint64_t timeout_ns);

/** Its first half: spins, and never sleeps. True once *word differs from `value` (with acquire order). */
bool pi2_spin_for_change(_Atomic int *word, int value, unsigned spin_us);

/** Wakes every thread that sleeps for *word. No system call when nobody sleeps. */
void pi2_wake_sleepers(pi2_sleepers *sleepers, _Atomic int *word);

/** One turn of a spinning loop: tells the core that this thread only waits. */
static inline void pi2_spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

#endif
