/* thread_start.c: pthread_create with a stack of a chosen size. */
#include "base/thread_start.h"

#include <limits.h>
#include <signal.h>

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
