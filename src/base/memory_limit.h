/* memory_limit.h: how much memory this process may use, and how much it uses. */
#ifndef PI2_BASE_MEMORY_LIMIT_H
#define PI2_BASE_MEMORY_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

enum { PI2_MEMORY_REASON_BYTES = 256 };

typedef struct pi2_memory_limit {
    uint64_t bytes; /* that may be taken beyond what the process holds now; 0: none is left */
    char reason[PI2_MEMORY_REASON_BYTES]; /* what limits it, such as
        "cgroup v1 limit 64.0 MB less 1.2 MB in use (/sys/fs/cgroup/memory/small)" */
} pi2_memory_limit;

/**
 * The smallest of: what the machine has available (MemAvailable), what this process's control
 * group and each of its ancestors leave (v1 and v2; inactive file cache counts as free, because
 * the kernel drops it first), and the resource limits on address space and data. Threads: any.
 */
void pi2_memory_limit_find(pi2_memory_limit *limit_out);

/** Where to look, for tests: a folder in front of /proc and /sys, and the resource limits. */
typedef struct pi2_memory_limit_sources {
    const char *root;             /* "" for the machine */
    uint64_t address_space_bytes; /* RLIMIT_AS; UINT64_MAX: unlimited */
    uint64_t data_bytes;          /* RLIMIT_DATA; UINT64_MAX: unlimited */
    uint64_t physical_bytes;      /* used, halved, where there is no MemAvailable; 0: unknown */
} pi2_memory_limit_sources;
void pi2_memory_limit_find_in(const pi2_memory_limit_sources *sources,
                              pi2_memory_limit *limit_out);

/**
 * Physical memory that this process holds now and held at most so far, in bytes, from
 * /proc/self/status (VmRSS, VmHWM). Elsewhere getrusage gives the peak, and the present use is 0.
 * False, and both 0, when nothing is known. Threads: any.
 */
bool pi2_process_memory(uint64_t *peak_bytes_out, uint64_t *current_bytes_out);

#endif
