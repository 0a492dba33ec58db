/*
 * team.h: the compute threads. The caller's thread is member 0; the others sleep between runs.
 *
 * A run is meant to be a whole batch or token: the members split each operation's outputs among
 * themselves and meet at barriers between operations, so that a token costs one wake-up, not one
 * for each operation.
 */
#ifndef PI2_BASE_TEAM_H
#define PI2_BASE_TEAM_H

#include <stdbool.h>
#include <stddef.h>

#include "powerinfer2/status.h"

typedef struct pi2_team pi2_team;

enum { PI2_TEAM_MAX_MEMBERS = 256, PI2_TEAM_SPIN_US = 30, PI2_TEAM_STACK_BYTES = 256 * 1024 };

typedef struct pi2_team_options {
    size_t stack_bytes;      /* of each thread but the caller's; 0: PI2_TEAM_STACK_BYTES */
    unsigned spin_us;        /* at most, before a member sleeps; 0: PI2_TEAM_SPIN_US */
    unsigned sleepers;       /* of the members, the last ones: they wait for what is no CPU, and sleep at once; the
                                others spin as if these were not there */
    bool never_spin;         /* sleep at once, also where each member has a CPU of its own */
    bool portable_sleep;     /* condition variables even where there are futexes (for tests) */
} pi2_team_options;

/** What one member does in a run: member_index is 0 .. member_count - 1. */
typedef void pi2_team_function(void *argument, unsigned member_index, unsigned member_count);

/**
 * Starts member_count - 1 threads. options may be NULL.
 * Members spin only if the process may use as many CPUs as there are members (pi2_allowed_cpus).
 * Errors  INVALID (0 or more than PI2_TEAM_MAX_MEMBERS members), MEMORY (no thread; none is left)
 */
pi2_status pi2_team_create(unsigned member_count, const pi2_team_options *options,
                           pi2_team **team_out);
/** Ends the threads. Not from inside a run. NULL is fine. */
void pi2_team_destroy(pi2_team *team);

/**
 * Calls function on every member and returns when all have returned; what they wrote is then
 * visible to the caller. Threads: any; runs take turns. Not from inside a run. Allocates nothing.
 */
void pi2_team_run(pi2_team *team, pi2_team_function *function, void *argument);

/**
 * Inside a run: returns when every member has called it as often; what each wrote before is
 * visible to all after. Spins for at most spin_us, then sleeps. Every member must call it.
 */
void pi2_team_barrier(pi2_team *team, unsigned member_index);

unsigned pi2_team_member_count(const pi2_team *team);

/** How long one of so many threads spins before it sleeps: PI2_TEAM_SPIN_US, or 0 where threads share a CPU, on which
 *  they would spin in each other's way. Threads: any. */
unsigned pi2_team_spin_us(unsigned member_count);

/**
 * CPUs that this process may use, at least 1: the affinity mask, limited by the cgroup's CPU quota
 * (v1 and v2, rounded up). Where neither is known: the CPUs that are online. Threads: any.
 */
unsigned pi2_allowed_cpus(void);

/**
 * Threads that compute where nobody says how many: one for each allowed CPU, at most
 * PI2_TEAM_MAX_MEMBERS, and no more than a limit on the group's processes leaves room for beside
 * the threads that read. At least 1. Threads: any.
 */
unsigned pi2_default_threads(void);

/** Where to look, for tests: a folder in front of /proc and /sys, and what the system calls say. */
typedef struct pi2_cpu_sources {
    const char *root;     /* "" for the machine */
    unsigned affinity;    /* CPUs of the affinity mask; 0: unknown */
    unsigned online;      /* CPUs that are online; 0: unknown */
} pi2_cpu_sources;
unsigned pi2_allowed_cpus_in(const pi2_cpu_sources *sources);
unsigned pi2_default_threads_in(const pi2_cpu_sources *sources);

#endif
