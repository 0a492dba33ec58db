/*
 * prepare.c: source GGUF in, cluster file out.
 *
 *   1. lay out, make the header (checksums still zeros): the size is known
 *   2. lock the temporary file, look whether the work is done already, check the free space
 *   3. tables, then group by group: build extents in memory, checksum, write
 *   4. the header with its checksums, last: until then the file begins with zeros
 *   5. fsync, rename, fsync of the folder
 *
 * Groups larger than the buffer are built in several passes over their source rows.
 */
#define _DEFAULT_SOURCE /* flock: a lock that belongs to the open file, so threads exclude each
                           other too; in every libc of interest though not in POSIX */
#define _DARWIN_C_SOURCE

#include "planner/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/little_endian.h"
#include "base/pages.h"
#include "base/uncached_file.h"
#include "file_formats/cluster_file.h"
#include "planner/extent_build.h"

enum {
    DEFAULT_MEMORY_BYTES = 64 * 1000 * 1000,
    LARGEST_SCRATCH_BYTES = 4 * 1024 * 1024,
    TABLE_CHUNK_BYTES = 256 * 1024,
    LEAST_SYNC_BYTES = 1024 * 1024,
    MOST_SYNC_BYTES = 16 * 1024 * 1024,
    LOCK_WAIT_NS = 50 * 1000 * 1000,
    PROGRESS_INTERVAL_NS = 100 * 1000 * 1000
};

typedef struct prepare_run {
    const pi2_gguf *source;
    const char *output_path;
    const pi2_prepare_settings *settings;
    pi2_prepare_calls calls;

    pi2_extent_layout *layout;
    pi2_cluster_header header;
    const uint8_t *header_bytes;
    size_t header_length;
    uint64_t file_bytes;

    char *temporary_path;
    int file; /* the temporary file, locked; -1 before */

    pi2_extent_builder *builder;
    void *buffer;             /* extents of one pass, as they lie in the file */
    size_t buffer_bytes;
    void **extent_memory;     /* of the largest group */
    size_t sync_bytes;        /* how much may lie in the page cache */
    uint64_t written_bytes, unsynced_bytes, next_report_ns;
} prepare_run;

/* ---- the temporary file, which is the lock ---------------------------------------------- */

static pi2_status fail_file(const prepare_run *run, const char *action) {
    const int reason = errno;
    return pi2_fail(PI2_ERR_IO, "%s: cannot %s: %s%s", run->temporary_path, action, strerror(reason),
                    reason == EROFS || reason == EACCES
                        ? ": choose another place with -o"
                        : reason == ENOSPC || reason == EDQUOT ? ": make room on the disk" : "");
}

static pi2_status name_temporary(prepare_run *run) {
    const char *slash = strrchr(run->output_path, '/');
    const int folder_length = slash ? (int)(slash - run->output_path) + 1 : 0;
    const size_t bytes = strlen(run->output_path) + sizeof "..tmp";
    run->temporary_path = malloc(bytes);
    if (!run->temporary_path) return pi2_fail(PI2_ERR_MEMORY, "no memory for a file name");
    (void)snprintf(run->temporary_path, bytes, "%.*s.%s.tmp", folder_length, run->output_path,
                   run->output_path + folder_length);
    return PI2_OK;
}

static bool is_cancelled(const prepare_run *run) {
    const pi2_callbacks *callbacks = &run->settings->callbacks;
    return callbacks->cancelled && callbacks->cancelled(callbacks->user);
}

static pi2_status wait_for_lock(prepare_run *run) {
    bool has_told = false;
    while (flock(run->file, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR) continue;
        if (errno != EWOULDBLOCK) return fail_file(run, "lock the file");
        const pi2_callbacks *callbacks = &run->settings->callbacks;
        if (!has_told && callbacks->log) {
            char line[512];
            (void)snprintf(line, sizeof line, "another run is preparing %s: waiting for it",
                           run->output_path);
            callbacks->log(callbacks->user, line);
        }
        has_told = true;
        if (is_cancelled(run)) return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
        const struct timespec pause = { .tv_nsec = LOCK_WAIT_NS };
        (void)nanosleep(&pause, NULL);
    }
    return PI2_OK;
}

