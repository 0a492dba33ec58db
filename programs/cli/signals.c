/* signals.c: the first signal is noted, a later one kills. */
#include "signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* Wrappers such as timeout(1) send a signal twice, to the process and to its group. */
static const long long SAME_SIGNAL_NS = 300000000;

static atomic_int was_interrupted; /* any thread may ask */
static atomic_int shall_end; /* by another signal than Ctrl-C's: the program, not an answer, shall end */
static struct timespec first_signal; /* written by the handler only, before was_interrupted is seen */

static void on_signal(int signal_number) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    if (signal_number != SIGINT) shall_end = 1;
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

/* What asks a program to end: by its user, by the system, by a terminal that goes away, by a limit of time. */
static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU};
enum { ENDING_SIGNALS = sizeof ending_signals / sizeof ending_signals[0] };

/* nohup has a signal ignored, and that shall hold. */
static bool is_ignored(int signal_number) {
    struct sigaction before;
    return sigaction(signal_number, NULL, &before) == 0 && before.sa_handler == SIG_IGN;
}

void pi2_cli_catch_signals(void) {
    struct sigaction action, ignored;
    was_interrupted = shall_end;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal; /* without SA_RESTART: a blocked read shall return */
    (void)sigemptyset(&action.sa_mask);
    for (int i = 0; i < ENDING_SIGNALS; i++) (void)sigaddset(&action.sa_mask, ending_signals[i]);
    for (int i = 0; i < ENDING_SIGNALS; i++) {
        if (ending_signals[i] == SIGHUP && is_ignored(SIGHUP)) continue;
        (void)sigaction(ending_signals[i], &action, NULL);
    }
    /* A reader that has gone and a limit of file size are failed writes: they end a command by its own way out. */
    memset(&ignored, 0, sizeof ignored);
    ignored.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &ignored, NULL);
    (void)sigaction(SIGXFSZ, &ignored, NULL);
}

bool pi2_cli_interrupted(void) { return was_interrupted != 0; }
