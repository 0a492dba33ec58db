/*
 * curl_library.h: libcurl, loaded when something is downloaded: with TLS it takes several MB of a process, which every
 * other run keeps for weights. Code that downloads includes this instead of <curl/curl.h>.
 */
#ifndef PI2_CLI_CURL_LIBRARY_H
#define PI2_CLI_CURL_LIBRARY_H

#include <curl/curl.h>
#include <stdbool.h>

/* Its headers check arguments with macros of these names. */
#undef curl_easy_setopt
#undef curl_easy_getinfo

#define PI2_CURL_FUNCTIONS(FUNCTION) \
    FUNCTION(easy_cleanup)           \
    FUNCTION(easy_getinfo)           \
    FUNCTION(easy_init)              \
    FUNCTION(easy_perform)           \
    FUNCTION(easy_setopt)            \
    FUNCTION(easy_strerror)          \
    FUNCTION(global_init)            \
    FUNCTION(slist_append)           \
    FUNCTION(slist_free_all)

typedef struct pi2_curl_library {
#define POINTER(name) __typeof__(curl_##name) *name;
    PI2_CURL_FUNCTIONS(POINTER)
#undef POINTER
} pi2_curl_library;
extern pi2_curl_library pi2_curl;

/** Loads it, once; false, with why in *reason_out: it is not there. Threads: one. */
bool pi2_curl_load(const char **reason_out);

#endif
