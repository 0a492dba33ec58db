/* reader.c: what all read methods share: the queue, booking of results, waiting, opening. */
#define _GNU_SOURCE /* O_DIRECT */
#if defined(__APPLE__)
#define _DARWIN_C_SOURCE /* F_NOCACHE */
#endif
#include "storage/reader.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fail.h"
#include "storage/described_reader.h"
#include "storage/read_method.h"

enum {
    MOST_ATTEMPTS = 64,      /* of one read without progress, before it counts as failed */
    NAP_AFTER_ATTEMPTS = 4,  /* a system that says "again" this often is given a little time */
    NAP_NS = 1000000,
    DEFAULT_STALL_MS = 2000,
    LEAST_SECTOR = 512
};

static const pi2_read_method *const read_methods[] = {
#define READ_METHOD(name) &pi2_read_method_##name,
#include "storage/read_methods.inc"
#undef READ_METHOD
};
enum { METHOD_COUNT = sizeof read_methods / sizeof read_methods[0] };

const char *const *pi2_reader_method_names(void) {
    static const char *const names[METHOD_COUNT + 1] = {
#define READ_METHOD(name) #name,
#include "storage/read_methods.inc"
#undef READ_METHOD
    };
    return names;
}

/* ---- The queue ---- */

static void push_locked(pi2_read_queue *queue, pi2_read_request *request) {
    const int priority = request->priority == PI2_READ_LIKELY ? PI2_READ_LIKELY : PI2_READ_CERTAIN;
    request->next = NULL;
    if (queue->last[priority]) {
        queue->last[priority]->next = request;
    } else {
        queue->first[priority] = request;
    }
    queue->last[priority] = request;
    (void)atomic_fetch_add(&queue->length[priority], 1);
}

static pi2_read_request *pop_locked(pi2_read_queue *queue, int priority) {
    pi2_read_request *request = queue->first[priority];
    if (!request) return NULL;
    queue->first[priority] = request->next;
    if (!request->next) queue->last[priority] = NULL;
    request->next = NULL;
    (void)atomic_fetch_sub(&queue->length[priority], 1);
    return request;
}

/* Takes a particular request out; false when it is not there. */
static bool remove_locked(pi2_read_queue *queue, int priority, pi2_read_request *request) {
    pi2_read_request *before = NULL;
    for (pi2_read_request *r = queue->first[priority]; r; before = r, r = r->next) {
        if (r != request) continue;
        if (!before) return pop_locked(queue, priority) != NULL;
        before->next = r->next;
        if (!r->next) queue->last[priority] = before;
        r->next = NULL;
        (void)atomic_fetch_sub(&queue->length[priority], 1);
        return true;
    }
    return false;
}

/* Whether the first of the CERTAIN ones may begin beside those in flight. */
static bool may_begin_locked(const pi2_reader *reader) {
    const pi2_read_queue *queue = &reader->queue;
    const pi2_read_request *first = queue->first[PI2_READ_CERTAIN];
    const uint64_t now = queue->bytes_in_flight, most = reader->most_bytes_in_flight;
    return first && (now == 0 || (now < most && first->bytes <= most - now));
}

pi2_read_request *pi2_read_take_locked(pi2_reader *reader, uint32_t most) {
    pi2_read_queue *queue = &reader->queue;
    pi2_read_request *first = NULL, **link = &first;
    uint64_t now = 0;
    for (; most > 0; most--) {
        if (queue->first[PI2_READ_CERTAIN] && !may_begin_locked(reader)) break;
        pi2_read_request *request = pop_locked(queue, PI2_READ_CERTAIN);
        if (!request && queue->in_flight < reader->likely_depth) {
            request = pop_locked(queue, PI2_READ_LIKELY);
        }
        if (!request) break;
        if (!now) now = pi2_clock_ns();
        queue->bytes_in_flight += request->bytes;
        if (queue->in_flight++ == 0) queue->busy_since_ns = now;
        if (request->priority == PI2_READ_LIKELY) queue->likely_in_flight++;
        request->submitted_ns = now;
        *link = request;
        link = &request->next;
    }
    return first;
}

pi2_read_request *pi2_read_take(pi2_reader *reader, uint32_t most) {
    (void)pthread_mutex_lock(&reader->queue.mutex);
    pi2_read_request *first = pi2_read_take_locked(reader, most);
    (void)pthread_mutex_unlock(&reader->queue.mutex);
    return first;
}

