/*
 * http_library.h: libmicrohttpd, loaded when the server starts. It brings ten more libraries (TLS and what that needs),
 * which take about 2 MB of every process that they are linked to: a run that serves nobody keeps that for weights.
 *
 * Code of the server includes this instead of <microhttpd.h>, and calls its functions by their names.
 */
#ifndef PI2_SERVER_HTTP_LIBRARY_H
#define PI2_SERVER_HTTP_LIBRARY_H

#include <microhttpd.h>
#include <stdbool.h>

#define PI2_HTTP_FUNCTIONS(FUNCTION)        \
    FUNCTION(add_connection)                \
    FUNCTION(add_response_header)           \
    FUNCTION(create_response_from_buffer)   \
    FUNCTION(create_response_from_callback) \
    FUNCTION(destroy_response)              \
    FUNCTION(get_connection_info)           \
    FUNCTION(is_feature_supported)          \
    FUNCTION(lookup_connection_value)       \
    FUNCTION(queue_response)                \
    FUNCTION(set_connection_option)         \
    FUNCTION(start_daemon)                  \
    FUNCTION(stop_daemon)

typedef struct pi2_http_library {
#define POINTER(name) __typeof__(MHD_##name) *name;
    PI2_HTTP_FUNCTIONS(POINTER)
#undef POINTER
} pi2_http_library;
extern pi2_http_library pi2_http;

/** Loads it, once; false, with why in *reason_out (static until the next call): it is not there, or another one.
 *  Threads: one, before any of its functions is called. */
bool pi2_http_load(const char **reason_out);

#define MHD_add_connection pi2_http.add_connection
#define MHD_add_response_header pi2_http.add_response_header
#define MHD_create_response_from_buffer pi2_http.create_response_from_buffer
#define MHD_create_response_from_callback pi2_http.create_response_from_callback
#define MHD_destroy_response pi2_http.destroy_response
#define MHD_get_connection_info pi2_http.get_connection_info
#define MHD_is_feature_supported pi2_http.is_feature_supported
#define MHD_lookup_connection_value pi2_http.lookup_connection_value
#define MHD_queue_response pi2_http.queue_response
#define MHD_set_connection_option pi2_http.set_connection_option
#define MHD_start_daemon pi2_http.start_daemon
#define MHD_stop_daemon pi2_http.stop_daemon

#endif
