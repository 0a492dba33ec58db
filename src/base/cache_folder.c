/* cache_folder.c: the folder of the XDG Base Directory Specification. */
#include "base/cache_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool pi2_cache_folder(char *path, size_t capacity) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (cache && *cache == '/') length = snprintf(path, capacity, "%s/powerinfer2", cache);
    else if (home && *home) length = snprintf(path, capacity, "%s/.cache/powerinfer2", home);
    return length > 0 && (size_t)length < capacity;
}

void pi2_folders_make_above(const char *path) {
    char folder[1024];
    if (!*path) return;
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        if ((size_t)(slash - path) >= sizeof folder) return;
        memcpy(folder, path, (size_t)(slash - path));
        folder[slash - path] = '\0';
        (void)mkdir(folder, 0777);
    }
}
