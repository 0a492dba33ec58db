/*
 * cluster_file_source.c: whose weights a cluster file holds. Headers say nothing of weights and times prove nothing, so
 * samples of every tensor are compared each time, and the whole source where its time is not the remembered one.
 */
#define _DEFAULT_SOURCE /* st_mtim's nanoseconds */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/pages.h"
#include "base/progress.h"
#include "base/whole_file.h"
#include "file_formats/cluster_file.h"
#include "store/weight_file.h"

enum {
    SAMPLE_BYTES = 4096, WHOLE_BYTES = 16384, LARGE_BYTES = 64 << 20, /* of tensors */
    SAMPLES = 4, LARGE_SAMPLES = 8, MOST_SAMPLES = 4096, KEPT_SHARE = 1000
};
static const int64_t second_ns = 1000000000, recent_ns = 2000000000;

/* ---- what the header and the file system tell ---- */

pi2_status pi2_source_identity_of(const pi2_gguf *gguf, pi2_source_identity *identity_out) {
    XXH3_state_t *state = XXH3_createState();
    *identity_out = (pi2_source_identity){ 0 };
    if (!state) return pi2_fail(PI2_ERR_MEMORY, "no memory for a checksum");
    (void)XXH3_64bits_reset(state);
    for (size_t i = 0; i < pi2_gguf_file_count(gguf); i++) {
        uint8_t hash[8];
        pi2_store_le64(hash, pi2_gguf_file_header_hash(gguf, i));
        (void)XXH3_64bits_update(state, hash, sizeof hash);
        identity_out->bytes += pi2_gguf_file_bytes(gguf, i);
    }
    identity_out->header_hash = XXH3_64bits_digest(state);
    (void)XXH3_freeState(state);
    return PI2_OK;
}

/* The time that a cluster file of this source has: the source's own. Of several parts all have a say in its
 * nanoseconds. */
static int64_t remembered_time(const pi2_gguf *source) {
    int64_t newest = pi2_gguf_file_modified_ns(source, 0);
    uint64_t mixed = 0;
    const size_t count = pi2_gguf_file_count(source);
    if (count == 1) return newest;
    for (size_t i = 0; i < count; i++) {
        const int64_t modified = pi2_gguf_file_modified_ns(source, i);
        uint8_t pair[16];
        pi2_store_le64(pair, mixed);
        pi2_store_le64(pair + 8, (uint64_t)modified);
        mixed = XXH3_64bits(pair, sizeof pair);
        if (modified > newest) newest = modified;
    }
    return newest / second_ns * second_ns + (int64_t)(mixed % (uint64_t)second_ns);
}

/* A file that is changed twice within the clock's grain has one time for two contents. */
static bool changed_just_now(const pi2_gguf *source) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return true;
    const int64_t now_ns = (int64_t)now.tv_sec * second_ns + now.tv_nsec;
    for (size_t i = 0; i < pi2_gguf_file_count(source); i++) {
        const int64_t age = now_ns - pi2_gguf_file_modified_ns(source, i);
        if (age > -recent_ns && age < recent_ns) return true;
    }
    return false;
}

bool pi2_source_remember(const pi2_gguf *source, int cluster_file) {
    if (changed_just_now(source)) return true;
    const int64_t time_ns = remembered_time(source);
    struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { 0 } };
    times[1].tv_sec = (time_t)(time_ns / second_ns - (time_ns % second_ns < 0));
    times[1].tv_nsec = (long)((time_ns % second_ns + second_ns) % second_ns);
    struct stat status;
    return futimens(cluster_file, times) == 0 && fstat(cluster_file, &status) == 0 &&
           status.st_mtim.tv_sec == times[1].tv_sec && status.st_mtim.tv_nsec == times[1].tv_nsec;
}

bool pi2_source_is_remembered(const pi2_gguf *source, const pi2_gguf *cluster) {
    return pi2_gguf_file_modified_ns(cluster, 0) == remembered_time(source);
}

