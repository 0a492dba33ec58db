/*
 * cgroup.h: the control group that limits this process, in version 1 and version 2.
 *
 * Everything takes a `root` in front of /proc and /sys: "" for the machine, a folder for tests.
 */
#ifndef PI2_BASE_CGROUP_H
#define PI2_BASE_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PI2_CGROUP_PATH_BYTES = 1024 };

/** A group's folder. path[0 .. mount_length) is the mount point, the topmost visible group. */
typedef struct pi2_cgroup {
    int version; /* 1 or 2 */
    size_t mount_length;
    char path[PI2_CGROUP_PATH_BYTES];
} pi2_cgroup;

/**
 * Finds the group that holds this process for a controller, such as "memory" or "cpu", from
 * proc/self/cgroup and proc/self/mountinfo under root. False when there is none to be seen.
 */
bool pi2_cgroup_find(const char *root, const char *controller, pi2_cgroup *group_out);

/** Goes to the parent group. False, and nothing changed, at the mount point. */
bool pi2_cgroup_parent(pi2_cgroup *group);

/** Reads a control file's text, cut to text_bytes - 1. False when there is no such file. */
bool pi2_cgroup_read(const pi2_cgroup *group, const char *file, char *text, size_t text_bytes);

/** Reads a control file that holds one number. False when it is absent, "max" or no number. */
bool pi2_cgroup_read_number(const pi2_cgroup *group, const char *file, uint64_t *number_out);

/**
 * CPUs that the quotas of the process's group and its ancestors allow, rounded up; 0: no quota.
 */
unsigned pi2_cgroup_cpu_quota(const char *root);

/**
 * Threads and processes that the process's group and its ancestors may still start (pids.max less
 * pids.current). False when nothing limits them.
 */
bool pi2_cgroup_processes_left(const char *root, uint64_t *left_out);

/** Reads a small text file, cut to text_bytes - 1 bytes; text ends with 0. False on any error. */
bool pi2_read_small_file(const char *path, char *text, size_t text_bytes);

/** The number after `key` at the start of a line of text ("key 12", "key:  12 kB"). */
bool pi2_find_number(const char *text, const char *key, uint64_t *number_out);

#endif
