/* output_place.c: what an output may replace, and the temporary file that takes its place. */
#define _DEFAULT_SOURCE /* flock: a lock that belongs to the open file, so that threads exclude each other too */
#define _DARWIN_C_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/output_file.h"

enum { MOST_LINKS = 16 };

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The folder of a path as text: "." or "…/"; false: it is too long. */
static bool folder_text(const char *path, char text[PI2_OUTPUT_PATH_BYTES]) {
    const size_t length = (size_t)(name_of(path) - path);
    if (length >= PI2_OUTPUT_PATH_BYTES) return false;
    memcpy(text, path, length);
    text[length] = '\0';
    if (length == 0) memcpy(text, ".", 2);
    return true;
}

bool pi2_output_head_is(const uint8_t *head, size_t count, const char *text) {
    return count >= strlen(text) && memcmp(head, text, strlen(text)) == 0;
}

/* ---- links ---- */

/* /proc/<us>/fd/N stands for a file that is open already, wherever it was opened: /dev/stdout is a link to one. */
static bool is_own_descriptor(const char *path, int *descriptor_out) {
    char folder[PI2_OUTPUT_PATH_BYTES], own[64];
    char *end = NULL;
    if (!folder_text(path, folder)) return false;
    char *real = realpath(folder, NULL);
    if (!real) return false;
    const int length = snprintf(own, sizeof own, "/proc/%ld/", (long)getpid());
    const size_t bytes = strlen(real);
    const bool is_ours = length > 0 && strncmp(real, own, (size_t)length) == 0 && bytes > 3 &&
                         strcmp(real + bytes - 3, "/fd") == 0;
    free(real);
    const long number = is_ours ? strtol(name_of(path), &end, 10) : -1;
    if (!is_ours || end == name_of(path) || *end || number < 0 || number > 1 << 20) return false;
    *descriptor_out = (int)number;
    return true;
}

/* One link further: false where the path is no link. */
static bool follow(char path[PI2_OUTPUT_PATH_BYTES], bool *is_too_long) {
    char target[PI2_OUTPUT_PATH_BYTES], folder[PI2_OUTPUT_PATH_BYTES];
    const ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0) return false;
    target[length] = '\0';
    const size_t kept = *target == '/' ? 0 : (size_t)(name_of(path) - path);
    *is_too_long = (size_t)length == sizeof target - 1 || kept + (size_t)length >= PI2_OUTPUT_PATH_BYTES;
    if (*is_too_long) return false;
    memcpy(folder, path, kept);
    memcpy(path, folder, kept);
    memcpy(path + kept, target, (size_t)length + 1);
    return true;
}

static pi2_status follow_links(pi2_output_place *place) {
    bool is_too_long = false;
    for (int links = 0; !is_own_descriptor(place->path, &place->descriptor); links++) {
        if (!follow(place->path, &is_too_long)) break;
        if (links == MOST_LINKS) return pi2_fail(PI2_ERR_INVALID, "%s: too many links to write to", place->path);
    }
    if (!is_too_long) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s: a link whose path is longer than %d bytes", place->path,
                    PI2_OUTPUT_PATH_BYTES - 1);
}

/* ---- what lies there ---- */

static pi2_status check_inputs(const pi2_output_place *place, const char *path, const struct stat *there) {
    for (const char *const *input = place->request.inputs; input && *input; input++) {
        struct stat read;
        if (!S_ISREG(there->st_mode) || stat(*input, &read) != 0) continue;
        if (read.st_dev != there->st_dev || read.st_ino != there->st_ino) continue;
        return pi2_fail(PI2_ERR_INVALID, "%s is an input of this command%s%s: nothing may be written over it; name "
                        "another file", path, strcmp(path, *input) == 0 ? "" : ", by the name ",
                        strcmp(path, *input) == 0 ? "" : *input);
    }
    return PI2_OK;
}

/* Bytes read; negative: none can be. */
static ssize_t read_head(const char *path, uint8_t head[PI2_OUTPUT_HEAD_BYTES]) {
    const int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return -1;
    const ssize_t count = read(file, head, PI2_OUTPUT_HEAD_BYTES);
    const int reason = errno;
    (void)close(file);
    errno = reason;
    return count;
}

