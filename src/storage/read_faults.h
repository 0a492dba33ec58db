/*
 * read_faults.h: faults for tests. The hooks stand between a read method and the system, so that
 * tests can refuse a facility or alter a read's result; production code passes none.
 */
#ifndef PI2_STORAGE_READ_FAULTS_H
#define PI2_STORAGE_READ_FAULTS_H

#include <sys/uio.h>

#include "storage/reader.h"

/** What the system is asked for at once: consecutive bytes of the file, into places that follow each other in it. */
typedef struct pi2_read_operation {
    uint64_t offset;
    uint32_t bytes, place_count;
    bool direct; /* around the page cache */
    struct iovec places[PI2_READ_PIECES];
} pi2_read_operation;

/** Any hook may be NULL. The setup hooks return 0 to go on, or the errno to fail with. */
typedef struct pi2_read_hooks {
    void *context;
    int (*open_direct)(void *context);
    int (*ring_setup)(void *context);
    int (*register_buffers)(void *context);
    int (*ring_enter)(void *context); /* each submission of io_uring after open */
    int (*thread_create)(void *context, unsigned thread_index);
    /**
     * What a read came to (bytes, or -errno): return it, or something else instead, and alter what
     * lies at its places. io_uring: at the completion. Called on the reader's threads, for pread on
     * several at once; also for the 4096 bytes at offset 0 that are read on trial at open.
     */
    int64_t (*read_result)(void *context, const pi2_read_operation *operation, int64_t result);
} pi2_read_hooks;

/** pi2_reader_open with hooks (NULL: none), which must outlive the reader. */
pi2_status pi2_reader_open_with_hooks(const pi2_reader_options *options,
                                      const pi2_read_hooks *hooks, pi2_reader **reader_out);

#endif