/** True when the locked file still has the temporary name: the run before may have renamed it. */
static bool lock_is_current(const prepare_run *run) {
    struct stat open_status, named_status;
    return fstat(run->file, &open_status) == 0 && stat(run->temporary_path, &named_status) == 0 &&
           open_status.st_dev == named_status.st_dev && open_status.st_ino == named_status.st_ino;
}

static void close_file(prepare_run *run) {
    if (run->file >= 0) (void)close(run->file);
    run->file = -1;
}

static bool is_made(const prepare_run *run) {
    struct stat status;
    return stat(run->output_path, &status) == 0 &&
           pi2_cluster_file_matches(run->output_path, run->source) == PI2_OK;
}

/** Opens and locks the temporary file, emptied. *is_done_out: a good result is there already. */
static pi2_status lock_output(prepare_run *run, bool *is_done_out) {
    bool overwrite = run->settings->overwrite;
    *is_done_out = !overwrite && is_made(run); /* before anything is written: the folder may be
                                                  one that we can only read */
    if (*is_done_out) return PI2_OK;
    for (;;) {
        run->file = open(run->temporary_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (run->file < 0) return fail_file(run, "make the file");
        PI2_TRY(wait_for_lock(run));
        if (lock_is_current(run)) break;
        close_file(run);
        overwrite = false; /* the run that we waited for has just made it */
    }
    if (!overwrite && is_made(run)) {
        *is_done_out = true;
        (void)unlink(run->temporary_path);
        return PI2_OK;
    }
    return ftruncate(run->file, 0) == 0 ? PI2_OK : fail_file(run, "empty the file");
}

static pi2_status check_space(const prepare_run *run) {
    const uint64_t free_bytes = run->calls.free_bytes(run->file);
    if (free_bytes >= run->file_bytes) return PI2_OK;
    return pi2_fail(PI2_ERR_IO,
                    "%s: needs %" PRIu64 " bytes of disk, and %" PRIu64 " are free there: make room, "
                    "or choose another place with -o",
                    run->output_path, run->file_bytes, free_bytes);
}

/* ---- writing ---------------------------------------------------------------------------- */

static ssize_t system_write(int file, const void *bytes, size_t count, off_t offset) {
    return pwrite(file, bytes, count, offset);
}

static int system_sync(int file) { return fdatasync(file); }

static uint64_t system_free_bytes(int file) {
    struct statvfs space;
    if (fstatvfs(file, &space) != 0) return UINT64_MAX; /* writing will tell */
    const uint64_t unit = space.f_frsize ? space.f_frsize : space.f_bsize;
    const uint64_t units = space.f_bavail;
    return unit == 0 || units > UINT64_MAX / unit ? UINT64_MAX : units * unit;
}

/** What was written must reach the disk before the page cache lets go of it. */
static pi2_status drop_behind(prepare_run *run) {
    if (run->calls.sync(run->file) != 0) return fail_file(run, "write the file to the disk");
    (void)posix_fadvise(run->file, 0, 0, POSIX_FADV_DONTNEED);
    run->unsynced_bytes = 0;
    return PI2_OK;
}

static pi2_status write_bytes(prepare_run *run, uint64_t offset, const void *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        /* In steps, so that little of the page cache is ever ours. */
        const size_t step = count - done < run->sync_bytes ? count - done : run->sync_bytes;
        const ssize_t written = run->calls.write_at(run->file, (const uint8_t *)bytes + done, step,
                                                    (off_t)(offset + done));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            if (written == 0) errno = ENOSPC;
            return fail_file(run, "write the file");
        }
        done += (size_t)written;
        run->unsynced_bytes += (size_t)written;
        if (run->unsynced_bytes >= run->sync_bytes) PI2_TRY(drop_behind(run));
    }
    return PI2_OK;
}

