/* status.h: the one error type of powerinfer2. */
#ifndef POWERINFER2_STATUS_H
#define POWERINFER2_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PI2_API __attribute__((visibility("default")))
#else
#define PI2_API
#endif

/** What a call came to. Every value but PI2_OK sets pi2_error_text(). */
typedef enum pi2_status {
    PI2_OK = 0,
    PI2_ERR_INVALID,     /* an argument is out of range: the caller's mistake */
    PI2_ERR_FORMAT,      /* a file, template or request does not follow its format */
    PI2_ERR_UNSUPPORTED, /* well-formed, but of a kind that this version does not run */
    PI2_ERR_MEMORY,      /* the budget or the machine cannot give the memory */
    PI2_ERR_IO,          /* the operating system refused to read, write or lock */
    PI2_ERR_CONTEXT,     /* the context window is full */
    PI2_ERR_INTERRUPTED  /* the caller's cancel callback asked to stop */
} pi2_status;

/**
 * The message of the last failed call of this thread: one line that names what
 * was wrong, where (file, tensor, byte offset) and what to do. Never NULL; empty
 * before the first failure. Valid until this thread's next failing call.
 */
PI2_API const char *pi2_error_text(void);

/** A short fixed name of a status, such as "out of memory". Never NULL. */
PI2_API const char *pi2_status_name(pi2_status status);

#ifdef __cplusplus
}
#endif
#endif