/* An empty file has nothing to lose. */
static pi2_status check_kind(const pi2_output_place *place) {
    const pi2_output_kind *kind = place->request.kind;
    uint8_t head[PI2_OUTPUT_HEAD_BYTES];
    if (place->request.force) return PI2_OK;
    const ssize_t count = read_head(place->path, head);
    if (count == 0 || (count > 0 && kind->recognises(place->path, head, (size_t)count))) return PI2_OK;
    if (count < 0) {
        return pi2_fail(PI2_ERR_INVALID, "%s is there and cannot be read (%s), so that it may not be %s: it is not "
                        "replaced; name another file, or remove that one", place->path, strerror(errno), kind->what);
    }
    return pi2_fail(PI2_ERR_INVALID, "%s is there and is not %s: it is not replaced; name another file, or remove that "
                    "one", place->path, kind->what);
}

static pi2_status fail_to_flow(const pi2_output_place *place, const struct stat *there) {
    const char *what = S_ISDIR(there->st_mode)    ? "a folder"
                       : S_ISBLK(there->st_mode)  ? "a block device"
                       : S_ISSOCK(there->st_mode) ? "a socket"
                       : S_ISFIFO(there->st_mode) ? "a pipe"
                       : S_ISCHR(there->st_mode)  ? "a device"
                                                  : "a file that is open already";
    return pi2_fail(PI2_ERR_INVALID, "%s is %s, into which %s cannot be written: name a file", place->path, what,
                    place->request.kind->what);
}

/* What a path means can change while a run lasts: this is asked at its begin and at its end. */
static pi2_status check_place(pi2_output_place *place) {
    struct stat there;
    const bool is_open = place->descriptor >= 0;
    if ((is_open ? fstat(place->descriptor, &there) : stat(place->path, &there)) != 0) {
        if (!is_open) return PI2_OK; /* nothing is there, or nothing can be: making the file will tell */
        return pi2_fail(PI2_ERR_IO, "%s: %s", place->path, strerror(errno));
    }
    PI2_TRY(check_inputs(place, place->path, &there));
    place->is_direct = is_open || !S_ISREG(there.st_mode);
    if (!place->is_direct) return check_kind(place);
    const bool flows = S_ISFIFO(there.st_mode) || S_ISCHR(there.st_mode) || (is_open && S_ISREG(there.st_mode));
    return flows && place->request.kind->may_flow ? PI2_OK : fail_to_flow(place, &there);
}

pi2_status pi2_output_find(const pi2_output_request *request, pi2_output_place *place) {
    memset(place, 0, sizeof *place);
    place->descriptor = -1;
    if (strlen(request->path) >= sizeof place->path) {
        return pi2_fail(PI2_ERR_INVALID, "a path to write to is longer than %zu bytes", sizeof place->path - 1);
    }
    memcpy(place->path, request->path, strlen(request->path) + 1);
    place->request = *request;
    place->request.path = NULL; /* place->path, wherever the place is copied to */
    PI2_TRY(follow_links(place));
    if (!*name_of(place->path)) {
        return pi2_fail(PI2_ERR_INVALID, "'%s' names no file: %s needs one", request->path, request->kind->what);
    }
    return check_place(place);
}

pi2_status pi2_output_check_ahead(const pi2_output_request *request) {
    pi2_output_place place;
    PI2_TRY(pi2_output_find(request, &place));
    if (place.is_direct) return PI2_OK;
    char *name = (char *)name_of(place.path);
    const size_t length = (size_t)(name - place.path);
    place.path[length > 1 ? length - 1 : length] = '\0'; /* the root keeps its slash */
    if (access(length ? place.path : ".", W_OK | X_OK) == 0) return PI2_OK;
    return pi2_fail(PI2_ERR_IO, "%s cannot be written: %s: %s", request->path, length ? place.path : "this folder",
                    strerror(errno));
}

/* ---- two outputs ---- */

