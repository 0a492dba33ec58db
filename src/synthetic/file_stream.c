/*
 * file_stream.c: two buffers, so that one fills while a thread writes the other; O_DIRECT where the
 * file system has it, else dirty pages are written out and dropped as we go.
 */
#define _GNU_SOURCE /* O_DIRECT; without it the buffered way is taken */

#include "synthetic/file_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/output_file.h"
#include "base/pages.h"
#include "base/progress.h"
#include "base/thread_start.h"

enum {
    BUFFER_BYTES = 8 * 1024 * 1024,
    DIRECT_ALIGNMENT = 4096,
    DROP_BYTES = 64 * 1024 * 1024
};

struct pi2_file_stream {
    pi2_output_place place;
    char temporary_path[PI2_OUTPUT_TEMPORARY_BYTES];
    int file;
    bool is_direct, is_finished;
    uint64_t position;
    pi2_progress progress;
    uint8_t *buffers[2];
    unsigned filling;        /* the buffer that is being filled */
    size_t filled_bytes;

    /* The writing thread: full_bytes is set by the filler and cleared once it is written. */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t full_bytes;       /* of the buffer that is not being filled; 0: nothing to write */
    bool is_closing;
    int error;               /* errno of the write that failed; 0: none */
    uint64_t written_bytes, undropped_bytes; /* the thread's own while it runs */
};

static pi2_status fail_file(const pi2_file_stream *stream, const char *action, int reason) {
    return pi2_fail(PI2_ERR_IO, "%s: cannot %s at byte %" PRIu64 ": %s%s", stream->temporary_path,
                    action, stream->written_bytes, strerror(reason),
                    reason == ENOSPC || reason == EDQUOT ? ": make room, or choose another disk with -o" : "");
}

/** Some file systems take O_DIRECT in open() and refuse it in write(). */
static bool stop_direct(pi2_file_stream *stream) {
#ifdef O_DIRECT
    if (stream->is_direct) {
        const int flags = fcntl(stream->file, F_GETFL);
        stream->is_direct = false;
        return flags >= 0 && fcntl(stream->file, F_SETFL, flags & ~O_DIRECT) == 0;
    }
#endif
    return false;
}

/** Returns 0 or an errno value. */
static int write_buffer(pi2_file_stream *stream, const uint8_t *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        if ((count - done) % DIRECT_ALIGNMENT != 0) (void)stop_direct(stream); /* the file's end */
        const ssize_t written = pwrite(stream->file, bytes + done, count - done,
                                       (off_t)stream->written_bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && errno == EINVAL && stop_direct(stream)) continue;
        if (written < 0) return errno;
        if (written == 0) return ENOSPC;
        done += (size_t)written;
        stream->written_bytes += (size_t)written;
        stream->undropped_bytes += (size_t)written;
    }
    if (!stream->is_direct && stream->undropped_bytes >= DROP_BYTES) {
        stream->undropped_bytes = 0;
        if (fdatasync(stream->file) != 0) return errno;
        (void)posix_fadvise(stream->file, 0, 0, POSIX_FADV_DONTNEED);
    }
    return 0;
}

