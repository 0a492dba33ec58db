/* timed_wait.h: conditions that are waited for until a time, by a clock that nobody sets. */
#ifndef PI2_CLI_TIMED_WAIT_H
#define PI2_CLI_TIMED_WAIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/** Sets up a condition whose waits are measured by the clock of pi2_cli_now_ns(). */
void pi2_timed_condition_init(pthread_cond_t *condition);
/** The mutex is held: waits for a signal until `until_ns` of pi2_cli_now_ns(). False: that time has come. */
bool pi2_timed_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, uint64_t until_ns);

#endif
