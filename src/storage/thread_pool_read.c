/*
 * thread_pool_read.c: the read method "pread": a few threads, each with one read in flight; or none, then whoever
 * submits reads. Where the system has preadv, a read into several places is one call, else one for each place.
 *
 * O_DIRECT where the file system takes it (tried with one read at open). Otherwise the reads go
 * through the page cache, and their pages are dropped from it at once: the caller keeps its own
 * copy within its budget, and a second one in the cache would count against the same limit.
 */
#define _DEFAULT_SOURCE /* preadv */
#if defined(__APPLE__)
#define _DARWIN_C_SOURCE /* the same */
#endif
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/thread_start.h"
#include "storage/read_method.h"

enum { MOST_THREADS = 8, STACK_BYTES = 128 * 1024 };

typedef struct thread_pool {
    int direct_fd; /* -1: buffered */
    char direct_refusal[PI2_READ_TEXT_BYTES];
    unsigned thread_count, idle; /* idle: under the queue's mutex, threads that sleep on it */
    pthread_t threads[MOST_THREADS];
} thread_pool;

#if defined(PI2_HAVE_PREADV)
static const bool has_preadv = true;
static ssize_t read_places(int fd, const pi2_read_operation *operation) {
    return preadv(fd, operation->places, (int)operation->place_count, (off_t)operation->offset);
}
#else
static const bool has_preadv = false;
static ssize_t read_places(int fd, const pi2_read_operation *operation) {
    (void)fd;
    (void)operation;
    errno = EINVAL;
    return -1;
}
#endif

static int64_t read_once(const pi2_reader *reader, pi2_read_progress *progress, int fd) {
    pi2_read_next(progress);
    const pi2_read_operation *operation = &progress->operation;
    const struct iovec *place = operation->places;
    const ssize_t bytes = operation->place_count == 1
                              ? pread(fd, place->iov_base, place->iov_len, (off_t)operation->offset)
                              : read_places(fd, operation);
    return pi2_read_hooked(reader, progress, bytes < 0 ? -(int64_t)errno : (int64_t)bytes);
}

static void read_request(pi2_reader *reader, pi2_read_request *request) {
    _Alignas(PI2_READ_ALIGNMENT) unsigned char dropped[PI2_READ_ALIGNMENT];
    const thread_pool *pool = reader->method_state;
    pi2_read_progress progress;
    pi2_read_begin(reader, request, &progress);
    progress.buffered = pool->direct_fd < 0;
    progress.one_by_one = !has_preadv;
    progress.dropped = dropped;
    int64_t result;
    do {
        result = read_once(reader, &progress,
                           progress.buffered ? reader->buffered_fd : pool->direct_fd);
    } while (!pi2_read_book(reader, &progress, result));
    if (progress.buffered) pi2_read_drop_behind(reader, request);
    pi2_read_finish(reader, &progress);
}

/* Takes one request, sleeping until there is one; NULL when the reader closes. */
static pi2_read_request *take_one(pi2_reader *reader) {
    thread_pool *pool = reader->method_state;
    pi2_read_queue *queue = &reader->queue;
    pi2_read_request *request = NULL;
    (void)pthread_mutex_lock(&queue->mutex);
    while (!(request = pi2_read_take_locked(reader, 1)) && !atomic_load(&queue->closing)) {
        pool->idle++;
        (void)pthread_cond_wait(&queue->filled, &queue->mutex);
        pool->idle--;
    }
    /* What had to wait for bytes in flight to end may have room for more than one more. */
    if (request && pool->idle > 0 && queue->first[PI2_READ_CERTAIN]) (void)pthread_cond_signal(&queue->filled);
    (void)pthread_mutex_unlock(&queue->mutex);
    return request;
}

static void *thread_main(void *argument) {
    pi2_reader *reader = argument;
    pi2_thread_ask_for_short_slices();
    for (pi2_read_request *request; (request = take_one(reader)) != NULL;) {
        read_request(reader, request);
    }
    return NULL;
}

