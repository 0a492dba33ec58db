/* allowed_cpus.c: how many CPUs this process may use, and how many threads that makes; declared in team.h. */
#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity */
#include <sched.h>
#endif
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/team.h"

#if defined(__linux__)
/* The mask grows until the kernel's fits: it refuses one that is too short for its CPUs. */
static unsigned affinity_cpus(void) {
    for (size_t cpus = 1024; cpus <= 1u << 20; cpus *= 4) {
        cpu_set_t *mask = CPU_ALLOC(cpus);
        if (!mask) return 0;
        const size_t bytes = CPU_ALLOC_SIZE(cpus);
        const int result = sched_getaffinity(0, bytes, mask);
        const int error = errno;
        const int count = result == 0 ? CPU_COUNT_S(bytes, mask) : 0;
        CPU_FREE(mask);
        if (result == 0) return (unsigned)count;
        if (error != EINVAL) return 0;
    }
    return 0;
}
#else
static unsigned affinity_cpus(void) { return 0; }
#endif

static pi2_cpu_sources this_machine(void) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return (pi2_cpu_sources){.root = "", .affinity = affinity_cpus(), .online = online > 0 ? (unsigned)online : 0};
}

unsigned pi2_allowed_cpus_in(const pi2_cpu_sources *sources) {
    unsigned cpus = sources->affinity ? sources->affinity : sources->online;
    if (cpus == 0) cpus = 1;
    const unsigned quota = pi2_cgroup_cpu_quota(sources->root);
    return quota && quota < cpus ? quota : cpus;
}

unsigned pi2_default_threads_in(const pi2_cpu_sources *sources) {
    enum { OTHER_THREADS = 16 }; /* that read or prepare, and what the user's shell starts meanwhile */
    uint64_t threads = pi2_allowed_cpus_in(sources), left = 0;
    if (threads > PI2_TEAM_MAX_MEMBERS) threads = PI2_TEAM_MAX_MEMBERS;
    if (pi2_cgroup_processes_left(sources->root, &left)) {
        left = left > OTHER_THREADS ? left - OTHER_THREADS : 1;
        if (left < threads) threads = left;
    }
    return (unsigned)threads;
}

unsigned pi2_allowed_cpus(void) {
    const pi2_cpu_sources sources = this_machine();
    return pi2_allowed_cpus_in(&sources);
}

unsigned pi2_default_threads(void) {
    const pi2_cpu_sources sources = this_machine();
    return pi2_default_threads_in(&sources);
}
