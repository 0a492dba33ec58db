/* memory_pressure.c: polls /proc/meminfo, control groups and PSI; see memory_pressure.h. */
#include "base/memory_pressure.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

#include "base/cgroup.h"
#include "base/fail.h"

enum {
    MOST_SOURCES = 10, TEXT_BYTES = 4096, NAME_BYTES = 256,
    LEVEL_SHARE = 32,             /* of a source: the most headroom that is wanted */
    STALL_LOOK_NS = 200000000,    /* PSI is compared over at least this time */
    STALL_SHARE = 10              /* more than a tenth of it lost is pressure */
};
static const int64_t unlimited = INT64_MAX / 4;

/* One limit: the machine, or one of a group's limits. */
typedef struct source {
    int version;                  /* 0: the machine; 1, 2: of control groups */
    int limit_fd, usage_fd, stat_fd; /* the machine: meminfo is stat_fd */
    int64_t expected;             /* headroom that was to be left */
    char name[NAME_BYTES];
} source;

/* A file of pressure stall information. */
typedef struct stall_source {
    int fd;
    uint64_t total_us, looked_ns;
    bool stalls;
} stall_source;

struct pi2_memory_pressure {
    source sources[MOST_SOURCES];
    unsigned count;
    stall_source stall;
    int event_fd;                 /* "critical" of a version 1 group; -1: none */
    char description[NAME_BYTES];
};

/* ---- opening ---- */

static int open_file(const char *folder, const char *name) {
    char path[PI2_CGROUP_PATH_BYTES + 64];
    const int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    return length < 0 || (size_t)length >= sizeof path ? -1 : open(path, O_RDONLY | O_CLOEXEC);
}

static void close_file(int fd) {
    if (fd >= 0) (void)close(fd);
}

static void add_source(pi2_memory_pressure *pressure, const source *added) {
    if (pressure->count < MOST_SOURCES) {
        pressure->sources[pressure->count] = *added;
        pressure->sources[pressure->count++].expected = unlimited;
        return;
    }
    close_file(added->limit_fd);
    close_file(added->usage_fd);
    close_file(added->stat_fd);
}

static void add_group_limit(pi2_memory_pressure *pressure, const pi2_cgroup *group, const char *limit,
                            const char *usage) {
    source added = {.version = group->version, .limit_fd = open_file(group->path, limit),
                    .usage_fd = open_file(group->path, usage), .stat_fd = open_file(group->path, "memory.stat")};
    if (added.limit_fd < 0 || added.usage_fd < 0) {
        close_file(added.limit_fd);
        close_file(added.usage_fd);
        close_file(added.stat_fd);
        return;
    }
    (void)snprintf(added.name, sizeof added.name, "cgroup v%d limit (%.200s)", group->version, group->path);
    add_source(pressure, &added);
}

/*
 * Asks for the kernel's note that the group cannot reclaim enough. Only the group's owner may. Without "local" a group
 * is told of those below it too, which have limits of their own; kernels before 4.13 know no such word, and refuse it.
 */
static int listen_to_group(const pi2_cgroup *group) {
#if defined(__linux__)
    const int level = open_file(group->path, "memory.pressure_level");
    if (level < 0) return -1;
    char path[PI2_CGROUP_PATH_BYTES + 64], line[64];
    (void)snprintf(path, sizeof path, "%s/cgroup.event_control", group->path);
    const int control = open(path, O_WRONLY | O_CLOEXEC);
    int event = control >= 0 ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;
    const int length = snprintf(line, sizeof line, "%d %d critical,local", event, level);
    if (event >= 0 && write(control, line, (size_t)length) != length) {
        close_file(event);
        event = -1;
    }
    close_file(control);
    close_file(level);
    return event;
#else
    (void)group;
    return -1;
#endif
}

