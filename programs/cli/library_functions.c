/* library_functions.c: dlsym() gives addresses of data, which are those of functions on every POSIX system. */
#include "library_functions.h"

#include <dlfcn.h>
#include <string.h>

bool pi2_cli_find_function(void *library, const char *name, void *pointer, size_t bytes) {
    void *address = dlsym(library, name);
    if (!address || bytes != sizeof address) return false;
    memcpy(pointer, &address, bytes);
    return true;
}