static pi2_status advance(prepare_run *run, uint64_t bytes) {
    const pi2_callbacks *callbacks = &run->settings->callbacks;
    run->written_bytes += bytes;
    if (is_cancelled(run)) return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
    const uint64_t now = pi2_clock_ns();
    if (callbacks->progress &&
        (now >= run->next_report_ns || run->written_bytes == run->header.data_bytes)) {
        run->next_report_ns = now + PROGRESS_INTERVAL_NS;
        callbacks->progress(callbacks->user, "preparing", run->written_bytes, run->header.data_bytes);
    }
    return PI2_OK;
}

static void patch_u64(prepare_run *run, size_t offset, uint64_t value) {
    uint8_t bytes[8];
    pi2_store_le64(bytes, value);
    pi2_gguf_writer_patch(run->header.writer, offset, bytes, sizeof bytes);
}

/* ---- tables ----------------------------------------------------------------------------- */

static pi2_status copy_table(prepare_run *run, uint32_t number, XXH3_state_t *hash) {
    const pi2_gguf_tensor *table = run->header.tables[number];
    const uint64_t start = run->header_length + run->header.table_offsets[number];
    const char *path = pi2_gguf_file_path(run->source, table->file_index);
    pi2_uncached_file file;
    pi2_status status = pi2_uncached_file_open(path, &file);
    (void)XXH3_64bits_reset(hash);
    for (uint64_t done = 0; done < table->bytes && status == PI2_OK;) {
        const uint64_t left = table->bytes - done;
        const size_t count = left < TABLE_CHUNK_BYTES ? (size_t)left : TABLE_CHUNK_BYTES;
        const uint8_t *data;
        status = pi2_uncached_file_read(&file, table->file_offset + done, count, run->buffer, &data);
        if (status == PI2_OK) {
            (void)XXH3_64bits_update(hash, data, count);
            status = write_bytes(run, start + done, data, count);
        }
        done += count;
    }
    pi2_uncached_file_close(&file);
    PI2_TRY(status);
    patch_u64(run, run->header.table_checksums_at + number * sizeof(uint64_t),
              XXH3_64bits_digest(hash));
    return advance(run, (table->bytes + PI2_EXTENT_ALIGNMENT - 1) / PI2_EXTENT_ALIGNMENT *
                            PI2_EXTENT_ALIGNMENT);
}

static pi2_status copy_tables(prepare_run *run) {
    XXH3_state_t *hash = XXH3_createState();
    if (!hash) return pi2_fail(PI2_ERR_MEMORY, "no memory for a checksum");
    pi2_status status = PI2_OK;
    for (uint32_t i = 0; i < run->header.table_count && status == PI2_OK; i++) {
        status = copy_table(run, i, hash);
    }
    (void)XXH3_freeState(hash);
    return status;
}

/* ---- groups ----------------------------------------------------------------------------- */

/** Builds, checksums and writes extents first .. end - 1 of a group, which fit the buffer. */
static pi2_status write_extents(prepare_run *run, uint32_t group_number, uint32_t first,
                                uint32_t end, uint64_t file_offset) {
    const pi2_group *group = &run->layout->groups[group_number];
    memset(run->extent_memory, 0, group->extent_count * sizeof *run->extent_memory);
    size_t used = 0;
    for (uint32_t e = first; e < end; e++) {
        const pi2_extent *extent = &run->layout->extents[group->first_extent + e];
        const size_t stride = (size_t)pi2_cluster_extent_stride(extent);
        uint8_t *memory = (uint8_t *)run->buffer + used;
        memset(memory + extent->bytes, 0, stride - extent->bytes);
        run->extent_memory[e] = memory;
        used += stride;
    }
    PI2_TRY(pi2_extent_builder_group(run->builder, group_number, run->extent_memory));
    for (uint32_t e = first; e < end; e++) {
        const uint32_t number = group->first_extent + e;
        patch_u64(run, run->header.extent_checksums_at + number * sizeof(uint64_t),
                  XXH3_64bits(run->extent_memory[e], run->layout->extents[number].bytes));
    }
    PI2_TRY(write_bytes(run, file_offset, run->buffer, used));
    return advance(run, used);
}