pi2_status pi2_source_check_unchanged(const pi2_gguf *source) {
    for (size_t i = 0; i < pi2_gguf_file_count(source); i++) {
        const char *path = pi2_gguf_file_path(source, i);
        struct stat status;
        if (stat(path, &status) != 0) return pi2_fail(PI2_ERR_IO, "%s: %s", path, strerror(errno));
        const int64_t modified = (int64_t)status.st_mtim.tv_sec * second_ns + status.st_mtim.tv_nsec;
        if (modified != pi2_gguf_file_modified_ns(source, i) ||
            (uint64_t)status.st_size != pi2_gguf_file_bytes(source, i)) {
            return pi2_fail(PI2_ERR_IO, "%s: the file was changed while it was read: try again when it is whole", path);
        }
    }
    return PI2_OK;
}

/* ---- samples ---- */

static uint64_t wished_samples(const pi2_gguf_tensor *tensor) {
    const uint64_t span = pi2_gguf_tensor_span(tensor);
    return span <= WHOLE_BYTES ? 1 : span <= LARGE_BYTES ? SAMPLES : LARGE_SAMPLES;
}

/* Sample `number` of `count` of a tensor: what it has of a block of the file, from its first block to its last. */
static void find_sample(const pi2_gguf_tensor *tensor, uint64_t number, uint64_t count, uint64_t *offset_out,
                        size_t *bytes_out) {
    const uint64_t span = pi2_gguf_tensor_span(tensor), begin = tensor->file_offset, end = begin + span;
    *offset_out = begin;
    *bytes_out = (size_t)span;
    if (span <= WHOLE_BYTES) return;
    const uint64_t first = begin / SAMPLE_BYTES, last = (end - 1) / SAMPLE_BYTES;
    const uint64_t block = count == 1 ? first + (last - first) / 2 : first + (last - first) * number / (count - 1);
    const uint64_t from = block * SAMPLE_BYTES > begin ? block * SAMPLE_BYTES : begin;
    const uint64_t to = (block + 1) * SAMPLE_BYTES < end ? (block + 1) * SAMPLE_BYTES : end;
    *offset_out = from;
    *bytes_out = (size_t)(to - from);
}

/* What is done with each sample. */
typedef struct sampler {
    const pi2_gguf *source;
    XXH3_state_t *hash;
    int file;
    uint32_t file_index;
    uint64_t sample_bytes, source_bytes;
    pi2_status (*take)(struct sampler *self, uint64_t offset, size_t bytes);
} sampler;

/* The disk is asked for all samples before one is waited for. */
static pi2_status ask_for(sampler *self, uint64_t offset, size_t bytes) {
    (void)posix_fadvise(self->file, (off_t)offset, (off_t)bytes, POSIX_FADV_WILLNEED);
    self->sample_bytes += bytes;
    return PI2_OK;
}