static void add_groups(pi2_memory_pressure *pressure, const char *root, bool *has_stall) {
    pi2_cgroup group;
    if (!pi2_cgroup_find(root, "memory", &group)) return;
    if (group.version == 1 && *root == '\0') pressure->event_fd = listen_to_group(&group);
    if (group.version == 2) {
        pressure->stall.fd = open_file(group.path, "memory.pressure");
        *has_stall = pressure->stall.fd >= 0;
    }
    do {
        if (group.version == 1) {
            add_group_limit(pressure, &group, "memory.limit_in_bytes", "memory.usage_in_bytes");
        } else {
            /* Above memory.high the kernel slows a group down until it is of no use. */
            add_group_limit(pressure, &group, "memory.high", "memory.current");
            add_group_limit(pressure, &group, "memory.max", "memory.current");
        }
    } while (pi2_cgroup_parent(&group));
}

static void describe(pi2_memory_pressure *pressure) {
    const bool machine = pressure->count && pressure->sources[0].version == 0;
    const int group = pressure->count > 1 ? pressure->sources[1].version
                    : pressure->count && !machine ? pressure->sources[0].version : 0;
    char limits[32] = "";
    if (group) (void)snprintf(limits, sizeof limits, ", cgroup v%d limits", group);
    (void)snprintf(pressure->description, sizeof pressure->description, "%s%s%s%s",
                   machine ? "the machine's available memory" : "no available memory", limits,
                   pressure->event_fd >= 0 ? ", its critical events" : "", pressure->stall.fd >= 0 ? ", PSI" : "");
}

pi2_status pi2_memory_pressure_open(const char *root, pi2_memory_pressure **pressure_out) {
    *pressure_out = NULL;
    pi2_memory_pressure *pressure = calloc(1, sizeof *pressure);
    if (!pressure) return pi2_fail(PI2_ERR_MEMORY, "no memory to watch the memory with");
    pressure->event_fd = pressure->stall.fd = -1;
    source machine = {.limit_fd = -1, .usage_fd = -1};
    char folder[PI2_CGROUP_PATH_BYTES];
    (void)snprintf(folder, sizeof folder, "%.900s/proc", root);
    machine.stat_fd = open_file(folder, "meminfo");
    (void)snprintf(machine.name, sizeof machine.name, "the machine's available memory");
    if (machine.stat_fd >= 0) add_source(pressure, &machine);
    bool has_stall = false;
    add_groups(pressure, root, &has_stall);
    if (!has_stall) pressure->stall.fd = open_file(folder, "pressure/memory");
    describe(pressure);
    *pressure_out = pressure;
    return PI2_OK;
}

void pi2_memory_pressure_close(pi2_memory_pressure *pressure) {
    if (!pressure) return;
    for (unsigned i = 0; i < pressure->count; i++) {
        close_file(pressure->sources[i].limit_fd);
        close_file(pressure->sources[i].usage_fd);
        close_file(pressure->sources[i].stat_fd);
    }
    close_file(pressure->stall.fd);
    close_file(pressure->event_fd);
    free(pressure);
}

/* ---- reading ---- */