static pi2_status write_group(prepare_run *run, uint32_t number) {
    const pi2_group *group = &run->layout->groups[number];
    uint64_t file_offset = run->header_length + run->header.group_offsets[number];
    for (uint32_t first = 0; first < group->extent_count;) {
        uint32_t end = first;
        uint64_t used = 0;
        while (end < group->extent_count) {
            const uint64_t stride =
                pi2_cluster_extent_stride(&run->layout->extents[group->first_extent + end]);
            if (used + stride > run->buffer_bytes) break;
            used += stride;
            end++;
        }
        PI2_TRY(write_extents(run, number, first, end, file_offset));
        file_offset += used;
        first = end;
    }
    return PI2_OK;
}

/* ---- the order of things ---------------------------------------------------------------- */

static pi2_status write_header(prepare_run *run) {
    const uint64_t checksum_at = run->header.header_checksum_at;
    /* The reader's hash ends with the tensor table: the padding behind it is no part of it. */
    const uint64_t hash = XXH3_64bits(run->header_bytes, run->header.table_end);
    patch_u64(run, checksum_at, hash);
    return write_bytes(run, 0, run->header_bytes, run->header_length);
}

static pi2_status sync_folder(const prepare_run *run) {
    const char *slash = strrchr(run->output_path, '/');
    const size_t length = slash ? (size_t)(slash - run->output_path) + 1 : 0;
    char *folder = malloc(length + 2);
    if (!folder) return pi2_fail(PI2_ERR_MEMORY, "no memory for a file name");
    memcpy(folder, run->output_path, length);
    memcpy(folder + length, ".", 2);
    const int file = open(folder, O_RDONLY | O_CLOEXEC);
    free(folder);
    if (file < 0) return PI2_OK; /* a folder that may be written but not read */
    (void)fsync(file);           /* some file systems have no such call for folders */
    (void)close(file);
    return PI2_OK;
}

static pi2_status write_file(prepare_run *run) {
    PI2_TRY(copy_tables(run));
    for (uint32_t i = 0; i < run->layout->group_count; i++) PI2_TRY(write_group(run, i));
    if (ftruncate(run->file, (off_t)run->file_bytes) != 0) return fail_file(run, "size the file");
    PI2_TRY(drop_behind(run));
    PI2_TRY(write_header(run));
    PI2_TRY(drop_behind(run));
    if (fsync(run->file) != 0) return fail_file(run, "write the file to the disk");
    if (rename(run->temporary_path, run->output_path) != 0) {
        return fail_file(run, "give the file its name");
    }
    return sync_folder(run);
}

