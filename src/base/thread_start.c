/* thread_start.c: pthread_create with a stack of a chosen size; time slices. */
#if defined(__linux__) && !defined(__ANDROID__) /* whose sandbox may end a process for the call */
#define _GNU_SOURCE                             /* syscall() */
#include <sys/syscall.h>
#include <unistd.h>
#if defined(SYS_sched_setattr) && defined(SYS_sched_getattr)
#define HAVE_TIME_SLICES 1
#endif
#endif
#include "base/thread_start.h"

#include <limits.h>
#include <signal.h>
#include <stdint.h>

int pi2_thread_start(pthread_t *thread_out, size_t stack_bytes, void *(*function)(void *),
                     void *argument) {
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error) return error;
#ifdef PTHREAD_STACK_MIN
    if (stack_bytes < (size_t)PTHREAD_STACK_MIN) stack_bytes = (size_t)PTHREAD_STACK_MIN;
#endif
    error = pthread_attr_setstacksize(&attributes, stack_bytes);
    sigset_t every_signal, before;
    (void)sigfillset(&every_signal);
    if (!error) error = pthread_sigmask(SIG_SETMASK, &every_signal, &before);
    if (!error) {
        error = pthread_create(thread_out, &attributes, function, argument);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    (void)pthread_attr_destroy(&attributes);
    return error;
}

#ifdef HAVE_TIME_SLICES
/* The kernel's struct sched_attr of 48 bytes, which C libraries do not declare. */
typedef struct scheduling {
    uint32_t bytes, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t slice_ns, deadline_ns, period_ns;
} scheduling;

void pi2_thread_ask_for_short_slices(void) {
    enum { POLICY_NORMAL = 0 };
    scheduling present = {0};
    /* Everything but the slice stays as it is, the user's nice value above all. */
    if (syscall(SYS_sched_getattr, 0, &present, sizeof present, 0) != 0) return;
    if (present.policy != POLICY_NORMAL) return;
    present.bytes = sizeof present;
    present.slice_ns = 100000; /* the shortest that Linux gives (6.12 and later) */
    (void)syscall(SYS_sched_setattr, 0, &present, 0);
}
#else
void pi2_thread_ask_for_short_slices(void) {}
#endif
