/* output_file.c: a temporary name first, then the file's own. */
#include "base/output_file.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The folder that a file is made in; false: there is none. */
static bool find_folder(const char *path, struct stat *folder) {
    char text[sizeof ((pi2_output_file *)0)->path];
    const size_t length = (size_t)(name_of(path) - path);
    if (length >= sizeof text) return false;
    memcpy(text, path, length);
    text[length] = '\0';
    return stat(length ? text : ".", folder) == 0;
}

static bool is_written_directly(const char *path) {
    struct stat there;
    return stat(path, &there) == 0 && !S_ISREG(there.st_mode);
}

bool pi2_output_file_same(const char *path, const char *other) {
    struct stat folder, other_folder;
    if (strcmp(name_of(path), name_of(other)) != 0 || is_written_directly(path)) return false;
    if (!find_folder(path, &folder) || !find_folder(other, &other_folder)) return strcmp(path, other) == 0;
    return folder.st_dev == other_folder.st_dev && folder.st_ino == other_folder.st_ino;
}

pi2_status pi2_output_file_open(pi2_output_file *file, const char *path) {
    memset(file, 0, sizeof *file);
    if (strlen(path) >= sizeof file->path) {
        return pi2_fail(PI2_ERR_INVALID, "a path to write to is longer than %zu bytes", sizeof file->path - 1);
    }
    (void)snprintf(file->path, sizeof file->path, "%s", path);
    file->is_direct = is_written_directly(path);
    if (file->is_direct) (void)snprintf(file->temporary_path, sizeof file->temporary_path, "%s", path);
    else (void)snprintf(file->temporary_path, sizeof file->temporary_path, "%s.partial", path);
    file->stream = fopen(file->temporary_path, "w");
    if (file->stream) return PI2_OK;
    return pi2_fail(PI2_ERR_IO, "cannot write %s: %s", file->temporary_path, strerror(errno));
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

pi2_status pi2_output_file_finish(pi2_output_file *file) {
    if (!file->stream) return PI2_OK;
    if (fflush(file->stream) != 0 && !file->error_number) file->error_number = errno;
    if (fclose(file->stream) != 0 && !file->error_number) file->error_number = errno;
    file->stream = NULL;
    if (!file->error_number && !file->is_direct && rename(file->temporary_path, file->path) != 0) {
        file->error_number = errno;
    }
    if (!file->error_number) return PI2_OK;
    if (!file->is_direct) (void)unlink(file->temporary_path);
    return pi2_fail(PI2_ERR_IO, "cannot write %s: %s", file->path, strerror(file->error_number));
}

void pi2_output_file_discard(pi2_output_file *file) {
    if (!file->stream) return;
    (void)fclose(file->stream);
    file->stream = NULL;
    if (!file->is_direct) (void)unlink(file->temporary_path);
}
