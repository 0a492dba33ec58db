/* curl_library.c: the functions of libcurl, found when something is downloaded. */
#include "curl_library.h"

#include <dlfcn.h>

#include "library_functions.h"

pi2_curl_library pi2_curl;

bool pi2_curl_load(const char **reason_out) {
    /* One interface under the names of its two builds. */
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !found; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        found = library != NULL;
#define FIND(name) found = found && pi2_cli_find_function(library, "curl_" #name, &pi2_curl.name, sizeof pi2_curl.name);
        PI2_CURL_FUNCTIONS(FIND)
#undef FIND
    }
    *reason_out = "libcurl.so.4 is not there, or lacks a function";
    return found && pi2_curl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}
