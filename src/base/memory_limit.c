/* memory_limit.c: asks /proc, the control groups and the resource limits; the smallest wins. */
#include "base/memory_limit.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/fail.h"
#include "base/parse_size.h"

/* memory.stat of version 1 is about 2 KB, of version 2 about 3 KB; meminfo is 1.5 KB. */
enum { TEXT_BYTES = 8192 };

static void lower_to(pi2_memory_limit *limit, uint64_t bytes, const char *format, ...)
    PI2_PRINTF_LIKE(3, 4);

static void lower_to(pi2_memory_limit *limit, uint64_t bytes, const char *format, ...) {
    if (bytes >= limit->bytes) return;
    limit->bytes = bytes;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(limit->reason, sizeof limit->reason, format, arguments);
    va_end(arguments);
}

static uint64_t minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

static bool read_under(const char *root, const char *path, char *text, size_t text_bytes) {
    char full[PI2_CGROUP_PATH_BYTES];
    const int length = snprintf(full, sizeof full, "%s%s", root, path);
    if (length < 0 || (size_t)length >= sizeof full) return false;
    return pi2_read_small_file(full, text, text_bytes);
}

static bool kilobytes_as_bytes(const char *text, const char *key, uint64_t *bytes_out) {
    uint64_t kilobytes = 0;
    if (!pi2_find_number(text, key, &kilobytes) || kilobytes > UINT64_MAX / 1024) return false;
    *bytes_out = kilobytes * 1024;
    return true;
}

static void lower_to_machine(const pi2_memory_limit_sources *sources, pi2_memory_limit *limit) {
    char text[TEXT_BYTES], size[PI2_SIZE_TEXT_BYTES];
    uint64_t available = 0;
    if (read_under(sources->root, "/proc/meminfo", text, sizeof text) &&
        kilobytes_as_bytes(text, "MemAvailable", &available)) {
        lower_to(limit, available, "the machine has %s available",
                 pi2_format_size(available, size));
    } else if (sources->physical_bytes) {
        lower_to(limit, sources->physical_bytes / 2,
                 "half of the machine's %s (how much is free is not known here)",
                 pi2_format_size(sources->physical_bytes, size));
    }
}

/* What one group leaves under one of its limits. */
static void lower_to_group_limit(const pi2_cgroup *group, const char *limit_file,
                                 pi2_memory_limit *limit) {
    const bool first = group->version == 1;
    uint64_t most = 0, used = 0, inactive = 0;
    if (!pi2_cgroup_read_number(group, limit_file, &most)) return;
    if (!pi2_cgroup_read_number(group, first ? "memory.usage_in_bytes" : "memory.current", &used)) {
        return;
    }
    char text[TEXT_BYTES];
    if (pi2_cgroup_read(group, "memory.stat", text, sizeof text)) {
        (void)pi2_find_number(text, first ? "total_inactive_file" : "inactive_file", &inactive);
    }
    used = minus(used, inactive);
    char most_text[PI2_SIZE_TEXT_BYTES], used_text[PI2_SIZE_TEXT_BYTES];
    lower_to(limit, minus(most, used), "cgroup v%d limit %s less %s in use (%.150s)",
             group->version, pi2_format_size(most, most_text), pi2_format_size(used, used_text),
             group->path);
}

static void lower_to_groups(const char *root, pi2_memory_limit *limit) {
    pi2_cgroup group;
    if (!pi2_cgroup_find(root, "memory", &group)) return;
    do {
        if (group.version == 1) {
            lower_to_group_limit(&group, "memory.limit_in_bytes", limit);
        } else {
            /* Above memory.high the kernel slows a group down until it is of no use. */
            lower_to_group_limit(&group, "memory.high", limit);
            lower_to_group_limit(&group, "memory.max", limit);
        }
    } while (pi2_cgroup_parent(&group));
}

static void lower_to_resources(const pi2_memory_limit_sources *sources, pi2_memory_limit *limit) {
    char text[TEXT_BYTES], size[PI2_SIZE_TEXT_BYTES];
    uint64_t address_space = 0, data = 0;
    if (read_under(sources->root, "/proc/self/status", text, sizeof text)) {
        (void)kilobytes_as_bytes(text, "VmSize", &address_space);
        (void)kilobytes_as_bytes(text, "VmData", &data);
    }
    if (sources->address_space_bytes != UINT64_MAX) {
        lower_to(limit, minus(sources->address_space_bytes, address_space),
                 "address space is limited to %s (ulimit -v)",
                 pi2_format_size(sources->address_space_bytes, size));
    }
    if (sources->data_bytes != UINT64_MAX) {
        lower_to(limit, minus(sources->data_bytes, data), "data is limited to %s (ulimit -d)",
                 pi2_format_size(sources->data_bytes, size));
    }
}

void pi2_memory_limit_find_in(const pi2_memory_limit_sources *sources,
                              pi2_memory_limit *limit_out) {
    limit_out->bytes = UINT64_MAX;
    (void)snprintf(limit_out->reason, sizeof limit_out->reason, "no limit is known");
    lower_to_machine(sources, limit_out);
    lower_to_groups(sources->root, limit_out);
    lower_to_resources(sources, limit_out);
}

static uint64_t resource_limit(int resource) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return (uint64_t)limit.rlim_cur;
}

static uint64_t physical_bytes(void) {
#ifdef _SC_PHYS_PAGES
    const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page_bytes > 0) return (uint64_t)pages * (uint64_t)page_bytes;
#endif
    return 0;
}

void pi2_memory_limit_find(pi2_memory_limit *limit_out) {
    const pi2_memory_limit_sources sources = {
        .root = "",
#ifdef RLIMIT_AS
        .address_space_bytes = resource_limit(RLIMIT_AS),
#else
        .address_space_bytes = UINT64_MAX,
#endif
        .data_bytes = resource_limit(RLIMIT_DATA),
        .physical_bytes = physical_bytes(),
    };
    pi2_memory_limit_find_in(&sources, limit_out);
}

bool pi2_process_memory(uint64_t *peak_bytes_out, uint64_t *current_bytes_out) {
    *peak_bytes_out = 0;
    *current_bytes_out = 0;
    char text[TEXT_BYTES];
    if (pi2_read_small_file("/proc/self/status", text, sizeof text) &&
        kilobytes_as_bytes(text, "VmHWM", peak_bytes_out) &&
        kilobytes_as_bytes(text, "VmRSS", current_bytes_out)) {
        return true;
    }
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0 || usage.ru_maxrss < 0) return false;
#if defined(__APPLE__)
    *peak_bytes_out = (uint64_t)usage.ru_maxrss;
#else
    *peak_bytes_out = (uint64_t)usage.ru_maxrss * 1024;
#endif
    return true;
}