bool pi2_read_has_work(pi2_reader *reader) {
    pi2_read_queue *queue = &reader->queue;
    if (atomic_load(&queue->length[PI2_READ_CERTAIN]) == 0 && atomic_load(&queue->length[PI2_READ_LIKELY]) == 0) {
        return false;
    }
    (void)pthread_mutex_lock(&queue->mutex);
    const bool may_begin = queue->first[PI2_READ_CERTAIN]
                               ? may_begin_locked(reader)
                               : queue->in_flight < reader->likely_depth && queue->first[PI2_READ_LIKELY];
    (void)pthread_mutex_unlock(&queue->mutex);
    return may_begin;
}

/* ---- One request ---- */

void pi2_read_begin(const pi2_reader *reader, pi2_read_request *request,
                    pi2_read_progress *progress_out) {
    const uint64_t left = reader->file_bytes - request->offset; /* checked at submit */
    *progress_out = (pi2_read_progress){
        .request = request,
        .needed = left < request->bytes ? (uint32_t)left : request->bytes,
    };
    request->bytes_done = 0;
    request->status = PI2_OK;
    request->error_number = 0;
}

int64_t pi2_read_hooked(const pi2_reader *reader, const pi2_read_progress *progress,
                        int64_t result) {
    if (!reader->hooks->read_result) return result;
    return reader->hooks->read_result(reader->hooks->context, &progress->operation, result);
}

/* Where byte `at` of a request lies, and how many follow it there. */
static struct iovec place_at(const pi2_read_progress *progress, uint32_t at) {
    const pi2_read_request *request = progress->request;
    if (!request->pieces) {
        return (struct iovec){(unsigned char *)request->destination + at, request->bytes - at};
    }
    unsigned char *piece = request->pieces[at / request->piece_bytes];
    const uint32_t within = at % request->piece_bytes;
    if (piece) return (struct iovec){piece + within, request->piece_bytes - within};
    const uint32_t left = request->piece_bytes - within;
    return (struct iovec){progress->dropped, left < PI2_READ_ALIGNMENT ? left : PI2_READ_ALIGNMENT};
}

void pi2_read_next(pi2_read_progress *progress) {
    const pi2_read_request *request = progress->request;
    pi2_read_operation *operation = &progress->operation;
    const uint32_t most = progress->one_by_one ? 1 : PI2_READ_PIECES;
    operation->offset = request->offset + progress->begin;
    operation->direct = !progress->buffered;
    operation->bytes = operation->place_count = 0;
    for (uint32_t at = progress->begin; at < request->bytes;) {
        const struct iovec place = place_at(progress, at);
        struct iovec *last = operation->place_count ? &operation->places[operation->place_count - 1] : NULL;
        if (last && (unsigned char *)last->iov_base + last->iov_len == place.iov_base) {
            last->iov_len += place.iov_len;
        } else if (operation->place_count < most) {
            operation->places[operation->place_count++] = place;
        } else {
            return;
        }
        operation->bytes += (uint32_t)place.iov_len;
        at += (uint32_t)place.iov_len;
    }
}

static void nap(void) {
    const struct timespec time = {.tv_sec = 0, .tv_nsec = NAP_NS};
    (void)nanosleep(&time, NULL);
}

static bool fail_request(pi2_read_request *request, int error_number) {
    request->status = PI2_ERR_IO;
    request->error_number = error_number;
    return true;
}

static bool book_error(pi2_read_progress *progress, int error_number) {
    const bool is_passing = error_number == EINTR || error_number == EAGAIN;
    if (is_passing && ++progress->attempts < MOST_ATTEMPTS) {
        if (error_number == EAGAIN && progress->attempts > NAP_AFTER_ATTEMPTS) nap();
        return false;
    }
    const bool is_refused = error_number == EINVAL || error_number == EOPNOTSUPP;
    if (is_refused && progress->operation.place_count > 1) {
        progress->one_by_one = true;
        return false;
    }
    if (is_refused && !progress->buffered) {
        progress->buffered = true;
        return false;
    }
    return fail_request(progress->request, error_number);
}

/*
 * A short read goes on at the last sector's beginning before its end, because O_DIRECT takes no
 * other; so up to 4095 bytes are read twice, and a read may succeed without progress.
 */