static void pool_wake(pi2_reader *reader, size_t count) {
    pi2_read_queue *queue = &reader->queue;
    thread_pool *pool = reader->method_state;
    if (reader->depth == 0) {
        for (pi2_read_request *request; (request = pi2_read_take(reader, 1)) != NULL;) read_request(reader, request);
        return;
    }
    (void)pthread_mutex_lock(&queue->mutex);
    const unsigned idle = pool->idle;
    (void)pthread_mutex_unlock(&queue->mutex);
    if (idle == 0) return;
    if (count == 0 || count >= idle) {
        (void)pthread_cond_broadcast(&queue->filled);
    } else {
        while (count-- > 0) (void)pthread_cond_signal(&queue->filled);
    }
}

/* Reads the first block on trial: some file systems take O_DIRECT at open and refuse the read. */
static int try_read(const pi2_reader *reader, int fd, bool buffered) {
    void *block = NULL;
    if (posix_memalign(&block, PI2_READ_ALIGNMENT, PI2_READ_ALIGNMENT) != 0) return ENOMEM;
    pi2_read_request request = {.bytes = PI2_READ_ALIGNMENT, .destination = block};
    pi2_read_progress progress = {.request = &request, .buffered = buffered};
    int64_t result;
    int attempts = 0;
    do {
        result = read_once(reader, &progress, fd);
    } while ((result == -EINTR || result == -EAGAIN) && ++attempts < 100);
    free(block);
    return result < 0 ? (int)-result : 0;
}

/* Sets direct_fd, or says why there is none. */
static void try_direct(const pi2_reader *reader, thread_pool *pool) {
    pool->direct_fd = pi2_read_open_direct(reader);
    int error = pool->direct_fd < 0 ? errno : try_read(reader, pool->direct_fd, false);
    if (error == 0) return;
    if (pool->direct_fd >= 0) (void)close(pool->direct_fd);
    pool->direct_fd = -1;
    (void)snprintf(pool->direct_refusal, sizeof pool->direct_refusal,
                   "buffered, dropped behind (O_DIRECT refused: %.100s)", strerror(error));
}

static void pool_close(pi2_reader *reader) {
    thread_pool *pool = reader->method_state;
    for (unsigned i = 0; i < pool->thread_count; i++) (void)pthread_join(pool->threads[i], NULL);
    if (pool->direct_fd >= 0) (void)close(pool->direct_fd);
    free(pool);
    reader->method_state = NULL;
}

/* Starts as many threads as it can; one is enough. Returns the errno that stopped it. */
static int start_threads(pi2_reader *reader, thread_pool *pool, unsigned wanted) {
    const pi2_read_hooks *hooks = reader->hooks;
    for (unsigned i = 0; i < wanted; i++) {
        int error = hooks->thread_create ? hooks->thread_create(hooks->context, i) : 0;
        if (!error) error = pi2_thread_start(&pool->threads[i], STACK_BYTES, thread_main, reader);
        if (error) return error;
        pool->thread_count++;
    }
    return 0;
}

static pi2_status pool_open(pi2_reader *reader) {
    thread_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return pi2_fail(PI2_ERR_MEMORY, "no memory for a pool of reading threads");
    reader->method_state = pool;
    try_direct(reader, pool);
    if (pool->direct_fd < 0) {
        const int error = try_read(reader, reader->buffered_fd, true);
        if (error) {
            free(pool);
            return pi2_fail(PI2_ERR_IO, "cannot read at byte 0: %s", strerror(error));
        }
    }
    const unsigned wanted = reader->depth < MOST_THREADS ? reader->depth : MOST_THREADS;
    /* Threads that begin before this line's end find an empty queue. */
    reader->likely_depth = wanted > 1 ? wanted / 2 : 1;
    const int error = start_threads(reader, pool, wanted);
    if (wanted > 0 && pool->thread_count == 0) {
        pool_close(reader);
        return pi2_fail(PI2_ERR_MEMORY, "cannot start a reading thread: %s", strerror(error));
    }
    (void)snprintf(reader->description, sizeof reader->description, "pread, %u thread%s, %s",
                   pool->thread_count, pool->thread_count == 1 ? "" : "s",
                   pool->direct_fd >= 0 ? "O_DIRECT" : pool->direct_refusal);
    return PI2_OK;
}

const pi2_read_method pi2_read_method_pread = {
    .name = "pread",
    .open = pool_open,
    .wake = pool_wake,
    .close = pool_close,
};