/** Splits the memory: what the tables hold, scratch for source rows, the rest for extents. */
static pi2_status take_memory(prepare_run *run) {
    const pi2_extent_layout *layout = run->layout;
    const uint64_t budget =
        run->settings->memory_bytes ? run->settings->memory_bytes : DEFAULT_MEMORY_BYTES;
    uint64_t largest_group = 0, held = 0;
    uint32_t most_extents = 0;
    run->sync_bytes = budget / 8 > MOST_SYNC_BYTES ? MOST_SYNC_BYTES : (size_t)budget / 8;
    if (run->sync_bytes < LEAST_SYNC_BYTES) run->sync_bytes = LEAST_SYNC_BYTES;
    for (uint32_t i = 0; i < layout->group_count; i++) {
        uint64_t bytes = 0;
        for (uint32_t e = 0; e < layout->groups[i].extent_count; e++) {
            bytes += pi2_cluster_extent_stride(&layout->extents[layout->groups[i].first_extent + e]);
        }
        if (bytes > largest_group) largest_group = bytes;
        if (layout->groups[i].extent_count > most_extents) most_extents = layout->groups[i].extent_count;
    }
    held = pi2_gguf_memory_bytes(run->source) + run->header_length +
           layout->piece_count * sizeof *layout->pieces +
           layout->extent_count * sizeof *layout->extents + most_extents * sizeof(void *);
    const uint64_t left = budget > held ? budget - held : 0;
    const uint64_t scratch = left / 4 < LARGEST_SCRATCH_BYTES ? left / 4 : LARGEST_SCRATCH_BYTES;
    PI2_TRY(pi2_extent_builder_open(run->source, layout, (size_t)scratch, &run->builder));
    held += pi2_extent_builder_memory_bytes(run->builder);
    uint64_t least = pi2_extent_layout_largest(layout);
    if (least < TABLE_CHUNK_BYTES + PI2_UNCACHED_SLACK) least = TABLE_CHUNK_BYTES + PI2_UNCACHED_SLACK;
    if (largest_group < least) largest_group = least;
    if (held + least > budget) {
        return pi2_fail(PI2_ERR_MEMORY,
                        "preparing %s takes at least %" PRIu64 " bytes of memory, and it may use "
                        "%" PRIu64,
                        run->output_path, held + least, budget);
    }
    run->buffer_bytes = (size_t)(budget - held < largest_group ? budget - held : largest_group);
    run->extent_memory = calloc(most_extents + (size_t)1, sizeof *run->extent_memory);
    if (!run->extent_memory) return pi2_fail(PI2_ERR_MEMORY, "no memory to prepare");
    return pi2_pages_reserve(run->buffer_bytes, false, "preparing", &run->buffer);
}

static pi2_status prepare(prepare_run *run, const pi2_group_request *requests,
                          size_t request_count) {
    bool is_done;
    if (pi2_cluster_file_is(run->source)) {
        return pi2_fail(PI2_ERR_INVALID, "%s: this is a cluster file already: give the GGUF model",
                        pi2_gguf_file_path(run->source, 0));
    }
    PI2_TRY(pi2_extent_layout_build(requests, request_count, &run->layout));
    PI2_TRY(pi2_cluster_header_make(run->source, run->layout, &run->header));
    PI2_TRY(pi2_gguf_writer_finish(run->header.writer, &run->header_bytes, &run->header_length));
    run->file_bytes = run->header_length + run->header.data_bytes;
    PI2_TRY(name_temporary(run));
    PI2_TRY(lock_output(run, &is_done));
    if (is_done) return PI2_OK;
    pi2_status status = check_space(run);
    if (status == PI2_OK) status = take_memory(run);
    if (status == PI2_OK) status = write_file(run);
    /* While the lock is held: a run that waits finds its file gone and begins anew. */
    if (status != PI2_OK) (void)unlink(run->temporary_path);
    return status;
}

pi2_status pi2_prepare(const pi2_gguf *source, const pi2_group_request *requests,
                       size_t request_count, const char *output_path,
                       const pi2_prepare_settings *settings) {
    static const pi2_prepare_calls system_calls = { system_write, system_sync, system_free_bytes };
    prepare_run run = { .source = source,
                        .output_path = output_path,
                        .settings = settings,
                        .calls = settings->calls ? *settings->calls : system_calls,
                        .file = -1 };
    const pi2_status status = prepare(&run, requests, request_count);
    close_file(&run);
    pi2_pages_release(run.buffer, run.buffer_bytes);
    free(run.extent_memory);
    pi2_extent_builder_close(run.builder);
    pi2_cluster_header_free(&run.header);
    pi2_extent_layout_free(run.layout);
    free(run.temporary_path);
    return status;
}
