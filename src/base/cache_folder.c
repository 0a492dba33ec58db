/* cache_folder.c: the folder of the XDG Base Directory Specification. */
#include "base/cache_folder.h"

#include <stdio.h>
#include <stdlib.h>

bool pi2_cache_folder(char *path, size_t capacity) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (cache && *cache == '/') length = snprintf(path, capacity, "%s/powerinfer2", cache);
    else if (home && *home) length = snprintf(path, capacity, "%s/.cache/powerinfer2", home);
    return length > 0 && (size_t)length < capacity;
}
