/* status.c: thread-local error text. */
#include "base/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ERROR_TEXT_BYTES = 1024 };
static _Thread_local char error_text[ERROR_TEXT_BYTES];

const char *pi2_error_text(void) { return error_text; }

pi2_status pi2_fail(pi2_status status, const char *format, ...) {
    char text[ERROR_TEXT_BYTES]; /* arguments may point into error_text */
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(error_text, text, sizeof text);
    return status;
}

pi2_status pi2_fail_prefix(pi2_status status, const char *format, ...) {
    char prefix[ERROR_TEXT_BYTES / 2];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(prefix, sizeof prefix, format, arguments);
    va_end(arguments);
    char old_text[ERROR_TEXT_BYTES];
    memcpy(old_text, error_text, sizeof old_text);
    const size_t prefix_length = strlen(prefix);
    memcpy(error_text, prefix, prefix_length);
    (void)snprintf(error_text + prefix_length, sizeof error_text - prefix_length, ": %.*s",
                   (int)(sizeof error_text - prefix_length - 3), old_text);
    return status;
}

pi2_status pi2_fail_in_file(pi2_status status, const char *path) {
    return status == PI2_OK || strstr(error_text, path) ? status : pi2_fail_prefix(status, "%s", path);
}

const char *pi2_status_name(pi2_status status) {
    switch (status) {
    case PI2_OK: return "ok";
    case PI2_ERR_INVALID: return "invalid argument";
    case PI2_ERR_FORMAT: return "bad format";
    case PI2_ERR_UNSUPPORTED: return "not supported";
    case PI2_ERR_MEMORY: return "out of memory";
    case PI2_ERR_IO: return "input/output error";
    case PI2_ERR_CONTEXT: return "context full";
    case PI2_ERR_INTERRUPTED: return "interrupted";
    }
    return "unknown status";
}
