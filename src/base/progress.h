/* progress.h: tells a caller how far long work is, and asks whether to go on. */
#ifndef PI2_BASE_PROGRESS_H
#define PI2_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/engine.h"

typedef struct pi2_progress {
    const pi2_callbacks *callbacks; /* NULL: nobody asks */
    const char *what;               /* "preparing" */
    uint64_t total_bytes;
    uint64_t next_report_ns;        /* this and the next: as they begin, 0 */
    bool has_told_end;
} pi2_progress;

/**
 * So many bytes of all are done. Reports ten times a second at most, and the end once, whenever it comes.
 * Threads: the caller's alone, as its callbacks are called. Errors  INTERRUPTED
 */
pi2_status pi2_progress_tell(pi2_progress *progress, uint64_t done_bytes);

#endif
