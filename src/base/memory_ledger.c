/* memory_ledger.c: one sum of claims for the process. */
#include "base/memory_ledger.h"

#include <pthread.h>
#include <time.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, planning = PTHREAD_MUTEX_INITIALIZER;
static uint64_t base_bytes, claimed_bytes; /* base: what the process held before the first claim of those that stand */

bool pi2_memory_begin_plan(bool (*cancelled)(void *user), void *user) {
    static const struct timespec pause = { .tv_nsec = 20000000 };
    while (pthread_mutex_trylock(&planning) != 0) {
        if (cancelled && cancelled(user)) return false;
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

void pi2_memory_end_plan(void) { (void)pthread_mutex_unlock(&planning); }

void pi2_memory_claim(uint64_t held_bytes, uint64_t bytes) {
    (void)pthread_mutex_lock(&mutex);
    if (claimed_bytes == 0) base_bytes = held_bytes;
    claimed_bytes += bytes;
    (void)pthread_mutex_unlock(&mutex);
}

void pi2_memory_unclaim(uint64_t bytes) {
    (void)pthread_mutex_lock(&mutex);
    claimed_bytes -= bytes < claimed_bytes ? bytes : claimed_bytes;
    (void)pthread_mutex_unlock(&mutex);
}

uint64_t pi2_memory_spoken_for(uint64_t held_bytes) {
    (void)pthread_mutex_lock(&mutex);
    const uint64_t planned = claimed_bytes ? base_bytes + claimed_bytes : 0;
    (void)pthread_mutex_unlock(&mutex);
    return planned > held_bytes ? planned : held_bytes;
}
