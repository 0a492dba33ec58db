/* thread_start.h: starts a thread of the library's own. */
#ifndef PI2_BASE_THREAD_START_H
#define PI2_BASE_THREAD_START_H

#include <pthread.h>
#include <stddef.h>

/**
 * Starts function(argument) on a new thread with a stack of stack_bytes (raised to the system's
 * minimum) and every signal blocked: signals belong to the application's threads.
 * Returns 0 or an errno value. Join it with pthread_join.
 */
int pi2_thread_start(pthread_t *thread_out, size_t stack_bytes, void *(*function)(void *),
                     void *argument);

/**
 * Called by a thread that works for microseconds at a time and must begin soon after it is woken,
 * beside threads that compute: asks the scheduler for short time slices, which put it in front of
 * them without a larger share of the CPU. Without effect where the system knows no such request.
 */
void pi2_thread_ask_for_short_slices(void);

#endif
