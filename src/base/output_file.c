/* output_file.c: a temporary name first, then the file's own. */
#include "base/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

/* A descriptor of ours is written where it stands, as stdout itself is. */
static int open_direct(const pi2_output_place *place) {
    return place->descriptor >= 0 ? dup(place->descriptor) : open(place->path, O_WRONLY | O_CLOEXEC);
}

pi2_status pi2_output_file_open(pi2_output_file *file, const pi2_output_request *request) {
    int descriptor = -1;
    memset(file, 0, sizeof *file);
    PI2_TRY(pi2_output_find(request, &file->place));
    if (file->place.is_direct) {
        descriptor = open_direct(&file->place);
    } else {
        pi2_output_name_temporary(&file->place, file->temporary_path);
        PI2_TRY(pi2_output_lock_temporary(&file->place, file->temporary_path, O_WRONLY, &descriptor));
    }
    file->place.request.inputs = NULL; /* the caller's; at the end the kind is asked for again, which holds them too */
    file->stream = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (file->stream) return PI2_OK;
    const int reason = errno;
    if (descriptor >= 0) (void)close(descriptor);
    if (!file->place.is_direct) (void)unlink(file->temporary_path);
    return pi2_fail(PI2_ERR_IO, "cannot write %s: %s", file->place.path, strerror(reason));
}

void pi2_output_file_write(pi2_output_file *file, const void *bytes, size_t count) {
    if (fwrite(bytes, 1, count, file->stream) != count && !file->error_number) {
        file->error_number = errno ? errno : EIO;
    }
}

void pi2_output_file_print(pi2_output_file *file, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (vfprintf(file->stream, format, arguments) < 0 && !file->error_number) {
        file->error_number = errno ? errno : EIO;
    }
    va_end(arguments);
}

/* While the file is open, and so locked: another run cannot take the temporary name in between. */
static pi2_status give_name(pi2_output_file *file) {
    if (fflush(file->stream) != 0 && !file->error_number) file->error_number = errno;
    if (file->error_number || file->place.is_direct) return PI2_OK;
    return pi2_output_take_place(&file->place, file->temporary_path);
}

pi2_status pi2_output_file_finish(pi2_output_file *file) {
    if (!file->stream) return PI2_OK;
    const pi2_status named = give_name(file);
    if (named != PI2_OK || file->error_number) {
        if (!file->place.is_direct) (void)unlink(file->temporary_path);
    }
    if (fclose(file->stream) != 0 && !file->error_number) file->error_number = errno;
    file->stream = NULL;
    if (named != PI2_OK) return named;
    if (!file->error_number) return PI2_OK;
    return pi2_fail(PI2_ERR_IO, "cannot write %s: %s", file->place.path, strerror(file->error_number));
}

void pi2_output_file_discard(pi2_output_file *file) {
    if (!file->stream) return;
    if (!file->place.is_direct) (void)unlink(file->temporary_path);
    (void)fclose(file->stream);
    file->stream = NULL;
}
