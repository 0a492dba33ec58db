/*
 * prepare.c: source GGUF in, cluster file out.
 *
 *   1. lay out, make the header (checksums still zeros): the size is known
 *   2. lock the temporary file, look whether the work is done already, check the free space
 *   3. tables, then group by group: build extents in memory, checksum, write; beside it the source's hash
 *   4. the header with its checksums, last: until then the file begins with zeros
 *   5. fsync, rename, fsync of the folder
 *
 * Groups larger than a thread's buffer are built in several passes over their source rows.
 */
#define _DEFAULT_SOURCE /* flock: a lock that belongs to the open file, so threads exclude each
                           other too; in every libc of interest though not in POSIX */
#define _DARWIN_C_SOURCE

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

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/pages.h"
#include "clusters/neuron_order.h"
#include "clusters/prepare_internal.h"
#include "store/weight_file.h"

enum {
    DEFAULT_MEMORY_BYTES = 64 * 1000 * 1000,
    TABLE_CHUNK_BYTES = 256 * 1024,
    LEAST_SYNC_BYTES = 256 * 1024,
    MOST_SYNC_BYTES = 16 * 1024 * 1024,
    LOCK_WAIT_NS = 50 * 1000 * 1000
};

typedef pi2_prepare_run prepare_run;

/* ---- the temporary file, which is the lock ---------------------------------------------- */

