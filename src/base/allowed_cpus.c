/* allowed_cpus.c: how many CPUs this process may use; declared in team.h. */
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

unsigned pi2_allowed_cpus(void) {
    unsigned cpus = affinity_cpus();
    if (cpus == 0) {
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        cpus = online > 0 ? (unsigned)online : 1;
    }
    const unsigned quota = pi2_cgroup_cpu_quota("");
    return quota && quota < cpus ? quota : cpus;
}
