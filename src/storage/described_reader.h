/*
 * described_reader.h: a reader of a disk that is described, for simulations: nothing is read, no memory is touched, and
 * every read has ended when it is submitted. When it would have ended is for whoever describes the disk to count.
 */
#ifndef PI2_STORAGE_DESCRIBED_READER_H
#define PI2_STORAGE_DESCRIBED_READER_H

#include "storage/reader.h"

typedef struct pi2_described_disk {
    uint64_t file_bytes;
    void *user;
    /** So many more reads begin together; then each of them, in the order in which a disk would get them. On the thread
     *  that submits, which may hold locks of the store: nothing of it may be called. */
    void (*begin)(void *user, size_t count);
    void (*read)(void *user, uint64_t offset, uint32_t bytes);
} pi2_described_disk;

/** path: for messages. disk outlives the reader. Errors  MEMORY. Threads: one, that calls the reader. */
pi2_status pi2_reader_open_described(const char *path, uint32_t depth, const pi2_described_disk *disk,
                                     pi2_reader **reader_out);

#endif
