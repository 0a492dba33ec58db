/* weight_file.c: aligned ranges around what is wanted, through a reader without threads. */
#include "store/weight_file.h"

#include <inttypes.h>
#include <string.h>

#include "base/fail.h"
#include "storage/reader.h"

enum { MOST_BYTES = 1 << 30 }; /* of one read */

pi2_status pi2_weight_file_open(pi2_weight_file *file, const char *path) {
    if (file->reader && strcmp(file->path, path) == 0) return PI2_OK;
    pi2_weight_file_close(file);
    file->path = path;
    const pi2_reader_options options = { .path = path, .method = "pread", .depth = 0 };
    return pi2_reader_open(&options, &file->reader);
}

void pi2_weight_file_close(pi2_weight_file *file) {
    pi2_reader_close(file->reader);
    file->reader = NULL;
}

pi2_status pi2_weight_file_read(pi2_weight_file *file, uint64_t offset, size_t bytes, void *buffer,
                                const uint8_t **data_out) {
    const size_t lead = offset % PI2_READ_ALIGNMENT;
    const uint64_t file_bytes = pi2_reader_file_bytes(file->reader);
    *data_out = (const uint8_t *)buffer + lead;
    if (offset > file_bytes || bytes > file_bytes - offset) {
        return pi2_fail(PI2_ERR_IO,
                        "%s: the file ends at byte %" PRIu64 ", inside or before %zu bytes at byte %" PRIu64
                        ": it has become shorter", file->path, file_bytes, bytes, offset);
    }
    for (size_t done = 0; done < lead + bytes;) {
        const size_t left = (lead + bytes - done + PI2_READ_ALIGNMENT - 1) / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
        pi2_read_request request = { .offset = offset - lead + done, .destination = (uint8_t *)buffer + done,
                                     .bytes = left < MOST_BYTES ? (uint32_t)left : MOST_BYTES };
        pi2_reader_submit(file->reader, &request);
        PI2_TRY(pi2_reader_wait(file->reader, &request, 0));
        done += request.bytes;
    }
    return PI2_OK;
}
