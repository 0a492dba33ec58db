/* uncached_file.c: O_DIRECT with aligned ranges, or buffered reads that are dropped behind. */
#define _GNU_SOURCE /* O_DIRECT; without it the buffered way is taken */

#include "base/uncached_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/fail.h"

pi2_status pi2_uncached_file_open(const char *path, pi2_uncached_file *file_out) {
    *file_out = (pi2_uncached_file){ .file = -1, .path = path };
#ifdef O_DIRECT
    file_out->file = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    file_out->is_direct = file_out->file >= 0;
#endif
    if (file_out->file < 0) file_out->file = open(path, O_RDONLY | O_CLOEXEC);
    if (file_out->file < 0) {
        return pi2_fail(PI2_ERR_IO, "%s: cannot open the file: %s", path, strerror(errno));
    }
    return PI2_OK;
}

void pi2_uncached_file_close(pi2_uncached_file *file) {
    if (file->file >= 0) (void)close(file->file);
    file->file = -1;
}

/** Some file systems take O_DIRECT in open() and refuse it in read(). */
static bool stop_direct(pi2_uncached_file *file) {
#ifdef O_DIRECT
    if (file->is_direct) {
        const int flags = fcntl(file->file, F_GETFL);
        file->is_direct = false;
        return flags >= 0 && fcntl(file->file, F_SETFL, flags & ~O_DIRECT) == 0;
    }
#else
    (void)file;
#endif
    return false;
}

pi2_status pi2_uncached_file_read(pi2_uncached_file *file, uint64_t offset, size_t bytes,
                                  void *buffer, const uint8_t **data_out) {
    const uint64_t begin = offset / PI2_UNCACHED_ALIGNMENT * PI2_UNCACHED_ALIGNMENT;
    const size_t lead = (size_t)(offset - begin), needed = lead + bytes;
    const size_t wanted = (needed + PI2_UNCACHED_ALIGNMENT - 1) / PI2_UNCACHED_ALIGNMENT *
                          PI2_UNCACHED_ALIGNMENT;
    size_t done = 0;
    while (done < needed) {
        const ssize_t count = pread(file->file, (uint8_t *)buffer + done, wanted - done,
                                    (off_t)(begin + done));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno == EINVAL && stop_direct(file)) continue;
        if (count < 0) {
            return pi2_fail(PI2_ERR_IO, "%s: cannot read at byte %" PRIu64 ": %s", file->path,
                            begin + done, strerror(errno));
        }
        if (count == 0) {
            return pi2_fail(PI2_ERR_IO,
                            "%s: the file ended at byte %" PRIu64 " while it was read: it has "
                            "become shorter",
                            file->path, begin + done);
        }
        done += (size_t)count;
        /* A short direct read may end inside a block: the rest must come the buffered way. */
        if (done < needed && done % PI2_UNCACHED_ALIGNMENT != 0) (void)stop_direct(file);
    }
    if (!file->is_direct) {
        (void)posix_fadvise(file->file, (off_t)begin, (off_t)wanted, POSIX_FADV_DONTNEED);
    }
    file->bytes_read += done;
    *data_out = (uint8_t *)buffer + lead;
    return PI2_OK;
}
