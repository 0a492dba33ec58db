/* cluster_file_verify.c: compares what a cluster file holds with its checksums. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/pages.h"
#include "base/progress.h"
#include "file_formats/cluster_file.h"
#include "file_formats/cluster_file_keys.h"
#include "store/weight_file.h"

enum { TABLE_CHUNK_BYTES = 1024 * 1024, WHAT_BYTES = 192 };

/** The one sentence about bytes that are not what prepare wrote. `what` may be cut: it holds a tensor's name. */
static pi2_status fail_difference(const char *path, const char *what, uint64_t bytes, uint64_t offset) {
    return pi2_fail(PI2_ERR_FORMAT,
                    "%s: %s (%" PRIu64 " bytes at byte %" PRIu64 ") does not match its checksum: the file or "
                    "the disk is damaged: delete the file and prepare the model again",
                    path, what, bytes, offset);
}

pi2_status pi2_cluster_file_check_extent(const char *path, const pi2_extent_layout *layout, uint32_t number,
                                         const void *bytes) {
    const pi2_extent *extent = &layout->extents[number];
    if (XXH3_64bits(bytes, extent->bytes) == extent->checksum) return PI2_OK;
    char what[WHAT_BYTES];
    (void)snprintf(what, sizeof what, "extent %" PRIu32 ", tensor '%s' and what lies with it", number,
                   layout->tensors[layout->pieces[extent->first_piece].tensor].name);
    return fail_difference(path, what, extent->bytes, extent->file_offset);
}

pi2_status pi2_cluster_file_check_run(const char *path, const pi2_extent_layout *layout, uint32_t extent,
                                      const pi2_piece *piece, uint32_t row, const void *bytes) {
    uint32_t length;
    const uint32_t offset = pi2_piece_run(layout, piece, row, &length);
    const uint64_t first = piece->row_begin + row;
    const uint32_t first_run = layout->groups[layout->extents[extent].group].first_run;
    if (XXH3_64bits(bytes, length) == layout->lookup_checksums[first_run + first / PI2_TILE_ROWS]) return PI2_OK;
    char what[WHAT_BYTES];
    (void)snprintf(what, sizeof what, "the run of rows from %" PRIu64 " on of tensor '%s'", first,
                   layout->tensors[piece->tensor].name);
    return fail_difference(path, what, length, layout->extents[extent].file_offset + offset);
}

/** The checksum that the file has for a table; false when it has none. */
static pi2_status find_table_checksum(const pi2_gguf *gguf, const char *name,
                                      uint64_t *checksum_out) {
    pi2_gguf_array names, checksums;
    pi2_gguf_string string;
    PI2_TRY(pi2_gguf_array_get(gguf, PI2_KEY_TABLE_NAMES, &names));
    PI2_TRY(pi2_gguf_array_get(gguf, PI2_KEY_TABLE_CHECKSUMS, &checksums));
    const size_t length = strlen(name);
    size_t cursor = 0;
    for (uint64_t i = 0; pi2_gguf_array_next_string(&names, &cursor, &string); i++) {
        if (string.length == length && memcmp(string.text, name, length) == 0 &&
            checksums.element_type == PI2_GGUF_U64 && i < checksums.count) {
            *checksum_out = pi2_gguf_array_u64(&checksums, i);
            return PI2_OK;
        }
    }
    return pi2_fail(PI2_ERR_FORMAT,
                    "%s: there is no checksum of tensor '%s': make the file again with prepare",
                    pi2_gguf_file_path(gguf, 0), name);
}

static pi2_status compare_table(const pi2_gguf *gguf, const pi2_gguf_tensor *table,
                                uint64_t checksum) {
    uint64_t wanted = 0;
    PI2_TRY(find_table_checksum(gguf, table->name, &wanted));
    if (wanted == checksum) return PI2_OK;
    char what[WHAT_BYTES];
    (void)snprintf(what, sizeof what, "tensor '%s'", table->name);
    return fail_difference(pi2_gguf_file_path(gguf, 0), what, table->bytes, table->file_offset);
}

pi2_status pi2_cluster_file_check_table(const pi2_gguf *gguf, const pi2_gguf_tensor *table,
                                        const void *bytes) {
    return compare_table(gguf, table, XXH3_64bits(bytes, (size_t)table->bytes));
}

/* ---- the whole file --------------------------------------------------------------------- */

typedef struct verifier {
    const pi2_gguf *gguf;
    const pi2_extent_layout *layout;
    pi2_progress progress;
    pi2_weight_file file;
    void *buffer;
    size_t buffer_bytes;
    XXH3_state_t *hash;
    uint64_t done_bytes;
} verifier;