bool pi2_output_is_same(const char *path, const char *other) {
    pi2_output_place a = {.descriptor = -1}, b = {.descriptor = -1};
    struct stat first, second;
    char folder[PI2_OUTPUT_PATH_BYTES], other_folder[PI2_OUTPUT_PATH_BYTES];
    if (strlen(path) >= sizeof a.path || strlen(other) >= sizeof b.path) return strcmp(path, other) == 0;
    memcpy(a.path, path, strlen(path) + 1);
    memcpy(b.path, other, strlen(other) + 1);
    if (follow_links(&a) != PI2_OK || follow_links(&b) != PI2_OK) return strcmp(path, other) == 0;
    if (a.descriptor >= 0 || b.descriptor >= 0) return false;
    if (stat(a.path, &first) == 0 && stat(b.path, &second) == 0) {
        return S_ISREG(first.st_mode) && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
    }
    if (strcmp(name_of(a.path), name_of(b.path)) != 0) return false;
    if (!folder_text(a.path, folder) || !folder_text(b.path, other_folder) || stat(folder, &first) != 0 ||
        stat(other_folder, &second) != 0) {
        return strcmp(a.path, b.path) == 0;
    }
    return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/* ---- the temporary file ---- */

void pi2_output_name_temporary(const pi2_output_place *place, char path_out[PI2_OUTPUT_TEMPORARY_BYTES]) {
    (void)snprintf(path_out, PI2_OUTPUT_TEMPORARY_BYTES, "%.*s.%s.tmp", (int)(name_of(place->path) - place->path),
                   place->path, name_of(place->path));
}

static pi2_status fail_file(const char *path, const char *action, int reason) {
    return pi2_fail(PI2_ERR_IO, "%s: cannot %s: %s%s", path, action, strerror(reason),
                    reason == EROFS || reason == EACCES ? ": choose another place for it" : "");
}

/* What a killed run left begins as its kind does, or with zeros, since headers may come last. A file without bytes is
 * not opened a second time: it was made just now, and where no descriptor is left that would tell of a stranger. */
static pi2_status check_left_over(const pi2_output_place *place, const char *path, const struct stat *there) {
    uint8_t head[PI2_OUTPUT_HEAD_BYTES];
    if (S_ISREG(there->st_mode) && there->st_nlink <= 1) {
        const ssize_t count = there->st_size == 0 ? 0 : read_head(path, head);
        if (count < 0) return fail_file(path, "read the file", errno);
        size_t zeros = 0;
        while (zeros < (size_t)count && head[zeros] == 0) zeros++;
        if (zeros == (size_t)count || place->request.kind->recognises(path, head, (size_t)count)) return PI2_OK;
    }
    return pi2_fail(PI2_ERR_INVALID, "%s is in the way, under whose name %s is written first: remove it, or name "
                    "another file", path, place->request.kind->what);
}

pi2_status pi2_output_open_temporary(const pi2_output_place *place, const char *path, int flags, int *file_out) {
    struct stat there;
    *file_out = -1;
    const mode_t mode = place->request.kind->is_private ? 0600 : 0666;
    const int file = open(path, flags | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode);
    if (file < 0) return fail_file(path, "make the file", errno);
    pi2_status status = PI2_OK;
    if (fstat(file, &there) != 0) status = fail_file(path, "make the file", errno);
    else status = check_inputs(place, path, &there);
    if (status == PI2_OK) status = check_left_over(place, path, &there);
    if (status == PI2_OK) *file_out = file;
    else (void)close(file);
    return status;
}

static bool is_named(int file, const char *path) {
    struct stat open_status, named;
    return fstat(file, &open_status) == 0 && lstat(path, &named) == 0 && open_status.st_dev == named.st_dev &&
           open_status.st_ino == named.st_ino;
}

pi2_status pi2_output_lock_temporary(const pi2_output_place *place, const char *path, int flags, int *file_out) {
    for (;;) {
        int file = -1;
        PI2_TRY(pi2_output_open_temporary(place, path, flags, &file));
        const bool is_locked = flock(file, LOCK_EX | LOCK_NB) == 0;
        const bool is_taken = is_locked && !is_named(file, path);
        if (is_locked && !is_taken && ftruncate(file, 0) == 0) {
            *file_out = file;
            return PI2_OK;
        }
        const int reason = errno;
        (void)close(file);
        if (is_taken) continue; /* another run has just ended: its file has its own name now */
        *file_out = -1;
        if (is_locked) return fail_file(path, "empty the file", reason);
        if (reason != EWOULDBLOCK) return fail_file(path, "lock the file", reason);
        return pi2_fail(PI2_ERR_IO, "%s: another run is writing it: wait for its end, or name another file",
                        place->path);
    }
}

pi2_status pi2_output_take_place(const pi2_output_place *place, const char *temporary_path) {
    pi2_output_place now = *place;
    PI2_TRY(check_place(&now));
    if (now.is_direct) {
        return pi2_fail(PI2_ERR_INVALID, "%s is no file any more: %s is not put there", place->path,
                        place->request.kind->what);
    }
    if (rename(temporary_path, place->path) == 0) return PI2_OK;
    return pi2_fail(PI2_ERR_IO, "cannot write %s: %s", place->path, strerror(errno));
}