static bool read_text(int fd, char *text, size_t bytes) {
    const ssize_t length = fd < 0 ? -1 : pread(fd, text, bytes - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    return length > 0;
}

/* A file with one number; unlimited for "max" and for what is no limit on any machine. */
static bool read_number(int fd, int64_t *number) {
    char text[64];
    if (!read_text(fd, text, sizeof text)) return false;
    *number = unlimited;
    if (text[0] < '0' || text[0] > '9') return strncmp(text, "max", 3) == 0;
    const unsigned long long value = strtoull(text, NULL, 10);
    if (value < (unsigned long long)unlimited) *number = (int64_t)value;
    return true;
}

static int64_t find_bytes(const char *text, const char *key, unsigned unit) {
    uint64_t value = 0;
    if (!pi2_find_number(text, key, &value) || value > (uint64_t)unlimited / unit) return 0;
    return (int64_t)(value * unit);
}

/* Bytes of a group that the kernel can drop: file cache that is nobody's shared memory. */
static int64_t droppable(const source *from) {
    char text[TEXT_BYTES];
    if (!read_text(from->stat_fd, text, sizeof text)) return 0;
    const bool first = from->version == 1;
    return find_bytes(text, first ? "total_inactive_file" : "inactive_file", 1) +
           find_bytes(text, first ? "total_active_file" : "active_file", 1);
}

/* Headroom, once `to_come` bytes more are taken, and size of a source; false: it limits nothing now. */
static bool look(const source *from, int64_t to_come, int64_t *headroom, int64_t *size) {
    if (from->version == 0) {
        char text[TEXT_BYTES];
        if (!read_text(from->stat_fd, text, sizeof text)) return false;
        *headroom = find_bytes(text, "MemAvailable", 1024) - to_come;
        *size = find_bytes(text, "MemTotal", 1024);
        return *size > 0;
    }
    int64_t usage = 0;
    if (!read_number(from->limit_fd, size) || *size >= unlimited / 2) return false;
    if (!read_number(from->usage_fd, &usage)) return false;
    *headroom = *size - usage - to_come;
    /* The statistics cost more to read than the rest, and are asked only where they may matter. */
    const int64_t ample = *size / LEVEL_SHARE * 4;
    if (*headroom < ample || (from->expected < unlimited && *headroom < 2 * from->expected)) {
        *headroom += droppable(from);
    }
    return true;
}

void pi2_memory_pressure_expect(pi2_memory_pressure *pressure, uint64_t bytes) {
    for (unsigned i = 0; i < pressure->count; i++) {
        source *from = &pressure->sources[i];
        int64_t headroom, size;
        from->expected = unlimited;
        const int64_t later = bytes < (uint64_t)unlimited ? (int64_t)bytes : unlimited;
        if (look(from, later, &headroom, &size)) from->expected = headroom > 0 ? headroom : 0;
    }
}

/* Below `low` memory is missing; above `high` some may be taken. */
static void levels(const source *from, int64_t size, int64_t *low, int64_t *high) {
    const int64_t most = size / LEVEL_SHARE;
    *low = from->expected / 2 < most ? from->expected / 2 : most;
    *high = *low + ((from->expected - *low) / 2 < most ? (from->expected - *low) / 2 : most);
}

static bool stalls(stall_source *stall, uint64_t now_ns) {
    if (stall->fd < 0 || now_ns - stall->looked_ns < STALL_LOOK_NS) return stall->stalls;
    char text[256];
    const char *total = read_text(stall->fd, text, sizeof text) ? strstr(text, "total=") : NULL;
    if (!total) return stall->stalls = false;
    const uint64_t total_us = strtoull(total + 6, NULL, 10), lost_us = total_us - stall->total_us;
    const uint64_t passed_us = (now_ns - stall->looked_ns) / 1000;
    stall->stalls = stall->looked_ns != 0 && total_us > stall->total_us && lost_us > passed_us / STALL_SHARE;
    stall->total_us = total_us;
    stall->looked_ns = now_ns;
    return stall->stalls;
}

void pi2_memory_pressure_ask(pi2_memory_pressure *pressure, uint64_t now_ns, uint64_t to_come,
                             pi2_memory_reading *reading) {
    int64_t most_missing = 0, least_spare = unlimited;
    *reading = (pi2_memory_reading){0};
    for (unsigned i = 0; i < pressure->count; i++) {
        const source *from = &pressure->sources[i];
        int64_t headroom, size, low, high;
        if (!look(from, (int64_t)to_come, &headroom, &size)) continue;
        levels(from, size, &low, &high);
        if (low - headroom > most_missing) {
            most_missing = low - headroom;
            reading->source = from->name;
        }
        if (headroom - high < least_spare) least_spare = headroom - high;
    }
    reading->missing = (uint64_t)most_missing;
    reading->spare = most_missing == 0 && least_spare > 0 ? (uint64_t)least_spare : 0;
    /* Others may stall within limits of their own: it concerns us only where room is scarce too. */
    reading->urgent = stalls(&pressure->stall, now_ns) && reading->spare == 0;
    if (reading->urgent && !reading->source) reading->source = "tasks stall for memory (PSI)";
    uint64_t notes = 0;
    if (pressure->event_fd >= 0 && read(pressure->event_fd, &notes, sizeof notes) == (ssize_t)sizeof notes) {
        reading->urgent = true;
        reading->spare = 0;
        if (!reading->source) reading->source = "the cgroup cannot reclaim (critical)";
    }
}

const char *pi2_memory_pressure_description(const pi2_memory_pressure *pressure) { return pressure->description; }
