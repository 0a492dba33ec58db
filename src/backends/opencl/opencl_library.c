/* opencl_library.c: libOpenCL, loaded once. */
#include "backends/opencl/opencl_library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static pi2_opencl_library functions;
static bool is_found;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A function's address through an object pointer's bytes: C has no other way from dlsym(). */
static bool find(void *library, const char *name, void *pointer, size_t bytes) {
    void *address = dlsym(library, name);
    memcpy(pointer, &address, bytes);
    return address != NULL;
}

static void load(void) {
    /* Behind the system's: where phones have their driver, which is its own loader. */
    static const char *const names[] = { "libOpenCL.so.1", "libOpenCL.so", "/vendor/lib64/libOpenCL.so",
                                         "/system/vendor/lib64/libOpenCL.so" };
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !library; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    is_found = library != NULL;
#define PI2_OPENCL_FIND(name) is_found = is_found && find(library, "cl" #name, &functions.name, sizeof functions.name);
    PI2_OPENCL_FUNCTIONS(PI2_OPENCL_FIND)
#undef PI2_OPENCL_FIND
}

const pi2_opencl_library *pi2_opencl_load(void) {
    (void)pthread_once(&once, load);
    return is_found ? &functions : NULL;
}
