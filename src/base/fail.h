/* fail.h: how the library reports an error: set this thread's text, return the status. */
#ifndef PI2_BASE_FAIL_H
#define PI2_BASE_FAIL_H

#include "powerinfer2/status.h"

#if defined(__GNUC__)
#define PI2_PRINTF_LIKE(format_index, first_argument) \
    __attribute__((format(printf, format_index, first_argument)))
#else
#define PI2_PRINTF_LIKE(format_index, first_argument)
#endif

/** Sets pi2_error_text() for this thread and returns `status`. Text over 1023 bytes is cut. */
pi2_status pi2_fail(pi2_status status, const char *format, ...) PI2_PRINTF_LIKE(2, 3);

/** Puts "context: " before the present text and returns `status`. */
pi2_status pi2_fail_prefix(pi2_status status, const char *format, ...) PI2_PRINTF_LIKE(2, 3);

/** Puts the file's path before a failure's text that does not name it, and returns `status`; PI2_OK: nothing. */
pi2_status pi2_fail_in_file(pi2_status status, const char *path);

/** Returns from the calling function when `call` fails. */
#define PI2_TRY(call)                                   \
    do {                                                \
        const pi2_status pi2_try_status = (call);       \
        if (pi2_try_status != PI2_OK) return pi2_try_status; \
    } while (0)

#endif
