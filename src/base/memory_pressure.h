/*
 * memory_pressure.h: whether others need the memory that this process holds.
 *
 * What is watched, whichever of it there is: the memory that the machine has available, the limit and
 * use of this process's control group and of each of its ancestors (version 1 and 2; a limit that is
 * lowered while we run is seen too), the kernel's notes that a group cannot reclaim any more (version
 * 1, where it lets us listen), and the time that tasks lose waiting for memory (PSI). All of it is
 * polled through files that stay open: that needs no privilege and works inside containers.
 *
 * A level of headroom is wanted of each source: half of what was to be left when the process has all
 * that it planned for, at most a 32nd of the source. So a process that was given exactly its limit is
 * not alarmed by its own plan, and one with room around it reacts long before the room is gone.
 */
#ifndef PI2_BASE_MEMORY_PRESSURE_H
#define PI2_BASE_MEMORY_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/status.h"

typedef struct pi2_memory_pressure pi2_memory_pressure;

/** root: a folder in front of /proc and /sys for tests, "" for the machine. Errors  MEMORY */
pi2_status pi2_memory_pressure_open(const char *root, pi2_memory_pressure **pressure_out);
/** NULL is fine. */
void pi2_memory_pressure_close(pi2_memory_pressure *pressure);

/** The process will take `bytes` more than it holds now: fixes the levels that are wanted. */
void pi2_memory_pressure_expect(pi2_memory_pressure *pressure, uint64_t bytes);

typedef struct pi2_memory_reading {
    uint64_t missing;   /* bytes that should be given back; 0: none */
    uint64_t spare;     /* bytes that may be taken, when nothing is missing */
    bool urgent;        /* tasks wait for memory, or a group cannot reclaim: give back, however much is missing */
    const char *source; /* what is short: "cgroup v1 limit (/sys/...)"; lives as long as `pressure`; or NULL */
} pi2_memory_reading;

/**
 * Looks at every source: some file reads, tens of microseconds. Allocates nothing. `now_ns`: the
 * monotonic clock. `to_come`: bytes that the process may touch yet without asking again. Threads: one
 * at a time.
 */
void pi2_memory_pressure_ask(pi2_memory_pressure *pressure, uint64_t now_ns, uint64_t to_come,
                             pi2_memory_reading *reading_out);

/** What is watched, in words: "the machine's available memory, cgroup v1 limits, PSI". */
const char *pi2_memory_pressure_description(const pi2_memory_pressure *pressure);

#endif
