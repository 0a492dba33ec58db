/* callbacks.h: what the library tells whoever called it while it works, and asks them. */
#ifndef POWERINFER2_CALLBACKS_H
#define POWERINFER2_CALLBACKS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What the library tells while it works; all may be NULL. Called on the thread that called us,
 *  except `log`, which may come from the reader's thread. Must not call back into the library. */
typedef struct pi2_callbacks {
    void *user;
    /** One line without newline: what was chosen and why, or what is waited for. */
    void (*log)(void *user, const char *line);
    /** done of total units of `what` ("preparing", "loading", "prompt", "counting"), at most ten times a second. */
    void (*progress)(void *user, const char *what, uint64_t done, uint64_t total);
    /** True asks the running call to stop: it returns PI2_ERR_INTERRUPTED. Asked once a layer or MB. */
    bool (*cancelled)(void *user);
} pi2_callbacks;

#ifdef __cplusplus
}
#endif
#endif