bool pi2_read_book(const pi2_reader *reader, pi2_read_progress *progress, int64_t result) {
    pi2_read_request *request = progress->request;
    if (result < 0) return book_error(progress, (int)-result);
    if (result > progress->operation.bytes) return book_error(progress, EIO); /* more than was asked for */
    const uint32_t end = progress->begin + (uint32_t)result;
    if (end >= progress->needed) {
        request->bytes_done = progress->needed;
        /* Less than a page, so they lie together. */
        const uint32_t behind = request->bytes - progress->needed;
        if (behind > 0) memset(place_at(progress, progress->needed).iov_base, 0, behind);
        return true;
    }
    if (end > request->bytes_done) {
        request->bytes_done = end;
        progress->attempts = 0;
    } else if (result == 0 || ++progress->attempts >= MOST_ATTEMPTS) {
        return fail_request(request, 0);
    }
    progress->begin = request->bytes_done & ~(reader->sector_bytes - 1);
    return false;
}

static void publish(pi2_reader *reader, pi2_read_request *request) {
    /* After the exchange the request may be gone: the wake-up uses its address only. Of a hundred reads that are in
     * flight one or two are slept for: the others' ends cost no system call. */
    const int before =
        atomic_exchange(&request->state, request->status == PI2_OK ? PI2_READ_DONE : PI2_READ_FAILED);
    if (before == PI2_READ_AWAITED) pi2_wake_sleepers(&reader->sleepers, &request->state);
    (void)atomic_fetch_add(&reader->ended, 1);
    pi2_wake_sleepers(&reader->next_sleepers, &reader->ended);
}

/* Of the file's bytes of a request, those of its NULL pieces. */
static uint64_t dropped_bytes(const pi2_read_progress *progress) {
    const pi2_read_request *request = progress->request;
    uint64_t bytes = 0;
    for (uint32_t at = 0; request->pieces && at < progress->needed; at += request->piece_bytes) {
        const uint32_t left = progress->needed - at;
        if (!request->pieces[at / request->piece_bytes]) {
            bytes += left < request->piece_bytes ? left : request->piece_bytes;
        }
    }
    return bytes;
}