static pi2_status fail_file(const prepare_run *run, const char *action) {
    const int reason = errno;
    return pi2_fail(PI2_ERR_IO, "%s: cannot %s: %s%s", run->temporary_path, action, strerror(reason),
                    reason == EROFS || reason == EACCES
                        ? ": choose another place for it"
                        : reason == ENOSPC || reason == EDQUOT ? ": make room on the disk" : "");
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

/** True when the file at `path` says of its FFN's activation what the source says, or both say nothing. */
static bool has_same_activation(const char *path, const pi2_gguf *source) {
    pi2_gguf *made;
    pi2_gguf_string there = { "", 0 }, wanted = { "", 0 };
    if (pi2_gguf_open(path, &made) != PI2_OK) return false;
    if (pi2_gguf_has(made, PI2_KEY_FFN_ACTIVATION)) (void)pi2_gguf_string_get(made, PI2_KEY_FFN_ACTIVATION, &there);
    if (pi2_gguf_has(source, PI2_KEY_FFN_ACTIVATION)) {
        (void)pi2_gguf_string_get(source, PI2_KEY_FFN_ACTIVATION, &wanted);
    }
    const bool same = there.length == wanted.length && memcmp(there.text, wanted.text, there.length) == 0;
    pi2_gguf_close(made);
    return same;
}

static pi2_status look_for_result(const prepare_run *run, bool *is_made_out) {
    struct stat status;
    *is_made_out = false;
    if (stat(run->output_path, &status) != 0) return PI2_OK;
    const pi2_prepare_settings *settings = run->settings;
    const pi2_cluster_wish wish = { settings->layout, settings->statistics ? settings->statistics->checksum : 0 };
    const pi2_status matches =
        pi2_cluster_file_matches(run->output_path, run->source, &wish, &settings->callbacks, NULL);
    *is_made_out = matches == PI2_OK && has_same_activation(run->output_path, run->source);
    return matches == PI2_ERR_INTERRUPTED ? matches : PI2_OK;
}

/** Opens and locks the temporary file, emptied. *is_done_out: a good result is there already. */
static pi2_status lock_output(prepare_run *run, bool *is_done_out) {
    bool overwrite = run->settings->overwrite;
    *is_done_out = false;
    /* Before anything is written: the folder may be one that we can only read. */
    if (!overwrite) PI2_TRY(look_for_result(run, is_done_out));
    if (*is_done_out) return PI2_OK;
    for (;;) {
        PI2_TRY(pi2_output_open_temporary(&run->place, run->temporary_path, O_RDWR, &run->file));
        PI2_TRY(wait_for_lock(run));
        if (lock_is_current(run)) break;
        close_file(run);
        overwrite = false; /* the run that we waited for has just made it */
    }
    if (!overwrite) PI2_TRY(look_for_result(run, is_done_out));
    if (*is_done_out) {
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
                    "or choose another place for it",
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
    atomic_store(&run->unsynced_bytes, 0);
    if (run->calls.sync(run->file) != 0) return fail_file(run, "write the file to the disk");
    (void)posix_fadvise(run->file, 0, 0, POSIX_FADV_DONTNEED);
    return PI2_OK;
}

pi2_status pi2_prepare_write(prepare_run *run, uint64_t offset, const void *bytes, size_t count) {
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
        const uint64_t unsynced =
            atomic_fetch_add(&run->unsynced_bytes, (uint64_t)written) + (uint64_t)written;
        if (unsynced >= run->sync_bytes) PI2_TRY(drop_behind(run));
    }
    return PI2_OK;
}

pi2_status pi2_prepare_report(prepare_run *run) {
    return pi2_progress_tell(&run->progress, atomic_load(&run->written_bytes));
}

void pi2_prepare_patch(prepare_run *run, size_t offset, uint64_t value) {
    uint8_t bytes[8];
    pi2_store_le64(bytes, value);
    pi2_gguf_writer_patch(run->header.writer, offset, bytes, sizeof bytes);
}

/* ---- tables ----------------------------------------------------------------------------- */

static pi2_status copy_table(prepare_run *run, uint32_t number, pi2_weight_file *file, XXH3_state_t *hash,
                             void *buffer) {
    const pi2_gguf_tensor *table = run->header.tables[number];
    const uint64_t start = run->header_length + run->header.table_offsets[number];
    PI2_TRY(pi2_weight_file_open(file, pi2_gguf_file_path(run->source, table->file_index)));
    (void)XXH3_64bits_reset(hash);
    for (uint64_t done = 0; done < table->bytes;) {
        const uint64_t left = table->bytes - done;
        const size_t count = left < TABLE_CHUNK_BYTES ? (size_t)left : TABLE_CHUNK_BYTES;
        const uint8_t *data;
        PI2_TRY(pi2_weight_file_read(file, table->file_offset + done, count, buffer, &data));
        (void)XXH3_64bits_update(hash, data, count);
        PI2_TRY(pi2_prepare_write(run, start + done, data, count));
        done += count;
    }
    pi2_prepare_patch(run, run->header.table_checksums_at + number * sizeof(uint64_t),
              XXH3_64bits_digest(hash));
    atomic_fetch_add(&run->written_bytes, (table->bytes + PI2_EXTENT_ALIGNMENT - 1) /
                                              PI2_EXTENT_ALIGNMENT * PI2_EXTENT_ALIGNMENT);
    return pi2_prepare_report(run);
}

static pi2_status copy_tables(prepare_run *run) {
    const size_t buffer_bytes = TABLE_CHUNK_BYTES + (size_t)PI2_WEIGHT_FILE_SLACK;
    void *buffer;
    PI2_TRY(pi2_pages_reserve(buffer_bytes, false, "preparing", &buffer));
    pi2_weight_file file = { 0 };
    XXH3_state_t *hash = XXH3_createState();
    pi2_status status = hash ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for a checksum");
    for (uint32_t i = 0; i < run->header.table_count && status == PI2_OK; i++) {
        status = copy_table(run, i, &file, hash, buffer);
    }
    pi2_weight_file_close(&file);
    (void)XXH3_freeState(hash);
    pi2_pages_release(buffer, buffer_bytes);
    return status;
}

/* ---- the order of things ---------------------------------------------------------------- */

static pi2_status write_header(prepare_run *run) {
    const uint64_t checksum_at = run->header.header_checksum_at;
    /* The reader's hash ends with the tensor table: the padding behind it is no part of it. */
    const uint64_t hash = XXH3_64bits(run->header_bytes, run->header.table_end);
    pi2_prepare_patch(run, checksum_at, hash);
    return pi2_prepare_write(run, 0, run->header_bytes, run->header_length);
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

static pi2_status write_file(prepare_run *run, uint64_t memory_bytes) {
    PI2_TRY(copy_tables(run));
    pi2_prepare_hash_begin(run);
    PI2_TRY(pi2_prepare_hash_end(run, pi2_prepare_groups(run, memory_bytes)));
    if (ftruncate(run->file, (off_t)run->file_bytes) != 0) return fail_file(run, "size the file");
    PI2_TRY(drop_behind(run));
    PI2_TRY(write_header(run));
    PI2_TRY(drop_behind(run));
    (void)pi2_source_remember(run->source, run->file);
    if (fsync(run->file) != 0) return fail_file(run, "write the file to the disk");
    PI2_TRY(pi2_output_take_place(&run->place, run->temporary_path));
    return sync_folder(run);
}

/** What the budget leaves for building groups, beside tables, header and page cache. */
static uint64_t memory_for_groups(prepare_run *run) {
    const pi2_extent_layout *layout = run->layout;
    const uint64_t budget =
        run->settings->memory_bytes ? run->settings->memory_bytes : DEFAULT_MEMORY_BYTES;
    run->sync_bytes = budget / 8 > MOST_SYNC_BYTES ? MOST_SYNC_BYTES : (size_t)budget / 8;
    if (run->sync_bytes < LEAST_SYNC_BYTES) run->sync_bytes = LEAST_SYNC_BYTES;
    run->held_bytes = run->header_length + layout->piece_count * sizeof *layout->pieces +
                      layout->extent_count * sizeof *layout->extents +
                      layout->group_count * sizeof *layout->groups + run->sync_bytes + PI2_SOURCE_HASH_BYTES +
                      (run->banks ? run->banks->count * sizeof *run->banks->banks : 0);
    return budget > run->held_bytes ? budget - run->held_bytes : 0;
}

/** Extents and banks, and whether the statistics are this model's. */
static pi2_status plan(prepare_run *run, const pi2_group_request *requests, size_t request_count) {
    const pi2_neuron_statistics *statistics = run->settings->statistics;
    pi2_source_identity identity;
    PI2_TRY(pi2_extent_layout_build(requests, request_count, run->settings->layout, &run->layout));
    if (run->settings->layout == PI2_LAYOUT_DENSE) {
        return statistics ? pi2_fail(PI2_ERR_INVALID, "statistics order neurons in the neuron layout only") : PI2_OK;
    }
    PI2_TRY(pi2_neuron_banks_plan(run->layout, run->settings->layout == PI2_LAYOUT_BUNDLE, &run->banks));
    if (!statistics) return PI2_OK;
    PI2_TRY(pi2_source_identity_of(run->source, &identity));
    return pi2_neuron_order_check(statistics, run->settings->statistics_name, identity.header_hash, run->banks);
}

static pi2_status prepare(prepare_run *run, const pi2_group_request *requests,
                          size_t request_count) {
    bool is_done;
    if (pi2_cluster_file_is(run->source)) {
        return pi2_fail(PI2_ERR_INVALID, "%s: this is a cluster file already: give the GGUF model",
                        pi2_gguf_file_path(run->source, 0));
    }
    PI2_TRY(plan(run, requests, request_count));
    PI2_TRY(pi2_cluster_header_make(run->source, run->layout, run->banks,
                                    run->settings->statistics ? run->settings->statistics->checksum : 0, &run->header));
    PI2_TRY(pi2_gguf_writer_finish(run->header.writer, &run->header_bytes, &run->header_length));
    run->file_bytes = run->header_length + run->header.data_bytes;
    run->progress.total_bytes = run->header.data_bytes;
    PI2_TRY(pi2_prepare_find_place(run));
    PI2_TRY(lock_output(run, &is_done));
    if (is_done) return PI2_OK;
    pi2_status status = check_space(run);
    const uint64_t memory_bytes = memory_for_groups(run);
    if (status == PI2_OK) status = write_file(run, memory_bytes);
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
                        .progress = { .callbacks = &settings->callbacks, .what = "preparing" },
                        .calls = settings->calls ? *settings->calls : system_calls,
                        .file = -1 };
    const pi2_status status = prepare(&run, requests, request_count);
    close_file(&run);
    pi2_cluster_header_free(&run.header);
    pi2_neuron_banks_free(run.banks);
    pi2_extent_layout_free(run.layout);
    free(run.inputs);
    return status;
}
