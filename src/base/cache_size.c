/* cache_size.c: see cache_size.h. */
#include "base/cache_size.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/cgroup.h"

enum { MOST_CACHES = 8 };

/* "266240K" */
static uint64_t read_size(const char *text) {
    char *end;
    const unsigned long long number = strtoull(text, &end, 10);
    if (end == text || number > UINT64_MAX >> 30) return 0;
    switch (*end) {
    case 'K': return (uint64_t)number << 10;
    case 'M': return (uint64_t)number << 20;
    case 'G': return (uint64_t)number << 30;
    default: return number;
    }
}

uint64_t pi2_last_level_cache_bytes(const char *root) {
    uint64_t largest = 0;
    for (int i = 0; i < MOST_CACHES; i++) {
        char path[1024], text[32];
        const int length = snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu0/cache/index%d/size", root, i);
        if (length < 0 || (size_t)length >= sizeof path || !pi2_read_small_file(path, text, sizeof text)) continue;
        const uint64_t bytes = read_size(text);
        if (bytes > largest) largest = bytes;
    }
    return largest;
}