void pi2_read_finish(pi2_reader *reader, pi2_read_progress *progress) {
    pi2_read_request *request = progress->request;
    pi2_read_queue *queue = &reader->queue;
    const uint64_t now = pi2_clock_ns();
    const uint64_t dropped = dropped_bytes(progress);
    request->completed_ns = now;
    (void)pthread_mutex_lock(&queue->mutex);
    if (request->priority == PI2_READ_LIKELY) queue->likely_in_flight--;
    queue->bytes_in_flight -= request->bytes;
    if (--queue->in_flight == 0) queue->counters.device_busy_ns += now - queue->busy_since_ns;
    if (request->status == PI2_OK) {
        queue->counters.bytes_read += progress->needed;
        queue->counters.bytes_dropped += dropped;
        queue->counters.reads++;
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    if (reader->trace && request->status == PI2_OK) {
        pi2_timeline_read(reader->trace, request->offset, progress->needed, request->priority == PI2_READ_LIKELY,
                       request->submitted_ns, now);
    }
    publish(reader, request);
}

/* ---- Submitting and waiting ---- */

static bool memory_is_valid(const pi2_reader *reader, const pi2_read_request *request) {
    if (!request->pieces) {
        return request->destination && (uintptr_t)request->destination % reader->sector_bytes == 0;
    }
    const uint32_t each = request->piece_bytes;
    if (each == 0 || each % reader->sector_bytes != 0 || request->bytes % each != 0) return false;
    if (request->bytes / each > PI2_READ_PIECES) return false;
    for (uint32_t i = 0; i < request->bytes / each; i++) {
        if ((uintptr_t)request->pieces[i] % reader->sector_bytes != 0) return false;
    }
    return true;
}

static bool request_is_valid(const pi2_reader *reader, const pi2_read_request *request) {
    const uint64_t offset = request->offset, sector = reader->sector_bytes;
    return offset % sector == 0 && request->bytes % sector == 0 &&
           request->bytes > 0 && memory_is_valid(reader, request) && offset < reader->file_bytes &&
           request->bytes - 1 < reader->file_bytes - offset + (PI2_READ_ALIGNMENT - 1);
}

static void refuse_request(pi2_reader *reader, pi2_read_request *request, pi2_status status) {
    request->status = status;
    request->error_number = 0;
    request->bytes_done = 0;
    request->submitted_ns = request->completed_ns = pi2_clock_ns();
    publish(reader, request);
}

static bool is_queued(int state) { return state == PI2_READ_QUEUED || state == PI2_READ_AWAITED; }

void pi2_reader_submit_many(pi2_reader *reader, pi2_read_request *const *requests, size_t count) {
    pi2_read_queue *queue = &reader->queue;
    size_t queued = 0;
    (void)pthread_mutex_lock(&queue->mutex);
    for (size_t i = 0; i < count; i++) {
        pi2_read_request *request = requests[i];
        assert(!is_queued(atomic_load(&request->state)));
        atomic_store_explicit(&request->state, PI2_READ_QUEUED, memory_order_relaxed);
        if (request_is_valid(reader, request)) {
            push_locked(queue, request);
            queued++;
        } else {
            refuse_request(reader, request, PI2_ERR_INVALID);
        }
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    if (queued) reader->method->wake(reader, queued);
}

void pi2_reader_submit(pi2_reader *reader, pi2_read_request *request) {
    pi2_reader_submit_many(reader, &request, 1);
}

void pi2_reader_raise(pi2_reader *reader, pi2_read_request *request) {
    pi2_read_queue *queue = &reader->queue;
    (void)pthread_mutex_lock(&queue->mutex);
    const bool found = remove_locked(queue, PI2_READ_LIKELY, request);
    if (found) {
        request->priority = PI2_READ_CERTAIN;
        push_locked(queue, request);
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    if (found) reader->method->wake(reader, 1);
}

bool pi2_reader_cancel(pi2_reader *reader, pi2_read_request *request) {
    pi2_read_queue *queue = &reader->queue;
    (void)pthread_mutex_lock(&queue->mutex);
    const bool found = remove_locked(queue, PI2_READ_CERTAIN, request) ||
                       remove_locked(queue, PI2_READ_LIKELY, request);
    if (found) atomic_store(&request->state, PI2_READ_IDLE);
    (void)pthread_mutex_unlock(&queue->mutex);
    if (found) pi2_wake_sleepers(&reader->sleepers, &request->state);
    return found;
}

static pi2_status report_failure(const pi2_reader *reader, const pi2_read_request *request) {
    const unsigned long long offset = request->offset;
    const unsigned long long reached = offset + request->bytes_done;
    if (request->status == PI2_ERR_INVALID && request->pieces) {
        return pi2_fail(PI2_ERR_INVALID,
                        "%s: a read of %u bytes at byte %llu into pieces of %u: they, and where they lie, must be "
                        "multiples of %u, %d pieces at most, and inside the file's %llu bytes",
                        reader->path, (unsigned)request->bytes, offset, (unsigned)request->piece_bytes,
                        (unsigned)reader->sector_bytes, PI2_READ_PIECES, (unsigned long long)reader->file_bytes);
    }
    if (request->status == PI2_ERR_INVALID) {
        return pi2_fail(PI2_ERR_INVALID,
                        "%s: a read of %u bytes at byte %llu into %p: all three must be multiples "
                        "of %u, and inside the file's %llu bytes",
                        reader->path, (unsigned)request->bytes, offset, request->destination,
                        (unsigned)reader->sector_bytes, (unsigned long long)reader->file_bytes);
    }
    if (request->status == PI2_ERR_INTERRUPTED) {
        return pi2_fail(PI2_ERR_INTERRUPTED, "%s: closed before the read at byte %llu began",
                        reader->path, offset);
    }
    if (request->error_number == 0) {
        return pi2_fail(PI2_ERR_IO,
                        "%s: the file ended early at byte %llu, in a read of %u bytes at byte "
                        "%llu; it had %llu bytes when it was opened",
                        reader->path, reached, (unsigned)request->bytes, offset,
                        (unsigned long long)reader->file_bytes);
    }
    return pi2_fail(PI2_ERR_IO, "%s: cannot read at byte %llu: %s", reader->path, reached,
                    strerror(request->error_number));
}

static void report_stall(const pi2_reader *reader, const pi2_read_request *request) {
    if (!reader->on_stall) return;
    char text[2 * PI2_READ_TEXT_BYTES];
    (void)snprintf(text, sizeof text,
                   "%.300s: the read of %u bytes at byte %llu takes longer than %.1f s; waiting",
                   reader->path, (unsigned)request->bytes, (unsigned long long)request->offset,
                   reader->stall_ms / 1000.0);
    reader->on_stall(reader->stall_context, text);
}

/* Who is about to sleep says so in the state. False: so much time has passed. */
static bool wait_for_end(pi2_reader *reader, pi2_read_request *request, unsigned spin_us, uint64_t timeout_ns) {
    const int seen = atomic_load(&request->state);
    if (!is_queued(seen)) return true;
    (void)pi2_spin_for_change(&request->state, seen, spin_us);
    int state = PI2_READ_QUEUED;
    (void)atomic_compare_exchange_strong(&request->state, &state, PI2_READ_AWAITED);
    if (!is_queued(state)) return true;
    return pi2_wait_for_change(&reader->sleepers, &request->state, PI2_READ_AWAITED, 0, timeout_ns);
}

pi2_status pi2_reader_wait(pi2_reader *reader, pi2_read_request *request, unsigned spin_us) {
    const uint64_t stall_ns = (uint64_t)reader->stall_ms * 1000000u;
    if (!wait_for_end(reader, request, spin_us, stall_ns)) {
        report_stall(reader, request);
        (void)wait_for_end(reader, request, 0, 0);
    }
    const int state = atomic_load_explicit(&request->state, memory_order_acquire);
    if (state == PI2_READ_DONE) return PI2_OK;
    if (state == PI2_READ_FAILED) return report_failure(reader, request);
    return pi2_fail(PI2_ERR_INVALID, "%s: waiting for a read at byte %llu that is not queued",
                    reader->path, (unsigned long long)request->offset);
}

int pi2_reader_ended(const pi2_reader *reader) { return atomic_load(&((pi2_reader *)reader)->ended); }

void pi2_reader_wait_next(pi2_reader *reader, int mark, const pi2_read_request *oldest, unsigned spin_us) {
    const uint64_t stall_ns = (uint64_t)reader->stall_ms * 1000000u;
    if (pi2_wait_for_change(&reader->next_sleepers, &reader->ended, mark, spin_us, stall_ns)) return;
    if (oldest) report_stall(reader, oldest);
    (void)pi2_wait_for_change(&reader->next_sleepers, &reader->ended, mark, 0, 0);
}

void pi2_reader_count(const pi2_reader *reader, pi2_reader_counters *counters_out) {
    pi2_read_queue *queue = (pi2_read_queue *)&reader->queue; /* only its mutex changes */
    (void)pthread_mutex_lock(&queue->mutex);
    *counters_out = queue->counters;
    if (queue->in_flight) counters_out->device_busy_ns += pi2_clock_ns() - queue->busy_since_ns;
    (void)pthread_mutex_unlock(&queue->mutex);
}

uint64_t pi2_reader_file_bytes(const pi2_reader *reader) { return reader->file_bytes; }
uint32_t pi2_reader_sector_bytes(const pi2_reader *reader) { return reader->sector_bytes; }
const char *pi2_reader_method(const pi2_reader *reader) { return reader->method->name; }
const char *pi2_reader_description(const pi2_reader *reader) { return reader->description; }

/* ---- Files ---- */

int pi2_read_open_buffered(const char *path) { return open(path, O_RDONLY | O_CLOEXEC); }

int pi2_read_open_direct(const pi2_reader *reader) {
    const int refused =
        reader->hooks->open_direct ? reader->hooks->open_direct(reader->hooks->context) : 0;
    if (refused) {
        errno = refused;
        return -1;
    }
#if defined(O_DIRECT)
    return open(reader->path, O_RDONLY | O_CLOEXEC | O_DIRECT);
#elif defined(F_NOCACHE)
    const int fd = pi2_read_open_buffered(reader->path);
    if (fd >= 0) (void)fcntl(fd, F_NOCACHE, 1);
    return fd;
#else
    errno = EINVAL;
    return -1;
#endif
}

void pi2_read_drop_behind(const pi2_reader *reader, const pi2_read_request *request) {
#if defined(POSIX_FADV_DONTNEED)
    (void)posix_fadvise(reader->buffered_fd, (off_t)request->offset, (off_t)request->bytes,
                        POSIX_FADV_DONTNEED);
#else
    (void)reader;
    (void)request;
#endif
}

/* ---- Opening and closing ---- */

static pi2_status check_options(const pi2_reader_options *options) {
    if (!options->path || !options->method) {
        return pi2_fail(PI2_ERR_INVALID, "a reader needs a path and a method");
    }
    const uint32_t least = strcmp(options->method, "pread") == 0 ? 0 : 1;
    if (options->depth < least || options->depth > PI2_READ_MAX_DEPTH) {
        return pi2_fail(PI2_ERR_INVALID, "%s: read depth %u: use 1 to %d", options->path,
                        (unsigned)options->depth, PI2_READ_MAX_DEPTH);
    }
    bool known = strcmp(options->method, "auto") == 0;
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        known = known || strcmp(options->method, read_methods[i]->name) == 0;
    }
    if (known) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID,
                    "unknown read method \"%.40s\": use auto, io_uring or pread%s",
                    options->method, METHOD_COUNT > 1 ? "" : " (this build has no io_uring)");
}

/* What direct reads of the file must be multiples of, where the system says so (Linux 6.1). */
static uint32_t find_sector(const char *path) {
#if defined(STATX_DIOALIGN)
    struct statx what;
    if (statx(AT_FDCWD, path, 0, STATX_DIOALIGN, &what) == 0 && (what.stx_mask & STATX_DIOALIGN)) {
        const uint32_t offset = what.stx_dio_offset_align, memory = what.stx_dio_mem_align;
        const uint32_t most = offset > memory ? offset : memory;
        const bool is_power = most > 0 && (most & (most - 1)) == 0;
        if (is_power && offset > 0 && most <= PI2_READ_ALIGNMENT) return most < LEAST_SECTOR ? LEAST_SECTOR : most;
    }
#else
    (void)path;
#endif
    return PI2_READ_ALIGNMENT;
}

static pi2_status open_file(pi2_reader *reader) {
    reader->buffered_fd = pi2_read_open_buffered(reader->path);
    if (reader->buffered_fd < 0) {
        return pi2_fail(PI2_ERR_IO, "cannot open %s: %s", reader->path, strerror(errno));
    }
    struct stat information;
    if (fstat(reader->buffered_fd, &information) != 0) {
        return pi2_fail(PI2_ERR_IO, "cannot examine %s: %s", reader->path, strerror(errno));
    }
    if (!S_ISREG(information.st_mode)) {
        return pi2_fail(PI2_ERR_IO, "%s is no regular file", reader->path);
    }
    reader->file_bytes = (uint64_t)information.st_size;
    reader->sector_bytes = find_sector(reader->path);
#if defined(POSIX_FADV_RANDOM)
    /* The caller knows what comes next; read-ahead would read what it did not ask for. */
    (void)posix_fadvise(reader->buffered_fd, 0, 0, POSIX_FADV_RANDOM);
#endif
    return PI2_OK;
}

/* Tries methods from the fastest down; collects why the faster ones do not work here. */
static pi2_status open_method(pi2_reader *reader, const char *wanted) {
    const bool any = strcmp(wanted, "auto") == 0;
    pi2_status status = PI2_ERR_INVALID;
    for (size_t i = METHOD_COUNT; i-- > 0;) {
        if (!any && strcmp(wanted, read_methods[i]->name) != 0) continue;
        reader->method = read_methods[i];
        status = reader->method->open(reader);
        if (status == PI2_OK) break;
        const size_t length = strlen(reader->refusals);
        (void)snprintf(reader->refusals + length, sizeof reader->refusals - length,
                       "%s%s refused: %.160s", length ? "; " : "", reader->method->name,
                       pi2_error_text());
    }
    if (status == PI2_OK) {
        const size_t length = strlen(reader->description);
        if (reader->refusals[0]) {
            (void)snprintf(reader->description + length, sizeof reader->description - length,
                           " (%s)", reader->refusals);
        }
        return PI2_OK;
    }
    if (any) return pi2_fail(status, "cannot read %s: %s", reader->path, reader->refusals);
    return pi2_fail(status, "%s: %s; use another read method, or auto", reader->path,
                    reader->refusals);
}

static pi2_status init_locks(pi2_reader *reader) {
    PI2_TRY(pi2_sleepers_init(&reader->sleepers, false));
    const pi2_status status = pi2_sleepers_init(&reader->next_sleepers, false);
    if (status != PI2_OK) {
        pi2_sleepers_destroy(&reader->sleepers);
        return status;
    }
    int error = pthread_mutex_init(&reader->queue.mutex, NULL);
    if (!error) {
        error = pthread_cond_init(&reader->queue.filled, NULL);
        if (error) (void)pthread_mutex_destroy(&reader->queue.mutex);
    }
    if (!error) return PI2_OK;
    pi2_sleepers_destroy(&reader->sleepers);
    pi2_sleepers_destroy(&reader->next_sleepers);
    return pi2_fail(PI2_ERR_MEMORY, "%s: cannot create a lock: %s", reader->path, strerror(error));
}

static void free_reader(pi2_reader *reader) {
    if (reader->buffered_fd >= 0) (void)close(reader->buffered_fd);
    (void)pthread_cond_destroy(&reader->queue.filled);
    (void)pthread_mutex_destroy(&reader->queue.mutex);
    pi2_sleepers_destroy(&reader->sleepers);
    pi2_sleepers_destroy(&reader->next_sleepers);
    free(reader->path);
    free(reader);
}

/* All but the file and the method. */
static pi2_status make_reader(const pi2_reader_options *options, const pi2_read_hooks *hooks, pi2_reader **reader_out) {
    static const pi2_read_hooks no_hooks;
    pi2_reader *reader = calloc(1, sizeof *reader);
    const size_t path_bytes = strlen(options->path) + 1;
    char *path = malloc(path_bytes);
    if (!reader || !path) {
        free(reader);
        free(path);
        return pi2_fail(PI2_ERR_MEMORY, "%s: no memory for a reader", options->path);
    }
    memcpy(path, options->path, path_bytes);
    reader->path = path;
    reader->hooks = hooks ? hooks : &no_hooks;
    reader->buffered_fd = -1;
    reader->sector_bytes = PI2_READ_ALIGNMENT;
    reader->depth = options->depth;
    reader->likely_depth = options->depth > 1 ? options->depth / 2 : 1;
    /* Where whoever submits reads, nobody else takes what has to wait. */
    const bool is_limited = options->bytes_in_flight > 0 && options->depth > 0;
    reader->most_bytes_in_flight = is_limited ? options->bytes_in_flight : UINT64_MAX;
    reader->buffer = options->buffer;
    reader->buffer_bytes = options->buffer ? options->buffer_bytes : 0;
    reader->on_stall = options->on_stall;
    reader->stall_context = options->stall_context;
    reader->trace = options->trace;
    reader->stall_ms = options->stall_ms ? options->stall_ms : DEFAULT_STALL_MS;
    const pi2_status status = init_locks(reader);
    if (status != PI2_OK) {
        free(path);
        free(reader);
        return status;
    }
    *reader_out = reader;
    return PI2_OK;
}

pi2_status pi2_reader_open_described(const char *path, uint32_t depth, const pi2_described_disk *disk,
                                     pi2_reader **reader_out) {
    const pi2_reader_options options = {.path = path, .depth = depth};
    *reader_out = NULL;
    PI2_TRY(make_reader(&options, NULL, reader_out));
    (*reader_out)->file_bytes = disk->file_bytes;
    (*reader_out)->method = &pi2_read_method_described;
    (*reader_out)->method_state = (void *)disk;
    return PI2_OK;
}

pi2_status pi2_reader_open_with_hooks(const pi2_reader_options *options,
                                      const pi2_read_hooks *hooks, pi2_reader **reader_out) {
    pi2_reader *reader = NULL;
    *reader_out = NULL;
    PI2_TRY(check_options(options));
    PI2_TRY(make_reader(options, hooks, &reader));
    pi2_status status = open_file(reader);
    if (status == PI2_OK) status = open_method(reader, options->method);
    if (status != PI2_OK) {
        free_reader(reader);
        return status;
    }
    *reader_out = reader;
    return PI2_OK;
}

pi2_status pi2_reader_open(const pi2_reader_options *options, pi2_reader **reader_out) {
    return pi2_reader_open_with_hooks(options, NULL, reader_out);
}

void pi2_reader_close(pi2_reader *reader) {
    if (!reader) return;
    (void)pthread_mutex_lock(&reader->queue.mutex);
    atomic_store(&reader->queue.closing, true);
    for (int priority = 0; priority < PI2_READ_PRIORITIES; priority++) {
        for (pi2_read_request *r; (r = pop_locked(&reader->queue, priority)) != NULL;) {
            refuse_request(reader, r, PI2_ERR_INTERRUPTED);
        }
    }
    (void)pthread_mutex_unlock(&reader->queue.mutex);
    reader->method->wake(reader, 0);
    reader->method->close(reader);
    free_reader(reader);
}