static pi2_status advance(verifier *self, uint64_t bytes) {
    self->done_bytes += bytes;
    return pi2_progress_tell(&self->progress, self->done_bytes);
}

static pi2_status verify_table(verifier *self, const pi2_gguf_tensor *table) {
    (void)XXH3_64bits_reset(self->hash);
    for (uint64_t done = 0; done < table->bytes;) {
        const uint64_t left = table->bytes - done;
        const size_t count = left < TABLE_CHUNK_BYTES ? (size_t)left : TABLE_CHUNK_BYTES;
        const uint8_t *data;
        PI2_TRY(pi2_weight_file_read(&self->file, table->file_offset + done, count, self->buffer, &data));
        (void)XXH3_64bits_update(self->hash, data, count);
        PI2_TRY(advance(self, count));
        done += count;
    }
    return compare_table(self->gguf, table, XXH3_64bits_digest(self->hash));
}

static pi2_status verify_runs(const verifier *self, uint32_t number, const uint8_t *data) {
    const pi2_extent_layout *layout = self->layout;
    const pi2_extent *extent = &layout->extents[number];
    for (uint32_t p = extent->first_piece; p < extent->first_piece + extent->piece_count; p++) {
        const pi2_piece *piece = &layout->pieces[p];
        for (uint32_t row = 0; row < piece->row_count; row += PI2_TILE_ROWS) {
            uint32_t bytes;
            const uint8_t *run = data + pi2_piece_run(layout, piece, row, &bytes);
            PI2_TRY(pi2_cluster_file_check_run(pi2_gguf_file_path(self->gguf, 0), layout, number, piece, row, run));
        }
    }
    return PI2_OK;
}

static pi2_status verify_all(verifier *self) {
    const pi2_extent_layout *layout = self->layout;
    const char *path = pi2_gguf_file_path(self->gguf, 0);
    /* The header was compared with its checksum when the layout was read. */
    for (size_t i = 0; i < pi2_gguf_tensor_count(self->gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(self->gguf, i);
        if (tensor->type != PI2_CLUSTER_GROUP_TENSOR_TYPE) PI2_TRY(verify_table(self, tensor));
    }
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        const pi2_extent *extent = &layout->extents[i];
        const uint8_t *data;
        PI2_TRY(pi2_weight_file_read(&self->file, extent->file_offset, extent->bytes, self->buffer, &data));
        PI2_TRY(pi2_cluster_file_check_extent(path, layout, i, data));
        if (layout->groups[extent->group].first_run != PI2_NO_RUN) PI2_TRY(verify_runs(self, i, data));
        PI2_TRY(advance(self, extent->bytes));
    }
    return PI2_OK;
}

static pi2_status open_and_verify(verifier *self) {
    const uint32_t largest = pi2_extent_layout_largest(self->layout);
    self->progress.total_bytes = self->layout->weight_bytes;
    for (size_t i = 0; i < pi2_gguf_tensor_count(self->gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(self->gguf, i);
        if (tensor->type != PI2_CLUSTER_GROUP_TENSOR_TYPE) self->progress.total_bytes += tensor->bytes;
    }
    self->hash = XXH3_createState();
    if (!self->hash) return pi2_fail(PI2_ERR_MEMORY, "no memory for a checksum");
    self->buffer_bytes =
        (largest > TABLE_CHUNK_BYTES ? largest : TABLE_CHUNK_BYTES) + (size_t)PI2_WEIGHT_FILE_SLACK;
    PI2_TRY(pi2_pages_reserve(self->buffer_bytes, false, "verifying", &self->buffer));
    PI2_TRY(pi2_weight_file_open(&self->file, pi2_gguf_file_path(self->gguf, 0)));
    return verify_all(self);
}

pi2_status pi2_cluster_file_verify(const pi2_gguf *gguf, const pi2_callbacks *callbacks) {
    pi2_extent_layout *layout;
    pi2_source_identity source;
    PI2_TRY(pi2_cluster_file_layout(gguf, &layout, &source));
    verifier self = { .gguf = gguf, .layout = layout, .progress = { .callbacks = callbacks, .what = "verifying" } };
    const pi2_status status = open_and_verify(&self);
    pi2_weight_file_close(&self.file);
    pi2_pages_release(self.buffer, self.buffer_bytes);
    (void)XXH3_freeState(self.hash);
    pi2_extent_layout_free(layout);
    return status;
}
