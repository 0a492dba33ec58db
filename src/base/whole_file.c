/* whole_file.c: opens, looks what it is, reads. */
#include "base/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/fail.h"

enum { PIECE_BYTES = 1 << 16 };

/* O_NONBLOCK: a pipe that nobody writes to must not keep us before we have seen that it is one. */
pi2_status pi2_regular_file_open(const char *path, const char *name, uint64_t most_bytes, FILE **file_out,
                                 uint64_t *length_out) {
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return pi2_fail(PI2_ERR_IO, "%s: %s", path, strerror(errno));
    struct stat what;
    pi2_status status = PI2_OK;
    if (fstat(descriptor, &what) != 0) {
        status = pi2_fail(PI2_ERR_IO, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(what.st_mode)) {
        status = pi2_fail(PI2_ERR_IO, "%s: this is %s: %s is read from a regular file", path,
                          S_ISDIR(what.st_mode) ? "a folder" : "a pipe or device", name);
    } else if ((uint64_t)what.st_size > most_bytes) {
        status = pi2_fail(PI2_ERR_UNSUPPORTED, "%s: %lld bytes are more than the %llu that %s may have", path,
                          (long long)what.st_size, (unsigned long long)most_bytes, name);
    } else if (!(*file_out = fdopen(descriptor, "rb"))) {
        status = pi2_fail(PI2_ERR_IO, "%s: %s", path, strerror(errno));
    }
    if (status != PI2_OK) {
        (void)close(descriptor);
        return status;
    }
    *length_out = (uint64_t)what.st_size;
    return PI2_OK;
}

pi2_status pi2_text_refuse_utf16(const char *path, const void *bytes, size_t length) {
    if (length < 2 || (memcmp(bytes, "\xff\xfe", 2) != 0 && memcmp(bytes, "\xfe\xff", 2) != 0)) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: this is written as UTF-16, and texts are read as UTF-8: iconv turns one into "
                    "the other", path);
}

pi2_status pi2_text_file_open(const char *path, const char *what, FILE **file_out, uint64_t *length_out) {
    char begin[2];
    PI2_TRY(pi2_regular_file_open(path, what, INT64_MAX, file_out, length_out));
    const size_t length = fread(begin, 1, sizeof begin, *file_out);
    const pi2_status status = pi2_text_refuse_utf16(path, begin, length);
    if (status != PI2_OK) (void)fclose(*file_out);
    else rewind(*file_out);
    return status;
}

pi2_status pi2_whole_file_read(const char *path, const char *what, size_t most_bytes, uint8_t **bytes_out,
                               size_t *length_out) {
    FILE *file = NULL;
    uint64_t found = 0;
    *bytes_out = NULL;
    PI2_TRY(pi2_regular_file_open(path, what, most_bytes, &file, &found));
    const size_t length = (size_t)found;
    uint8_t *bytes = malloc(length + 1);
    const bool is_read = bytes && fread(bytes, 1, length, file) == length;
    (void)fclose(file);
    if (!is_read) {
        const bool no_memory = !bytes;
        free(bytes);
        return no_memory ? pi2_fail(PI2_ERR_MEMORY, "%s: no memory for %s of %zu bytes", path, what, length)
                         : pi2_fail(PI2_ERR_IO, "%s: cannot be read", path);
    }
    *bytes_out = bytes;
    *length_out = length;
    return PI2_OK;
}

pi2_status pi2_file_hash(FILE *file, const char *path, pi2_status (*check)(void *user), void *user,
                         uint64_t *bytes_out, uint64_t *hash_out) {
    char *piece = malloc(PIECE_BYTES);
    XXH3_state_t *state = XXH3_createState();
    pi2_status status = piece && state ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory to read %s", path);
    if (state) (void)XXH3_64bits_reset(state);
    *bytes_out = 0;
    while (status == PI2_OK) {
        if (check) status = check(user);
        const size_t got = status == PI2_OK ? fread(piece, 1, PIECE_BYTES, file) : 0;
        if (got == 0) break;
        (void)XXH3_64bits_update(state, piece, got);
        *bytes_out += got;
    }
    if (status == PI2_OK && ferror(file)) status = pi2_fail(PI2_ERR_IO, "%s: cannot be read", path);
    if (status == PI2_OK) *hash_out = XXH3_64bits_digest(state);
    (void)XXH3_freeState(state);
    free(piece);
    return status;
}

pi2_status pi2_file_read_at(int file, const char *path, uint64_t offset, size_t bytes, void *to) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t count = pread(file, (uint8_t *)to + done, bytes - done, (off_t)(offset + done));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) {
            return pi2_fail(PI2_ERR_IO, "%s: cannot read at byte %" PRIu64 ": %s", path, offset + done,
                            count ? strerror(errno) : "the file has become shorter");
        }
        done += (size_t)count;
    }
    return PI2_OK;
}