static pi2_status hash_sample(sampler *self, uint64_t offset, size_t bytes) {
    uint8_t buffer[WHOLE_BYTES];
    PI2_TRY(pi2_file_read_at(self->file, pi2_gguf_file_path(self->source, self->file_index), offset, bytes, buffer));
    (void)XXH3_64bits_update(self->hash, buffer, bytes);
    /* Memory is budgeted; but of a large model so little is sampled that it may stay cached, which makes the next
     * opening fast. */
    if (self->sample_bytes > self->source_bytes / KEPT_SHARE) {
        (void)posix_fadvise(self->file, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
    }
    return PI2_OK;
}

static pi2_status open_part(sampler *self, uint32_t file_index) {
    if (self->file >= 0 && self->file_index == file_index) return PI2_OK;
    if (self->file >= 0) (void)close(self->file);
    const char *path = pi2_gguf_file_path(self->source, file_index);
    self->file_index = file_index;
    self->file = open(path, O_RDONLY | O_CLOEXEC);
    if (self->file < 0) return pi2_fail(PI2_ERR_IO, "%s: %s", path, strerror(errno));
    (void)posix_fadvise(self->file, 0, 0, POSIX_FADV_RANDOM);
    return PI2_OK;
}

static pi2_status walk_samples(sampler *self) {
    uint64_t wished = 0;
    const size_t tensors = pi2_gguf_tensor_count(self->source);
    for (size_t i = 0; i < tensors; i++) wished += wished_samples(pi2_gguf_tensor_at(self->source, i));
    for (size_t i = 0; i < tensors; i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(self->source, i);
        uint64_t count = wished_samples(tensor);
        if (wished > MOST_SAMPLES) count = count * MOST_SAMPLES / wished;
        if (count == 0) count = 1;
        PI2_TRY(open_part(self, tensor->file_index));
        for (uint64_t number = 0; number < count && tensor->bytes > 0; number++) {
            uint64_t offset;
            size_t bytes;
            find_sample(tensor, number, count, &offset, &bytes);
            PI2_TRY(self->take(self, offset, bytes));
        }
    }
    return PI2_OK;
}

pi2_status pi2_source_sample_hash(const pi2_gguf *source, uint64_t *hash_out) {
    sampler self = { .source = source, .file = -1, .take = ask_for };
    self.hash = XXH3_createState();
    if (!self.hash) return pi2_fail(PI2_ERR_MEMORY, "no memory for a checksum");
    (void)XXH3_64bits_reset(self.hash);
    for (size_t i = 0; i < pi2_gguf_file_count(source); i++) self.source_bytes += pi2_gguf_file_bytes(source, i);
    pi2_status status = walk_samples(&self);
    self.take = hash_sample;
    if (status == PI2_OK) status = walk_samples(&self);
    if (self.file >= 0) (void)close(self.file);
    *hash_out = XXH3_64bits_digest(self.hash);
    (void)XXH3_freeState(self.hash);
    return status;
}

/* ---- all of it ---- */

typedef struct whole {
    const pi2_gguf *source;
    pi2_progress progress;
    XXH3_state_t *hash;
    void *buffer;
    size_t chunk_bytes;
    uint64_t done_bytes;
} whole;

static pi2_status hash_part(whole *self, size_t number) {
    pi2_weight_file file = { 0 };
    pi2_status status = pi2_weight_file_open(&file, pi2_gguf_file_path(self->source, number));
    const uint64_t bytes = pi2_gguf_file_bytes(self->source, number);
    for (uint64_t done = 0; done < bytes && status == PI2_OK;) {
        const size_t count = bytes - done < self->chunk_bytes ? (size_t)(bytes - done) : self->chunk_bytes;
        const uint8_t *data;
        status = pi2_weight_file_read(&file, done, count, self->buffer, &data);
        if (status != PI2_OK) break;
        (void)XXH3_64bits_update(self->hash, data, count);
        done += count;
        self->done_bytes += count;
        status = pi2_progress_tell(&self->progress, self->done_bytes);
    }
    pi2_weight_file_close(&file);
    return status;
}

pi2_status pi2_source_hash(const pi2_gguf *source, size_t chunk_bytes, const pi2_callbacks *callbacks,
                           uint64_t *hash_out) {
    whole self = { .source = source, .chunk_bytes = chunk_bytes,
                   .progress = { .callbacks = callbacks, .what = "comparing" } };
    const size_t buffer_bytes = chunk_bytes + PI2_WEIGHT_FILE_SLACK;
    const size_t parts = pi2_gguf_file_count(source);
    for (size_t i = 0; i < parts; i++) self.progress.total_bytes += pi2_gguf_file_bytes(source, i);
    PI2_TRY(pi2_pages_reserve(buffer_bytes, false, "comparing", &self.buffer));
    self.hash = XXH3_createState();
    pi2_status status = self.hash ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for a checksum");
    if (self.hash) (void)XXH3_64bits_reset(self.hash);
    for (size_t i = 0; i < parts && status == PI2_OK; i++) status = hash_part(&self, i);
    if (status == PI2_OK) *hash_out = XXH3_64bits_digest(self.hash);
    (void)XXH3_freeState(self.hash);
    pi2_pages_release(self.buffer, buffer_bytes);
    return status;
}
