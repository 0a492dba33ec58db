/*
 * reader.h: asynchronous reads of a file's ranges into caller's memory.
 *
 * One reader owns its I/O thread(s). Two methods stand behind it (read_methods.inc): io_uring
 * with O_DIRECT, registered buffers and one submitting thread; a pool of pread threads. A method
 * that the system refuses is replaced by the next, and the reader can say which and why.
 */
#ifndef PI2_STORAGE_READER_H
#define PI2_STORAGE_READER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/timeline.h"
#include "powerinfer2/status.h"
#include "storage/read_sizes.h"

typedef struct pi2_reader pi2_reader;

typedef enum pi2_read_priority { PI2_READ_CERTAIN, PI2_READ_LIKELY } pi2_read_priority;

/**
 * One read. The reader owns it and its destination from submit until the state is DONE or FAILED.
 * A multiple, or aligned: of pi2_reader_sector_bytes(), so of PI2_READ_ALIGNMENT always.
 * Bytes of the destination past the end of the file are set to 0.
 *
 * The destination is one range of memory, or pieces of one size, wherever they lie: then piece i gets
 * the bytes from offset + i * piece_bytes on, and those of a NULL piece are read and dropped.
 */
typedef struct pi2_read_request {
    uint64_t offset;    /* multiple */
    uint32_t bytes;     /* multiple; may run past the end of the file by less than PI2_READ_ALIGNMENT */
    void *destination;  /* aligned */
    void *const *pieces; /* [bytes / piece_bytes], PI2_READ_PIECES at most, each aligned, in place of
                          * `destination`; NULL: there are none */
    uint32_t piece_bytes; /* of pieces: multiple */
    pi2_read_priority priority;

    /* Set by the reader. IDLE -> QUEUED -> DONE | FAILED; caller resets to IDLE. AWAITED: QUEUED, and a thread sleeps
     * until it is not. */
    _Atomic int state;
    pi2_status status;         /* valid when FAILED; INTERRUPTED: the reader was closed before */
    int error_number;          /* errno of the failure; 0: the file ended early, or no I/O error */
    uint32_t bytes_done;       /* of the file's bytes, from `offset` */
    uint64_t submitted_ns, completed_ns; /* handed to the system, done: monotonic, for traces */
    struct pi2_read_request *next; /* the reader's queue */
} pi2_read_request;

enum { PI2_READ_IDLE, PI2_READ_QUEUED, PI2_READ_AWAITED, PI2_READ_DONE, PI2_READ_FAILED };

typedef struct pi2_reader_options {
    const char *path;
    const char *method;       /* "auto", "io_uring" or "pread" */
    uint32_t depth;           /* reads in flight at most, 1 .. 1024; pread: threads, 8 at most, and with 0 none:
                                 pi2_reader_submit() returns when the read has ended */
    uint64_t bytes_in_flight; /* CERTAIN reads begin while no more are, or none is; 0: no limit. Not with depth 0 */
    void *buffer;             /* region that destinations lie in, to be registered; or NULL */
    size_t buffer_bytes;      /* registering makes the whole region resident at once */

    /* Called once by pi2_reader_wait when a read lasts longer than stall_ms (0: 2000): one line
     * of text with file and byte offset, valid during the call. The wait goes on. May be NULL. */
    void (*on_stall)(void *context, const char *text);
    void *stall_context;
    unsigned stall_ms;
    pi2_timeline *trace;         /* gets a span of every read that ends well; may be NULL */
} pi2_reader_options;

/** Errors  IO (file, reason), MEMORY, INVALID (unknown method; a named one does not work here) */
pi2_status pi2_reader_open(const pi2_reader_options *options, pi2_reader **reader_out);
/**
 * Waits for reads in flight; queued ones that have not begun become FAILED with INTERRUPTED. No
 * other thread may call the reader any more. NULL is fine.
 */
void pi2_reader_close(pi2_reader *reader);

/**
 * Queues one read. CERTAIN reads pass queued LIKELY ones, and a LIKELY one begins only while less
 * than half the depth is in flight, of either kind. Returns at once; a request that breaks the
 * rules above is FAILED with INVALID.
 * Threads: any. Allocates nothing.
 */
void pi2_reader_submit(pi2_reader *reader, pi2_read_request *request);

/** Queues several with one wake-up of the I/O thread; submitted to the kernel in this order. */
void pi2_reader_submit_many(pi2_reader *reader, pi2_read_request *const *requests, size_t count);

/**
 * Waits until the request is DONE (PI2_OK) or FAILED (its status; text set for this thread, with
 * file and byte offset). Spins for at most spin_us microseconds, then sleeps. Threads: any.
 */
pi2_status pi2_reader_wait(pi2_reader *reader, pi2_read_request *request, unsigned spin_us);

/** Reads that have ended, modulo 2^32: the mark that pi2_reader_wait_next() waits after. Threads: any. */
int pi2_reader_ended(const pi2_reader *reader);

/**
 * Waits until any read has ended since pi2_reader_ended() gave `mark`; spins first as above. Whoever
 * has `oldest` in flight is told of a stall in its name (NULL: nobody is). Threads: any.
 */
void pi2_reader_wait_next(pi2_reader *reader, int mark, const pi2_read_request *oldest, unsigned spin_us);

/** Makes a queued LIKELY read CERTAIN; nothing happens if it has begun already. Threads: any. */
void pi2_reader_raise(pi2_reader *reader, pi2_read_request *request);

/** Takes a read that has not begun out of the queue: true, and its state is IDLE. Threads: any. */
bool pi2_reader_cancel(pi2_reader *reader, pi2_read_request *request);

typedef struct pi2_reader_counters {
    uint64_t bytes_read, reads; /* that ended well */
    uint64_t bytes_dropped;    /* of bytes_read, those that had no place in memory */
    uint64_t device_busy_ns;   /* time with at least one read in flight */
} pi2_reader_counters;
void pi2_reader_count(const pi2_reader *reader, pi2_reader_counters *counters_out);

/** As it was at open. */
uint64_t pi2_reader_file_bytes(const pi2_reader *reader);
/** What reads must be multiples of, places in the file and in memory too: 512 to PI2_READ_ALIGNMENT. */
uint32_t pi2_reader_sector_bytes(const pi2_reader *reader);

/** "io_uring" or "pread"; and in words: "pread, 4 threads, O_DIRECT (io_uring refused: ...)". */
const char *pi2_reader_method(const pi2_reader *reader);
const char *pi2_reader_description(const pi2_reader *reader);

/** Names of the methods that this build has, slowest first, NULL-terminated: tests loop over it. */
const char *const *pi2_reader_method_names(void);

#endif
