/* http_library.c: the functions of libmicrohttpd, found when the server starts. */
#include "http_library.h"

#include <dlfcn.h>
#include <string.h>

#include "cli/library_functions.h"

pi2_http_library pi2_http;

bool pi2_http_load(const char **reason_out) {
    *reason_out = "";
    if (pi2_http.start_daemon) return true;
    void *library = dlopen(PI2_MICROHTTPD_FILE, RTLD_NOW | RTLD_LOCAL);
    bool found = library != NULL;
#define FIND(name) found = found && pi2_cli_find_function(library, "MHD_" #name, &pi2_http.name, sizeof pi2_http.name);
    PI2_HTTP_FUNCTIONS(FIND)
#undef FIND
    if (found) return true; /* it stays until the process ends */
    const char *error = dlerror();
    *reason_out = error ? error : PI2_MICROHTTPD_FILE ": a function is missing";
    memset(&pi2_http, 0, sizeof pi2_http);
    return false;
}
