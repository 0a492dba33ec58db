/* described_reader.c: see described_reader.h. */
#include "storage/described_reader.h"

#include "storage/read_method.h"

static pi2_status open_described(pi2_reader *reader) {
    (void)reader;
    return PI2_OK;
}

static void wake(pi2_reader *reader, size_t count) {
    const pi2_described_disk *disk = reader->method_state;
    pi2_read_request *next = pi2_read_take(reader, PI2_READ_MAX_DEPTH);
    if (next) disk->begin(disk->user, count);
    while (next) {
        pi2_read_request *request = next;
        pi2_read_progress progress;
        next = request->next;
        disk->read(disk->user, request->offset, request->bytes);
        pi2_read_begin(reader, request, &progress);
        request->bytes_done = progress.needed;
        pi2_read_finish(reader, &progress);
    }
}

static void close_described(pi2_reader *reader) { (void)reader; }

const pi2_read_method pi2_read_method_described = {"described", open_described, wake, close_described};
