/*
 * read_method.h: what a read method is, and what all of them share. Private to src/storage.
 *
 * A request's way: pi2_reader_submit puts it into the queue (QUEUED); a method's thread takes it,
 * reads until pi2_read_book says that it is finished, and hands it to pi2_read_finish (DONE or
 * FAILED). Queue, counters and the number of reads in flight change under one mutex, which is held
 * for a few instructions only; the I/O threads never sleep while they hold it.
 */
#ifndef PI2_STORAGE_READ_METHOD_H
#define PI2_STORAGE_READ_METHOD_H

#include <pthread.h>

#include "base/sleepers.h"
#include "storage/read_faults.h"

enum { PI2_READ_TEXT_BYTES = 256, PI2_READ_MAX_DEPTH = 1024, PI2_READ_PRIORITIES = 2 };

typedef struct pi2_read_method {
    const char *name;
    /**
     * Starts the method's threads; sets reader->method_state and the description. An error says
     * that the method does not work here (pi2_error_text() is the reason), and nothing is left:
     * INVALID where the system refuses it, IO where the file itself cannot be read, MEMORY.
     */
    pi2_status (*open)(pi2_reader *reader);
    /** `count` requests were queued (or the reader is closing: count is 0). Any thread. */
    void (*wake)(pi2_reader *reader, size_t count);
    /** Ends the threads once reads in flight are done; nothing is queued any more. */
    void (*close)(pi2_reader *reader);
} pi2_read_method;

typedef struct pi2_read_queue {
    pthread_mutex_t mutex;
    pthread_cond_t filled; /* for methods whose threads sleep on the queue */
    pi2_read_request *first[PI2_READ_PRIORITIES], *last[PI2_READ_PRIORITIES];
    /* Written under the mutex, read without it where a wrong answer only costs another look. */
    _Atomic size_t length[PI2_READ_PRIORITIES];
    _Atomic bool closing;
    uint32_t in_flight, likely_in_flight;
    uint64_t bytes_in_flight;
    uint64_t busy_since_ns;
    pi2_reader_counters counters;
} pi2_read_queue;

struct pi2_reader {
    const pi2_read_method *method;
    void *method_state;
    const pi2_read_hooks *hooks; /* never NULL */
    char *path;
    int buffered_fd;       /* always open: the last resort of every method */
    uint64_t file_bytes;
    uint32_t sector_bytes; /* a power of two, at most PI2_READ_ALIGNMENT */
    uint32_t depth;
    uint64_t most_bytes_in_flight; /* UINT64_MAX: no limit */
    uint32_t likely_depth; /* a LIKELY read begins only while fewer reads are in flight */
    void *buffer;
    size_t buffer_bytes;
    void (*on_stall)(void *context, const char *text);
    void *stall_context;
    unsigned stall_ms;
    pi2_timeline *trace;      /* may be NULL */
    pi2_sleepers sleepers; /* threads in pi2_reader_wait */
    pi2_sleepers next_sleepers; /* threads in pi2_reader_wait_next: few, so that a read that ends pays for none */
    _Atomic int ended;     /* reads that are DONE or FAILED: changes after their state */
    pi2_read_queue queue;
    char refusals[PI2_READ_TEXT_BYTES]; /* why faster methods do not work here, or empty */
    char description[2 * PI2_READ_TEXT_BYTES];
};

/** How far one request is. The next read begins at `begin`, always a multiple of the alignment. */
typedef struct pi2_read_progress {
    pi2_read_request *request;
    uint32_t needed;   /* bytes that the file has of the request */
    uint32_t begin;
    unsigned attempts; /* without progress */
    bool buffered;     /* O_DIRECT was refused for this request */
    bool one_by_one;   /* several places at once were refused, or the system cannot */
    void *dropped;     /* PI2_READ_ALIGNMENT bytes: where a NULL piece goes, again and again */
    pi2_read_operation operation; /* the system is busy with, or was last */
} pi2_read_progress;

/** Takes up to `most` requests, CERTAIN before LIKELY, linked by next; they are in flight then. */
pi2_read_request *pi2_read_take(pi2_reader *reader, uint32_t most);
/** The same for a caller that holds the queue's mutex. */
pi2_read_request *pi2_read_take_locked(pi2_reader *reader, uint32_t most);
/** Whether pi2_read_take would give something. */
bool pi2_read_has_work(pi2_reader *reader);

void pi2_read_begin(const pi2_reader *reader, pi2_read_request *request,
                    pi2_read_progress *progress_out);
/** Sets progress->operation: the request from `begin` on, as much of it as one operation has places for. */
void pi2_read_next(pi2_read_progress *progress);
/** Books bytes read or -errno: true when the request is finished, false: read on at `begin`. */
bool pi2_read_book(const pi2_reader *reader, pi2_read_progress *progress, int64_t result);
/** Ends a request that pi2_read_book finished: state, counters, waiters. */
void pi2_read_finish(pi2_reader *reader, pi2_read_progress *progress);
/** The result after the hooks have seen it. */
int64_t pi2_read_hooked(const pi2_reader *reader, const pi2_read_progress *progress,
                        int64_t result);

/** Opens the file for reads around the page cache. -1: errno says why not. */
int pi2_read_open_direct(const pi2_reader *reader);
/** Opens it through the page cache: -1 on errors. For the file of reader->path. */
int pi2_read_open_buffered(const char *path);
/** Drops a finished buffered read's pages from the page cache. */
void pi2_read_drop_behind(const pi2_reader *reader, const pi2_read_request *request);

/** Reads nothing; described_reader.h. */
extern const pi2_read_method pi2_read_method_described;

#define READ_METHOD(name) extern const pi2_read_method pi2_read_method_##name;
#include "storage/read_methods.inc"
#undef READ_METHOD

#endif
