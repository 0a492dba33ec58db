/* signals.c: the first signal is noted, a later one kills. */
#include "signals.h"

#include <signal.h>
#include <string.h>
#include <time.h>

/* Wrappers such as timeout(1) send a signal twice, to the process and to its group. */
static const long long SAME_SIGNAL_NS = 300000000;

static volatile sig_atomic_t was_interrupted;
static struct timespec first_signal; /* written by the handler only, before was_interrupted is seen */

static void on_signal(int signal_number) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    if (!was_interrupted) {
        first_signal = now;
        was_interrupted = 1;
        return;
    }
    const long long seconds = (long long)now.tv_sec - (long long)first_signal.tv_sec;
    if (seconds * 1000000000 + (now.tv_nsec - first_signal.tv_nsec) < SAME_SIGNAL_NS) return;
    (void)signal(signal_number, SIG_DFL);
    (void)raise(signal_number);
}

void pi2_cli_catch_signals(void) {
    struct sigaction action;
    was_interrupted = 0;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal; /* without SA_RESTART: a blocked read shall return */
    (void)sigemptyset(&action.sa_mask);
    (void)sigaddset(&action.sa_mask, SIGINT);
    (void)sigaddset(&action.sa_mask, SIGTERM);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

bool pi2_cli_interrupted(void) { return was_interrupted != 0; }