static void *write_loop(void *argument) {
    pi2_file_stream *stream = argument;
    (void)pthread_mutex_lock(&stream->lock);
    for (;;) {
        while (stream->full_bytes == 0 && !stream->is_closing) {
            (void)pthread_cond_wait(&stream->changed, &stream->lock);
        }
        if (stream->full_bytes == 0) break;
        const size_t count = stream->full_bytes;
        const uint8_t *buffer = stream->buffers[1 - stream->filling];
        int error = stream->error;
        (void)pthread_mutex_unlock(&stream->lock);
        if (!error) error = write_buffer(stream, buffer, count);
        (void)pthread_mutex_lock(&stream->lock);
        stream->error = error;
        stream->full_bytes = 0;
        (void)pthread_cond_signal(&stream->changed);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    return NULL;
}

/** Waits until the thread has nothing to do; its fields may then be used. */
static pi2_status wait_idle(pi2_file_stream *stream) {
    (void)pthread_mutex_lock(&stream->lock);
    while (stream->full_bytes != 0) (void)pthread_cond_wait(&stream->changed, &stream->lock);
    const int error = stream->error;
    (void)pthread_mutex_unlock(&stream->lock);
    return error ? fail_file(stream, "write the file", error) : PI2_OK;
}

/** Hands the buffer to the thread and goes on with the other one. */
static pi2_status hand_over(pi2_file_stream *stream) {
    PI2_TRY(wait_idle(stream));
    (void)pthread_mutex_lock(&stream->lock);
    stream->filling = 1 - stream->filling;
    stream->full_bytes = stream->filled_bytes;
    stream->filled_bytes = 0;
    (void)pthread_cond_signal(&stream->changed);
    (void)pthread_mutex_unlock(&stream->lock);
    return pi2_progress_tell(&stream->progress, stream->position);
}

pi2_status pi2_file_stream_write(pi2_file_stream *stream, const void *bytes, size_t count) {
    const uint8_t *from = bytes;
    while (count > 0) {
        const size_t room = BUFFER_BYTES - stream->filled_bytes;
        const size_t step = count < room ? count : room;
        memcpy(stream->buffers[stream->filling] + stream->filled_bytes, from, step);
        stream->filled_bytes += step;
        stream->position += step;
        from += step;
        count -= step;
        if (stream->filled_bytes == BUFFER_BYTES) PI2_TRY(hand_over(stream));
    }
    return PI2_OK;
}

uint64_t pi2_file_stream_position(const pi2_file_stream *stream) { return stream->position; }

/* ---- opening ---------------------------------------------------------------------------- */

static bool recognises_gguf(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return pi2_output_head_is(head, count, "GGUF");
}

static const pi2_output_kind gguf_kind = { .what = "a GGUF model", .recognises = recognises_gguf };

static pi2_status check_space(const pi2_file_stream *stream) {
    struct statvfs space;
    if (fstatvfs(stream->file, &space) != 0) return PI2_OK; /* writing will tell */
    const uint64_t unit = space.f_frsize ? space.f_frsize : space.f_bsize;
    const uint64_t units = space.f_bavail;
    if (unit == 0 || units > UINT64_MAX / unit || units * unit >= stream->progress.total_bytes) return PI2_OK;
    return pi2_fail(PI2_ERR_IO, "%s: needs %" PRIu64 " bytes of disk, and %" PRIu64
                    " are free there: make room, or choose another disk with -o", stream->place.path,
                    stream->progress.total_bytes, units * unit);
}

static pi2_status open_file(pi2_file_stream *stream, const char *path, bool overwrite) {
    const pi2_output_request request = { .path = path, .kind = &gguf_kind, .force = true };
    struct stat status;
    PI2_TRY(pi2_output_find(&request, &stream->place));
    if (!overwrite && stat(stream->place.path, &status) == 0) {
        return pi2_fail(PI2_ERR_INVALID, "%s is there already: --force writes it anew", path);
    }
    pi2_output_name_temporary(&stream->place, stream->temporary_path);
    PI2_TRY(pi2_output_lock_temporary(&stream->place, stream->temporary_path, O_WRONLY, &stream->file));
#ifdef O_DIRECT
    const int flags = fcntl(stream->file, F_GETFL);
    stream->is_direct = flags >= 0 && fcntl(stream->file, F_SETFL, flags | O_DIRECT) == 0;
#endif
    return check_space(stream);
}

static pi2_status start(pi2_file_stream *stream, const char *path, bool overwrite) {
    PI2_TRY(open_file(stream, path, overwrite));
    for (int i = 0; i < 2; i++) {
        void *pages = NULL;
        PI2_TRY(pi2_pages_reserve(BUFFER_BYTES, false, "writing a model", &pages));
        stream->buffers[i] = pages;
    }
    const int error = pi2_thread_start(&stream->thread, 0, write_loop, stream);
    if (error) return pi2_fail(PI2_ERR_MEMORY, "cannot start a thread: %s", strerror(error));
    stream->has_thread = true;
    return PI2_OK;
}

pi2_status pi2_file_stream_open(const char *path, uint64_t bytes, bool overwrite,
                                const pi2_callbacks *callbacks, pi2_file_stream **stream_out) {
    *stream_out = NULL;
    pi2_file_stream *stream = calloc(1, sizeof *stream);
    if (!stream) return pi2_fail(PI2_ERR_MEMORY, "no memory for writing %s", path);
    stream->file = -1;
    stream->progress = (pi2_progress){ .callbacks = callbacks, .what = "writing", .total_bytes = bytes };
    (void)pthread_mutex_init(&stream->lock, NULL);
    (void)pthread_cond_init(&stream->changed, NULL);
    const pi2_status status = start(stream, path, overwrite);
    if (status != PI2_OK) {
        pi2_file_stream_close(stream);
        return status;
    }
    *stream_out = stream;
    return PI2_OK;
}

/* ---- the end ---------------------------------------------------------------------------- */

pi2_status pi2_file_stream_finish(pi2_file_stream *stream) {
    if (stream->filled_bytes) PI2_TRY(hand_over(stream));
    PI2_TRY(wait_idle(stream));
    if (fdatasync(stream->file) != 0) return fail_file(stream, "write the file to the disk", errno);
    (void)posix_fadvise(stream->file, 0, 0, POSIX_FADV_DONTNEED);
    PI2_TRY(pi2_output_take_place(&stream->place, stream->temporary_path));
    stream->is_finished = true;
    return PI2_OK;
}

static void stop_thread(pi2_file_stream *stream) {
    if (!stream->has_thread) return;
    (void)pthread_mutex_lock(&stream->lock);
    stream->is_closing = true;
    (void)pthread_cond_signal(&stream->changed);
    (void)pthread_mutex_unlock(&stream->lock);
    (void)pthread_join(stream->thread, NULL);
}

void pi2_file_stream_close(pi2_file_stream *stream) {
    if (!stream) return;
    stop_thread(stream);
    if (stream->file >= 0) {
        if (!stream->is_finished) (void)unlink(stream->temporary_path);
        (void)close(stream->file);
    }
    for (int i = 0; i < 2; i++) pi2_pages_release(stream->buffers[i], BUFFER_BYTES);
    (void)pthread_cond_destroy(&stream->changed);
    (void)pthread_mutex_destroy(&stream->lock);
    free(stream);
}
