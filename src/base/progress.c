/* progress.c */
#include "base/progress.h"

#include "base/clock.h"
#include "base/fail.h"

enum { INTERVAL_NS = 100 * 1000 * 1000 };

pi2_status pi2_progress_tell(pi2_progress *progress, uint64_t done_bytes) {
    const pi2_callbacks *callbacks = progress->callbacks;
    if (!callbacks) return PI2_OK;
    if (callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
        return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
    }
    const uint64_t now = pi2_clock_ns();
    const bool is_end = done_bytes == progress->total_bytes;
    if (callbacks->progress && !progress->has_told_end && (is_end || now >= progress->next_report_ns)) {
        progress->has_told_end = is_end;
        progress->next_report_ns = now + INTERVAL_NS;
        callbacks->progress(callbacks->user, progress->what, done_bytes, progress->total_bytes);
    }
    return PI2_OK;
}
